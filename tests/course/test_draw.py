"""The drawings: readable, nothing cut off, nothing on top of another, and true to the network."""

import collections
import itertools
import json

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from d2lres import use_style
from d2lres.course import draw

DRAWINGS = {
    "function classes": draw.draw_function_classes,
    "identity layers": draw.draw_identity_layers,
    "plain and residual": draw.draw_block,
    "1x1 convolution": lambda: draw.draw_block(use_1x1conv=True),
    "pre-activation": lambda: draw.draw_block(preact=True),
    "map": draw.draw_map,
    "a step on three devices": draw.draw_parallel_step,
    "a step on one device": lambda: draw.draw_parallel_step(1),
    "network": draw.draw_network,
    "network, small images": lambda: draw.draw_network(28),
    "network, large images": lambda: draw.draw_network(224),
}


def texts(figure):
    """Return the texts of a figure that are not empty, with their boxes in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return [(text, text.get_window_extent(renderer)) for text in found]


def words(figure):
    return [text.get_text() for text, _ in texts(figure)]


def is_inside(box, x0, y0, x1, y1):
    return x0 <= box.x0 and y0 <= box.y0 and box.x1 <= x1 and box.y1 <= y1


@pytest.mark.parametrize("name", ["plain and residual", "1x1 convolution", "pre-activation"])
def test_no_line_of_a_block_is_dashed(name):
    """Whatever style the curves of a lesson have."""
    with matplotlib.rc_context():
        use_style()
        assert {line.get_linestyle() for line in DRAWINGS[name]().axes[0].lines} == {"-"}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_all_is_large_nothing_cut_off_and_no_text_on_another(name):
    figure = DRAWINGS[name]()
    assert figure.alt.endswith(".")
    assert plt.get_fignums() == []  # a notebook would show twice what pyplot knows
    (ax,), found = figure.axes, texts(figure)
    for text, box in found:
        assert text.get_fontsize() >= 12, text.get_text()
        assert is_inside(box, 0, 0, *figure.canvas.get_width_height()), text.get_text()
    for (one, box), (other, other_box) in itertools.combinations(found, 2):
        assert not box.overlaps(other_box), (one.get_text(), other.get_text())
    for patch in ax.patches:
        assert is_inside(patch.get_window_extent(), *ax.bbox.extents), patch


def test_larger_class_may_be_farther_only_if_not_nested():
    figure = draw.draw_function_classes()
    lines = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 2]
    lengths = [((end - start) ** 2).sum() ** 0.5 for start, end in lines]
    (third, second, first), nested = lengths[:3], lengths[3:]
    assert second < first < third
    assert nested == sorted(nested) and len(nested) == 3


def test_block_differs_by_the_shortcut_only():
    plain_and_residual, with_1x1 = words(draw.draw_block()), words(draw.draw_block(True))
    assert plain_and_residual.count("identity") == plain_and_residual.count("+") == 1
    assert with_1x1.count("identity") == with_1x1.count("1×1 conv") == 1
    for found in (plain_and_residual, with_1x1, words(draw.draw_block(preact=True))):
        assert [found.count(name) for name in ("3×3 conv", "batch norm", "ReLU")] == [4, 4, 4]


def test_network_numbers_18_layers_and_8_shortcuts():
    figure = draw.draw_network()
    numbers = [word for word in words(figure) if word.isdigit()]
    assert set(map(str, range(1, 19))) <= set(numbers)
    arcs = [p for p in figure.axes[0].patches if type(p).__name__ == "FancyArrowPatch"]
    assert [arc.get_linestyle() == "-" for arc in arcs] == [True, True] + 3 * [False, True]


@pytest.mark.parametrize("size", [0, -96, 28.5, "96"])
def test_images_of_no_size(size):
    with pytest.raises(ValueError, match=f"a whole number of at least 1, not {size!r}"):
        draw.draw_network(size)


@pytest.mark.parametrize("size", [28, 33, 96, 224])
def test_network_shows_the_shapes_of_the_network(size):
    from mxnet import np

    from d2lres import resnet18

    X, net = np.zeros((1, 1, size, size)), resnet18()
    net.initialize()
    shapes = [X.shape]
    for part in net:
        X = part(X)
        shapes.append(X.shape + (1, 1) if X.ndim == 2 else X.shape)
    rows = collections.defaultdict(list)
    for text in draw.draw_network(size).axes[0].texts:
        rows[text.get_position()[1]].append(text.get_text())
    pixels, channels = (rows[y] for y in sorted(rows)[:2])
    assert pixels == ["pixels", *(f"{height}×{width}" for _, _, height, width in shapes)]
    assert channels == ["channels", *(str(shape[1]) for shape in shapes)]


def test_the_map_says_what_the_lessons_say(tmp_path):
    needs = {1: [], 2: [1], 3: [2, 1], 4: [1]}
    for number, before in {0: [1], **needs}.items():
        links = " ".join(f"[lesson](0{need}_name.ipynb)" for need in before)
        text = f"# Title {number}: more\n\n**You need:** {links}\n\nNext: [4](04_name.ipynb)"
        lesson = {"cells": [{"source": text.splitlines(True)}]}
        (tmp_path / f"0{number}_name.ipynb").write_text(json.dumps(lesson))
    figure = draw.draw_map(tmp_path)
    told = "1 Title 1; 2 Title 2, after 1; 3 Title 3, after 2; 4 Title 4, after 1"
    assert figure.alt == f"A map of the lessons: {told}."
    arrows = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert len(arrows) == 3 and all(arrow.xy[0] > arrow.xyann[0] for arrow in arrows)
