"""The names that MXNet 1.9.1 knows and that are gone: of NumPy, SciPy and the standard library.

Its modules import through a window in which they still stand.
"""

import builtins
import functools
import importlib
import importlib.util
import types

__all__ = ["builtins_for"]


def builtins_for(module_name: str) -> dict:
    """Return the builtins that a module of MXNet is executed with."""
    return dict(vars(builtins), __import__=_import_for_mxnet)


def _import_for_mxnet(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "numpy" and not fromlist:
        return _numpy_window()
    if name == "distutils.version":
        return _distutils_version()
    if name == "sklearn.base":  # for one deprecated class, with 500 modules
        raise ImportError("MXNet is told that scikit-learn is not installed")
    if name in ("scipy", "scipy.sparse", "scipy.stats"):
        return _scipy_on_demand()
    return __import__(name, globals, locals, fromlist, level)


@functools.cache
def _numpy_window() -> types.ModuleType:
    """Return a module with all of NumPy's names, and those that MXNet misses."""
    import numpy

    try:
        from numpy.lib.array_utils import normalize_axis_tuple
    except ImportError:  # before NumPy 2
        from numpy.core.numeric import normalize_axis_tuple

    window = types.ModuleType("numpy", numpy.__doc__)
    renamed = {
        "alltrue": "all",
        "cumproduct": "cumprod",
        "float_": "float64",
        "in1d": "isin",
        "product": "prod",
        "round_": "round",
        "row_stack": "vstack",
        "sometrue": "any",
        "trapz": "trapezoid",
    }
    constants = {
        "Inf": numpy.inf,
        "NAN": numpy.nan,
        "NINF": -numpy.inf,
        "NZERO": -0.0,
        "NaN": numpy.nan,
        "PINF": numpy.inf,
        "PZERO": 0.0,
    }
    window.msort = lambda a: numpy.sort(a, axis=0)
    for name in ("mirr", "npv", "pmt", "ppmt", "pv", "rate"):
        setattr(window, name, _moved_to_numpy_financial(name))
    vars(window).update(constants)
    vars(window).update({old: getattr(numpy, new, None) for old, new in renamed.items()})
    vars(window).update(vars(numpy))  # what NumPy still has wins, with one exception
    window.bool, window.int = bool, int
    window.compat = types.SimpleNamespace(basestring=str)
    window.core = types.SimpleNamespace(
        numeric=types.SimpleNamespace(normalize_axis_tuple=normalize_axis_tuple)
    )
    return window


def _moved_to_numpy_financial(name):
    def moved(*args, **kwargs):
        raise NotImplementedError(f"numpy.{name} is gone: use numpy_financial.{name}")

    moved.__name__ = name
    return moved


class _OnDemand(types.ModuleType):
    """Stands for a module, which is loaded when something of it is used."""

    def __getattr__(self, name):
        return getattr(importlib.import_module(self.__name__), name)


@functools.cache
def _scipy_on_demand() -> types.ModuleType:
    """Return SciPy with the parts that MXNet imports: a third of its time, and hardly ever used."""
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("SciPy is not installed")
    scipy = _OnDemand("scipy")
    scipy.sparse, scipy.stats = _OnDemand("scipy.sparse"), _OnDemand("scipy.stats")
    return scipy


@functools.cache
def _distutils_version() -> types.ModuleType:
    """Return what is left to need of a module that Python 3.12 dropped."""
    from packaging.version import Version

    module = types.ModuleType("distutils.version")
    module.LooseVersion = module.StrictVersion = Version
    return module
