"""Readers of files under any bytes: what is right, and a coverage-guided search for what is not.

Usage: python tests/fuzz.py idx|cifar10|cifar100|archive|picture [libFuzzer's options and a folder]
(`make fuzz` calls it so, where atheris is installed.)
"""

import gzip
import io
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

LIMIT = 1 << 20  # of an archive, decompressed


def try_idx(path):
    content = path.read_bytes()
    array, _ = fashion_mnist.read_idx(path)
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    assert array.dtype == np.uint8 and array.ndim in (1, 3)
    shape = np.array(array.shape, ">u4").tobytes()
    assert plain == bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def try_cifar10(path):
    assert cifar.CIFAR10.read(path)[0].tobytes() == path.read_bytes()


def try_cifar100(path):
    assert cifar.CIFAR100.read(path)[0].tobytes() == path.read_bytes()


def try_archive(path):
    target = path.with_name("folder")
    target.mkdir(exist_ok=True)
    try:
        archive.unpack(path, ["set/a.bin"], target, LIMIT)
        (only,) = target.iterdir()
        assert only.name == "a.bin" and only.stat().st_size <= LIMIT
    finally:
        assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, "folder"])
        for left in target.iterdir():
            assert left.name == "a.bin"  # and no half of it
            left.unlink()


def try_picture(path):
    pixels = folder.read_image(path, 4)
    assert pixels.shape == (3, 4, 4) and pixels.dtype == np.uint8


TARGETS = {
    "idx": try_idx,
    "cifar10": try_cifar10,
    "cifar100": try_cifar100,
    "archive": try_archive,
    "picture": try_picture,
}


def try_one(target: str, content: bytes) -> bool:
    """Say whether a reader takes the bytes, as they are or compressed.

    All that it may raise is a ValueError in words.
    """
    memory, taken = Path("/dev/shm"), False
    for each in (content, gzip.compress(content, 1)):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
            path = Path(place, "x")
            path.write_bytes(each)
            try:
                TARGETS[target](path)
                taken = True
            except ValueError as error:
                assert re.match(f"{path}(: expected | is no )", str(error)), error
    return taken


def seeds(target: str) -> list[bytes]:
    """Return small contents that a reader takes, to start from."""
    apple = bytes([cifar.CIFAR100_COARSE_OF_FINE[0], 0])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, size in {"set/readme": 9, "set/" + "x" * 200: 1, "set/a.bin": 600}.items():
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    pictures, noise = [], np.random.default_rng(0).integers(0, 256, (9, 9, 4), np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(noise[..., :3] if kind == "JPEG" else noise).save(file, kind)
        pictures.append(file.getvalue())
    labels = b"\0\0\x08\x01\0\0\0\x03\0\1\x09"
    images = b"\0\0\x08\x03\0\0\0\2\0\0\0\3\0\0\0\4" + bytes(range(24))
    return {
        "idx": [labels, images, gzip.compress(images, mtime=0)],
        "cifar10": [bytes([9]) + bytes(3072)],
        "cifar100": [apple + bytes(3072)],
        "archive": [buffer.getvalue(), gzip.compress(buffer.getvalue(), mtime=0)],
        "picture": pictures,
    }[target]


if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).parents[1]))
    with atheris.instrument_imports(include=["d2lres", "gzip", "tarfile"]):
        from d2lres.data import cifar, fashion_mnist, folder
        from d2lres.files import archive

    target = sys.argv.pop(1)
    for number, seed in enumerate(seeds(target)):
        Path(sys.argv[-1], f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, lambda content: try_one(target, content) and None)
    atheris.Fuzz()
else:
    from d2lres.data import cifar, fashion_mnist, folder
    from d2lres.files import archive
