"""Schematic drawings for the lessons: function classes, residual blocks, the whole network.

*The book* is Dive into Deep Learning.
"""

import json
import re
import textwrap
from math import ceil, hypot, log2
from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Rectangle

from ..checks import whole
from ..plot import BLUE, ORANGE, RED, Figure

__all__ = [
    "draw_block",
    "draw_function_classes",
    "draw_identity_layers",
    "draw_map",
    "draw_network",
    "draw_parallel_step",
]

LESSONS = Path(__file__).parents[2] / "notebooks"

_SKY, _GREY = "#A6D8F5", "#E3E3E3"
_WIDTH = 2.0  # lines, in points


def draw_function_classes() -> Figure:
    """Draw larger and larger classes of functions, not nested and nested (the book's figure 8.6.1).

    The dashed lines join the truth to the best function of each class.
    """
    fig, ax = _canvas(8.6, 3.9)
    # centre and radius of each class, and where its name stands
    scattered = (
        (1.45, 1.55, 0.5, 1.3, 1.5),
        (2.05, 2.15, 0.8, 2.15, 2.6),
        (2.8, 1.4, 1.15, 3.2, 1),
    )
    nested = (6.2, 1.35, 0.45, 6.2, 1.3), (6.4, 1.45, 0.8, 6.85, 1.2), (6.6, 1.55, 1.25, 7.5, 1.2)
    _classes(ax, "larger, but not nested", scattered, truth=(0.75, 2.75))
    _classes(ax, "nested", nested, truth=(5.0, 2.75))
    fig.alt = (
        "Classes of functions as circles, and the truth as a star. Left: the largest circle lies "
        "farther from the star than a smaller one. Right: each circle lies in the next, "
        "larger one, which comes nearer to the star."
    )
    return fig


def _classes(ax, title, circles, truth):
    """Draw classes as circles, each with its member nearest to the truth."""
    for i, (x, y, radius, name_x, name_y) in reversed(list(enumerate(circles, start=1))):
        colours = {"facecolor": (*to_rgb(_SKY), 0.5), "edgecolor": BLUE}
        ax.add_patch(Circle((x, y), radius, lw=_WIDTH, **colours))
        _text(ax, name_x, name_y, rf"$\mathcal{{F}}_{i}$", size=17)
        share = radius / hypot(truth[0] - x, truth[1] - y)
        best = (x + share * (truth[0] - x), y + share * (truth[1] - y))
        ax.plot(*zip(best, truth, strict=True), color="black", lw=1.2, ls=(0, (3, 3)), zorder=3)
        ax.plot(*best, "o", color="black", markersize=6, zorder=4)
    ax.plot(*truth, "*", color=RED, markersize=20, zorder=5)
    _text(ax, truth[0], truth[1] + 0.32, "$f^*$", size=17)
    _text(ax, sum(x for x, *_ in circles) / 3, 3.6, title, size=14, weight="bold")


def draw_identity_layers() -> Figure:
    """Draw a shallow network, and a deeper one that copies it and adds layers that do nothing."""
    fig, ax = _canvas(9.4, 2.6)
    trained, idle = [(f"layer {i}", BLUE) for i in (1, 2, 3)], [("X → X", _GREY)] * 3
    _chain(ax, 1.75, "a shallow network, trained", trained)
    _chain(ax, 0.35, "a deeper one: copies of its layers, then identities", trained + idle)
    fig.alt = "Above, three layers in a row; below, the same three, and three more that do nothing."
    return fig


def _chain(ax, y, title, layers):
    """Draw boxes (text, colour) from left to right."""
    _text(ax, 0.1, y + 0.55, title, size=14, weight="bold", ha="left")
    _text(ax, 0.3, y, "X", size=15)
    for i, (text, colour) in enumerate(layers):
        x = 1.4 + 1.3 * i
        _arrow(ax, (x - 0.84, y), (x - 0.46, y))
        _box(ax, x, y, text, colour, width=0.92)
    _arrow(ax, (x + 0.46, y), (x + 0.84, y))
    _text(ax, x + 1.15, y, "f(X)", size=15)


def draw_block(use_1x1conv: bool = False, preact: bool = False) -> Figure:
    """Draw two blocks side by side: a plain and a residual one, or two residual ones.

    By default they are those of the book's figure 8.6.2. With ``use_1x1conv`` both are residual,
    with the identity and with a 1x1 convolution on the shortcut (figure 8.6.3); with ``preact``
    with the activations behind the convolutions and in front of them (He et al., Identity Mappings
    in Deep Residual Networks, 2016, figure 1).
    """
    fig, ax = _canvas(8.6, 5.9)
    if preact:
        _block(ax, 1.6, "post-activation", shortcut="identity")
        _block(ax, 6.0, "pre-activation", shortcut="identity", preact=True)
    elif use_1x1conv:
        _block(ax, 1.6, "the input is added as it is", shortcut="identity")
        _block(ax, 6.0, "a 1×1 convolution adapts it first", shortcut="1×1 conv")
    else:
        _block(ax, 1.6, "plain block")
        _block(ax, 6.0, "residual block", shortcut="identity")
    titles = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    fig.alt = f"Two blocks from top to bottom, side by side: {'; '.join(titles)}."
    return fig


_BRANCH = "3×3 conv", "batch norm", "ReLU", "3×3 conv", "batch norm"
_PREACT_BRANCH = ("batch norm", "ReLU", "3×3 conv") * 2


def _block(ax, x, title, shortcut=None, preact=False):
    """Draw one block from top to bottom, its layers one above the other at ``x``."""
    branch = _PREACT_BRANCH if preact else _BRANCH
    rows = [4.65 - 0.62 * i for i in range(len(branch))]
    first, last = rows[0], rows[-1]
    junction, relu = last - 0.72, last - 1.4
    _text(ax, x, 5.65, title, size=14, weight="bold")
    _text(ax, x, 5.28, "X", size=15)
    _arrow(ax, (x, 5.13), (x, first + 0.21))
    for y, text in zip(rows, branch, strict=True):
        _box(ax, x, y, text, {"3×3 conv": BLUE, "batch norm": _SKY, "ReLU": _GREY}[text])
        if y != last:
            _arrow(ax, (x, y - 0.21), (x, y - 0.41))
    frame = {"fill": False, "edgecolor": "black", "lw": 1.3, "ls": (0, (4, 3))}
    ax.add_patch(Rectangle((x - 0.95, last - 0.31), 1.9, first - last + 0.62, **frame))
    learnt = "g(X)" if shortcut else "f(X)"
    _text(ax, x - 1.2, (first + last) / 2, f"learns {learnt}", size=14, rotation=90)
    if shortcut:
        side = x + 1.6
        ax.plot([x + 0.2, side, side], [5.28, 5.28, junction], "-", color=RED, lw=3)
        _arrow(ax, (side, junction), (x + 0.18, junction), color=RED, lw=3)
        colour = "white" if shortcut == "identity" else ORANGE
        _box(ax, side, (first + last) / 2, shortcut, colour, width=1.1, edge=RED)
        _arrow(ax, (x, last - 0.21), (x, junction + 0.18))
        ax.add_patch(Circle((x, junction), 0.18, facecolor="white", edgecolor="black", lw=_WIDTH))
        _text(ax, x, junction, "+", size=17)
        _arrow(ax, (x, junction - 0.18), (x, relu + 0.21))
    else:
        _arrow(ax, (x, last - 0.21), (x, relu + 0.21))
    result = {None: "f(X)", "identity": "g(X) + X"}.get(shortcut, "g(X) + conv(X)")
    _text(ax, x + 0.14, relu + 0.35, result, size=14, ha="left")
    if not preact:
        _box(ax, x, relu, "ReLU", _GREY)
        _arrow(ax, (x, relu - 0.21), (x, relu - 0.5))


def draw_network(size: int = 96) -> Figure:
    """Draw ResNet-18: every layer with weights is a numbered bar, every shortcut an arc.

    A bar is the taller, the larger the image that leaves the layer (on a logarithmic scale);
    ``size`` is the height and width of the input in pixels. The layers are those of He et al., Deep
    Residual Learning for Image Recognition (2016), table 1.
    """
    size = whole("size", size)
    fig, ax = _canvas(10.8, 4.6)
    for y, text in zip(_LABELS, ("", "channels", "pixels"), strict=True):
        _text(ax, 0.1, y, text, size=13, ha="left")
    half, quarter = ceil(size / 2), ceil(size / 4)
    x = _group(ax, 1.15, "input", 1, size, [("", size, "white")])
    _text(ax, x + _STEP / 2, _MIDDLE + _height(half) / 2 + 0.16, f"{half}×{half}", size=12)
    x = _group(ax, x, "stem", 64, quarter, [("1", half, BLUE), ("", quarter, _GREY)])
    for i in range(4):
        pixels = ceil(quarter / 2**i)
        for block in range(2):
            _arc(ax, x + 2 * block * _STEP, pixels, fitted=i > 0 and block == 0)
        bars = [(str(2 + 4 * i + j), pixels, BLUE) for j in range(4)]
        x = _group(ax, x, f"stage {i + 1}", 64 * 2**i, pixels, bars)
    x = _group(ax, x, "pool", 512, 1, [("", 1, _GREY)])
    _group(ax, x, "dense", 10, 1, [("18", 1, BLUE)])
    handles = [
        Patch(facecolor=BLUE, edgecolor="black", label="layer with weights"),
        Patch(facecolor=_GREY, edgecolor="black", label="pooling"),
        Line2D([], [], color=RED, lw=_WIDTH, label="shortcut: identity"),
        Line2D([], [], color=RED, lw=_WIDTH, ls=_DASHED, label="shortcut: 1×1 conv"),
    ]
    ax.legend(handles=handles, loc="upper center", ncols=4, fontsize=13, frameon=False)
    fig.alt = (
        f"ResNet-18 from left to right as bars that become shorter: an input of {size}×{size} "
        "pixels, the stem, four stages of four layers each, pooling, a dense layer. An arc spans "
        "every two layers of a stage; the first arc of stages 2, 3 and 4 is dashed."
    )
    return fig


# inches: from bar to bar, where bars are centred, and where the lines of text below them are
_STEP, _MIDDLE, _LABELS = 0.36, 2.4, (0.78, 0.48, 0.2)
_DASHED = (0, (2.5, 1.2))


def _group(ax, x, name, channels, pixels, bars):
    """Draw bars from ``x`` on, with text below them; return where the next group begins."""
    for i, (number, height, colour) in enumerate(bars):
        _box(ax, x + (i + 0.5) * _STEP, _MIDDLE, number, colour, 0.29, _height(height))
    for y, text in zip(_LABELS, (name, str(channels), f"{pixels}×{pixels}"), strict=True):
        style = {"weight": "bold"} if text == name else {}
        _text(ax, x + len(bars) * _STEP / 2, y, text, size=13, **style)
    return x + len(bars) * _STEP + 0.27


def _height(pixels):
    return 0.45 + 0.3 * log2(pixels)


def _arc(ax, x, pixels, fitted):
    """Draw the shortcut over two bars that begin at ``x``."""
    y = _MIDDLE + _height(pixels) / 2 + 0.05
    ends = {"posA": (x - 0.04, y), "posB": (x + 2 * _STEP - 0.04, y)}
    style = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.7", "mutation_scale": 14}
    line = {"color": RED, "lw": _WIDTH, "ls": _DASHED if fitted else "-"}
    ax.add_patch(FancyArrowPatch(**ends, **style, **line, shrinkA=0, shrinkB=0))


def draw_map(folder: Path = LESSONS) -> Figure:
    """Draw the lessons from left to right, with arrows to those that build on them.

    Which they are is what the lessons say themselves, after "You need".

    Parameters
    ----------
    folder : Path, optional
        Where the lessons are.
    """
    titles, needs = _lessons(folder)
    columns = {}
    for number in titles:  # one column to the right of the last that it needs
        columns[number] = max((columns[need] + 1 for need in needs[number]), default=0)
    places = {}
    for column in range(max(columns.values()) + 1):
        numbers = [number for number in columns if columns[number] == column]
        for row, number in enumerate(numbers):
            places[number] = 0.85 + 1.9 * column, 2.15 + 1.35 * ((len(numbers) - 1) / 2 - row)
    fig, ax = _canvas(1.9 * max(columns.values()) + 1.7, 4.3)
    for number, (x, y) in places.items():
        for need in needs[number]:
            _arrow(ax, (places[need][0] + 0.73, places[need][1]), (x - 0.73, y))
        text = f"{number}\n" + textwrap.fill(titles[number], 14)
        _box(ax, x, y, text, _SKY, width=1.46, height=1.1)
    after = (f", after {' and '.join(map(str, needs[n]))}" if needs[n] else "" for n in titles)
    told = (f"{number} {titles[number]}{of}" for number, of in zip(titles, after, strict=True))
    fig.alt = f"A map of the lessons: {'; '.join(told)}."
    return fig


def draw_parallel_step(num_devices: int = 3) -> Figure:
    """Draw a step on several devices: the batch in parts, their gradients, the sum, one step."""
    num_devices = whole("num_devices", num_devices)
    height = 1.1 * num_devices + 0.3
    middle, across = height / 2, (0.75, 3.4, 6.15, 8.3)
    fig, ax = _canvas(9.3, height)
    _box(ax, across[0], middle, "a batch", _GREY, width=1.2, height=0.8)
    for i in range(num_devices):
        y = middle + 1.1 * ((num_devices - 1) / 2 - i)
        text = f"device {i}: its part,\nforward and backward"
        _box(ax, across[1], y, text, _SKY, width=2.4, height=0.8)
        _arrow(ax, (across[0] + 0.6, middle), (across[1] - 1.2, y))
        _arrow(ax, (across[1] + 1.2, y), (across[2] - 0.8, middle))
    _box(ax, across[2], middle, "sum of the\ngradients", _SKY, width=1.6, height=0.8)
    _arrow(ax, (across[2] + 0.8, middle), (across[3] - 0.75, middle))
    _box(ax, across[3], middle, "the same\nstep on all", _SKY, width=1.5, height=0.8)
    fig.alt = (
        f"A batch, an arrow from it to each of {num_devices} devices, which takes its part forward "
        "and backward; an arrow from each to the sum of the gradients, and from there one to the "
        "same step on all."
    )
    return fig


def _lessons(folder):
    """Return the titles of the lessons by number, and which lessons each needs directly."""
    titles, needs, before = {}, {}, {}
    for path in sorted(folder.glob("*.ipynb")):
        number = int(path.name[:2])
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        if number:
            titles[number] = re.match("# ([^,:\n]*)", text)[1]
            said = re.search(r"\*\*You need:\*\*.*", text)[0]
            needs[number] = {int(need) for need in re.findall(r"\((\d\d)_", said)}
            before[number] = needs[number].union(*(before[need] for need in needs[number]))
    of = {n: set().union(*(before[need] for need in needs[n])) for n in titles}
    return titles, {n: sorted(needs[n] - of[n]) for n in titles}


def _canvas(width, height):
    """Return an empty white figure whose axes are measured in inches."""
    fig = Figure(figsize=(width, height), dpi=100, facecolor="white")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return fig, ax


def _text(ax, x, y, text, size, **kwargs):
    style = {"ha": "center", "va": "center", "color": "black", "zorder": 5} | kwargs
    ax.text(x, y, text, fontsize=size, **style)


def _box(ax, x, y, text, colour, width=1.5, height=0.42, edge="black"):
    """Draw a box with its centre at (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = {"facecolor": colour, "edgecolor": edge, "lw": 1.5, "zorder": 3}
    ax.add_patch(Rectangle(corner, width, height, **style))
    size = 13 if "\n" not in text else 12
    _text(ax, x, y, text, size, color="white" if colour == BLUE else "black")


def _arrow(ax, start, end, color="black", lw=_WIDTH):
    style = {"arrowstyle": "-|>", "color": color, "lw": lw, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style | {"mutation_scale": 14})
