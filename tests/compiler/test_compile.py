import json
import os
import random
import subprocess
import sys

import mxnet as mx
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from d2lres import (
    BasicBlock,
    Bottleneck,
    PreActResidual,
    Residual,
    cifar_resnet,
    compile,
    resnet18,
    resnet_block,
    runtime,
)
from d2lres.compiler.rewrites import for_training, in_bfloat16, narrow_convolutions

NETWORKS = {
    "resnet18": (resnet18, (16, 1, 40, 40)),
    "cifar_resnet20": (lambda: cifar_resnet(20), (16, 3, 24, 24)),
    "cifar_resnet56": (lambda: cifar_resnet(56), (16, 3, 16, 16)),
    "cifar_resnet14, preact": (lambda: cifar_resnet(14, preact=True), (16, 3, 16, 16)),
}
PRECISIONS = [
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(
            not runtime.has_bfloat16(), reason="this processor has no AVX-512 for bfloat16"
        ),
    ),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network with weights, and a batch for it."""
    build, shape = NETWORKS[request.param]
    return initialized(build(), shape), np.random.uniform(size=shape)


def initialized(net, shape):
    net.initialize(mx.init.Xavier())
    net(np.ones(shape))
    for param in net.collect_params().values():  # as after some training: nothing is 0 or 1
        if param.name.endswith(("gamma", "running_var")):
            param.set_data(np.random.uniform(0.5, 1.5, size=param.shape))
        elif param.name.endswith(("beta", "running_mean")):
            param.set_data(np.random.uniform(-0.2, 0.2, size=param.shape))
    return net


def small_net():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(16, kernel_size=3, padding=1),
        resnet_block(16, 1, first_block=True),
        resnet_block(32, 1),
        nn.GlobalAvgPool2D(),
        nn.Dense(3),
    )
    return initialized(net, (2, 1, 16, 16))


def difference(a, b):
    """The largest difference, in units of the largest value."""
    return float(abs(a - b).max() / abs(b).max())


def outputs_and_gradients(net, params, X, dtype="float32"):
    with autograd.record():
        Y = net(X).reshape(len(X), -1)
        total = (Y * np.arange(Y.shape[1], dtype=dtype)).sum()
    total.backward()
    return Y, [p.grad().copy() for p in params]


def trainable(net):
    """All but the biases before a batch norm: their gradient is zero but for rounding."""
    names = [p for p in net.collect_params().values() if p.grad_req != "null"]
    return [p for p in names if "conv" not in p.name or p.name.endswith("weight")]


def restored(net):
    """Return a function that gives a network the parameters that it has now."""
    state = [(p, p.data().copy()) for p in net.collect_params().values()]
    return lambda: [p.set_data(value) for p, value in state]


# --- the same network


def test_float32_errs_no_more_than_the_network_itself(network):
    """Sums are rounded in another order: both are compared with the exact result, in float64."""
    net, X = network
    params, restore = trainable(net), restored(net)
    plain = outputs_and_gradients(net, params, X)
    restore()
    fast = outputs_and_gradients(compile(net, X, "float32"), params, X)
    restore()
    net.cast("float64")
    net.hybridize()  # as a graph: the blocks themselves ask for float32
    exact = outputs_and_gradients(net, params, X.astype("float64"), "float64")
    for kind in ([[r[0]] for r in (plain, fast, exact)], [r[1] for r in (plain, fast, exact)]):
        error = max(map(difference, kind[0], kind[2]))
        assert max(map(difference, kind[1], kind[2])) <= max(2 * error, 1e-6)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet56"])
def test_float32_within_a_millionth(name):
    build, shape = NETWORKS[name]
    net, X = initialized(build(), shape), np.random.uniform(size=shape)
    params, restore = trainable(net), restored(net)
    Y, gradients = outputs_and_gradients(net, params, X)
    restore()
    Y_fast, fast_gradients = outputs_and_gradients(compile(net, X, "float32"), params, X)
    assert difference(Y_fast, Y) <= 1e-6
    assert max(map(difference, fast_gradients, gradients)) <= 1e-5


def assert_same_as_compiled(net, X):
    params, restore = trainable(initialized(net, X.shape)), restored(net)
    Y, gradients = outputs_and_gradients(net, params, X)
    restore()
    fast = compile(net, X, "float32")
    Y_fast, fast_gradients = outputs_and_gradients(fast, params, X)
    assert difference(Y_fast, Y) <= 1e-6
    assert max(map(difference, fast_gradients, gradients)) <= 1e-5
    restore()
    assert difference(fast(X), net(X)) <= 5e-6
    return [operators(graph) for graph in fast._graphs.by_key.values()]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PreActResidual])
def test_every_block_and_its_plain_twin(block, residual):
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(16, kernel_size=3, use_bias=False),
        block(64, 16, strides=2, shortcut="A", residual=residual),
        block(64, 64, residual=residual),
        block(128, 64, shortcut="B", residual=residual),
        nn.GlobalAvgPool2D(),
        nn.Dense(3),
    )
    training, _ = assert_same_as_compiled(net, np.random.uniform(size=(4, 3, 12, 12)))
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


CHAINS = {
    "batch norm": lambda: [nn.BatchNorm()],
    "relu": lambda: [nn.Activation("relu")],
    "both": lambda: [nn.BatchNorm(), nn.Activation("relu")],
    "both, convolution": lambda: [nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(8, 1)],
}


@pytest.mark.parametrize("shortcut_first", [True, False])
@pytest.mark.parametrize("inside", CHAINS)
@pytest.mark.parametrize("before", [None, *CHAINS])
def test_a_sum_of_a_result_from_the_middle_of_a_chain(before, inside, shortcut_first):
    """Folding would leave the last result of the chain only."""
    net, X = nn.HybridSequential(), np.random.uniform(-1, 1, size=(4, 3, 8, 8))
    net.add(nn.Conv2D(8, 3), *(CHAINS[before]() if before else []))
    net.add(Around(CHAINS[inside](), shortcut_first))
    initialized(net, X.shape)
    assert difference(compile(net, X, "float32")(X), net(X)) <= 5e-6


class Sum(nn.HybridBlock):
    def hybrid_forward(self, F, X, Y):
        return X + Y


class RandomNetwork(nn.HybridBlock):
    """Random layers, each of which takes one or two of the last three results."""

    KINDS = (
        lambda c: nn.Conv2D(c, 3, padding=1, in_channels=c),
        lambda c: nn.BatchNorm(in_channels=c),
        lambda c: nn.Activation("relu"),
        lambda c: nn.MaxPool2D(3, strides=1, padding=1),
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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_channels", [16, 12])
def test_random_networks(num_channels, seed):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(num_channels, 3), RandomNetwork(random.Random(seed), num_channels))
    assert_same_gradients(net, np.random.uniform(-1, 1, size=(4, 3, 8, 8)))


def assert_same_gradients(net, X):
    """Compare with the largest gradient of all: that of a bias before a batch norm is rounding.

    Rounding reaches 2e-5 of it, with AVX-512; wrong gradients were off by a tenth and more.
    """
    params, restore = trainable(initialized(net, X.shape)), restored(net)
    Y, gradients = outputs_and_gradients(net, params, X)
    restore()
    fast = compile(net, X, "float32")
    Y_fast, fast_gradients = outputs_and_gradients(fast, params, X)
    assert difference(Y_fast, Y) <= 1e-5
    scale = max(float(abs(gradient).max()) for gradient in gradients)
    for fast_gradient, gradient in zip(fast_gradients, gradients, strict=True):
        assert abs(fast_gradient - gradient).max() <= 1e-4 * scale
    restore()
    assert difference(fast(X), net(X)) <= 1e-5


def normalized(*layers):
    """Put batch norm and ReLU behind each layer."""
    return [part for layer in layers for part in (layer, nn.BatchNorm(), nn.Activation("relu"))]


class Parallel(nn.HybridBlock):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def hybrid_forward(self, F, X):
        return self.first(X) + self.second(X)


IN_PLAIN_LAYOUT = {  # the answers of these convolutions, on some processor
    "6 channels": lambda: [nn.Conv2D(6, 3, padding=1)],
    "10 channels": lambda: [nn.Conv2D(10, 3, padding=1)],
    "20 channels": lambda: [nn.Conv2D(20, 3, padding=1)],
    "24 channels": lambda: [nn.Conv2D(24, 3, padding=1)],
    "from 20 channels": lambda: [nn.Conv2D(20, 3, padding=1), nn.Conv2D(16, 3, padding=1)],
    "in groups": lambda: [nn.Conv2D(16, 3, padding=1), nn.Conv2D(16, 3, padding=1, groups=4)],
    "a large window": lambda: [nn.Conv2D(16, 9, padding=4)],
    "much padding": lambda: [nn.Conv2D(16, 3, padding=2)],
    "a sum of two": lambda: [Parallel(nn.Conv2D(16, 9, padding=4), nn.Conv2D(16, 3, padding=1))],
    "a matrix product": lambda: [
        nn.MaxPool2D(3),
        Parallel(nn.Conv2D(16, 9, padding=4), nn.Conv2D(16, 3, padding=1)),
    ],
}


@pytest.mark.parametrize("name", IN_PLAIN_LAYOUT)
def test_gradients_behind_a_convolution_in_plain_layout(name):
    """Fused with its ReLU, the batch norm behind it could compute wrong ones without a word."""
    net = nn.HybridSequential()
    net.add(*normalized(*IN_PLAIN_LAYOUT[name]()), Residual(16, use_1x1conv=True, strides=2))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(5))
    assert_same_gradients(net, np.random.uniform(-1, 1, size=(4, 3, 12, 12)))


IN_OTHER_BLOCKS = {  # the gradients that these hand back, on some processor
    "groups of 4": lambda: [nn.Conv2D(16, 3, padding=1, groups=4)],
    "groups of 8": lambda: [nn.Conv2D(32, 3, padding=1, groups=2)],
    "to 8 channels": lambda: [nn.Conv2D(8, 1)],
    "to 12 channels behind a pooling": lambda: [nn.MaxPool2D(2), nn.Conv2D(12, 3, padding=1)],
    "to 24 channels behind a sum": lambda: [
        Parallel(nn.Conv2D(24, 1), nn.Conv2D(24, 3, padding=1)),
    ],
    "around groups": lambda: [Around([nn.Conv2D(16, 3, padding=1, groups=4)], True)],
}


@pytest.mark.parametrize("name", IN_OTHER_BLOCKS)
def test_gradients_before_a_convolution_in_other_blocks(name):
    """Fused with its ReLU, the batch norm before it could not take them."""
    net = nn.HybridSequential()
    net.add(*normalized(nn.Conv2D(16, 3, padding=1)), *IN_OTHER_BLOCKS[name](), nn.Dense(5))
    assert_same_gradients(net, np.random.uniform(-1, 1, size=(4, 3, 12, 12)))


ENDS = {
    "dense layers": lambda: [*normalized(nn.Dense(16)), nn.Dense(5)],
    "a mean by its window": lambda: [nn.AvgPool2D(8), nn.Dense(5)],
    "the largest pixel": lambda: [nn.GlobalMaxPool2D(), nn.Dense(5)],
    "the largest pixel by its window": lambda: [nn.MaxPool2D(8), nn.Dense(5)],
    "poolings down to a pixel": lambda: [*[nn.MaxPool2D(2)] * 3, nn.Dense(5)],
}


@pytest.mark.parametrize("num_channels", [4, 16])
@pytest.mark.parametrize("end", ENDS)
def test_ends_of_networks(end, num_channels):
    net = nn.HybridSequential()
    net.add(*normalized(nn.Conv2D(num_channels, 3, padding=1)), *ENDS[end]())
    assert_same_gradients(net, np.random.uniform(-1, 1, size=(4, 3, 8, 8)))


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
    assert_same_gradients(BarelySaid(), np.random.uniform(-1, 1, size=(4, 3, 8, 8)))


class Scaled(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return F.np.exp(X)


@pytest.mark.parametrize("first", [[], [Scaled()], [nn.Conv2D(16, 5, padding=2)]])
def test_batch_norm_of_images_in_plain_layout(first):
    """Fused with its ReLU before a convolution, it would compute wrong gradients without a word."""
    net = nn.HybridSequential()
    net.add(*first, nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(16, 3, padding=1))
    training, _ = assert_same_as_compiled(net, np.random.uniform(size=(4, 16, 3, 3)))
    assert "_contrib_BatchNormWithReLU" not in training


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


@pytest.mark.skipif(not runtime.has_bfloat16(), reason="this processor has no AVX-512")
def test_bfloat16_keeps_float32_parameters_and_gradients():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    Y, gradients = outputs_and_gradients(compile(net, X, "bfloat16"), trainable(net), X)
    assert Y.dtype == "float32" and all(g.dtype == "float32" for g in gradients)
    exact, _ = outputs_and_gradients(net, trainable(net), X)
    assert 0 < difference(Y, exact) < 0.05


def test_to_train_it_is_to_train_the_network(tmp_path):
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    fast = compile(net, X, "float32")
    trainer = gluon.Trainer(fast.collect_params(), "sgd", {"learning_rate": 0.1})
    before = net[0].weight.data().copy()
    outputs_and_gradients(fast, [], X)
    trainer.step(4)
    assert (net[0].weight.data() != before).any()
    net.save_parameters(str(tmp_path / "net.params"))
    other = small_net()
    other.load_parameters(str(tmp_path / "net.params"))
    assert difference(other(X), fast(X)) <= 5e-6


def test_frozen_parameters_stay():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    fast = compile(net, X, "float32")
    net[0].collect_params().setattr("grad_req", "null")
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    before = [p.data().copy() for p in (net[0].weight, net[4].weight)]
    outputs_and_gradients(fast, [], X)
    trainer.step(4)
    assert (net[0].weight.data() == before[0]).all()
    assert (net[4].weight.data() != before[1]).any()


# --- the graph


def operators(graph):
    return [node["op"] for node in json.loads(graph._cached_graph[1].tojson())["nodes"]]


def test_what_is_rewritten_for_training():
    net, shape = resnet18(), (2, 1, 28, 28)
    fast = compile(initialized(net, shape), np.ones(shape), "float32")
    (graph,) = fast._graphs.by_key.values()
    ops = operators(graph)
    assert not {"_npx_relu", "_npi_add", "Pooling_global"} & set(ops)
    assert ops.count("_contrib_BatchNormWithReLU") == 9 and ops.count("elemwise_add") == 8
    assert ops.count("Convolution") == 20 - 7 and ops.count("FullyConnected") == 1 + 7
    assert "7 convolutions as matrix products" in repr(fast)


def test_what_is_folded_for_inference():
    net, shape = cifar_resnet(20), (2, 3, 32, 32)
    fast = compile(initialized(net, shape), np.ones(shape), "float32")
    fast(np.ones(shape))
    ops = operators(list(fast._graphs.by_key.values())[-1])
    assert ops.count("_sg_mkldnn_conv") == 21
    assert not {"BatchNorm", "Activation", "elemwise_add", "Convolution"} & set(ops)


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
    net = nn.HybridSequential()
    net.add(nn.Conv2D(5, kernel, strides, padding))
    X = np.random.normal(size=(4, 3, size, size))
    initialized(net, X.shape)
    net[0].bias.set_data(np.random.normal(size=5))
    fast, params = compile(net, X, "float32"), list(net.collect_params().values())
    (graph,) = fast._graphs.by_key.values()
    assert ("FullyConnected" in operators(graph)) == as_product
    for a, b in zip(
        outputs_and_gradients(fast, params, X), outputs_and_gradients(net, params, X), strict=True
    ):
        for c, d in zip(a, b, strict=True):
            assert difference(c, d) <= 2e-6
    assert difference(fast(X), net(X)) <= 2e-6


ONE_STEP = """
import sys
from mxnet import autograd, gluon, np, npx
from d2lres import cifar_resnet, compile, resnet18
net, shape = {network}
net.initialize()
X, y = np.random.uniform(size=shape), np.zeros(shape[0])
fast, loss = compile(net, X, "{precision}"), gluon.loss.SoftmaxCrossEntropyLoss()
trainer = gluon.Trainer(net.collect_params(), "sgd")
for step in range(2):
    print("step", step, flush=True)
    with autograd.record():
        l = loss(fast(X), y)
    l.backward()
    trainer.step(len(X))
    npx.waitall()
"""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "network",
    [
        "resnet18(), (16, 1, 96, 96)",
        "resnet18(), (32, 1, 28, 28)",
        "cifar_resnet(20), (32, 3, 32, 32)",
        "cifar_resnet(56), (16, 3, 32, 32)",
    ],
)
def test_no_reference_code_in_a_step(network, precision):
    """oneDNN says of each primitive what runs it and for how long: ``ref`` is its slow spare.

    But not of a sum: of arrays in two layouts its ``ref`` is made of fast reorders.
    """
    code = ONE_STEP.format(network=network, precision=precision)
    env = os.environ | {"DNNL_VERBOSE": "1"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    lines = [line.split(",") for line in out.split("step 1")[1].splitlines()]
    took = [(*line[3:5], float(line[-1])) for line in lines if line[:2] == ["dnnl_verbose", "exec"]]
    total = sum(ms for *_, ms in took)
    assert len(took) > 100
    by_reference = [ms for what, by, ms in took if what != "sum" and by.startswith("ref")]
    assert sum(by_reference) < 0.01 * total


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


# --- never the wrong graph


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
def test_a_parameter_set_after_the_first_inference(suffix):
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X, "float32")
    before = fast(X).copy()
    for name, param in net.collect_params().items():
        if name.endswith(suffix):
            low = -0.3 if suffix in ("running_mean", "weight") else 0.5
            param.set_data(np.random.uniform(low, 1, size=param.shape))
            exact = net(X)
            assert difference(fast(X), exact) < 5e-6, name
    assert difference(before, exact) > 0.01


def test_batch_norm_that_moved_without_a_step():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X, "float32")
    before = fast(X).copy()
    outputs_and_gradients(fast, [], X)
    assert difference(fast(X), net(X)) < 5e-6
    assert difference(before, net(X)) > 0.001


def test_new_weights_for_the_old_ones():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X, "float32")
    fast(X)
    net.initialize(mx.init.Normal(0.1), force_reinit=True)
    assert difference(fast(X), net(X)) < 5e-6


def test_a_layer_and_its_parameters_added_afterwards():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X, "float32")
    fast(X)
    net.add(nn.Dense(7))
    net[5].initialize()
    assert fast(X).shape == (4, 7)
    assert difference(fast(X), net(X)) < 5e-6
    _, (gradient,) = outputs_and_gradients(fast, [net[5].weight], X)
    assert abs(gradient).max() > 0


def test_a_layer_exchanged():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X, "float32")
    net._children["1"] = nn.Activation("sigmoid")
    assert difference(fast(X), net(X)) < 5e-6


class Dropping(nn.HybridBlock):
    """Asks in Python whether it is training."""

    def hybrid_forward(self, F, X):
        return X * 2 if autograd.is_training() else X


def test_a_network_that_asks_whether_it_trains():
    net = Dropping()
    fast = compile(net, np.ones((2, 3)), "float32")
    with autograd.record():
        assert (fast(np.ones((2, 3))) == 2).all()
    assert (fast(np.ones((2, 3))) == 1).all() and (fast(np.ones((5, 3))) == 1).all()


def test_compiling_twice_is_compiling_once():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 16, 16))
    assert compile(compile(net, X, "float32"), X, "float32").net is net


# --- the choice


def test_a_processor_without_bfloat16(monkeypatch):
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    net, X = small_net(), np.ones((4, 1, 16, 16))
    fast = compile(net, X)
    assert fast.precision == "float32" and not fast.seconds
    assert "training in float32\n  inference in float32" in repr(fast)
    with pytest.raises(RuntimeError, match="AVX-512, and this is none.*precision='auto'"):
        compile(net, X, "bfloat16")


@pytest.fixture
def pretended_bfloat16(monkeypatch):
    """Let every plan compute in float32, so that choosing can be tried on any processor."""
    module = sys.modules["d2lres.compile"]  # d2lres.compile is the function
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: True)
    monkeypatch.setattr(module, "in_bfloat16", lambda symbol, *args: symbol)
    return module


def test_auto_measures_once_and_leaves_the_network_alone(own_cache, pretended_bfloat16):
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    before = {name: p.data().copy() for name, p in net.collect_params().items()}
    fast = compile(net, X)
    assert all((p.data() == before[name]).all() for name, p in net.collect_params().items())
    training = fast.seconds["training"]
    assert min(training, key=training.get).startswith(fast.precision)
    inference = fast.seconds["inference"]
    assert min(inference, key=inference.get).startswith(fast.inference_precision)
    assert "s a batch" in repr(fast) and len(training) == len(pretended_bfloat16._PLANS)
    path = own_cache / "precision.json"
    ((key, seconds),) = json.loads(path.read_text()).items()
    slowest = max(training, key=training.get)
    seconds["training"] = {plan: -s for plan, s in training.items()}
    path.write_text(json.dumps({key: seconds}))
    assert f"training in {slowest};" in repr(compile(net, X))  # what was known counts
    assert compile(net, X, "bfloat16").precision == "bfloat16"
    path.write_text("not JSON")
    assert compile(net, X).precision in ("float32", "bfloat16")


def test_plans_are_compared_where_values_are_dropped(pretended_bfloat16):
    net = small_net()
    net.add(nn.Dropout(0.5))
    fast = compile(net, np.random.uniform(size=(4, 1, 16, 16)))
    assert all(len(of) == len(pretended_bfloat16._PLANS) for of in fast.seconds.values())


@pytest.mark.parametrize("broken", ["raises", "is wrong"])
def test_a_plan_that_does_not_work_is_not_chosen(broken, pretended_bfloat16, monkeypatch):
    def in_bfloat16(symbol, *args):
        if broken == "raises":
            raise mx.MXNetError("could not create a primitive descriptor iterator")
        return symbol * 2

    monkeypatch.setattr(pretended_bfloat16, "in_bfloat16", in_bfloat16)
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X)
    assert fast.precision == "float32" and list(fast.seconds["training"]) == ["float32"]
    with pytest.raises(RuntimeError, match="none of the ways.*bfloat16"):
        compile(net, X, "bfloat16")


# --- what cannot be compiled


def test_a_block_that_cannot_be_traced():
    class Plain(nn.Block):
        def forward(self, X):
            return X

    with pytest.raises(TypeError, match="expected a HybridBlock.*Plain"):
        compile(Plain(), np.ones((1, 1, 4, 4)))


def test_a_hybrid_block_that_looks_at_its_input():
    class Looking(nn.HybridBlock):
        def hybrid_forward(self, F, X):
            return X if X.shape[0] > 1 else -X

    with pytest.raises(TypeError, match="could not trace Looking.*shape or values of X"):
        compile(Looking(), np.ones((2, 1, 4, 4)), "float32")


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="auto, float32 or bfloat16, not 'float16'"):
        compile(small_net(), np.ones((1, 1, 4, 4)), "float16")


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
