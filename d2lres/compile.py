"""One traced graph, rewritten for speed, on the same parameters.

MXNet runs a network on the CPU through oneDNN, which keeps images in blocked memory layouts. Every
operator that is not oneDNN's forces a copy out of that layout and one back into it. The rewritten
graph holds only operators that understand it; what it computes stays the same.
"""

import hashlib
import json
import time
import warnings

import mxnet as mx
from mxnet import autograd, gluon, np, npx
from mxnet.contrib import amp

from . import runtime

__all__ = ["compile"]

npx.set_np()

_PRECISIONS = ("float32", "bfloat16")


def compile(net: gluon.HybridBlock, X: np.ndarray, precision: str = "auto") -> gluon.HybridBlock:
    """Trace a network and rewrite its graph for speed.

    The result shares the Parameter objects of ``net``: to train it is to train ``net``. Its
    ``repr`` says which precision it has and what was measured.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    X : float32 array, shape (batch, channels, height, width)
        A batch like those that will follow. Height, width and channels are fixed by it.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        ``"bfloat16"`` computes the convolutions in 16 bits; parameters, gradients and the state of
        the optimizer stay float32. ``"auto"`` measures both for a few steps and takes the faster;
        it remembers the choice for this network on this machine, so that runs can be repeated.

    Returns
    -------
    HybridBlock
        Takes and gives what ``net`` does.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock.
    ValueError
        If ``precision`` is none of the above.
    """
    if precision not in ("auto", *_PRECISIONS):
        raise ValueError(f"precision is auto, {' or '.join(_PRECISIONS)}, not {precision!r}")
    if not isinstance(net, gluon.HybridBlock):
        raise TypeError(
            f"compile expects a HybridBlock, which can be traced into a graph, but got "
            f"{type(net).__name__}. Build the network on nn.HybridBlock and nn.HybridSequential."
        )
    net(X[:1])  # fixes the shapes of parameters whose initialisation was deferred
    if precision != "auto":
        return _Compiled(net, X, precision)
    return _fastest(net, X)


class _Compiled(gluon.SymbolBlock):
    """The rewritten graph of a network as a block."""

    def __init__(self, net, X, precision, seconds=None):
        params = net.collect_params()
        data = mx.sym.var("data", dtype="float32").as_np_ndarray()
        symbol = _rewrite(net(data), X.shape)
        if precision == "bfloat16":
            symbol = amp.convert_symbol(
                symbol,
                target_dtype="bfloat16",
                cast_optional_params=False,
                excluded_sym_names=_stem_convolutions(symbol, params),
            )
        super().__init__(symbol.as_np_ndarray(), [data], params=params)
        self.hybridize(static_alloc=True, static_shape=True)
        self.precision, self.seconds, self._shape = precision, seconds or {}, X.shape

    def __repr__(self):
        measured = "".join(f", {p}: {s:.3f} s a step" for p, s in self.seconds.items())
        return f"compiled for images {self._shape[1:]} in {self.precision}{measured}"


def _rewrite(symbol, input_shape):
    """Replace the operators that are not oneDNN's by their equals that are."""
    shapes = _output_shapes(symbol, input_shape)
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    for node in nodes:
        if node["op"] == "_npx_relu":
            node.update(op="Activation", attrs={"act_type": "relu"})
        elif node["op"] == "_npi_add":
            left, right = (shapes[nodes[i]["name"]] for i, *_ in node["inputs"])
            if left == right:  # oneDNN's sum does not broadcast
                node.update(op="elemwise_add", attrs={})
    return mx.sym.load_json(json.dumps(graph))


def _output_shapes(symbol, input_shape):
    """Map the name of every node to the shape of its first output."""
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(data=input_shape)
    names = (name.removesuffix("_output") for name in internals.list_outputs())
    return dict(zip(names, shapes, strict=True))


def _stem_convolutions(symbol, params):
    """Name the convolutions that see pictures: few channels are faster in float32.

    oneDNN's bfloat16 convolutions of one to three channels leave the blocked layout, and the batch
    normalisation that follows then takes a hundred times as long.
    """
    nodes = json.loads(symbol.tojson())["nodes"]
    weights = {
        n["name"]: nodes[n["inputs"][1][0]]["name"] for n in nodes if n["op"] == "Convolution"
    }
    return [name for name, weight in weights.items() if params[weight].shape[1] <= 3]


def _fastest(net, X):
    """Compile in the precision that trains fastest, measured once for this machine."""
    choices = runtime.cache_folder() / "precision.json"
    known = _read_json(choices)
    key = _fingerprint(net, X)
    if key not in known:
        known[key] = _seconds_a_step(net, X)
        _write_json(choices, known)
    return _Compiled(net, X, min(known[key], key=known[key].get), known[key])


def _seconds_a_step(net, X, num_rounds=5):
    """Time a forward and backward pass in every precision, and leave the network as it was.

    The precisions take turns, so that other work on the machine slows them all; the first round
    allocates memory and does not count.
    """
    precisions = _PRECISIONS if X.ctx.device_type == "cpu" else _PRECISIONS[:1]  # as MXNet has them
    running = {p: p.data().copy() for p in net.collect_params().values() if p.grad_req == "null"}
    candidates = {precision: _Compiled(net, X, precision) for precision in precisions}
    seconds = {precision: [] for precision in precisions}
    try:
        for _ in range(num_rounds):
            for precision, fast in list(candidates.items()):
                try:
                    seconds[precision].append(_seconds_of_a_step(fast, X))
                except mx.MXNetError:  # oneDNN lacks an operator in this precision
                    del candidates[precision]
        return {precision: min(seconds[precision][1:]) for precision in candidates}
    finally:
        for param, value in running.items():
            param.set_data(value)


def _seconds_of_a_step(net, X):
    start = time.perf_counter()
    with autograd.record():
        Y = net(X).sum()
    Y.backward()
    npx.waitall()
    return time.perf_counter() - start


def _fingerprint(net, X):
    """Identify what a measurement depends on: the graph, the batch, the machine and MXNet."""
    graph = json.loads(net(mx.sym.var("data").as_np_ndarray()).tojson())
    nodes = [(n["op"], n.get("attrs"), [i[:2] for i in n["inputs"]]) for n in graph["nodes"]]
    what = json.dumps([nodes, X.shape, str(X.ctx), runtime.machine()], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_json(path, value):
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:  # a read-only home: measured again next time
        warnings.warn(f"could not remember the fastest precision: {error}", stacklevel=2)
