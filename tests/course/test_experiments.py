"""The recorded experiments."""

import json

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2lres import CIFAR10_LABELS, CIFAR100_LABELS, ArrayIter
from d2lres.course import experiments
from d2lres.models import small_resnet


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
