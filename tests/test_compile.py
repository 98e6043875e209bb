import json

import mxnet as mx
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from d2lres import Residual, compile, resnet18, resnet_block, runtime


def small_net():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(16, kernel_size=3, padding=1),
        resnet_block(16, 1, first_block=True),
        resnet_block(32, 1),
        nn.GlobalAvgPool2D(),
        nn.Dense(3),
    )
    net.initialize(mx.init.Xavier())
    return net


def outputs_and_gradients(net, params, X):
    with autograd.record():
        Y = net(X)
        total = (Y * np.arange(Y.shape[1])).sum()
    total.backward()
    return Y, [p.grad().copy() for p in params if p.grad_req != "null"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("build", [small_net, resnet18])
def test_float32_is_the_same_network(build):
    net = build()
    net.initialize(mx.init.Xavier(), force_reinit=True)
    X = np.random.uniform(size=(4, 1, 28, 28))
    fast = compile(net, X, "float32")
    params = list(net.collect_params().values())
    Y, gradients = outputs_and_gradients(net, params, X)
    Y_fast, gradients_fast = outputs_and_gradients(fast, params, X)
    assert abs(Y - Y_fast).max() <= 1e-6 * abs(Y).max()
    for param, g, g_fast in zip(
        [p for p in params if p.grad_req != "null"], gradients, gradients_fast, strict=True
    ):
        assert abs(g - g_fast).max() <= 1e-5 * max(1, abs(g).max()), param.name
    assert abs(net(X) - fast(X)).max() <= 1e-6 * abs(Y).max()


def test_bfloat16_keeps_float32_parameters_and_gradients():
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    fast = compile(net, X, "bfloat16")
    params = list(net.collect_params().values())
    Y, gradients = outputs_and_gradients(fast, params, X)
    assert Y.dtype == "float32" and all(g.dtype == "float32" for g in gradients)
    exact, _ = outputs_and_gradients(net, params, X)
    assert 0 < abs(Y - exact).max() < 0.05 * abs(exact).max()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_to_train_it_is_to_train_the_network(precision):
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    fast = compile(net, X, precision)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    before = net[0].weight.data().copy()
    outputs_and_gradients(fast, [], X)
    trainer.step(4)
    assert (net[0].weight.data() != before).any()
    assert fast.collect_params()[net[0].weight.name] is net[0].weight


def test_the_slow_operators_are_gone():
    fast = compile(small_net(), np.ones((2, 1, 8, 8)), "float32")
    ops = {node["op"] for node in json.loads(fast._cached_graph[1].tojson())["nodes"]}
    assert "Activation" in ops and "elemwise_add" in ops
    assert not ops & {"_npx_relu", "_npi_add"}


class Broadcasting(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return X + F.np.mean(X, axis=(2, 3), keepdims=True)


def test_a_sum_that_broadcasts_stays_one():
    net = Broadcasting()
    net.initialize()
    X = np.random.uniform(size=(2, 3, 4, 4))
    assert abs(compile(net, X, "float32")(X) - net(X)).max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (7, 1, 16, 16), (4, 1, 24, 24)])
def test_other_batches_than_the_one_traced(shape):
    net = small_net()
    fast = compile(net, np.ones((4, 1, 16, 16)), "float32")
    X = np.random.uniform(size=shape)
    assert abs(fast(X) - net(X)).max() < 1e-5


def test_auto_measures_once_and_leaves_the_network_alone(own_cache):
    net = small_net()
    X = np.random.uniform(size=(4, 1, 28, 28))
    net(X)
    before = {name: p.data().copy() for name, p in net.collect_params().items()}
    fast = compile(net, X)
    assert all((p.data() == before[name]).all() for name, p in net.collect_params().items())
    assert fast.precision == min(fast.seconds, key=fast.seconds.get)
    assert f"in {fast.precision}" in repr(fast) and "s a step" in repr(fast)
    path = own_cache / "precision.json"
    ((key, seconds),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({key: {p: -s for p, s in seconds.items()}}))
    assert compile(net, X).precision == max(seconds, key=seconds.get)  # what was known counts
    path.write_text("not JSON")
    assert compile(net, X).precision in seconds


def test_a_block_that_cannot_be_traced():
    class Plain(nn.Block):
        def forward(self, X):
            return X

    with pytest.raises(TypeError, match="expects a HybridBlock.*Plain"):
        compile(Plain(), np.ones((1, 1, 4, 4)))


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="auto, float32 or bfloat16, not 'float16'"):
        compile(small_net(), np.ones((1, 1, 4, 4)), "float16")


def test_errors_of_a_block_come_through():
    net = Residual(6)
    net.initialize()
    with pytest.raises(ValueError, match="use_1x1conv"):
        compile(net, np.ones((1, 3, 4, 4)), "float32")
