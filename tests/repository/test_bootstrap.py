"""tools/bootstrap.py: what it chooses, what it refuses, and when it has nothing to do."""

import ast
import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from operator import attrgetter
from pathlib import Path
from unittest.mock import Mock

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tools" / "bootstrap.py"
OBSTACLES = ROOT / "d2lres" / "runtime" / "obstacles.py"
GOOD = {"python": "/usr/bin/python3", "version": "3.12", "obstacles": []}
OTHER = {"python": "/opt/python3.11", "version": "3.11", "obstacles": []}


def load():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrap(monkeypatch):
    """The program in a shell that has chosen nothing, on a good machine without a GPU."""
    module = load()
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.delenv("EXTRA", raising=False)
    monkeypatch.setattr(sys, "argv", ["bootstrap.py"])
    monkeypatch.setattr(module, "facts", lambda: GOOD)
    monkeypatch.setattr(module, "output", lambda *command: "")
    return module


@pytest.fixture
def clone(bootstrap, monkeypatch, tmp_path):
    """`bootstrap` in a clone that holds no more than it reads; nothing is really installed."""
    locks = [bootstrap.LOCK % extra for extra in bootstrap.obstacles.EXTRAS]
    for name in [*bootstrap.MADE_FROM, *locks]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    for name, path in {"VENV": "", "VENV_PYTHON": "bin/python", "STAMP": "stamp.json"}.items():
        monkeypatch.setattr(bootstrap, name, str(tmp_path / ".venv" / path))
    bootstrap.builds, bootstrap.runs = [], []

    def run(*module, python=None):
        bootstrap.runs.append(module)
        if module[0] == "venv":
            (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / ".venv" / "bin" / "python").touch()
            bootstrap.builds.append(python)
        return bootstrap.goes_well(*module)

    bootstrap.goes_well = lambda *module: True
    monkeypatch.setattr(bootstrap, "run", run)
    return bootstrap


# --- What cannot work


ARM = {"machine": "aarch64"}
LINUX = {"system": "Linux", "machine": "x86_64", "libc_ver": ("glibc", "2.36")}


@pytest.mark.parametrize(
    ("system", "version", "absent", "cure"),
    [
        ({}, (3, 9, 18), [], "make PYTHON=python3.12"),
        ({}, (3, 14, 0), [], "make PYTHON=python3.12"),
        ({"system": "Windows", "machine": "AMD64"}, (3, 12, 1), [], "wsl --install"),
        ({"system": "MSYS_NT-10.0"}, (3, 12, 1), [], "wsl --install"),
        ({"system": "Darwin", "machine": "arm64"}, (3, 12, 1), [], "docker run"),
        ({"machine": "riscv64"}, (3, 12, 1), [], "x86-64"),
        ({"libc_ver": ("", "")}, (3, 12, 1), [], "Debian"),
        ({}, (3, 12, 1), ["libgomp.so.1"], "sudo apt-get install libgomp1`"),
        ({}, (3, 12, 1), ["libgomp.so.1", "libquadmath.so.0"], "install libgomp libquadmath`"),
        (ARM, (3, 12, 1), ["libarmpl_lp64_mp.so"], "LD_LIBRARY_PATH"),
        ({}, (3, 12, 1), ["venv"], "sudo apt-get install python3.12-venv"),
        ({}, (3, 12, 1), ["ensurepip"], "sudo apt-get install python3.12-venv"),
    ],
)
def test_what_cannot_work_is_one_sentence(monkeypatch, system, version, absent, cure):
    obstacles = load().obstacles
    with monkeypatch.context() as pretend:
        for name, value in {**LINUX, **system}.items():
            pretend.setattr(obstacles.platform, name, lambda value=value: value)
        pretend.setattr(sys, "version_info", version)
        pretend.setattr(obstacles, "loads", lambda library: library not in absent)
        pretend.setattr(obstacles, "importable", lambda module: module not in absent)
        (sentence,) = obstacles.before_setup()
    assert cure in sentence and sentence.endswith(".") and "\n" not in sentence


def fails(number):
    return Mock(side_effect=OSError(number, os.strerror(number), "/a/path"))


FAULTS = [  # what is broken, how, whether it shows only when .venv is begun, and what is said
    ("facts", lambda: {**GOOD, "obstacles": ["it is old.", "and so on."]}, False, "it is old"),
    ("choose_extra", lambda: "tpu", False, "EXTRA=cpu or EXTRA=gpu"),
    ("obstacles.has_gpu_wheel", lambda: False, False, "say EXTRA=cpu"),
    ("ROOT", "/a/clone:with/colons", False, "move it to a folder without"),
    ("obstacles.os.access", lambda path, mode: False, False, "copy it to a folder of your own"),
    ("goes_well", lambda *module: False, True, "could not make"),
    ("goes_well", fails(errno.ENOENT), True, "/a/path"),
    ("obstacles.shutil.disk_usage", lambda path: Mock(free=10**8), True, "takes 5 GB"),
    ("goes_well", lambda *module: module[0] == "venv" or module[-1] == "--quiet", True, "network"),
    ("goes_well", lambda *module: module[0] != "ipykernel", True, "network"),
    ("json.dump", fails(errno.ENOSPC), True, "No space left on device: '/a/path': see that"),
    ("os.remove", fails(errno.EROFS), True, "Read-only file system: '/a/path': see that"),
]


@pytest.mark.parametrize(
    ("broken", "how", "begun", "cure"), FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)]
)
def test_a_fault_is_one_sentence_and_what_is_half_made_not_ready(
    clone, monkeypatch, capsys, broken, how, begun, cure
):
    clone.main()
    monkeypatch.setenv("EXTRA", "gpu")  # another environment
    *path, name = broken.split(".")
    monkeypatch.setattr(attrgetter(".".join(path))(clone) if path else clone, name, how)
    clone.builds.clear()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        clone.main()
    sentence = stopped.value.code
    assert sentence.startswith("d2lres: ") and sentence.endswith(".") and "\n" not in sentence
    assert cure in sentence
    assert ("setting up" in capsys.readouterr().out) == begun
    assert begun or not clone.builds
    assert not clone.is_ready()


@pytest.mark.parametrize("half", ["", "{", "[]", "null", '{"extra": "cpu"}', '{"python": 1}'])
def test_half_a_stamp_does_not_count(clone, half):
    clone.main()
    Path(clone.STAMP).write_text(half)
    assert not clone.is_ready()
    clone.main()
    assert clone.is_ready() and len(clone.builds) == 2


@pytest.mark.parametrize("broken_step", range(5))
def test_an_interrupted_set_up_leaves_no_stamp(clone, monkeypatch, capsys, broken_step):
    clone.main()
    clone.goes_well = Mock(side_effect=[True] * broken_step + [KeyboardInterrupt])
    monkeypatch.setenv("EXTRA", "gpu")
    with pytest.raises(SystemExit, match="130"):
        clone.main()
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.delenv("EXTRA")
    assert not clone.is_ready()


def test_two_at_once_set_up_once(clone):
    begun, go_on = threading.Event(), threading.Event()
    clone.goes_well = lambda *module: begun.set() or go_on.wait(60)
    first, second = (threading.Thread(target=clone.main) for _ in range(2))
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.2)
    assert second.is_alive() and not clone.is_ready()
    go_on.set()
    first.join(60)
    second.join(60)
    assert clone.is_ready() and len(clone.builds) == 1


def test_what_a_killed_set_up_has_called_is_waited_for(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    orphans = []

    def call(command, **kwargs):
        orphans.append(subprocess.Popen(["sleep", "60"], **kwargs))

    monkeypatch.setattr(bootstrap.subprocess, "call", call)
    with bootstrap.alone():
        bootstrap.run("pip")
    (orphan,) = orphans
    waiting = threading.Thread(target=lambda: bootstrap.alone().__enter__())
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    orphan.kill()
    orphan.wait()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_colon_in_the_path_is_refused_before_anything_is_made(tmp_path):
    clone = tmp_path / "to day: ResNet"
    for path in (PROGRAM, OBSTACLES):
        (clone / path.relative_to(ROOT)).parent.mkdir(parents=True)
        shutil.copy(path, clone / path.relative_to(ROOT))
    command = [sys.executable, clone / "tools" / "bootstrap.py"]
    env = {**os.environ, "EXTRA": "cpu", "PYTHON": sys.executable}
    ran = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "to day: ResNet) holds a colon" in ran.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("home", "kept"), [("/", True), ("here", False), ("", True), ("/nowhere/at/all", False)]
)
def test_caches_need_a_home_that_is_there(bootstrap, monkeypatch, home, kept):
    calls = []
    call = Mock(side_effect=lambda *args, env, **kwargs: calls.append(env["HOME"]))
    monkeypatch.setattr(bootstrap.subprocess, "call", call)
    monkeypatch.setattr(bootstrap.os, "access", lambda path, mode: path == "/")
    monkeypatch.setenv("HOME", home)
    assert not bootstrap.run("pip")
    assert calls == [home if kept else bootstrap.VENV]


# --- What is chosen


@pytest.mark.parametrize("bad", [{"version": "3.14"}, {"version": "3.11"}])
def test_another_python_that_runs_is_taken(bootstrap, monkeypatch, bad):
    monkeypatch.setattr(bootstrap, "ask", lambda python: [OTHER] * (python == "python3.11"))
    assert bootstrap.choose_python() is GOOD
    mine = {**GOOD, **bad, "obstacles": ["it is broken."]}
    monkeypatch.setattr(bootstrap, "facts", lambda: mine)
    assert bootstrap.choose_python() is OTHER
    monkeypatch.setenv("PYTHON", "python3")
    assert bootstrap.choose_python() is mine


def test_the_nearest_python_is_explained(bootstrap, monkeypatch):
    """Debian's without venv is nearer than one that is too old."""
    old = {**GOOD, "version": "3.9", "obstacles": ["too old."]}
    without_venv = {**OTHER, "obstacles": ["without venv."]}
    monkeypatch.setattr(bootstrap, "facts", lambda: old)
    assert bootstrap.choose_python() is old
    monkeypatch.setattr(bootstrap, "ask", lambda python: [without_venv] * (python[-2:] == "11"))
    assert bootstrap.choose_python() is without_venv


def executable(path, script):
    """A shell script to be found in place of a program."""
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def test_the_program_tells_the_facts_of_a_python_that_runs(tmp_path):
    assert load().ask(str(tmp_path / "absent")) == []
    for script in ("echo 'command not found' >&2; exit 127", "echo Hello"):
        assert load().ask(executable(tmp_path / "python3.12", script)) == []
    (about,) = load().ask(sys.executable)
    assert about.keys() == GOOD.keys() and about["obstacles"] == []
    assert about["version"] == "{}.{}".format(*sys.version_info)
    assert os.path.realpath(about["python"]) == os.path.realpath(sys.executable)


def test_gpu_is_chosen_where_the_driver_answers(monkeypatch, tmp_path):
    bootstrap = load()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("EXTRA", raising=False)
    monkeypatch.setattr(bootstrap.obstacles, "has_gpu_wheel", lambda: True)
    for script, extra in [
        ("echo 'No devices were found'", "cpu"),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", "cpu"),
        ("echo 'GPU 0: Tesla T4 (UUID: GPU-0)'", "gpu"),
    ]:
        executable(tmp_path / "nvidia-smi", script)
        assert bootstrap.choose_extra() == extra
    monkeypatch.setattr(bootstrap.obstacles, "has_gpu_wheel", lambda: False)
    assert bootstrap.choose_extra() == "cpu"
    monkeypatch.setenv("EXTRA", "gpu")
    assert bootstrap.choose_extra() == "gpu"


# --- When there is nothing to do


def test_a_second_call_does_nothing_while_the_python_is_there(clone, capsys):
    clone.main()
    assert ".venv is ready" in capsys.readouterr().out
    clone.main()
    assert capsys.readouterr() == ("", "")
    assert clone.builds == [GOOD["python"]]
    Path(clone.VENV, "bin", "python").unlink()
    assert not clone.is_ready()


@pytest.mark.parametrize("name", [*load().MADE_FROM, "requirements-cpu.lock"])
def test_a_changed_file_sets_up_again(clone, name):
    clone.main()
    with open(f"{clone.ROOT}/{name}", "a") as file:
        file.write("\n")
    assert not clone.is_ready()


def test_another_choice_sets_up_again_and_no_choice_keeps_it(clone, monkeypatch):
    clone.main()
    monkeypatch.setattr(clone, "facts", lambda: OTHER)
    assert clone.is_ready()
    monkeypatch.setenv("PYTHON", "python3.11")
    assert not clone.is_ready()
    monkeypatch.setenv("EXTRA", "gpu")
    clone.main()
    monkeypatch.delenv("PYTHON")
    monkeypatch.delenv("EXTRA")
    monkeypatch.setattr(clone, "facts", lambda: GOOD)
    assert clone.is_ready()
    assert json.loads(Path(clone.STAMP).read_text())["extra"] == "gpu"
    assert clone.builds == [GOOD["python"], OTHER["python"]]
    monkeypatch.setenv("EXTRA", "cpu")
    assert not clone.is_ready()


# --- How it is made


def test_pip_takes_over_where_uv_fails(clone, capsys):
    clone.goes_well = lambda *module: module[0] != "uv"
    clone.main()
    tools = [module[0] for module in clone.runs]
    assert tools == ["venv", "pip", "uv", "pip", "pip", "ipykernel"]
    assert clone.runs[2][3:-2] == clone.runs[3][1:]
    assert "now pip tries" in capsys.readouterr().out


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_only_the_lock_is_installed(clone, monkeypatch, extra):
    monkeypatch.setenv("EXTRA", extra)
    clone.main()
    uv = Path(clone.VENV, "uv.txt").read_text()
    lock = Path(clone.ROOT, f"requirements-{extra}.lock").read_text()
    assert uv.startswith("uv==") and uv.count("==") == 1 and uv in lock
    assert all("--no-deps" in module for module in clone.runs if module[0] in ("pip", "uv"))
    listed = [module for module in clone.runs if "-r" in module]
    assert all("--require-hashes" in module for module in listed)
    files = [module[module.index("-r") + 1] for module in listed]
    assert files == [str(Path(clone.VENV, "uv.txt")), f"requirements-{extra}.lock"]


@pytest.mark.parametrize("path", [PROGRAM, OBSTACLES], ids=lambda path: path.name)
def test_it_starts_on_a_python_that_is_too_old(path):
    ast.parse(path.read_text(), feature_version=(3, 7))  # ast knows no older one
