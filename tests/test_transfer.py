"""What a network has learned, put to another task."""

import copy

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision
from networks import in_a_row, initialized, values_of

from d2lres import (
    cifar_resnet,
    compile,
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
    initialized(net, shape)
    for param in net.collect_params(".*running_var").values():
        param.set_data(np.random.uniform(0.5, 1.5, size=param.shape))
    return net


def values(net):
    return values_of(net.collect_params())


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


@pytest.mark.slow
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
    body = in_a_row(nn.Conv2D(3, kernel_size=3))
    compiled = compile(trained(small_resnet((4, 8))), np.ones((2, 1, 8, 8)), "float32")
    for net in (body, nn.HybridSequential(), nn.Conv2D(3, kernel_size=3), compiled):
        for use in (features, lambda net: replace_head(net, 2), lambda net: layer_lr(net, 2)):
            with pytest.raises(TypeError, match="whose last layer is a dense one.*compiled from"):
                use(net)
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1"):
        replace_head(trained(small_resnet((4, 8))), 0)
    with pytest.raises(RuntimeError, match="not been initialized"):
        replace_head(small_resnet((4, 8)), 2)


def trainer_of(net):
    return gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})


def step(net, X, trainer):
    """Take a step of training; return the output."""
    with autograd.record():
        Y = net(X)
    Y.backward()
    trainer.step(len(X))
    mx.npx.waitall()
    return Y


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_frozen_stays(compiled):
    net, X = trained(cifar_resnet(8)), np.random.normal(size=(4, 1, 8, 8))
    fast = compile(net, X, "float32") if compiled else net
    with autograd.record():  # the graph from before is not the one that is needed later
        moving = fast(X)
    freeze(features(net))
    expected, before = net(X), [values(part) for part in (net[:-1], net[-1])]
    trainer = trainer_of(net)
    Y = step(fast, X, trainer)
    assert abs(Y - expected).max() < 1e-5 < abs(Y - moving).max()  # by the averages, in training
    assert all(same(before[0], values(net[:-1]))) and not any(same(before[1], values(net[-1])))
    unfreeze(net)
    Y = step(fast, X, trainer)
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


def requests(net):
    return [param.grad_req for param in net.collect_params().values()]


def by_averages(net):
    """Whether each batch normalization goes by its running averages."""
    found = []
    net.apply(lambda block: found.append(getattr(block, "_kwargs", {}).get("use_global_stats")))
    return [uses for uses in found if uses is not None]


@pytest.fixture
def mixed():
    """A network whose parts are to be trained differently, some not at all."""
    layers = nn.Conv2D(4, 3), nn.BatchNorm(use_global_stats=True), nn.BatchNormReLU()
    net = trained(in_a_row(*layers, nn.Conv2D(4, 3), nn.BatchNorm(), nn.Dense(2)))
    net[0].collect_params().setattr("grad_req", "null")
    net[5].weight.grad_req = "add"
    return net


@pytest.mark.parametrize(
    "steps",
    {
        "once": [freeze, unfreeze],
        "twice": [freeze, freeze, unfreeze],
        "unfrozen twice": [freeze, unfreeze, unfreeze],
        "a part, then all": [lambda net: freeze(net[:4]), freeze, unfreeze],
        "all, then a part": [freeze, lambda net: unfreeze(net[:4]), unfreeze],
        "a part": [lambda net: freeze(net[:4]), unfreeze],
        "again": [freeze, unfreeze, freeze, unfreeze],
    }.values(),
)
@pytest.mark.parametrize("copied", [False, True])
def test_unfreezing_trains_what_could_be_trained(mixed, steps, copied):
    before, *after = requests(mixed), by_averages(mixed)
    assert {"null", "write", "add"} == {*before} and after == [[True, False, False]]
    for step in steps:
        step(mixed)
        if step is freeze:
            assert {*requests(mixed)} == {"null"} and all(by_averages(mixed))
        mixed = copy.deepcopy(mixed) if copied else mixed
    assert requests(mixed) == before and [by_averages(mixed)] == after


def test_what_was_frozen_by_hand_can_be_unfrozen(mixed):
    mixed.collect_params().setattr("grad_req", "null")
    unfreeze(mixed)
    trained = {n.split("_")[-1]: p.grad_req for n, p in mixed.collect_params().items()}
    assert {n for n, request in trained.items() if request == "null"} == {"mean", "var"}
    assert by_averages(mixed) == [True, False, False]


@pytest.mark.parametrize("number", [int, float, onp.int64, onp.float32, onp.float64, np.array])
def test_early_layers_learn_more_slowly(number):
    net = trained(cifar_resnet(8))
    layer_lr(net, number(2))
    stem, *stages, _, head = net
    for part, factor in zip([head, *reversed(stages), stem], [1, 2, 4, 8, 16], strict=True):
        assert {p.lr_mult for p in part.collect_params().values()} == {1 / factor}
    assert {type(p.lr_mult) for p in net.collect_params().values()} == {float}
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
    weight = next(p for n, p in net[1].collect_params().items() if n.endswith("weight"))
    before = weight.data().copy()
    step(net, X, trainer_of(net))
    assert abs(weight.data() - (before - 0.1 * 10**-3 * weight.grad() / 4)).max() < 1e-6


def test_a_new_head_learns_other_names(stripes):
    net, renamed = initialized(small_resnet((8, 16), num_classes=2)), stripes()
    renamed.labels = 2 - renamed.labels
    train(net, stripes(), stripes(), 6, 0.1, precision="float32")
    new = replace_head(net, 3)
    freeze(features(new))
    before = values(features(new))
    history = fine_tune(new, renamed, renamed, 4, 0.5, precision="float32")
    assert history.test_acc[-1] == 1 and all(same(before, values(features(new))))
    assert history.run["layer_lr"] == 2 and history.run["momentum"] == 0.9
    assert history.run["scheduler"] == "CosineScheduler"
    unfreeze(new)
    for lr in onp.logspace(-3, -2, 2):
        fine_tune(new, renamed, renamed, onp.int64(1), lr, factor=onp.float32(2))
    plain = {"optimizer": "adam", "optimizer_params": {}, "precision": "float32"}
    history = fine_tune(new, renamed, renamed, 1, 1e-3, factor=3, **plain)
    assert not all(same(before, values(features(new))))
    assert history.run["optimizer"] == "adam" and "momentum" not in history.run


def test_what_train_refuses_is_refused(stripes):
    net = trained(small_resnet((4, 8)))
    good = {"train_iter": stripes(), "test_iter": stripes(), "num_epochs": 1, "lr": 0.1}
    for change, error, words in [
        ({"num_epochs": 0}, ValueError, "num_epochs must be a whole number .* 1, not 0"),
        ({"num_epochs": 2.0}, ValueError, "num_epochs must be a whole number .* 1, not 2.0"),
        ({"lr": -0.1}, ValueError, "the learning rate must be a positive number"),
        ({"train_iter": iter(stripes())}, TypeError, "train_iter must have a length"),
    ]:
        with pytest.raises(error, match=words):
            fine_tune(net, **good | change)
