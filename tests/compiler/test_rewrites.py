"""What is rewritten, and that it computes the same: in networks of every kind."""

import json
import os
import random
import subprocess
import sys

import mxnet as mx
import pytest
from comparing import (
    NETWORKS,
    assert_same_gradients,
    difference,
    initialized,
    operators,
    outputs_and_gradients,
)
from mxnet import np
from mxnet.gluon import nn
from networks import in_a_row

from d2lres import (
    BasicBlock,
    Bottleneck,
    PreActResidual,
    Residual,
    cifar_resnet,
    compile,
    freeze,
    resnet18,
)
from d2lres.compiler.rewrites import for_training, in_bfloat16, narrow_convolutions


@pytest.mark.slow
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PreActResidual])
def test_every_block_and_its_plain_twin(block, residual):
    net = in_a_row(
        nn.Conv2D(16, kernel_size=3, use_bias=False),
        block(64, 16, strides=2, shortcut="A", residual=residual),
        block(64, 64, residual=residual),
        block(128, 64, shortcut="B", residual=residual),
        nn.GlobalAvgPool2D(),
        nn.Dense(3),
    )
    X = np.random.uniform(size=(4, 3, 12, 12))
    training = operators(assert_same_gradients(initialized(net, X.shape), X))
    num_relus = 9 if block is Bottleneck else 6
    # a ReLU alone behind a sum, or a batch norm behind a sum with zeros for new channels
    not_fused = (2 if block is PreActResidual else 3) if residual else 0
    assert training.count("_contrib_BatchNormWithReLU") == num_relus - not_fused
    assert training.count("elemwise_add") == 3 * residual and "_npi_add" not in training


class Around(nn.HybridBlock):
    """Layers with a shortcut around them, which is the first operand of the sum or the second."""

    def __init__(self, layers, shortcut_first):
        super().__init__()
        self.body, self.shortcut_first = nn.HybridSequential(), shortcut_first
        self.body.add(*layers)

    def hybrid_forward(self, F, X):
        Y = self.body(X)
        return X + Y if self.shortcut_first else Y + X


class Parallel(nn.HybridBlock):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def hybrid_forward(self, F, X):
        return self.first(X) + self.second(X)


def normalized(*layers):
    """Put batch norm and ReLU behind each layer."""
    return [part for layer in layers for part in (layer, nn.BatchNorm(), nn.Activation("relu"))]


def conv(num_channels, window=3, padding=None, **kwargs):
    padding = window // 2 if padding is None else padding
    return nn.Conv2D(num_channels, window, padding=padding, **kwargs)


def begun(*layers):
    """Layers, each with batch norm and ReLU, before a block with a convolution on its shortcut."""
    end = Residual(16, use_1x1conv=True, strides=2), nn.GlobalAvgPool2D(), nn.Dense(5)
    return [*normalized(*layers), *end]


def ended(*layers, num_channels=16):
    """Layers before which there are a convolution, a batch norm and a ReLU."""
    return [*normalized(conv(num_channels)), *layers, nn.Dense(5)]


def chain(name):
    """What MXNet folds into a convolution before it."""
    layers = {
        "n": nn.BatchNorm,
        "r": lambda: nn.Activation("relu"),
        "c": lambda: nn.Conv2D(8, 1),
        "d": lambda: nn.Dropout(0.5),
    }
    return [layers[letter]() for letter in name]


LAYERS = {
    # the answers of these convolutions are in plain layout, on some processor
    **{f"{n} channels": lambda n=n: begun(conv(n)) for n in (6, 10, 20, 24)},
    "from 20 channels": lambda: begun(conv(20), conv(16)),
    "in groups": lambda: begun(conv(16), conv(16, groups=4)),
    "a large window": lambda: begun(conv(16, 9)),
    "much padding": lambda: begun(conv(16, padding=2)),
    "a sum of two": lambda: begun(Parallel(conv(16, 9), conv(16))),
    "a matrix product": lambda: begun(nn.MaxPool2D(3), Parallel(conv(16, 9), conv(16))),
    # the gradients that these hand back are in other blocks, on some processor
    "groups of 4": lambda: ended(conv(16, groups=4)),
    "groups of 8": lambda: ended(conv(32, groups=2)),
    "to 8 channels": lambda: ended(conv(8, 1)),
    "to 12 channels behind a pooling": lambda: ended(nn.MaxPool2D(2), conv(12)),
    "to 24 channels behind a sum": lambda: ended(Parallel(conv(24, 1), conv(24))),
    "around groups": lambda: ended(Around([conv(16, groups=4)], True)),
    # as in these, where something else takes the result of a dense layer
    **{
        f"a dense layer, {name} and another": lambda layer=layer: [
            nn.Dense(8),
            Parallel(layer(), nn.ELU()),
            nn.Dense(3),
        ]
        for name, layer in {
            "relu": lambda: nn.Activation("relu"),
            "tanh": lambda: nn.Activation("tanh"),
            "gelu": nn.GELU,
        }.items()
    },
    "a mean of one pixel, and another": lambda: [
        conv(16, 12, 0),
        Parallel(nn.GlobalAvgPool2D(), nn.Activation("relu")),
    ],
    # how a network ends
    **{
        f"{name} of {n} channels": lambda end=end, n=n: ended(*end(), num_channels=n)
        for n in (4, 16)
        for name, end in {
            "dense layers": lambda: normalized(nn.Dense(16)),
            "a mean by its window": lambda: [nn.AvgPool2D(12)],
            "a mean of one pixel": lambda: [nn.MaxPool2D(12), nn.GlobalAvgPool2D()],
            "the largest pixel": lambda: [nn.GlobalMaxPool2D()],
            "the largest pixel by its window": lambda: [nn.MaxPool2D(12)],
            "poolings down to a pixel": lambda: [nn.MaxPool2D(2) for _ in range(3)],
        }.items()
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_all_kinds(name):
    """What is rewritten in one place could be wrong, without a word, where it meets another."""
    X = np.random.uniform(-1, 1, size=(4, 3, 12, 12))
    assert_same_gradients(initialized(in_a_row(*LAYERS[name]()), X.shape), X)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("inside", ["n", "r", "nr", "nrc"])
@pytest.mark.parametrize("before", ["", "n", "r", "nr", "nrc", "d", "rd"])
def test_a_sum_takes_a_result_from_the_middle_of_a_folded_chain(before, inside, first):
    net = in_a_row(nn.Conv2D(8, 3), *chain(before), Around(chain(inside), first))
    X = np.random.uniform(-1, 1, size=(4, 3, 12, 12))
    assert_same_gradients(initialized(net, X.shape), X)


class Sum(nn.HybridBlock):
    def hybrid_forward(self, F, X, Y):
        return X + Y


class RandomNetwork(nn.HybridBlock):
    """Random layers, each of which takes one or two of the last three results."""

    KINDS = (
        lambda c: nn.Conv2D(c, 3, padding=1, in_channels=c),
        lambda c: nn.BatchNorm(in_channels=c),
        lambda c: nn.BatchNorm(in_channels=c, use_global_stats=True),
        lambda c: nn.Activation("relu"),
        lambda c: nn.MaxPool2D(3, strides=1, padding=1),
        lambda c: nn.Dropout(0.5),
        lambda c: Sum(),
        lambda c: Sum(),
    )

    def __init__(self, rng, num_channels, num_layers=10):
        super().__init__()
        self.layers, self.sources = nn.HybridSequential(), []
        for i in range(num_layers):
            self.layers.add(rng.choice(self.KINDS)(num_channels))
            num_inputs = 2 if isinstance(self.layers[-1], Sum) else 1
            self.sources.append(rng.choices(range(max(0, i - 2), i + 1), k=num_inputs))

    def hybrid_forward(self, F, X):
        results = [X]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            results.append(layer(*(results[i] for i in sources)))
        used = {i for sources in self.sources for i in sources}
        ends = [result for i, result in enumerate(results) if i not in used]
        return F.np.concatenate(ends, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_channels", [16, 12])
def test_random_networks(num_channels, seed):
    rng, X = random.Random(seed), np.random.uniform(-1, 1, size=(4, 3, 8, 8))
    net = in_a_row(nn.Conv2D(num_channels, 3), RandomNetwork(rng, num_channels))
    for layer in net[1].layers if seed % 2 else ():
        if rng.random() < 0.4:
            freeze(layer)
    assert_same_gradients(initialized(net, X.shape), X)


class BarelySaid(nn.HybridBlock):
    """Operators with nothing but what they cannot do without."""

    def __init__(self):
        super().__init__()
        self.weight = self.params.get("weight", shape=(16, 3, 3, 3))
        for name in ("gamma", "beta", "mean", "var"):
            init = "zeros" if name in ("beta", "mean") else "ones"
            grad_req = "null" if name in ("mean", "var") else "write"
            setattr(self, name, self.params.get(name, shape=(16,), init=init, grad_req=grad_req))

    def hybrid_forward(self, F, X, weight, **params):
        Y = F.npx.convolution(X, weight, kernel=(3, 3), num_filter=16, no_bias=True)
        Y = F.npx.batch_norm(Y, *(params[name] for name in ("gamma", "beta", "mean", "var")))
        return F.npx.pooling(F.npx.relu(Y), kernel=(2, 2))


def test_operators_with_their_defaults():
    X = np.random.uniform(-1, 1, size=(4, 3, 8, 8))
    assert_same_gradients(initialized(BarelySaid(), X.shape), X)


class Scaled(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return F.np.exp(X)


@pytest.mark.parametrize("first", [[], [Scaled()], [nn.Conv2D(16, 5, padding=2)]])
def test_batch_norm_of_images_in_plain_layout(first):
    """Fused with its ReLU before a convolution, it would compute wrong gradients without a word."""
    net = in_a_row(*first, nn.BatchNorm(), nn.Activation("relu"), conv(16))
    X = np.random.uniform(size=(4, 16, 3, 3))
    fast = assert_same_gradients(initialized(net, X.shape), X)
    assert "_contrib_BatchNormWithReLU" not in operators(fast)


def test_a_batch_norm_over_another_axis_is_not_folded():
    """Of as many columns as channels nothing would tell the one from the other."""
    X = np.random.uniform(size=(4, 3, 12, 12))
    net = in_a_row(conv(12), nn.BatchNorm(axis=3), nn.Activation("relu"))
    assert difference(compile(initialized(net, X.shape), X, "float32")(X), net(X)) <= 5e-6


def test_what_is_rewritten_for_training():
    net, shape = resnet18(), (2, 1, 28, 28)
    fast = compile(initialized(net, shape), np.ones(shape), "float32")
    ops = operators(fast)
    assert not {"_npx_relu", "_npi_add", "Pooling_global"} & set(ops)
    assert ops.count("_contrib_BatchNormWithReLU") == 9 and ops.count("elemwise_add") == 8
    assert ops.count("Convolution") == 20 - 7 and ops.count("FullyConnected") == 1 + 7
    assert "7 convolutions as matrix products" in repr(fast)


def test_what_is_folded_for_inference():
    net, shape = cifar_resnet(20), (2, 3, 32, 32)
    fast = compile(initialized(net, shape), np.ones(shape), "float32")
    fast(np.ones(shape))
    ops = operators(fast, "folded")
    assert ops.count("_sg_mkldnn_conv") == 21
    assert not {"BatchNorm", "Activation", "elemwise_add", "Convolution"} & set(ops)


def test_a_mean_of_one_pixel_is_left_out_of_inference():
    net, shape = resnet18(), (2, 1, 28, 28)
    fast = compile(initialized(net, shape), np.ones(shape), "float32")
    fast(np.ones(shape))
    assert operators(fast, "folded").count("Pooling") == 1  # behind the stem


@pytest.mark.parametrize(
    ("name", "num_heavy", "min_channels", "num_exact"),
    [("resnet18_28", 21, 4, 1), ("cifar_resnet20", 22, 4, 1), ("cifar_resnet20", 22, 17, 9)],
)
def test_what_is_computed_in_bfloat16(name, num_heavy, min_channels, num_exact):
    """As the types in the graph say, which needs no processor that can run it."""
    build, shape = (NETWORKS | {"resnet18_28": (resnet18, (2, 1, 28, 28))})[name]
    symbol = initialized(build(), shape)(mx.sym.var("data", dtype="float32").as_np_ndarray())
    exact = narrow_convolutions(symbol, shape, min_channels)
    assert len(exact) == num_exact
    rewritten, _ = for_training(symbol, shape, fused=False)
    inner = in_bfloat16(rewritten, exact).get_internals()
    arguments, outputs, _ = inner.infer_type(data="float32")
    types = dict(zip(inner.list_outputs(), map(str, outputs), strict=True))
    ops = {n["name"]: n["op"] for n in json.loads(rewritten.tojson())["nodes"]}
    heavy = [n for n, op in ops.items() if op in ("Convolution", "FullyConnected")]
    narrow = {n for n in heavy if "bfloat16" not in types[f"{n}_output"]}
    assert narrow == set(exact) and len(heavy) == num_heavy
    assert "bfloat16" not in str(arguments)  # the parameters
    assert "bfloat16" not in types[inner.list_outputs()[-1]]


@pytest.mark.parametrize(
    ("kernel", "padding", "strides", "size", "as_product"),
    [
        (3, 1, 1, 1, True),
        (3, 1, 1, 2, True),
        (3, 1, 2, 2, True),
        (3, 1, 1, 3, False),
        (3, 0, 1, 3, True),
        (5, 2, 1, 3, True),
        (5, 2, 2, 3, True),
        (1, 0, 1, 1, True),
        (1, 0, 1, 2, False),
        (3, 2, 1, 2, False),  # a window that misses the first row
    ],
)
def test_convolutions_as_matrix_products(kernel, padding, strides, size, as_product):
    X = np.random.normal(size=(4, 3, size, size))
    net = initialized(in_a_row(nn.Conv2D(5, kernel, strides, padding)), X.shape)
    net[0].bias.set_data(np.random.normal(size=5))
    fast, params = compile(net, X, "float32"), list(net.collect_params().values())
    assert ("FullyConnected" in operators(fast)) == as_product
    Y_fast, fast_gradients = outputs_and_gradients(fast, params, X)
    Y, gradients = outputs_and_gradients(net, params, X)
    assert max(map(difference, [Y_fast, *fast_gradients], [Y, *gradients])) <= 2e-6
    assert difference(fast(X), net(X)) <= 2e-6


STEPS = """
import itertools
from mxnet import autograd, gluon, np, npx
from d2lres import cifar_resnet, compile, resnet18
from d2lres.runtime.machine import has_bfloat16
loss = gluon.loss.SoftmaxCrossEntropyLoss()
networks = [
    (resnet18(), (4, 1, 96, 96)),
    (resnet18(), (16, 1, 28, 28)),
    (cifar_resnet(20), (16, 3, 32, 32)),
    (cifar_resnet(56), (8, 3, 32, 32)),
]
precisions = ["float32", "bfloat16"] if has_bfloat16() else ["float32"]
for (net, shape), precision in itertools.product(networks, precisions):
    net.initialize(force_reinit=True)
    X, y = np.random.uniform(size=shape), np.zeros(shape[0])
    fast = compile(net, X, precision)
    print("weights", flush=True)
    for param in net.collect_params().values():
        param.data() * 2
    npx.waitall()
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    for step in ("first", "second"):
        print(step, "step", flush=True)
        with autograd.record():
            l = loss(fast(X), y)
        l.backward()
        trainer.step(len(X))
        npx.waitall()
"""


@pytest.fixture(scope="module")
def said():
    """What oneDNN says of each primitive of two steps: what runs it, and for how long."""
    env = os.environ | {"DNNL_VERBOSE": "1"}
    return subprocess.check_output([sys.executable, "-c", STEPS], env=env, text=True)


@pytest.mark.slow
def test_a_network_that_was_compiled_has_its_weights_in_plain_layout(said):
    """For an optimizer, and matrices made of them, to read without a copy."""
    assert "reorder" in said
    for of_network in said.split("weights\n")[1:]:
        assert "reorder" not in of_network.split("first step")[0]


@pytest.mark.slow
def test_no_reference_code_in_a_step(said):
    """``ref`` is the slow spare of oneDNN.

    But not of a sum: of arrays in two layouts its ``ref`` is made of fast reorders.
    """
    for of_network in said.split("second step")[1:]:
        lines = [line.split(",") for line in of_network.split("first step")[0].splitlines()]
        run = [line for line in lines if line[:2] == ["dnnl_verbose", "exec"]]
        took = [(*line[3:5], float(line[-1])) for line in run]
        by_reference = [ms for what, by, ms in took if what != "sum" and by.startswith("ref")]
        assert len(took) > 100
        assert sum(by_reference) < 0.01 * sum(ms for *_, ms in took)


class Broadcasting(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return F.npx.relu(X + F.np.mean(X, axis=(2, 3), keepdims=True))


def test_a_sum_that_broadcasts_stays_one():
    net = Broadcasting()
    net.initialize()
    X = np.random.uniform(size=(2, 3, 4, 4))
    assert difference(compile(net, X, "float32")(X), net(X)) < 1e-6
    small = X[:, :, :1, :1]  # of this size both terms are of one shape
    fast = compile(net, small, "float32")
    assert difference(fast(X), net(X)) < 1e-6
