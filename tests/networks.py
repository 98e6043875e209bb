"""Networks that several tests need."""

import mxnet as mx
from mxnet import gluon, np
from mxnet.gluon import nn


def in_a_row(*layers):
    net = nn.HybridSequential()
    net.add(*layers)
    return net


def initialized(net, shape=None):
    """Give a network weights, and, of the shape of a batch, those that wait for one."""
    net.initialize(mx.init.Xavier())
    if shape is not None:
        net(np.ones(shape))
    return net


def imported(net, X, folder):
    """The network that MXNet makes of the files to which it exports one."""
    net.hybridize()
    net(X)
    net.export(f"{folder}/net")
    graph, params = f"{folder}/net-symbol.json", f"{folder}/net-0000.params"
    return gluon.SymbolBlock.imports(graph, ["data"], params)


def values_of(params):
    """The values of parameters, which later changes do not reach."""
    return [param.data().asnumpy() for param in params.values()]
