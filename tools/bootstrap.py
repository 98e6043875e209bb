"""Build the environment .venv of this clone, once: `python3 tools/bootstrap.py`.

It chooses a Python, refuses in one sentence what cannot work (d2lres/runtime/obstacles.py), and
installs what requirements-cpu.lock or -gpu.lock says (by hash; nothing is resolved, nothing
compiled), then the project itself and its kernel. A stamp, written last, lets the next call return
at once. PYTHON=python3.12 and EXTRA=cpu|gpu overrule it.

Standard library only, and nothing newer than Python 3.6, on which it starts to say: too old.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "stamp.json")
LOCK = "requirements-%s.lock"
MADE_FROM = ("pyproject.toml", "tools/bootstrap.py", "tools/d2lres.pth", "tools/_d2lres_hook.py")

spec = importlib.util.spec_from_file_location("obstacles", ROOT + "/d2lres/runtime/obstacles.py")
obstacles = importlib.util.module_from_spec(spec)
spec.loader.exec_module(obstacles)


def say(sentence):
    print("d2lres: %s" % sentence, flush=True)


def stop(sentence):
    """End with a sentence on stderr: what is wrong and what to do about it."""
    sys.exit("d2lres: %s" % sentence)


def facts():
    """What matters about this Python, on this system."""
    return {
        "python": getattr(sys, "_base_executable", None) or sys.executable,  # not that of a venv
        "version": "%d.%d" % sys.version_info[:2],
        "obstacles": obstacles.before_setup(),
    }


def output(*command):
    """What a program prints; nothing if it does not run, as a shim of pyenv may not."""
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=60).decode()
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def ask(python):
    """The `facts` of another Python, in a list; an empty one if it does not run."""
    lines = output(python, os.path.abspath(__file__), "--facts").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def choose_python():
    """The facts of $PYTHON (which runs this), or of the first Python on the PATH that serves."""
    found = [facts()]
    if found[0]["obstacles"] and not os.environ.get("PYTHON"):
        found += sum((ask("python" + version) for version in reversed(obstacles.VERSIONS)), [])
    return min(found, key=lambda a: (a["version"] not in obstacles.VERSIONS, len(a["obstacles"])))


def choose_extra():
    """$EXTRA, or gpu if there is a wheel for this system and `nvidia-smi` lists a GPU, or cpu."""
    if os.environ.get("EXTRA"):
        return os.environ["EXTRA"]
    has_gpu = obstacles.has_gpu_wheel() and output("nvidia-smi", "-L").startswith("GPU ")
    return "gpu" if has_gpu else "cpu"


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def stamp(python, extra):
    """What an environment was made from: another stamp asks for another environment."""
    files = "".join(map(read, MADE_FROM + (LOCK % extra,)))
    digest = hashlib.sha256(files.encode()).hexdigest()
    return {"root": ROOT, "files": digest, "python": os.path.realpath(python), "extra": extra}


def is_ready():
    """Whether .venv is finished and still what is asked for; no choice means no change."""
    try:
        with open(STAMP) as file:
            found = json.load(file)
        python = facts()["python"] if os.environ.get("PYTHON") else found["python"]
        wanted = stamp(python, os.environ.get("EXTRA") or found["extra"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return found == wanted and os.path.exists(VENV_PYTHON)


@contextlib.contextmanager
def alone():
    """Wait until no other make sets up this clone, then have others wait."""
    import fcntl  # not in Windows

    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)  # if this is killed, what it has called goes on for a while
    try:
        with contextlib.suppress(OSError):  # a network drive may have no locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def build(python, extra):
    """Make .venv from nothing; it counts only once its stamp is written."""
    if os.path.exists(STAMP):
        os.remove(STAMP)
    made = run("venv", "--clear", VENV, python=python)
    for sentence in obstacles.of_disk(ROOT, extra):  # now that nothing old takes room
        stop(sentence)
    if not made:
        stop("Python could not make %s, as said above: delete it and call make again." % VENV)
    uv_alone = os.path.join(VENV, "uv.txt")
    with open(uv_alone, "w") as file:
        file.write(re.search(r"^uv==.*\n( .*\n)*", read(LOCK % extra), re.M).group())
    install = ["install", "--no-deps", "--require-hashes", "--only-binary=:all:", "-r"]
    must("pip", *install, uv_alone, "--quiet")
    # pip fetches one file after the other, which takes minutes where uv takes seconds. But uv does
    # not know of the mirror, proxy or certificate that a school may have put into pip's settings.
    uv = ["uv", "--system-certs", "pip"]
    if not run(*uv, *install, LOCK % extra, "--python", VENV_PYTHON):
        say("uv could not get the packages; now pip tries, which takes longer")
        must("pip", *install, LOCK % extra)
    must("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    must("ipykernel", "install", "--sys-prefix", "--name=d2lres", "--display-name=d2lres")
    with open(STAMP, "w") as file:
        json.dump(stamp(python, extra), file)


def run(*module, python=VENV_PYTHON):
    """Whether this module with its arguments went well."""
    settings = dict(os.environ, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    home = os.path.expanduser("~")  # where uv and pip keep what they fetched
    if not (os.path.isabs(home) and os.access(home, os.W_OK)):
        settings["HOME"] = VENV
    command = [python, "-I", "-m", *module]
    return subprocess.call(command, cwd=ROOT, env=settings, close_fds=False) == 0


def must(*module):
    if not run(*module):
        stop(
            "the set-up stopped at what is said above: see that this machine reaches the network "
            "and has room on its disk, and call make again."
        )


def main():
    if sys.argv[1:] == ["--facts"]:
        return print(json.dumps(facts()))
    if is_ready():
        return
    try:
        about, extra = choose_python(), choose_extra()
        for sentence in about["obstacles"] + obstacles.of_extra(extra) + obstacles.of_folder(ROOT):
            stop(sentence)
        with alone():
            if not is_ready():  # another make may have done it
                say("setting up .venv (Python %s, %s), once" % (about["version"], extra))
                build(about["python"], extra)
                say(".venv is ready")
    except OSError as error:
        stop("%s: see that you may write there and have room, and call make again." % error)
    except KeyboardInterrupt:
        sys.stderr.write("\nd2lres: interrupted; the next make begins again.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
