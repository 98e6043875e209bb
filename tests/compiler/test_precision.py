"""Which precision is chosen, and what is remembered of the choice."""

import json
import types

import mxnet as mx
import pytest
from comparing import difference, restored, small_net
from mxnet import autograd, np
from mxnet.gluon import nn

from d2lres import compile, freeze, unfreeze
from d2lres.compiler import compiled, precision
from d2lres.runtime import cores, machine


def test_a_processor_without_bfloat16(monkeypatch):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    net, X = small_net(), np.ones((4, 1, 16, 16))
    fast = compile(net, X)
    assert fast.precision == "float32" and not fast.seconds
    assert "training in float32\n  inference in float32" in repr(fast)
    with pytest.raises(RuntimeError, match="AVX-512, and this is none.*precision='auto'"):
        compile(net, X, "bfloat16")


@pytest.mark.slow
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
    for spoilt in ("not JSON", "[]"):
        path.write_text(spoilt)
        assert compile(net, X).precision in ("float32", "bfloat16")


def test_what_was_measured_beside_others_is_used_but_not_remembered(
    own_cache, pretended_bfloat16, monkeypatch
):
    monkeypatch.setattr(cores.Watch, "others", lambda self: 0.5)
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    assert compile(net, X).seconds and not (own_cache / "precision.json").exists()
    monkeypatch.setattr(cores.Watch, "others", lambda self: 0.1)
    assert compile(net, X).seconds and (own_cache / "precision.json").exists()


def test_a_plan_that_falls_behind_is_not_measured_again(pretended_bfloat16, monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])

    def run(plan, X):
        calls.append(plan)
        clock[0] += {0: 1.0, 1: 1.1, 2: 3.0, 3: 2.0}[precision._PLANS.index(plan)]
        return X

    traced = types.SimpleNamespace(draws=False)
    seconds, is_finite = precision._seconds(traced, np.ones(1), lambda plan: plan, run)
    counts = [calls.count(plan) for plan in precision._PLANS]
    assert counts == [4, 4, 2, 2] and is_finite
    assert [*seconds.values()] == pytest.approx([1.0, 1.1, 3.0, 2.0])


@pytest.mark.slow
def test_without_a_cache_it_is_measured_every_time(pretended_bfloat16, monkeypatch):
    monkeypatch.setattr(precision, "cache_folder", lambda: None)
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    seconds = [compile(net, X).seconds["training"] for _ in range(2)]
    assert len(seconds[0]) == len(precision._PLANS) and seconds[0] != seconds[1]


BROKEN = {  # in the last layer: what is no number may be 0 behind a ReLU
    "no number": np.nan,
    "infinite": np.inf,
    "too large": 3e38,
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_diverged_network_is_computed_in_float32_and_not_remembered(
    what, own_cache, pretended_bfloat16
):
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    restore = restored(net)
    net[4].weight.set_data(np.full((3, 32), BROKEN[what]))
    assert compile(net, X).precision == "float32"
    assert not (own_cache / "precision.json").exists()
    with pytest.raises(RuntimeError, match="bfloat16 gives finite numbers: look at its weights"):
        compile(net, X, "bfloat16")
    restore()
    fast = compile(net, X)
    assert [len(times) for times in fast.seconds.values()] == [len(precision._PLANS)] * 2
    assert compile(net, X, "bfloat16").seconds == fast.seconds  # it is remembered


FROZEN = {
    "by freeze": freeze,
    "by hand": lambda net: net.collect_params().setattr("grad_req", "null"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", FROZEN)
def test_a_network_with_nothing_to_differentiate(how, pretended_bfloat16):
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    FROZEN[how](net)
    fast = compile(net, X)
    assert fast.precision == "float32" and list(fast.seconds) == ["inference"]
    assert difference(fast(X), net(X)) <= 5e-6
    assert compile(net, X, "bfloat16").precision == "bfloat16"
    unfreeze(net)
    fast = compile(net, X)
    assert list(fast.seconds) == ["training", "inference"]
    with autograd.record():
        Y = fast(X)
    Y.backward()
    assert abs(net[0].weight.grad()).max() > 0


class Unused(nn.HybridBlock):
    """Has something to train, which the output does not depend on."""

    def __init__(self):
        super().__init__()
        self.weight = self.params.get("weight", shape=(3,), init="ones")

    def hybrid_forward(self, F, X, weight):
        return 2 * X


@pytest.mark.parametrize("build", [Unused, lambda: nn.Activation("relu")])
def test_a_network_without_parameters_in_its_graph(build, pretended_bfloat16):
    net, X = build(), np.ones((4, 3))
    net.initialize()
    fast = compile(net, X)
    assert list(fast.seconds) == ["inference"] and (fast(X) == net(X)).all()


def test_an_error_in_float32_is_shown(pretended_bfloat16, monkeypatch):
    def fails(*args):
        raise mx.MXNetError("out of memory")

    monkeypatch.setattr(compiled, "for_inference", fails)
    with pytest.raises(mx.MXNetError, match="out of memory"):
        compile(small_net(), np.ones((4, 1, 16, 16)))


def state_of(net):
    """What a step of training would change, and what would be drawn next."""
    params = list(net.collect_params().values())
    trained = [p for p in params if p.grad_req != "null"]
    arrays = [p.data() for p in params] + [p.grad() for p in trained]
    return [*(a.asnumpy().tolist() for a in arrays), [p.data()._fresh_grad for p in trained]]


def test_measuring_leaves_no_trace(pretended_bfloat16, monkeypatch):
    net, X = small_net(), np.random.uniform(size=(4, 1, 16, 16))
    net.add(nn.Dropout(0.5))
    net[4].collect_params().setattr("grad_req", "add")
    with autograd.record():
        Y = net(X)
    Y.backward()
    for param in net[0].collect_params().values():
        param.data()._fresh_grad = False  # as after a step
    before, drawn = state_of(net), []
    for _ in ("measured", "remembered"):
        mx.random.seed(1)
        compile(net, X)
        drawn.append(np.random.uniform(size=5).tolist())
        assert state_of(net) == before
    assert drawn[0] == drawn[1]

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled, "in_bfloat16", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile(net, X[:3])
    assert state_of(net) == before


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
