"""Networks to compile, and how they are compared."""

import json

import mxnet as mx
import networks
import pytest
from mxnet import autograd, np, npx
from mxnet.gluon import nn
from networks import in_a_row

from d2lres import cifar_resnet, compile, resnet18, resnet_block
from d2lres.runtime import machine

NETWORKS = {
    "resnet18": (resnet18, (8, 1, 40, 40)),
    "cifar_resnet20": (lambda: cifar_resnet(20), (8, 3, 24, 24)),
    "cifar_resnet56": (lambda: cifar_resnet(56), (4, 3, 16, 16)),
    "cifar_resnet14, preact": (lambda: cifar_resnet(14, preact=True), (4, 3, 16, 16)),
}
PRECISIONS = [
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(not machine.has_bfloat16(), reason="no AVX-512 for bfloat16"),
    ),
]


def initialized(net, shape):
    networks.initialized(net, shape)
    for param in net.collect_params().values():  # as after some training: nothing is 0 or 1
        if param.name.endswith(("gamma", "running_var")):
            param.set_data(np.random.uniform(0.5, 1.5, size=param.shape))
        elif param.name.endswith(("beta", "running_mean")):
            param.set_data(np.random.uniform(-0.2, 0.2, size=param.shape))
    return net


def small_net():
    blocks = resnet_block(16, 1, first_block=True), resnet_block(32, 1)
    end = nn.GlobalAvgPool2D(), nn.Dense(3)
    return initialized(in_a_row(nn.Conv2D(16, 3, padding=1), *blocks, *end), (2, 1, 16, 16))


def difference(a, b):
    """The largest difference, in units of the largest value."""
    return float(abs(a - b).max() / abs(b).max())


def outputs_and_gradients(net, params, X, train_mode=True, backward_mode=True):
    """The output, and the gradients of the images and of parameters."""
    X.attach_grad()
    mx.random.seed(0)  # all drop the same
    with autograd.record(train_mode):
        Y = net(X).reshape(len(X), -1)
        total = (Y * np.arange(Y.shape[1], dtype=X.dtype)).sum()
    total.backward(train_mode=backward_mode)
    return Y, [X.grad.copy(), *(p.grad().copy() for p in params)]


def in_float64(net, params, X, **modes):
    """The same, computed without oneDNN: as a graph, as the blocks themselves ask for float32."""
    net.cast("float64")
    net.hybridize()
    Y, gradients = outputs_and_gradients(net, params, X.astype("float64"), **modes)
    net.hybridize(False)
    net.cast("float32")
    return Y, gradients


def trainable(net):
    """All but the biases before a batch norm: their gradient is zero but for rounding."""
    names = [p for p in net.collect_params().values() if p.grad_req != "null"]
    return [p for p in names if "conv" not in p.name or p.name.endswith("weight")]


def restored(net):
    """Return a function that gives a network the parameters that it has now."""
    state = [(p, p.data().copy()) for p in net.collect_params().values()]
    return lambda: [p.set_data(value) for p, value in state]


MODES = [
    {"train_mode": train_mode, "backward_mode": backward_mode}
    for train_mode in (True, False)
    for backward_mode in (True, False)
]


def assert_same_gradients(net, X):
    """Compare with the largest gradient of all: that of a bias before a batch norm is rounding.

    Rounding reaches 2e-5 of it, with AVX-512; wrong gradients were off by a tenth and more. Outside
    of training oneDNN's gradient of the largest pixel is a random one's: there float64 counts.
    """
    params = [p for p in net.collect_params().values() if p.grad_req != "null"]
    restore, expected = restored(net), []
    for modes in MODES:
        compute = outputs_and_gradients if modes["train_mode"] else in_float64
        expected.append([compute(net, params, X, **modes), averages(net)])
        restore()
    Y = net(X)
    fast = compile(net, X, "float32")
    for modes, ((Y_plain, gradients), moved) in zip(MODES, expected, strict=True):
        Y_fast, fast_gradients = outputs_and_gradients(fast, params, X, **modes)
        assert difference(Y_fast, Y_plain.astype("float32")) <= 1e-5
        scale = max(float(abs(gradient).max()) for gradient in gradients)
        for fast_gradient, gradient in zip(fast_gradients, gradients, strict=True):
            assert abs(fast_gradient - gradient.astype("float32")).max() <= 1e-4 * scale, modes
        assert all(map(same, averages(net), moved)), modes
        restore()
    assert difference(fast(X), Y) <= 1e-5
    return fast


def averages(net):
    """The running averages of batch normalization, once a step has moved them."""
    npx.waitall()
    return [p.data().copy() for name, p in net.collect_params().items() if "running" in name]


def same(a, b):
    return bool(abs(a - b).max() <= 1e-5)


def operators(fast, kind="training"):
    """The operators of the graph by which a compiled network computes."""
    (graph,) = (graph for (of_kind, *_), graph in fast._graphs.items() if of_kind == kind)
    return [node["op"] for node in json.loads(graph.run._cached_graph[1].tojson())["nodes"]]
