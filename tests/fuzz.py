"""Readers of files under any bytes: what is right, and a coverage-guided search for what is not.

Usage: python tests/fuzz.py idx|cifar10|cifar100|archive|picture [libFuzzer's options and a folder]
(`make fuzz` calls it so, where atheris is installed.)
"""

import functools
import gzip
import io
import re
import sys
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


def try_cifar(name, path):
    assert getattr(cifar, name).read(path)[0].tobytes() == path.read_bytes()


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
    "cifar10": functools.partial(try_cifar, "CIFAR10"),
    "cifar100": functools.partial(try_cifar, "CIFAR100"),
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
    sizes = {"set/readme": 9, "set/" + "x" * 200: 1, "set/a.bin": 600}
    packed = small_sets.tar_gz(*((name, bytes(size)) for name, size in sizes.items()))
    pictures, noise = [], np.random.default_rng(0).integers(0, 256, (9, 9, 4), np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(noise[..., :3] if kind == "JPEG" else noise).save(file, kind)
        pictures.append(file.getvalue())
    labels, images = map(small_sets.idx, (np.array([0, 1, 9]), np.arange(24).reshape(2, 3, 4)))
    return {
        "idx": [labels, images, gzip.compress(images, mtime=0)],
        "cifar10": [small_sets.records(cifar.CIFAR10, 1).tobytes()],
        "cifar100": [small_sets.records(cifar.CIFAR100, 1).tobytes()],
        "archive": [gzip.decompress(packed), packed],
        "picture": pictures,
    }[target]


if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).parents[1]))
    with atheris.instrument_imports(include=["d2lres", "gzip", "tarfile"]):
        import small_sets

        from d2lres.data import cifar, fashion_mnist, folder
        from d2lres.files import archive

    target = sys.argv.pop(1)
    for number, seed in enumerate(seeds(target)):
        Path(sys.argv[-1], f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, lambda content: try_one(target, content) and None)
    atheris.Fuzz()
else:
    import small_sets

    from d2lres.data import cifar, fashion_mnist, folder
    from d2lres.files import archive
