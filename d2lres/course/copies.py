"""The copies of the lessons that a student works in: made, brought up to date, begun again.

The course's own lessons are in ``notebooks/`` and change with it. A student works in copies of
them, in ``lessons/``, which git does not see. What was changed or run there is never overwritten.
"""

import contextlib
import hashlib
import itertools
import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

from ..files.whole import legible, locked, written_whole

__all__ = ["copy_lessons", "reset_lesson"]

CLONE = Path(__file__).parents[2]
KERNEL = {"display_name": "Python of this course", "language": "python", "name": "python3"}
SIGNATURES = ".jupyter"  # in the folder of the copies, not in the student's home


def copy_lessons(update: bool = False, clone: Path = CLONE) -> Iterator[str]:
    """Copy the lessons of which there is no copy yet; yield a line for each file that changes.

    Parameters
    ----------
    update : bool, default False
        Whether to bring also what is new in the others: a copy as it was made is replaced, or
        removed if the course has no such lesson any more; one in which anything was changed or run
        is kept, and the new version is laid beside it as ``NAME_new.ipynb``.
    clone : Path, optional
        The folder with ``notebooks``, by default the one that this file is in.

    Raises
    ------
    FileNotFoundError
        If there are no lessons.
    OSError
        If the copies cannot be written.
    """
    originals = _originals(clone)
    with _folder(clone) as folder:
        for original in originals:
            lesson = nbformat.read(original, as_version=4)
            for copy in _names(folder / original.name, "new"):
                found = _read(copy)
                if not copy.exists():
                    yield _give(lesson, copy, "is new")
                elif update and _is_as_given(found):
                    if found["cells"] != lesson["cells"]:
                        yield _give(lesson, copy, "is the new version")
                elif update and _given(found)[:1] != _state(lesson)[:1]:
                    continue  # it is kept, and the new version laid beside it
                break
        stems = tuple(path.stem for path in originals)
        for copy in sorted(folder.glob("*.ipynb")) if update else ():
            if not copy.stem.startswith(stems) and _is_as_given(_read(copy)):
                copy.unlink()
                yield f"{_shown(copy)} was removed: the course has it no more"


def reset_lesson(number: int, clone: Path = CLONE) -> Iterator[str]:
    """Make a fresh copy of a lesson; what was done in the old one stays as ``NAME_old.ipynb``.

    The checkpoints of the lesson's runs are put aside, too, so that its training begins anew.

    Parameters
    ----------
    number : int
    clone : Path, optional
        As for `copy_lessons`, which also says what is yielded and raised.

    Raises
    ------
    ValueError
        If there is no lesson of this number.
    """
    numbered = {int(path.stem[:2]): path for path in _originals(clone)}
    if number not in numbered:
        raise ValueError(
            f"there is no lesson {number}: there are {min(numbered)} to {max(numbered)}"
        )
    lesson = nbformat.read(numbered[number], as_version=4)
    with _folder(clone) as folder:
        copy = folder / numbered[number].name
        if copy.exists() and not _is_as_given(_read(copy)):
            yield _keep(copy, shutil.copy2)  # it stays open in JupyterLab, and is then replaced
        for run in sorted(clone.glob(f"out/checkpoints/*/{number}-*-????????")):  # see Scale
            yield _keep(run, Path.rename)
        yield _give(lesson, copy, "is as at the beginning")


def _originals(clone):
    found = sorted((clone / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FileNotFoundError(f"there are no lessons in {clone / 'notebooks'}: clone the course")
    return found


@contextlib.contextmanager
def _folder(clone):
    """Have the folder of the copies for oneself."""
    folder = clone / "lessons"
    (folder / SIGNATURES).mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield folder


def _names(path, word):
    """Yield a path, then the names of what is laid beside it."""
    yield path
    for number in itertools.count(1):
        suffix = f"_{word}{number if number > 1 else ''}"
        yield path.with_name(f"{path.stem}{suffix}{path.suffix}")


def _keep(path, how):
    aside = next(name for name in _names(path, "old") if not name.exists())
    how(path, aside)
    return f"{_shown(path)} was kept as {aside.name}"


def _read(path):
    """Return a notebook of the student's; an empty one where it is none, or damaged."""
    try:
        copy = nbformat.read(path, as_version=4)
        nbformat.validate(copy)
        return copy
    except Exception:  # of any kind: the file may hold anything
        return nbformat.v4.new_notebook()


def _give(lesson, path, what):
    """Write a copy of a lesson that says in what state it was given, and that Jupyter trusts."""
    # what JupyterLab would write as soon as it is opened, and then ask whether to save it
    lesson["metadata"]["kernelspec"] = KERNEL
    lesson["metadata"].get("language_info", {})["version"] = platform.python_version()
    lesson["metadata"]["d2lres"] = {"given": _state(lesson)}
    notary = NotebookNotary(data_dir=str(path.with_name(SIGNATURES)))
    notary.sign(lesson)
    notary.store.close()
    with written_whole(path) as file:
        file.write(nbformat.writes(lesson).encode() + b"\n")
    return f"{_shown(path)} {what}"


def _is_as_given(copy):
    """Return whether nothing was changed or run in a copy; opening and saving it is neither."""
    return _given(copy) == _state(copy)


def _given(copy):
    return copy["metadata"].get("d2lres", {}).get("given", [])


def _state(lesson):
    """Return digests of the text and code of a lesson, and of what its cells show."""
    cells = [[cell["cell_type"], cell["source"]] for cell in lesson["cells"]]
    shown = [
        {**output, "execution_count": None}
        for cell in lesson["cells"]
        for output in cell.get("outputs", [])
    ]
    return [
        hashlib.sha256(json.dumps(a, sort_keys=True).encode()).hexdigest() for a in (cells, shown)
    ]


def _shown(path):
    return legible(f"{path.parent.name}/{path.name}")
