"""Figures of a run: its curves, images with predictions, and which classes are confused."""

import io
import sys

import matplotlib.figure
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from . import checks
from .data.fashion_mnist import FASHION_MNIST_LABELS

__all__ = [
    "STYLES",
    "LiveCurves",
    "percent_axis",
    "plot_confusion_matrix",
    "plot_errors",
    "plot_gaps",
    "plot_history",
    "plot_runs",
    "show_images",
    "use_style",
]

# readable on a projector and for colour-blind eyes (Okabe and Ito, 2008); orange is too pale for
# lines on white
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
# what tells one curve from the next, also without its colour
STYLES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": RED, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "D"},
    {"color": "black", "linestyle": ":", "marker": "v"},
)


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows where it ends a cell, whatever the backend of matplotlib.

    Attributes
    ----------
    alt : str
        What it shows, for those who cannot see it; a notebook's page has it as alternative text.
    """

    alt = ""

    def _repr_png_(self):
        drawn, picture = io.BytesIO(), io.BytesIO()
        fast = {"compress_level": 1}
        self.savefig(drawn, format="png", dpi=2 * self.dpi, pil_kwargs=fast)  # sharp on any screen
        width, height = (self.get_size_inches() * self.dpi).astype(int).tolist()
        Image.open(drawn).convert("RGB").save(picture, "PNG")  # nothing in it is transparent
        size = {"width": width, "height": height}
        return picture.getvalue(), size | ({"alt": self.alt} if self.alt else {})


def use_style() -> None:
    """Let matplotlib draw as this course does: type and lines for a projector, curves that differ.

    It sets the size of type and the colours and dashes that curves take one after the other; in a
    notebook also twice the pixels.
    """
    curves = {name: [style[name] for style in STYLES] for name in ("color", "linestyle")}
    matplotlib.rc("axes", prop_cycle=matplotlib.cycler(**curves))
    matplotlib.rc("font", size=13)
    matplotlib.rc("lines", linewidth=2.5)
    matplotlib.rc("grid", alpha=0.3)
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def percent_axis(axis) -> None:
    """Write the shares along an axis in percent: 0.9 as 90%, 0.905 as 90.5%."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


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
    title : str, optional
        By default the number of images and where they are from, if the run says so.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ((left, right),) = _subplots(1, 2, 9, 3.5)
    _draw_curves(left, right, history, num_epochs)
    fig.suptitle(title or _title(history.run), fontsize=14)
    if len(history):
        fig.alt = (
            f"Curves over {len(history)} of {num_epochs or len(history)} epochs. Training loss "
            f"{_ends(history.train_loss)}, training accuracy {_ends(history.train_acc, '.1%')}, "
            f"test accuracy {_ends(history.test_acc, '.1%')}."
        )
    return fig


def _title(run):
    name, num = run.get("source"), run.get("num_examples")
    return f"{num:,} training images of {name.partition(':')[0]}" if name and num else ""


def _ends(values, form=".2f"):
    """Say where a curve begins and ends."""
    return f"from {values[0]:{form}} to {values[-1]:{form}}"


def _draw_curves(left, right, history, num_epochs=None):
    epochs = np.arange(1, len(history) + 1)
    marker = {"marker": "o", "linewidth": 2}
    left.plot(epochs, history.train_loss, "-", color=BLUE, label="training", **marker)
    left.set_ylabel("cross-entropy loss", fontsize=13)
    left.set_ylim(0, 1.08 * np.max(history.train_loss, initial=1e-9))
    right.plot(epochs, history.train_acc, "-", color=BLUE, label="training", **marker)
    right.plot(epochs, history.test_acc, "--", color=RED, label="test", **marker)
    right.set_ylabel("accuracy", fontsize=13)
    percent_axis(right.yaxis)
    if max(*history.train_acc, *history.test_acc, 0, 0) < 0.5:  # or 12% after 10% looks like a leap
        right.set_ylim(0, 0.5)
    for ax in (left, right):
        ax.set_xlim(0.8, (num_epochs or max(len(history), 2)) + 0.2)
        _finish(ax)


def _finish(ax):
    """Label curves over epochs, so that they can be read from the last row."""
    ax.set_xlabel("epoch", fontsize=13)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=12)
    ax.grid(alpha=0.3)
    if ax.lines:
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
    title : str, optional
        By default the quantity.
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
    for (label, of_label), style in zip(runs.items(), STYLES * len(runs), strict=False):
        of_label = of_label if isinstance(of_label, list) else [of_label]
        values = [np.array(getattr(run, quantity.replace("error", "acc"))) for run in of_label]
        values = np.stack([v[: min(map(len, values))] for v in values])
        values = 1 - values if kind == "error" else values
        epochs = np.arange(1, values.shape[1] + 1)
        every = max(1, len(epochs) // 8)
        ax.plot(epochs, values.mean(axis=0), label=label, lw=2.5, markevery=every, **style)
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), **band)
    part = {"train": "training"}.get(part, part)
    what = f"{part} {kind.replace('acc', 'accuracy')}"
    ax.set_ylabel(what, fontsize=13)
    if kind != "loss":
        percent_axis(ax.yaxis)
    ax.set_title(title or what.capitalize(), fontsize=14)
    _finish(ax)
    if isinstance(fig, Figure):
        form = ".2f" if kind == "loss" else ".1%"
        lines = (f"{line.get_label()} {_ends(line.get_ydata(), form)}" for line in ax.lines)
        fig.alt = f"{what.capitalize()} over the epochs: {'; '.join(lines)}."
    return fig


def plot_errors(runs: dict, title: str = "") -> Figure:
    """Draw the errors of several runs, on training and on test images, side by side on one scale.

    Parameters
    ----------
    runs, title
        See ``plot_runs``. The error on training images is measured while training.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig = Figure(figsize=(10, 4.3), layout="constrained")
    told = []
    for ax, quantity in zip(
        fig.subplots(1, 2, sharey=True), ("train_error", "test_error"), strict=True
    ):
        plot_runs(runs, quantity, ax=ax)
        told.append(fig.alt)
    if ax.legend_:
        ax.legend_.remove()  # the other panel has the same
    fig.suptitle(title, fontsize=15)
    fig.alt = " ".join(told)
    return fig


def plot_gaps(runs: dict) -> Figure:
    """Draw the errors on training and on test images at the end of runs, and the gaps between them.

    Parameters
    ----------
    runs : dict of str to list of History
        Label to recorded runs (its seeds) whose ``run["measured"]["train_acc"]`` is the accuracy
        on the training images as they are. The gap is that of the means.

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ((ax,),) = _subplots(1, 1, 9, 1.8 + 0.7 * len(runs))
    gaps = {}
    for row, (label, of_label) in enumerate(runs.items()):
        train = [1 - run.run["measured"]["train_acc"] for run in of_label]
        test = [1 - run.test_acc[-1] for run in of_label]
        left, right = np.mean(train), np.mean(test)
        gaps[label] = f"{100 * (right - left):.1f} points"
        ax.plot([left, right], [row, row], "-", color="grey", linewidth=3, zorder=0)
        place = (left + right) / 2, row - 0.12
        ax.annotate(f"gap {gaps[label]}", place, ha="center", fontsize=12)
        for points, name, style in zip((train, test), ("training", "test"), STYLES, strict=False):
            marks = {"c": style["color"], "marker": style["marker"], "alpha": 0.7}
            ax.scatter(points, [row] * len(points), 90, label=f"{name} images", **marks)
    ax.set_yticks(range(len(runs)), runs)
    ax.set_ylim(len(runs) - 0.5, -0.6)
    percent_axis(ax.xaxis)
    ax.tick_params(labelsize=12)
    ax.set_xlabel("error at the end", fontsize=13)
    ax.set_title("From the error on training images to that on test images", fontsize=14)
    ax.grid(axis="x", alpha=0.3)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[:2], labels[:2], loc="center left", bbox_to_anchor=(1, 0.5), fontsize=12)
    fig.alt = f"Gaps: {', '.join(f'{label} {gap}' for label, gap in gaps.items())}."
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
        The predicted class of each image: a wrong one is written with a cross below the right one.
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
    fig, axes = _subplots(rows, columns, 1.5 * columns, 1.9 * rows + 0.2)
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
    fig.alt = f"{len(X)} images: {', '.join(str(names[label]) for label in y)}."
    if y_hat is not None:
        fig.alt += f" {int((y == guesses).sum())} of them are predicted right."
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
            f"from {low:.3g} to {high:.3g}. If it was normalized, show X * std + mean; if it holds "
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
    right = zip(labels, share.diagonal(), strict=True)
    fig.alt = f"Confusion matrix. Right: {', '.join(f'{n} {part:.0%}' for n, part in right)}."
    return fig
