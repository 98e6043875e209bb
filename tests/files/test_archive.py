"""Archives of others are unpacked file by file, or refused in words."""

import random

import pytest
from small_sets import contents_of, tar_gz

from d2lres.files import archive

NOISE = random.Random(0).randbytes(1000)
A, B = ("set/a.bin", NOISE), ("set/b.bin", NOISE[::-1])


@pytest.fixture
def unpack(tmp_path):
    """Unpack two files of an archive and return what came out: nothing else, however it ends."""
    (tmp_path / "folder").mkdir()

    def unpack(content):
        (tmp_path / "x").write_bytes(content)
        try:
            names = ["set/a.bin", "set/b.bin"]
            archive.unpack(tmp_path / "x", names, tmp_path / "folder", limit=20_480)
        finally:
            left = contents_of(tmp_path / "folder")
            assert left.items() <= {"a.bin": A[1], "b.bin": B[1]}.items()
            assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x"]
        return left

    return unpack


def test_only_the_named_files_are_taken(unpack):
    others = [("set/readme.html", b"<html>"), ("a.bin", b"3")]
    assert unpack(tar_gz(*others, B, A)) == {"a.bin": A[1], "b.bin": B[1]}


MANY = "20,480 bytes when decompressed, found more"
CUT = "expected a whole .tar.gz, found a cut off or damaged one"
BAD = {
    "a file missing": (tar_gz(A), "expected all of its files, found none called set/b.bin"),
    "a link in place of a file": (tar_gz(("set/b.bin", "/etc/passwd"), A), "else, set/b.bin"),
    "a link beside the files": (tar_gz(("set", "/etc"), A, B), "and folders only, found .* set"),
    "a path with ../": (tar_gz(A, ("set/../../evil", b"1"), B), r"names .* set/../../evil"),
    "an absolute path": (tar_gz(("/tmp/evil", b"1"), A, B), "one folder, found /tmp/evil"),
    "a file too long": (tar_gz(A, ("set/b.bin", bytes(20_481))), "at most 20,480 .* found 20,481"),
    "a bomb of many files": (tar_gz(A, *[("x", b"")] * 50, B), MANY),
    "a bomb of one name": (tar_gz(A, ("x" * 10**6, b""), B), MANY),
    "cut off": (tar_gz(A, B)[:-900], CUT),
    "cut off at once": (tar_gz(A, B)[:700], CUT),
    "empty": (b"", CUT),
    "something else": (b"<html>Please log in</html>", CUT),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archive(unpack, kind, faults):
    content, words = BAD[kind]
    with faults("archive", kind):
        with pytest.raises(ValueError, match=words):
            unpack(content)


def test_failed_write_leaves_nothing(unpack, monkeypatch, faults):
    def full(source, target, size):
        target.write(source.read(5))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with faults("archive", "full disk"):
        with pytest.raises(OSError, match="No space left"):
            unpack(tar_gz(A, B))
