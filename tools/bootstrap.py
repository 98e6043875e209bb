"""Build the environment .venv of this clone, once: `python3 tools/bootstrap.py`.

It chooses a Python, refuses in one sentence what cannot work, installs what requirements.lock says
(by hash; nothing is resolved, nothing compiled), then the project itself and its kernel. A stamp,
written last, lets the next call return at once. PYTHON=python3.12 and EXTRA=cpu|gpu overrule it.

Standard library only, and nothing newer than Python 3.6: it has to start on a Python that is too
old, to say so.
"""

import ctypes
import hashlib
import json
import os
import platform
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "stamp.json")
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("cpu", "gpu")
MADE_FROM = ("pyproject.toml", "requirements.lock", "tools/bootstrap.py", "tools/d2lres.pth")
WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"))


class Refusal(Exception):
    """A sentence for the user: what is wrong and what to do about it."""


# --- What is here ---------------------------------------------------------------------------------


def facts():
    """What matters about this Python and its system."""
    return {
        "python": getattr(sys, "_base_executable", None) or sys.executable,  # not that of a venv
        "version": list(sys.version_info[:3]),
        "venv": importable("venv") and importable("ensurepip"),  # Debian packs these apart
        "system": platform.system(),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[0] == "glibc",
        "missing": [name for name in system_libraries() if not loads(name)],
    }


def importable(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def loads(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def system_libraries():
    """The shared libraries that MXNet's wheel expects of a system and a small one may lack."""
    if platform.system() != "Linux":
        return []
    return ["libgomp.so.1"] + {
        "x86_64": ["libquadmath.so.0"],
        "aarch64": ["libarmpl_lp64_mp.so"],
    }.get(platform.machine(), [])


def ask(python):
    """The `facts` of another Python; None if it does not run, as a shim of pyenv may not."""
    try:
        answer = subprocess.check_output(
            [python, os.path.abspath(__file__), "--facts"], stderr=subprocess.DEVNULL, timeout=60
        )
        return json.loads(answer.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def minor(about):
    """The version as it is in a name: "3.12"."""
    return "%d.%d" % tuple(about["version"][:2])


def supported(about):
    return minor(about) in VERSIONS


def choose_python():
    """The facts of $PYTHON (which runs this), or of the first Python on the PATH that serves."""
    mine = facts()
    if os.environ.get("PYTHON") or (supported(mine) and mine["venv"]):
        return mine
    others = [ask("python" + version) for version in reversed(VERSIONS)]
    return max([mine] + [o for o in others if o], key=lambda o: (supported(o), o["venv"]))


def has_gpu_wheel(about):
    return (about["system"], about["machine"]) == ("Linux", "x86_64")


def driver_answers():
    """Whether `nvidia-smi` runs and lists a GPU."""
    try:
        listing = subprocess.check_output(
            ["nvidia-smi", "-L"], stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return listing.startswith(b"GPU ")


def choose_extra(about):
    """$EXTRA, or gpu if there are a driver that answers and a wheel for this system, or cpu."""
    if os.environ.get("EXTRA"):
        return os.environ["EXTRA"]
    return "gpu" if has_gpu_wheel(about) and driver_answers() else "cpu"


# --- What cannot work -----------------------------------------------------------------------------


def check(about, extra):
    """Raise a `Refusal` if the course cannot run on these facts."""
    system, machine = about["system"], about["machine"]
    version = ".".join(map(str, about["version"]))
    if system == "Windows" or system.startswith(("CYGWIN", "MSYS", "MINGW")):
        raise Refusal(
            "MXNet has no wheel for Windows: run `wsl --install`, open Ubuntu (WSL 2) "
            "and call make there, in a clone inside its own file system."
        )
    if (system, machine) == ("Darwin", "arm64"):
        raise Refusal(
            "MXNet has no wheel for Apple silicon: work in a Linux container, for example "
            '`docker run --platform linux/amd64 -it -v "$PWD":/course -w /course python:3.12 bash`.'
        )
    if (system, machine) not in WHEELS or (system == "Linux" and not about["glibc"]):
        raise Refusal(
            "MXNet has no wheel for this system (%s on %s): it takes Linux with glibc "
            "(Debian, Ubuntu, Fedora) on x86-64 or 64-bit Arm, or an Intel Mac." % (system, machine)
        )
    if not supported(about):
        raise Refusal(
            "the course needs Python 3.10 to 3.13 and this is %s (%s): install one of them "
            "and name it, as in `make PYTHON=python3.12 lab`." % (version, about["python"])
        )
    if "libarmpl_lp64_mp.so" in about["missing"]:
        raise Refusal(
            "MXNet's wheel for 64-bit Arm needs the Arm Performance Libraries and they are not "
            "found: install them from Arm and put their lib folder into LD_LIBRARY_PATH, or work "
            "in a container made with `docker run --platform linux/amd64`."
        )
    if about["missing"]:
        raise Refusal(
            "MXNet needs %s of the system: `sudo apt install libgomp1 libquadmath0` (Debian, "
            "Ubuntu) or `sudo dnf install libgomp libquadmath` (Fedora) and call make again."
            % " and ".join(about["missing"])
        )
    if not about["venv"]:
        raise Refusal(
            "Python %s (%s) came without venv and ensurepip: `sudo apt install python%s-venv` "
            "and call make again." % (version, about["python"], minor(about))
        )
    if extra not in EXTRAS:
        raise Refusal("EXTRA is %r: say EXTRA=cpu or EXTRA=gpu." % extra)
    if extra == "gpu" and not has_gpu_wheel(about):
        raise Refusal("MXNet's GPU wheel is for Linux on x86-64 only: say EXTRA=cpu.")


# --- What to install ------------------------------------------------------------------------------


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def listed(extra):
    """The packages that pyproject.toml lists in an extra (Python 3.10 has no TOML reader)."""
    block = re.search(r"^%s = \[\n(.*?)^\]" % extra, read("pyproject.toml"), re.M | re.S).group(1)
    return re.findall(r'^\s*"([\w-]+)', block, re.M)


def requirements(extra):
    """The requirements of the lock, each with its hashes, less those of the other extra."""
    other = {name for each in EXTRAS if each != extra for name in listed(each)}
    blocks = re.findall(r"^\w.*\n(?:[ ].*\n)*", read("requirements.lock"), re.M)
    return [block for block in blocks if block.split("==")[0] not in other]


def stamp(python, extra):
    """What an environment was made from: another stamp asks for another environment."""
    digest = hashlib.sha256("".join(map(read, MADE_FROM)).encode()).hexdigest()
    return {"root": ROOT, "files": digest, "python": os.path.realpath(python), "extra": extra}


def is_ready():
    """Whether .venv is finished and still what is asked for; no choice means no change."""
    try:
        with open(STAMP) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return False
    python = facts()["python"] if os.environ.get("PYTHON") else found.get("python")
    wanted = stamp(python, os.environ.get("EXTRA") or found.get("extra"))
    return found == wanted and os.path.exists(VENV_PYTHON)


def build(python, extra):
    """Make .venv from nothing; it counts only once its stamp is written."""
    if os.path.exists(STAMP):
        os.remove(STAMP)
    subprocess.check_call([python, "-I", "-m", "venv", "--clear", VENV])
    chosen = requirements(extra)
    just_uv = locked("uv.txt", [block for block in chosen if block.startswith("uv==")])
    everything = locked("requirements.txt", chosen)
    must("pip", "install", "--quiet", *just_uv)
    # pip fetches one file after the other, which takes minutes where uv takes seconds. But uv does
    # not know of the mirror, proxy or certificate that a school may have put into pip's settings.
    uv = ["uv", "--system-certs", "pip", "install", "--python", VENV_PYTHON]
    if not run(*uv, *everything):
        print(
            "d2lres: uv could not get the packages; now pip tries, which takes longer", flush=True
        )
        must("pip", "install", *everything)
    must("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    must("ipykernel", "install", "--sys-prefix", "--name=d2lres", "--display-name=d2lres")
    with open(STAMP, "w") as file:
        json.dump(stamp(python, extra), file)


def locked(name, blocks):
    """The arguments that install these blocks of the lock, and nothing else, in pip and in uv."""
    path = os.path.join(VENV, name)
    with open(path, "w") as file:
        file.writelines(blocks)
    return ["--no-deps", "--require-hashes", "--only-binary=:all:", "-r", path]


def run(*module):
    """Whether this module with its arguments went well in .venv's Python."""
    settings = dict(os.environ, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return subprocess.call([VENV_PYTHON, "-I", "-m", *module], cwd=ROOT, env=settings) == 0


def must(*module):
    if not run(*module):
        raise Refusal(
            "the set-up stopped at what is said above: see that this machine reaches the network "
            "and has room on its disk, and call make again."
        )


def main():
    if sys.argv[1:] == ["--facts"]:
        print(json.dumps(facts()))
        return 0
    if is_ready():
        return 0
    try:
        about = choose_python()
        extra = choose_extra(about)
        check(about, extra)
        print("d2lres: setting up .venv (Python %s, %s), once" % (minor(about), extra), flush=True)
        build(about["python"], extra)
    except Refusal as refusal:
        sys.stderr.write("d2lres: %s\n" % refusal)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nd2lres: interrupted; the next make begins again.\n")
        return 130
    print("d2lres: .venv is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
