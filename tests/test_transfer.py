"""What a network has learned, put to another task."""

import json

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision

from d2lres import (
    CIFAR10_LABELS,
    CIFAR100_LABELS,
    ArrayIter,
    cifar_resnet,
    compile,
    experiment,
    features,
    fine_tune,
    freeze,
    layer_lr,
    replace_head,
    resnet18,
    train,
    transfer,
    unfreeze,
)
from d2lres.models import small_resnet


def trained(net, shape=(2, 1, 8, 8)):
    """A network with weights, and with averages as after some training."""
    net.initialize(mx.init.Xavier())
    net(np.ones(shape))
    for param in net.collect_params(".*running_var").values():
        param.set_data(np.random.uniform(0.5, 1.5, size=param.shape))
    return net


def values(net):
    return [param.data().asnumpy() for param in net.collect_params().values()]


def same(before, after):
    return [(a == b).all() for a, b in zip(before, after, strict=True)]


NETWORKS = {
    "cifar_resnet": lambda: cifar_resnet(8),
    "pre-activation": lambda: cifar_resnet(8, preact=True),
    "the book's": lambda: resnet18(3),
    "small": lambda: small_resnet((4, 8)),
    "model_zoo, version 1": lambda: vision.resnet18_v1(classes=5, thumbnail=True),
    "model_zoo, version 2": lambda: vision.resnet18_v2(classes=5, thumbnail=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_a_new_head(name):
    X = np.random.uniform(size=(2, 3, 32, 32))
    net = trained(NETWORKS[name](), X.shape)
    old = net.output if name.startswith("model_zoo") else net[-1]
    assert features(net)(X).shape == (2, old.weight.shape[1])
    assert abs(old(features(net)(X)) - net(X)).max() < 1e-5
    new = replace_head(net, 7)
    assert new(X).shape == (2, 7) and new[-1] is not old
    assert abs(features(new)(X) - features(net)(X)).max() == 0
    theirs, ours = ({*net_.collect_params().values()} for net_ in (net, new))
    assert theirs ^ ours == {old.weight, old.bias, new[-1].weight, new[-1].bias}


def test_what_has_no_head_to_replace():
    body = nn.HybridSequential()
    body.add(nn.Conv2D(3, kernel_size=3))
    compiled = compile(trained(small_resnet((4, 8))), np.ones((2, 1, 8, 8)), "float32")
    for net in (body, nn.HybridSequential(), nn.Conv2D(3, kernel_size=3), compiled):
        for use in (features, lambda net: replace_head(net, 2), lambda net: layer_lr(net, 2)):
            with pytest.raises(TypeError, match="whose last layer is a dense one.*compiled from"):
                use(net)
    with pytest.raises(ValueError, match="num_classes is at least 1, not 0"):
        replace_head(trained(small_resnet((4, 8))), 0)
    with pytest.raises(RuntimeError, match="not been initialized"):
        replace_head(small_resnet((4, 8)), 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_frozen_stays(compiled):
    net, X = trained(cifar_resnet(8)), np.random.normal(size=(4, 1, 8, 8))
    fast = compile(net, X, "float32") if compiled else net
    with autograd.record():  # the graph from before is not the one that is needed later
        moving = fast(X)
    freeze(features(net))
    expected, before = net(X), [values(part) for part in (net[:-1], net[-1])]
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    with autograd.record():
        Y = fast(X)
    Y.backward()
    trainer.step(4)
    assert abs(Y - expected).max() < 1e-5 < abs(Y - moving).max()  # by the averages, in training
    assert all(same(before[0], values(net[:-1]))) and not any(same(before[1], values(net[-1])))
    unfreeze(net)
    with autograd.record():
        Y = fast(X)
    Y.backward()
    trainer.step(4)
    mx.npx.waitall()
    assert abs(Y - fast(X)).max() > 1e-3 and not any(same(before[0], values(net[:-1])))


def test_a_hybridized_network_that_is_frozen_is_hybridized_again():
    net, X = trained(cifar_resnet(8)), np.random.normal(size=(4, 1, 8, 8))
    net.hybridize()
    with autograd.record():
        net(X)
    freeze(net)
    net.hybridize()
    expected = net(X)
    with autograd.train_mode():
        assert abs(net(X) - expected).max() < 1e-5


def test_unfreezing_trains_what_could_be_trained():
    net = trained(cifar_resnet(8))
    before = [param.grad_req for param in net.collect_params().values()]
    freeze(net)
    assert {param.grad_req for param in net.collect_params().values()} == {"null"}
    unfreeze(net)
    assert [param.grad_req for param in net.collect_params().values()] == before


def test_early_layers_learn_more_slowly():
    net = trained(cifar_resnet(8))
    layer_lr(net, 2)
    stem, *stages, _, head = net
    for part, factor in zip([head, *reversed(stages), stem], [1, 2, 4, 8, 16], strict=True):
        assert {p.lr_mult for p in part.collect_params().values()} == {1 / factor}
    layer_lr(net, 1)
    assert {p.lr_mult for p in net.collect_params().values()} == {1}
    for factor in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"is positive.*freeze\(features\(net\)\)"):
            layer_lr(net, factor)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("pre-activation", [4, 3, 2, 1, 1]),
        ("small", [2, 2, 1]),
        ("model_zoo, version 2", [5, 5, 4, 3, 2, 1, 1]),  # one stands before the convolution
    ],
)
def test_a_lone_batch_norm_is_no_step(name, steps):
    net = trained(NETWORKS[name](), (2, 3, 32, 32))
    layer_lr(net, 2)
    body, _ = transfer._body_and_head(net)
    parts = [part.collect_params().values() for part in body]
    rates = [{p.lr_mult for p in params} for params in parts if params]
    assert rates == [{2**-step} for step in steps]


def test_a_step_is_divided_by_the_factor():
    net, X = trained(cifar_resnet(8)), np.random.normal(size=(4, 1, 8, 8))
    layer_lr(net, 10)
    with autograd.record():
        Y = net(X)
    Y.backward()
    before = net[1].collect_params()
    weight = next(p for name, p in before.items() if name.endswith("weight"))
    expected = weight.data() - 0.1 * 10**-3 * weight.grad() / 4
    gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}).step(4)
    assert abs(weight.data() - expected).max() < 1e-6


def test_a_new_head_learns_other_names(stripes):
    net, renamed = small_resnet((8, 16), num_classes=2), stripes()
    renamed.labels = 2 - renamed.labels
    net.initialize(mx.init.Xavier())
    train(net, stripes(), stripes(), 6, 0.1, precision="float32")
    new = replace_head(net, 3)
    freeze(features(new))
    before = values(features(new))
    history = fine_tune(new, renamed, renamed, 4, 0.5, precision="float32")
    assert history.test_acc[-1] == 1 and all(same(before, values(features(new))))
    assert history.run["layer_lr"] == 2 and history.run["momentum"] == 0.9
    assert history.run["scheduler"] == "CosineScheduler"
    unfreeze(new)
    plain = {"optimizer": "adam", "optimizer_params": {}, "precision": "float32"}
    history = fine_tune(new, renamed, renamed, 1, 1e-3, factor=3, **plain)
    assert not all(same(before, values(features(new))))
    assert history.run["optimizer"] == "adam" and "momentum" not in history.run


def test_what_train_refuses_is_refused(stripes):
    net = trained(small_resnet((4, 8)))
    for num_epochs in (0, 2.0):
        words = f"num_epochs is a whole number of at least 1, got {num_epochs}"
        with pytest.raises(ValueError, match=words):
            fine_tune(net, stripes(), stripes(), num_epochs, 0.1)
    with pytest.raises(ValueError, match="the learning rate must be a positive number"):
        fine_tune(net, stripes(), stripes(), 1, -0.1)


# --- the experiment


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
        return trained(net, (2, 3, 8, 8)) if pretrained else net

    monkeypatch.setattr(experiment, "load_data_cifar10", load)
    monkeypatch.setattr(experiment, "narrow_resnet18", build)
    monkeypatch.setattr(experiment, "NUM_TRAIN", (20,))
    monkeypatch.setattr(experiment, "RATES", (1e-6, 0.1))
    return lambda: experiment.transfer_experiment(tmp_path / "t.json", num_steps=3, num_seeds=2)


def test_the_learning_rate_is_chosen_on_validation_images(few, tmp_path):
    trials = few()
    assert json.loads((tmp_path / "t.json").read_text())["trials"] == trials
    for i, method in enumerate(experiment.METHODS):
        chosen, final = trials[4 * i :][:2], trials[4 * i + 2 :][:2]
        assert {trial["method"] for trial in chosen + final} == {method}
        assert [(t["images"], t["seed"]) for t in chosen] == [("validation", 0)] * 2
        assert [(t["images"], t["seed"]) for t in final] == [("test", 0), ("test", 1)]
        best = max(chosen, key=lambda trial: trial["acc"])
        assert {trial["lr"] for trial in final} == {best["lr"]}
    assert len(trials) == 12 and {trial["num_train"] for trial in trials} == {20}


def test_a_transfer_that_was_interrupted_goes_on(few, monkeypatch, tmp_path):
    learned, calls = experiment._learned, []

    def stop_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learned(*args)

    monkeypatch.setattr(experiment, "METHODS", ("fine-tuning",))
    monkeypatch.setattr(experiment, "_learned", stop_at_the_third)
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
    drawn = [experiment._few(pool, 20, seed, num_steps=12) for seed in (0, 0, 1)]
    assert [len(data) for data in drawn] == [12] * 3
    for data in drawn:
        used, counts = onp.unique(data.images[:, 0], return_counts=True)
        assert len(used) == 20 and set(counts) == {3}
        assert onp.bincount(used // 10).tolist() == [2] * 10
        assert (data.labels == data.images[:, 0].squeeze() // 10).all()
    assert (drawn[0].images == drawn[1].images).all() and (drawn[0].images != drawn[2].images).any()


def test_no_class_of_cifar10_was_seen_before():
    assert not {*CIFAR10_LABELS} & {*CIFAR100_LABELS}
