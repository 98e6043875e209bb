"""A compiled network: the same as the plain one, whatever happens to either."""

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import mxnet as mx
import psutil
import pytest
from comparing import (
    PRECISIONS,
    assert_same_gradients,
    averages,
    difference,
    in_float64,
    initialized,
    outputs_and_gradients,
    restored,
    small_net,
    trainable,
)
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn
from networks import imported, in_a_row

from d2lres import Residual, cifar_resnet, compile
from d2lres.compiler import compiled
from d2lres.runtime import machine


@pytest.fixture
def small():
    """A small network, a batch, and the network compiled for it."""
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    return net, X, compile(net, X, "float32")


@pytest.mark.slow
def test_float32_errs_no_more_than_the_network_itself(network):
    """Sums are rounded in another order: both are compared with the exact result, in float64."""
    net, X = network
    params, restore = trainable(net), restored(net)
    plain = outputs_and_gradients(net, params, X)
    restore()
    fast = compile(net, X, "float32")
    is_reordered = "matrix products" in repr(fast)
    fast = outputs_and_gradients(fast, params, X)
    restore()
    if not is_reordered:
        assert difference(fast[0], plain[0]) <= 1e-6
        assert max(map(difference, fast[1], plain[1])) <= 1e-5
    exact = in_float64(net, params, X)
    for kind in ([[r[0]] for r in (plain, fast, exact)], [r[1] for r in (plain, fast, exact)]):
        error = max(map(difference, kind[0], kind[2]))
        assert max(map(difference, kind[1], kind[2])) <= max(2 * error, 1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inference_is_the_same(network, precision):
    net, X = network
    fast, exact = compile(net, X, precision), net(X)
    tolerance = {"float32": 5e-6, "bfloat16": 0.05}[precision]
    assert difference(fast(X), exact) <= tolerance
    assert difference(fast(X[:3]), exact[:3]) <= tolerance


@pytest.mark.parametrize("precision", PRECISIONS)
def test_three_steps_of_training(network, precision):
    net, X = network
    y, loss = np.arange(len(X)) % 10, gluon.loss.SoftmaxCrossEntropyLoss()
    restore, results = restored(net), []
    for step_by in (net, compile(net, X, precision)):
        restore()
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 2e-4})
        for _ in range(3):
            with autograd.record():
                l = loss(step_by(X), y)
            l.backward()
            trainer.step(len(X))
        results.append([l.copy(), *(p.data().copy() for p in trainable(net))])
    plain, fast = results
    tolerance = {"float32": 1e-3, "bfloat16": 0.1}[precision]
    assert abs(fast[0] - plain[0]).max() <= tolerance * abs(plain[0]).max()
    assert max(map(difference, fast[1:], plain[1:])) <= tolerance


@pytest.mark.skipif(not machine.has_bfloat16(), reason="this processor has no AVX-512")
def test_bfloat16_keeps_float32_parameters_and_gradients():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    Y, gradients = outputs_and_gradients(compile(net, X, "bfloat16"), trainable(net), X)
    assert Y.dtype == "float32" and all(g.dtype == "float32" for g in gradients)
    exact, _ = outputs_and_gradients(net, trainable(net), X)
    assert 0 < difference(Y, exact) < 0.05


def test_to_train_it_is_to_train_the_network(small, tmp_path):
    net, X, fast = small
    trainer = gluon.Trainer(fast.collect_params(), "sgd", {"learning_rate": 0.1})
    before = net[0].weight.data().copy()
    outputs_and_gradients(fast, [], X)
    trainer.step(4)
    assert (net[0].weight.data() != before).any()
    net.save_parameters(str(tmp_path / "net.params"))
    other = small_net()
    other.load_parameters(str(tmp_path / "net.params"))
    assert difference(other(X), fast(X)) <= 5e-6


def test_frozen_parameters_stay(small):
    net, X, fast = small
    net[0].collect_params().setattr("grad_req", "null")
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    before = [p.data().copy() for p in (net[0].weight, net[4].weight)]
    outputs_and_gradients(fast, [], X)
    trainer.step(4)
    assert (net[0].weight.data() == before[0]).all()
    assert (net[4].weight.data() != before[1]).any()


def test_two_batches_before_their_gradients():
    """The memory that a graph keeps from batch to batch is not taken from the first of them."""
    net = small_net()
    batches, params = np.random.uniform(size=(2, 4, 1, 16, 16)), trainable(net)
    fast, results = compile(net, batches[0], "float32"), []
    for step_by in (net, fast):
        with autograd.record():
            total = sum((step_by(X) * np.arange(3)).sum() for X in batches)
        total.backward()
        results.append([p.grad().copy() for p in params])
    assert max(map(difference, *results)) <= 1e-5


# --- never the wrong graph


class Dropping(nn.HybridBlock):
    """Asks in Python whether it is training."""

    def hybrid_forward(self, F, X):
        return X * 2 if autograd.is_training() else X


SCOPES = {
    "training alone": [autograd.train_mode],
    "prediction in training": [autograd.record, autograd.predict_mode],
    "a pause": [autograd.record, autograd.pause],
    "a pause in training": [autograd.record, lambda: autograd.pause(train_mode=True)],
    "recording in prediction": [autograd.predict_mode, autograd.record],
    "recording without training": [lambda: autograd.record(train_mode=False)],
    "training in recording without": [
        lambda: autograd.record(train_mode=False),
        autograd.train_mode,
    ],
}


@pytest.mark.parametrize("name", SCOPES)
def test_what_autograd_says_counts(name):
    net = small_net()
    net.add(Dropping(), nn.Dropout(0.5))
    X, restore, results = np.random.uniform(size=(4, 1, 16, 16)), restored(net), []
    for called in (net, compile(net, X, "float32")):
        restore()
        mx.random.seed(0)
        with contextlib.ExitStack() as stack:
            for scope in SCOPES[name]:
                stack.enter_context(scope())
            results.append([called(X).copy(), *averages(net)])
    assert max(map(difference, *results)) <= 1e-5


def test_gradients_outside_of_training_are_float32(pretended_bfloat16, monkeypatch):
    """The ways to train in bfloat16 do not all have gradients there."""
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    fast, params = compile(net, X, "bfloat16"), trainable(net)
    monkeypatch.setattr(compiled, "in_bfloat16", lambda symbol, *args: symbol * 2)
    for backward_mode in (True, False):
        modes = {"train_mode": False, "backward_mode": backward_mode}
        Y, gradients = outputs_and_gradients(net, params, X, **modes)
        Y_fast, fast_gradients = outputs_and_gradients(fast, params, X, **modes)
        assert max(map(difference, [Y_fast, *fast_gradients], [Y, *gradients])) <= 1e-5


SWITCHED = """
from comparing import assert_same_gradients, initialized, small_net
from mxnet import np
from mxnet.gluon import nn
net, X = nn.HybridSequential(), np.random.uniform(size=(4, 1, 16, 16))
net.add(nn.MaxPool2D(2), small_net(), nn.Dense(4))
assert_same_gradients(initialized(net, X.shape), X)
print("the same")
"""


SWITCHES = [  # the first ends in a segmentation fault if the graph is rewritten
    "MXNET_MKLDNN_ENABLED=0",
    "DNNL_MAX_CPU_ISA=SSE41",
    "DNNL_MAX_CPU_ISA=AVX",
    "MXNET_ENGINE_TYPE=NaiveEngine MXNET_SUBGRAPH_BACKEND=MKLDNN",
    "MXNET_SUBGRAPH_BACKEND=NONE MXNET_SUBGRAPH_VERBOSE=1 MXNET_CPU_WORKER_NTHREADS=4",
    "MXNET_EXEC_BULK_EXEC_TRAIN=0 MXNET_EXEC_BULK_EXEC_INFERENCE=0 MXNET_EXEC_NUM_TEMP=4",
    "MXNET_EXEC_ENABLE_INPLACE=false MXNET_EXEC_INPLACE_GRAD_SUM_CAP=2",
    "MXNET_EXEC_ENABLE_ADDTO=1 MXNET_BACKWARD_DO_MIRROR=1 MXNET_MEMORY_OPT=1",
    "MXNET_DISABLE_MKLDNN_CONV_OPT=1 MXNET_DISABLE_MKLDNN_FC_OPT=1 MXNET_MKLDNN_CACHE_NUM=2",
    "MXNET_DISABLE_MKLDNN_FUSE_CONV_BN=1 MXNET_DISABLE_MKLDNN_FUSE_FC_ELTWISE=1",
    "MXNET_DISABLE_MKLDNN_FUSE_CONV_RELU=1 MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM=1",
]
OF_FAULTS = [pytest.param(switches, marks=pytest.mark.faults) for switches in SWITCHES[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("switches", SWITCHES[:1] + OF_FAULTS)
def test_what_is_switched_on_in_mxnet_changes_nothing(switches):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}
    env |= dict(switch.split("=") for switch in switches.split())
    command = [sys.executable, "-c", SWITCHED]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.endswith("the same\n"), run.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_each_image_size():
    net = initialized(cifar_resnet(8), (8, 3, 32, 32))
    fast = compile(net, np.ones((8, 3, 32, 32)), "float32")

    def step(size):
        with autograd.record():
            Y = fast(np.ones((8, 3, size, size)))
        Y.backward()
        fast(np.ones((8, 3, size, size)))

    for size in (32, 96):
        step(size)
    before = resident_megabytes()
    for size in range(40, 88, 4):
        step(size)
    # as a hybridized network, which grows by 60; with memory of its own for each size it was 460
    assert resident_megabytes() - before < 150
    assert len({*fast._graphs.values()}) <= 4  # of the size compiled for, and of all others


def resident_megabytes():
    npx.waitall()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (7, 1, 16, 16), (4, 1, 24, 24), (4, 1, 5, 5)])
@pytest.mark.parametrize("training", [False, True])
def test_other_batches_than_the_one_traced(shape, training):
    net = small_net()
    fast, restore = compile(net, np.ones((4, 1, 16, 16)), "float32"), restored(net)
    X = np.random.uniform(size=shape)
    with autograd.record(train_mode=training):
        Y_fast = fast(X).copy()
    restore()
    with autograd.record(train_mode=training):
        Y = net(X)
    assert difference(Y_fast, Y) < 1e-5


@pytest.mark.parametrize("suffix", ["gamma", "beta", "running_mean", "weight", "bias"])
def test_a_parameter_set_after_the_first_inference(small, suffix):
    net, X, fast = small
    before = fast(X).copy()
    for name, param in net.collect_params().items():
        if name.endswith(suffix):
            low = -0.3 if suffix in ("running_mean", "weight") else 0.5
            param.set_data(np.random.uniform(low, 1, size=param.shape))
            exact = net(X)
            assert difference(fast(X), exact) < 5e-6, name
    assert difference(before, exact) > 0.01


CHANGES = {
    "averages that moved without a step": lambda _, X, fast: outputs_and_gradients(fast, [], X),
    "new weights": lambda net, *_: net.initialize(mx.init.Normal(0.1), force_reinit=True),
    "a layer exchanged": lambda net, *_: net._children.update({"1": nn.Activation("sigmoid")}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_first_inference(small, change):
    net, X, fast = small
    before = fast(X).copy()
    CHANGES[change](*small)
    assert difference(fast(X), net(X)) < 5e-6
    assert difference(before, net(X)) > 0.001


def test_a_layer_and_its_parameters_added_afterwards(small):
    net, X, fast = small
    fast(X)
    net.add(nn.Dense(7))
    net[5].initialize()
    assert fast(X).shape == (4, 7)
    assert difference(fast(X), net(X)) < 5e-6
    _, (_, gradient) = outputs_and_gradients(fast, [net[5].weight], X)
    assert abs(gradient).max() > 0


def test_compiling_twice_is_compiling_once(small):
    net, X, fast = small
    assert compile(fast, X, "float32").net is net


class Two(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return X, 2 * X


class Plain(nn.Block):
    def forward(self, X):
        return X


class Looking(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return X if X.shape[0] > 1 else -X


class Failing(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return X + unknown  # noqa: F821


def in_float16():
    net = small_net()
    net.cast("float16")
    return net


IMAGES = (2, 1, 16, 16)
REFUSED = {
    "another precision": (small_net, np.ones(IMAGES), "float16", ValueError, "not 'float16'"),
    "no hybrid block": (Plain, np.ones(IMAGES), "auto", TypeError, "a HybridBlock.*Plain"),
    "a class": (lambda: Plain, np.ones(IMAGES), "auto", TypeError, "a network.*Plain"),
    "values of X": (Looking, np.ones(IMAGES), "auto", TypeError, "trace Looking.*values of X"),
    "two outputs": (Two, np.ones(IMAGES), "auto", TypeError, "one array, but Two gives several"),
    "an error of its own": (Failing, np.ones(IMAGES), "auto", NameError, "'unknown'"),
    "16 bits": (in_float16, np.ones(IMAGES), "auto", TypeError, r"net.cast\('float32'\)"),
    "no weights": (lambda: nn.Dense(2), np.ones(IMAGES), "auto", RuntimeError, "initialize"),
    "bytes": (small_net, np.ones(IMAGES, "uint8"), "auto", ValueError, "uint8.* / 255"),
    "no batch": (small_net, np.ones(IMAGES[1:]), "auto", ValueError, r"\(1, 16, 16\).*X\[None\]"),
    "no images": (small_net, np.ones((0, 1, 16, 16)), "auto", ValueError, r"\(0, 1, 16, 16\)"),
    "two channels": (small_net, np.ones((2, 2, 16, 16)), "auto", ValueError, "batch of shape"),
    "a sentence": (small_net, "images", "auto", ValueError, "batch of images"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_compiled(what):
    build, X, precision, kind, words = REFUSED[what]
    with pytest.raises(kind, match=words):
        compile(build(), X, precision)


@pytest.mark.parametrize("convert", [np.ndarray.asnumpy, np.ndarray.as_nd_ndarray])
def test_arrays_of_others(small, convert):
    net, X, _ = small
    assert difference(compile(net, convert(X), "float32")(X), net(X)) <= 5e-6


class WithSpare(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.dense, self.spare = nn.Dense(3), nn.Dense(4)

    def hybrid_forward(self, F, X):
        return self.dense(X)


def test_a_layer_that_is_never_called_is_not_blamed_on_the_batch():
    net, X = WithSpare(), np.ones((2, 1, 4, 4))
    net.initialize()
    with pytest.raises(gluon.parameter.DeferredInitializationError):
        compile(net, X, "float32")(X)


def test_errors_of_a_block_come_through():
    net = Residual(6)
    net.initialize()
    with pytest.raises(ValueError, match="use_1x1conv"):
        compile(net, np.ones((1, 3, 4, 4)), "float32")
    fast = compile(net, np.ones((4, 6, 16, 16)), "float32")
    with pytest.raises(ValueError, match=r"X\[None\]"):
        fast(np.ones((6, 16, 16)))
    with pytest.raises(TypeError, match="float32 images, but got int32"):
        fast(np.ones((4, 6, 16, 16), dtype="int32"))


def test_a_failed_call_on_a_changed_network_leaves_it_usable(small):
    net, X, fast = small
    net.add(nn.Conv2D(3, 3, in_channels=3))
    net[5].initialize()
    with pytest.raises(ValueError, match="takes no batch of shape"):
        fast(X)
    assert "compiled for batches of shape (4, 1, 16, 16)" in repr(fast)
    del net._children["5"]
    assert difference(fast(X), net(X)) <= 5e-6


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # of the images, says MXNet
def test_an_imported_network_alone_and_as_a_part(tmp_path):
    X = np.random.uniform(size=(4, 1, 16, 16))
    net = imported(small_net(), X, tmp_path)
    assert_same_gradients(net, X)
    whole = in_a_row(net, nn.Dense(5))
    whole[1].initialize()
    assert difference(compile(whole, X, "float32")(X), whole(X)) <= 5e-6


def test_forward_hooks_are_not_called_and_do_not_fail():
    net, X, seen = small_net(), np.random.uniform(size=(4, 1, 16, 16)), []
    handle = net[1].register_forward_hook(lambda block, inputs, Y: seen.append(Y.asnumpy()))
    with pytest.warns(UserWarning, match="hooks, as that of HybridSequential, are not called"):
        fast = compile(net, X, "float32")
    assert difference(fast(X), net(X)) <= 5e-6
    num_seen = len(seen)
    assert difference(fast(X), net(X)) <= 5e-6 and len(seen) == num_seen + 1
    handle.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(X)
