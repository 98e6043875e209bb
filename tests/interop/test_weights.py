"""Weights made elsewhere give the numbers they give elsewhere, and a bad file changes nothing."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn
from networks import initialized, values_of
from reference.draw import draw
from safetensors.numpy import load_file, save_file

from d2lres import (
    Residual,
    cifar_resnet,
    load_keras_weights,
    load_torch_weights,
    models,
    resnet18,
    save_torch_weights,
)
from d2lres.interop import weights

REFERENCE = Path(__file__).parents[1] / "reference"


def reference(name):
    with onp.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def drawn(tensors):
    """The arrays that a reference file tells the names and shapes of."""
    lines = (line.split() for line in str(tensors).splitlines())
    return {name: draw(name, tuple(map(int, shape))) for name, *shape in lines}


def nchw(X):
    return onp.ascontiguousarray(X.transpose(0, 3, 1, 2))


def error(Y, expected):
    return abs(Y.asnumpy() - expected).max()


# --- the same numbers


DEEP = [pytest.param(depth, marks=pytest.mark.slow) for depth in (50, 101, 152)]


@pytest.mark.parametrize("depth", [18, 34, *DEEP])
def test_torchvision(tmp_path, depth):
    expected = reference("torch_resnets")
    arrays = drawn(expected[f"{depth}/tensors"])
    if depth == 18:
        onp.savez(tmp_path / "x.npz", **arrays)
    else:
        save_file(arrays, tmp_path / "x.safetensors")
    del arrays
    form = {"form": "paper"} if depth < 50 else {}
    net = getattr(models, f"resnet{depth}")(num_classes=10, **form)
    load_torch_weights(net, *tmp_path.iterdir())
    assert error(net(np.array(draw("X", (2, 3, 64, 64)))), expected[f"{depth}/Y"]) < 1e-4


@pytest.fixture
def keras_file(tmp_path):
    onp.savez(tmp_path / "keras.npz", **drawn(reference("keras_resnet")["tensors"]))
    return tmp_path / "keras.npz"


@pytest.mark.parametrize("hybridize", [False, True])
def test_keras(keras_file, hybridize):
    X = np.array(nchw(draw("X", (2, 16, 16, 3))))
    net = initialized(cifar_resnet(8), X.shape)
    net.hybridize(hybridize)
    net(X)
    load_keras_weights(net, keras_file)
    assert error(net(X), reference("keras_resnet")["Y"]) < 1e-4


def test_the_epsilon_of_keras_stays_when_the_parameters_are_saved(keras_file, tmp_path):
    net, again = cifar_resnet(8), cifar_resnet(8)
    load_keras_weights(net, keras_file)
    net.save_parameters(str(tmp_path / "ours"))
    again.load_parameters(str(tmp_path / "ours"))
    X = np.array(nchw(draw("X", (2, 16, 16, 3))))
    assert error(again(X), reference("keras_resnet")["Y"]) < 1e-4
    load_keras_weights(net, keras_file, epsilon=1e-5)
    assert error(net(X), reference("keras_resnet")["Y"]) > 1e-4


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_residual_block_of_lesson_8(framework):
    numbers, is_torch = reference(f"{framework}_block"), framework == "torch"
    to_here, dot = (onp.asarray, ".") if is_torch else (nchw, "/")
    options = {} if is_torch else {"epsilon": 1e-3, "momentum": 0.99}
    net = Residual(8, use_1x1conv=True, strides=2)
    net.bn1, net.bn2 = nn.BatchNorm(**options), nn.BatchNorm(**options)
    X = np.array(to_here(numbers["X"]))
    initialized(net, X.shape)
    layers = {name + dot: getattr(net, name) for name in ("conv1", "conv2", "conv3", "bn1", "bn2")}
    names = weights._TORCH if is_torch else weights._KERAS
    wanted = weights._wanted(layers, names, {} if is_torch else {4: (3, 2, 0, 1)})
    for name, (param, _, axes) in wanted.items():
        param.set_data(np.array(numbers[name].transpose(axes)))
    assert error(net(X), to_here(numbers["inference"])) < 1e-4
    if not is_torch:
        assert error(net(X), to_here(numbers["same"])) > 1e-2
    with autograd.record():
        Y = net(X)
    assert error(Y, to_here(numbers["training"])) < 1e-4
    Y.backward()  # MXNet moves the running averages here
    for name, (param, _, _) in wanted.items():
        if "running" in param.name:
            after = numbers[f"after/{name}"]
            if is_torch and "var" in name:  # of n pixels, PyTorch divides by n - 1, MXNet by n
                before, n = 0.9 * numbers[name], Y.size // 8
                after = before + (after - before) * (n - 1) / n
            assert error(param.data(), after) < 1e-6


@pytest.mark.parametrize(("dtype", "close"), [("float32", 0), ("float16", 1e-3)])
def test_there_and_back(tmp_path, fits, dtype, close):
    net, again = cifar_resnet(8), cifar_resnet(8)
    load_torch_weights(net, written(tmp_path, fits))
    save_torch_weights(net, tmp_path / "new" / "ours.safetensors", dtype)
    arrays = load_file(tmp_path / "new" / "ours.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == dict.fromkeys(fits, dtype)
    assert all(onp.allclose(arrays[n], fits[n], atol=close, rtol=close) for n in fits)
    load_torch_weights(again, tmp_path / "new" / "ours.safetensors")
    X = np.ones((2, 1, 8, 8))
    assert abs(again(X) - net(X)).max() <= 20 * close


@pytest.mark.parametrize("name", ["~/ours.safetensors", "X.SAFETENSORS", "bad\udcff.safetensors"])
def test_names_of_files(name, tmp_path, monkeypatch, fits):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    net, again = cifar_resnet(8), cifar_resnet(8)
    load_torch_weights(net, written(tmp_path, fits).rename(tmp_path / "X.NPZ"))
    save_torch_weights(net, name)
    assert len(list(tmp_path.glob("*.[Ss]*"))) == 1
    load_torch_weights(again, name)
    assert (again[-1].bias.data() == net[-1].bias.data()).all()


def test_weights_that_cannot_be_saved(tmp_path, fits):
    net, path = cifar_resnet(8), tmp_path / "ours.safetensors"
    with pytest.raises(RuntimeError, match="not been initialized"):
        save_torch_weights(net, path)
    fits["bn1.running_var"][3] = 1e5
    load_torch_weights(net, written(tmp_path, fits))
    for args, error, words in [
        ((net, path, "float16"), ValueError, "^bn1.running_var: not all weights.*float16 can"),
        ((net, path, "int8"), ValueError, "dtype is 'float32' or 'float16', not 'int8'"),
        ((net, tmp_path / "ours.params"), ValueError, "to a .safetensors file, but.*'ours.params'"),
        ((resnet18(), path), TypeError, "pass form='paper'"),
        ((net, tmp_path), OSError, "cannot be written: it is a folder; add the name of a file"),
        ((net, tmp_path / "x.npz" / "y.safetensors"), OSError, "cannot be written: Not a direct"),
    ]:
        with pytest.raises(error, match=words):
            save_torch_weights(*args)
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


# --- a file that does not fit changes nothing


@pytest.fixture
def fits():
    """The arrays of a file that fits the network of the tests below."""
    tensors = _tensors(cifar_resnet(8))
    return {name: draw(name, shape) for name, shape in tensors.items()}


def _tensors(net):
    layers = {f"{name}.": layer for layer, name, _ in weights._named_layers(net)}
    wanted = weights._wanted(layers, weights._TORCH, {})
    return {name: tuple(abs(n) for n in tensor.shape) for name, tensor in wanted.items()}


def refused(path, words, error=ValueError, load=load_torch_weights):
    """Check that a file is refused in these words, and return all of them."""
    net = initialized(cifar_resnet(8), (1, 1, 8, 8))
    before = values_of(net.collect_params())
    with pytest.raises(error, match=words) as info:
        load(net, path)
    after = values_of(net.collect_params())
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    return str(info.value)


def written(folder, arrays):
    onp.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_what_does_not_fit_is_listed_by_name(tmp_path, fits, suffix):
    fits["layer1.0.conv3.weight"] = fits.pop("layer1.0.conv2.weight")
    fits["fc.weight"] = fits["fc.weight"][:, :32]
    fits["bn1.bias"] = fits["bn1.bias"].astype(onp.int32)
    path = tmp_path / f"x.{suffix}"
    onp.savez(path, **fits) if suffix == "npz" else save_file(fits, path)
    int32 = "int32" if suffix == "npz" else "I32"
    assert refused(path, "whose weights are as they were").splitlines()[1:] == [
        "missing (1):",
        "  layer1.0.conv2.weight",
        "extra (1):",
        "  layer1.0.conv3.weight",
        "misshapen (2):",
        f"  bn1.bias (expected float32 (16,), found {int32} (16,))",
        "  fc.weight (expected float32 (10, 64), found float32 (10, 32))",
    ]


MANY = {f"conv{i}": onp.ones(1) for i in range(10, 25)}
CLASSES = {"fc.weight": onp.ones((100, 64), "f4"), "fc.bias": onp.ones(100, "f4")}
UNFIT = {
    "other classes": (CLASSES, r"(?s)fc.bias \(expected .*is for 100 classes: use num_classes=100"),
    "a long list": (MANY, r"(?s)extra \(15\):.*  conv19\n  ... and 5 more(?!.*conv20)"),
    "objects, that are saved as pickles": (
        {"fc.bias": onp.array([print] * 10)},
        r"misshapen \(1\):\n  fc.bias \(expected float32 \(10,\), found object \(10,\)\)$",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit(tmp_path, fits, case):
    changed, words = UNFIT[case]
    refused(written(tmp_path, fits | changed), words)


def test_a_file_of_another_network(tmp_path):
    refused(written(tmp_path, {"a": onp.ones(2)}), "None of the names is known")
    deeper = {name: draw(name, shape) for name, shape in _tensors(cifar_resnet(14)).items()}
    refused(written(tmp_path, deeper), r"(?s)extra \(30\):\n  layer1.1.bn1.bias.*and 20 more")


@pytest.mark.parametrize("value", [onp.nan, -onp.inf, 1e300])
def test_what_is_no_number_is_listed_by_name(tmp_path, fits, value):
    for name in ("bn1.bias", "fc.weight"):
        fits[name] = fits[name].astype(onp.float64)
        fits[name].flat[0] = value
    words = "x.npz: not all weights are numbers that float32 can hold.*as they were"
    lines = refused(written(tmp_path, fits), words).splitlines()
    assert lines[1:] == ["not finite (2):", "  bn1.bias", "  fc.weight"]


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4"])
def test_other_floats_and_the_number_of_batches(tmp_path, fits, dtype):
    net, converted = cifar_resnet(8), {name: a.astype(dtype) for name, a in fits.items()}
    counted = {"bn1.num_batches_tracked": onp.array(3)}
    load_torch_weights(net, written(tmp_path, converted | counted))
    for name, param in (("fc.weight", net[-1].weight), ("conv1.weight", net[0][0].weight)):
        assert (param.data().asnumpy() == converted[name].astype("f4")).all()


def test_a_network_that_is_trained(tmp_path, fits):
    net, X = initialized(cifar_resnet(8)), np.ones((2, 1, 8, 8))
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    with autograd.record():
        Y = net(X)
    Y.backward()
    trainer.step(2)
    load_torch_weights(net, written(tmp_path, fits))
    assert (net[-1].bias.data().asnumpy() == fits["fc.bias"]).all()


# --- files that are not what they say


@pytest.mark.slow
def test_files_cut_off_or_of_another_kind(tmp_path, fits):
    onp.savez(tmp_path / "good.npz", **fits)
    save_file(fits, tmp_path / "good.safetensors")
    for good in list(tmp_path.iterdir()):
        content, bad = good.read_bytes(), tmp_path / f"bad{good.suffix}"
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1  # npz has checksums, safetensors has none
        lies = [content[:-100], content[:9], b"", b"<html>", bytes(100)]
        for lie in lies + [bytes(damaged)] * (good.suffix == ".npz"):
            bad.write_bytes(lie)
            refused(bad, rf"bad{good.suffix} is no complete {good.suffix} file.*Copy or save")


def test_members_that_cannot_be_unpacked(tmp_path, fits):
    onp.savez_compressed(tmp_path / "x.npz", **fits)
    content = (tmp_path / "x.npz").read_bytes()
    central = content.index(b"PK\1\2")  # the list of members; the first member is at the start
    name, extra = struct.unpack("<HH", content[26:30])
    for places, value, words in [
        ([30 + name + extra], 7, "invalid block type"),
        ([6, central + 8], 1, "encrypted"),
    ]:
        damaged = bytearray(content)
        for place in places:
            damaged[place] = value
        (tmp_path / "x.npz").write_bytes(damaged)
        refused(tmp_path / "x.npz", words)


def test_names_of_which_nothing_is_read(tmp_path):
    refused(tmp_path / "none.npz", "none.npz", FileNotFoundError)
    refused(tmp_path / "none.safetensors", "none.safetensors", FileNotFoundError)
    refused(tmp_path, "read from a .safetensors or .npz file")
    (tmp_path / "resnet18.pth").write_bytes(b"")
    refused(tmp_path / "resnet18.pth", "but this is 'resnet18.pth'.*run any program")
    refused("x.keras", "but this is 'x.keras'", load=load_keras_weights)


def header(shape):
    """The first bytes of a .npy file of float32 that claims this shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


BOMBS = {
    "more than fits": (header((10, 10**9)), 10**7, "fc.weight .*found float32"),
    "more than it says": (header((10, 64)), 10**7, "fc.weight: more data than its header says"),
    "less than it says": (header((10, 64)), 100, "fc.weight: .*expected 2560 bytes got 100"),
    "a header without end": (b"\x93NUMPY\x02\x00\xff\xff\xff\x0f", 10**7, "fc.weight: the header"),
    "no array": (b"hello", 10, "fc.weight: .*magic string"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_zip_cannot_claim_memory(tmp_path, fits, bomb):
    start, num_zeros, words = BOMBS[bomb]
    del fits["fc.weight"]
    path = written(tmp_path, fits)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fc.weight.npy", start + bytes(num_zeros))
    tracemalloc.start()
    refused(path, words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_unknown_channels_are_bounded_and_compressions_known(tmp_path, fits):
    net = cifar_resnet(8)  # takes any number of channels
    wide = {"conv1.weight": onp.zeros((16, 5000, 3, 3), "f4")}
    with pytest.raises(ValueError, match=r"conv1.weight \(expected float32 \(16, -1, 3, 3\)"):
        load_torch_weights(net, written(tmp_path, fits | wide))
    path = written(tmp_path, fits)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as file, pytest.warns(UserWarning):
        file.writestr("fc.weight.npy", b"")
    refused(path, "fc.weight: compressed as NumPy does not")


def test_networks_that_have_no_such_names():
    for net in (resnet18(), cifar_resnet(8, preact=True), nn.Dense(2), Residual(3)):
        with pytest.raises(TypeError, match="network of BasicBlock or Bottleneck.*form='paper'"):
            load_torch_weights(net, "x.npz")
