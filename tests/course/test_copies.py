"""A student's copies: what the course brings arrives, and what the student did stays."""

import json
import platform
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from nbformat.sign import NotebookNotary

from d2lres.course.copies import SIGNATURES, copy_lessons, reset_lesson

ROOT = Path(__file__).parents[2]
IGNORED = (ROOT / ".gitignore").read_text()
REPLACED = "lessons/01_block.ipynb is the new version"
BESIDE = "lessons/01_block_new.ipynb is new"


def lesson(text, shows="2"):
    output = v4.new_output("execute_result", {"text/plain": shows}, execution_count=1)
    code = v4.new_code_cell(text, id="code", execution_count=1, outputs=[output])
    return v4.new_notebook(cells=[v4.new_markdown_cell("# A lesson", id="title"), code])


@pytest.fixture
def clone(tmp_path):
    """A clone with two lessons, of which nothing is copied yet."""
    (tmp_path / "notebooks").mkdir()
    for name in ("00_start", "01_block"):
        publish(tmp_path, lesson("1 + 1"), name)
    return tmp_path


def publish(clone, notebook, name="01_block"):
    nbformat.write(notebook, clone / "notebooks" / f"{name}.ipynb")


def copies(clone):
    """Return the code of each copy by its name."""
    paths = sorted((clone / "lessons").glob("*.ipynb"))
    return {path.stem: nbformat.read(path, 4).cells[-1].source for path in paths}


def work(clone, change, name="01_block"):
    """Change a copy as a student does in JupyterLab."""
    path = clone / "lessons" / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    change(notebook)
    nbformat.write(notebook, path)


def edit(notebook):
    notebook.cells[-1].source = "my own"


def run(notebook):
    notebook.cells[-1].outputs = [v4.new_output("stream", text="0.93")]


def delete_a_cell(notebook):
    del notebook.cells[0]


def open_and_save(notebook):
    """What JupyterLab writes anew by itself."""
    notebook.metadata["language_info"] = {"name": "python", "version": "3.13.1"}
    notebook.cells[-1].metadata["jupyter"] = {"source_hidden": True}
    notebook.cells[-1].execution_count = notebook.cells[-1].outputs[0].execution_count = None


@pytest.fixture
def copied(clone):
    list(copy_lessons(clone=clone))
    return clone


def test_a_copy_names_the_kernel_of_the_course(clone):
    """And the Python that will run it: JupyterLab has nothing to write into it."""
    kernel = json.loads((ROOT / "tools/lab/kernels/python3/kernel.json").read_text())
    info = {"name": "python", "version": "3.1"}
    publish(clone, v4.new_notebook(cells=lesson("2").cells, metadata={"language_info": info}))
    list(copy_lessons(clone=clone))
    metadata = nbformat.read(clone / "lessons" / "01_block.ipynb", 4).metadata
    assert metadata.kernelspec.display_name == kernel["display_name"]
    assert metadata.language_info.version == platform.python_version()


def test_the_first_start_copies_every_lesson(clone):
    lines = ["lessons/00_start.ipynb is new", "lessons/01_block.ipynb is new"]
    assert list(copy_lessons(clone=clone)) == lines
    assert copies(clone) == {"00_start": "1 + 1", "01_block": "1 + 1"}
    assert list(copy_lessons(clone=clone)) == []


def test_another_start_brings_only_what_is_missing(copied):
    publish(copied, lesson("2 + 2"))
    publish(copied, lesson("3 + 3"), "02_more")
    assert list(copy_lessons(clone=copied)) == ["lessons/02_more.ipynb is new"]
    assert copies(copied)["01_block"] == "1 + 1"


def test_copies_are_trusted(copied):
    path = copied / "lessons" / "01_block.ipynb"
    notary = NotebookNotary(data_dir=str(copied / "lessons" / SIGNATURES))
    assert notary.check_signature(nbformat.read(path, 4))
    work(copied, edit)
    assert not notary.check_signature(nbformat.read(path, 4))


@pytest.mark.parametrize("change", [lambda _: None, open_and_save])
def test_an_untouched_copy_is_replaced(change, copied):
    work(copied, change)
    assert list(copy_lessons(update=True, clone=copied)) in ([], [REPLACED])
    publish(copied, lesson("2 + 2"))
    assert list(copy_lessons(update=True, clone=copied)) == [REPLACED]
    assert copies(copied) == {"00_start": "1 + 1", "01_block": "2 + 2"}


@pytest.mark.parametrize("change", [edit, run, delete_a_cell])
def test_a_touched_copy_is_kept_and_the_new_version_laid_beside_it(change, copied):
    work(copied, change)
    mine = (copied / "lessons" / "01_block.ipynb").read_bytes()
    assert list(copy_lessons(update=True, clone=copied)) == []  # there is nothing new
    publish(copied, lesson("2 + 2"))
    assert list(copy_lessons(update=True, clone=copied)) == [BESIDE]
    assert list(copy_lessons(update=True, clone=copied)) == []
    publish(copied, lesson("3 + 3"))
    assert list(copy_lessons(update=True, clone=copied)) == [REPLACED.replace("block", "block_new")]
    work(copied, edit, "01_block_new")
    publish(copied, lesson("4 + 4"))
    list(copy_lessons(update=True, clone=copied))
    assert (copied / "lessons" / "01_block.ipynb").read_bytes() == mine
    assert copies(copied)["01_block_new"] == "my own"
    assert copies(copied)["01_block_new2"] == "4 + 4"


def test_a_lesson_that_was_only_run_anew_is_not_laid_beside(copied):
    work(copied, edit)
    publish(copied, lesson("1 + 1", shows="2.0"))
    assert list(copy_lessons(update=True, clone=copied)) == []
    work(copied, run, "00_start")
    publish(copied, lesson("1 + 1", shows="2.0"), "00_start")
    assert list(copy_lessons(update=True, clone=copied)) == []


def test_a_copy_of_a_lesson_that_is_gone_stays_if_it_was_touched(copied):
    for name in ("00_start", "01_block"):
        (copied / "notebooks" / f"{name}.ipynb").unlink()
    publish(copied, lesson("5 + 5"), "01_renamed")
    (copied / "lessons" / "mine.ipynb").write_text(nbformat.writes(lesson("mine")))
    work(copied, edit)
    lines = list(copy_lessons(update=True, clone=copied))
    gone = "lessons/00_start.ipynb was removed: the course has it no more"
    assert lines == ["lessons/01_renamed.ipynb is new", gone]
    assert copies(copied) == {"01_block": "my own", "01_renamed": "5 + 5", "mine": "mine"}


DAMAGED = ["", "[]", "{}", '{"cells": 3}', '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_copy_is_kept(content, copied):
    path = copied / "lessons" / "01_block.ipynb"
    path.write_text(content)
    assert list(copy_lessons(update=True, clone=copied)) == [BESIDE]
    kept, fresh = reset_lesson(1, clone=copied)
    assert path.with_name("01_block_old.ipynb").read_text() == content


def test_reset_gives_a_fresh_copy_and_keeps_the_old_one(copied):
    path = copied / "lessons" / "01_block.ipynb"
    for kept in ("01_block_old.ipynb", "01_block_old2.ipynb"):
        work(copied, edit)
        mine = path.read_bytes()
        lines = [f"{path.parent.name}/{path.name} was kept as {kept}"]
        assert list(reset_lesson(1, clone=copied))[:1] == lines
        assert path.with_name(kept).read_bytes() == mine
        assert copies(copied)["01_block"] == "1 + 1"
    assert len(list(reset_lesson(1, clone=copied))) == 1  # there was nothing to keep
    path.unlink()
    assert len(list(reset_lesson(1, clone=copied))) == 1
    assert sorted(copies(copied)) == ["00_start", "01_block", "01_block_old", "01_block_old2"]


def test_reset_begins_the_training_again(copied):
    runs = copied / "out" / "checkpoints" / "lesson"
    for name in ("1-net-0123abcd", "1-net-4567abcd", "11-net-0123abcd"):
        (runs / name).mkdir(parents=True)
    for kept in ("1-net-4567abcd_old", "1-net-4567abcd_old2"):
        list(reset_lesson(1, clone=copied))
        assert (runs / kept).is_dir()
        assert (runs / "11-net-0123abcd").is_dir()
        assert not (runs / "1-net-4567abcd").exists()
        (runs / "1-net-4567abcd").mkdir()


def test_what_cannot_be_is_said(clone, tmp_path):
    with pytest.raises(ValueError, match="there is no lesson 7: there are 0 to 1"):
        list(reset_lesson(7, clone=clone))
    with pytest.raises(FileNotFoundError, match="there are no lessons in .*: clone the course"):
        list(copy_lessons(clone=tmp_path / "elsewhere"))


def test_a_copy_that_cannot_be_written_leaves_the_old_one(copied, monkeypatch):
    before = (copied / "lessons" / "01_block.ipynb").read_bytes()
    publish(copied, lesson("2 + 2"))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space left"):
        list(copy_lessons(update=True, clone=copied))
    assert (copied / "lessons" / "01_block.ipynb").read_bytes() == before
    assert not list((copied / "lessons").glob("*.part"))


def test_git_pulls_a_changed_lesson_while_a_student_works(clone, tmp_path_factory):
    def git(*command, where=clone):
        settings = ["-c", "user.name=teacher", "-c", "user.email=", "-c", "pull.rebase=false"]
        done = subprocess.run(["git", *settings, *command], cwd=where, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    (clone / ".gitignore").write_text(IGNORED)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "the course")
    student = tmp_path_factory.mktemp("student") / "clone"
    git("clone", "--quiet", str(clone), str(student))
    list(copy_lessons(clone=student))
    work(student, edit)
    assert git("status", "--porcelain", where=student) == ""
    publish(clone, lesson("2 + 2"))
    git("commit", "--quiet", "-am", "next week")
    git("pull", "--quiet", "--ff-only", where=student)
    assert list(copy_lessons(update=True, clone=student)) == [BESIDE]
    assert git("status", "--porcelain", where=student) == ""
