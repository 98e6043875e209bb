"""Whole networks, built from the blocks. Each is a HybridSequential.

The last element of each is its dense layer: ``net[:-1]`` gives the vector of features before it.
*The paper* is He et al., Deep Residual Learning for Image Recognition (2016); *the book* is Dive
into Deep Learning.
"""

import functools
import hashlib
import inspect
from pathlib import Path

from mxnet import npx
from mxnet.gluon import nn

from . import checks
from .blocks import BasicBlock, Bottleneck, PreActResidual, Residual, resnet_block
from .checks import checked, whole_numbers
from .interop.weights import load_torch_weights

__all__ = [
    "cifar_resnet",
    "make_stage",
    "make_stem",
    "narrow_resnet18",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "small_resnet",
    "stem",
]

npx.set_np()

# He et al. (2016), table 1: the block of each depth, and how many of them a stage has
_SPECIFICATIONS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}

# written by `python -m d2lres experiment cifar100-narrow`, its record beside it
PRETRAINED = Path(__file__).with_name("pretrained") / "narrow_resnet18.safetensors"
PRETRAINED_SHA256 = "4ef283d5e1d01783297a320fe81b5b7abb400cc1286f6f428e5c09e1f8e09fc4"


@checked(whole_numbers("num_channels"))
def stem(num_channels=64):
    """Build what stands before the first stage: a 7x7 convolution and a pooling layer.

    Each halves height and width, so the residual blocks see a quarter of the resolution. The output
    has ``num_channels`` channels. See section 8.6.3 of the book.
    """
    blk = nn.HybridSequential()
    blk.add(
        nn.Conv2D(num_channels, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    )
    return blk


def _resnet(depth, num_classes, form="paper", stem="imagenet", width=64, **options):
    """Build a network of the table by what its function was given."""
    if form not in ("paper", "d2l"):
        raise ValueError(f"form is 'paper' or 'd2l', not {form!r}")
    num_classes = checks.whole("num_classes", num_classes)
    block, numbers = _SPECIFICATIONS[depth]
    net, in_channels = nn.HybridSequential(), width
    net.add(make_stem(width, stem, use_bias=form == "d2l"))
    for i, num_residuals in enumerate(numbers):
        num_channels = width * 2**i * block.expansion
        if form == "d2l":
            net.add(resnet_block(num_channels, num_residuals, first_block=i == 0))
        else:
            strides = 1 if i == 0 else 2
            net.add(make_stage(block, num_channels, in_channels, num_residuals, strides, **options))
        in_channels = num_channels
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes, in_units=in_channels))
    return net


def _kind_of_stem(num_channels, kind, *_, **__):
    if kind not in ("imagenet", "cifar"):
        raise ValueError(f"stem is 'imagenet' or 'cifar', not {kind!r}")


@checked(whole_numbers("num_channels"))
@checked(_kind_of_stem)
def make_stem(num_channels, kind, use_bias=False):
    """Build what stands before the first stage, for large images or for small ones."""
    if kind == "imagenet":
        conv = nn.Conv2D(num_channels, kernel_size=7, strides=2, padding=3, use_bias=use_bias)
    else:
        conv = nn.Conv2D(num_channels, kernel_size=3, padding=1, use_bias=use_bias)
    blk = nn.HybridSequential()
    blk.add(conv, nn.BatchNorm(in_channels=num_channels), nn.Activation("relu"))
    if kind == "imagenet":
        blk.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    return blk


@checked(whole_numbers(None, "num_channels", "in_channels", "num_residuals", "strides"))
def make_stage(block, num_channels, in_channels, num_residuals, strides, **options):
    """Stack blocks of one kind, the first of which changes the shape."""
    blk = nn.HybridSequential()
    blk.add(block(num_channels, in_channels, strides, **options))
    for _ in range(num_residuals - 1):
        blk.add(block(num_channels, num_channels, **options))
    return blk


def _in_other_forms(build):
    """Let the function of lesson 2, word for word, build the other forms of its network as well."""

    @functools.wraps(build)
    def resnet18(num_classes=10, *, form="d2l", stem="imagenet"):
        if (form, stem) == ("d2l", "imagenet"):
            return build(checks.whole("num_classes", num_classes))
        return _resnet(18, num_classes, form, stem)

    resnet18.__signature__ = inspect.signature(resnet18, follow_wrapped=False)
    return resnet18


@_in_other_forms
def resnet18(num_classes=10):
    """Build the 18-layer residual network: table 1 of the paper, section 8.6.3 of the book.

    One 7x7 convolution, four stages of two residual blocks (two 3x3 convolutions each) and one
    dense layer: 1 + 16 + 1 layers. With one input channel and ten classes the book's form has
    11,178,378 trainable parameters.

    Parameters
    ----------
    num_classes : int, default 10
        Length of the output vector.
    form : {"d2l", "paper"}, default "d2l"
        By keyword only. ``"d2l"``: the book's, of ``Residual`` blocks, every convolution with a
        bias. ``"paper"``: of ``BasicBlock``, without biases and with batch normalization on the 1x1
        convolutions of the shortcuts (option B), as elsewhere: 11,689,512 trainable parameters with
        three input channels and 1,000 classes.
    stem : {"imagenet", "cifar"}, default "imagenet"
        By keyword only. What stands before the first stage. ``"imagenet"``: a 7x7 convolution and a
        pooling layer, which divide height and width by 4. ``"cifar"``, for images of about 32x32
        pixels: a 3x3 convolution that keeps them.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential
        The stem, four stages, a pooling and the dense layer. Takes float32 (batch, channels,
        height, width), gives float32 (batch, num_classes). Call ``initialize`` on it before use.

    Raises
    ------
    ValueError
        If ``num_classes`` is no whole number of at least 1, or ``form`` or ``stem`` none of the
        above.
    """
    net = nn.HybridSequential()
    net.add(
        stem(64),
        resnet_block(64, 2, first_block=True),
        resnet_block(128, 2),
        resnet_block(256, 2),
        resnet_block(512, 2),
        nn.GlobalAvgPool2D(),
        nn.Dense(num_classes),
    )
    return net


def resnet34(
    num_classes: int = 1000, form: str = "paper", stem: str = "imagenet"
) -> nn.HybridSequential:
    """Build the 34-layer residual network: as ``resnet18``, with 3, 4, 6 and 3 blocks."""
    return _resnet(34, num_classes, form, stem)


def resnet50(
    num_classes: int = 1000, stem: str = "imagenet", stride_on_1x1: bool = False
) -> nn.HybridSequential:
    """Build the 50-layer residual network: stages of 3, 4, 6 and 3 ``Bottleneck`` blocks.

    As ``resnet18``, but always in the paper's form: the book has no bottlenecks. For
    ``stride_on_1x1`` see ``Bottleneck``: False is what everyone trains today, True is the paper's.
    """
    return _resnet(50, num_classes, stem=stem, stride_on_1x1=stride_on_1x1)


def resnet101(
    num_classes: int = 1000, stem: str = "imagenet", stride_on_1x1: bool = False
) -> nn.HybridSequential:
    """Build the 101-layer residual network: as ``resnet50``, with 3, 4, 23 and 3 blocks."""
    return _resnet(101, num_classes, stem=stem, stride_on_1x1=stride_on_1x1)


def resnet152(
    num_classes: int = 1000, stem: str = "imagenet", stride_on_1x1: bool = False
) -> nn.HybridSequential:
    """Build the 152-layer residual network: as ``resnet50``, with 3, 8, 36 and 3 blocks."""
    return _resnet(152, num_classes, stem=stem, stride_on_1x1=stride_on_1x1)


def narrow_resnet18(num_classes: int = 100, pretrained: bool = False) -> nn.HybridSequential:
    """Build an 18-layer residual network for images of 32x32, with a quarter of the channels.

    The paper's form with the stem for small images, see ``resnet18``, and stages of 16, 32, 64 and
    128 channels: with three input channels and 100 classes 713,076 trainable parameters.

    Parameters
    ----------
    num_classes : int, default 100
        Length of the output vector.
    pretrained : bool, default False
        True gives it, on the CPU, the weights that come with the course: of the fine classes of
        CIFAR-100 in the order of ``CIFAR100_LABELS``, on images normalized by ``CIFAR100_MEAN`` and
        ``CIFAR100_STD`` as ``load_data_cifar100`` gives them. How they were trained and how good
        they are stands in ``d2lres/pretrained/narrow_resnet18.json``. On disk they are float16, in
        memory float32.

    Raises
    ------
    ValueError
        If ``pretrained`` is asked for with another number of classes than 100, or the file is not
        the one that came with the course.
    FileNotFoundError
        If it is missing.
    """
    num_classes = checks.whole("num_classes", num_classes)
    if pretrained and num_classes != 100:
        raise ValueError(
            f"the pre-trained network knows the 100 classes of CIFAR-100, not {num_classes} others:"
            f" write replace_head(narrow_resnet18(pretrained=True), {num_classes}) and train that"
        )
    net = _resnet(18, num_classes, stem="cifar", width=16)
    if pretrained:
        if hashlib.sha256(PRETRAINED.read_bytes()).hexdigest() != PRETRAINED_SHA256:
            raise ValueError(f"{PRETRAINED} is damaged or another's: install d2lres again")
        load_torch_weights(net, PRETRAINED)
    return net


@checked(whole_numbers("depth", "num_classes"))
def cifar_resnet(
    depth: int,
    num_classes: int = 10,
    shortcut: str = "B",
    residual: bool = True,
    preact: bool = False,
) -> nn.HybridSequential:
    """Build the paper's network for images of 32x32 pixels, of ``depth`` = 6n + 2 layers.

    One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels at 32x32, 16x16 and
    8x8 pixels, and one dense layer on the mean over what is left of the pixels (section 4.2).

    Parameters
    ----------
    depth : int
        20, 32, 44, 56, 110 or any other 6n + 2.
    num_classes : int, default 10
        Length of the output vector.
    shortcut, residual
        See ``BasicBlock``.
    preact : bool, default False
        True builds it of ``PreActResidual`` blocks, as in section 4.1 and the appendix of their
        paper. The first convolution then has no batch normalization and ReLU of its own, those of
        the first block follow it, and one more pair stands before the pooling. (The paper lets the
        first block's shortcut begin behind its first ReLU. Here it begins before, as in every other
        block without a 1x1 convolution.)

    Raises
    ------
    ValueError
        If there is no whole n for this depth; else as for ``resnet18``.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is 6n + 2: 20, 32, 44, 56 or 110, for example, not {depth!r}")
    block, in_channels = PreActResidual if preact else BasicBlock, 16
    options = {"shortcut": shortcut, "residual": residual}
    net = nn.HybridSequential()
    net.add(make_stem(16, "cifar")[:1] if preact else make_stem(16, "cifar"))
    for num_channels in (16, 32, 64):
        strides = 1 if num_channels == 16 else 2
        net.add(make_stage(block, num_channels, in_channels, (depth - 2) // 6, strides, **options))
        in_channels = num_channels
    if preact:
        net.add(nn.BatchNorm(in_channels=64), nn.Activation("relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes, in_units=64))
    return net


def small_resnet(widths=(16, 32, 64, 128), num_classes=10):
    """Build a small residual network for small images: a 3x3 convolution and one block a stage.

    Every block halves height and width, so most of the arithmetic is done on few pixels and many
    channels, where a processor is fastest. Input, output and errors are those of ``resnet18``.

    Parameters
    ----------
    widths : sequence of int
        Channels of the first convolution and of each block: one at least.
    num_classes : int, default 10
        Length of the output vector.
    """
    if not len(widths):
        raise ValueError("widths are the channels of the first convolution and of each block")
    first, *others = (checks.whole("each of widths", width) for width in widths)
    num_classes = checks.whole("num_classes", num_classes)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(first, kernel_size=3, padding=1), nn.BatchNorm(), nn.Activation("relu"))
    for num_channels in others:
        net.add(Residual(num_channels, use_1x1conv=True, strides=2))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net
