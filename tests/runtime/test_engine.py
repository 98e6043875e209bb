"""The number of threads changes while MXNet runs, and whatever it has made goes on working."""

import os
import sys
import threading

import mxnet as mx
import pytest
from mxnet import npx

from d2lres.runtime import engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the number is fixed elsewhere")
# networks whose graphs keep what oneDNN made for them, run by fewer and by more threads
CHANGES = """
import os
import mxnet as mx
from mxnet import autograd, gluon, np, npx
npx.set_np()
import d2lres
from d2lres.runtime import engine

def network(net, shape):
    X = np.random.uniform(size=shape)
    net.initialize(mx.init.Xavier())
    net(X[:1])
    return net, X

compiled, X = network(d2lres.cifar_resnet(20), (32, 3, 32, 32))
folded, X_folded = network(gluon.model_zoo.vision.resnet18_v1(), (4, 3, 64, 64))
recurrent, X_recurrent = network(gluon.rnn.LSTM(32, layout="NTC"), (8, 12, 16))
recurrent.hybridize(static_alloc=True, static_shape=True)
engine.set_threads(1)
folded.optimize_for(X_folded, backend="MKLDNN", static_alloc=True, static_shape=True)
cases = [(d2lres.compile(compiled, X, "float32"), X), (folded, X_folded), (recurrent, X_recurrent)]

def gradients():
    for net, X in [cases[0], cases[2]]:
        with autograd.record(train_mode=False):
            loss = (net(X) ** 2).sum()
        loss.backward()
        params = net.collect_params().values()
        yield sum(abs(p.grad()).sum() for p in params if p.grad_req != "null")

def outputs():
    return [net(X) for net, X in cases] + list(gradients())

first = outputs()
seen["numbers"], seen["far"] = [], 0
for num in [3, 1, 2, 3, "fork", 1, 4]:
    if num == "fork":
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    else:
        assert engine.set_threads(num)
    seen["numbers"].append(engine.num_threads())
    for Y, exact in zip(outputs(), first):
        seen["far"] = max(seen["far"], float(abs(Y - exact).max() / abs(exact).max()))
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_under_graphs_that_have_computed(python):
    seen, err = python(CHANGES, "-Wignore", OMP_NUM_THREADS="2")  # Python warns of fork
    assert seen["numbers"] == [3, 1, 2, 3, 2, 1, 4] and err == ""
    assert seen["far"] < 1e-4


@pytest.fixture
def changeable():
    assert engine.fixed_because() is None
    yield
    assert engine.set_threads(engine.most_threads())


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MXNET_ENGINE_TYPE", "NaiveEngine", "MXNET_ENGINE_TYPE is NaiveEngine"),
        ("MXNET_CPU_WORKER_NTHREADS", "2", "MXNET_CPU_WORKER_NTHREADS is 2"),
        ("DMLC_ROLE", "worker", "this is one of several workers"),
        ("CUDA", None, "this MXNet computes on GPUs as well"),
        ("loader", None, "MXNet was imported before d2lres"),
        ("platform", None, "this is not Linux"),
    ],
)
def test_where_it_would_not_be_safe_the_number_stays(changeable, monkeypatch, name, value, why):
    if name == "CUDA":
        monkeypatch.setattr(mx.runtime.Features, "is_enabled", lambda self, feature: True)
    elif name == "loader":
        monkeypatch.setattr(mx, "__loader__", None)
    elif name == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setenv(name, value)
    assert engine.fixed_because() == why
    before = engine.generation
    assert not engine.set_threads(engine.num_threads() + 1)
    assert engine.generation == before and engine.num_threads() == engine.most_threads()


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_number_stays_while_another_thread_is_in_mxnet(changeable, is_busy):
    begun, end = threading.Event(), threading.Event()

    def wait():
        begun.set()
        end.wait()

    def work():
        engine.call(wait) if is_busy else wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        assert engine.set_threads(engine.num_threads()) != is_busy
    finally:
        end.set()
        thread.join()
    npx.waitall()


def test_a_fork_brings_the_number_of_the_environment_back(changeable):
    assert engine.set_threads(engine.most_threads() + 1)
    before = engine.generation
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    assert engine.num_threads() == engine.most_threads() and engine.generation == before + 1
