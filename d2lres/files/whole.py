"""Files that are written whole or not at all, and folders that one process at a time writes to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = [
    "cache_folder",
    "expanded",
    "expect",
    "legible",
    "locked",
    "shown",
    "writable",
    "written_whole",
]


def expanded(path: str | os.PathLike) -> Path:
    """Return a path of the user's, with their home where it begins with ``~``.

    It is a ValueError if it is empty, or there is no such home.
    """
    text = os.fsdecode(path)
    whole = os.path.expanduser(text)
    home = whole.split(os.sep)[0]
    if home == "~" or (home.startswith("~") and not os.path.exists(home)):  # no folder is meant
        raise ValueError(f"{text}: there is no home for {home}. Set HOME, or write the whole path.")
    if not whole:
        raise ValueError("the path is empty: name a file or a folder, . for the one at hand")
    return Path(whole)


def legible(text: str) -> str:
    """Return a line with names of files in it, which may be any bytes: odd ones as escapes."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub("[\0-\x1f\x7f-\x9f]", lambda control: repr(control[0])[1:-1], text)


def shown(text: str) -> str:
    """Return such a line as ``print`` takes it, whatever the encoding of the terminal."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return legible(text).encode(encoding, "backslashreplace").decode(encoding)


def expect(condition: bool, path: Path, expected: str, found) -> None:
    """Raise ValueError in words if a file is not as expected."""
    if not condition:
        raise ValueError(f"{path}: expected {expected}, found {found}.")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name, in place of an older one, when it is complete.

    Until then its name ends in ``.part``. On an error nothing of it stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # two processes may write it at once
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)  # the name, too, has to survive a power cut
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writable(path: str | os.PathLike) -> Path:
    """Return a path of the user's, expanded, if a file can be written there after long work.

    It is an OSError if it could not.
    """
    path = expanded(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; add the name of a file in it")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror}") from error
    return path


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Keep all other processes that ask for it out of a folder.

    If another has it, wait, or raise BlockingIOError.
    """
    import fcntl  # POSIX only, and loading what is there works without

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(handle)


def cache_folder() -> Path | None:
    """Return the folder of this user for what can be had again: data and measurements.

    None where there is no home for it; whoever asks does without.
    """
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("d2lres"))
    except RuntimeError:  # of pathlib
        return None
    return folder if folder.is_absolute() else None
