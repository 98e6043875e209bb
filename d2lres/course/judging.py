"""Whether an answer to an exercise means what is right: of numbers, arrays, networks and code."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as onp
from mxnet import autograd, gluon, np, npx

from ..checks import as_numpy

__all__ = ["Wrong", "called", "expect", "expect_array", "expect_network", "means"]

npx.set_np()


class Wrong(Exception):
    """An answer that is not right; the message is the hint that a student gets."""


# --- values


def means(answer: Any, right: Any) -> bool:
    """Return whether an answer means a word, a truth value, a number or some numbers.

    Whole numbers have to be exact, others right to about two digits. A list may stand for a tuple
    and NumPy's numbers for Python's, but 0 does not stand for False.
    """
    if isinstance(right, str):
        return isinstance(answer, str) and answer.strip().casefold() == right.casefold()
    if isinstance(right, bool):
        return isinstance(answer, bool | onp.bool_) and bool(answer) == right
    numbers, right = _numbers(answer), onp.asarray(right)
    if numbers is None or numbers.shape != right.shape:
        return False
    if right.dtype.kind in "iu":
        return bool((numbers == right).all())
    return onp.allclose(numbers, right, rtol=6e-3, atol=1e-4)


def _numbers(answer):
    """Return an answer as an array of floats, or None if it is not made of numbers."""
    try:
        array = as_numpy(answer)
        is_number = array.dtype.kind in "iufO"  # a Fraction is an object
        return array.astype(float) if is_number else None
    except (TypeError, ValueError):
        return None


def expect(answer: Any, right: Any, hint: str, slips: dict[Any, str] | None = None) -> None:
    """Raise ``Wrong`` with a hint if an answer does not mean what is right.

    ``slips`` are answers that students give, each with a hint of its own.
    """
    if means(answer, right):
        return
    for slip, its_hint in (slips or {}).items():
        if means(answer, slip):
            raise Wrong(its_hint)
    if isinstance(right, bool):
        is_kind, kind = isinstance(answer, bool), "True or False"
    elif isinstance(right, str):
        is_kind, kind = isinstance(answer, str), "a word in quotation marks"
    else:
        shape = onp.shape(right)
        numbers = _numbers(answer)
        is_kind = numbers is not None and numbers.shape == shape
        kind = f"{shape[0]} numbers" if shape else "a number"
    raise Wrong(hint if is_kind else f"expected {kind}. {hint}")


# --- code


def called(function: Callable, *args: Any) -> Any:
    """Call a student's function, with copies of its arrays, and return what it returns."""
    if not callable(function) or isinstance(function, gluon.Block):
        raise Wrong("answer has to be what you defined itself: answer = name, without parentheses")
    given = [arg.copy() if hasattr(arg, "copy") else arg for arg in args]
    result = function(*given)
    if result is None:
        raise Wrong("your code returns None. Is there a return in it?")
    for arg, own in zip(args, given, strict=True):
        if hasattr(arg, "shape") and not _equal(arg, own):
            raise Wrong("your code changes what it was given. Work on a copy")
    return result


def expect_array(answer: Any, right: Any, case: str, hint: str) -> None:
    """Raise ``Wrong`` if what a student's code returned is not an array of the right numbers."""
    came, right = as_numpy(answer), as_numpy(right)
    if came.dtype.kind not in "biuf":
        raise Wrong(
            f"{case}, expected an array of numbers, but got {type(answer).__name__}. {hint}"
        )
    if came.shape != right.shape:
        expected = f"the shape {right.shape}" if right.shape else "a single number"
        raise Wrong(f"{case}, expected {expected}, but got the shape {came.shape}. {hint}")
    if not _equal(came, right):
        raise Wrong(f"{case}, the shape is right, but not the numbers. {hint}")


def _equal(X, Y):
    X, Y = as_numpy(X), as_numpy(Y)
    return onp.allclose(X, Y, rtol=1e-4, atol=1e-4 * max(1, abs(Y).max(initial=0)))


# --- networks


def expect_network(
    net: gluon.Block, right: gluon.Block, *shapes: tuple[int, ...], hint: str
) -> None:
    """Raise ``Wrong`` if a student's network does not compute what the right one does.

    Both get the same weights, and images of each shape, in inference and in training mode. In what
    order their layers were made does not matter, because weights of one shape are all the same.
    """
    if isinstance(net, type) or not isinstance(net, gluon.Block):
        raise Wrong(f"expected a network or block of Gluon, not {type(net).__name__}")
    rng = onp.random.default_rng(0)
    images = [np.array(rng.uniform(-1, 1, shape).astype("float32")) for shape in shapes]
    came, expected = (_draw_weights(each, images[0]) for each in (net, right))
    if came != expected:
        raise Wrong(f"its layers have {_compared(came, expected)}. {hint}")
    for X in images:
        for mode in (autograd.predict_mode, autograd.train_mode):
            with mode():
                Y, Z = net(X), right(X)
            expect_array(Y, Z, f"for images of shape {X.shape}", hint)


def _draw_weights(net, X):
    """Give a network weights that depend on their kinds and shapes alone, and count those."""
    net.initialize(force_reinit=True)
    net(X)  # the shapes are known from here on
    counts = Counter()
    for name, param in net.collect_params().items():
        kind = re.search(r"(running_var|running_mean|gamma|beta|bias|)$", name)[0]
        counts[kind, param.shape] += 1
        rng = onp.random.default_rng(zlib.crc32(f"{kind} {param.shape}".encode()))
        low, high = (0.5, 1.5) if kind in ("gamma", "running_var") else (-1, 1)
        scale = math.prod(param.shape[1:]) ** -0.5  # 1 for all but weights
        param.set_data(np.array(scale * rng.uniform(low, high, param.shape).astype("float32")))
    return counts


def _compared(came, expected):
    """Say how many numbers the layers of a student's network have, and whether that is right."""
    num_came, num_expected = (
        sum(math.prod(shape) * count for (_, shape), count in counts.items())
        for counts in (came, expected)
    )
    if num_came == num_expected:
        return f"{num_came:,} numbers, as many as they should, but in other shapes"
    return (
        f"{num_came:,} numbers, {'more' if num_came > num_expected else 'fewer'} than they should"
    )
