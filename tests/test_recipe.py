import numpy as onp
import pytest
from mxnet import np

from d2lres import data, recipe
from d2lres.models import small_resnet
from d2lres.recipe import FAST, LabelSmoothing


def test_shapes_and_blocks():
    net = small_resnet((4, 8, 16), num_classes=3)
    net.initialize()
    X, shapes = np.ones((2, 1, 28, 28)), []
    for layer in net:
        X = layer(X)
        shapes.append(X.shape)
    assert shapes[2:] == [(2, 4, 28, 28), (2, 8, 14, 14), (2, 16, 7, 7), (2, 16, 1, 1), (2, 3)]


@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
def test_label_smoothing_is_the_cross_entropy_of_smoothed_labels(smoothing):
    rng = onp.random.default_rng(0)
    Y_hat, y = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    p = onp.exp(Y_hat) / onp.exp(Y_hat).sum(axis=1, keepdims=True)
    target = (1 - smoothing) * onp.eye(4)[y] + smoothing / 4
    expected = -(target * onp.log(p)).sum(axis=1)
    loss = LabelSmoothing(smoothing)(np.array(Y_hat), np.array(y, dtype="int32"))
    assert onp.allclose(loss.asnumpy(), expected, atol=1e-5)


@pytest.fixture
def few_images(monkeypatch):
    """A few of the images that are at hand, without a download."""
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    calls = []

    def load(*args, **kwargs):
        calls.append(kwargs)
        return data.load_data_fashion_mnist(*args, num_train=200, **kwargs)

    monkeypatch.setattr(recipe, "load_data_fashion_mnist", load)
    return calls


def test_a_run_learns_repeats_and_says_how(few_images, capsys):
    quick = FAST._replace(widths=(8, 16, 32), num_epochs=6, batch_size=20, lr=0.1)
    runs = [quick.run(seed=1, num_valid=100, precision="float32") for _ in range(2)]
    assert runs[0].train_loss == runs[1].train_loss and runs[0].test_acc == runs[1].test_acc
    assert runs[0].test_acc[-1] > 0.5
    run = runs[0].run
    assert run["recipe"]["widths"] == (8, 16, 32) and run["loss"] == "LabelSmoothing"
    assert "100 validation images" in run["source"] and "RandomFlip" in run["augment"]
    assert (run["optimizer"], run["momentum"], run["wd"]) == ("sgd", FAST.momentum, FAST.wd)


def test_the_test_images_are_used_only_when_asked_for(few_images):
    FAST._replace(widths=(4, 8), num_epochs=1, batch_size=100).run(num_valid=100)
    assert few_images[-1]["num_valid"] == 100


def test_only_weights_decay_and_the_rate_makes_one_cycle(few_images, monkeypatch):
    seen = {}

    def train(net, train_iter, test_iter, num_epochs, lr, **options):
        seen.update(options, net=net, steps=num_epochs * len(train_iter))
        return recipe.History()

    monkeypatch.setattr(recipe, "train", train)
    FAST.run(num_valid=100)
    decaying = {p.name.rsplit("_")[-1] for p in seen["net"].collect_params().values() if p.wd_mult}
    assert decaying <= {"weight", "mean", "var"}  # the running averages are never optimised
    rates = [seen["scheduler"](step) for step in range(1, seen["steps"] + 1)]
    assert max(rates) == pytest.approx(FAST.lr, rel=1e-3) and rates[-1] < 0.01 * FAST.lr
    top = rates.index(max(rates)) / len(rates)
    assert top == pytest.approx(FAST.warmup, abs=0.05)
