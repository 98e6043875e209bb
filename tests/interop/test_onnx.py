"""What `export` writes computes the same in MXNet without the library, and in onnxruntime."""

import functools
import sys

import numpy as onp
import pytest
from mxnet import gluon, np, npx
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision
from networks import in_a_row, initialized

from d2lres import Bottleneck, cifar_resnet, compile, export, features
from d2lres.models import _resnet, small_resnet

NETWORKS = {
    **{f"shortcut {o}": functools.partial(cifar_resnet, 8, shortcut=o) for o in "ABC"},
    "pre-activation": lambda: cifar_resnet(8, preact=True, shortcut="A"),
    "plain": lambda: cifar_resnet(8, residual=False),
    "resnet18, the book's": lambda: _resnet(18, 10, form="d2l", width=8),
    "resnet18, the paper's": lambda: _resnet(18, 10, stem="cifar", width=8),
    "resnet50": lambda: _resnet(50, 10, width=8),
    "small": lambda: small_resnet((4, 8)),
    "features": lambda: features(cifar_resnet(8)),
    # its first gamma is fixed
    "model_zoo": lambda: vision.ResNetV2(vision.BasicBlockV2, [1, 1], [4, 4, 8], thumbnail=True),
}


def random(net, X):
    """A network with weights, and batch norms of which each number matters."""
    initialized(net, X.shape)
    for name, param in net.collect_params(".*(gamma|beta|mean|var|bias)$").items():
        low = -0.5 if name.endswith(("beta", "mean", "bias")) else 0.5
        param.set_data(np.random.uniform(low, low + 1, size=param.shape))
    return net


def in_onnxruntime(path, X):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"data": X.asnumpy()})[0]


@pytest.fixture
def images():
    return np.random.uniform(-1, 1, size=(3, 3, 32, 32))


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx(name, images, tmp_path):
    net = random(NETWORKS[name](), images)
    (path,) = export(net, tmp_path / "net.onnx")
    for X in (images, images[:1], images[:, :, :16, :24]):
        Y = net(X).asnumpy()
        assert abs(Y).max() > 0.1
        assert onp.allclose(in_onnxruntime(path, X), Y, rtol=1e-4, atol=1e-4)


def other_layers():
    return in_a_row(
        nn.Conv2D(6, 3, strides=2, padding=2, dilation=2, groups=3, activation="tanh"),
        nn.AvgPool2D(3, 2, 1, count_include_pad=False),
        nn.BatchNorm(epsilon=0.5),
        Bottleneck(8, 6, strides=2),
        nn.MaxPool2D(2),
        nn.Dropout(0.5),
        nn.Dense(5, activation="sigmoid", use_bias=False),
    )


def a_block_that_is_applied_twice():
    blk = nn.Conv2D(3, 3, padding=1)
    return in_a_row(blk, nn.Activation("relu"), blk, nn.GlobalAvgPool2D())


@pytest.mark.parametrize("build", [other_layers, a_block_that_is_applied_twice])
def test_onnx_of(build, images, tmp_path):
    net = random(build(), images)
    (path,) = export(net, tmp_path / "net.onnx")
    assert onp.allclose(in_onnxruntime(path, images), net(images).asnumpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_mxnets_own_files(images, tmp_path):
    net = random(cifar_resnet(8, shortcut="A"), images)
    paths = export(net, tmp_path / "new" / "net")
    assert [path.name for path in paths] == ["net-symbol.json", "net-0000.params"]
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths)
    imported = gluon.SymbolBlock.imports(str(paths[0]), ["data"], str(paths[1]))
    assert (imported(images) == net(images)).all()
    for name in npx.load(str(paths[1])):  # as Module and the other languages expect them
        assert name.startswith("aux:" if "running" in name else "arg:")
    again = export(imported, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]
    (path,) = export(imported, tmp_path / "net.onnx")
    assert onp.allclose(in_onnxruntime(path, images), net(images).asnumpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("~/new/net", ["new/net-0000.params", "new/net-symbol.json"]),
        ("~/NET.ONNX", ["NET.ONNX"]),
        ("net.v1.2", ["net.v1.2-0000.params", "net.v1.2-symbol.json"]),
        ("net.onnx.bak", ["net.onnx.bak-0000.params", "net.onnx.bak-symbol.json"]),
        ("bad\udcff", ["bad\udcff-0000.params", "bad\udcff-symbol.json"]),
        ("bad\udcff.onnx", ["bad\udcff.onnx"]),
    ],
)
def test_names_of_files(path, written, images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = export(random(small_resnet((4,)), images), path)
    assert sorted(str(p.absolute().relative_to(tmp_path)) for p in paths) == written
    files = [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(map(str, files)) == written


@pytest.mark.parametrize("path", ["folder", "folder/", "folder.onnx", ".", "file/n.onnx", "file/n"])
def test_places_where_no_file_can_be(path, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    words = "Not a directory" if "file" in path else "it is a folder; add the name of a file in it"
    with pytest.raises(OSError, match=f"^{path.strip('/')} cannot be written: {words}"):
        export(random(small_resnet((4,)), images), path)
    assert len(list(tmp_path.rglob("*"))) == 3


class Strange(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        return F.np.exp(X)


UNKNOWN = {
    "an operator": (Strange(), "strange.*exp.* it is _npi_exp, .*Conv.*end in .onnx writes"),
    "an option": (nn.Activation("softsign"), "it is Activation with act_type=softsign, "),
    "a pooling": (nn.MaxPool2D(ceil_mode=True), "Pooling with pooling_convention=full"),
    "an axis": (nn.Dense(3, flatten=False), "FullyConnected with flatten=False"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_onnx_export_does_not_know(case, images, tmp_path):
    pytest.importorskip("onnx")
    net, words = UNKNOWN[case]
    net.initialize()
    net(images)
    with pytest.raises(ValueError, match=words):
        export(net, tmp_path / "new" / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("initialized", [False, True])
def test_a_network_without_values(initialized, tmp_path):
    net = small_resnet((4,))
    if initialized:  # but the channels of its input are not known
        net.initialize()
    with pytest.raises(RuntimeError, match=r"nothing to export: call net.initialize\(\)"):
        export(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_plain_network(images, tmp_path):
    net = random(small_resnet((4,)), images)
    with pytest.raises(TypeError, match="compiled network pass the one it was compiled from"):
        export(compile(net, images), tmp_path / "net")


def test_without_onnx(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    net = random(small_resnet((4,)), images)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx"):
        export(net, tmp_path / "net.onnx")
    assert len(export(net, tmp_path / "net")) == 2


def test_an_error_leaves_the_old_files(images, tmp_path, monkeypatch):
    net = random(small_resnet((4,)), images)
    before = {path: path.read_bytes() for path in export(net, tmp_path / "net")}

    def full(path, arrays):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(npx, "save", full)
    with pytest.raises(OSError, match="no space left"):
        export(random(cifar_resnet(8), images), tmp_path / "net")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
