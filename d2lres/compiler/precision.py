"""Which way to compute a network is the fastest here: measured once, and remembered."""

import contextlib
import hashlib
import json
import time
import warnings
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd, np, npx

from ..files.whole import cache_folder, written_whole
from ..runtime import machine

__all__ = ["FLOAT32", "Plan", "fastest", "measured"]


class Plan(NamedTuple):
    """A way to compute a network."""

    precision: str
    min_channels: int = 0  # convolutions with fewer input channels stay float32
    fused: bool = True  # batch normalisation with its ReLU

    def __str__(self):
        narrow = f", from {self.min_channels} channels on" * (self.min_channels > 4)
        return self.precision + narrow + ", fused" * (self.fused and self.precision != "float32")


FLOAT32 = Plan("float32")
# which is fastest depends on the processor: some of oneDNN's layouts do not agree in 16 bits
_PLANS = [
    FLOAT32,
    Plan("bfloat16", 4, fused=False),
    Plan("bfloat16", 4),
    Plan("bfloat16", 17, fused=False),
]


def fastest(seconds: dict[str, float], precision: str) -> Plan:
    """Return the plan that took the least of ``seconds``, of those in a precision."""
    plans = [p for p in _PLANS if str(p) in seconds and precision in ("auto", p.precision)]
    if not plans and precision == "auto":  # nothing could be measured
        return FLOAT32
    if not plans:
        raise RuntimeError(
            "none of the ways to compute this network in bfloat16 works on this processor: "
            "use precision='auto' or 'float32'."
        )
    return min(plans, key=lambda plan: seconds[str(plan)])


def measured(traced, X, candidate) -> dict[str, dict[str, float]]:
    """Return what the plans take for a batch, measured once for this machine and then remembered.

    Parameters
    ----------
    traced : Traced
    X : float32 array, shape (batch, channels, height, width)
    candidate : callable
        ``candidate(plan)`` returns the network computed by a plan.

    Returns
    -------
    dict of str to dict of str to float
        For "training" and "inference" the seconds of each plan that works. Empty, and not
        remembered, where nothing could be measured, as with weights that are no numbers.
    """
    folder, key = cache_folder(), _fingerprint(traced, X)
    path = folder / "precision.json" if folder else None  # without one, it is measured every time
    known = _read_json(path) if path else {}
    with _left_as_it_was(traced):
        if key not in known:
            found = {"training": _seconds(traced.draws, X, candidate, _train)}
            found["inference"] = _seconds(traced.draws, X, candidate, lambda net, X: net(X))
            if not all(found.values()):
                return found
            known[key] = found
            if path:
                _write_json(path, known)
    return known[key]


@contextlib.contextmanager
def _left_as_it_was(traced):
    """Put back what steps of training change: parameters, gradients and random numbers."""
    params = [p for p in traced.net.collect_params().values() if p._data]
    values = [(p, p.data().copy()) for p in params]
    gradients = [(g, g.copy()) for p in params if p.grad_req != "null" for g in p.list_grad()]
    seed = int(np.random.randint(0, 2**31 - 1)) if traced.draws else None
    yield
    for param, value in values:  # batch normalisation has moved its averages
        param.set_data(value)
    for gradient, value in gradients:
        gradient[:] = value
    if traced.draws:  # MXNet does not tell its state: it is another, but the same after each call
        mx.random.seed(seed)


def _seconds(draws, X, candidate, run, num_rounds=4):
    """Return the seconds that a run on a batch takes by each plan that works.

    The plans take turns, so that other work on the machine slows them all; the first round
    allocates memory and does not count.
    """
    candidates, seconds, exact = {}, {plan: [] for plan in _PLANS}, None
    for _ in range(num_rounds):
        for plan in [*candidates] or _PLANS:
            if draws:
                mx.random.seed(0)  # all drop the same
            try:
                net = candidates.get(plan) or candidate(plan)
                start = time.perf_counter()
                Y = run(net, X)
                npx.waitall()
            except mx.MXNetError:  # oneDNN lacks an operator in this precision or layout
                candidates.pop(plan, None)
                continue
            exact = Y.copy() if exact is None else exact
            if abs(Y - exact).max() <= 0.1 * abs(exact).max():
                candidates[plan] = net
                seconds[plan].append(time.perf_counter() - start)
    return {str(plan): min(seconds[plan][1:]) for plan in candidates}


def _train(net, X):
    with autograd.record():
        Y = net(X)
    Y.backward()
    return Y


def _fingerprint(traced, X):
    """Identify what a measurement depends on: the graph, the batch, the machine and MXNet."""
    what = [traced.operators, X.shape, str(X.ctx), list(map(str, _PLANS)), machine.describe()]
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
