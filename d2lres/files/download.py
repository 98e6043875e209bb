"""One file from the network: whole and right, or not at all, in bounded time."""

from __future__ import annotations

import http.client
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["WEB_PAGE", "fetch", "in_few_words", "is_web_page"]

ANSWER_SECONDS = 8  # a server that has not answered by then is passed over
SLOWEST = 1000  # bytes a second; one that sends less, for as long as that, is too
DOWNLOAD_SECONDS = 900  # for all files of a data set and all mirrors together
MAX_TRIES = 10  # of one file at one mirror, if each try brings some more of it
WEB_PAGE = "a web page (must you log in to this network?)"


def is_web_page(start: bytes) -> bool:
    """Say whether the first bytes of a file look like HTML."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def in_few_words(error: Exception) -> str:
    """Return what went wrong in a line, without Python's own words."""
    if type(error) is urllib.error.URLError:  # wraps the real error
        error = error.reason
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return f"an answer that is not HTTP ({error!r:.100})"
    words = getattr(error, "strerror", None)
    if words and getattr(error, "filename", None):  # of this machine
        words += f": {error.filename}"
    return " ".join((words or str(error) or repr(error)).split())


def fetch(urls: Iterable[str], file: Path, limit: int, check: Callable, deadline: float) -> None:
    """Download one file from the first of several addresses that has it whole and right.

    Until then it is called ``file.part``. If that exists, the download goes on where it ended.
    ``limit`` is the bytes that the file has at most; ``check(path)`` raises ValueError if the
    content is wrong; ``deadline`` is when to give up, by `time.monotonic`. If no address has the
    file, an OSError says why not, for each.
    """
    part, problems = file.with_name(f"{file.name}.part"), []
    for url in urls:
        try:
            _download(url, part, limit, check, deadline)
            os.replace(part, file)
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            problems.append(in_few_words(error))
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
        options = {"desc": part.stem, "unit": "B", "unit_scale": True, "leave": False}
        options["disable"] = getattr(sys.stderr, "closed", True)  # a daemon may have none
        bar = tqdm(total=total, initial=have, **options)
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
