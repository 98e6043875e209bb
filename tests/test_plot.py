import io

import numpy as onp
import pytest
from mxnet import np

from d2lres import History, plot_confusion_matrix, plot_history, plot_runs, show_images
from d2lres.plot import LiveCurves

HISTORY = History([2.0, 1.0], [0.5, 0.7], [0.4, 0.6], [1.0, 1.0], [9.0, 9.0])


def rendered(fig):
    """Draw a figure; return all its texts. Fails if a text lies outside the picture."""
    picture = io.BytesIO()
    fig.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
    return " ".join(t.get_text() for t in fig.findobj(lambda a: hasattr(a, "get_text")))


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


def test_images_with_their_labels():
    fig = show_images(np.random.uniform(size=(5, 1, 8, 8)), np.array([0, 1, 2, 3, 9]), columns=3)
    assert sum(bool(ax.images) for ax in fig.axes) == 5 and len(fig.axes) == 6
    assert fig.axes[4].get_title() == "ankle boot"
    rendered(fig)


def test_names_may_be_an_array():
    names = onp.array(["cat", "dog"])
    assert show_images(onp.zeros((1, 1, 8, 8)), [1], labels=names).axes[0].get_title() == "dog"
    assert "dog" in rendered(plot_confusion_matrix(onp.eye(2), labels=names))


def test_no_image_to_show():
    with pytest.raises(ValueError, match=r"no image to show: X has shape \(0, 1, 8, 8\)"):
        show_images(np.zeros((0, 1, 8, 8)), np.zeros(0))


def test_predictions_are_marked():
    fig = show_images(onp.zeros((2, 3, 8, 8)), [0, 1], [0, 2])
    right, wrong = fig.axes[:2]
    assert right.get_title() == "t-shirt\n✓" and wrong.get_title() == "trouser\n✗ pullover"
    assert right.title.get_color() != wrong.title.get_color()


def test_confusion_matrix_in_percent():
    fig = plot_confusion_matrix(onp.array([[3, 1], [0, 0]]), labels=["cat", "dog"])
    texts = rendered(fig)
    assert "75" in texts and "25" in texts and "cat" in texts and "true class" in texts


def test_live_curves_are_drawn_in_place(monkeypatch):
    shown = []

    class Handle:
        update = staticmethod(lambda fig: shown.append(("update", fig)))

    def display(fig, display_id):
        shown.append(("display", fig))
        return Handle

    monkeypatch.setattr("IPython.display.display", display)
    curves = LiveCurves(3)
    curves.draw(HISTORY)
    curves.draw(HISTORY)
    assert [how for how, _ in shown] == ["display", "update"]
