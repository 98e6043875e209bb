"""A compiled network: the same as the plain one, whatever happens to either."""

import mxnet as mx
import pytest
from comparing import (
    PRECISIONS,
    difference,
    outputs_and_gradients,
    restored,
    small_net,
    trainable,
)
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from d2lres import Residual, compile
from d2lres.runtime import machine


def test_float32_errs_no_more_than_the_network_itself(network):
    """Sums are rounded in another order: both are compared with the exact result, in float64."""
    net, X = network
    params, restore = trainable(net), restored(net)
    plain = outputs_and_gradients(net, params, X)
    restore()
    compiled = compile(net, X, "float32")
    fast = outputs_and_gradients(compiled, params, X)
    restore()
    if "matrix products" not in repr(compiled):
        assert difference(fast[0], plain[0]) <= 1e-6
        assert max(map(difference, fast[1], plain[1])) <= 1e-5
    net.cast("float64")
    net.hybridize()  # as a graph: the blocks themselves ask for float32
    exact = outputs_and_gradients(net, params, X.astype("float64"), "float64")
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
