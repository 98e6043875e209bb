"""Images in memory: chosen, split, and handed out in batches.

Importing this module does not import MXNet; only going through an `ArrayIter` does.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from .. import checks
from ..checks import as_numpy, height_width, whole
from ..files.whole import legible, shown

__all__ = [
    "ArrayIter",
    "first_of_each_class",
    "source_line",
    "split_by_class",
    "to_mxnet",
    "two_iterators",
]


def two_iterators(
    name: str,
    find: Callable,
    batch_size: int,
    *,
    num_train: int | None,
    num_test: int | None,
    num_valid: int | None,
    augment: Callable | None,
    seed: int,
    resize: int | tuple[int, int] | None = None,
    normalize: tuple | None = None,
) -> tuple[ArrayIter, ArrayIter]:
    """Check the arguments of a loader, find its images, print where, and choose those asked for.

    ``name`` is what the printed line calls the data set. ``find()`` returns what has ``sets``,
    (images, labels) to train and to test with, and ``where``. The rest, what is returned and the
    errors are those of `load_data_fashion_mnist` and of `load_data_cifar10`.
    """
    batch_size, resize = whole("batch_size", batch_size), height_width("resize", resize)
    numbers = {"num_train": num_train, "num_test": num_test, "num_valid": num_valid}
    asked = {name: n if n is None else whole(name, n) for name, n in numbers.items()}
    options = {"resize": resize, "seed": whole("seed", seed, least=0), "normalize": normalize}
    if num_valid is not None and num_test is not None:
        raise ValueError(
            "num_test and num_valid exclude each other: leave out num_test, as with num_valid the "
            "test images are not used"
        )
    loaded = find()
    sets = loaded.sets
    if num_valid is not None:
        sets = split_by_class(*sets[0], asked["num_valid"])
    parts = [_first(*sets[0], asked["num_train"]), _first(*sets[1], asked["num_test"])]
    counts = [(len(part[1]), len(whole[1])) for part, whole in zip(parts, sets, strict=True)]
    line = source_line(name, loaded.where, *counts, split=num_valid is not None)
    options["source"] = legible(line)
    train_iter = ArrayIter(*parts[0], batch_size, shuffle=True, augment=augment, **options)
    test_iter = ArrayIter(*parts[1], batch_size, **options)
    print(shown(train_iter.source))
    return train_iter, test_iter


def source_line(name: str, where: str, *counts: tuple[int, int], split: bool = False) -> str:
    """Return the line that says how many images, of how many, came from where."""
    train, test = (f"{n:,}" if n == of else f"{n:,} of {of:,}" for n, of in counts)
    kind = "test images"
    if split:
        kind = f"validation images, of the {sum(of for _, of in counts):,} for training,"
    return f"{name}: {train} training and {test} {kind} {where}"


class ArrayIter:
    """Batches ``(X, y)`` of images that stay uint8 in memory, as `mxnet.np` arrays.

    A resized image agrees with ``transforms.Resize`` of Gluon, which d2l uses (OpenCV's bilinear,
    no smoothing before shrinking), to 1/255: OpenCV rounds to whole grey levels, this does not.

    Parameters
    ----------
    images, labels : array or list
        uint8 of shape (n, channels, height, width), and whole numbers of shape (n,).
    batch_size, resize
        As in `load_data_fashion_mnist`.
    shuffle, seed : bool, int
        Give epoch ``e`` the order ``numpy.random.default_rng([seed, e]).permutation(n)``.
    normalize : (mean, std), optional
        Each a sequence of one number for every channel (for grey images the number alone will do),
        of pixels from 0 to 1: give ``(pixel - mean) / std``. By default pixels are from 0 to 1. The
        images are normalized after they were augmented, so that what `RandomCrop` pads with is
        black.
    augment : callable, optional
        ``augment(images, rng)`` gives new images, uint8 like the stored ones, before any resizing:
        see `d2lres.data.augment`. Batch ``b`` of epoch ``e`` gets the generator
        ``numpy.random.default_rng([seed, e, 1 + b])``, whatever the others did with theirs.
    source : str, default ""
        One line that says where the images came from.

    Attributes
    ----------
    batch_size, num_examples, augment, source
    image_shape : tuple of int
        Channels, height and width of the images given out.
    labels : numpy.ndarray
        int32 of shape (n,), in the order stored, which is the order of batches if not shuffled.
    normalize : (mean, std) or None
        Both as tuples of float, for the record of a run.
    seed, epoch : int
        May be set: ``seed`` and ``epoch = 0`` repeat a run. The epoch goes up by one each time all
        batches were taken.
    batch : int
        May be set to go on in the middle of an epoch: the next iteration, and only that, starts
        with the batch of this number, and gives the same batches as if it had given the earlier
        ones.
    augmented_by : str or None
        What `augment` is, for the record of a run: ``"RandomCrop(padding=2)"``.
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
        normalize=None,
        source="",
    ):
        self.images = images = _images(images)
        self.labels = checks.labels(labels, len(images))
        self.batch_size = whole("batch_size", batch_size)
        self.num_examples = len(images)
        self.seed, self.epoch = whole("seed", seed, least=0), 0
        self.batch, self.every = 0, 1
        self.shuffle, self.source = shuffle, source
        if not (augment is None or callable(augment)) or isinstance(augment, type):
            raise ValueError(
                f"augment must be one callable like RandomCrop(2), not {augment!r}: "
                "of several make one with Compose([...])"
            )
        self.augment = augment
        self.normalize = _mean_std(normalize, images.shape[1])
        self._scale_and_shift = self.normalize and _scale_and_shift(*self.normalize)
        self._size = height_width("resize", resize)
        first = self._augmented(images[:1].copy(), np.random.default_rng(0))
        self.image_shape = (images.shape[1], *(self._size or first.shape[2:]))

    def __len__(self) -> int:
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator:
        epoch, order = self.epoch, np.arange(self.num_examples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples)
        numbers = range(self.batch, len(self), self.every)
        self.batch, self.every = 0, 1
        for number in numbers:
            chosen = order[number * self.batch_size :][: self.batch_size]
            # the 1: [seed, epoch] and [seed, epoch, 0] are the same stream, that of the order
            rng = np.random.default_rng([self.seed, epoch, 1 + number])
            images = self._augmented(self.images[chosen], rng)
            yield to_mxnet(self._pixels(images)), to_mxnet(self.labels[chosen])
        self.epoch = epoch + 1

    @property
    def augmented_by(self) -> str | None:
        return getattr(self.augment, "__name__", None) or (self.augment and repr(self.augment))

    def _augmented(self, images, rng):
        if self.augment is None:
            return images
        new = self.augment(images, rng)
        array = as_numpy(new)
        fits = array.ndim == 4 and array.shape[:2] == images.shape[:2]
        if array.dtype != np.uint8 or not fits:
            came = f"{array.dtype} {array.shape}" if array.ndim else type(new).__name__
            raise ValueError(
                f"augment must return uint8 images, as many as it was given, {images.shape}; "
                f"{self.augmented_by} returned {came}"
            )
        return array

    def _pixels(self, images):
        if self._scale_and_shift:
            scale, shift = self._scale_and_shift
            X = images * scale
            X += shift
        else:
            X = images.astype(np.float32)
            X /= 255
        if self._size and self._size != X.shape[2:]:
            rows, columns = map(_bilinear, X.shape[2:], self._size)
            # image by image: products so small stay on this thread, and leave MXNet the others
            X = rows @ (X @ columns.T)
        return X


def _images(images):
    """Return the images as NumPy's, or say how to write what an `ArrayIter` takes."""
    images = as_numpy(images)
    checks.channels_first(images, "ArrayIter")
    if images.dtype == np.uint8 and images.ndim == 4:
        return images
    hint = ""
    if images.dtype.kind == "f":
        hint = ": if they go from 0 to 1, write (255 * images).round().astype('uint8')"
    elif images.dtype.kind in "iu" and images.dtype != np.uint8:
        hint = ": if they go from 0 to 255, write images.astype('uint8')"
    elif images.dtype == np.uint8 and images.ndim == 3:
        hint = ": of grey images write images[:, None]"
    raise ValueError(
        "expected uint8 images (n, channels, height, width), but got "
        f"{images.dtype} {images.shape}{hint}"
    )


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
    and the first of every class, which a small `num_train` takes, stay the same. If no image would
    be left to train on, that is a ValueError.
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
    chosen = slice(None) if num is None else first_of_each_class(labels, num)
    return images[chosen], labels[chosen]


def to_mxnet(array: np.ndarray):
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


def _mean_std(normalize, channels):
    """Return the mean and the std as tuples, with one number for every channel."""
    if normalize is None:
        return None
    try:
        mean, std = (np.array(part, float).reshape(channels) for part in normalize)
        if not (np.isfinite([mean, std]).all() and std.min() > 0):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"normalize must be (mean, std), each with one number for every one of the {channels} "
            f"channels, of pixels from 0 to 1, and std above 0, not {normalize!r}"
        ) from None
    return tuple(mean.tolist()), tuple(std.tolist())


def _scale_and_shift(mean, std):
    """Return the two arrays (channels, 1, 1) that take a pixel from 0 to 255 to its new value."""
    mean, std = np.reshape((mean, std), (2, -1, 1, 1))
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


@functools.lru_cache
def _bilinear(old, new):
    """Return the matrix (new, old) that resizes one axis as OpenCV does."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    distance = np.abs(at[:, None] - np.arange(old))
    return np.maximum(1 - distance, 0).astype(np.float32)
