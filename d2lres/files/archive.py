"""Archives of others, unpacked member by member and never further than asked for."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from .whole import expect, written_whole

__all__ = ["unpack"]


def unpack(archive: Path, names: Iterable[str], folder: Path, limit: int) -> None:
    """Take the named files out of a ``.tar.gz``, one by one, and nothing else.

    The names have the folders that the archive has them in; those are left out in ``folder``. It is
    a ValueError if the archive is damaged, lacks one of the files, has more than ``limit`` bytes
    when it is decompressed, or contains anything but files and folders with relative names: links,
    devices, ``/etc/passwd``, ``../evil``.
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
