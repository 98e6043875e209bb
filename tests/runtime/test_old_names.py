"""MXNet sees the names that it knows; everyone else sees NumPy, SciPy and Python as they are."""

import mxnet as mx
import pytest

from d2lres.runtime import old_names

IN_ONE_INTERPRETER = """
import sys
import numpy, packaging.version, types, warnings
def state():
    of_numpy = {k: v for k, v in vars(numpy).items() if not isinstance(v, types.ModuleType)}
    return of_numpy, list(warnings.filters), "distutils" in sys.modules
before = state()
import mxnet as mx
seen["NumPy is as it was"] = before == state()
seen["no name of old"] = hasattr(numpy, "PZERO") == numpy.__version__.startswith("1.")

mx.nd.array([1.0])
import mxnet.test_utils, mxnet.contrib.quantization as quantization
seen["loaded"] = [m for m in ("scipy", "sklearn") if m in sys.modules]
import scipy.sparse
for kind in (scipy.sparse.csr_matrix, scipy.sparse.csr_array):
    given = kind([[0.0, 1.0], [2.0, 0.0]])
    seen[kind.__name__] = [
        [x.stype, x.asnumpy().tolist()]
        for x in (mx.nd.sparse.array(given), mx.nd.sparse.csr_matrix(given), mx.nd.array(given))
    ]
csr = mx.nd.sparse.csr_matrix(([1.0, 2.0], [1, 0], [0, 1, 2]), shape=(2, 2)).asscipy()
seen["csr"], seen["entropy"] = csr.toarray().tolist(), float(quantization.stats.entropy([1.0]))

Header = mx.recordio.IRHeader
labels = {"list": [1, 2], "numpy": numpy.array([1.0, 2.0]), "one": numpy.float32(3)}
for name, label in labels.items():
    header, content = mx.recordio.unpack(mx.recordio.pack(Header(0, label, 7, 0), b"abc"))
    seen[name] = [numpy.asarray(header.label).tolist(), header.id, content.decode()]
class cv2:  # what pack_img needs of it
    IMWRITE_JPEG_QUALITY = IMWRITE_PNG_COMPRESSION = 1
    imencode = staticmethod(lambda kind, image, parameters: (True, image))
mx.recordio.cv2 = cv2
packed = mx.recordio.pack_img(Header(0, [1, 2], 7, 0), numpy.array([65, 66], "uint8"))
seen["image"] = mx.recordio.unpack(packed)[1].decode()

warnings.simplefilter("ignore")
import sklearn.base
seen["sklearn"] = sklearn.__version__ > "0"
from mxnet import np, npx
npx.set_np()
seen["length"], seen["chosen"] = len(numpy.array([1.5, 2.5])), np.zeros(3)[np.array([1])].tolist()
"""


@pytest.fixture(scope="module")
def seen(python):
    """What is seen where a warning of what will be gone is an error."""
    seen, err = python(IN_ONE_INTERPRETER, "-W", "error")
    assert not err
    return seen


@pytest.mark.slow
def test_numpy_stays_as_it_was_for_everyone_else(seen):
    assert seen["NumPy is as it was"] and seen["no name of old"]
    assert (seen["length"], seen["chosen"]) == (2, [0.0])


@pytest.mark.slow
def test_mxnet_loads_scipy_and_scikit_learn_when_they_are_used(seen):
    """That it does without them is seen by tests/tiny_run.py."""
    assert seen["loaded"] == [] and seen["sklearn"]
    assert (seen["csr"], seen["entropy"]) == ([[0, 1], [2, 0]], 0)


@pytest.mark.slow
def test_sparse_matrices_of_scipy_are_taken(seen):
    assert seen["csr_matrix"] == seen["csr_array"] == [["csr", [[0, 1], [2, 0]]]] * 3


@pytest.mark.slow
def test_records_are_packed(seen):
    assert seen["list"] == seen["numpy"] == [[1, 2], 7, "abc"]
    assert seen["one"] == [3, 7, "abc"] and seen["image"] == "AB"


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


def test_networks_go_to_onnx_and_back(tmp_path):
    onnx = pytest.importorskip("onnx")
    with mx.util.np_array(False), mx.util.np_shape(False):
        net = mx.gluon.nn.HybridSequential()
        net.add(mx.gluon.nn.Conv2D(2, 3), mx.gluon.nn.Flatten(), mx.gluon.nn.Dense(3))
        net.initialize()
        net.hybridize()
        X = mx.nd.random.uniform(shape=(1, 1, 5, 5))
        y = net(X)
        net.export(str(tmp_path / "net"))
        files = [f"{tmp_path}/net-{end}" for end in ("symbol.json", "0000.params", "0000.onnx")]
        path = mx.onnx.export_model(*files[:2], [X.shape], onnx_file_path=files[2])
        onnx.checker.check_model(onnx.load(path))
        symbol, arg_params, _ = mx.contrib.onnx.import_model(path)
        again = symbol.bind(mx.cpu(), {"data": X, **arg_params}).forward()[0]
    assert mx.test_utils.almost_equal(again.asnumpy(), y.asnumpy())


@pytest.mark.slow
def test_the_cells_of_the_book_draw():
    d2l = pytest.importorskip("d2l.mxnet")
    from matplotlib import pyplot

    assert d2l.plt.stem([0, 1], [0.3, 0.7], use_line_collection=True)
    (line,) = d2l.plt.plot((-5.0, mx.np.array([1.0])), (-2, mx.np.array([2.0])), "-o")
    assert line.get_xydata().tolist() == [[-5, -2], [1, 2]] and line.get_marker() == "o"
    assert d2l.plt.gcf() is pyplot.gcf() and d2l.plt.rcParams is pyplot.rcParams
    pyplot.close("all")
