"""tools/bootstrap.py: what it chooses, what it refuses, and when it has nothing to do."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "tools" / "bootstrap.py"
GOOD = {
    "python": "/usr/bin/python3",
    "version": [3, 12, 1],
    "venv": True,
    "system": "Linux",
    "machine": "x86_64",
    "glibc": True,
    "missing": [],
}


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
    monkeypatch.setattr(module, "ask", lambda python: None)
    monkeypatch.setattr(module, "driver_answers", lambda: False)
    return module


@pytest.fixture
def clone(bootstrap, monkeypatch, tmp_path):
    """`bootstrap` in a clone that holds no more than it reads; nothing is really installed."""
    root = PROGRAM.parents[1]
    for name in bootstrap.MADE_FROM:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((root / name).read_text())
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    for name, path in {"VENV": "", "VENV_PYTHON": "bin/python", "STAMP": "stamp.json"}.items():
        monkeypatch.setattr(bootstrap, name, str(tmp_path / ".venv" / path))
    bootstrap.builds, bootstrap.runs = [], []

    def make_venv(command):
        (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv" / "bin" / "python").touch()
        bootstrap.builds.append(command[0])

    monkeypatch.setattr(bootstrap.subprocess, "check_call", make_venv)
    monkeypatch.setattr(bootstrap, "run", lambda *module: not bootstrap.runs.append(module))
    return bootstrap


@pytest.mark.parametrize(
    ("changed", "environment", "cure"),
    [
        ({"version": [3, 9, 18]}, {}, "make PYTHON=python3.12"),
        ({"version": [3, 14, 0]}, {}, "make PYTHON=python3.12"),
        ({"version": [3, 6, 15]}, {"PYTHON": "python3.6"}, "make PYTHON=python3.12"),
        ({"system": "Windows", "machine": "AMD64", "glibc": False}, {}, "wsl --install"),
        ({"system": "MSYS_NT-10.0", "glibc": False}, {}, "wsl --install"),
        ({"system": "Darwin", "machine": "arm64", "glibc": False}, {}, "docker run"),
        ({"machine": "riscv64"}, {}, "x86-64"),
        ({"glibc": False}, {}, "Debian"),
        ({"missing": ["libgomp.so.1"]}, {}, "sudo apt install libgomp1"),
        ({"missing": ["libquadmath.so.0"]}, {}, "sudo dnf install"),
        ({"machine": "aarch64", "missing": ["libarmpl_lp64_mp.so"]}, {}, "LD_LIBRARY_PATH"),
        ({"venv": False}, {}, "sudo apt install python3.12-venv"),
        ({}, {"EXTRA": "tpu"}, "EXTRA=cpu or EXTRA=gpu"),
        ({"machine": "aarch64"}, {"EXTRA": "gpu"}, "EXTRA=cpu"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    bootstrap, monkeypatch, capsys, changed, environment, cure
):
    monkeypatch.setattr(bootstrap, "is_ready", lambda: False)
    monkeypatch.setattr(bootstrap, "facts", lambda: {**GOOD, **changed})
    monkeypatch.setattr(bootstrap, "build", lambda *args: pytest.fail("it began to build"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert bootstrap.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("d2lres: ") and err.endswith(".\n") and err.count("\n") == 1
    assert cure in err


def test_another_python_that_runs_is_taken(bootstrap, monkeypatch):
    other = {**GOOD, "python": "/opt/python3.11", "version": [3, 11, 7]}
    monkeypatch.setattr(bootstrap, "ask", {"python3.11": other}.get)
    assert bootstrap.choose_python() is GOOD
    for bad in ({"version": [3, 14, 0]}, {"venv": False}):
        monkeypatch.setattr(bootstrap, "facts", lambda bad=bad: {**GOOD, **bad})
        assert bootstrap.choose_python() is other
    monkeypatch.setenv("PYTHON", "python3")
    assert bootstrap.choose_python() == {**GOOD, "venv": False}


def executable(path, script):
    """A shell script to be found in place of a program."""
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def test_a_python_that_does_not_run_is_none(tmp_path):
    shim = executable(tmp_path / "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    ask = load().ask
    assert ask(shim) is None
    assert ask(str(tmp_path / "absent")) is None
    assert ask(sys.executable)["version"] == list(sys.version_info[:3])


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        ("echo 'GPU 0: Tesla T4 (UUID: GPU-0)'", True),
        ("echo 'No devices were found'", False),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", False),
    ],
)
def test_gpu_is_chosen_where_the_driver_answers(monkeypatch, tmp_path, script, answers):
    bootstrap = load()
    executable(tmp_path / "nvidia-smi", script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("EXTRA", raising=False)
    assert bootstrap.choose_extra(GOOD) == ("gpu" if answers else "cpu")
    assert bootstrap.choose_extra({**GOOD, "machine": "aarch64"}) == "cpu"
    monkeypatch.setenv("EXTRA", "cpu")
    assert bootstrap.choose_extra(GOOD) == "cpu"


def test_a_second_call_does_nothing(clone, capsys):
    assert clone.main() == 0
    assert ".venv is ready" in capsys.readouterr().out
    assert clone.main() == 0
    assert capsys.readouterr() == ("", "")
    assert clone.builds == [GOOD["python"]]


@pytest.mark.parametrize("name", load().MADE_FROM)
def test_a_changed_file_sets_up_again(clone, name):
    clone.main()
    with open(f"{clone.ROOT}/{name}", "a") as file:
        file.write("\n")
    assert not clone.is_ready()


def test_another_choice_sets_up_again_and_no_choice_keeps_it(clone, monkeypatch):
    other = {**GOOD, "python": "/opt/python3.11", "version": [3, 11, 7]}
    clone.main()
    monkeypatch.setattr(clone, "facts", lambda: other)
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
    assert clone.builds == [GOOD["python"], other["python"]]
    monkeypatch.setenv("EXTRA", "cpu")
    assert not clone.is_ready()


def test_a_venv_whose_python_is_gone_is_not_ready(clone):
    clone.main()
    Path(clone.VENV, "bin", "python").unlink()
    assert not clone.is_ready()


@pytest.mark.parametrize("broken_step", [0, 1, 2, 3])
def test_an_interrupted_set_up_leaves_no_stamp(clone, monkeypatch, capsys, broken_step):
    def run(*module):
        clone.runs.append(module)
        if len(clone.runs) > broken_step:
            raise KeyboardInterrupt
        return True

    clone.main()
    clone.runs.clear()
    monkeypatch.setattr(clone, "run", run)
    monkeypatch.setenv("EXTRA", "gpu")
    assert clone.main() == 130
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.delenv("EXTRA")
    assert not clone.is_ready()


def test_pip_takes_over_where_uv_fails(clone, monkeypatch, capsys):
    def run(*module):
        clone.runs.append(module)
        return module[0] != "uv"

    monkeypatch.setattr(clone, "run", run)
    assert clone.main() == 0
    tools = [module[0] for module in clone.runs]
    assert tools == ["pip", "uv", "pip", "pip", "ipykernel"]
    assert clone.runs[1][-5:] == clone.runs[2][-5:]
    assert "now pip tries" in capsys.readouterr().out


def test_a_failing_step_ends_in_a_sentence(clone, monkeypatch, capsys):
    monkeypatch.setattr(clone, "run", lambda *module: module[0] != "ipykernel")
    assert clone.main() == 1
    assert capsys.readouterr().err.endswith("call make again.\n")
    assert not clone.is_ready()


def test_only_the_lock_is_installed(clone):
    clone.main()
    uv, everything = (Path(clone.VENV, name).read_text() for name in ("uv.txt", "requirements.txt"))
    assert uv.startswith("uv==") and uv.count("==") == 1 and uv in everything
    assert everything == "".join(clone.requirements("cpu"))
    assert all("--no-deps" in module for module in clone.runs if module[0] != "ipykernel")
    assert all("--require-hashes" in module for module in clone.runs if "-r" in module)


def test_it_starts_on_a_python_that_is_too_old():
    ast.parse(PROGRAM.read_text(), feature_version=(3, 7))  # ast knows no older one


def test_the_program_tells_the_facts_of_its_python():
    answer = subprocess.run([sys.executable, PROGRAM, "--facts"], capture_output=True, check=True)
    about = json.loads(answer.stdout)
    assert about.keys() == GOOD.keys()
    assert about["version"] == list(sys.version_info[:3])
