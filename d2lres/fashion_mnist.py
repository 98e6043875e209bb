"""Fashion-MNIST: found or fetched, verified, and handed out in batches from memory.

Importing this module does not import MXNet; only going through an `ArrayIter` does.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import math
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from . import fetch
from .data import ArrayIter, source_line, two_iterators
from .fetch import Place, expect, with_notes
from .files import written_whole
from .runtime import cache_folder

__all__ = [
    "FASHION_MNIST_LABELS",
    "fetch_fashion_mnist",
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
    process does not try again by itself; `fetch_fashion_mnist` does.

    ``$D2LRES_DATA`` is passed over, and the line says so, if it holds none of the four files; if
    it holds some of them or broken ones, that is an error.

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
        Changes the training images at random, see `d2lres.augment`, before they are resized.
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
    return two_iterators("Fashion-MNIST", _found, batch_size, **options)


def _found():
    """Return ((training images, labels), (test images, labels)) and where they are from."""
    place, note = _find()
    sets, official = _read(place)
    return [(images[:, None], labels) for images, labels in sets], _where(place, note, official)


def text_labels(indices: Iterable[int]) -> list[str]:
    """Return the names of Fashion-MNIST's classes for numbers from 0 to 9."""
    return [FASHION_MNIST_LABELS[int(i)] for i in indices]


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an IDX file of images or labels, compressed with gzip or not.

    Parameters
    ----------
    path : str or path-like
        If its name contains ``idx3`` or ``idx1``, only images or only labels will do.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (n, height, width) or (n,).

    Raises
    ------
    ValueError
        If the content is damaged, incomplete, or something else; if a label is not from 0 to 9.
    """
    return _read_idx(Path(path))[0]


def _read_idx(path, content=None):
    """Return the array and the SHA-256 of what `path` holds; if given, `content` must be both."""
    wanted_shape, wanted_digest = content or (None, None)
    with open(path, "rb") as raw:
        start = raw.peek(64)
        expect(not fetch.is_web_page(start), path, "an IDX file", fetch.WEB_PAGE)
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
    return array, digest


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


def fetch_fashion_mnist(folder: str | os.PathLike | None = None) -> tuple[Path, str]:
    """Make sure that Fashion-MNIST is on this machine, so that later use needs no network.

    Parameters
    ----------
    folder : str or path-like, optional
        Fill this folder instead of the user cache, and look nowhere else. Later set
        ``D2LRES_DATA`` to it.

    Returns
    -------
    folder : pathlib.Path
        Where the files are: that of the shipped sample if nothing better could be had.
    source : str
        One line that says where they came from, how many images there are, and why if it is the
        sample.

    Raises
    ------
    ValueError, FileNotFoundError
        As `load_data_fashion_mnist`.
    """
    fetch.forget_failures()
    place, note = _find(Path(folder).expanduser() if folder else None)
    arrays, official = _read(place)
    counts = [(len(labels), len(labels)) for _, labels in arrays]
    line = source_line("Fashion-MNIST", _where(place, note, official), *counts)
    return _files(place.folder)[0], line


def _find(only=None):
    """Return the first place that has the files, and a note on what kept from a better one."""
    given, note = None if only else fetch.given_place(), ""
    if given:
        if _files(given.folder)[1]:
            return given, ""
        note = "$D2LRES_DATA holds no such files"
    where = only or "the user cache"
    cache = Place(only or cache_folder(), f"from {where}", fetch.REMOVED, OFFICIAL, ours=True)
    cure = f"Reinstall Debian's package {DEBIAN_PACKAGE}."
    debian = Place(DEBIAN_FOLDER, f"from Debian's {DEBIAN_PACKAGE}", cure)
    for place in [cache] if only else [cache, debian]:
        if len(_files(place.folder)[1]) == 4:
            return place, note
    way, why_not = _fetch(cache.folder / "fashion-mnist")
    if way:
        return cache._replace(name=f"{way} into {where}"), note
    sample = Path(__file__).with_name("sample")
    place = Place(sample, "from the small sample shipped with d2lres", "Reinstall d2lres.", SAMPLE)
    return place, "; ".join(filter(None, [note, why_not]))


def _files(folder):
    """Return the folder, or its subfolder, and the path of each of the four files it holds."""
    found = []
    for base in (folder, folder / "fashion-mnist"):
        paths = {n: p for n in OFFICIAL for p in (base / f"{n}.gz", base / n) if os.path.isfile(p)}
        found.append((base, paths))
    return max(found, key=lambda pair: len(pair[1]))


def _all_files(place):
    """Return the path of each of the four files, or say which are missing."""
    folder, files = _files(place.folder)
    if len(files) < 4:
        missing = ", ".join(name for name in OFFICIAL if name not in files)
        raise FileNotFoundError(f"{folder}: expected four files, missing {missing}. {place.cure}")
    return files


def _read(place):
    """Return ((training images, labels), (test images, labels)) and whether they are official."""
    arrays, official = [], True
    for name, path in _all_files(place).items():
        with place.mending(path):
            array, digest = _read_idx(path, place.contents.get(name))
            if array.ndim == 3:
                num = len(array)
                expect(array.shape[1:] == (28, 28), path, "images of 28x28", array.shape)
            expect(len(array) == num, path, f"{num:,} labels", f"{len(array):,}")
        arrays.append(array)
        official &= digest == OFFICIAL[name][1]
    return (arrays[:2], arrays[2:]), official


def _where(place, note, official):
    own = not official and place.contents is not SAMPLE
    return with_notes(place.name, "not the official files" if own else "", note)


def _fetch(folder):
    """Fill the folder; return how, and why it could not be done: one of the two is empty."""
    ways = {"downloaded": _download, "fetched with apt-get": _unpack_debian}
    return fetch.fill(folder, ways)


def _missing(folder):
    """Yield the names of the files still to be fetched, after removing bad ones."""
    files = _files(folder)[1]
    for name, content in OFFICIAL.items():
        try:
            _read_idx(files[name], content)
        except KeyError:
            yield name
        except ValueError:
            files[name].unlink()
            yield name


def _download(folder):
    deadline = time.monotonic() + fetch.DOWNLOAD_SECONDS
    for name in _missing(folder):
        urls = [f"{mirror}{name}.gz" for mirror in MIRRORS]
        limit = math.prod(OFFICIAL[name][0]) + 1024
        check = functools.partial(_read_idx, content=OFFICIAL[name])
        fetch.download(urls, folder / f"{name}.gz", limit, check, deadline)


def _unpack_debian(folder):
    """Take the files out of Debian's package, for which apt-get and dpkg need no root rights."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise OSError("this system has none")
    with tempfile.TemporaryDirectory() as temporary:
        limits = [
            "-o",
            "Acquire::Retries=0",
            "-o",
            f"Acquire::http::Timeout={fetch.ANSWER_SECONDS}",
        ]
        _run(temporary, "apt-get", *limits, "download", DEBIAN_PACKAGE)
        _run(temporary, "dpkg", "-x", *map(str, Path(temporary).glob("*.deb")), "content")
        unpacked = Path(temporary, "content", *DEBIAN_FOLDER.parts[1:])
        for name in _missing(folder):
            _read_idx(unpacked / f"{name}.gz", OFFICIAL[name])
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
