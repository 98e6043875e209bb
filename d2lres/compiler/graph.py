"""The graph of a network: traced, looked at and edited."""

import contextlib
import copy
import functools
import json
import operator
import re
import warnings
from collections import Counter

import mxnet as mx
from mxnet import autograd, gluon

from ..checks import reason

__all__ = ["Graph", "Traced", "attrs_of", "traced"]


def traced(net, training=True):
    """Trace a network, initialized or not, into a graph with one input, ``data``.

    No array is made or changed, no forward hook called; ``autograd.is_training()`` says
    ``training`` meanwhile. It is a TypeError if ``net`` is not a HybridBlock, computes what no
    graph can, or has several outputs.
    """
    name = type(net).__name__
    if not isinstance(net, gluon.HybridBlock):
        raise TypeError(
            f"expected a HybridBlock, which can be traced into a graph, but got {name}. Build the "
            "network on nn.HybridBlock and nn.HybridSequential. For a compiled network pass the "
            "one it was compiled from."
        )
    with _taking_symbols(net), autograd.train_mode() if training else autograd.predict_mode():
        try:
            Y = net(mx.sym.var("data", dtype="float32").as_np_ndarray())
        except Exception as error:
            raise TypeError(
                f"could not trace {name} into a graph ({reason(error)}). hybrid_forward may use "
                "operators of F only, and nothing that looks at the shape or values of X."
            ) from error
    if not isinstance(Y, mx.sym.Symbol) or len(Y.list_outputs()) > 1:
        raise TypeError(
            f"expected a network that gives one array, but {name} gives several, or something "
            "else. Build a HybridBlock around it whose hybrid_forward returns one of them."
        )
    return Y


@contextlib.contextmanager
def _taking_symbols(net):
    """Let a network be called with a symbol where that would fail, though not by its own fault.

    Hooks are made for arrays. And MXNet's SymbolBlock takes its output apart as a list, which a
    single symbol of NumPy's kind is not.
    """
    blocks = _blocks(net)
    hooks = [(block._forward_pre_hooks, block._forward_hooks) for block in blocks]
    for block in blocks:
        block._forward_pre_hooks, block._forward_hooks = {}, {}
        if isinstance(block, gluon.SymbolBlock):
            block.forward = functools.partial(_composed, block)
    try:
        yield
    finally:
        for block, (before, behind) in zip(blocks, hooks, strict=True):
            block._forward_pre_hooks, block._forward_hooks = before, behind
            vars(block).pop("forward", None)


def _composed(block, *symbols):
    """Return the graph of a SymbolBlock on other inputs."""
    inputs, outputs = block._cached_graph
    outputs = copy.copy(outputs)
    outputs._compose(**{i.name: symbol for i, symbol in zip(inputs, symbols, strict=True)})
    return outputs


# in the names of operators that draw random numbers
_RANDOM = ("Dropout", "RNN", "bernoulli", "choice", "normal", "random", "sample", "uniform")


class Traced:
    """A network as graphs, each traced when first asked for, and what it was made of then."""

    def __init__(self, net):
        self.net, self._parts, self._symbols = net, _parts(net), {}
        hooked = {
            type(b).__name__ for b in _blocks(net) if b._forward_pre_hooks or b._forward_hooks
        }
        if hooked:
            warnings.warn(
                f"forward hooks, as that of {min(hooked)}, are not called where a network computes "
                "by its compiled graph: call the network itself, or detach them.",
                stacklevel=4,
            )

    def symbol(self, training: bool = True):
        """Return the graph, traced in that mode: see ``traced``."""
        if training not in self._symbols:
            self._symbols[training] = traced(self.net, training)
        return self._symbols[training]

    @functools.cached_property
    def operators(self) -> list:
        """Operator, attributes and inputs of every node."""
        graph = json.loads(self.symbol().tojson())
        return [(n["op"], n.get("attrs"), [i[:2] for i in n["inputs"]]) for n in graph["nodes"]]

    @functools.cached_property
    def draws(self) -> bool:
        """Whether an operator draws random numbers."""
        return any(word in op for op, *_ in self.operators for word in _RANDOM)

    @property
    def trained(self) -> list[bool]:
        """For each parameter in the graph, whether it gets a gradient."""
        names, params = self.symbol().list_arguments(), self.net.collect_params()
        return [params[name].grad_req != "null" for name in names if name in params]

    def is_current(self) -> bool:
        """Whether the network is still made of the same blocks and parameters."""
        parts = _parts(self.net)
        return len(parts) == len(self._parts) and all(map(operator.is_, parts, self._parts))


def _blocks(net):
    blocks = []
    net.apply(blocks.append)
    return blocks


def _parts(net):
    """Return all that a network is made of, to see whether it was changed."""
    parts = []
    for block in _blocks(net):
        frozen = getattr(block, "_kwargs", {}).get("use_global_stats")  # a batch norm, see freeze
        params = block._reg_params.values()
        parts += [block, frozen, *params, *(param.dtype for param in params)]
        parts += [*block._forward_pre_hooks.values(), *block._forward_hooks.values()]
    return parts


class Graph:
    """The nodes of a symbol, to be edited in place.

    The symbol holds the shapes that parameters had when they were first traced. Those that were
    open then and are fixed by now have to be given in ``shapes``.
    """

    def __init__(self, symbol, input_shape, shapes=None):
        self._json = json.loads(symbol.tojson())
        self.nodes = self._json["nodes"]
        internals = symbol.get_internals()
        _, self._shapes, _ = internals.infer_shape_partial(data=input_shape, **(shapes or {}))
        heads = json.loads(internals.tojson())["heads"]
        self._index = {  # by identity: a block that is applied twice gives two nodes one name
            id(self.nodes[number]): i for i, (number, which, *_) in enumerate(heads) if not which
        }

    def symbol(self):
        return mx.sym.load_json(json.dumps(self._json))

    def of(self, op):
        """Return the nodes of an operator, as they are now."""
        return [node for node in self.nodes if node["op"] == op]

    def node(self, entry):
        """Return the node that an entry among some node's inputs comes from."""
        return self.nodes[entry[0]]

    def number(self, node):
        """Return where a node stands; equal ones may be others."""
        return next(i for i, other in enumerate(self.nodes) if other is node)

    def takers(self, number):
        """Return the numbers of the nodes that take an output of this one."""
        inputs = enumerate(node["inputs"] for node in self.nodes)
        return [i for i, entries in inputs if any(source == number for source, *_ in entries)]

    def shape(self, entry):
        return self.output_shape(self.node(entry))

    def output_shape(self, node):
        """Return the shape of a node's first output."""
        return self._shapes[self.index(node)]

    def index(self, node):
        """Return where a node's first output stands among the internals of the symbol."""
        return self._index[id(node)]

    def num_uses(self):
        """Count how often each node is an input or an output, by its name."""
        entries = [*self._json["heads"], *(e for n in self.nodes for e in n["inputs"])]
        return Counter(self.node(entry)["name"] for entry in entries)

    def add(self, op, inputs, **attrs):
        """Append a node and return the entry that stands for its output."""
        number = len(self.nodes)
        self.nodes.append({"name": f"{op.lower()}_{number}"})
        self.replace(self.nodes[-1], op, inputs, **attrs)
        return [number, 0, 0]

    def variable(self, name):
        """Append an input and return the entry that stands for it."""
        self.nodes.append({"op": "null", "name": name, "inputs": []})
        return [len(self.nodes) - 1, 0, 0]

    def redirect(self, node, instead):
        """Let what takes the first output of a node take another entry."""
        number = self.number(node)
        for entries in [self._json["heads"], *(other["inputs"] for other in self.nodes)]:
            entries[:] = [instead if entry[:2] == [number, 0] else entry for entry in entries]

    def replace(self, node, op, inputs, **attrs):
        """Let a node compute something else under its name."""
        node.update(op=op, inputs=inputs, attrs={k: str(v) for k, v in attrs.items()})


# what MXNet takes where a network does not say; of a window, for each of its axes
_DEFAULTS = {
    "BatchNorm": {"eps": 1e-3, "axis": 1, "fix_gamma": True, "use_global_stats": False},
    "Convolution": {"num_group": 1},
    "Pooling": {"pool_type": "max", "global_pool": False, "count_include_pad": True, "kernel": ()},
}
_OF_WINDOWS = {"stride": 1, "dilate": 1, "pad": 0}


def attrs_of(node):
    """Return a node's attributes with values in place of their text, those left out too."""
    attrs = dict(_DEFAULTS.get(node["op"], {}))
    for name, text in node.get("attrs", {}).items():
        attrs[name] = _value(text)
    if node["op"] in ("Convolution", "Pooling"):
        for name, default in _OF_WINDOWS.items():
            attrs[name] = attrs.get(name) or (default,) * len(attrs["kernel"])
    return attrs


def _value(text):
    """Return what an attribute's text means: a number, a truth value, a tuple, or a word."""
    # ast.literal_eval fails now and then where threads compile at once (Python 3.11)
    named = {"True": True, "False": False, "None": None}
    try:
        value = json.loads(re.sub(r",?\s*\)", "]", text.replace("(", "[")))
    except json.JSONDecodeError:
        return named.get(text, text)
    return tuple(value) if isinstance(value, list) else value
