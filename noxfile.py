"""`make test-pythons`: the library's tests on every supported Python that is found here.

A Python that is not found is skipped, and said to be. At least .venv's own is always there.
"""

import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))
from bootstrap import VERSIONS, ask, minor, requirements  # noqa: E402

nox.options.sessions = ["locked", "pinned"]
UV = [sys.executable, "-m", "uv", "--quiet"]


def find(version):
    """A Python of this version that runs: .venv's, on the PATH, or pyenv's behind a dead shim."""
    name = f"python{version}"
    hidden = Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")
    answers = map(ask, [sys.executable, name, *map(str, sorted(hidden))])
    return next((about["python"] for about in answers if about and minor(about) == version), None)


PYTHONS = {version: find(version) for version in VERSIONS}


def new_environment(session, version):
    """The Python of a new, empty environment under .nox/."""
    if not PYTHONS[version]:
        session.skip(f"Python {version} is not found on this machine")
    folder = ROOT / ".nox" / session.name
    session.run(*UV, "venv", "--clear", "--python", PYTHONS[version], str(folder), external=True)
    return str(folder / "bin" / "python")


def install_locked(session, python, extra):
    """Install the project and, of requirements.lock, what belongs to an extra."""
    listing = ROOT / ".nox" / session.name / "requirements.txt"
    listing.write_text("".join(requirements(extra)))
    install = [*UV, "pip", "install", "--python", python, "--no-deps"]
    session.run(*install, "--require-hashes", "-r", str(listing), external=True)
    session.run(*install, "--no-build-isolation", "--editable", str(ROOT), external=True)


def run_tests(session, python):
    versions = "import mxnet, numpy, sys; print(sys.version.split()[0], 'NumPy', numpy.__version__)"
    session.run(python, "-c", versions, external=True)
    quick = {"D2LRES_SCALE": "quick"}
    session.run(python, "-m", "pytest", "tests", *session.posargs, env=quick, external=True)


# nox finds only what is on the PATH, so the environments are made here.
@nox.session(python=False)
@nox.parametrize("version", VERSIONS, ids=VERSIONS)
def locked(session, version):
    """Every version as it is in requirements.lock."""
    python = new_environment(session, version)
    install_locked(session, python, "cpu")
    run_tests(session, python)


@nox.session(python=False)
def pinned(session):
    """MXNet's and d2l's own pins (NumPy 1.23.5) on the last Python that has wheels for them."""
    python = new_environment(session, "3.11")
    install = [*UV, "pip", "install", "--python", python]
    # --no-config: without the overrides of pyproject.toml
    session.run(*install, "--no-config", "--editable", f"{ROOT}[cpu,onnx,dev]", external=True)
    session.run(*UV, "pip", "check", "--python", python, external=True)
    run_tests(session, python)


@nox.session(python=False)
def gpu(session):
    """The gpu extra up to the driver, of which gcc makes a stub (`nox -s gpu`; downloads 2 GB)."""
    python = new_environment(session, "3.12")
    install_locked(session, python, "gpu")
    folder = ROOT / ".nox" / session.name
    check = [python, str(ROOT / "tests" / "driver" / "check_gpu.py")]
    session.run(*check, external=True, success_codes=[1])  # no driver: the import fails in words
    source, library = ROOT / "tests" / "driver" / "libcuda.c", folder / "libcuda.so.1"
    session.run("gcc", "-shared", "-fPIC", "-o", str(library), str(source), external=True)
    session.run(*check, env={"LD_LIBRARY_PATH": str(folder)}, external=True)
