import hashlib
import os
import signal

import numpy as onp
import pytest
from mxnet import np

from d2lres import (
    History,
    RandomFlip,
    cifar_resnet,
    load_data_fashion_mnist,
    load_torch_weights,
    small_resnet,
)
from d2lres.course import recipes
from d2lres.course.experiments import experiment, measure
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


@pytest.fixture
def few_images(monkeypatch):
    """A few of the images that are at hand, without a download, in the place of every data set."""
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    calls = []

    def load(*args, **kwargs):
        calls.append(kwargs)
        few = {"num_train": 200} if kwargs["num_valid"] else {"num_train": 200, "num_test": 200}
        return load_data_fashion_mnist(*args, **kwargs | few)

    for name in ("fashion_mnist", "cifar10", "cifar100"):
        monkeypatch.setattr(recipes, f"load_data_{name}", load)
    return calls


def test_a_run_learns_repeats_and_says_how(few_images):
    quick = FAST._replace(options={"widths": (8, 16, 32)}, num_epochs=6, batch_size=20, lr=0.1)
    runs = [quick.run(*quick.load(100), seed=1, precision="float32")[1] for _ in range(2)]
    assert runs[0].train_loss == runs[1].train_loss and runs[0].test_acc == runs[1].test_acc
    assert runs[0].test_acc[-1] > 0.5
    run = runs[0].run
    assert run["recipe"]["options"] == {"widths": (8, 16, 32)} and run["loss"] == "LabelSmoothing"
    assert "100 validation images" in run["source"] and "RandomFlip" in run["augment"]
    assert (run["optimizer"], run["momentum"], run["wd"]) == ("sgd", FAST.momentum, FAST.wd)


def test_the_test_images_are_used_only_when_asked_for(few_images):
    FAST.load(num_valid=100)
    FAST.load()
    assert [call["num_valid"] for call in few_images] == [100, None]


def test_only_weights_decay():
    params = FAST.build().collect_params().values()
    decaying = {p.name.rsplit("_")[-1] for p in params if p.wd_mult}
    assert decaying <= {"weight", "mean", "var"}  # the running averages are never optimised


def rates(recipe, num_batches=10):
    scheduler = recipe.scheduler(num_batches)
    return [scheduler(step) for step in range(1, recipe.num_epochs * num_batches + 1)]


def test_one_cycle():
    seen = rates(FAST)
    assert max(seen) == pytest.approx(FAST.lr, rel=1e-3) and seen[-1] < 0.01 * FAST.lr
    assert seen.index(max(seen)) / len(seen) == pytest.approx(FAST.warmup, abs=0.05)


def test_steps_divide_by_ten_twice():
    seen = rates(RECIPES["resnet20-80"])
    assert [seen[i] for i in (0, 399, 400, 599, 600, 799)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_an_unknown_schedule():
    words = "schedule is 'one cycle', 'steps' or 'constant', not 'one-cycle'"
    with pytest.raises(ValueError, match=words):
        FAST._replace(schedule="one-cycle").scheduler(10)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name):
    wanted = RECIPES[name]
    net = wanted.build()
    channels, size = (1, 28) if wanted.data == "fashion_mnist" else (3, 32)
    num_classes = 100 if wanted.data == "cifar100" else 10
    assert net(np.ones((2, channels, size, size))).shape == (2, num_classes)
    constant = wanted.schedule == "constant"
    assert (wanted.scheduler(10) is None) == constant


def test_adam_takes_no_momentum(few_images):
    tiny = {"network": "small_resnet", "options": {"widths": (4, 8)}, "num_epochs": 1}
    recipe = RECIPES["cifar100-narrow-adam"]._replace(**tiny)
    _, history = recipe.run(*recipe.load())
    assert history.run["optimizer"] == "adam" and "momentum" not in history.run


# --- experiments


@pytest.fixture
def tiny(few_images, monkeypatch, tmp_path):
    wanted = {"options": {"widths": (4, 8)}, "num_epochs": 2, "batch_size": 50}
    monkeypatch.setitem(RECIPES, "tiny", FAST._replace(**wanted))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_experiment_is_recorded_and_measured(tiny, capsys):
    history = experiment("tiny", seed=3)
    recorded = History.load(tiny / "results" / "tiny_seed3.json")
    assert recorded.train_loss == history.train_loss and len(recorded) == 2
    assert recorded.run["seed"] == 3 and recorded.run["recipe"]["num_epochs"] == 2
    measured = recorded.run["measured"]
    shares = measured["class_acc"]
    assert len(shares) == 10  # of as many images in each class: the accuracy is their mean
    assert sum(shares) / 10 == pytest.approx(recorded.test_acc[-1])
    assert measured["top5_acc"] >= measured["top1_acc"] == pytest.approx(recorded.test_acc[-1])
    assert len(measured["layer_stats"]) == 3  # a convolution and a block of two
    assert "recorded in results" in capsys.readouterr().out


def test_a_shorter_run_leaves_the_record_alone(tiny):
    experiment("tiny", num_epochs=1)
    assert [path.name for path in (tiny / "results").iterdir()] == ["tiny_01_epochs_seed0.json"]
    assert [path.name for path in (tiny / "runs").iterdir()] == ["tiny_01_epochs_seed0"]


def test_the_precision_of_an_experiment_can_be_chosen(tiny):
    assert experiment("tiny", precision="float32").run["precision"] == "float32"
    with pytest.raises(ValueError, match="precision is auto, float32 or bfloat16"):
        experiment("tiny", seed=1, precision="float16")
    assert not list(tiny.glob("*/tiny_seed1*"))


@pytest.mark.parametrize("path, words", [("tiny.npz", "safetensors"), ("a.safetensors", "another")])
def test_weights_that_cannot_be_saved_are_refused_at_once(tiny, path, words):
    with pytest.raises(ValueError, match=words):
        experiment("tiny", weights=path)  # of small_resnet
    assert not list(tiny.iterdir())


def test_training_images_are_measured_as_they_are(few_images):
    augmented = []
    spy = [lambda X, rng: augmented.append(len(X)) or X]
    small = FAST._replace(options={"widths": (4, 8)}, augment=spy)
    assert 0 <= measure(small.build(), *small.load())["train_acc"] <= 1
    assert augmented == [1, 128]  # for the shape, and for the layers: of 200 images


def test_the_weights_of_an_experiment_can_be_had_later(tiny, monkeypatch, capsys):
    def is_rounded(net, *data, **options):
        weights = [param.data().asnumpy() for param in net.collect_params().values()]
        return all((w == w.astype(onp.float16)).all() for w in weights)

    changed = {"network": "cifar_resnet", "options": {"depth": 8}, "num_epochs": 1}
    RECIPES["tiny"] = RECIPES["tiny"]._replace(**changed)
    monkeypatch.setattr("d2lres.course.experiments.measure", is_rounded)
    before = experiment("tiny")
    after = experiment("tiny", weights=tiny / "new" / "tiny.safetensors")
    assert after.test_acc == before.test_acc and after.train_loss == before.train_loss
    content = (tiny / "new" / "tiny.safetensors").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert after.run["weights_sha256"] == digest and digest in capsys.readouterr().out
    load_torch_weights(cifar_resnet(8), tiny / "new" / "tiny.safetensors")
    assert after.run["measured"] and not before.run["measured"]  # what was saved is measured


def test_an_experiment_that_was_stopped_is_recorded_when_it_has_gone_on(tiny, monkeypatch):
    def press_stop(X, rng):
        os.kill(os.getpid(), signal.SIGINT)
        return X

    with monkeypatch.context() as patch:
        patch.setattr(RandomFlip, "_apply", lambda self, X, rng: press_stop(X, rng))
        with pytest.raises(KeyboardInterrupt):  # while the data is prepared: nothing to save yet
            experiment("tiny")
    calls = []

    def press_stop_later(self, X, rng):
        calls.append(len(X))
        return press_stop(X, rng) if len(calls) == 5 else X

    with monkeypatch.context() as patch:
        patch.setattr(RandomFlip, "_apply", press_stop_later)
        assert len(experiment("tiny")) < 2 and not (tiny / "results").exists()
    assert len(experiment("tiny")) == 2 and (tiny / "results" / "tiny_seed0.json").exists()


def test_an_unknown_experiment():
    with pytest.raises(ValueError, match="no experiment 'resnet21': choose one of fast, plain20"):
        experiment("resnet21")
