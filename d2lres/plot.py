"""Figures of a run: its curves, images with predictions, and which classes are confused."""

import io

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from . import checks
from .data.fashion_mnist import FASHION_MNIST_LABELS

__all__ = ["LiveCurves", "plot_confusion_matrix", "plot_history", "plot_runs", "show_images"]

# readable on a projector and for colour-blind eyes (Okabe and Ito, 2008)
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows where it ends a cell, whatever the backend of matplotlib."""

    def _repr_png_(self):
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def _subplots(rows, columns, width, height):
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False)


def plot_history(history, num_epochs: int | None = None, title: str = "") -> Figure:
    """Draw the loss and the accuracies of a run over its epochs.

    Parameters
    ----------
    history : History
    num_epochs : int, optional
        Right end of the axis, if the run is still going on.
    title : str, default ""

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ((left, right),) = _subplots(1, 2, 9, 3.5)
    _draw_curves(left, right, history, num_epochs)
    fig.suptitle(title, fontsize=14)
    return fig


def _draw_curves(left, right, history, num_epochs=None):
    epochs = np.arange(1, len(history) + 1)
    marker = {"marker": "o", "linewidth": 2}
    left.plot(epochs, history.train_loss, color=BLUE, label="training", **marker)
    left.set_ylabel("cross-entropy loss", fontsize=13)
    left.set_ylim(0, 1.08 * np.max(history.train_loss, initial=1e-9))
    right.plot(epochs, history.train_acc, color=BLUE, label="training", **marker)
    right.plot(epochs, history.test_acc, color=ORANGE, label="test", linestyle="--", **marker)
    right.set_ylabel("accuracy", fontsize=13)
    right.yaxis.set_major_formatter(PercentFormatter(1))
    for ax in (left, right):
        ax.set_xlim(0.8, (num_epochs or max(len(history), 2)) + 0.2)
        _finish(ax)


def _finish(ax):
    """Label curves over epochs, so that they can be read from the last row."""
    ax.set_xlabel("epoch", fontsize=13)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=12)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=12)


def plot_runs(runs: dict, quantity: str = "train_error", title: str = "", ax=None) -> Figure:
    """Draw one quantity of several runs over their epochs.

    Parameters
    ----------
    runs : dict of str to History or list of History
        Label to run; several runs of one label (its seeds) become their mean in a band from the
        lowest to the highest. They may differ in length.
    quantity : {"train_error", "test_error", "train_acc", "test_acc", "train_loss"}
        An error is 1 minus the accuracy.
    title : str, default ""
    ax : matplotlib.axes.Axes, optional
        Where to draw, by default on a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If ``quantity`` is none of the above.
    """
    quantities = "train_error", "test_error", "train_acc", "test_acc", "train_loss"
    if quantity not in quantities:
        raise ValueError(f"quantity is one of {', '.join(quantities)}, not {quantity!r}")
    fig = ax.figure if ax else None
    if ax is None:
        fig, ((ax,),) = _subplots(1, 1, 7.5, 4.5)
    part, kind = quantity.split("_")
    colours = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
    for (label, of_label), colour in zip(runs.items(), colours * len(runs), strict=False):
        of_label = of_label if isinstance(of_label, list) else [of_label]
        values = [np.array(getattr(run, quantity.replace("error", "acc"))) for run in of_label]
        values = np.stack([v[: min(map(len, values))] for v in values])
        values = 1 - values if kind == "error" else values
        epochs = np.arange(1, values.shape[1] + 1)
        ax.plot(epochs, values.mean(axis=0), color=colour, label=label, linewidth=2.5)
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2)
    part = {"train": "training"}.get(part, part)
    ax.set_ylabel(f"{part} {kind.replace('acc', 'accuracy')}", fontsize=13)
    if kind != "loss":
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_title(title, fontsize=14)
    _finish(ax)
    return fig


class LiveCurves:
    """Curves in a notebook that are redrawn in place while a run goes on."""

    def __init__(self, num_epochs: int):
        self.num_epochs, self.handle = num_epochs, None

    def draw(self, history) -> None:
        """Show the epochs so far."""
        from IPython.display import display

        fig = plot_history(history, self.num_epochs)
        if self.handle:
            self.handle.update(fig)
        else:
            self.handle = display(fig, display_id=True)


def show_images(X, y, y_hat=None, labels=None, columns: int = 8) -> Figure:
    """Draw images in a grid with their labels, and with predictions marked right or wrong.

    Parameters
    ----------
    X : array, shape (n, 1, height, width) or (n, 3, height, width)
        Images from 0 to 1, or of whole numbers from 0 to 255. The channels may also come last, and
        grey images do without.
    y : array, shape (n,)
        The class of each image.
    y_hat : array, shape (n,), optional
        The predicted class of each image: a wrong one is written in red below the right one.
    labels : sequence of str, optional
        Names of the classes. By default Fashion-MNIST's, if the images are grey and none is of a
        class above 9; else the classes are numbers.
    columns : int, default 8
        Images in a row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If X is none of the above, there is not one class for each image, or one has no name.
    """
    X, columns = _pictures(X), checks.whole("columns", columns)
    y = checks.labels(y, len(X), name="classes in y")
    guesses = y if y_hat is None else checks.labels(y_hat, len(X), name="classes in y_hat")
    lowest, highest = min(y.min(), guesses.min()), max(y.max(), guesses.max())
    if lowest < 0:
        raise ValueError(f"classes are counted from 0, but one in y or y_hat is {lowest}")
    names = _names(labels, highest + 1, is_fashion=X.ndim == 3 and highest < 10)
    rows = -(-len(X) // columns)
    fig, axes = _subplots(rows, columns, 1.5 * columns, 1.9 * rows)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, label, guess in zip(axes.flat, X, y, guesses, strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        text, colour = names[label], "black"
        if y_hat is not None:
            is_right = label == guess
            colour = GREEN if is_right else RED
            text += "\n✓" if is_right else f"\n✗ {names[guess]}"
        ax.set_title(text, fontsize=12, color=colour, parse_math=False)  # a name may hold $
    return fig


def _pictures(X):
    """Return images as matplotlib takes them: (n, height, width) or (n, height, width, 3)."""
    X = checks.as_numpy(X)
    if not X.size:
        raise ValueError(f"there is no image to show: X has shape {X.shape}, give it one or more")
    shape = X.shape
    if X.ndim == 4 and shape[1] in (1, 3):
        X = X.transpose(0, 2, 3, 1)
    if X.ndim not in (3, 4) or X.ndim == 4 and X.shape[3] not in (1, 3):
        raise ValueError(
            "show_images expects grey or colour images of shape (n, 1, height, width) or (n, 3, "
            f"height, width), but got {shape}; for a single image X write X[None] and [y]"
        )
    if X.dtype.kind in "iu":
        X = X / 255
    low, high = X.min(), X.max()
    if not (low > -0.01 and high < 1.01):  # NaN is neither
        raise ValueError(
            "show_images expects images from 0 to 1, or whole numbers from 0 to 255, but X goes "
            f"from {low:.3g} to {high:.3g}. If it was normalised, show X * std + mean; if it holds "
            "pixels up to 255, X / 255."
        )
    X = X.clip(0, 1).astype("float32")
    return X[..., 0] if X.ndim == 4 and X.shape[3] == 1 else X


def _names(labels, num_classes, is_fashion):
    """Return a name for each class: as given, or Fashion-MNIST's, or its number."""
    if labels is None:
        return FASHION_MNIST_LABELS if is_fashion else [str(i) for i in range(num_classes)]
    if len(labels) < num_classes:
        raise ValueError(
            f"labels has {len(labels)} names, but the highest class is {num_classes - 1}: give "
            "the names of all classes, in their order"
        )
    return labels


def plot_confusion_matrix(matrix, labels=None) -> Figure:
    """Draw how many images of each class were taken for which class.

    Parameters
    ----------
    matrix : array of int, shape (num_classes, num_classes)
        ``matrix[i, j]`` images of class i were predicted to be of class j.
    labels : sequence of str, optional
        Names of the classes. By default Fashion-MNIST's, if there are ten, else numbers.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If ``matrix`` is none of the above, or has not one row for each name.
    """
    matrix = checks.as_numpy(matrix)
    num_classes = len(matrix) if matrix.ndim else 0
    if not num_classes or matrix.shape != (num_classes,) * 2 or not (matrix >= 0).all():
        raise ValueError(
            "plot_confusion_matrix expects numbers of images from 0 on, of shape (num_classes, "
            f"num_classes), as confusion_matrix gives them, but got {matrix.shape}: {matrix}"
        )
    labels = _names(labels, num_classes, is_fashion=num_classes == 10)
    if len(labels) > num_classes:
        raise ValueError(f"labels has {len(labels)} names, but matrix has {num_classes} classes")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(7.5, 0.3 * num_classes)
    fig, ((ax,),) = _subplots(1, 1, side + 1, side)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), part in np.ndenumerate(share):
        if part > 0.005:
            colour = "white" if part > 0.5 else "black"
            text = f"{100 * part:.0f}"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=12)
    style = {"fontsize": 12, "parse_math": False}
    ax.set_xticks(range(num_classes), labels, rotation=45, ha="right", **style)
    ax.set_yticks(range(num_classes), labels, **style)
    ax.set_xlabel("predicted class", fontsize=13)
    ax.set_ylabel("true class", fontsize=13)
    ax.set_title("images of each class, in %, by predicted class", fontsize=14)
    return fig
