"""A network that computes by rewritten graphs, on the same parameters."""

import ctypes
import threading

import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, np, npx
from mxnet.base import _LIB, check_call

from .. import checks
from ..runtime import machine
from .graph import Traced
from .precision import FLOAT32, Plan, fastest, measured
from .rewrites import for_gradients, for_inference, for_training, in_bfloat16, narrow_convolutions

__all__ = ["Compiled", "compile"]

npx.set_np()

_alone = threading.RLock()  # one thread at a time makes a graph, or makes one anew


def compile(net: gluon.HybridBlock, X: np.ndarray, precision: str = "auto") -> gluon.Block:
    """Trace a network and rewrite its graph for speed.

    The result is a Block that takes and gives what ``net`` does. It computes with the Parameter
    objects of ``net``: to train it is to train ``net``, and ``net.save_parameters`` saves what it
    learned. Outside of ``autograd.record()`` it takes a graph of its own with batch normalization
    folded away, and for gradients under ``autograd.record(train_mode=False)`` another, in float32.
    It may be given other batch sizes and image sizes than that of ``X``, of which it is the
    fastest. If layers or parameters of ``net`` are exchanged after the call, or frozen, the graph
    is traced anew; of another change, such as the rate of a Dropout, it knows nothing: compile the
    network again. ``repr`` says what was rewritten, chosen and measured.

    Parameters
    ----------
    net : HybridBlock
        An initialized network of one input and one output, in float32.
    X : float32 array, shape (batch, channels, height, width)
        A batch like those that will follow.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        ``"float32"`` gives what ``net`` gives, but for the order in which sums are rounded.
        ``"bfloat16"`` computes convolutions and matrix products in 16 bits; parameters, gradients
        and the state of the optimizer stay float32. ``"auto"`` measures what works for a few steps
        and takes the fastest; it remembers the choice for this network on this machine, so that
        runs can be repeated.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock, is not float32, or cannot be traced.
    ValueError
        If ``precision`` is none of the above, or ``X`` is not what ``net`` takes.
    RuntimeError
        If ``net`` has no weights yet, or this processor cannot compute in the bfloat16 asked for.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is auto, float32 or bfloat16, not {precision!r}")
    if isinstance(net, Compiled):
        net = net.net
    X = checks.images(X, "compile", ndim=None).as_in_ctx(checks.device_of(net))
    with autograd.pause():
        return _compiled(net, X, precision)


def _compiled(net, X, precision):
    _plain(net, X)
    traced = Traced(net)
    traced.symbol()  # which explains what cannot be traced
    has_bfloat16 = X.ctx.device_type == "cpu" and machine.has_bfloat16()
    if precision == "bfloat16":
        _check_bfloat16(has_bfloat16)
    if precision == "float32" or not has_bfloat16:
        return Compiled(traced, X, FLOAT32, FLOAT32)
    seconds = measured(traced, X, lambda plan: Compiled(traced, X, plan, plan))
    inference = fastest(seconds["inference"], precision)
    # where nothing trains yet, auto cannot know what will work when something does
    training = FLOAT32 if precision == "auto" else inference
    if "training" in seconds:
        training = fastest(seconds["training"], precision)
    return Compiled(traced, X, training, inference, seconds)


def _check_bfloat16(is_there):
    if not is_there:
        raise RuntimeError(
            "MXNet computes bfloat16 only on x86 processors with AVX-512, and this is none, or "
            "oneDNN is switched off (`python -m d2lres doctor` says more): use precision='auto' "
            "or 'float32'."
        )


def _plain(net, X):
    """Run the plain network on one image: it says what is wrong, and fixes open shapes."""
    other = {str(onp.dtype(p.dtype)) for p in net.collect_params().values()} - {"float32"}
    if other:
        raise TypeError(
            f"expected a network in float32, but this one has {min(other)}: net.cast('float32'). "
            "precision='bfloat16' computes in 16 bits where it can."
        )
    with autograd.pause():
        try:
            net(X[:1])
            _in_plain_layout(net)
        except (mx.MXNetError, ValueError) as error:
            if not isinstance(error, mx.MXNetError) and "MXNetError" not in str(error):
                raise  # a block's own words
            why = checks.reason(error) + "; for a single image write X[None]" * (X.ndim == 3)
            name = type(net).__name__
            raise ValueError(f"{name} takes no batch of shape {X.shape}: {why}") from error


def _in_plain_layout(net):
    """Give the weights back the layout that a convolution outside of training takes from them.

    Whatever reads them and is no convolution, the optimizer too, would copy them at every step.
    """
    npx.waitall()
    for param in net.collect_params().values():
        # what no layer uses has none; to ask for the address is to have plain numbers there
        for array in param._data or ():
            check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(ctypes.c_void_p())))


class Compiled(gluon.Block):
    """A network that computes by its rewritten graphs.

    Attributes
    ----------
    net : HybridBlock
    traced : Traced
        Its graphs before they were rewritten.
    plans : dict of str to Plan
        How it computes in "training" and in "inference".
    precision, inference_precision : str
        In which it trains, and in which it is applied.
    seconds : dict
        For "training" and "inference" what each candidate took for one batch, if it was measured.
    """

    def __init__(self, traced, X, training, inference, seconds=None):
        super().__init__()
        self.net, self.traced, self.seconds = traced.net, traced, seconds or {}
        self.plans, self._shape = {"training": training, "inference": inference}, X.shape
        self._moving, self._graphs = False, {}
        self._graph(X, "training")  # fails now or never

    @property
    def precision(self):
        return self.plans["training"].precision

    @property
    def inference_precision(self):
        return self.plans["inference"].precision

    def compute_by(self, plans) -> None:
        """Compute by other plans from now on: those of a run that is resumed."""
        plans = {kind: Plan(*plan) for kind, plan in plans.items()}
        if any(plan.precision == "bfloat16" for plan in plans.values()):
            _check_bfloat16(machine.has_bfloat16())
        if plans != self.plans:
            self.plans, self._graphs, self.seconds = plans, {}, {}

    def forward(self, X):
        if not isinstance(X, np.ndarray) or X.dtype != "float32":
            return self.net(X)  # which says what it thinks of that
        kind = "gradients" if autograd.is_recording() else "inference"
        if autograd.is_training():
            kind = "training"
        if self._moving and kind != "training":
            # the fused batch norm moves its averages in the backward pass, which MXNet's engine
            # does not know: without a step of the trainer in between it would not wait for them
            npx.waitall()
        self._moving = kind == "training"
        with _alone:
            if not self.traced.is_current():
                self.traced, self._graphs = Traced(self.net), {}
            graph = self._graph(X, kind)
        return graph.run(X)

    def _graph(self, X, kind):
        """Return the graph for a batch, made if there is none yet that fits."""
        if kind == "inference" and X.shape == self._shape:  # not for the smaller last batch
            kind = "folded"
        key = (kind, X.ctx, X.shape[1:], len(X) == 1)
        graph = self._graphs.get(key)
        if graph is None:
            _plain(self.net, X)
            plan = self.plans["training" if kind == "training" else "inference"]
            new = _Graph(self.traced, X, kind, plan, fixed=X.shape[1:] == self._shape[1:])
            # other image sizes share what is alike, or memory would grow with each of them
            graph = next((g for g in self._graphs.values() if g.text == new.text), new)
            self._graphs[key] = graph
        elif not graph.is_fresh(X.ctx):
            graph.refresh(X.ctx)
        return graph

    def __repr__(self):
        """Say what was rewritten, chosen and measured."""
        lines = [f"compiled for batches of shape {self._shape}"]
        for kind, plan in self.plans.items():
            times = "".join(
                f"; {name}: {s:.3f} s a batch" for name, s in self.seconds.get(kind, {}).items()
            )
            lines.append(f"  {kind} in {plan}{times}")
        counts = next((graph.counts for graph in self._graphs.values() if graph.counts), {})
        lines += [f"  {count} {words}" for words, count in counts.items() if count]
        return "\n".join(lines)


class _Graph:
    """One rewritten graph of a network; ``run`` is the block that computes it.

    If it is for one image size (``fixed``), it keeps its memory from batch to batch.
    """

    def __init__(self, traced, X, kind, plan, fixed):
        symbol, params = traced.symbol(kind == "training"), traced.net.collect_params()
        self.counts, self._folded, self._watched, self._matrices = {}, [], [], []
        if X.ctx.device_type == "cpu" and machine.uses_onednn():
            if kind == "gradients":
                symbol = for_gradients(symbol, X.shape)
            elif kind == "folded" and plan == FLOAT32:
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
        self.run = gluon.SymbolBlock(symbol.as_np_ndarray(), [data], params=params)
        self.run.hybridize(static_alloc=fixed, static_shape=fixed)
        self.text = f"{X.ctx} {fixed} {symbol.tojson()}"
        self.refresh(X.ctx)

    def refresh(self, device):
        """Take copies of the parameters as they are now."""
        self.run._clear_cached_op()
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
    """Return the parameters, and room for what ``for_inference`` makes of some of them."""
    extended = gluon.ParameterDict()
    extended.update(params)
    for name, (weight, matrix) in matrices.items():
        shape = matrix(params[weight].data(device).asnumpy()).shape
        extended._params[name] = gluon.Parameter(name, "null", shape, init="zeros")
        extended._params[name].initialize(ctx=device)
    return extended
