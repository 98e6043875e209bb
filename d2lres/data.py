"""Fashion-MNIST: found or fetched, verified, and handed out in batches from memory.

Importing this module does not import MXNet; only going through an `ArrayIter` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import hashlib
import http.client
import math
import operator
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .runtime import cache_folder

__all__ = [
    "FASHION_MNIST_LABELS",
    "ArrayIter",
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
ANSWER_SECONDS = 8  # a server that has not answered by then is passed over
DOWNLOAD_SECONDS = 900  # for all files and mirrors together
APT_SECONDS = 300
MAX_TRIES = 10  # of one file at one mirror, if each try brings some more of it
MAX_GZIP_RATIO = 1032  # deflate cannot do better
_why_not: dict[Path, str] = {}  # folders that could not be filled: not tried again by every load


class Place(NamedTuple):
    """A folder that may hold the four files, what to say of it and how to mend it."""

    folder: Path
    name: str
    cure: str
    contents: dict = {}  # shape and SHA-256 the files must have; empty: any well-formed set
    ours: bool = False  # a bad file may be removed


# ------------------------------------------------------------------------------- the iterator


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
    batch_size, resize = _whole("batch_size", batch_size), _height_width("resize", resize)
    numbers = {"num_train": num_train, "num_test": num_test, "num_valid": num_valid}
    asked = {name: n if n is None else _whole(name, n) for name, n in numbers.items()}
    if num_valid is not None and num_test is not None:
        raise ValueError(
            "num_test and num_valid exclude each other: leave out num_test, as with num_valid the "
            "test images are not used"
        )
    place, note = _find()
    sets, official = _read(place)
    if num_valid is not None:
        sets = split_by_class(*sets[0], asked["num_valid"])
    parts = [_first(*sets[0], asked["num_train"]), _first(*sets[1], asked["num_test"])]
    counts = [(len(part[1]), len(whole[1])) for part, whole in zip(parts, sets, strict=True)]
    source = _line(place, note, official, *counts, split=num_valid is not None)
    print(source)
    options = {"resize": resize, "seed": seed, "source": source}
    return (
        ArrayIter(*parts[0], batch_size, shuffle=True, augment=augment, **options),
        ArrayIter(*parts[1], batch_size, **options),
    )


class ArrayIter:
    """Batches ``(X, y)`` of images that stay uint8 in memory, as `mxnet.np` arrays.

    A resized image agrees with ``transforms.Resize`` of Gluon, which d2l uses (OpenCV's bilinear,
    no smoothing before shrinking), to 1/255: OpenCV rounds to whole grey levels, this does not.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 of shape (n, channels, height, width).
    labels : numpy.ndarray
        Integers of shape (n,).
    batch_size : int
    resize : int or (int, int), optional
    shuffle : bool, default False
        Give epoch ``e`` the order ``numpy.random.default_rng([seed, e]).permutation(n)``.
    seed : int, default 0
    augment : callable, optional
        ``augment(images, rng)`` gives new images, uint8 like the stored ones, before any resizing:
        see `d2lres.augment`. Batch ``b`` of epoch ``e`` gets the generator
        ``numpy.random.default_rng([seed, e, 1 + b])``, whatever the others did with theirs.
    source : str, default ""
        One line that says where the images came from.

    Attributes
    ----------
    batch_size, num_examples : int
    image_shape : tuple of int
        Channels, height and width of the images given out.
    labels : numpy.ndarray
        int32 of shape (n,), in the order stored, which is the order of batches if not shuffled.
    seed, epoch : int
        May be set: ``seed`` and ``epoch = 0`` repeat a run. The epoch goes up by one each time
        all batches were taken.
    augment : callable or None
    augmented_by : str or None
        What `augment` is, for the record of a run: ``"RandomCrop(padding=2)"``.
    source : str
    """

    def __init__(
        self,
        images,
        labels,
        batch_size,
        *,
        resize=None,
        shuffle=False,
        seed=0,
        augment=None,
        source="",
    ):
        if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                "expected uint8 images (n, channels, height, width) and labels (n,), "
                f"got {images.dtype} {images.shape} and {labels.shape}"
            )
        self.images, self.labels = images, labels.astype(np.int32)
        self.batch_size = _whole("batch_size", batch_size)
        self.num_examples = len(images)
        self.seed, self.epoch = _whole("seed", seed, least=0), 0
        self.shuffle, self.source = shuffle, source
        if not (augment is None or callable(augment)) or isinstance(augment, type):
            raise ValueError(
                f"augment must be one callable like RandomCrop(2), not {augment!r}: "
                "of several make one with Compose([...])"
            )
        self.augment = augment
        old = self._augmented(images[:1].copy(), np.random.default_rng(0)).shape[2:]
        size = _height_width("resize", resize) or old
        self.image_shape = (images.shape[1], *size)
        self._resize = None
        if size != old:
            self._resize = [_bilinear(*pair) for pair in zip(old, size, strict=True)]

    def __len__(self) -> int:
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator:
        epoch, order = self.epoch, np.arange(self.num_examples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
        for number in range(len(self)):
            chosen = order[number * self.batch_size :][: self.batch_size]
            # the 1: [seed, epoch] and [seed, epoch, 0] are the same stream, that of the order
            rng = np.random.default_rng([self.seed, epoch, 1 + number])
            yield self._batch(chosen, rng)
        self.epoch = epoch + 1

    @property
    def augmented_by(self) -> str | None:
        return getattr(self.augment, "__name__", None) or (self.augment and repr(self.augment))

    def _batch(self, chosen, rng):
        images = self._augmented(self.images[chosen], rng)
        return _to_mxnet(self._pixels(images)), _to_mxnet(self.labels[chosen])

    def _augmented(self, images, rng):
        if self.augment is None:
            return images
        new = self.augment(images, rng)
        if getattr(new, "dtype", None) != np.uint8 or new.shape[:2] != images.shape[:2]:
            raise ValueError(
                f"augment must return uint8 images, as many as it was given, {images.shape}; "
                f"{self.augmented_by} returned {getattr(new, 'dtype', type(new).__name__)} "
                f"{getattr(new, 'shape', '')}"
            )
        return new

    def _pixels(self, images):
        X = images.astype(np.float32)
        X /= 255
        if self._resize:
            rows, columns = self._resize
            # image by image: products so small stay on this thread, and leave MXNet the others
            X = rows @ (X @ columns.T)
        return X


def text_labels(indices: Iterable[int]) -> list[str]:
    """Return the names of Fashion-MNIST's classes for numbers from 0 to 9."""
    return [FASHION_MNIST_LABELS[int(i)] for i in indices]


def first_of_each_class(labels: np.ndarray, num: int) -> np.ndarray:
    """Return, in ascending order, `num` positions in `labels`: the first of every class in turn."""
    rank = np.empty(len(labels), int)  # how many of its class stand before each one
    for label in np.unique(labels):
        (where,) = np.nonzero(labels == label)
        rank[where] = np.arange(len(where))
    return np.sort(np.lexsort((labels, rank))[:num])


def split_by_class(images: np.ndarray, labels: np.ndarray, num_valid: int):
    """Split into ``(images, labels)`` to train on and `num_valid` others to validate on.

    The latter are the last of every class in turn, so that a larger part contains the smaller ones
    and the first of every class, which a small `num_train` takes, stay the same.

    Raises
    ------
    ValueError
        If no image would be left to train on.
    """
    if num_valid >= len(labels):
        raise ValueError(
            f"num_valid must leave some of the {len(labels):,} training images to train on, and "
            f"{num_valid:,} does not: try num_valid={max(len(labels) // 10, 1)}"
        )
    valid = np.zeros(len(labels), bool)
    valid[-1 - first_of_each_class(labels[::-1], num_valid)] = True
    return (images[~valid], labels[~valid]), (images[valid], labels[valid])


def _first(images, labels, num):
    """Return `num` of the images, with an axis for the one channel, and their labels."""
    chosen = slice(None) if num is None else first_of_each_class(labels, num)
    return images[chosen, None], labels[chosen]


def _to_mxnet(array):
    """Copy a NumPy array into a new `mxnet.np` array on the CPU, at once.

    ``mxnet.np.array`` waits until MXNet has computed all that it was asked for, so that no batch
    could be made while the one before is trained on. Nothing else knows the new array's memory
    yet: it can be written to without asking MXNet.
    """
    import mxnet as mx
    from mxnet.base import _LIB, check_call

    copy = mx.np.empty(array.shape, dtype=array.dtype, ctx=mx.cpu())
    address = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(copy.handle, ctypes.byref(address)))
    array = np.ascontiguousarray(array)
    ctypes.memmove(address, array.ctypes.data, array.nbytes)
    return copy


def _bilinear(old, new):
    """Return the matrix (new, old) that resizes one axis as OpenCV does."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    distance = np.abs(at[:, None] - np.arange(old))
    return np.maximum(1 - distance, 0).astype(np.float32)


def _whole(name, value, least=1):
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number


def _height_width(name, value):
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number of pixels or (height, width), not {value!r}")
    return tuple(_whole(name, side) for side in pair)


# ------------------------------------------------------------------------------- reading files


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
        page = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
        _expect(not page, path, "an IDX file", "a web page (must you log in to this network?)")
        zipped = start.startswith(b"\x1f\x8b")
        room = os.path.getsize(path) * (MAX_GZIP_RATIO if zipped else 1)
        stream = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            header, shape = _read_header(stream, path)
            size = math.prod(shape)
            _expect(shape == (wanted_shape or shape), path, f"the shape {wanted_shape}", shape)
            _expect(size <= room, path, f"{size:,} bytes of content", "a file too short for them")
            body = _read_at_most(stream, size + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            _expect(False, path, "a whole gzip file", f"a cut off or damaged one ({error})")
    found = f"{len(body):,}" if len(body) <= size else "more"
    _expect(len(body) == size, path, f"{size:,} bytes after the header", found)
    array = np.frombuffer(body, np.uint8).reshape(shape)
    if array.ndim == 1:
        _expect(array.max() <= 9, path, "labels from 0 to 9", f"the label {array.max()}")
    digest = hashlib.sha256(header)
    digest.update(body)
    digest = digest.hexdigest()
    words = f"the official content, SHA-256 {wanted_digest}"
    _expect(digest == (wanted_digest or digest), path, words, digest)
    return array, digest


def _read_header(stream, path):
    magic = _read_at_most(stream, 4)
    kinds = {b"\0\0\x08\x03": 3, b"\0\0\x08\x01": 1}  # unsigned bytes; how many dimensions
    wanted = [kind for kind, n in kinds.items() if f"idx{4 - n}" not in path.name]
    words = " or ".join(kind.hex() for kind in wanted)
    _expect(bytes(magic) in wanted, path, f"the magic number {words}", magic.hex() or "nothing")
    sizes = _read_at_most(stream, 4 * kinds[bytes(magic)])
    shape = tuple(np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4").tolist())
    complete = len(shape) == kinds[bytes(magic)] and all(shape)
    _expect(complete, path, "a header with sizes above 0", shape)
    return magic + sizes, shape


def _read_at_most(stream, limit):
    """Read in pieces: memory grows with what is there, not with what a header promises."""
    body = bytearray()
    while chunk := stream.read(min(limit - len(body), 1 << 20)):
        body += chunk
    return body


def _expect(condition, path, expected, found):
    if not condition:
        raise ValueError(f"{path}: expected {expected}, found {found}.")


# ------------------------------------------------------------------------- finding and fetching


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
    _why_not.clear()
    place, note = _find(Path(folder).expanduser() if folder else None)
    arrays, official = _read(place)
    counts = [(len(labels), len(labels)) for _, labels in arrays]
    return _files(place.folder)[0], _line(place, note, official, *counts)


def _find(only=None):
    """Return the first place that has the files, and a note on what kept from a better one."""
    notes, given = [], os.environ.get("D2LRES_DATA")
    if given and not only:
        cure = "Put good files there, or unset D2LRES_DATA."
        place = Place(Path(given).expanduser(), "from $D2LRES_DATA", cure)
        if _files(place.folder)[1]:
            return place, ""
        notes.append("$D2LRES_DATA holds no such files")
    cure = "The file was removed; run this again to fetch it anew."
    where = only or "the user cache"
    cache = Place(only or cache_folder(), f"from {where}", cure, OFFICIAL, True)
    cure = f"Reinstall Debian's package {DEBIAN_PACKAGE}."
    debian = Place(DEBIAN_FOLDER, f"from Debian's {DEBIAN_PACKAGE}", cure)
    for place in [cache] if only else [cache, debian]:
        if len(_files(place.folder)[1]) == 4:
            return place, "; ".join(notes)
    way, why_not = _fetch(cache.folder / "fashion-mnist")
    if way:
        return cache._replace(name=f"{way} into {where}"), "; ".join(notes)
    sample = Path(__file__).with_name("sample")
    place = Place(sample, "from the small sample shipped with d2lres", "Reinstall d2lres.", SAMPLE)
    return place, "; ".join([*notes, why_not])


def _files(folder):
    """Return the folder, or its subfolder, and the path of each of the four files it holds."""
    found = []
    for base in (folder, folder / "fashion-mnist"):
        paths = {n: p for n in OFFICIAL for p in (base / f"{n}.gz", base / n) if os.path.isfile(p)}
        found.append((base, paths))
    return max(found, key=lambda pair: len(pair[1]))


def _read(place):
    """Return ((training images, labels), (test images, labels)) and whether they are official."""
    folder, files = _files(place.folder)
    if len(files) < 4:
        missing = ", ".join(name for name in OFFICIAL if name not in files)
        raise FileNotFoundError(f"{folder}: expected four files, missing {missing}. {place.cure}")
    arrays, official = [], True
    for name, path in files.items():
        try:
            array, digest = _read_idx(path, place.contents.get(name))
            if array.ndim == 3:
                num = len(array)
                _expect(array.shape[1:] == (28, 28), path, "images of 28x28", array.shape)
            _expect(len(array) == num, path, f"{num:,} labels", f"{len(array):,}")
        except ValueError as error:
            if place.ours:
                path.unlink()
            raise ValueError(f"{error} {place.cure}") from None
        arrays.append(array)
        official &= digest == OFFICIAL[name][1]
    return (arrays[:2], arrays[2:]), official


def _line(place, note, official, *counts, split=False):
    train, test = (f"{n:,}" if n == of else f"{n:,} of {of:,}" for n, of in counts)
    kind = "test images"
    if split:
        kind = f"validation images, of the {sum(of for _, of in counts):,} for training,"
    if not official and place.contents is not SAMPLE:
        note = "; ".join(filter(None, ["not the official files", note]))
    note = f" ({note})" if note else ""
    return f"Fashion-MNIST: {train} training and {test} {kind} {place.name}{note}"


def _fetch(folder):
    """Fill the folder; return how, and why it could not be done: one of the two is empty."""
    if os.environ.get("D2LRES_OFFLINE", "0") not in ("", "0"):
        return "", "D2LRES_OFFLINE is set"
    if folder in _why_not:
        return "", _why_not[folder]
    problems = []
    for way, fill in {"downloaded": _download_all, "fetched with apt-get": _unpack_debian}.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                fill(folder)
            return way, ""
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problems.append(f"not {way}: {_in_few_words(error)}")
    _why_not[folder] = "; ".join(problems).replace(f"{folder}{os.sep}", "")
    return "", _why_not[folder]


def _in_few_words(error):
    if type(error) is urllib.error.URLError:  # wraps the real error
        error = error.reason
    return getattr(error, "strerror", None) or str(error) or repr(error)


@contextlib.contextmanager
def _locked(folder):
    """Let one process at a time fill the folder; others wait and then find it filled."""
    import fcntl  # POSIX only, and the rest of this module works without

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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


def _download_all(folder):
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    for name in _missing(folder):
        problems = []
        for mirror in MIRRORS:
            part = folder / f"{name}.gz.part"
            try:
                _download(f"{mirror}{name}.gz", part, OFFICIAL[name], deadline)
                os.replace(part, folder / f"{name}.gz")
                break
            except (OSError, ValueError, http.client.HTTPException) as error:
                problems.append(_in_few_words(error))
        else:
            raise OSError(", ".join(dict.fromkeys(problems)))


def _download(url, part, content, deadline):
    """Download and verify; go on where a broken connection stopped, as long as bytes come."""
    for _ in range(MAX_TRIES):
        before = _size(part)
        try:
            _receive(url, part, math.prod(content[0]) + 1024, deadline)
            _read_idx(part, content)
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
    try:
        response = _open(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing to add: the check will say whether it is right
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise OSError("a web page came instead (must you log in to this network?)")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the file from its beginning
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, leave=False)
        bar.set_description(part.stem)
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := response.read1(1 << 16):
                have += len(chunk)
                if have > limit:
                    raise ValueError(f"{url}: expected at most {limit:,} bytes, found more")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {DOWNLOAD_SECONDS} s")
                file.write(chunk)
                bar.update(len(chunk))
    if total and have < total:
        raise ConnectionError(f"the connection broke after {have:,} of {total:,} bytes")


def _open(request):
    """Open a URL in bounded time; urllib alone waits for names, and for each address in turn."""
    answer = queue.SimpleQueue()

    def ask():
        try:
            answer.put(urllib.request.urlopen(request, timeout=ANSWER_SECONDS))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer in {ANSWER_SECONDS} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _unpack_debian(folder):
    """Take the files out of Debian's package, for which apt-get and dpkg need no root rights."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise OSError("this system has none")
    with tempfile.TemporaryDirectory() as temporary:
        limits = ["-o", "Acquire::Retries=0", "-o", f"Acquire::http::Timeout={ANSWER_SECONDS}"]
        _run(temporary, "apt-get", *limits, "download", DEBIAN_PACKAGE)
        _run(temporary, "dpkg", "-x", *map(str, Path(temporary).glob("*.deb")), "content")
        unpacked = Path(temporary, "content", *DEBIAN_FOLDER.parts[1:])
        for name in _missing(folder):
            _read_idx(unpacked / f"{name}.gz", OFFICIAL[name])
            part = shutil.copyfile(unpacked / f"{name}.gz", folder / f"{name}.gz.part")
            os.replace(part, folder / f"{name}.gz")


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
