"""Whole networks, built from the blocks."""

from mxnet import npx
from mxnet.gluon import nn

from .blocks import resnet_block

__all__ = ["resnet18", "stem"]

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
