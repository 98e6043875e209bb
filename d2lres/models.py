"""Whole networks, built from the blocks."""

from mxnet import npx
from mxnet.gluon import nn

from .blocks import BasicBlock, Residual, resnet_block

__all__ = ["cifar_resnet", "resnet18", "small_resnet", "stem"]

npx.set_np()


def stem(num_channels=64):
    """Build what stands before the first stage: a 7x7 convolution and a pooling layer.

    Each halves height and width, so the residual blocks see a quarter of the resolution.

    Parameters
    ----------
    num_channels : int, default 64
        Channels of the output.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential

    References
    ----------
    Dive into Deep Learning, section 8.6.3.
    """
    blk = nn.HybridSequential()
    blk.add(
        nn.Conv2D(num_channels, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    )
    return blk


def resnet18(num_classes=10):
    """Build the 18-layer residual network of the book.

    One 7x7 convolution, four stages of two residual blocks (two 3x3 convolutions each) and one
    dense layer: 1 + 16 + 1 layers. With one input channel and ten classes it has 11,178,378
    trainable parameters.

    Parameters
    ----------
    num_classes : int, default 10
        Length of the output vector.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential
        Takes float32 (batch, channels, height, width), gives float32 (batch, num_classes). Call
        ``initialize`` on it before use.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition (2016), table 1;
    Dive into Deep Learning, section 8.6.3.
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


def cifar_resnet(depth, num_classes=10, shortcut="B", residual=True):
    """Build the paper's network for images of 32x32 pixels, of ``depth`` = 6n + 2 layers.

    One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels at 32x32, 16x16 and
    8x8 pixels, and one dense layer on the mean over what is left of the pixels.

    Parameters
    ----------
    depth : int
        20, 32, 44, 56, 110 or any other 6n + 2.
    num_classes : int, default 10
        Length of the output vector.
    shortcut : {"A", "B", "C"}, default "B"
        See ``BasicBlock``.
    residual : bool, default True
        False builds the plain twin, which has no shortcuts.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential
        Takes float32 (batch, 3, height, width), gives float32 (batch, num_classes). Call
        ``initialize`` on it before use.

    Raises
    ------
    ValueError
        If there is no whole n for this depth.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition (2016), section 4.2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is 6n + 2: 20, 32, 44, 56 or 110, for example, not {depth!r}")
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(16, kernel_size=3, padding=1, use_bias=False, in_channels=3),
        nn.BatchNorm(in_channels=16),
        nn.Activation("relu"),
    )
    in_channels = 16
    for num_channels in (16, 32, 64):
        for i in range((depth - 2) // 6):
            strides = 2 if i == 0 and num_channels > 16 else 1
            net.add(BasicBlock(num_channels, in_channels, strides, shortcut, residual))
            in_channels = num_channels
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes, in_units=64))
    return net


def small_resnet(widths=(16, 32, 64, 128), num_classes=10):
    """Build a small residual network for small images: a 3x3 convolution and one block a stage.

    Every block halves height and width, so most of the arithmetic is done on few pixels and many
    channels, where a processor is fastest.

    Parameters
    ----------
    widths : sequence of int
        Channels of the first convolution and of each block.
    num_classes : int, default 10
        Length of the output vector.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential
        Takes float32 (batch, channels, height, width), gives float32 (batch, num_classes). Call
        ``initialize`` on it before use.
    """
    first, *others = widths
    net = nn.HybridSequential()
    net.add(nn.Conv2D(first, kernel_size=3, padding=1), nn.BatchNorm(), nn.Activation("relu"))
    for num_channels in others:
        net.add(Residual(num_channels, use_1x1conv=True, strides=2))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net
