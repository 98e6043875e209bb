"""MXNet sees the names that it knows; everyone else sees NumPy, SciPy and Python as they are."""

import pytest

from d2lres.runtime import old_names

IN_ONE_INTERPRETER = """
import numpy, packaging.version, sys, types, warnings
def state():
    of_numpy = {k: v for k, v in vars(numpy).items() if not isinstance(v, types.ModuleType)}
    return of_numpy, list(warnings.filters), "distutils" in sys.modules
before = state()
import mxnet as mx
seen["NumPy is as it was"] = before == state()
seen["no name of old"] = hasattr(numpy, "PZERO") == numpy.__version__.startswith("1.")

import mxnet.test_utils, mxnet.contrib.quantization as quantization
seen["loaded"] = [m for m in ("scipy", "sklearn") if m in sys.modules]
csr = mx.nd.sparse.csr_matrix(([1.0, 2.0], [1, 0], [0, 1, 2]), shape=(2, 2)).asscipy()
seen["csr"], seen["entropy"] = csr.toarray().tolist(), float(quantization.stats.entropy([1.0]))
import sklearn.base
seen["sklearn"] = sklearn.__version__ > "0"

from mxnet import np, npx
npx.set_np()
seen["length"], seen["chosen"] = len(numpy.array([1.5, 2.5])), np.zeros(3)[np.array([1])].tolist()
"""


@pytest.fixture(scope="module")
def seen(python):
    seen, err = python(IN_ONE_INTERPRETER)
    assert not err
    return seen


def test_numpy_stays_as_it_was_for_everyone_else(seen):
    assert seen["NumPy is as it was"] and seen["no name of old"]
    assert (seen["length"], seen["chosen"]) == (2, [0.0])


def test_mxnet_loads_scipy_and_scikit_learn_when_they_are_used(seen):
    assert seen["loaded"] == [] and seen["sklearn"]
    assert (seen["csr"], seen["entropy"]) == ([[0, 1], [2, 0]], 0)


def test_mxnet_does_without_scipy(python):
    seen, err = python("import sys\nsys.modules['scipy'] = None\nimport mxnet\nseen['loaded'] = 1")
    assert (seen, err) == ({"loaded": 1}, "")


def test_old_names_are_seen_through_the_window_only():
    window = old_names._numpy_window()
    assert window.bool is bool and window.PZERO == 0 and window.NINF == -float("inf")
    assert window.product([2, 3]) == 6 and window.msort([[2], [1]]).tolist() == [[1], [2]]
    assert window.compat.basestring is str
    assert window.core.numeric.normalize_axis_tuple(-1, 2) == (1,)
    if not hasattr(window, "npv") or window.npv.__name__ == "npv":
        with pytest.raises((NotImplementedError, RuntimeError)):
            window.npv()


def test_versions_compare():
    Version = old_names._distutils_version().LooseVersion
    assert Version("2.10.1") > Version("2.9") > Version("1.17")
