"""tools/bundle.py, and what the Makefile does in a bundle. `make test-bundle` tries a whole one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import bundle  # noqa: E402


def test_of_a_lock_it_takes_what_is_for_a_python():
    lock = bundle.LOCK.read_text(encoding="utf-8")
    of = {version: list(bundle.locked(lock, version)) for version in bundle.VERSIONS}
    for lines in of.values():
        names = [re.fullmatch(r"([\w-]+)==[\w.]+( +--hash=sha256:\w+)+", line)[1] for line in lines]
        assert len(names) == len(set(names)) > 100
        assert {"mxnet", "numpy", "jupyterlab"} < set(names)
    numpy = {line.split(" ")[0] for lines in of.values() for line in lines if "numpy==" in line}
    assert len(numpy) > 1  # each Python has its own


def git(*arguments):
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.check_output(["git", *author, *arguments], text=True).strip()


@pytest.mark.parametrize("origin", ["https://example.org/course.git", None])
def test_the_clone_has_what_is_committed_and_asks_where_its_original_asks(
    origin, tmp_path, monkeypatch
):
    original, copy = tmp_path / "original", tmp_path / "copy"
    git("init", "--quiet", original)
    git("-C", original, "commit", "--quiet", "--allow-empty", "--message=first")
    (original / "unfinished.py").touch()
    if origin:
        git("-C", original, "remote", "add", "origin", origin)
    monkeypatch.setattr(bundle, "ROOT", original)
    bundle.clone(copy)
    assert git("-C", copy, "log", "--format=%s") == "first"
    assert not (copy / "unfinished.py").exists()
    asked = re.findall(r"\s(\S+) ", git("-C", copy, "remote", "-v"))
    assert set(asked) == ({origin} if origin else set())


def test_data_that_is_not_here_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "none"))
    for source in (bundle.FASHION_MNIST, bundle.CIFAR10, bundle.CIFAR100):
        monkeypatch.setattr(source, "places", ())
    monkeypatch.setattr("d2lres.files.sources.cache_folder", lambda: tmp_path / "cache")
    bundle.copy_data(tmp_path / "data")
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" is not on this machine")[0] for line in told] == [
        "Fashion-MNIST",
        "CIFAR-10",
        "CIFAR-100",
    ]
    assert not (tmp_path / "data").exists()


def test_data_that_is_here_is_found_in_the_bundle(tmp_path, monkeypatch):
    source, cache = bundle.CIFAR10, tmp_path / "cache"
    for name in source.files:
        path = cache / source.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    monkeypatch.delenv("D2LRES_DATA", raising=False)
    monkeypatch.setattr("d2lres.files.sources.cache_folder", lambda: cache)
    bundle.copy_data(tmp_path / "data")
    monkeypatch.setattr("d2lres.files.sources.cache_folder", lambda: tmp_path / "none")
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "data"))
    place, _ = source.find(offline=True)
    assert {name: path.read_text("utf-8") for name, path in source.all_paths(place).items()} == {
        name: name for name in source.files
    }


@pytest.mark.parametrize("offline", [True, False])
def test_in_a_bundle_nothing_is_fetched(offline, tmp_path):
    run = tmp_path / "run"
    run.write_text("#!/bin/sh\necho $PIP_NO_INDEX $UV_OFFLINE $UV_FIND_LINKS $D2LRES_DATA\n")
    run.chmod(0o755)
    if offline:
        (tmp_path / "offline").mkdir()
    command = ["make", "-f", ROOT / "Makefile", "-o", "setup", "doctor", f"RUN={run}"]
    told = subprocess.check_output(command, cwd=tmp_path, text=True, env={"PATH": "/usr/bin:/bin"})
    folder = tmp_path / "offline"
    assert told.split() == (["1", "1", f"{folder}/wheels", f"{folder}/data"] if offline else [])
