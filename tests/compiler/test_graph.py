"""A network as a graph: traced once, and again when it was changed."""

import pytest
from comparing import small_net
from mxnet import gluon, np
from mxnet.gluon import nn

from d2lres import freeze, train
from d2lres.compiler import graph
from d2lres.compiler.graph import Traced, attrs_of, traced


def test_a_run_of_training_traces_each_mode_once(stripes, tmp_path, monkeypatch):
    modes = []

    def counted(net, training):
        modes.append(training)
        return traced(net, training)

    monkeypatch.setattr(graph, "traced", counted)
    net = small_net()
    train(net, stripes(), stripes(), 2, 0.1, precision="float32", checkpoint=tmp_path)
    assert sorted(modes) == [False, True]


CHANGES = {
    "a layer more": lambda net: net.add(nn.Dense(2)),
    "another layer": lambda net: net._children.update({"0": nn.Conv2D(16, 3)}),
    "another parameter": lambda net: net[4]._reg_params.update(bias=gluon.Parameter("bias")),
    "a frozen batch norm": freeze,
    "a hook": lambda net: net[0].register_forward_hook(print),
    "another type": lambda net: net.cast("float64"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change):
    net = small_net()
    of_net = Traced(net)
    net(np.ones((2, 1, 16, 16)))
    net[0].weight.set_data(2 * net[0].weight.data())
    assert of_net.is_current()
    CHANGES[change](net)
    assert not of_net.is_current()


MEANINGS = {"(3, 3)": (3, 3), "(1,)": (1,), "()": (), "[0, 1]": (0, 1), "-1": -1}
MEANINGS |= {"1e-05": 1e-5, "True": True, "None": None, "max": "max", "float32": "float32"}


@pytest.mark.parametrize("text", MEANINGS)
def test_what_the_text_of_an_attribute_means(text):
    value = attrs_of({"op": "Activation", "attrs": {"name": text}})["name"]
    assert value == MEANINGS[text] and type(value) is type(MEANINGS[text])


class Failing(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return X.no_such_method()


def test_tracing_neither_calls_nor_loses_hooks():
    net, calls = small_net(), []
    net[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    net[0].register_forward_hook(lambda *_: calls.append("behind"))
    traced(net)
    net.add(Failing())
    with pytest.raises(TypeError, match="could not trace HybridSequential.*no_such_method"):
        traced(net)
    assert not calls
    net[0](np.ones((2, 1, 16, 16)))
    assert calls == ["before", "behind"]
