"""What keeps MXNet from working, and the cure: one sentence for each thing.

They are said when MXNet is imported, and before that by tools/bootstrap.py, which runs this file by
its path. So it takes the standard library only, and starts on Python 3.6 to say that it is too old.
"""

import ctypes
import os
import platform
import shutil
import sys

__all__ = ["before_setup", "has_gpu_wheel", "installed", "loads", "obstacles"]

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("cpu", "gpu")
GIGABYTES = {"cpu": 1, "gpu": 5}  # that an environment takes on the disk
WHEELS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"))


def obstacles(amx_refused: bool = False) -> list:
    """Say what keeps MXNet from working in this process.

    `amx_refused` is whether AMX is asked for by the environment and refused by the kernel.
    """
    packages = installed()
    found = _of_python()
    if not packages:
        cure = "run `make lab`, or `pip install --no-deps mxnet==1.9.1`"
        found += _of_system() or ["MXNet is not installed: %s." % cure]
    if len(packages) > 1:
        found.append(
            "mxnet and mxnet-cu112 are both installed and overwrite each other's files: "
            "run `make clean`, then `make lab`."
        )
    if packages:
        found += _of_libraries()
    if "mxnet-cu112" in packages and not loads("libcuda.so.1"):
        found.append(
            "mxnet-cu112 needs NVIDIA's driver (libcuda.so.1), which is not installed: "
            "install the driver, or use the CPU with `make clean`, then `make lab EXTRA=cpu`."
        )
    if amx_refused:
        found.append(
            "DNNL_MAX_CPU_ISA=AVX512_CORE_AMX asks for AMX, which the kernel refuses, and the "
            "first convolution would end Python: unset it."
        )
    return found


def before_setup() -> list:
    """Say what keeps the course from being set up with this Python."""
    return _of_system() + _of_python() + _of_libraries() + _of_what_python_lacks()


def of_extra(extra: str) -> list:
    """Say what is wrong with the choice of an MXNet."""
    if extra not in EXTRAS:
        return ["EXTRA is %r: say EXTRA=cpu or EXTRA=gpu." % extra]
    if extra == "gpu" and not has_gpu_wheel():
        return ["MXNet's GPU wheel is for Linux on x86-64 only: say EXTRA=cpu."]
    return []


def of_folder(clone: str) -> list:
    """Say why a clone in this folder cannot be set up."""
    if os.pathsep in clone:
        return [
            "the path of this clone (%s) holds a colon, which separates the folders of PATH: move "
            "it to a folder without one and call make again." % clone
        ]
    if not os.access(clone, os.W_OK):
        return [
            "nothing can be written into this clone (%s): copy it to a folder of your own and call "
            "make there." % clone
        ]
    return []


def of_disk(folder: str, extra: str) -> list:
    """Say that an environment has no room in this folder, if so."""
    if shutil.disk_usage(folder).free >= GIGABYTES[extra] * 10**9:
        return []
    return [
        "the set-up takes %d GB, and the disk of this clone (%s) has less than that left: make "
        "room and call make again." % (GIGABYTES[extra], folder)
    ]


def has_gpu_wheel() -> bool:
    """Return whether there is an ``mxnet-cu112`` for this system."""
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")


def installed() -> dict:
    """Return name and version of the MXNet packages that are installed."""
    from importlib import metadata  # not in Python 3.6

    found = {}
    for name in ("mxnet", "mxnet-cu112"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def loads(library) -> bool:
    """Return whether a shared library can be loaded; from then on, others find it loaded."""
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _of_system():
    system, machine = platform.system(), platform.machine()
    if system == "Windows" or system.startswith(("CYGWIN", "MSYS", "MINGW")):
        return [
            "MXNet has no wheel for Windows: run `wsl --install`, open Ubuntu (WSL 2) "
            "and call make there, in a clone inside its own file system."
        ]
    if (system, machine) == ("Darwin", "arm64"):
        return [
            "MXNet has no wheel for Apple silicon: work in a Linux container, for example "
            '`docker run --platform linux/amd64 -it -v "$PWD":/course -w /course python:3.12 bash`.'
        ]
    has_glibc = system != "Linux" or platform.libc_ver()[0] == "glibc"
    if (system, machine) in WHEELS and has_glibc:
        return []
    return [
        "MXNet has no wheel for this system (%s on %s): it takes Linux with glibc "
        "(Debian, Ubuntu, Fedora) on x86-64 or 64-bit Arm, or an Intel Mac." % (system, machine)
    ]


def _of_python():
    if "%d.%d" % sys.version_info[:2] in VERSIONS:
        return []
    return [
        "MXNet 1.9.1 runs here on Python 3.10 to 3.13, and this is Python %s (%s): install one of "
        "those and name it, as in `make PYTHON=python3.12 lab`."
        % (platform.python_version(), sys.executable)
    ]


def _of_libraries():
    """The shared libraries that MXNet's wheel expects of a system and a small one may lack."""
    if platform.system() != "Linux":
        return []
    if platform.machine() == "aarch64" and not loads("libarmpl_lp64_mp.so"):
        return [
            "MXNet's wheel for 64-bit Arm needs the Arm Performance Libraries and they are not "
            "found: install them from Arm and put their lib folder into LD_LIBRARY_PATH, or work "
            "in a container made with `docker run --platform linux/amd64`."
        ]
    names = ["libgomp.so.1"] + ["libquadmath.so.0"] * (platform.machine() == "x86_64")
    missing = [name for name in names if not loads(name)]
    if not missing:
        return []
    debian = " ".join(name.replace(".so.", "") for name in missing)
    fedora = " ".join(name.split(".")[0] for name in missing)
    return [
        "MXNet needs %s of the system: run `sudo apt-get install %s` (Debian, Ubuntu) or "
        "`sudo dnf install %s` (Fedora)." % (" and ".join(missing), debian, fedora)
    ]


def _of_what_python_lacks():
    """The parts of Python that Debian packs apart."""
    lacking = [name for name in ("venv", "ensurepip") if not importable(name)]
    if not lacking:
        return []
    return [
        "Python %s (%s) came without %s: run `sudo apt-get install python%d.%d-venv` and call "
        "make again."
        % (platform.python_version(), sys.executable, " and ".join(lacking), *sys.version_info[:2])
    ]


def importable(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True
