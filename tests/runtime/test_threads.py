"""Everything public works from any thread, and MXNet's own arrays are as they were."""

import concurrent.futures
import threading

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np, npx
from mxnet.gluon import nn
from networks import imported, in_a_row, initialized

import d2lres
from d2lres.compiler import compiled

X, y = np.random.uniform(size=(4, 3, 8, 8)), np.arange(4) % 3


def in_a_thread(function):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def network():
    layers = nn.Conv2D(4, 3, padding=1), nn.BatchNorm(), nn.Activation("relu")
    end = d2lres.resnet_block(4, 1), nn.GlobalAvgPool2D(), nn.Dense(3)
    return initialized(in_a_row(*layers, *end))


def explained(function):
    return function(initialized(d2lres.cifar_resnet(8, num_classes=3), X.shape))


CALLS = {
    "predict": lambda: d2lres.predict(network(), X).shape == (4,),
    "evaluate_accuracy": lambda: d2lres.evaluate_accuracy(network(), [(X, y)]) <= 1,
    "compile": lambda: d2lres.compile(network(), X, "float32")(X).shape == (4, 3),
    "train": lambda: len(d2lres.train(network(), [(X, y)], [(X, y)], 1, 0.1)) == 1,
    "summary": lambda: "conv" in str(d2lres.summary(network(), (3, 8, 8))).lower(),
    "layer_stats": lambda: len(explained(lambda net: d2lres.layer_stats(net, X, y))) > 1,
    "grad_cam": lambda: explained(lambda net: d2lres.grad_cam(net, X, y)).ndim == 3,
    "fine_tune": lambda: d2lres.replace_head(explained(lambda net: net), 5)(X).shape == (4, 5),
    "narrow_resnet18": lambda: d2lres.narrow_resnet18(pretrained=True)(X).shape == (4, 100),
    "resnet18": lambda: d2lres.resnet18(3).name,
    "sums": lambda: (X.sum().shape, np.ones(()).shape, (X[:0] * 2).shape[0]) == ((), (), 0),
    "loss": lambda: mx.gluon.loss.SoftmaxCrossEntropyLoss()(X[:, :, 0, 0], y).sum().shape == (),
    "foreach": lambda: mx.sym.contrib.foreach(
        lambda x, s: (x + s, s), mx.sym.var("x").as_nd_ndarray(), mx.sym.var("s").as_nd_ndarray()
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_everything_works_in_a_thread(call):
    assert in_a_thread(call)


def test_export_and_weights_in_a_thread(tmp_path):
    def save():
        net = explained(lambda net: net)
        d2lres.save_torch_weights(net, tmp_path / "net.safetensors")
        d2lres.export(net, tmp_path / "net.onnx")
        net.save_parameters(str(tmp_path / "net.params"))
        net.load_parameters(str(tmp_path / "net.params"))
        d2lres.load_torch_weights(net, tmp_path / "net.safetensors")
        return True

    pytest.importorskip("onnx")
    assert in_a_thread(save)


FIRST_CALLS = {
    "whose weights are to be made": lambda net, _: net,
    "that is to be traced": lambda net, _: (net.hybridize(), net)[1],
    "with static memory": lambda net, _: (net.hybridize(True, static_alloc=True), net)[1],
    "compiled": lambda net, _: d2lres.compile(net, X, "float32"),
    "imported": lambda net, folder: imported(net, X, folder),
}


@pytest.mark.parametrize("make", FIRST_CALLS.values(), ids=FIRST_CALLS)
def test_a_network_that_many_threads_call_at_once(make, tmp_path):
    num_threads, together = 4, threading.Barrier(4)
    for _ in range(3):
        net = make(network(), tmp_path)

        def call(num, net=net):
            together.wait()
            for _ in range(3):
                both = [d2lres.predict(net, X[:num]), net(X[:num]).asnumpy()]
            return both

        with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
            nums = [1 + i % 3 for i in range(num_threads)]
            answers = list(pool.map(call, nums))
        for num, (classes, scores) in zip(nums, answers, strict=True):
            expected = net(X[:num]).asnumpy()
            assert onp.allclose(scores, expected, atol=1e-4)
            assert (classes.asnumpy() == expected.argmax(1)).all()


def test_threads_make_the_graphs_of_a_compiled_network_one_by_one(monkeypatch):
    net, making, most = d2lres.compile(network(), X, "float32"), [], []

    class Graph(compiled._Graph):
        def __init__(self, *args, **kwargs):
            making.append(self)
            most.append(len(making))
            super().__init__(*args, **kwargs)
            making.remove(self)

    monkeypatch.setattr(compiled, "_Graph", Graph)
    sizes = [4 + i % 6 for i in range(24)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        shapes = pool.map(lambda size: net(np.ones((2, 3, size, size))).shape, sizes)
        assert set(shapes) == {(2, 3)}
    assert most == [1] * 6


def state():
    return npx.is_np_array(), npx.is_np_shape()


@pytest.fixture
def semantics():
    yield
    npx.set_np()


def test_a_thread_may_go_back_for_itself(semantics):
    def go_back():
        npx.reset_np()
        alone.wait()  # for the main thread to have set it once more
        return state()

    alone = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        back = pool.submit(go_back)
        npx.set_np()
        assert state() == in_a_thread(state) == (True, True)
        alone.set()
        assert back.result() == (False, False)
    assert state() == in_a_thread(state) == (True, True)


def test_scopes_are_their_thread_s_own():
    with mx.util.np_array(False), mx.np_shape(False):
        assert state() == (False, False) and in_a_thread(state) == (True, True)
    assert state() == in_a_thread(state) == (True, True)

    def scopes():
        with mx.util.np_array(False):
            with mx.np_shape(False):
                inside = state()
            return inside, state()

    assert in_a_thread(scopes) == ((False, False), (False, True))
    assert in_a_thread(lambda: X.sum().shape) == ()


def test_the_main_thread_goes_back_for_those_that_begin_later(semantics):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(state).result() == (True, True)
        npx.reset_np()
        assert state() == in_a_thread(state) == (False, False)
        assert pool.submit(state).result() == (True, True)


IN_PLAIN_MXNET = """
import threading
import mxnet as mx
from mxnet import npx
def note(name):
    seen[name] = [npx.is_np_array(), npx.is_np_shape()]
def in_a_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start(); thread.join()
note("main")
in_a_thread(note, "thread")
with mx.np_shape(True), mx.util.np_array(True):
    note("scope")
    in_a_thread(note, "thread beside a scope")
@mx.util.use_np
def used(): note("decorated")
used()
note("main afterwards")
started, go_on = threading.Event(), threading.Event()
def begin_before():
    note("before"); started.set(); go_on.wait(); note("after")
thread = threading.Thread(target=begin_before)
thread.start(); started.wait()
in_a_thread(npx.set_np)  # as `import d2lres` may be
go_on.set(); thread.join()
note("main set by a thread")
"""


@pytest.mark.slow
def test_without_set_np_a_program_sees_mxnet_as_it_is(python):
    seen, err = python(IN_PLAIN_MXNET)
    plain, numpy = [False, False], [True, True]
    assert seen == {
        "main": plain,
        "thread": plain,
        "scope": numpy,
        "thread beside a scope": plain,
        "decorated": numpy,
        "main afterwards": plain,
        "before": plain,
        "after": numpy,
        "main set by a thread": numpy,
    }
    assert not err
