"""NumPy's numbers do in MXNet what they did before NumPy 2, and what Python's numbers do."""

import json
import math
import pickle
import types
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn

import d2lres  # noqa: F401 (for the calls)
from d2lres.runtime import old_numbers

npx.set_np()

# Calls of MXNet, one a line, with numbers made by i (whole), f and b (true or false). In front
# stands what else than the common types worked before NumPy 2: 8 bits (8), arrays of no axis (0).
CALLS = [line.split(" ", 1) for line in Path(__file__).with_name("calls.txt").open()]
SMALL = types.SimpleNamespace(i=lambda v: onp.uint8(v) if v >= 0 else v, f=onp.float16, b=onp.bool_)
KINDS = {
    "wide": types.SimpleNamespace(i=onp.int64, f=onp.float64, b=onp.bool_),
    "narrow": types.SimpleNamespace(i=onp.int32, f=onp.float32, b=onp.bool_),
    "8": SMALL,
    "0": types.SimpleNamespace(i=onp.array, f=onp.array, b=onp.array),
}


def forward(net, X):
    net.initialize()
    net.hybridize()
    with autograd.record():
        return net(X)


class LegacyArrays:
    """For code that was written before MXNet had arrays like NumPy's."""

    def __enter__(self):
        npx.reset_np()

    def __exit__(self, *_):
        npx.set_np()


def legacy(function, *arrays):
    with LegacyArrays():
        if isinstance(function, nn.GroupNorm):
            function.initialize()
        return function(*arrays)


def stepped(optimizer, set_learning_rate=None, step=1, lr_mult=1.0, wd_mult=1.0, **params):
    net = nn.Dense(1, weight_initializer=mx.init.One())
    net.initialize()
    net.weight.lr_mult, net.weight.wd_mult = lr_mult, wd_mult
    trainer = gluon.Trainer(net.collect_params(), optimizer, params)
    if set_learning_rate is not None:
        trainer.set_learning_rate(set_learning_rate)
    for _ in range(2):
        with autograd.record():
            l = (net(np.ones((2, 3))) ** 2).sum()
        l.backward()
        trainer.step(step)
    return net.weight.data()


def seeded(seed):
    mx.random.seed(seed)
    return np.random.uniform(size=3)


def changed(x, key, value):
    x[key] = value
    return x


def bound(symbol, **shapes):
    executor = symbol.simple_bind(mx.cpu(), **shapes)
    return [y.shape for y in executor.forward()], symbol.tojson()


def batches(iterator):
    return [getattr(batch, "data", batch) for batch in iterator]


def measured(metric):
    metric.update([mx.nd.array([0, 1])], [mx.nd.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])])
    return metric.get()


def comparable(value):
    if isinstance(value, (list, tuple)):
        return [comparable(v) for v in value]
    value = value.asnumpy() if isinstance(value, mx.nd.NDArray) else value
    return (value.dtype.name, value.tolist()) if isinstance(value, onp.ndarray) else str(value)


@pytest.fixture
def answer(tmp_path):
    """What a call gives when its numbers are made by these functions."""
    csv = tmp_path / "two.csv"
    csv.write_text("1,2,3\n4,5,6\n")

    def answer(call, makers):
        mx.random.seed(0)
        onp.random.seed(0)
        made = {
            "x": np.arange(24).reshape(4, 6) / 8,
            "X": np.arange(384).reshape(2, 3, 8, 8) / 64,
            "n": mx.nd.arange(24).reshape((4, 6)) / 8,
            "N": mx.nd.ones((2, 3, 8, 8)),
            "image": np.arange(192).reshape(8, 8, 3).astype("uint8"),
            "csv": str(csv),
        }
        with mx.name.NameManager():
            return comparable(eval(call, {**globals(), **made, **vars(makers)}))

    return answer


@pytest.mark.parametrize(("also", "call"), CALLS, ids=[call.strip() for _, call in CALLS])
def test_numbers_of_numpy_do_what_numbers_of_python_do(answer, also, call):
    expected = answer(call, types.SimpleNamespace(i=int, f=float, b=bool))
    for kind in ["wide", "narrow", *also.strip(".")]:
        assert answer(call, KINDS[kind]) == expected, kind


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (onp.int64(3), "3"),
        ((onp.int64(3), 4), "(3, 4)"),
        ([onp.float32(0.1), None, onp.bool_(True)], "[0.1, None, True]"),
        (((onp.uint8(1),), [onp.float64("nan"), -onp.float16("inf")]), "((1,), [nan, -inf])"),
        ("np.int64(3)", "np.int64(3)"),
        (None, "None"),
    ],
)  # fmt: skip
def test_text_is_without_types(value, text):
    assert old_numbers.Text(value) == text
    assert isinstance("", old_numbers.Text) and not isinstance(3, old_numbers.Text)


def test_numpy_prints_as_before_for_everyone_else():
    assert repr([onp.int64(3)]) == ("[np.int64(3)]" if onp.__version__ >= "2" else "[3]")
    assert mx.symbol.symbol.string_types == (str,)


def test_what_a_layer_is_made_with_is_python_s():
    assert "kernel_size=(3, 3)" in repr(nn.Conv2D(8, onp.int64(3)))
    lstm = gluon.rnn.LSTM(onp.uint8(100), input_size=onp.uint8(3))  # four times as many are 144
    assert lstm.l0_i2h_weight.shape == (400, 3)
    schedule = mx.lr_scheduler.FactorScheduler(onp.uint8(200), onp.float16(0.5), base_lr=0.5)
    assert schedule(1000) == 0.5**5
    assert json.loads(mx.init.Xavier(magnitude=onp.float32(2)).dumps())[1]["magnitude"] == 2


LABEL, SCORES = mx.nd.array([1, 0]), mx.nd.array([[0.25, 0.75], [0.5, 0.5]])


METRICS = "acc ce nll_loss perplexity mae mse rmse pearsonr mcc"


@pytest.mark.parametrize("name", METRICS.split())
def test_metrics_sum_in_double_precision(name):
    metric = mx.metric.create(name, **({"ignore_label": None} if name == "perplexity" else {}))
    scores = SCORES[:, 0] if name in ("mae", "mse", "rmse", "pearsonr") else SCORES
    metric.update([LABEL], [scores])
    one = metric.sum_metric
    metric.sum_metric = 2.0**24
    for _ in range(100):
        metric.update([LABEL], [scores])
    if name != "mcc":  # which counts anew
        assert metric.sum_metric == pytest.approx(2**24 + 100 * one, abs=1e-6)
    metric.reset()
    metric.update([LABEL], [scores])
    assert type(metric.get()[1]) is float


def test_the_mean_loss_is_exact_and_can_be_written_down():
    metric = pickle.loads(pickle.dumps(mx.metric.Loss()))
    metric.update(0, [mx.nd.array([2.0**24])])
    for _ in range(100):
        metric.update(0, [mx.nd.array([1.0])])
    assert json.dumps(metric.get()) == json.dumps(["loss", (2**24 + 100) / 101])
    assert metric.get_global() == metric.get()
    custom = mx.metric.np(lambda label, pred: onp.float32(0.5), name="half")
    custom.update([LABEL], [SCORES])
    assert json.dumps(custom.get()) == '["half", 0.5]'


@pytest.mark.parametrize("api", [mx.nd, np])
def test_whole_numbers_out_of_range_wrap(api):
    assert api.array([255, -1], dtype="uint8").asnumpy().tolist() == [255, 255]
    x = api.zeros(2, dtype="int8")
    x[:] = [256, -129]
    assert x.asnumpy().tolist() == [0, 127]
    with pytest.raises(TypeError):
        api.array(["one"], dtype="uint8")


def test_numpy_takes_arrays_of_mxnet():
    with LegacyArrays():
        a = mx.nd.array([[1, 4], [9, 16]])
        assert onp.all(a == a.copy()) and onp.allclose(a, a.copy())
        roots = onp.sqrt(a)
        assert type(roots) is onp.ndarray and roots.tolist() == [[1, 2], [3, 4]]
        assert onp.array(a).dtype == onp.float32 and onp.asarray(a, dtype="int32")[1, 1] == 16
        assert onp.concatenate([a, a]).shape == (4, 2) and onp.array([a, a]).shape == (2, 2, 2)
        assert onp.stack([a[0], a[1]]).shape == (2, 2) and onp.maximum(a, 3).max() == 16
        assert onp.array(mx.nd.sparse.csr_matrix(a)).tolist() == a.asnumpy().tolist()
        assert {type(onp.float64(2) * a), type(a * onp.float64(2))} == {mx.nd.NDArray}
        with pytest.raises(TypeError, match="not supported"):
            onp.ones((2, 2)) * a
        if onp.__version__ >= "2":
            with pytest.raises(ValueError, match="a copy only"):
                onp.array(a, copy=False)
    x = np.array([1.0, 4.0])
    assert type(onp.sqrt(x)) is np.ndarray  # MXNet's own answer stays
    assert onp.array(x).tolist() == [1, 4] and onp.array(x).dtype == onp.float32
    assert math.isclose(onp.array([x[0], 2.0]).sum(), 3)
