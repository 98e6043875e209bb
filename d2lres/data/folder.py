"""Your own pictures: a folder for each class, read into batches like any other data set."""

from __future__ import annotations

import contextlib
import numbers
import os
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from ..checks import height_width
from ..files.sources import Loaded
from ..files.whole import expanded, legible, shown
from .batches import ArrayIter, two_iterators

__all__ = ["load_image_folder", "read_image"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # of which Pillow's readers are small and kept well
KINDS = f"{', '.join(FORMATS[:-1])} or WebP"
SPREAD = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}  # to 0 to 255, by Pillow's names of depths
MAX_LISTED = 10


def load_image_folder(
    path: str | os.PathLike,
    batch_size: int,
    resize: int | tuple[int, int],
    *,
    test_share: float = 0.2,
    num_train: int | None = None,
    num_test: int | None = None,
    augment: Callable | None = None,
    normalize: tuple | None = None,
    seed: int = 0,
) -> tuple[ArrayIter, ArrayIter]:
    """Read the pictures of a folder and return iterators over training and test batches.

    They lie in a folder for each class, ``path/CLASS/1.jpg``: JPEG, PNG, GIF, BMP or WebP, whatever
    they are called. The classes are numbered in the order of their names. One printed line says how
    many pictures there are; another lists what is left out, because it cannot be read, is something
    else, or lies elsewhere. Hidden names are passed over.

    Parameters
    ----------
    path : str or Path
    resize : int or (int, int)
        Height and width in pixels, of all pictures in memory: see `read_image`.
    test_share : float, default 0.2
        Of each class so large a part, at least one picture and drawn with the seed, is for testing.
    batch_size, num_train, num_test, augment, seed
        As in `load_data_fashion_mnist`. Another seed is another split.
    normalize : (mean, std), optional
        As in `load_data_cifar10`; by default ``X`` is from 0 to 1. A pre-trained network wants what
        it was trained with: ``(CIFAR100_MEAN, CIFAR100_STD)`` for that of the course.

    Returns
    -------
    train_iter, test_iter : ArrayIter
        Give ``X``, float32 of shape (batch, 3, height, width), and ``y``, int32 of shape (batch,).
        Both have the names of the classes in ``class_names``, a tuple of str.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If there are less than two classes in it, or in one of them less than two pictures that can
        be read; if an argument does not fit.
    """
    path, size = expanded(path), height_width("resize", resize)
    if size is None:
        raise ValueError("resize must say how large the pictures become: resize=32, for example")
    if not (isinstance(test_share, numbers.Real) and 0 < test_share < 1):
        raise ValueError(f"test_share is a part of the pictures, like 0.2, not {test_share!r}")
    folders, others = _class_folders(path)
    class_names = tuple(legible(folder.name) for folder in folders)

    def find():
        read = [_read_class(folder, size) for folder in folders]
        left_out = [path for _, paths in [(None, others), *read] for path in paths]
        if left_out:
            names = [str(each.relative_to(path)) + "/" * each.is_dir() for each in left_out]
            line = f"left out {len(names):,} that cannot be read as {KINDS}: {_listed(names)}"
            print(shown(line))
        where = f"of {len(folders)} classes ({_listed(class_names)}) from {path}"
        return Loaded(_split([images for images, _ in read], test_share, seed), where)

    options = {"num_train": num_train, "num_test": num_test, "num_valid": None}
    options |= {"augment": augment, "normalize": normalize, "seed": seed}
    both = two_iterators(path.resolve().name, find, batch_size, **options)
    for data_iter in both:
        data_iter.class_names = class_names
    return both


def read_image(path: str | os.PathLike, resize: int | tuple[int, int]) -> np.ndarray:
    """Read a picture in the size and the colours that a network takes.

    It is turned as the camera noted, cut at two sides to the proportions of ``resize``, around its
    centre, and shrunk with smoothing (or enlarged). Grey becomes three equal channels; what is
    transparent becomes white; 16 bits become 8. Of pictures that move the first is taken.

    Parameters
    ----------
    path : str or Path
        A JPEG, PNG, GIF, BMP or WebP file.
    resize : int or (int, int)
        Height and width in pixels.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (3, height, width): red, green and blue.

    Raises
    ------
    OSError, ValueError
        If the file cannot be opened; if it is no complete picture, or one of more than 90 million
        pixels, which could fill the memory.
    """
    path, (height, width) = expanded(path), height_width("resize", resize)
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                image.draft(None, (2 * max(height, width),) * 2)  # a large JPEG, at once smaller
                _see_transparent_colour(image)
                image = _in_rgb(_upright(image))
        except Exception as error:  # Pillow says in many ways that a file is damaged
            reason = str(error).removesuffix(f" {file!r}")
            raise ValueError(f"{path} is no {KINDS} that can be read ({reason})") from error
    image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _upright(image):
    """Return a picture turned as the camera noted."""
    image.load()
    with contextlib.suppress(Exception):  # a damaged note does no harm to the pixels
        return ImageOps.exif_transpose(image)
    return image


def _see_transparent_colour(image):
    """Bring the transparent colour of a PNG to 8 bits, as Pillow does with its pixels alone."""
    raw, colour = image.tile[0][3] if image.tile else "", image.info.get("transparency")
    if raw in SPREAD and isinstance(colour, int):
        image.info["transparency"] = int(colour * SPREAD[raw])
    elif raw in SPREAD and colour:
        image.info["transparency"] = tuple(int(channel * SPREAD[raw]) for channel in colour)


def _in_rgb(image):
    """Return a picture in red, green and blue, on white where it was transparent."""
    if image.mode.startswith("I"):  # grey of 16 bits, which convert() would cut off at 255
        deep = np.asarray(image)
        opaque = 255 * (deep != image.info.get("transparency", -1))
        image = Image.fromarray(np.dstack([deep >> 8, opaque]).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _class_folders(path):
    """Return the folders in a folder, and what lies beside them."""
    if not path.is_dir():
        hint = ", only a file: unpack it first" if path.is_file() else ""
        raise FileNotFoundError(f"there is no folder {path}{hint}")
    entries = _entries(path)
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) < 2:
        raise ValueError(
            f"{path} must hold a folder for each of two or more classes, as in "
            f"{path / 'cat'}/1.jpg and {path / 'dog'}/1.jpg, but it holds "
            f"{f'only {folders[0].name!r}' if folders else 'none'}"
        )
    return folders, [entry for entry in entries if entry not in folders]


def _entries(folder):
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_class(folder, size):
    """Return the pictures of a class, uint8 (n, 3, height, width), and what cannot be read."""
    images, left_out = [], []
    for path in _entries(folder):
        try:
            if not path.is_file():  # nor a pipe, which would be waited for
                raise ValueError
            images.append(read_image(path, size))
        except (ValueError, OSError):
            left_out.append(path)
    if len(images) < 2:
        folders = any(path.is_dir() for path in left_out)
        raise ValueError(
            f"{folder} must hold two or more pictures ({KINDS}), to train and to test with, but "
            f"{len(images)} of {len(images) + len(left_out)} can be read"
            f"{', and folders in it are not looked into' * folders}: add some, or take it away"
        )
    return np.stack(images), left_out


def _split(classes, test_share, seed):
    """Return ((training images, labels), (test images, labels)) with a part of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), list(map(len, classes)))
    nums = [(n, min(max(round(test_share * n), 1), n - 1)) for n in map(len, classes)]
    is_test = np.concatenate([rng.permutation(n) < num_test for n, num_test in nums])
    images = np.concatenate(classes)
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def _listed(words):
    more = [f"and {len(words) - MAX_LISTED:,} more"] if len(words) > MAX_LISTED else []
    return ", ".join([*words[:MAX_LISTED], *more])
