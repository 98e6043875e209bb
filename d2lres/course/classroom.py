"""What several lessons use and none of them teaches: recorded runs, tables, a run out of sight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from ..data.batches import ArrayIter
from ..data.cifar import CIFAR10_LABELS, load_data_cifar10
from ..data.fashion_mnist import FASHION_MNIST_LABELS, load_data_fashion_mnist
from ..metrics import confusion_matrix, predict
from ..models import small_resnet
from ..runs.history import History
from ..runtime.devices import try_gpu
from ..training import train
from .sizes import Scale

if TYPE_CHECKING:
    from IPython.display import Markdown

__all__ = ["load_photographs", "published", "records", "spread", "table", "train_small"]

RESULTS = Path(__file__).parents[2] / "results"


def load_photographs(size: Scale, augment=None) -> tuple[tuple[str, ...], ArrayIter, ArrayIter]:
    """Return the names of the classes of CIFAR-10, and iterators over its images.

    Where it is not on this machine and cannot be fetched, say so, and return Fashion-MNIST in its
    place: grey, and resized to as many pixels.

    Parameters
    ----------
    size : Scale
        Says how many images, of how many pixels, and in what batches.
    augment : optional
        See ``load_data_cifar10``.
    """
    options = {"num_train": size.num_train, "num_test": size.num_test, "augment": augment}
    try:
        return CIFAR10_LABELS, *load_data_cifar10(size.batch_size, **options)
    except FileNotFoundError as error:
        print(error)
        print(f"The lesson goes on with Fashion-MNIST: clothes, grey, of {size.resize} pixels.")
        iters = load_data_fashion_mnist(size.batch_size, size.resize, **options)
        return FASHION_MNIST_LABELS, *iters


def records(name: str, folder: Path = RESULTS) -> list[History]:
    """Load the recorded runs of an experiment, one for each seed; say how to make the first one.

    Parameters
    ----------
    name : str
        Such as ``"resnet20"``: see ``d2lres.course.recipes.RECIPES``.
    folder : Path, optional
        Where they are, by default the clone's ``results/``.
    """
    paths = sorted(folder.glob(f"{name}_seed*.json"))
    paths = [path for path in paths if "_valid" not in path.name]  # not of test images
    if not paths:
        print(f"{name} is not recorded yet: python -m d2lres experiment {name} --seed 0")
    return [History.load(path) for path in paths]


def published() -> dict[str, Any]:
    """Return the numbers of other people that the lessons quote, each with its source."""
    return json.loads((RESULTS / "published.json").read_text(encoding="utf-8"))


def table(*rows) -> Markdown:
    """Set rows as a table; the first is its heading."""
    from IPython.display import Markdown

    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return Markdown("\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]]))


def spread(shares) -> str:
    """Return the mean of shares in percent, with the lowest and the highest if there are more."""
    mean, low, high = sum(shares) / len(shares), min(shares), max(shares)
    return f"{mean:.1%}" + (f" ({low:.1%} to {high:.1%})" if len(shares) > 1 else "")


def train_small(images, y, augment, num_epochs: int, seed: int, *test_iters) -> np.ndarray:
    """Train a small network out of sight; return a confusion matrix for each of the tests.

    Parameters
    ----------
    images : array of uint8, shape (n, channels, height, width)
    y : array of int, shape (n,)
        Classes from 0 to 9.
    augment : function of a batch of images and a random generator, or None
    num_epochs, seed : int
    *test_iters : ArrayIter

    Returns
    -------
    array of int, shape (num_tests, 10, 10)
    """
    from IPython.utils.capture import capture_output

    device = try_gpu()
    images, y = (array.repeat(num_epochs, axis=0) for array in (images, y))  # one long epoch
    train_iter = ArrayIter(images, y, 50, shuffle=True, augment=augment)
    mx.random.seed(seed)
    net = small_resnet((16, 32, 64))
    net.initialize(mx.init.Xavier(), ctx=device)
    scheduler = mx.lr_scheduler.CosineScheduler(len(train_iter), 0.05, final_lr=0)
    options = {"seed": seed, "scheduler": scheduler, "optimizer_params": {"momentum": 0.9}}
    with capture_output():
        train(net, train_iter, test_iters[0], 1, 0.05, device, **options)
    matrices = []
    for test_iter in test_iters:
        y_hat = np.concatenate([predict(net, X).asnumpy() for X, _ in test_iter])
        matrices.append(confusion_matrix(test_iter.labels, y_hat, num_classes=10))
    return np.stack(matrices)
