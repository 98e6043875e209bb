"""Which precision is chosen, and what is remembered of the choice."""

import json

import mxnet as mx
import pytest
from comparing import small_net
from mxnet import np
from mxnet.gluon import nn

from d2lres import compile
from d2lres.compiler import compiled, precision
from d2lres.runtime import machine


def test_a_processor_without_bfloat16(monkeypatch):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    net, X = small_net(), np.ones((4, 1, 16, 16))
    fast = compile(net, X)
    assert fast.precision == "float32" and not fast.seconds
    assert "training in float32\n  inference in float32" in repr(fast)
    with pytest.raises(RuntimeError, match="AVX-512, and this is none.*precision='auto'"):
        compile(net, X, "bfloat16")


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
    assert "s a batch" in repr(fast) and len(training) == len(precision._PLANS)
    path = own_cache / "precision.json"
    ((key, seconds),) = json.loads(path.read_text()).items()
    slowest = max(training, key=training.get)
    seconds["training"] = {plan: -s for plan, s in training.items()}
    path.write_text(json.dumps({key: seconds}))
    assert f"training in {slowest};" in repr(compile(net, X))  # what was known counts
    assert compile(net, X, "bfloat16").precision == "bfloat16"
    path.write_text("not JSON")
    assert compile(net, X).precision in ("float32", "bfloat16")


def test_without_a_cache_it_is_measured_every_time(pretended_bfloat16, monkeypatch):
    monkeypatch.setattr(precision, "cache_folder", lambda: None)
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    seconds = [compile(net, X).seconds["training"] for _ in range(2)]
    assert len(seconds[0]) == len(precision._PLANS) and seconds[0] != seconds[1]


def test_plans_are_compared_where_values_are_dropped(pretended_bfloat16):
    net = small_net()
    net.add(nn.Dropout(0.5))
    fast = compile(net, np.random.uniform(size=(4, 1, 16, 16)))
    assert all(len(of) == len(precision._PLANS) for of in fast.seconds.values())


@pytest.mark.parametrize("broken", ["raises", "is wrong"])
def test_a_plan_that_does_not_work_is_not_chosen(broken, pretended_bfloat16, monkeypatch):
    def in_bfloat16(symbol, *args):
        if broken == "raises":
            raise mx.MXNetError("could not create a primitive descriptor iterator")
        return symbol * 2

    monkeypatch.setattr(compiled, "in_bfloat16", in_bfloat16)
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    fast = compile(net, X)
    assert fast.precision == "float32" and list(fast.seconds["training"]) == ["float32"]
    with pytest.raises(RuntimeError, match="none of the ways.*bfloat16"):
        compile(net, X, "bfloat16")
