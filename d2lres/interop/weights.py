"""Weights from PyTorch and Keras and back, without pickle."""

import contextlib
import os
import zipfile
import zlib
from typing import NamedTuple

import numpy as onp
from mxnet import gluon, np, npx
from mxnet.gluon import nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..blocks import BasicBlock, Bottleneck
from ..files.whole import expanded, writable, written_whole

__all__ = ["load_keras_weights", "load_torch_weights", "save_torch_weights"]

npx.set_np()

_PARAMS = ("weight", "bias", "gamma", "beta", "running_mean", "running_var")
# which of them are called something else elsewhere
_TORCH = {"gamma": "weight", "beta": "bias"}
_KERAS = {"weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance"}


def load_torch_weights(net: gluon.HybridBlock, path: str | os.PathLike) -> None:
    """Set the weights of a network to those of a torchvision ResNet (torchvision/models/resnet.py).

    The file is made in PyTorch by one of ::

        safetensors.torch.save_file(model.state_dict(), "resnet18.safetensors")
        numpy.savez("resnet18.npz", **{k: v.numpy() for k, v in model.state_dict().items()})

    Parameters
    ----------
    net : HybridSequential
        ``resnet18(1000, form="paper")``, ``resnet34()``, ``resnet50()``, ``resnet101()``,
        ``resnet152()`` or another network of ``BasicBlock`` or ``Bottleneck``. It need not be
        initialized: what is not, is put on the CPU. torchvision has the stride on the 3x3
        convolutions; ``stride_on_1x1=True`` takes the same file and gives other numbers.
    path : str or Path
        A ``.safetensors`` or ``.npz`` file with the names of ``torchvision.models.resnet18`` and
        its like: ``conv1.weight``, ``layer1.0.bn2.running_var`` ... ``fc.bias``, in float16,
        float32 or float64. ``num_batches_tracked`` is not needed.

    Raises
    ------
    OSError, TypeError
        If the file cannot be opened; if ``net`` is none of the above.
    ValueError
        If the file is damaged or of another kind, or if tensors are missing, are too many, have
        another shape or dtype or hold what is no number or too large for float32: they are listed
        by name. The network is then unchanged.
    """
    layers = {f"{torch}.": layer for layer, torch, _ in _named_layers(net)}
    _load(_wanted(layers, _TORCH, transposed={}), expanded(path), epsilon=1e-5)


def save_torch_weights(
    net: gluon.HybridBlock, path: str | os.PathLike, dtype: str = "float32"
) -> None:
    """Write the weights of a network to a file that ``load_torch_weights`` and PyTorch read.

    In PyTorch, ``model.load_state_dict(safetensors.torch.load_file(path))`` takes it if ``model``
    is torchvision's network of the same layers.

    Parameters
    ----------
    net : HybridSequential
        As for ``load_torch_weights``, initialized.
    path : str or Path
        A ``.safetensors`` file, written whole or not at all.
    dtype : {"float32", "float16"}, default "float32"
        float16 takes half of the room and keeps three digits.

    Raises
    ------
    TypeError, RuntimeError
        If ``net`` is none of those; if it has not been initialized.
    ValueError
        If the file or ``dtype`` is of another kind, or a weight is no number or too large for it.
    OSError
        If the file cannot be written.
    """
    path = writable(path)
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"weights are written to a .safetensors file, but this is {path.name!r}")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype is 'float32' or 'float16', not {dtype!r}")
    layers = {f"{torch}.": layer for layer, torch, _ in _named_layers(net)}
    wanted = _wanted(layers, _TORCH, transposed={})
    with onp.errstate(over="ignore"):  # said below, by name
        arrays = {n: w.param.data().asnumpy().astype(dtype) for n, w in wanted.items()}
    wrong = [name for name, array in arrays.items() if not onp.isfinite(array).all()]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not all weights are numbers that {dtype} can hold")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(save(arrays))


def load_keras_weights(
    net: gluon.HybridBlock, path: str | os.PathLike, epsilon: float = 1e-3
) -> None:
    """Set the weights of a network to those of a Keras model of the same layers.

    The file is made in Keras 3 by ::

        numpy.savez("resnet20.npz", **{v.path: v.numpy() for v in model.weights})

    The outputs agree if the model pads its convolutions of stride 2 by a ``ZeroPadding2D(1)`` in
    front of them: ``padding="same"`` pads images of even size at the right and lower edge alone.

    Parameters
    ----------
    net : HybridSequential
        ``cifar_resnet(20)`` or another network, as for ``load_torch_weights``, also in its errors.
    path : str or Path
        A ``.npz`` file of a model that takes images of shape (batch, height, width, channels) and
        whose layers have the names that ``keras.applications`` gives them: ``conv1_conv``,
        ``conv1_bn``, ``conv2_block1_1_conv``, ``conv2_block1_1_bn`` ..., ``conv3_block1_0_conv`` on
        a shortcut, ``predictions``. The weights are ``conv1_conv/kernel`` and so on; kernels are
        transposed from (height, width, in, out) and (in, out).
    epsilon : float, default 1e-3
        That of the model's batch normalizations; the default is Keras's. A network here has another
        (1e-5), and the difference is added to its running variances. Outside of training this
        computes the same, it stays so when the parameters are saved, and training goes on with the
        network's own.
    """
    layers = {f"{keras}/": layer for layer, _, keras in _named_layers(net)}
    transposed = {4: (3, 2, 0, 1), 2: (1, 0)}  # by the number of axes
    _load(_wanted(layers, _KERAS, transposed), expanded(path), epsilon)


def _named_layers(net):
    """Yield the layers of a network, each with its names in torchvision and in Keras."""
    stem, *stages, _, dense = _parts(net)
    yield stem[0], "conv1", "conv1_conv"
    yield stem[1], "bn1", "conv1_bn"
    for s, stage in enumerate(stages, 1):
        for b, block in enumerate(stage):
            torch, keras = f"layer{s}.{b}", f"conv{s + 1}_block{b + 1}"
            for i, layer in enumerate(block.body):
                number, kind = i // 3 + 1, ("conv", "bn", "relu")[i % 3]
                yield layer, f"{torch}.{kind}{number}", f"{keras}_{number}_{kind}"
            if isinstance(block.shortcut, nn.HybridSequential):
                for i, (layer, kind) in enumerate(zip(block.shortcut, ("conv", "bn"), strict=True)):
                    yield layer, f"{torch}.downsample.{i}", f"{keras}_0_{kind}"
    yield dense, "fc", "predictions"


def _parts(net):
    """Return the stem, the stages, the pooling and the dense layer of a network we can name."""
    parts = list(net) if isinstance(net, nn.HybridSequential) else []
    is_known = (
        len(parts) > 3
        and isinstance(parts[-1], nn.Dense)
        and all(isinstance(part, nn.HybridSequential) for part in parts[:-2])
        and all(isinstance(b, BasicBlock | Bottleneck) for stage in parts[1:-2] for b in stage)
    )
    if not is_known:
        raise TypeError(
            f"weights have names elsewhere in a network of BasicBlock or Bottleneck, as "
            f"resnet18(num_classes=1000, form='paper'), resnet50() and cifar_resnet(20) build it, "
            f"but this is another {type(net).__name__}. (The book's form has other layers: "
            f"pass form='paper'. For a compiled network pass the one it was compiled from.)"
        )
    return parts


class _Wanted(NamedTuple):
    """A parameter that is looked for in a file."""

    param: gluon.Parameter
    layer: nn.HybridBlock
    axes: tuple  # the transposition from the file's tensor to the parameter

    @property
    def shape(self) -> tuple:
        """The shape that the tensor has in the file, -1 where any length will do."""
        return tuple(self.param.shape[self.axes.index(i)] for i in range(len(self.axes)))

    def takes(self, shape, dtype):
        if len(shape) != len(self.shape) or dtype not in ("float16", "float32", "float64"):
            return False
        # a length that is not known yet is a number of channels: no reason to fill the memory
        lengths = zip(shape, self.shape, strict=True)
        return all(n == w or w == -1 and 0 < n <= 4096 for n, w in lengths)


def _wanted(layers, names, transposed):
    """Return what each parameter of the layers is called in a file, by name."""
    wanted = {}
    for prefix, layer in layers.items():
        for name in _PARAMS:
            param = getattr(layer, name, None)
            if param is not None:
                ndim = len(param.shape)
                axes = transposed.get(ndim, tuple(range(ndim)))
                wanted[prefix + names.get(name, name)] = _Wanted(param, layer, axes)
    return wanted


def _load(wanted, path, epsilon):
    """Check all of a file, read what is wanted, and only then set the parameters."""
    with _opened(path) as file:
        _check(wanted, file, path)
        with onp.errstate(over="ignore"):  # said below, by name
            arrays = {name: file.read(name).astype(onp.float32, copy=False) for name in wanted}
    wrong = [name for name, array in arrays.items() if not onp.isfinite(array).all()]
    if wrong:
        raise ValueError(
            f"{path}: not all weights are numbers that float32 can hold. The network's are as they "
            f"were.\n{_listed({'not finite': wrong})[0]}"
        )
    for name, (param, layer, axes) in wanted.items():
        array = arrays.pop(name).transpose(axes)
        if isinstance(layer, nn.BatchNorm) and param is layer.running_var:
            array = array + onp.float32(epsilon - layer._kwargs["eps"])
        param._load_init(np.array(array), None, cast_dtype=True)  # initialized or not


def _check(wanted, file, path):
    names = {name for name in file.names if not name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in names]
    headers = {name: file.header(name) for name in wanted if name in names}
    wrong = {name: h for name, h in headers.items() if not wanted[name].takes(*h)}
    misshapen = [
        f"{name} (expected float32 {wanted[name].shape}, found {dtype} {shape})"
        for name, (shape, dtype) in wrong.items()
    ]
    problems = {"missing": missing, "extra": sorted(names - {*wanted}), "misshapen": misshapen}
    if not any(problems.values()):
        return
    lines = [f"{path} does not fit this network, whose weights are as they were."]
    lines += _listed(problems)
    for name in {"fc.bias", "predictions/bias"} & {*wrong}:
        if len(shape := wrong[name][0]) == 1 and shape != wanted[name].shape:
            lines.append(f"The file is for {shape[0]} classes: use num_classes={shape[0]}.")
    if len(missing) == len(wanted):
        lines.append("None of the names is known: see the docstring for how to make the file.")
    raise ValueError("\n".join(lines))


def _listed(problems):
    """Return a paragraph for each kind of problem, with the first ten names."""
    paragraphs = []
    for kind, names in problems.items():
        if names:
            more = [f"... and {len(names) - 10} more"] if len(names) > 10 else []
            paragraphs.append("\n  ".join([f"{kind} ({len(names)}):", *names[:10], *more]))
    return paragraphs


@contextlib.contextmanager
def _opened(path):
    """Open a file of either kind. An error while it is read says which file it was."""
    kind = path.suffix.lower()
    try:
        if kind == ".npz":
            with zipfile.ZipFile(path) as file:
                yield _Npz(file)
        elif kind == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                yield _Safetensors(file)
        else:
            raise ValueError(
                f"weights are read from a .safetensors or .npz file, but this is {path.name!r}. "
                "Other formats (.pt, .pth, .keras, .h5) are not read: a pickle in them could run "
                "any program. help(d2lres.load_torch_weights) says how to save one of the two."
            )
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is no complete {kind} file of plain arrays ({error}). The network's "
            "weights are as they were. Copy or save the file again."
        ) from error


_DAMAGED = (
    EOFError,
    RuntimeError,  # an encrypted file, or a compression that zipfile does not know
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Safetensors:
    """The tensors of a safetensors file, which cannot unfold to more than its size."""

    _DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}

    def __init__(self, file):
        self.names, self._file = file.keys(), file
        self.read = file.get_tensor

    def header(self, name):
        tensor = self._file.get_slice(name)
        return tuple(tensor.get_shape()), self._DTYPES.get(tensor.get_dtype(), tensor.get_dtype())


class _Npz:
    """The arrays of an npz file, of which no more is unpacked than what is asked for."""

    def __init__(self, file):
        self.names = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        self._file = file

    def header(self, name):
        with self._member(name) as member:
            if onp.lib.format.read_magic(member) != (1, 0):  # later ones may be of any length
                raise ValueError("the header is not that of an array of numbers")
            shape, _, dtype = onp.lib.format.read_array_header_1_0(member)
        return shape, dtype.name

    def read(self, name):
        with self._member(name) as member:
            array = onp.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):
                raise ValueError("more data than its header says")
        return array

    @contextlib.contextmanager
    def _member(self, name):
        info = self.names[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{name}: compressed as NumPy does not")
        try:
            with self._file.open(info) as member:
                yield member
        except (ValueError, OSError) as error:
            raise zipfile.BadZipFile(f"{name}: {error}") from error
