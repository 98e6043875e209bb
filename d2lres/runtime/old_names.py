"""The names that MXNet 1.9.1 knows and that are gone, of NumPy and of other libraries.

Its modules import through windows in which they still stand; so does the book's, ``d2l.mxnet``.
"""

import builtins
import functools
import importlib
import importlib.util
import re
import sys
import types

from . import old_numbers

__all__ = ["builtins_for", "complete"]

HAND_ON_TEXT = ("_ctypes.ndarray", "_ctypes.symbol", "io.io", "symbol.symbol")
SERVER = "mxnet.kvstore.kvstore_server"
RANDOM = re.compile(r"(ndarray|symbol)\.numpy(_extension)?\.random")
MADE_WITH_NUMBERS = re.compile(
    r"gluon\.(contrib\.)?(nn|rnn|loss)\b|initializer|lr_scheduler|metric|optimizer"
)


def builtins_for(module_name: str) -> dict:
    """Return the builtins that a module of MXNet is executed with."""
    names = dict(vars(builtins), __import__=_import_for_mxnet)
    if module_name.removeprefix("mxnet.") in HAND_ON_TEXT:
        names["str"] = old_numbers.Text
    return names


def complete(module: types.ModuleType) -> None:
    """Put right in a module of MXNet that has been executed what its builtins do not reach."""
    name = module.__name__.removeprefix("mxnet.")
    if name == "metric":
        old_numbers.sum_in_double(module.EvalMetric)
    elif name == "recordio":
        for function in (module.pack, module.pack_img):
            _rename(function, tostring="tobytes")
    elif name == "ndarray.ndarray":
        module.NDArray.__array__ = old_numbers.convert
    elif RANDOM.fullmatch(name):  # which compare a size with ()
        for function in module.__all__:
            setattr(module, function, old_numbers.plain_arguments(getattr(module, function)))
    if MADE_WITH_NUMBERS.match(name):
        for kind in list(vars(module).values()):
            if "__init__" in getattr(kind, "__dict__", ()) and kind.__module__ == module.__name__:
                kind.__init__ = old_numbers.plain_arguments(kind.__init__)


def _rename(function, **names):
    """Let a function use other names for what it takes from modules and objects."""
    code = function.__code__
    function.__code__ = code.replace(co_names=tuple(names.get(n, n) for n in code.co_names))


def _import_for_mxnet(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "numpy" and not fromlist:
        return _numpy_window()
    if name == "distutils.version":
        return _distutils_version()
    if name == "sklearn.base":  # for one deprecated class, with 500 modules
        raise ImportError("MXNet is told that scikit-learn is not installed")
    if name in ("scipy", "scipy.sparse", "scipy.stats"):
        return _scipy_on_demand()
    if name == "matplotlib" and "pyplot" in (fromlist or ()):
        return _matplotlib_window()
    if name == "pickle" and globals and globals["__name__"] == SERVER:
        from . import sent

        return sent
    if name in ("onnx", "onnx.mapping") and level == 0:
        return _onnx_window() if name == "onnx" else _onnx_window().mapping
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
    window.array = old_numbers.array
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
    scipy.sparse.csr = _OldCSR()
    return scipy


class _OldCSR:
    """Stands for ``scipy.sparse.csr``, which MXNet asks whether something is of its class."""

    @property
    def csr_matrix(self):
        sparse = sys.modules.get("scipy.sparse")
        return (sparse.csr_matrix, sparse.csr_array) if sparse else ()  # for isinstance


@functools.cache
def _matplotlib_window() -> types.ModuleType:
    """Return Matplotlib with a ``pyplot`` that takes what the book's cells hand to ``d2l.plt``."""
    from matplotlib import pyplot

    window = _OnDemand("matplotlib")
    window.pyplot = _OnDemand("matplotlib.pyplot")

    @functools.wraps(pyplot.stem)
    def stem(*args, use_line_collection=True, **kwargs):
        return pyplot.stem(*args, **kwargs)

    @functools.wraps(pyplot.plot)
    def plot(*args, **kwargs):
        return pyplot.plot(*map(old_numbers.flat, args), **kwargs)

    window.pyplot.stem, window.pyplot.plot = stem, plot
    return window


@functools.cache
def _onnx_window() -> types.ModuleType:
    """Return ONNX with the tables of types that it had, writing the operators that MXNet knows."""
    from onnx import helper

    dtypes = {n: helper.tensor_dtype_to_np_dtype(n) for n in helper.get_all_tensor_dtypes()}
    window = _OnDemand("onnx")
    window.mapping = types.SimpleNamespace(
        TENSOR_TYPE_TO_NP_TYPE=dtypes,
        NP_TYPE_TO_TENSOR_TYPE={dtype: number for number, dtype in reversed(dtypes.items())},
    )
    window.helper = _OnDemand("onnx.helper")
    window.helper.make_model = functools.partial(
        helper.make_model, opset_imports=[helper.make_opsetid("", 13)]
    )
    return window


@functools.cache
def _distutils_version() -> types.ModuleType:
    """Return what is left to need of a module that Python 3.12 dropped."""
    from packaging.version import Version

    module = types.ModuleType("distutils.version")
    module.LooseVersion = module.StrictVersion = Version
    return module
