"""What comes from the network comes whole or not at all, and is unpacked file by file."""

import io
import random
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from d2lres import fetch

# downloads

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
    "silent": ("no answer", "^(no answer in 0.2 s|timed out)$"),
    "drip-headers": ("slow drip of headers", "^no answer in 0.2 s$"),
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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check(path):
    content = path.read_bytes()
    if content != CONTENT:
        raise ValueError(f"expected the content, found {len(content)} bytes")


@pytest.fixture
def download(web, folder, monkeypatch):
    """`download(*mirrors)` fetches folder/x in short time."""
    web.contents, web.wrong = {"x": CONTENT}, CONTENT[::-1]
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(fetch, "MAX_TRIES", 2)

    def download(*mirrors, seconds=20):
        urls = [f"{web.address}/{how}/x" for how in mirrors]
        fetch.download(urls, folder / "x", 30_000, check, time.monotonic() + seconds)

    return download


@pytest.mark.parametrize("how", SURVIVED)
def test_download_in_spite_of(how, download, folder, faults):
    with faults("download", SURVIVED[how]):
        download(how, *["good"] * (how == "longer"))
        assert files(folder) == {"x": CONTENT}


@pytest.mark.parametrize("how", REFUSED)
def test_download_moves_on(how, download, folder, faults):
    kind, words = REFUSED[how]
    with faults("download", kind):
        with pytest.raises(OSError, match=words) as error:
            download(how)
        assert "\n" not in str(error.value) and "x" not in files(folder)
        download(how, "good")
        assert files(folder) == {"x": CONTENT}


def test_deadline_is_for_all_mirrors_together(download, web, folder, monkeypatch, faults):
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 5)
    with faults("download", "too slow for the time there is"):
        start = time.monotonic()
        with pytest.raises(OSError, match="^not done after 900 s; a new try goes on there$"):
            download("drip", "drip", "good", seconds=0.3)
        assert time.monotonic() - start < 2
        assert len(web.seen) == 1 and 0 < len(files(folder)["x.part"]) < 20


def test_slow_but_steady_is_not_given_up(download, web, monkeypatch):
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(fetch, "SLOWEST", 10)  # bytes a second; the server gives about 50
    web.contents["x"] = CONTENT[:25]
    with pytest.raises(OSError, match="expected the content, found 25 bytes"):
        download("drip")


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100))
def test_download_with_any_mirrors_in_any_state(seed, download, folder, monkeypatch, faults):
    rng = random.Random(seed)
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.1)
    parts = {
        "none": None,
        "begun": CONTENT[:99],
        "whole": CONTENT,
        "wrong": b"no",
        "long": b"x" * 40_000,
    }
    state = rng.choice(list(parts))
    if state != "none":
        (folder / "x.part").write_bytes(parts[state])
    with faults("download", "several bad mirrors in turn"):
        for _ in range(3):
            try:
                download(*rng.choices([*WHAT, "good"], k=3), seconds=rng.choice([0.1, 20]))
            except OSError:
                assert set(files(folder)) <= {"x.part"}
            else:
                assert files(folder) == {"x": CONTENT}
                (folder / "x").unlink()
        download("good", "good")
        assert files(folder) == {"x": CONTENT}


# processes

PROCESS = """
import resource, sys, time
from pathlib import Path
from d2lres import fetch

url, folder, size, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

def check(path):
    if path.stat().st_size != size:
        raise ValueError("not the right size")

def way(folder):
    if not (folder / "x").exists():
        fetch.download([url], folder / "x", size, check, time.monotonic() + 20)

print(fetch.fill(folder, {"downloaded": way}))
"""


@pytest.fixture
def process(web, folder):
    """Start a process that downloads folder/x."""
    web.contents = {"x": CONTENT}

    def process(how="good", most=1_000_000):
        command = [sys.executable, "-c", PROCESS, f"{web.address}/{how}/x", folder]
        return subprocess.Popen(
            [*map(str, command), str(len(CONTENT)), str(most)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    return process


def test_processes_at_once_end_with_one_good_file(process, web, folder, faults):
    with faults("download", "several processes at once"):
        answers = {each.communicate()[0] for each in [process("cut") for _ in range(3)]}
        assert answers == {"('downloaded', '')\n"}
        assert files(folder) == {"x": CONTENT}
        assert [have for *_, have in web.seen] == [0, 10_000]  # one of them, in two parts


def test_full_disk(process, folder, faults):
    with faults("download", "full disk"):
        assert "File too large" in process(most=5000).communicate()[0]
        assert "x" not in files(folder)
        assert process().communicate()[0] == "('downloaded', '')\n"
        assert files(folder) == {"x": CONTENT}


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment(seed, process, web, folder, faults):
    with faults("download", "SIGKILL while another waits"):
        killed = process("drip")
        while not web.seen:
            time.sleep(0.01)
        waiting = process("cut")
        time.sleep(random.Random(seed).uniform(0, 1.5))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert waiting.communicate()[0] == "('downloaded', '')\n"
        assert files(folder) == {"x": CONTENT}


# archives


def tar_gz(path, *members):
    """Write an archive of pairs: a name, and the content or the link's target."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpack(archive, folder, limit=20_480):
    fetch.unpack(archive, ["set/a.bin", "set/b.bin"], folder, limit)


A, B = ("set/a.bin", b"A"), ("set/b.bin", b"B" * 1000)


def test_unpack_takes_the_named_files_only(tmp_path, folder):
    others = [("set/readme.html", b"<html>"), ("a.bin", b"3")]
    unpack(tar_gz(tmp_path / "x", *others, B, A), folder)
    assert files(folder) == {"a.bin": b"A", "b.bin": b"B" * 1000}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x"]


BAD = {
    "a file missing": ([A], "expected all of its files, found none called set/b.bin"),
    "a link in place of a file": ([("set/b.bin", "/etc/passwd"), A], "something else, set/b.bin"),
    "a link beside the files": ([("set", "/etc"), A, B], "files and folders only, found .* set"),
    "a path with ../": ([A, ("set/../../evil", b"1"), B], r"names inside .* found set/../../evil"),
    "an absolute path": (
        [("/tmp/evil", b"1"), A, B],
        "names inside of one folder, found /tmp/evil",
    ),
    "a file too long": ([A, ("set/b.bin", bytes(20_481))], "of at most 20,480 bytes, found 20,481"),
    "a bomb of many files": (
        [A, *[("x", b"")] * 50, B],
        "20,480 bytes when decompressed, found mo",
    ),
    "a bomb of one name": (
        [A, ("x" * 10**6, b""), B],
        "20,480 bytes when decompressed, found more",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archive(tmp_path, folder, kind, faults):
    members, words = BAD[kind]
    with faults("archive", kind):
        with pytest.raises(ValueError, match=words):
            unpack(tar_gz(tmp_path / "x", *members), folder)
        assert files(folder) in ({}, {"a.bin": b"A"})
        assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x"]


NOISE = random.Random(0).randbytes(1000)


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_archive_cut_off(tmp_path, folder, share, faults):
    archive = tar_gz(tmp_path / "x", ("set/a.bin", NOISE), ("set/b.bin", NOISE[::-1]))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with faults("archive", "cut off"):
        with pytest.raises(
            ValueError, match="expected a whole .tar.gz, found a cut off or damaged"
        ):
            unpack(archive, folder)
        assert not any(name.endswith(".part") for name in files(folder))


def test_no_archive_at_all(tmp_path, folder, faults):
    (tmp_path / "x").write_bytes(b"<html>Please log in</html>")
    with faults("archive", "something else"):
        with pytest.raises(ValueError, match="expected a whole .tar.gz, found"):
            unpack(tmp_path / "x", folder)
        assert files(folder) == {}


def test_failed_write_leaves_nothing(tmp_path, folder, monkeypatch, faults):
    def full(source, target, size):
        target.write(source.read(5))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    with faults("archive", "full disk"):
        with pytest.raises(OSError, match="No space left"):
            unpack(tar_gz(tmp_path / "x", A, B), folder)
        assert files(folder) == {}
