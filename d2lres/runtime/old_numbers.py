"""Numbers as MXNet 1.9.1 knows them: NumPy's as they behaved before NumPy 2.

Since then a NumPy number shows its type when it is part of a list or a tuple, which MXNet hands to
C++ as text; a sum with Python's numbers has the type of NumPy's, be it too narrow; a number that a
type cannot hold is refused; and it is an error to ask for the truth of an empty array.
"""

import functools
import re

import numpy

__all__ = ["Text", "array", "convert", "flat", "plain_arguments", "sum_in_double"]

_WITH_TYPE = re.compile(r"\bnp\.(?:\w+\(([^()]*)\)|(True|False)_)")  # np.int64(3), np.True_


class _Texts(type):
    def __call__(cls, value):
        text = str(value)
        if "np." in text and not isinstance(value, str):
            return _WITH_TYPE.sub(r"\1\2", text)
        return text

    def __instancecheck__(cls, value):
        return isinstance(value, str)


class Text(metaclass=_Texts):
    """What ``str`` is to the modules of MXNet that hand numbers on as text."""


def plain(value):
    """Return Python's number for one of NumPy's, and so for each in a list or a tuple."""
    if isinstance(value, numpy.generic) or (isinstance(value, numpy.ndarray) and value.ndim == 0):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value


def flat(values):
    """Return a list or a tuple with numbers in the place of arrays of one."""
    if type(values) not in (list, tuple):
        return values
    return [v.item() if getattr(v, "shape", None) == (1,) else v for v in values]


def plain_arguments(function):
    """Let a function see Python's numbers in the place of NumPy's."""

    @functools.wraps(function)
    def with_plain_arguments(*args, **kwargs):
        return function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})

    return with_plain_arguments


def array(object, dtype=None, **kwargs):
    """``numpy.array``, with whole numbers beyond those of a type wrapped around, as they were."""
    try:
        return numpy.array(object, dtype=dtype, **kwargs)
    except OverflowError:
        return numpy.array(object, **kwargs).astype(dtype)


class _Sum(float):
    """A sum in double precision, whatever is added."""

    def __add__(self, other):
        return super().__add__(plain(other))


def sum_in_double(metric: type) -> None:
    """Let metrics sum in double precision, as they did when NumPy's float32 gave way to a float.

    Parameters
    ----------
    metric : type
        ``mxnet.metric.EvalMetric``.
    """
    sums = ("sum_metric", "global_sum_metric", "num_inst", "global_num_inst")

    def __setattr__(self, name, value):
        if name in sums:
            value = plain(value)
            value = _Sum(value) if isinstance(value, float) else value
        object.__setattr__(self, name, value)

    metric.__setattr__ = __setattr__


def convert(self, dtype=None, copy=None):
    """Return an array of MXNet as one of NumPy: its method ``__array__``."""
    if copy is False:
        raise ValueError("NumPy sees an array of MXNet by a copy only")
    return self.asnumpy().astype(dtype or self.dtype, copy=False)
