"""pyproject.toml, the locks, environment.yml and the Makefile say the same."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import bootstrap  # noqa: E402

from d2lres.runtime.obstacles import EXTRAS, VERSIONS  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
OPTIONAL = PROJECT["project"]["optional-dependencies"]
LOCKS = {extra: (ROOT / (bootstrap.LOCK % extra)).read_text() for extra in EXTRAS}
OF_BOTH = [*DEPENDENCIES, *OPTIONAL["onnx"], *OPTIONAL["dev"]]


def environment(version):
    """The values of markers on Linux with this Python."""
    system = {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}
    return {**system, "python_version": version, "python_full_version": version + ".9"}


def by_name(lines, version):
    """The requirements that apply to a Python, by name."""
    found = defaultdict(list)
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate(environment(version)):
            found[canonicalize_name(requirement.name)].append(requirement)
    return found


def locked(version, extra):
    """What a lock has for a Python: a list per name, of one version if all is well."""
    return by_name(re.findall(r"^\w.*?(?= \\$)", LOCKS[extra], re.M), version)


def the_version(requirements):
    (requirement,) = requirements
    return str(requirement.specifier).removeprefix("==")


each_extra = pytest.mark.parametrize("extra", EXTRAS)
each_version = pytest.mark.parametrize("version", VERSIONS)


@each_extra
@each_version
def test_a_lock_holds_what_pyproject_asks_for(version, extra):
    lock = locked(version, extra)
    asked = by_name([*OF_BOTH, *OPTIONAL[extra], *PROJECT["build-system"]["requires"]], version)
    for name, requirements in asked.items():
        for requirement in requirements:
            assert the_version(lock[name]) in requirement.specifier, requirement
    assert {name: len(found) for name, found in lock.items() if len(found) > 1} == {}
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])


@each_version
def test_the_locks_differ_in_mxnet_only(version):
    cpu, gpu = (locked(version, extra) for extra in EXTRAS)
    assert cpu.keys() - gpu.keys() == {"mxnet"} and len(cpu) > 100
    assert gpu.keys() - cpu.keys() == {Requirement(line).name for line in OPTIONAL["gpu"]}
    for name in cpu.keys() & gpu.keys():
        assert the_version(cpu[name]) == the_version(gpu[name]), name


def test_the_locks_and_the_old_pins_span_numpy():
    """What `make test-pythons` covers: 1.23 by d2l's pins, 2.2 on Python 3.10, the last on 3.13."""
    pins = map(Requirement, importlib.metadata.requires("d2l"))
    assert [str(pin.specifier) for pin in pins if pin.name == "numpy"] == ["==1.23.5"]
    numpy = [the_version(locked(version, "cpu")["numpy"]) for version in VERSIONS]
    assert numpy[0].startswith("2.2.") and tuple(map(int, numpy[-1].split("."))) >= (2, 5)


def test_pyproject_lists_what_the_library_imports():
    imported = set()
    for path in (ROOT / "d2lres").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    owners = importlib.metadata.packages_distributions()
    outside = imported - set(sys.stdlib_module_names) - {"d2lres", "mxnet", "dmlc_tracker"}
    # Python 3.10 does not find every owner; a package then bears the name it is imported by
    needed = {canonicalize_name(owner) for name in outside for owner in owners.get(name, [name])}
    listed = {Requirement(line).name for line in DEPENDENCIES + OPTIONAL["onnx"]}
    assert "numpy" in needed and needed <= listed


@each_extra
def test_a_lock_has_hashes_and_names_no_host_and_no_folder(extra):
    lock = LOCKS[extra]
    blocks = re.findall(r"^\w.*\n(?:[ ].*\n)*", lock, re.M)
    assert len(blocks) > 100
    assert [b for b in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", b)] == []
    assert [b for b in blocks if not re.match(r"[a-z0-9-]+==[\w.]+ ", b)] == []
    assert "make lock" in lock[: lock.index("==")]
    for line in lock.splitlines():
        assert not re.search(r"://|\.(com|org|net|io)\b|\s/|@|^ *--(?!hash=)", line), line


@each_extra
def test_a_lock_has_nothing_that_pyproject_no_longer_asks_for(extra):
    direct = set()  # those whose `# via` names d2lres itself
    for block in re.findall(r"^\w.*\n(?:[ ].*\n)*", LOCKS[extra], re.M):
        comments = re.sub(r".*?# via", "", block, count=1, flags=re.S)
        if "d2lres" in re.findall(r"^ *(?:# +)?([\w.-]+)", comments, re.M):
            direct.add(block.split("==")[0])
    assert direct == {Requirement(line).name for line in [*OF_BOTH, *OPTIONAL[extra]]}


def test_every_broken_pin_of_mxnet_and_d2l_is_overridden():
    overridden = {Requirement(line).name for line in PROJECT["tool"]["uv"]["override-dependencies"]}
    lines = [*importlib.metadata.requires("mxnet"), *importlib.metadata.requires("d2l")]
    assert overridden <= {Requirement(line).name for line in lines}
    for version in VERSIONS:
        lock = locked(version, "cpu")
        for requirement in map(Requirement, lines):
            kept = lock[requirement.name] and the_version(lock[requirement.name])
            assert requirement.name in overridden or kept in requirement.specifier, requirement


def test_conda_environment_agrees_with_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = conda["dependencies"]
    assert python == "python=3.11"  # the last with wheels for d2l's pins
    assert conda["dependencies"][1] == "pip" and conda["name"] == "d2lres"
    lines = [line for line in pip["pip"] if line != "-e ."]
    assert len(lines) == len(pip["pip"]) - 1
    assert set(lines) <= {*OF_BOTH, *OPTIONAL["gpu"]}
    assert set(OPTIONAL["gpu"]) <= set(lines)
    names = {Requirement(line).name for line in lines}
    assert {"mxnet-cu112", "d2l", "matplotlib", "jupyterlab", "nbval"} <= names


def start(folder, program, hook=None):
    """Run a program in a new interpreter that finds d2lres.pth and, of d2lres, this hook only."""
    if hook is not None:
        (folder / "d2lres" / "runtime").mkdir(parents=True)
        (folder / "d2lres" / "runtime" / "hook.py").write_text(hook)
    (folder / "mxnet").mkdir()
    (folder / "mxnet" / "__init__.py").write_text("from . import inner\nprint('MXNet')")
    (folder / "mxnet" / "inner.py").touch()
    for name in ("d2lres.pth", "_d2lres_hook.py"):
        shutil.copy(ROOT / "tools" / name, folder)
    # twice, as venv's site.py does
    site = f"import site, sys; sys.path.append({str(folder)!r}); "
    site += f"site.addsitedir({str(folder)!r}); " * 2
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"{site}{program}"], capture_output=True, text=True
    )


ASKS = "print('loaded')\ndef find_spec(name, path, target): print('asked for', name)"


def test_the_pth_line_loads_the_hook_for_mxnet_only(tmp_path):
    program = "import json, wave; print('started'); import mxnet"
    ran = start(tmp_path, program, ASKS)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = ["started", "loaded", "asked for mxnet", "asked for mxnet.inner", "MXNet"]
    assert ran.stdout.splitlines() == said


@pytest.mark.parametrize("hook", ["raise OSError('two\\nlines')", "", "def", None])
@pytest.mark.parametrize("stderr", [True, False])
def test_a_broken_or_missing_d2lres_is_one_line_on_stderr(tmp_path, hook, stderr):
    ran = start(tmp_path, "import mxnet" if stderr else "sys.stderr = None; import mxnet", hook)
    assert (ran.returncode, ran.stdout) == (0, "MXNet\n")
    said = ["d2lres could not prepare MXNet: "] * stderr
    assert [line[:32] for line in ran.stderr.splitlines()] == said


def test_python_starts_without_the_hook_s_file(tmp_path):
    shutil.copy(ROOT / "tools" / "d2lres.pth", tmp_path)
    program = f"import site; site.addsitedir({str(tmp_path)!r}); print('started')"
    ran = subprocess.run([sys.executable, "-S", "-I", "-c", program], capture_output=True)
    assert (ran.returncode, ran.stdout) == (0, b"started\n")


def test_the_installed_package_hooks_every_interpreter(tmp_path):
    program = "import sys; print('_d2lres_hook' in str(sys.meta_path), 'd2lres' in sys.modules)"
    command = [sys.executable, "-I", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("True False\n", "")


def test_the_wheel_brings_the_hook_and_the_sample(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = [p.relative_to(ROOT) for p in (ROOT / "d2lres").rglob("*") if p.is_file()]
    package = {str(path) for path in package if "__pycache__" not in path.parts}
    assert {"d2lres/__init__.pyi", "d2lres/runtime/hook.py"} < package
    assert any(path.startswith("d2lres/data/sample/") for path in package)
    others = {name for name in names if not re.match(r"d2lres-[\w.]+\.dist-info/", name)}
    assert others == package | {"d2lres.pth", "_d2lres_hook.py"}


def make(*arguments, **environment):
    if not shutil.which("make"):
        pytest.skip("there is no make on this machine")
    environment = {**os.environ, "MAKEFLAGS": "", **environment}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    return subprocess.run(["make", *arguments], **options)


def test_make_help_names_every_target_and_make_points_to_it():
    told = make("help")
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert re.findall(r"^  ([\w-]+)  +\w", told.stdout, re.M) == phony.split()
    told = make("lba")
    words = "make: there is no target 'lba'; 'make help' lists those there are.\n"
    assert told.returncode == 2 and told.stderr.startswith(words)


@pytest.mark.parametrize(("asked", "scale"), [("quick", "quick"), ("", "lesson")])
def test_make_run_keeps_the_scale_that_is_asked_for(asked, scale):
    assert f"D2LRES_SCALE={scale} " in make("-n", "run", D2LRES_SCALE=asked).stdout


def test_make_opens_the_lessons_where_the_data_cannot_be_got(tmp_path):
    run = tmp_path / "run"
    run.write_text('#!/bin/sh\necho ran $*\n[ "$2" != data ]\n')
    run.chmod(0o755)
    for target, last in [("lab", "ran jupyterlab"), ("run", "ran d2lres run")]:
        told = make("-o", "setup", target, f"RUN={run}")
        assert told.returncode == 0, told.stderr
        said = [line for line in told.stdout.splitlines() if line.startswith("ran ")]
        assert said[0] == "ran d2lres data fashion-mnist" and said[-1].startswith(last)
    assert make("-o", "setup", "data", f"RUN={run}").returncode == 2
