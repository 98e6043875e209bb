"""What comes from the network comes whole or not at all, and in bounded time."""

import io
import random
import sys
import time

import pytest
from small_sets import contents_of

from d2lres.files import download

CONTENT = random.Random(0).randbytes(20_000)
SURVIVED = {  # how the server of the fixture `web` behaves; the file arrives all the same
    "cut": "connection cut",
    "reset": "connection reset",
    "stall": "stalled after half of it",
    "moved": "moved elsewhere",
    "whole": "no part of a file given",
    "longer": "length too large",
    "nonsense": "length that is no number",
}
REFUSED = {  # the same, and the words
    "404": ("not found", "^HTTP Error 404: Not Found$"),
    "500": ("server error", "^HTTP Error 500: "),
    "loop": ("redirect loop", "^HTTP Error 302: .* infinite loop"),
    "silent": ("no answer", "^(no answer in 0.3 s|timed out)$"),
    "drip-headers": ("slow drip of headers", "^no answer in 0.3 s$"),
    "drip": ("slow drip", "^fewer than 1,000 bytes a second came$"),
    "dead": ("nothing after the headers", "^the connection broke after 0 of 20,000 bytes$"),
    "garbage": ("not HTTP", r"^an answer that is not HTTP \(BadStatusLine\('SSH-2.0"),
    "page": ("web page", "^a web page .* came instead$"),
    "page-as-data": ("web page called data", "^expected the content, found 26 bytes"),
    "wrong": ("wrong bytes", "^expected the content, found 20000 bytes"),
    "shorter": ("length too small", "^expected the content, found 19991 bytes"),
    "other-range": ("another part of the file", "^expected the content, found 19993 bytes"),
    "endless": ("far too long", "expected at most 30,000 bytes, found more$"),
}
WHAT = SURVIVED | {how: kind for how, (kind, _) in REFUSED.items()}


def check(path):
    content = path.read_bytes()
    if content != CONTENT:
        raise ValueError(f"expected the content, found {len(content)} bytes")


@pytest.fixture
def fetch(web, tmp_path, monkeypatch):
    """`fetch(*mirrors)` downloads x, and waits for slow ones a short time only."""
    web.contents, web.wrong = {"x": CONTENT}, CONTENT[::-1]
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "MAX_TRIES", 2)

    def fetch(*mirrors, seconds=20):
        slow = not {"stall", "silent", "drip", "drip-headers"}.isdisjoint(mirrors)
        monkeypatch.setattr(download, "ANSWER_SECONDS", 0.3 if slow else 8)
        urls = [f"{web.address}/{how}/x" for how in mirrors]
        download.fetch(urls, tmp_path / "x", 30_000, check, time.monotonic() + seconds)
        assert contents_of(tmp_path) == {"x": CONTENT}

    return fetch


@pytest.mark.parametrize("how", SURVIVED)
def test_download_in_spite_of(how, fetch, faults):
    with faults("download", SURVIVED[how]):
        fetch(how, *["good"] * (how == "longer"))


@pytest.mark.parametrize("how", REFUSED)
def test_download_moves_on(how, fetch, tmp_path, faults):
    kind, words = REFUSED[how]
    with faults("download", kind):
        with pytest.raises(OSError, match=words) as error:
            fetch(how)
        assert "\n" not in str(error.value) and "x" not in contents_of(tmp_path)
        fetch(how, "good")


@pytest.mark.parametrize(
    "part, mirrors, starts",
    [
        (None, ["cut"], [0, 10_000]),
        (CONTENT[:99], ["404", "good"], [99, 99]),
        (CONTENT[:99], ["page", "good"], [99, 99]),
        (CONTENT[:99], ["moved"], [99, 99]),
        (CONTENT[:99], ["whole"], [99]),  # it begins anew, because the server does
        (CONTENT, ["good"], [20_000]),
        (bytes(99), ["good"], [99, 0]),
        (bytes(40_000), ["good"], [40_000, 0]),
    ],
    ids=["cut", "404", "page", "moved", "whole", "complete", "wrong", "too long"],
)
def test_download_goes_on_where_it_ended(fetch, web, tmp_path, part, mirrors, starts):
    if part:
        (tmp_path / "x.part").write_bytes(part)
    fetch(*mirrors)
    assert [have for *_, have in web.seen] == starts


@pytest.mark.parametrize("stream", [None, object(), io.StringIO()], ids=["none", "odd", "closed"])
def test_a_process_without_a_place_for_the_bar(fetch, monkeypatch, stream, faults):
    if stream and hasattr(stream, "close"):
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with faults("download", "no stderr for the bar"):
        fetch("good")


def test_name_look_up_that_hangs_is_left_in_time(fetch, web, monkeypatch):
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: web.quiet.wait(5))
    start = time.monotonic()
    with pytest.raises(OSError, match="^no answer in 0.3 s$"):
        fetch("silent")
    assert time.monotonic() - start < 3


def test_deadline_is_for_all_mirrors_together(fetch, web, tmp_path, monkeypatch, faults):
    monkeypatch.setattr(download, "SLOWEST", 0)
    with faults("download", "too slow for the time there is"):
        start = time.monotonic()
        with pytest.raises(OSError, match="^not done after 900 s; a new try goes on there$"):
            fetch("drip", "drip", "good", seconds=0.3)
        assert time.monotonic() - start < 2
        assert len(web.seen) == 1 and 0 < len(contents_of(tmp_path)["x.part"]) < 20


def test_slow_but_steady_is_not_given_up(fetch, web, monkeypatch):
    monkeypatch.setattr(download, "SLOWEST", 10)  # bytes a second; the server gives about 50
    web.contents["x"] = CONTENT[:25]
    with pytest.raises(OSError, match="expected the content, found 25 bytes"):
        fetch("drip")


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100))
def test_download_with_any_mirrors_in_any_state(seed, fetch, tmp_path, faults):
    rng = random.Random(seed)
    part = rng.choice([None, CONTENT[:99], CONTENT, b"no", b"x" * 40_000])
    if part:
        (tmp_path / "x.part").write_bytes(part)
    with faults("download", "several bad mirrors in turn"):
        for _ in range(3):
            try:
                fetch(*rng.choices([*WHAT, "good"], k=3), seconds=rng.choice([0.1, 20]))
            except OSError:
                assert set(contents_of(tmp_path)) <= {"x.part"}
            else:
                (tmp_path / "x").unlink()
        fetch("good", "good")
