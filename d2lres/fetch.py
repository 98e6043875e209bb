"""Files that others publish: where they may lie, and how they come here whole or not at all.

Nothing in here knows what is in the files.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import queue
import shutil
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .files import locked, written_whole

ANSWER_SECONDS = 8  # a server that has not answered by then is passed over
SLOWEST = 1000  # bytes a second; one that sends less, for as long as that, is too
DOWNLOAD_SECONDS = 900  # for all files of a data set and all mirrors together
MAX_TRIES = 10  # of one file at one mirror, if each try brings some more of it
REMOVED = "The file was removed; run this again to fetch it anew."  # the cure for one of ours
WEB_PAGE = "a web page (must you log in to this network?)"
_why_not: dict[Path, str] = {}  # folders that could not be filled: not tried again by every load


class Place(NamedTuple):
    """A folder that may hold a data set, what to say of it and how to mend it."""

    folder: Path
    name: str
    cure: str
    contents: dict = {}  # what the files must be; empty: any well-formed set
    ours: bool = False  # a bad file may be removed

    @contextlib.contextmanager
    def mending(self, path: Path) -> Iterator[None]:
        """Add the cure to an error in the file; remove it if it is ours, to be fetched anew."""
        try:
            yield
        except ValueError as error:
            if self.ours:
                path.unlink()
            raise ValueError(f"{error} {self.cure}") from None


def given_place() -> Place | None:
    """Return the folder that ``$D2LRES_DATA`` names, if it is set."""
    given = os.environ.get("D2LRES_DATA")
    cure = "Put good files there, or unset D2LRES_DATA."
    return Place(Path(given).expanduser(), "from $D2LRES_DATA", cure) if given else None


def with_notes(text: str, *notes: str) -> str:
    """Return the text and, in brackets, the notes that are not empty."""
    together = "; ".join(filter(None, notes))
    return f"{text} ({together})" if together else text


def expect(condition: bool, path: Path, expected: str, found) -> None:
    """Raise ValueError in words if the file is not as expected."""
    if not condition:
        raise ValueError(f"{path}: expected {expected}, found {found}.")


def is_web_page(start: bytes) -> bool:
    """Say whether the first bytes of a file look like HTML."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def forget_failures() -> None:
    """Let `fill` try again what failed before in this process."""
    _why_not.clear()


def fill(folder: Path, ways: dict[str, Callable]) -> tuple[str, str]:
    """Call ``way(folder)`` until one raises nothing, alone among all processes that fill it.

    Returns
    -------
    name, why_not : str
        Of the way that did it, and why none did: one of the two is empty.
    """
    if os.environ.get("D2LRES_OFFLINE", "0") not in ("", "0"):
        return "", "D2LRES_OFFLINE is set"
    if folder in _why_not:
        return "", _why_not[folder]
    problems = []
    for name, way in ways.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                for left in folder.glob("*.[0-9]*.part"):  # by a process that was killed
                    left.unlink()
                way(folder)
            return name, ""
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problems.append(f"not {name}: {_in_few_words(error)}")
    _why_not[folder] = "; ".join(problems).replace(f"{folder}{os.sep}", "")
    return "", _why_not[folder]


def _in_few_words(error):
    if type(error) is urllib.error.URLError:  # wraps the real error
        error = error.reason
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return f"an answer that is not HTTP ({error!r:.100})"
    words = getattr(error, "strerror", None) or str(error) or repr(error)
    return " ".join(words.split())


def download(urls: Iterable[str], file: Path, limit: int, check: Callable, deadline: float) -> None:
    """Download one file from the first of several addresses that has it whole and right.

    Until then it is called ``file.part``. If that exists, the download goes on where it ended.

    Parameters
    ----------
    urls : iterable of str
    file : pathlib.Path
    limit : int
        Bytes that the file has at most.
    check : callable
        ``check(path)`` raises ValueError if the content is wrong.
    deadline : float
        When to give up, by `time.monotonic`.

    Raises
    ------
    OSError
        If no address has it: why not, for each.
    """
    part, problems = file.with_name(f"{file.name}.part"), []
    for url in urls:
        try:
            _download(url, part, limit, check, deadline)
            os.replace(part, file)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            problems.append(_in_few_words(error))
    raise OSError(", ".join(dict.fromkeys(problems)))


def _download(url, part, limit, check, deadline):
    """Download and verify; go on where a broken connection stopped, as long as bytes come."""
    for _ in range(MAX_TRIES):
        before = _size(part)
        try:
            _receive(url, part, limit, deadline)
            check(part)
            return
        except ValueError as error:  # wrong bytes: if they were only added to older ones, once more
            problem = error
            part.unlink(missing_ok=True)
            if not before:
                break
        except (OSError, http.client.HTTPException) as error:
            problem = error
            if _size(part) <= before:
                break
    raise problem


def _receive(url, part, limit, deadline):
    """Add the bytes that `part` still lacks; on an error it keeps those that came."""
    from tqdm.auto import tqdm

    have = _size(part)
    headers = {"User-Agent": "d2lres"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = _open(request, min(ANSWER_SECONDS, _seconds_left(deadline)))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing to add: the check will say whether it is right
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise OSError(f"{WEB_PAGE} came instead")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the file from its beginning
        total = have + response.length if response.length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, leave=False)
        bar.set_description(part.stem)
        with open(part, "ab" if have else "wb") as file, bar:
            enough, by = have + SLOWEST * ANSWER_SECONDS, time.monotonic() + ANSWER_SECONDS
            while chunk := response.read1(1 << 16):
                have += len(chunk)
                if have > limit:
                    raise ValueError(f"{url}: expected at most {limit:,} bytes, found more")
                file.write(chunk)
                bar.update(len(chunk))
                _seconds_left(deadline)
                if have >= enough:
                    enough, by = have + SLOWEST * ANSWER_SECONDS, time.monotonic() + ANSWER_SECONDS
                elif time.monotonic() > by:
                    raise TimeoutError(f"fewer than {SLOWEST:,} bytes a second came")
    if total and have < total:
        raise ConnectionError(f"the connection broke after {have:,} of {total:,} bytes")


def _seconds_left(deadline):
    """Return how many there are; after the deadline raise TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"not done after {DOWNLOAD_SECONDS} s; a new try goes on there")
    return left


def _open(request, seconds):
    """Open a URL in bounded time; urllib alone waits for names, and for each address in turn."""
    answer = queue.SimpleQueue()

    def ask():
        try:
            answer.put(urllib.request.urlopen(request, timeout=seconds))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:.2g} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _size(path):
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, names: Iterable[str], folder: Path, limit: int) -> None:
    """Take the named files out of a ``.tar.gz``, one by one, and nothing else.

    Parameters
    ----------
    archive : pathlib.Path
    names : iterable of str
        With the folders that the archive has them in; those are left out here.
    folder : pathlib.Path
        Where the files go.
    limit : int
        Bytes that the archive has at most when it is decompressed.

    Raises
    ------
    ValueError
        If the archive is damaged or longer, lacks one of the files, or contains anything but files
        and folders with relative names: links, devices, ``/etc/passwd``, ``../evil``.
    """
    missing = set(names)
    try:
        with gzip.open(archive) as file:
            stream = _Limited(file, limit, archive)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    _expect_harmless(member, archive, limit)
                    if member.name in missing:
                        expect(member.isreg(), archive, f"a file {member.name}", "a folder")
                        with written_whole(folder / Path(member.name).name) as target:
                            shutil.copyfileobj(tar.extractfile(member), target, 1 << 20)
                        missing.remove(member.name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        expect(False, archive, "a whole .tar.gz", f"a cut off or damaged one ({error})")
    expect(not missing, archive, "all of its files", f"none called {', '.join(sorted(missing))}")


def _expect_harmless(member, archive, limit):
    inside = not member.name.startswith("/") and ".." not in member.name.split("/")
    expect(inside, archive, "names inside of one folder", member.name)
    plain = member.isreg() or member.isdir()
    expect(plain, archive, "files and folders only", f"something else, {member.name}")
    words = f"{member.name} of at most {limit:,} bytes"
    expect(0 <= member.size <= limit, archive, words, f"{member.size:,}")


class _Limited:
    """The bytes of a stream, but not more than so many: the size of a bomb is not to be known."""

    def __init__(self, stream, limit, path):
        self.stream, self.left, self.path = stream, limit, path
        self.words = f"at most {limit:,} bytes when decompressed"

    def read(self, size):
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        expect(self.left >= 0, self.path, self.words, "more")
        return chunk
