"""What comes from the network is unpacked file by file. (Downloads: with Fashion-MNIST.)"""

import io
import tarfile

import pytest

from d2lres import fetch


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


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def unpack(archive, folder):
    fetch.unpack(archive, ["set/a.bin", "set/b.bin"], folder, limit=1000)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_unpack_takes_the_named_files_only(tmp_path, folder):
    others = [("../evil", b"1"), ("/evil", b"2"), ("a.bin", b"3"), ("set/link", "/etc/passwd")]
    archive = tar_gz(tmp_path / "x", *others, ("set/b.bin", b"B" * 1000), ("set/a.bin", b"A"))
    unpack(archive, folder)
    assert files(folder) == {"a.bin": b"A", "b.bin": b"B" * 1000}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x"]


A = ("set/a.bin", b"A")
BAD = {
    "one missing": ([A], "expected all of its files, found none called set/b.bin"),
    "a link": ([("set/b.bin", "/etc/passwd"), A], "a file set/b.bin, found something else"),
    "too long": ([A, ("set/b.bin", bytes(1001))], "b.bin of at most 1,000 bytes, found 1,001"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_archive(tmp_path, folder, case):
    members, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        unpack(tar_gz(tmp_path / "x", *members), folder)
    assert files(folder) in ({}, {"a.bin": b"A"})


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_archive_cut_off(tmp_path, folder, share):
    noise = bytes(i * i // 7 % 256 for i in range(1000))
    content = tar_gz(tmp_path / "x", ("set/a.bin", noise), ("set/b.bin", noise[::-1])).read_bytes()
    (tmp_path / "x").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="expected a whole .tar.gz, found a cut off or damaged"):
        unpack(tmp_path / "x", folder)
    assert not any(name.endswith(".part") for name in files(folder))


def test_failed_write_leaves_nothing(tmp_path, folder, monkeypatch):
    def full(source, target, size):
        target.write(source.read(5))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tar_gz(tmp_path / "x", A, ("set/b.bin", b"B")), folder)
    assert files(folder) == {}
