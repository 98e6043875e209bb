"""Which way to compute a network is the fastest here: measured once, and remembered."""

import contextlib
import hashlib
import json
import os
import time
import warnings
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd, np, npx

from ..files.whole import cache_folder, written_whole
from ..runtime import cores, machine

__all__ = ["FLOAT32", "Plan", "fastest", "measured"]


class Plan(NamedTuple):
    """A way to compute a network."""

    precision: str
    min_channels: int = 0  # convolutions with fewer input channels stay float32
    fused: bool = True  # batch normalization with its ReLU

    def __str__(self):
        narrow = f", from {self.min_channels} channels on" * (self.min_channels > 4)
        return self.precision + narrow + ", fused" * (self.fused and self.precision != "float32")


FLOAT32 = Plan("float32")
ALONE = 0.25  # of a processor: what others may use while a measurement counts for good
BEHIND = 1.2  # times the fastest: such a plan is not measured again
# which is fastest depends on the processor: some of oneDNN's layouts do not agree in 16 bits
_PLANS = [
    FLOAT32,
    Plan("bfloat16", 4, fused=False),
    Plan("bfloat16", 4),
    Plan("bfloat16", 17, fused=False),
]


def fastest(seconds: dict[str, float], precision: str) -> Plan:
    """Return the plan in a precision that took the least of ``seconds``, or raise RuntimeError."""
    plans = [p for p in _PLANS if str(p) in seconds and precision in ("auto", p.precision)]
    if plans:
        return min(plans, key=lambda plan: seconds[str(plan)])
    if precision == "auto":
        return FLOAT32
    why = "works on this processor" if seconds else "gives finite numbers: look at its weights"
    raise RuntimeError(
        f"none of the ways to compute this network in {precision} {why}. Use precision='auto' or "
        "'float32'."
    )


def measured(traced, X, candidate) -> dict[str, dict[str, float]]:
    """Return what the plans take for a batch, measured once for this machine and then remembered.

    ``candidate(plan)`` returns the network computed by a plan. Returned are, for "inference", and
    for "training" if anything trains, the seconds of each plan that works. They are not remembered
    where one gave no finite numbers, which may be the fault of the weights, or where others used
    the processor meanwhile. If the network fails in float32, that is MXNet's error.
    """
    folder, key = cache_folder(), _fingerprint(traced, X)
    path = folder / "precision.json" if folder else None  # without one, it is measured every time
    known = _read_json(path) if path else {}
    with _left_as_it_was(traced):
        if key not in known:
            runs = {"training": _train} if any(traced.trained) else {}
            runs["inference"] = lambda net, X: net(X)
            watch = cores.Watch()
            found = {kind: _seconds(traced, X, candidate, run) for kind, run in runs.items()}
            known[key] = {kind: seconds for kind, (seconds, _) in found.items()}
            is_sure = all(seconds and is_finite for seconds, is_finite in found.values())
            if path and is_sure and watch.others() < ALONE:
                _write_json(path, known)
    return known[key]


@contextlib.contextmanager
def _left_as_it_was(traced):
    """Put back what steps of training change: parameters, gradients and random numbers."""
    params = traced.net.collect_params().values()
    trained = [p for p in params if p.grad_req != "null"]
    arrays = [array for p in params for array in p.list_data()]
    arrays += [gradient for p in trained for gradient in p.list_grad()]
    values = [array.copy() for array in arrays]
    # the Trainer's mark of a gradient that it has not used
    marks = [(array, array._fresh_grad) for p in trained for array in p.list_data()]
    seed = int(np.random.randint(0, 2**31 - 1)) if traced.draws else None
    try:
        yield
    finally:
        for array, value in zip(arrays, values, strict=True):
            array[:] = value
        for array, is_fresh in marks:
            array._fresh_grad = is_fresh
        if traced.draws:  # MXNet does not tell its state: it is another, but always the same
            mx.random.seed(seed)


def _seconds(traced, X, candidate, run, num_rounds=4):
    """Return the seconds that a run on a batch takes by each plan that works.

    The plans take turns, so that other work on the machine slows them all; the first round
    allocates memory and does not count, and what falls behind drops out. Also returned is whether
    all that came out was finite.
    """
    candidates, seconds, exact, is_finite = {}, {plan: [] for plan in _PLANS}, None, True
    for number in range(num_rounds):
        for plan in [*candidates] if number else _PLANS:
            net = candidates.pop(plan, None)
            if traced.draws:
                mx.random.seed(0)  # all drop the same
            try:
                net = net or candidate(plan)
                start = time.perf_counter()
                Y = run(net, X)
                npx.waitall()
            except mx.MXNetError:  # oneDNN lacks an operator in this precision or layout
                if plan == FLOAT32:
                    raise
                seconds[plan].clear()
                continue
            took = time.perf_counter() - start
            exact = Y.copy() if exact is None else exact
            is_finite = is_finite and bool(np.isfinite(Y).all())
            if abs(Y - exact).max() <= 0.1 * abs(exact).max():
                candidates[plan] = net
                seconds[plan].append(took)
            else:
                seconds[plan].clear()
        best = {plan: min(seconds[plan][1:], default=0) for plan in candidates}
        limit = BEHIND * min(best.values(), default=0)
        candidates = {plan: net for plan, net in candidates.items() if best[plan] <= limit}
        if number and len(candidates) < 2:
            break
    return {str(plan): min(of[1:]) for plan, of in seconds.items() if len(of) > 1}, is_finite


def _train(net, X):
    with autograd.record():
        Y = net(X)
    Y.backward()
    return Y


def _fingerprint(traced, X):
    """Identify what a measurement depends on: the graph, the batch, the machine and MXNet."""
    what = [traced.operators, traced.trained, X.shape, str(X.ctx), list(map(str, _PLANS))]
    what += [machine.describe(), os.environ.get("DNNL_MAX_CPU_ISA")]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _read_json(path):
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_json(path, value):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json.dumps(value, indent=1).encode())
    except OSError as error:  # a read-only home: measured again next time
        warnings.warn(f"could not remember the fastest precision: {error}", stacklevel=2)
