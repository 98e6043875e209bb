import io
import re

import matplotlib
import matplotlib.pyplot as plt
import mxnet as mx
import numpy as onp
import pytest
from matplotlib.colors import to_rgb
from mxnet import np

from d2lres import (
    History,
    plot_confusion_matrix,
    plot_errors,
    plot_gaps,
    plot_history,
    plot_runs,
    show_images,
)
from d2lres.plot import STYLES, Figure, LiveCurves, percent_axis, use_style

HISTORY = History([2.0, 1.0], [0.5, 0.7], [0.4, 0.6], [1.0, 1.0], [9.0, 9.0])


def rendered(fig):
    """Draw a figure; return all its texts. Fails if a text lies outside the picture."""
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
    return " ".join(t.get_text() for t in fig.findobj(lambda a: hasattr(a, "get_text")))


def line_styles(fig):
    return [line.get_linestyle() for ax in fig.axes for line in ax.lines]


def test_curves_hold_the_history():
    fig = plot_history(HISTORY, title="a run")
    loss, accuracy = fig.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.0, 1.0]]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.5, 0.7], [0.4, 0.6]]
    texts = rendered(fig)
    assert all(w in texts for w in ("epoch", "accuracy", "loss", "training", "test", "a run"))


def test_the_axis_of_a_run_that_goes_on_is_as_long_as_the_run():
    assert plot_history(HISTORY, num_epochs=10).axes[0].get_xlim()[1] > 10


def test_runs_side_by_side_with_the_spread_of_their_seeds():
    other = History([1.5, 0.5, 0.2], [0.7, 0.9, 1.0], [0.6, 0.8, 0.9])
    fig = plot_runs({"plain": [HISTORY, other], "residual": other}, title="two networks")
    (ax,) = fig.axes
    plain, residual = (line.get_ydata() for line in ax.lines)
    onp.testing.assert_allclose(plain, [0.4, 0.2])  # as far as both went
    onp.testing.assert_allclose(residual, [0.3, 0.1, 0.0])
    band = ax.collections[0].get_paths()[0].get_extents()
    onp.testing.assert_allclose([band.y0, band.y1], [0.1, 0.5])
    texts = rendered(fig)
    assert all(w in texts for w in ("training error", "epoch", "plain", "residual", "two networks"))
    assert plot_runs({"a": other}, "test_acc", ax=ax) is fig
    assert ax.get_ylabel() == "test accuracy" and ax.lines[-1].get_ydata()[2] == 0.9
    with pytest.raises(ValueError, match="quantity is one of train_error, .* not 'accuracy'"):
        plot_runs({"a": HISTORY}, "accuracy")


def test_images_with_their_labels():
    fig = show_images(np.random.uniform(size=(5, 1, 8, 8)), np.array([0, 1, 2, 3, 9]), columns=3)
    assert sum(bool(ax.images) for ax in fig.axes) == 5 and len(fig.axes) == 6
    assert fig.axes[4].get_title() == "ankle boot"
    rendered(fig)


@pytest.mark.parametrize("names", [onp.array(["cat", "dog"]), ["$\\frac$", "_dog"]])
def test_names_may_be_an_array_and_are_no_formulas(names):
    fig = show_images(onp.zeros((2, 1, 8, 8)), [0, 1], labels=names)
    assert rendered(fig) and fig.axes[1].get_title().replace("\\", "") == names[1]
    assert "dog" in rendered(plot_confusion_matrix(onp.eye(2), labels=names))


def titles(fig):
    return [ax.get_title() for ax in fig.axes if ax.images]


def shown(X):
    """What is shown of two images, from 0 to 1."""
    fig = show_images(X, [0, 1])
    assert all(ax.images[0].get_clim() == (0, 1) for ax in fig.axes[:2])
    return onp.stack([ax.images[0].get_array() for ax in fig.axes if ax.images])


GREY = onp.random.default_rng(0).integers(0, 256, (2, 1, 6, 5)).astype("uint8")
COLOUR = onp.random.default_rng(1).integers(0, 256, (2, 3, 6, 5)).astype("uint8")


BYTES = [GREY, GREY.astype("int64"), GREY[:, 0], GREY.transpose(0, 2, 3, 1)]
FLOATS = [GREY / 255, np.array(GREY / 255, dtype="float16"), mx.nd.array(GREY / 255)]
LISTS = [[np.array(image / 255) for image in GREY], (GREY / 255).tolist()]
ROUNDED = GREY / 255 * 1.001  # as after a resize


@pytest.mark.parametrize("X", [*BYTES, np.array(GREY, dtype="uint8"), *FLOATS, *LISTS, ROUNDED])
def test_grey_images_of_all_kinds(X):
    onp.testing.assert_allclose(shown(X), GREY[:, 0] / 255, atol=2e-3)


@pytest.mark.parametrize("X", [COLOUR, COLOUR / 255, COLOUR.transpose(0, 2, 3, 1)])
def test_colour_images_of_all_kinds(X):
    onp.testing.assert_allclose(shown(X), COLOUR.transpose(0, 2, 3, 1) / 255, atol=1e-6)


def test_black_and_white():
    assert (shown(GREY > 99) == (GREY[:, 0] > 99)).all()


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (onp.zeros((0, 1, 8, 8)), r"no image to show: X has shape \(0, 1, 8, 8\)"),
        (COLOUR[0, 0], r"got \(6, 5\); for a single image X write X\[None\] and \[y\]"),
        (COLOUR[0], "expected classes in y, one for each of the 3 images"),  # three grey ones
        (onp.zeros((2, 2, 8, 8)), r"grey or colour images .* got \(2, 2, 8, 8\)"),
        (GREY.astype(float), r"from 0 to 1, or whole numbers.*goes from \d to 25\d. .*X / 255"),
        (COLOUR / 255 * 4 - 2, r"goes from -\S+ to \S+. If it was normalized, show X \* std"),
        (GREY * onp.nan, "from 0 to 1.* goes from nan to nan"),
    ],
)
def test_what_is_no_image(X, words):
    with pytest.raises(ValueError, match=words):
        show_images(X, [0, 1])


@pytest.mark.parametrize(
    ("X", "y", "names"),
    [
        (GREY, [0, 9], ["t-shirt", "ankle boot"]),  # as the lessons show them
        (COLOUR, [0, 2], ["0", "2"]),
        (GREY, [57, 99], ["57", "99"]),
        (GREY, onp.array([1.0, 10.0]), ["1", "10"]),
        (GREY, np.array([3, 4]), ["dress", "coat"]),
    ],
)
def test_only_what_can_be_of_fashion_mnist_has_its_names(X, y, names):
    assert titles(show_images(X, y)) == names


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        ([0], {}, "classes in y, one for each of the 2 images"),
        ([0, 1, 2], {}, "classes in y, one for each of the 2 images"),
        ([[0], [1]], {}, r"shape \(2, 1\); write y\[:, 0\]"),
        ([0, -1], {}, "counted from 0, but one in y or y_hat is -1"),
        ([0, 1], {"y_hat": [-1, 0]}, "counted from 0, but one in y or y_hat is -1"),
        ([0, 1], {"y_hat": [0]}, "classes in y_hat, one for each of the 2 images"),
        ([0, 1.5], {}, "classes in y are the whole numbers of classes, but one is 1.5"),
        ([0, 2], {"labels": ["a", "b"]}, "labels has 2 names, but the highest class is 2"),
        ([0, 1], {"labels": "ab", "y_hat": [0, 7]}, "labels has 2 names.* class is 7"),
        ([0, 1], {"columns": 0}, "columns must be a whole number of at least 1, not 0"),
    ],
)
def test_classes_that_cannot_be_shown(y, options, words):
    with pytest.raises(ValueError, match=words):
        show_images(GREY, y, **options)


def test_predictions_are_marked():
    fig = show_images(onp.zeros((2, 1, 8, 8)), [0, 1], [0, 2])
    right, wrong = fig.axes[:2]
    assert right.get_title() == "t-shirt\n✓" and wrong.get_title() == "trouser\n✗ pullover"
    assert right.title.get_color() != wrong.title.get_color()


def test_confusion_matrix_in_percent():
    fig = plot_confusion_matrix(onp.array([[3, 1], [0, 0]]), labels=["cat", "dog"])
    texts = rendered(fig)
    assert "75" in texts and "25" in texts and "cat" in texts and "true class" in texts


@pytest.mark.parametrize(("number", "first"), [(3, "0"), (10, "t-shirt"), (11, "0"), (100, "0")])
def test_each_class_of_a_confusion_matrix_has_one_name(number, first):
    fig = plot_confusion_matrix(np.array(onp.eye(number), dtype="int32"))
    (ax,) = fig.axes
    assert [len(ticks) for ticks in (ax.get_xticks(), ax.get_yticks())] == [number] * 2
    assert ax.get_xticklabels()[0].get_text() == first
    assert fig.get_figheight() >= 0.3 * number  # its names do not overlap


@pytest.mark.parametrize(
    ("matrix", "labels", "words"),
    [
        (onp.ones((2, 3)), None, r"shape \(num_classes, num_classes\).* got \(2, 3\)"),
        (onp.ones(4), None, r"got \(4,\)"),
        (onp.ones((0, 0)), None, r"got \(0, 0\)"),
        (3, None, r"got \(\)"),
        ([[1, -1], [0, 1]], None, "numbers of images from 0 on"),
        (onp.full((2, 2), onp.nan), None, "numbers of images from 0 on"),
        (onp.eye(3), ["a", "b"], "labels has 2 names, but the highest class is 2"),
        (onp.eye(3), "abcd", "labels has 4 names, but matrix has 3 classes"),
    ],
)
def test_what_is_no_confusion_matrix(matrix, labels, words):
    with pytest.raises(ValueError, match=words):
        plot_confusion_matrix(matrix, labels)


def test_live_curves_are_drawn_in_place(displayed):
    curves = LiveCurves(3)
    curves.draw(HISTORY)
    curves.draw(HISTORY)
    assert [how for how, _ in displayed] == ["display", "update"]


# ------------------------------------------------------------------ for every eye, and for none


def test_a_notebook_shows_a_figure_sharp_with_its_size_and_in_words():
    fig = plot_history(HISTORY)
    picture, metadata = fig._repr_png_()
    assert int.from_bytes(picture[16:20], "big") == 2 * metadata["width"] == 1800
    assert metadata["alt"] == fig.alt and "from 2.00 to 1.00" in fig.alt
    assert "alt" not in Figure()._repr_png_()[1]


GAPS = {
    label: [History([0.5], [0.5], [acc], run={"measured": {"train_acc": 1}}) for acc in accs]
    for label, accs in {"few": (0.5, 0.7), "more": (0.7,)}.items()
}
IN_WORDS = {
    "no epoch yet": (lambda: plot_history(History()), ""),
    "runs": (lambda: plot_runs({"a": HISTORY}), "Training error over .*: a from 50.0% to 30.0%"),
    "losses": (lambda: plot_runs({"a": HISTORY}, "train_loss"), "a from 2.00 to 1.00"),
    "gaps": (lambda: plot_gaps(GAPS), "^Gaps: few 40.0 points, more 30.0 points.$"),
    "images": (lambda: show_images(GREY, [0, 1]), "2 images: t-shirt, trouser."),
    "predictions": (lambda: show_images(GREY, [0, 1], [0, 0]), "1 of them .* right"),
    "matrix": (
        lambda: plot_confusion_matrix([[3, 1], [0, 1]], ["cat", "dog"]),
        "cat 75%, dog 100%",
    ),
}


@pytest.mark.parametrize("kind", IN_WORDS)
def test_a_figure_is_told_in_words(kind):
    draw, words = IN_WORDS[kind]
    assert re.search(words, draw().alt) and bool(words) == bool(draw().alt)


@pytest.mark.parametrize("kind", IN_WORDS)
def test_no_line_of_it_changes_with_the_style(kind):
    before = line_styles(IN_WORDS[kind][0]())
    with matplotlib.rc_context():
        use_style()
        assert line_styles(IN_WORDS[kind][0]()) == before


def test_curves_differ_without_their_colour_and_stand_out_from_white():
    fig = plot_runs({str(i): HISTORY for i in range(len(STYLES))})
    lines = fig.axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(STYLES)
    for line in lines:
        linear = [((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(line.get_color())]
        luminance = onp.dot(linear, [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) > 3  # what WCAG asks of graphics


def test_a_curve_has_a_title_of_its_own():
    history = History(*[[0.5]] * 5, {"num_examples": 5000, "source": "CIFAR-10: 5,000 images"})
    assert "5,000 training images of CIFAR-10" in rendered(plot_history(history))
    assert "Test error" in rendered(plot_runs({"a": HISTORY}, "test_error"))


def test_errors_on_both_sets_of_images_share_a_scale_and_a_legend():
    fig = plot_errors({"a": HISTORY}, "two panels")
    left, right = fig.axes
    assert left.get_ylim() == right.get_ylim() and left.legend_ and not right.legend_
    assert "from 50.0% to 30.0%" in fig.alt and "from 60.0% to 40.0%" in fig.alt
    assert "two panels" in rendered(fig) and plot_errors({}).axes


def test_the_gap_is_that_of_the_means():
    assert "gap 40.0 points" in rendered(plot_gaps(GAPS))


def test_one_format_of_percent():
    ax = Figure().subplots()
    percent_axis(ax.yaxis)
    says = ax.yaxis.get_major_formatter()
    assert [says(share, 0) for share in (0.9, 0.905, 0.07, 1)] == ["90%", "90.5%", "7%", "100%"]


def test_matplotlib_draws_in_the_style_of_the_course():
    with matplotlib.rc_context():
        use_style()
        lines = plt.plot([[1, 2], [2, 3]])
        plt.close()
    assert [(line.get_color(), line.get_linestyle()) for line in lines] == [
        (style["color"], style["linestyle"]) for style in STYLES[:2]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("num", [4, 16])
def test_titles_above_images_are_not_cut_off(num):
    classes = onp.arange(num) % 10
    picture = show_images(onp.zeros((num, 28, 28)), classes, classes[::-1])._repr_png_()[0]
    assert (plt.imread(io.BytesIO(picture))[:2] == 1).all()
