"""Fashion-MNIST: its files, how they are read, and its loader.

Importing this module does not import MXNet; only going through an `ArrayIter` does.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..checks import labels
from ..files import download
from ..files.sources import Place, Source, download_files
from ..files.whole import expect, written_whole
from .batches import ArrayIter, two_iterators

__all__ = [
    "FASHION_MNIST",
    "FASHION_MNIST_LABELS",
    "load_data_fashion_mnist",
    "read_idx",
    "text_labels",
]

# the words of Dive into Deep Learning
FASHION_MNIST_LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

# shape and SHA-256 of the uncompressed file: the same data is in circulation compressed anew
OFFICIAL = {
    "train-images-idx3-ubyte": (
        (60000, 28, 28), "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (
        (60000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (
        (10000, 28, 28), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (
        (10000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}  # fmt: skip
SAMPLE = {
    "train-images-idx3-ubyte": (
        (6000, 28, 28), "cf313073c7eb485392848071d5c433571d7166043e971e3345b095cc30518084"),
    "train-labels-idx1-ubyte": (
        (6000,), "097b93fbcf9bd5bc648b1a457ddc55c9e4ab49afb33f9ecae8ce068399a75e3a"),
    "t10k-images-idx3-ubyte": (
        (1000, 28, 28), "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef"),
    "t10k-labels-idx1-ubyte": (
        (1000,), "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909"),
}  # fmt: skip
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
APT_SECONDS = 300
MAX_GZIP_RATIO = 1032  # deflate cannot do better


def load_data_fashion_mnist(
    batch_size: int,
    resize: int | tuple[int, int] | None = None,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    num_valid: int | None = None,
    augment: Callable | None = None,
    seed: int = 0,
) -> tuple[ArrayIter, ArrayIter]:
    """Find or fetch Fashion-MNIST and return iterators over its training and test batches.

    The files are looked for in ``$D2LRES_DATA``, the user cache and the folder of Debian's package
    ``dataset-fashion-mnist``; else they are downloaded, or taken from that package with
    ``apt-get download``; else 6,000 + 1,000 images shipped with d2lres are used. One printed line
    says which. ``D2LRES_OFFLINE=1`` keeps away from the network. After a failed attempt the same
    process does not try again by itself; ``python -m d2lres data fashion-mnist`` does.

    ``$D2LRES_DATA`` is passed over, and the line says so, if it holds none of the four files; if it
    holds some of them or broken ones, that is an error.

    Parameters
    ----------
    batch_size : int
        Images in a batch; the last batch of an epoch may be smaller.
    resize : int or (int, int), optional
        Side, or height and width, in pixels. By default images stay 28x28.
    num_train, num_test : int, optional
        Use only so many images: the first of each class, in equal numbers. A larger part contains
        the smaller ones, and none depends on `seed`. If there are fewer, all are used.
    num_valid : int, optional
        To choose hyperparameters: set aside so many training images, the last of each class in
        equal numbers whatever the `seed`, and return them in place of the test images, which are
        not used then. `num_train` counts among the others.
    augment : callable, optional
        Changes the training images at random, see `d2lres.data.augment`, before they are resized.
    seed : int, default 0
        Decides, together with the number of the epoch, the order of the training images and how
        they are augmented.

    Returns
    -------
    train_iter, test_iter : ArrayIter
        Give ``X``, float32 of shape (batch, 1, height, width) from 0 to 1, and ``y``, int32 of
        shape (batch,) from 0 to 9. Only the training images are shuffled and augmented. With
        `num_valid` they are ``train_iter, valid_iter``.

    Raises
    ------
    ValueError
        If an argument does not fit, or a file is damaged: the message says which and what to do.
    FileNotFoundError
        If ``$D2LRES_DATA`` holds only some of the four files.
    """
    options = {"num_train": num_train, "num_test": num_test, "num_valid": num_valid}
    options |= {"resize": resize, "augment": augment, "seed": seed}
    return two_iterators(FASHION_MNIST.name, FASHION_MNIST.load, batch_size, **options)


def text_labels(indices: Iterable[int]) -> list[str]:
    """Return the names of Fashion-MNIST's classes for numbers from 0 to 9."""
    numbers = indices if hasattr(indices, "shape") else list(indices)
    return [FASHION_MNIST_LABELS[i] for i in labels(numbers, None, len(FASHION_MNIST_LABELS))]


def read_idx(path: Path, wanted: tuple | None = None) -> tuple[np.ndarray, tuple]:
    """Read an IDX file of images or labels, compressed with gzip or not, as `Source` asks for.

    The array is uint8 of shape (n, height, width) or (n,); its content is identified by (shape,
    SHA-256 of the file before compression). If the name contains ``idx3`` or ``idx1``, only images
    or only labels will do. It is a ValueError if the file is damaged, incomplete, or something
    else; if a label is not from 0 to 9.
    """
    wanted_shape, wanted_digest = wanted or (None, None)
    with open(path, "rb") as raw:
        start = raw.peek(64)
        expect(not download.is_web_page(start), path, "an IDX file", download.WEB_PAGE)
        zipped = start.startswith(b"\x1f\x8b")
        room = os.path.getsize(path) * (MAX_GZIP_RATIO if zipped else 1)
        stream = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            header, shape = _read_header(stream, path)
            size = math.prod(shape)
            expect(shape == (wanted_shape or shape), path, f"the shape {wanted_shape}", shape)
            expect(size <= room, path, f"{size:,} bytes of content", "a file too short for them")
            body = _read_at_most(stream, size + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            expect(False, path, "a whole gzip file", f"a cut off or damaged one ({error})")
    found = f"{len(body):,}" if len(body) <= size else "more"
    expect(len(body) == size, path, f"{size:,} bytes after the header", found)
    array = np.frombuffer(body, np.uint8).reshape(shape)
    if array.ndim == 1:
        expect(array.max() <= 9, path, "labels from 0 to 9", f"the label {array.max()}")
    digest = hashlib.sha256(header)
    digest.update(body)
    digest = digest.hexdigest()
    words = f"the official content, SHA-256 {wanted_digest}"
    expect(digest == (wanted_digest or digest), path, words, digest)
    return array, (shape, digest)


def _read_header(stream, path):
    magic = _read_at_most(stream, 4)
    kinds = {b"\0\0\x08\x03": 3, b"\0\0\x08\x01": 1}  # unsigned bytes; how many dimensions
    wanted = [kind for kind, n in kinds.items() if f"idx{4 - n}" not in path.name]
    words = " or ".join(kind.hex() for kind in wanted)
    expect(bytes(magic) in wanted, path, f"the magic number {words}", magic.hex() or "nothing")
    sizes = _read_at_most(stream, 4 * kinds[bytes(magic)])
    shape = tuple(np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").tolist())
    complete = len(shape) == kinds[bytes(magic)] and all(shape)
    expect(complete, path, "a header with sizes above 0", shape)
    return magic + sizes, shape


def _read_at_most(stream, limit):
    """Read in pieces: memory grows with what is there, not with what a header promises."""
    body = bytearray()
    while chunk := stream.read(min(limit - len(body), 1 << 20)):
        body += chunk
    return body


def _split(arrays, paths):
    """Return ((training images, labels), (test images, labels))."""
    for i in (0, 2):
        (n, *size), found = arrays[i].shape, len(arrays[i + 1])
        expect(size == [28, 28], paths[i], "images of 28x28", "x".join(map(str, size)))
        expect(found == n, paths[i + 1], f"{n:,} labels", f"{found:,}")
    return [(arrays[0][:, None], arrays[1]), (arrays[2][:, None], arrays[3])]


def _unpack_debian(source, folder):
    """Take the files out of Debian's package, for which apt-get and dpkg need no root rights."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise OSError("this system has none")
    with tempfile.TemporaryDirectory() as temporary:
        limits = ("Acquire::Retries=0", f"Acquire::http::Timeout={download.ANSWER_SECONDS}")
        options = [word for limit in limits for word in ("-o", limit)]
        _run(temporary, "apt-get", *options, "download", DEBIAN_PACKAGE)
        _run(temporary, "dpkg", "-x", *map(str, Path(temporary).glob("*.deb")), "content")
        unpacked = Path(temporary, "content", *DEBIAN_FOLDER.parts[1:])
        for name in source.without_good(folder):
            source.read(unpacked / f"{name}.gz", source.files[name])
            with written_whole(folder / f"{name}.gz") as file:
                file.write((unpacked / f"{name}.gz").read_bytes())


def _run(folder, *command):
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APT_SECONDS,
    )
    if done.returncode:
        raise OSError((done.stderr.strip() or f"{command[0]} failed").splitlines()[-1])


FASHION_MNIST = Source(
    name="Fashion-MNIST",
    folder="fashion-mnist",
    files=OFFICIAL,
    read=read_idx,
    split=_split,
    mirrors=MIRRORS,
    ways={"downloaded": download_files, "fetched with apt-get": _unpack_debian},
    endings=(".gz", ""),
    places=(
        Place(
            DEBIAN_FOLDER,
            f"from Debian's {DEBIAN_PACKAGE}",
            f"Reinstall Debian's package {DEBIAN_PACKAGE}.",
        ),
    ),
    sample=Place(
        Path(__file__).with_name("sample"),
        "from the small sample shipped with d2lres",
        "Reinstall d2lres.",
        SAMPLE,
    ),
)
