"""Figures of a run: its curves, images with predictions, and which classes are confused."""

import io

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["LiveCurves", "plot_confusion_matrix", "plot_history", "plot_runs", "show_images"]

# readable on a projector and for colour-blind eyes (Okabe and Ito, 2008)
_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows where it ends a cell, whatever the backend of matplotlib."""

    def _repr_png_(self):
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def _subplots(rows, columns, width, height):
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False)


def _numpy(array):
    """Return a NumPy array; NumPy itself would take MXNet's apart element by element."""
    return array.asnumpy() if hasattr(array, "asnumpy") else np.asarray(array)


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
    left.plot(epochs, history.train_loss, color=_BLUE, label="training", **marker)
    left.set_ylabel("cross-entropy loss", fontsize=13)
    left.set_ylim(0, 1.08 * np.max(history.train_loss, initial=1e-9))
    right.plot(epochs, history.train_acc, color=_BLUE, label="training", **marker)
    right.plot(epochs, history.test_acc, color=_ORANGE, label="test", linestyle="--", **marker)
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
    """
    fig = ax.figure if ax else None
    if ax is None:
        fig, ((ax,),) = _subplots(1, 1, 7.5, 4.5)
    part, kind = quantity.split("_")
    colours = (_BLUE, _ORANGE, _GREEN, _RED, "#CC79A7", "#56B4E9")
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
        Images from 0 to 1.
    y : array, shape (n,)
        The class of each image.
    y_hat : array, shape (n,), optional
        The predicted class of each image: a wrong one is written in red below the right one.
    labels : sequence of str, optional
        Names of the classes, by default Fashion-MNIST's.
    columns : int, default 8
        Images in a row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no image.
    """
    from .data.fashion_mnist import FASHION_MNIST_LABELS

    labels = FASHION_MNIST_LABELS if labels is None else labels
    X = _numpy(X)
    if len(X) == 0:
        raise ValueError(f"there is no image to show: X has shape {X.shape}, give it one or more")
    rows = -(-len(X) // columns)
    fig, axes = _subplots(rows, columns, 1.5 * columns, 1.9 * rows)
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, X, strict=False)):
        ax.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1)
        text, colour = labels[int(y[i])], "black"
        if y_hat is not None:
            right = int(y_hat[i]) == int(y[i])
            guess = labels[int(y_hat[i])]
            text, colour = (f"{text}\n✓", _GREEN) if right else (f"{text}\n✗ {guess}", _RED)
        ax.set_title(text, fontsize=12, color=colour)
    return fig


def plot_confusion_matrix(matrix, labels=None) -> Figure:
    """Draw how many images of each class were taken for which class.

    Parameters
    ----------
    matrix : array of int, shape (num_classes, num_classes)
        ``matrix[i, j]`` images of class i were predicted to be of class j.
    labels : sequence of str, optional
        Names of the classes, by default Fashion-MNIST's.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from .data.fashion_mnist import FASHION_MNIST_LABELS

    labels = FASHION_MNIST_LABELS if labels is None else labels
    matrix = _numpy(matrix)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    fig, ((ax,),) = _subplots(1, 1, 8.5, 7.5)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), part in np.ndenumerate(share):
        if part > 0.005:
            colour = "white" if part > 0.5 else "black"
            text = f"{100 * part:.0f}"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=12)
    ax.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=12)
    ax.set_yticks(range(len(labels)), labels, fontsize=12)
    ax.set_xlabel("predicted class", fontsize=13)
    ax.set_ylabel("true class", fontsize=13)
    ax.set_title("images of each class, in %, by predicted class", fontsize=14)
    return fig
