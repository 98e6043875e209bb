"""Data sets that others publish: found on this machine or fetched, and verified."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import download
from .archive import unpack
from .whole import cache_folder, expanded, expect, locked

__all__ = ["Archive", "Loaded", "Place", "Source", "download_archive", "download_files"]

REMOVED = "The file was removed; run this again to fetch it anew."  # the cure for one of ours
NO = ("", "0", "false", "no", "off")
_why_not: dict[Path, str] = {}  # folders that could not be filled: not tried again by every load


class Place(NamedTuple):
    """A folder that may hold a data set, what to say of it and how to mend it."""

    folder: Path
    name: str
    cure: str
    contents: dict = {}  # what the files must be; empty: any well-formed set
    ours: bool = False  # a bad file may be removed

    @contextlib.contextmanager
    def mending(self, path: Path | None = None) -> Iterator[None]:
        """Add the cure to an error in the files; remove the one at fault if it is ours."""
        try:
            yield
        except ValueError as error:
            cure = self.cure
            if self.ours and path:
                try:
                    path.unlink()
                except OSError:  # a cache that can only be read
                    cure = "Remove the file, and run this again to fetch it anew."
            raise ValueError(f"{error} {cure}") from None


class Archive(NamedTuple):
    """The one file that a data set is published as, and limits to it before and after unpacking."""

    name: str
    digest: str
    max_size: int = 200_000_000
    max_unpacked: int = 200_000_000


class Loaded(NamedTuple):
    """A data set in memory."""

    sets: list  # (images, labels) to train with, and to test with
    where: str  # where they came from, in words
    is_sample: bool = False


@dataclasses.dataclass
class Source:
    """A data set: its files, and how they are found, fetched, verified and read.

    Files are looked for in ``$D2LRES_DATA`` and in the user's cache, each with the subfolder
    ``folder``, and in ``places``; else they are fetched; else ``sample`` is taken.

    ``read(path, wanted)`` returns the array in a file and what identifies its content, and raises
    ValueError if it is damaged, or is not the ``wanted`` content, if that is given.
    ``split(arrays, paths)`` returns what to train and what to test with, from the arrays of all
    files and where they were read: each ``(images, labels)``. ``way(source, folder)`` fills a
    folder.
    """

    name: str
    folder: str
    files: dict[str, Any]  # what identifies the official content of each, as read returns it
    read: Callable
    split: Callable
    mirrors: tuple[str, ...]  # addresses of the folders that have the files, or the archive
    ways: dict[str, Callable]  # by what is said to have been done
    archive: Archive | None = None
    endings: tuple[str, ...] = ("",)  # what the name of a file may end in: ".gz"
    places: tuple[Place, ...] = ()
    sample: Place | None = None

    def load(self, only: Path | None = None) -> Loaded:
        """Find or fetch the files, verify and read them.

        The folder ``only`` takes the place of the user's cache, and of all others. If there are no
        files, or in ``$D2LRES_DATA`` only some of them, that is a FileNotFoundError; if one is
        damaged, it is a ValueError: what was expected, what came and what to do.
        """
        place, note = self.find(only)
        paths, arrays, official = self.all_paths(place), [], True
        for name, path in paths.items():
            with place.mending(path):
                array, content = self.read(path, place.contents.get(name))
            arrays.append(array)
            official &= content == self.files[name]
        with place.mending():
            sets = self.split(arrays, [*paths.values()])
        own = "" if official or place is self.sample else "not the official files"
        return Loaded(sets, _with_notes(place.name, own, note), place is self.sample)

    def fetch(self, only: Path | None = None) -> Loaded:
        """Do as ``load``, and try again what failed before in this process."""
        _why_not.clear()
        return self.load(only)

    def find(self, only: Path | None = None, offline: bool = False) -> tuple[Place, str]:
        """Return the first place that has the files, and a note on what kept from a better one.

        With ``offline`` nothing is fetched. ``$D2LRES_DATA`` is passed over, and the note says so,
        if it holds none of the files.
        """
        given, note = None if only else _given_place(), ""
        if given:
            if self._paths(given.folder):
                return given, ""
            note = "$D2LRES_DATA holds no such files"
            if not given.folder.is_dir():
                note = f"$D2LRES_DATA is no folder: {given.folder}"
        where, home = only or "the user cache", expanded(only) if only else cache_folder()
        cache = Place(home, f"from {where}", REMOVED, self.files, ours=True) if home else None
        for place in (cache, *(() if only else self.places)):
            if place and not self.missing(place.folder):
                return place, note
        way, why_not = ("", "") if offline else self._fill(home and home / self.folder)
        if way:
            return cache._replace(name=f"{way} into {where}"), note
        if self.sample:
            return self.sample, "; ".join(filter(None, [note, why_not]))
        raise FileNotFoundError(
            f"{_with_notes(f'{self.name} is not on this machine', note, why_not)}: run `python -m "
            f"d2lres data {self.name.lower()}` where there is a network, or set D2LRES_DATA to a "
            f"folder that holds {self.folder}."
        )

    def all_paths(self, place: Place) -> dict[str, Path]:
        """Return the path of each file, or say which are missing."""
        paths = self._paths(place.folder)
        if missing := self.missing(place.folder):
            folder = next((path.parent for path in paths.values()), place.folder)
            raise FileNotFoundError(
                f"{folder}: expected {len(self.files)} files of {self.name}, missing "
                f"{', '.join(missing)}. {place.cure}"
            )
        return paths

    def missing(self, folder: Path) -> list[str]:
        """Return the names of the files that a folder lacks."""
        return [name for name in self.files if name not in self._paths(folder)]

    def _paths(self, folder):
        """Return the path of each of the files that a folder, or its subfolder, holds."""
        candidates = [(name, f"{name}{end}") for name in self.files for end in self.endings]
        both = [
            {name: base / file for name, file in candidates if os.path.isfile(base / file)}
            for base in (folder, folder / self.folder)
        ]
        return max(both, key=len)

    def _fill(self, folder):
        """Let one way after the other fill the folder, alone among all processes.

        Returned are what was done, and why nothing could be: one of the two is empty.
        """
        if os.environ.get("D2LRES_OFFLINE", "").strip().lower() not in NO:
            return "", "D2LRES_OFFLINE is set"
        if not folder:
            return "", "there is no home for a cache: set HOME"
        if folder in _why_not:
            return "", _why_not[folder]
        problems = []
        for name, way in self.ways.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with locked(folder):
                    for left in folder.glob("*.[0-9]*.part"):  # by a process that was killed
                        left.unlink()
                    way(self, folder)
                return name, ""
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                problems.append(f"not {name}: {download.in_few_words(error)}")
        _why_not[folder] = "; ".join(problems).replace(f"{folder}{os.sep}", "")
        return "", _why_not[folder]

    def without_good(self, folder: Path) -> Iterator[str]:
        """Yield the names of the files still to be fetched, after removing bad ones."""
        paths = self._paths(folder)
        for name, content in self.files.items():
            try:
                self.read(paths[name], content)
            except KeyError:
                yield name
            except ValueError:
                paths[name].unlink()
                yield name


def download_files(source: Source, folder: Path) -> None:
    """Fill a folder with the files of a data set, each compressed by gzip."""
    deadline = time.monotonic() + download.DOWNLOAD_SECONDS
    for name in source.without_good(folder):
        urls = [f"{mirror}{name}.gz" for mirror in source.mirrors]
        check = functools.partial(source.read, wanted=source.files[name])
        limit = math.prod(source.files[name][0]) + 1024  # bytes; their shape and their digest
        download.fetch(urls, folder / f"{name}.gz", limit, check, deadline)


def download_archive(source: Source, folder: Path) -> None:
    """Fill a folder with the files in a data set's archive."""
    if not source.missing(folder):  # another process was faster
        return
    archive, path = source.archive, folder / source.archive.name
    deadline = time.monotonic() + download.DOWNLOAD_SECONDS
    urls = [f"{mirror}{archive.name}" for mirror in source.mirrors]
    if not path.exists():  # else the process that verified it could not finish
        check = functools.partial(_check_archive, archive)
        download.fetch(urls, path, archive.max_size, check, deadline)
    try:
        names = [f"{source.folder}/{name}" for name in source.files]
        unpack(path, names, folder, archive.max_unpacked)
    finally:
        path.unlink()


def _check_archive(archive, path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        start = file.peek(64)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    found = download.WEB_PAGE if download.is_web_page(start) else digest.hexdigest()
    expect(found == archive.digest, path, f"the official archive, SHA-256 {archive.digest}", found)


def _given_place():
    """Return the folder that ``$D2LRES_DATA`` names, if it is set."""
    if not (given := os.environ.get("D2LRES_DATA", "").strip()):
        return None
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    return Place(folder, "from $D2LRES_DATA", "Put good files there, or unset D2LRES_DATA.")


def _with_notes(text, *notes):
    """Return the text and, in brackets, the notes that are not empty."""
    together = "; ".join(filter(None, notes))
    return f"{text} ({together})" if together else text
