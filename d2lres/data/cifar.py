"""CIFAR-10 and CIFAR-100: their files, how they are read, and their loaders.

60,000 colour photographs of 32x32 pixels each, by Alex Krizhevsky ("Learning Multiple Layers of
Features from Tiny Images", 2009). No sample of them is shipped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..files import download
from ..files.sources import Archive, Source, download_archive
from ..files.whole import expect
from .batches import ArrayIter, two_iterators

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CIFAR10_LABELS",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR100_COARSE_LABELS",
    "CIFAR100_COARSE_OF_FINE",
    "CIFAR100_LABELS",
    "CIFAR100_MEAN",
    "CIFAR100_STD",
    "load_data_cifar10",
    "load_data_cifar100",
]

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://cave.cs.toronto.edu/kriz/",  # where the first one leads at present
)

# of each channel (red, green, blue) over all pixels of the 50,000 training images, from 0 to 1
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

CIFAR10_LABELS = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_FINE_OF_COARSE = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple tree", "oak tree", "palm tree", "pine tree", "willow tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup truck", "train"),
    "vehicles 2": ("lawn mower", "rocket", "streetcar", "tank", "tractor"),
}
CIFAR100_COARSE_LABELS = tuple(_FINE_OF_COARSE)
CIFAR100_LABELS = tuple(sorted(fine for fines in _FINE_OF_COARSE.values() for fine in fines))
# the number of the coarse class of each fine class
CIFAR100_COARSE_OF_FINE = tuple(
    number
    for fine in CIFAR100_LABELS
    for number, fines in enumerate(_FINE_OF_COARSE.values())
    if fine in fines
)


def load_data_cifar10(
    batch_size: int,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    num_valid: int | None = None,
    augment: Callable | None = None,
    normalize: tuple | None = (CIFAR10_MEAN, CIFAR10_STD),
    seed: int = 0,
) -> tuple[ArrayIter, ArrayIter]:
    """Find or fetch CIFAR-10 and return iterators over its training and test batches.

    The files of the official binary version are looked for in ``$D2LRES_DATA`` or its subfolder
    ``cifar-10-batches-bin``, and in the user cache; else the official archive is downloaded into
    that, verified, and unpacked. One printed line says which, and if they are not the official ones
    but a well-formed set of your own. ``D2LRES_OFFLINE``, and what follows a failed attempt, are as
    in `load_data_fashion_mnist`; the command is ``python -m d2lres data cifar-10``.

    Parameters
    ----------
    batch_size, num_train, num_test, num_valid, augment, seed
        As in `load_data_fashion_mnist`. ``num_valid=5000`` is the split into 45,000 and 5,000 of He
        et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    normalize : (mean, std), optional
        Each three numbers, for red, green and blue, of pixels from 0 to 1: ``X`` is
        ``(pixel - mean) / std``, after augmenting. By default `CIFAR10_MEAN` and `CIFAR10_STD`, so
        that ``X`` has about mean 0 and variance 1. Give ``((0.5,) * 3, (0.5,) * 3)`` for values
        from -1 to 1, None for values from 0 to 1.

    Returns
    -------
    train_iter, test_iter : ArrayIter
        As from `load_data_fashion_mnist`, with ``X`` of shape (batch, 3, 32, 32); ``y`` are the
        numbers of `CIFAR10_LABELS`.

    Raises
    ------
    ValueError, FileNotFoundError
        As `load_data_fashion_mnist`; also if the images are neither on this machine nor to be
        downloaded.
    """
    options = {"num_train": num_train, "num_test": num_test, "num_valid": num_valid}
    options |= {"augment": augment, "normalize": normalize, "seed": seed}
    return _with_labels(CIFAR10, 0, batch_size, **options)


def load_data_cifar100(
    batch_size: int,
    fine: bool = True,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    num_valid: int | None = None,
    augment: Callable | None = None,
    normalize: tuple | None = (CIFAR100_MEAN, CIFAR100_STD),
    seed: int = 0,
) -> tuple[ArrayIter, ArrayIter]:
    """Find or fetch CIFAR-100 and return iterators over its training and test batches.

    All is as in `load_data_cifar10`, with the subfolder ``cifar-100-binary``, the command
    ``python -m d2lres data cifar-100``, `CIFAR100_MEAN` and `CIFAR100_STD`. "Of each class" means
    those that `fine` asks for.

    Parameters
    ----------
    fine : bool, default True
        Give the numbers of the 100 classes in `CIFAR100_LABELS`, else those of the 20 superclasses
        in `CIFAR100_COARSE_LABELS`. `CIFAR100_COARSE_OF_FINE` says which class is in which.
        Something else than True or False is a ValueError.
    """
    if not isinstance(fine, (bool, np.bool_)):
        raise ValueError(
            f"fine must be True, for 100 classes, or False, for 20 superclasses, not {fine!r}"
        )
    options = {"num_train": num_train, "num_test": num_test, "num_valid": num_valid}
    options |= {"augment": augment, "normalize": normalize, "seed": seed}
    return _with_labels(CIFAR100, int(fine), batch_size, **options)


def _with_labels(source, column, batch_size, **options):
    """Return two iterators with one of the kinds of labels that an image has."""

    def find():
        loaded = source.load()
        return loaded._replace(sets=[(images, labels[:, column]) for images, labels in loaded.sets])

    return two_iterators(source.name, find, batch_size, **options)


def read_records(
    path: Path, wanted: str | None = None, *, label_names: tuple[tuple[str, ...], ...]
) -> tuple[np.ndarray, str]:
    """Read one file of the official binary layout, as `Source` asks for.

    A record is one byte for each kind of label, the last being that of the finest classes, and
    1,024 bytes each of red, green and blue; ``label_names`` are the names of each kind. Returned
    are the records, uint8 of shape (n, 3073) or (n, 3074), and their SHA-256. It is a ValueError if
    the content is damaged, incomplete, or something else; if a label cannot be. ``wanted`` is not
    looked at: the archive was verified.
    """
    content, kinds = np.fromfile(path, np.uint8), len(label_names)
    size = kinds + 3 * 32 * 32
    found = f"{len(content):,} bytes"
    if download.is_web_page(content[:64].tobytes()):  # or an image whose label is the character "<"
        found = download.WEB_PAGE
    whole = len(content) > 0 and len(content) % size == 0
    expect(whole, path, f"one record of {size:,} bytes for each image", found)
    records = content.reshape(-1, size)
    for column, names in enumerate(label_names):
        top = records[:, column].max()
        expect(top < len(names), path, f"labels from 0 to {len(names) - 1}", f"the label {top}")
    if kinds == 2:
        coarse, fine = records[:, :2].T
        right = np.array(CIFAR100_COARSE_OF_FINE)[fine] == coarse
        i = right.argmin()  # the first that is wrong, if one is
        pair = f"{CIFAR100_LABELS[fine[i]]!r} in {CIFAR100_COARSE_LABELS[coarse[i]]!r}"
        expect(right[i], path, "each class in its superclass", pair)
    return records, hashlib.sha256(records).hexdigest()


def _split(arrays, paths):
    """Return (images, labels) to train with and to test with, the latter in the last file."""
    sets = np.concatenate(arrays[:-1]), arrays[-1]
    kinds = sets[0].shape[1] - 3 * 32 * 32
    # both are views into the records, which stay in memory once
    return [(r[:, kinds:].reshape(-1, 3, 32, 32), r[:, :kinds]) for r in sets]


CIFAR10 = Source(
    name="CIFAR-10",
    folder="cifar-10-batches-bin",
    files={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    read=functools.partial(read_records, label_names=(CIFAR10_LABELS,)),
    split=_split,
    mirrors=MIRRORS,
    ways={"downloaded": download_archive},
    archive=Archive(
        "cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
)
CIFAR100 = dataclasses.replace(
    CIFAR10,
    name="CIFAR-100",
    folder="cifar-100-binary",
    files={
        "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    },
    read=functools.partial(read_records, label_names=(CIFAR100_COARSE_LABELS, CIFAR100_LABELS)),
    archive=Archive(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)
