"""pyproject.toml, requirements.lock, environment.yml and the Makefile say the same."""

import ast
import importlib.metadata
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import bootstrap  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCK = (ROOT / "requirements.lock").read_text()
VERSIONS = bootstrap.VERSIONS


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


def locked(version, text=LOCK):
    """What the lock has for a Python: a list per name, of one version if all is well."""
    return by_name(re.findall(r"^\w.*?(?= \\$)", text, re.M), version)


def the_version(requirements):
    (requirement,) = requirements
    return str(requirement.specifier).removeprefix("==")


@pytest.mark.parametrize("version", VERSIONS)
def test_lock_holds_what_pyproject_asks_for(version):
    lock = locked(version)
    asked = [PROJECT["project"]["dependencies"], PROJECT["build-system"]["requires"]]
    for lines in [*asked, *EXTRAS.values()]:
        for name, (requirement,) in by_name(lines, version).items():
            assert the_version(lock[name]) in requirement.specifier, requirement


def test_pyproject_lists_what_the_library_imports():
    imported = set()
    for path in (ROOT / "d2lres").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    owners = importlib.metadata.packages_distributions()
    outside = imported - set(sys.stdlib_module_names) - {"d2lres", "mxnet"}
    # Python 3.10 does not find every owner; a package then bears the name it is imported by
    needed = {canonicalize_name(owner) for name in outside for owner in owners.get(name, [name])}
    lines = PROJECT["project"]["dependencies"] + EXTRAS["onnx"]
    listed = {Requirement(line).name for line in lines}
    assert "numpy" in needed and needed <= listed


@pytest.mark.parametrize("version", VERSIONS)
def test_lock_has_one_version_of_everything_for_each_python(version):
    assert {name: len(found) for name, found in locked(version).items() if len(found) > 1} == {}
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])


def test_every_locked_package_has_a_hash():
    blocks = re.findall(r"^\w.*\n(?:[ ].*\n)*", LOCK, re.M)
    assert len(blocks) > 100
    assert [b for b in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", b)] == []
    assert [b for b in blocks if not re.match(r"[a-z0-9-]+==[\w.]+ ", b)] == []


def test_lock_names_no_host_and_no_folder():
    header = LOCK[: LOCK.index("==")]
    assert "make lock" in header
    for line in LOCK.splitlines():
        assert not re.search(r"://|\.(com|org|net|io)\b|\s/|@|^ *--(?!hash=)", line), line


def test_the_plain_reader_agrees_with_toml():
    for extra in bootstrap.EXTRAS:
        assert bootstrap.listed(extra) == [Requirement(line).name for line in EXTRAS[extra]]


def test_an_extra_installs_the_lock_without_the_other():
    chosen = {
        extra: {block.split("==")[0] for block in bootstrap.requirements(extra)}
        for extra in bootstrap.EXTRAS
    }
    everything = set(re.findall(r"^([\w-]+)==", LOCK, re.M))
    assert everything - chosen["gpu"] == {"mxnet"}
    assert everything - chosen["cpu"] == {Requirement(line).name for line in EXTRAS["gpu"]}


def wanted_by():
    """Who asked for each package of the lock, from its `# via` comments."""
    parents = defaultdict(set)
    for block in re.findall(r"^\w.*\n(?:[ ].*\n)*", LOCK, re.M):
        comments = re.sub(r".*?# via", "", block, count=1, flags=re.S)
        parents[block.split("==")[0]] |= set(re.findall(r"^ *(?:# +)?([\w.-]+)", comments, re.M))
    return parents


def test_lock_has_nothing_that_pyproject_no_longer_asks_for():
    asked = [*PROJECT["project"]["dependencies"], *sum(EXTRAS.values(), [])]
    direct = {name for name, parents in wanted_by().items() if "d2lres" in parents}
    assert direct == {Requirement(line).name for line in asked}


def test_what_only_the_gpu_needs_is_listed_in_its_extra():
    listed = {Requirement(line).name for line in EXTRAS["gpu"]}
    parents = wanted_by()
    assert {"mxnet", "mxnet-cu112"} <= parents["graphviz"]
    assert {name for name in parents if parents[name] <= listed} <= listed


def test_every_broken_pin_of_mxnet_and_d2l_is_overridden():
    overridden = {Requirement(line).name for line in PROJECT["tool"]["uv"]["override-dependencies"]}
    lines = [*importlib.metadata.requires("mxnet"), *importlib.metadata.requires("d2l")]
    assert overridden <= {Requirement(line).name for line in lines}
    for version in VERSIONS:
        lock = locked(version)
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
    project = PROJECT["project"]["dependencies"] + EXTRAS["dev"] + EXTRAS["gpu"]
    assert set(lines) <= set(project)
    assert set(EXTRAS["gpu"]) <= set(lines)
    names = {Requirement(line).name for line in lines}
    assert {"mxnet-cu112", "d2l", "matplotlib", "jupyterlab", "nbval"} <= names


def start(folder, hook, program):
    """Run a program in a new interpreter that finds d2lres.pth and this d2lres/_hook.py."""
    (folder / "d2lres").mkdir()
    (folder / "d2lres" / "__init__.py").touch()
    (folder / "d2lres" / "_hook.py").write_text(hook)
    (folder / "mxnet.py").write_text("print('MXNet')")
    shutil.copy(ROOT / "tools" / "d2lres.pth", folder)
    # twice, as venv's site.py does
    site = f"import site, sys; sys.path.append({str(folder)!r}); "
    site += f"site.addsitedir({str(folder)!r}); " * 2
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"{site}{program}"], capture_output=True, text=True
    )


HOOK = "print('loaded')\nclass Finder:\n    def find_spec(name): print('asked for', name)"


def test_the_pth_line_loads_the_hook_for_mxnet_only(tmp_path):
    program = "import json, wave; print('started'); import mxnet"
    ran = start(tmp_path, HOOK, program)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["started", "loaded", "asked for mxnet", "MXNet"]


@pytest.mark.parametrize("hook", ["raise OSError('two\\nlines')", "", "def"])
def test_a_broken_hook_is_one_line_on_stderr(tmp_path, hook):
    ran = start(tmp_path, hook, "import mxnet")
    assert (ran.returncode, ran.stdout) == (0, "MXNet\n")
    assert ran.stderr.startswith("d2lres could not prepare MXNet: ") and ran.stderr.count("\n") == 1


def test_the_installed_package_hooks_every_interpreter(tmp_path):
    program = "import sys; print('D2lresFinder' in str(sys.meta_path), 'd2lres' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ran.stdout, ran.stderr) == ("True False\n", "")


def test_the_wheel_brings_the_hook_and_the_sample(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"d2lres.pth", "d2lres/__init__.py", "d2lres/_hook.py"} <= set(names)
    sample = {f"d2lres/sample/{path.name}" for path in (ROOT / "d2lres" / "sample").iterdir()}
    assert len(sample) > 1 and sample <= set(names)
    assert all(re.match(r"d2lres(/|\.pth$|-[\w.]+\.dist-info/)", name) for name in names)


def test_make_help_names_every_target():
    if not shutil.which("make"):
        pytest.skip("there is no make on this machine")
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert re.findall(r"^  ([\w-]+)  +\w", told.stdout, re.M) == phony.split()
