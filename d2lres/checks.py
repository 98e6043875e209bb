"""What students get wrong, said once: what was expected, what came, and what to do."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

__all__ = [
    "checked",
    "device_of",
    "height_width",
    "images",
    "labels",
    "learning_rate",
    "one_each",
    "pairs",
    "something_to_train",
    "whole",
]


def checked(check: Callable, method: str | None = None) -> Callable:
    """Call ``check`` with the arguments of a function, or of a method of a class, before it.

    A decorator, because what it decorates stands word for word in the lessons.
    """

    def decorate(taught):
        function = getattr(taught, method) if method else taught

        @functools.wraps(function)
        def checked_function(*args, **kwargs):
            check(*args, **kwargs)
            return function(*args, **kwargs)

        if not method:
            return checked_function
        setattr(taught, method, checked_function)
        return taught

    return decorate


# --- arguments


def whole(name: str, value, least: int = 1) -> int:
    """Return a whole number, of Python or NumPy, of at least ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number


def height_width(name: str, value) -> tuple[int, int] | None:
    """Return a size as (height, width), from that or from the side of a square."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number of pixels or (height, width), not {value!r}")
    return tuple(whole(name, side) for side in pair)


def learning_rate(lr, scheduler=None) -> None:
    """Check that a step goes downhill, and that a scheduler begins with it."""
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(
            f"the learning rate must be a positive number, got lr={lr}: with a negative one each "
            "step would go uphill. Try lr=0.05."
        )
    # MXNet would go by the scheduler, or let both disagree, depending on its kind
    if scheduler and not math.isclose(scheduler.base_lr, lr):
        raise ValueError(
            f"the scheduler is at the learning rate {scheduler.base_lr:.3g}, but lr={lr}. Make a "
            f"new one with base_lr={lr}; one that has been used stays where it ended."
        )


# --- images, labels and scores


def images(X, function: str) -> None:
    """Check that X is a batch of images."""
    if X.ndim != 4 or not len(X):
        raise ValueError(
            f"{function} expects a batch of images (batch, channels, height, width), got "
            f"{X.shape}; for a single image X write X[None]"
        )


def one_each(X, y, what: str = "label") -> None:
    """Check that there is one label, or class, for each image."""
    if y.shape != (len(X),):
        raise ValueError(
            f"expected one {what} for each of the {len(X)} images, y of shape ({len(X)},), but got "
            f"shape {y.shape}"
        )


def pairs(first, second, name: str) -> None:
    """Check that there are as many of one as of the other."""
    if len(first) != len(second):
        raise ValueError(f"expected {len(first)} {name}, one for each image, but got {len(second)}")


def labels(y, num_classes: int, name: str = "labels") -> None:
    """Check that labels are those of so many classes; MXNet's loss would silently clip others."""
    if not len(y):
        return
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} go from {low} to {high}, but there are {num_classes} classes, for the labels "
            f"0 to {num_classes - 1}. Build the network with num_classes={high + 1}, or check y."
        )


# --- networks


def device_of(net):
    """Return the device of a network's parameters, or say that there are none yet."""
    for name, param in net.collect_params().items():
        if param._data is None and not param._deferred_init:
            raise RuntimeError(
                f"the network has no weights yet ({name} is not initialised). "
                "Call net.initialize(mx.init.Xavier()) first."
            )
        return param.list_ctx()[0]
    import mxnet as mx

    return mx.cpu()


def something_to_train(net) -> None:
    """Check that a network has weights and that not all of them are frozen."""
    device_of(net)
    if all(param.grad_req == "null" for param in net.collect_params().values()):
        raise ValueError(
            "the network has nothing to train: all its parameters are frozen, or it has none. "
            "Call unfreeze(net), or put a new last layer on it with replace_head."
        )
