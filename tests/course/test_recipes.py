import numpy as onp
import pytest
from mxnet import np

from d2lres import small_resnet
from d2lres.course.recipes import RECIPES, LabelSmoothing

FAST = RECIPES["fast"]


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


@pytest.mark.slow
def test_a_run_learns_repeats_and_says_how(few_images):
    quick = FAST._replace(options={"widths": (8, 16, 32)}, num_epochs=6, batch_size=20, lr=0.1)
    runs = [quick.run(*quick.load(100), seed=1, precision="float32")[1] for _ in range(2)]
    assert runs[0].train_loss == runs[1].train_loss and runs[0].test_acc == runs[1].test_acc
    assert runs[0].test_acc[-1] > 0.5
    run = runs[0].run
    assert run["recipe"]["options"] == {"widths": (8, 16, 32)} and run["loss"] == "LabelSmoothing"
    assert "100 validation images" in run["source"] and "RandomFlip" in run["augment"]
    assert (run["optimizer"], run["momentum"], run["wd"]) == ("sgd", FAST.momentum, FAST.wd)


@pytest.mark.slow
def test_the_test_images_are_used_only_when_asked_for(few_images):
    FAST.load(num_valid=100)
    FAST.load()
    assert [call["num_valid"] for call in few_images] == [100, None]


def test_only_weights_decay():
    params = FAST.build().collect_params().values()
    decaying = {p.name.rsplit("_")[-1] for p in params if p.wd_mult}
    assert decaying <= {"weight", "mean", "var"}  # the running averages are never optimized


def rates(recipe, num_batches=10):
    scheduler = recipe.scheduler(num_batches)
    return [scheduler(step) for step in range(1, recipe.num_epochs * num_batches + 1)]


def test_one_cycle():
    seen = rates(FAST)
    assert max(seen) == pytest.approx(FAST.lr, rel=1e-3) and seen[-1] < 0.01 * FAST.lr
    assert seen.index(max(seen)) / len(seen) == pytest.approx(FAST.warmup, abs=0.05)


def test_steps_divide_by_ten_twice():
    seen = rates(RECIPES["resnet20-80"])
    found = [seen[i] for i in (0, 399, 400, 599, 600, 799)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_an_unknown_schedule():
    words = "schedule is 'one cycle', 'steps' or 'constant', not 'one-cycle'"
    with pytest.raises(ValueError, match=words):
        FAST._replace(schedule="one-cycle").scheduler(10)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name):
    wanted = RECIPES[name]
    net = wanted.build()
    channels, size = (1, 28) if wanted.data == "fashion_mnist" else (3, 32)
    num_classes = 100 if wanted.data == "cifar100" else 10
    assert net(np.ones((2, channels, size, size))).shape == (2, num_classes)
    constant = wanted.schedule == "constant"
    assert (wanted.scheduler(10) is None) == constant


@pytest.mark.slow
def test_adam_takes_no_momentum(few_images):
    tiny = {"network": "small_resnet", "options": {"widths": (4, 8)}, "num_epochs": 1}
    recipe = RECIPES["cifar100-narrow-adam"]._replace(**tiny)
    _, history = recipe.run(*recipe.load())
    assert history.run["optimizer"] == "adam" and "momentum" not in history.run
