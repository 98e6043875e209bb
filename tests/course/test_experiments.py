"""The recorded experiments."""

import hashlib
import json
import os
import signal

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2lres import (
    CIFAR10_LABELS,
    CIFAR100_LABELS,
    ArrayIter,
    History,
    RandomFlip,
    cifar_resnet,
    load_torch_weights,
    small_resnet,
)
from d2lres.course import experiments
from d2lres.course.experiments import experiment, measure
from d2lres.course.recipes import RECIPES

FAST = RECIPES["fast"]


@pytest.fixture
def few(monkeypatch, tmp_path):
    """The experiment made small: dark and bright images of ten greys, and a tiny network."""

    def load(batch_size, num_valid=None, augment=None, normalize=None):
        labels = onp.arange(60) % 10
        noise = onp.random.default_rng(num_valid or 0).integers(0, 20, (60, 3, 8, 8))
        images = (labels[:, None, None, None] * 23 + noise).astype(onp.uint8)
        return [ArrayIter(images, labels, 20, normalize=normalize) for _ in range(2)]

    def build(num_classes=100, pretrained=False):
        net = small_resnet((4, 8), num_classes)
        if pretrained:
            net.initialize(mx.init.Xavier())
            net(np.ones((2, 3, 8, 8)))
        return net

    monkeypatch.setattr(experiments, "load_data_cifar10", load)
    monkeypatch.setattr(experiments, "narrow_resnet18", build)
    monkeypatch.setattr(experiments, "NUM_TRAIN", (20,))
    monkeypatch.setattr(experiments, "RATES", (1e-6, 0.1))
    return lambda: experiments.transfer_experiment(tmp_path / "t.json", num_steps=3, num_seeds=2)


@pytest.mark.slow
def test_the_learning_rate_is_chosen_on_validation_images(few, tmp_path):
    trials = few()
    assert json.loads((tmp_path / "t.json").read_text())["trials"] == trials
    for i, method in enumerate(experiments.METHODS):
        chosen, final = trials[4 * i :][:2], trials[4 * i + 2 :][:2]
        assert {trial["method"] for trial in chosen + final} == {method}
        assert [(t["images"], t["seed"]) for t in chosen] == [("validation", 0)] * 2
        assert [(t["images"], t["seed"]) for t in final] == [("test", 0), ("test", 1)]
        best = max(chosen, key=lambda trial: trial["acc"])
        assert {trial["lr"] for trial in final} == {best["lr"]}
    assert len(trials) == 12 and {trial["num_train"] for trial in trials} == {20}


@pytest.mark.slow
def test_a_transfer_that_was_interrupted_goes_on(few, monkeypatch, tmp_path):
    learned, calls = experiments._learned, []

    def stop_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learned(*args)

    monkeypatch.setattr(experiments, "METHODS", ("fine-tuning",))
    monkeypatch.setattr(experiments, "_learned", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        few()
    before = json.loads((tmp_path / "t.json").read_text())["trials"]
    trials = few()
    assert len(calls) == 3 + 2 and trials[:2] == before and len(trials) == 4
    (tmp_path / "t.json").unlink()
    assert few() == trials  # the same as without a stop


def test_the_images_are_few_balanced_and_drawn_by_the_seed():
    images = onp.arange(100, dtype=onp.uint8).reshape(100, 1, 1, 1).repeat(3, axis=1)
    pool = ArrayIter(images, onp.arange(100) // 10, batch_size=5)
    drawn = [experiments._few(pool, 20, seed, num_steps=12) for seed in (0, 0, 1)]
    assert [len(data) for data in drawn] == [12] * 3
    for data in drawn:
        used, counts = onp.unique(data.images[:, 0], return_counts=True)
        assert len(used) == 20 and set(counts) == {3}
        assert onp.bincount(used // 10).tolist() == [2] * 10
        assert (data.labels == data.images[:, 0].squeeze() // 10).all()
    assert (drawn[0].images == drawn[1].images).all() and (drawn[0].images != drawn[2].images).any()


def test_no_class_of_cifar10_was_seen_before():
    assert not {*CIFAR10_LABELS} & {*CIFAR100_LABELS}


# --- by a recipe


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
    out = capsys.readouterr().out
    assert f"\ntest accuracy {history.test_acc[-1]:.1%} after " in out
    assert "\nrecorded in results" in out


@pytest.mark.slow
def test_a_shorter_run_leaves_the_record_alone_and_may_choose_its_precision(tiny):
    assert experiment("tiny", num_epochs=1, precision="float32").run["precision"] == "float32"
    assert [path.name for path in (tiny / "results").iterdir()] == ["tiny_01_epochs_seed0.json"]
    assert [path.name for path in (tiny / "runs").iterdir()] == ["tiny_01_epochs_seed0"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet21", {}, "no experiment 'resnet21': choose one of fast, plain20"),
        ("tiny", {"precision": "float16"}, "precision is auto, float32 or bfloat16"),
        ("tiny", {"weights": "tiny.npz"}, "safetensors"),
        ("tiny", {"weights": "a.safetensors"}, "another"),  # of small_resnet
    ],
)
def test_what_cannot_be_done_is_refused_at_once(tiny, name, options, words):
    with pytest.raises(ValueError, match=words):
        experiment(name, **options)
    assert not [path for path in tiny.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_training_images_are_measured_as_they_are(few_images):
    augmented = []
    spy = [lambda X, rng: augmented.append(len(X)) or X]
    small = FAST._replace(options={"widths": (4, 8)}, augment=spy)
    assert 0 <= measure(small.build(), *small.load())["train_acc"] <= 1
    assert augmented == [1, 128]  # for the shape, and for the layers: of 200 images


@pytest.mark.slow
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


@pytest.mark.slow
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
