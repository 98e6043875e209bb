"""One traced graph, rewritten for speed, on the same parameters."""

import ctypes
import hashlib
import json
import operator
import time
import warnings
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd, gluon, np, npx
from mxnet.base import _LIB, check_call

from . import runtime
from .files import written_whole
from .graph import for_inference, for_training, in_bfloat16, narrow_convolutions, traced

__all__ = ["compile", "operators"]

npx.set_np()


class _Plan(NamedTuple):
    """A way to compute a network."""

    precision: str
    min_channels: int = 0  # convolutions with fewer input channels stay float32
    fused: bool = True  # batch normalisation with its ReLU

    def __str__(self):
        narrow = f", from {self.min_channels} channels on" * (self.min_channels > 4)
        return self.precision + narrow + ", fused" * (self.fused and self.precision != "float32")


_FLOAT32 = _Plan("float32")
# which is fastest depends on the processor: some of oneDNN's layouts do not agree in 16 bits
_PLANS = [
    _FLOAT32,
    _Plan("bfloat16", 4, fused=False),
    _Plan("bfloat16", 4),
    _Plan("bfloat16", 17, fused=False),
]


def compile(net: gluon.HybridBlock, X: np.ndarray, precision: str = "auto") -> gluon.Block:
    """Trace a network and rewrite its graph for speed.

    The result computes with the Parameter objects of ``net``: to train it is to train ``net``, and
    ``net.save_parameters`` saves what it learned. Outside of ``autograd.record()`` it takes a graph
    of its own with batch normalisation folded away. It may be given other batch sizes and image
    sizes than that of ``X``. If layers or parameters of ``net`` are exchanged after the call, or
    frozen, the graph is traced anew; of another change, such as the rate of a Dropout, it knows
    nothing: compile the network again. ``repr`` says what was rewritten, chosen and measured.

    Parameters
    ----------
    net : HybridBlock
        An initialised network of one input.
    X : float32 array, shape (batch, channels, height, width)
        A batch like those that will follow.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        ``"float32"`` gives what ``net`` gives, but for the order in which sums are rounded.
        ``"bfloat16"`` computes convolutions and matrix products in 16 bits; parameters, gradients
        and the state of the optimizer stay float32. ``"auto"`` measures what works for a few steps
        and takes the fastest; it remembers the choice for this network on this machine, so that
        runs can be repeated.

    Returns
    -------
    Block
        Takes and gives what ``net`` does.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock, or cannot be traced.
    ValueError
        If ``precision`` is none of the above.
    RuntimeError
        If this processor cannot compute in bfloat16 and ``precision`` asks for it.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is auto, float32 or bfloat16, not {precision!r}")
    if isinstance(net, _Compiled):
        net = net.net
    traced(net)  # which explains what cannot be
    has_bfloat16 = X.ctx.device_type == "cpu" and runtime.has_bfloat16()
    if precision == "bfloat16" and not has_bfloat16:
        raise RuntimeError(
            "MXNet computes bfloat16 only on x86 processors with AVX-512, and this is none "
            "(`python -m d2lres doctor` says more): use precision='auto' or 'float32'."
        )
    net(X[:1])  # fixes the shapes of parameters whose initialisation was deferred
    if precision == "float32" or not has_bfloat16:
        return _Compiled(net, X, _FLOAT32, _FLOAT32)
    seconds = _remembered(net, X)
    training, inference = (_fastest(times, precision) for times in seconds.values())
    return _Compiled(net, X, training, inference, seconds)


def _fastest(seconds, precision):
    plans = [p for p in _PLANS if str(p) in seconds and precision in ("auto", p.precision)]
    if not plans:
        raise RuntimeError(
            "none of the ways to compute this network in bfloat16 works on this processor: "
            "use precision='auto' or 'float32'."
        )
    return min(plans, key=lambda plan: seconds[str(plan)])


class _Compiled(gluon.Block):
    """A network that computes by its rewritten graphs.

    Attributes
    ----------
    net : HybridBlock
    precision, inference_precision : str
        In which it trains, and in which it is applied.
    seconds : dict
        For "training" and "inference" what each candidate took for one batch, if it was measured.
    """

    def __init__(self, net, X, training, inference, seconds=None):
        super().__init__()
        self.net, self.seconds = net, seconds or {}
        self.precision, self.inference_precision = training.precision, inference.precision
        self._plans, self._shape = {True: training, False: inference}, X.shape
        self._moving = False
        self._graphs = _Graphs(net)
        self._graph(X, training=True)  # fails now or never

    def forward(self, X):
        if X.dtype != "float32":
            return self.net(X)  # which says what it thinks of that
        if not self._graphs.are_of(self.net):
            self._graphs = _Graphs(self.net)  # the network was changed
        training = autograd.is_recording() or autograd.is_training()
        if self._moving and not training:
            # the fused batch norm moves its averages in the backward pass, which MXNet's engine
            # does not know: without a step of the trainer in between it would not wait for them
            npx.waitall()
        self._moving = training
        return self._graph(X, training)(X)

    def _graph(self, X, training):
        """Return the graph for a batch, traced if there is none yet that fits."""
        folded = len(X) == self._shape[0] and not training  # not for the smaller last batch
        key = (training, folded, X.ctx.device_type, X.shape[1:], len(X) == 1)
        graph = self._graphs.by_key.get(key)
        if graph is None:
            with autograd.pause():
                self.net(X[:1])  # which explains what is wrong with X
            graph = self._graphs.by_key[key] = _Graph(
                self.net, X, self._plans[training], training, folded
            )
        elif not graph.is_fresh(X.ctx):
            graph.refresh(X.ctx)
        return graph

    def __repr__(self):
        """Say what was rewritten, chosen and measured."""
        lines = [f"compiled for batches of shape {self._shape}"]
        for kind, plan in zip(("training", "inference"), self._plans.values(), strict=True):
            times = "".join(
                f"; {name}: {s:.3f} s a batch" for name, s in self.seconds.get(kind, {}).items()
            )
            lines.append(f"  {kind} in {plan}{times}")
        counts = next(iter(self._graphs.by_key.values())).counts
        lines += [f"  {count} {words}" for words, count in counts.items() if count]
        return "\n".join(lines)


class _Graphs:
    """The graphs of a network, and what it was made of when they were traced."""

    def __init__(self, net):
        self.parts, self.by_key = _parts(net), {}

    def are_of(self, net):
        parts = _parts(net)
        return len(parts) == len(self.parts) and all(map(operator.is_, parts, self.parts))


class _Graph(gluon.SymbolBlock):
    """One rewritten graph of a network as a block on its parameters."""

    def __init__(self, net, X, plan, training, folded):
        symbol, params = traced(net, training), net.collect_params()
        self.counts, self._folded, self._watched, self._matrices = {}, [], [], []
        if X.ctx.device_type == "cpu" and mx.runtime.Features().is_enabled("MKLDNN"):
            if folded and plan == _FLOAT32:
                symbol, watched, matrices = for_inference(symbol, X.shape)
                params = _with_matrices(params, matrices, X.ctx)
                self._matrices = [(params[name], params[w], f) for name, (w, f) in matrices.items()]
                self._watched = [params[name] for name in sorted(watched)]
                self._folded = list(params.values())
            else:
                plain = symbol
                symbol, self.counts = for_training(plain, X.shape, plan.fused)
                if plan.precision == "bfloat16":
                    exact = narrow_convolutions(plain, X.shape, plan.min_channels)
                    symbol = in_bfloat16(symbol, exact)
        data = mx.sym.var("data", dtype="float32").as_np_ndarray()
        super().__init__(symbol.as_np_ndarray(), [data], params=params)
        self.hybridize(static_alloc=True, static_shape=True)
        self.refresh(X.ctx)

    def refresh(self, device):
        """Take copies of the parameters as they are now: a graph made anew would leak memory."""
        self._clear_cached_op()
        for constant, weight, matrix in self._matrices:
            constant.set_data(np.array(matrix(weight.data(device).asnumpy())))
        self._copies = [_Copy(param, device) for param in self._watched]
        # MXNet notices that a weight was written to, but not that another array took its place
        self._held = [(param, param.data(device)) for param in self._folded]

    def is_fresh(self, device):
        """Whether the parameters that the graph holds a copy of are what they were."""
        return all(param.data(device) is array for param, array in self._held) and all(
            copy.is_fresh() for copy in self._copies
        )


class _Copy:
    """The values of a parameter, to see whether it has been written to since."""

    def __init__(self, param, device):
        self._array = param.data(device)
        self._values = self._array.asnumpy()

    def is_fresh(self):
        self._array.wait_to_read()
        address = ctypes.c_void_p()
        check_call(_LIB.MXNDArrayGetData(self._array.handle, ctypes.byref(address)))
        values = self._values
        return _C.memcmp(address, values.ctypes.data_as(ctypes.c_void_p), values.nbytes) == 0


_C = ctypes.CDLL(None)
_C.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def _with_matrices(params, matrices, device):
    """Return the parameters, and what ``for_inference`` makes of some of them."""
    extended = gluon.ParameterDict()
    extended.update(params)
    for name, (weight, matrix) in matrices.items():
        constant = gluon.Constant(name, matrix(params[weight].data(device).asnumpy()))
        constant.initialize(ctx=device)
        extended._params[name] = constant
    return extended


def _parts(block):
    """Return all that a network is made of, to see whether it was changed."""
    frozen = getattr(block, "_kwargs", {}).get("use_global_stats")  # a batch norm, see freeze
    parts = [block, frozen, *block._reg_params.values()]
    for child in block._children.values():
        parts += _parts(child)
    return parts


def operators(net: gluon.HybridBlock) -> list:
    """Return operator, attributes and inputs of every node in the graph of a network."""
    graph = json.loads(traced(net).tojson())
    return [(n["op"], n.get("attrs"), [i[:2] for i in n["inputs"]]) for n in graph["nodes"]]


# --- measuring


def _remembered(net, X):
    """Return what the plans take for a batch, measured once for this machine."""
    path = runtime.cache_folder() / "precision.json"
    known, key = _read_json(path), _fingerprint(net, X)
    if key not in known:
        state = [(p, p.data().copy()) for p in net.collect_params().values()]
        known[key] = {
            "training": _measured(net, X, _train),
            "inference": _measured(net, X, lambda net, X: net(X)),
        }
        for param, value in state:  # batch normalisation has moved its averages
            param.set_data(value)
        _write_json(path, known)
    return known[key]


def _measured(net, X, run, num_rounds=4):
    """Return the seconds that a run on a batch takes by each plan that works.

    The plans take turns, so that other work on the machine slows them all; the first round
    allocates memory and does not count.
    """
    candidates, seconds, exact = {}, {plan: [] for plan in _PLANS}, None
    for _ in range(num_rounds):
        for plan in [*candidates] or _PLANS:
            mx.random.seed(0)  # all drop the same
            try:
                candidate = candidates.get(plan) or _Compiled(net, X, plan, plan)
                start = time.perf_counter()
                Y = run(candidate, X)
                npx.waitall()
            except mx.MXNetError:  # oneDNN lacks an operator in this precision or layout
                candidates.pop(plan, None)
                continue
            exact = Y.copy() if exact is None else exact
            if abs(Y - exact).max() <= 0.1 * abs(exact).max():
                candidates[plan] = candidate
                seconds[plan].append(time.perf_counter() - start)
    return {str(plan): min(seconds[plan][1:]) for plan in candidates}


def _train(net, X):
    with autograd.record():
        Y = net(X)
    Y.backward()
    return Y


def _fingerprint(net, X):
    """Identify what a measurement depends on: the graph, the batch, the machine and MXNet."""
    what = [operators(net), X.shape, str(X.ctx), list(map(str, _PLANS)), runtime.machine()]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_json(path, value):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json.dumps(value, indent=1).encode())
    except OSError as error:  # a read-only home: measured again next time
        warnings.warn(f"could not remember the fastest precision: {error}", stacklevel=2)
