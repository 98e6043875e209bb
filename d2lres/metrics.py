"""How good a network is: its predictions, counted."""

import mxnet as mx
import numpy as onp
from mxnet import gluon, np, npx

from . import checks
from .checks import checked
from .runtime import cores

__all__ = ["confusion_matrix", "count_hits", "evaluate_accuracy", "predict", "top_k_accuracy"]

npx.set_np()


def count_hits(Y_hat, y):
    """Count the rows of scores whose largest stands at the label, or at the largest share."""
    y = y.argmax(axis=1) if y.ndim == 2 else y
    return (Y_hat.argmax(axis=1).astype("int32") == y.astype("int32")).sum()


def evaluate_accuracy(net: gluon.Block, data_iter, device: mx.Context | None = None) -> float:
    """Return the share of images in ``data_iter``, from 0 to 1, that ``net`` classifies correctly.

    Parameters
    ----------
    net : Block
        float32 images (batch, channels, height, width) to scores (batch, num_classes).
    data_iter : iterable of (X, y)
        Batches of images and labels, of MXNet or NumPy.
    device : mxnet.Context, optional
        By default the device that holds the parameters of ``net``.

    Raises
    ------
    TypeError, RuntimeError
        If ``net`` is no network, or ``data_iter`` gives no pairs; if ``net`` has not been
        initialized.
    ValueError
        If ``data_iter`` is empty, images, labels or scores are of another shape or dtype, or a
        label is out of range.
    """
    home = checks.device_of(net)
    device = checks.one_device(device) or home
    hits = num_images = 0
    with cores.computing([device]) as threads:
        for X, y in checks.batches(data_iter, "data_iter"):
            threads.look()
            Y_hat = checks.scores_of(net, X.as_in_ctx(device))
            checks.labels(y, len(X), Y_hat.shape[1])
            hits += int(count_hits(Y_hat, y.as_in_ctx(device)))
            num_images += len(y)
    if not num_images:
        raise ValueError("data_iter gave no batch: there is nothing to evaluate")
    return hits / num_images


def predict(net: gluon.Block, X: np.ndarray) -> np.ndarray:
    """Return the class with the highest score for each image.

    Parameters
    ----------
    net : Block
        As for ``evaluate_accuracy``, also in its errors.
    X : float32 array, shape (batch, channels, height, width)
        Of MXNet or NumPy.

    Returns
    -------
    int32 array, shape (batch,)
    """
    device, X = checks.device_of(net), checks.images(X, "predict")
    batches = (X[i : i + 256].as_in_ctx(device) for i in range(0, len(X), 256))
    scores = (checks.scores_of(net, batch) for batch in batches)
    return np.concatenate([of_batch.argmax(axis=1).astype("int32") for of_batch in scores])


def _classes(y, y_hat, num_classes):
    num_classes = checks.whole("num_classes", num_classes)
    y = checks.labels(y, None, num_classes, "the classes in y")
    return y, checks.labels(y_hat, len(y), num_classes, "the classes in y_hat"), num_classes


@checked(_classes)
def confusion_matrix(y, y_hat, num_classes):
    """Count how often images of each class are taken for each class.

    Parameters
    ----------
    y, y_hat : array of int, shape (n,)
        True and predicted classes.
    num_classes : int

    Returns
    -------
    numpy.ndarray of int, shape (num_classes, num_classes)
        Entry (i, j) counts the images of class i that were predicted to be of class j.

    Raises
    ------
    ValueError
        If there are more classes in one than in the other, or one is out of range or not whole.
    """
    matrix = onp.zeros((num_classes, num_classes), dtype=int)
    for i, j in zip(y.tolist(), y_hat.tolist(), strict=True):
        matrix[i, j] += 1
    return matrix


def _scores(scores, y, k):
    scores = checks.as_numpy(scores)
    checks.scores(scores)
    if scores.dtype.kind != "f":
        scores = scores.astype(float)  # the minus of an unsigned one is no smaller
    if onp.isnan(scores).any():  # which has no place in an order
        raise ValueError(
            "the scores hold NaN: the network has diverged, or its images hold NaN. Train it again "
            "with a lower learning rate, or look at its images."
        )
    return scores, checks.labels(y, *scores.shape), checks.whole("k", k)


@checked(_scores)
def top_k_accuracy(scores, y, k):
    """Return the share of images whose label is among the ``k`` classes of the highest scores.

    It is from 0 to 1, as in Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge
    (2015), section 4.1.

    Parameters
    ----------
    scores : array of float, shape (n, num_classes)
    y : array of int, shape (n,)
        The label of each image.
    k : int
        From 1, the accuracy, to ``num_classes``, where no answer is wrong.

    Raises
    ------
    ValueError
        If ``k`` is none of these, there are more labels than images or fewer, a label has no score,
        or scores are NaN.
    """
    num_classes = scores.shape[1]
    if not 1 <= k <= num_classes:
        raise ValueError(f"k is from 1 to the number of classes, {num_classes}, not {k!r}")
    best = (-scores).argsort(axis=1)[:, :k].tolist()
    hits = sum(label in classes for label, classes in zip(y.tolist(), best, strict=True))
    return hits / len(best)
