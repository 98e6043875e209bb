"""The residual block and the stage that stacks it."""

import functools

from mxnet import np, npx
from mxnet.gluon import nn

__all__ = ["BasicBlock", "Residual", "resnet_block"]

npx.set_np()


def _explained(block_class):
    """Check what a student passes to a block, so that mistakes are named before MXNet meets them.

    A decorator, because the class below it stands word for word in the lessons.
    """
    forward = block_class.forward

    @functools.wraps(forward)
    def checked_forward(self, X, *args):
        if isinstance(X, np.ndarray):  # while a graph is traced, X is a Symbol: nothing to see yet
            _check_images(self, X)
        return forward(self, X, *args)

    block_class.forward = checked_forward
    return block_class


def _check_images(block, X):
    """Raise an error in words if ``block`` cannot take the images ``X``."""
    name = type(block).__name__
    if X.ndim != 4:
        raise ValueError(
            f"{name} expects a batch of images of shape (batch, channels, height, width), but got "
            f"shape {X.shape}. For a single image X write X[None], which adds the batch axis."
        )
    if X.dtype != "float32":
        raise TypeError(
            f"{name} expects float32 images, but got {X.dtype}. Convert them with "
            "X.astype('float32'), and divide by 255 if they are bytes from 0 to 255."
        )
    num_channels, strides = block.conv1._channels, block.conv1._kwargs["stride"][0]
    if block.conv3 is None and (X.shape[1] != num_channels or strides != 1):
        raise ValueError(
            f"{name} cannot add its input to its output: X has shape {X.shape}, but the "
            f"convolutions make {num_channels} channels and divide height and width by {strides}. "
            f"Pass use_1x1conv=True, so that the shortcut makes the same change of shape."
        )
    bias = block.conv1.bias
    if bias._data is None and not bias._deferred_init:
        raise RuntimeError(
            f"{name} has no weights yet. Call net.initialize() before the first net(X)."
        )


@_explained
class Residual(nn.HybridBlock):
    """The residual block: two 3x3 convolutions whose result is added to the input.

    ``Y = relu(bn2(conv2(relu(bn1(conv1(X))))) + shortcut(X))``, where the shortcut is the identity,
    or a 1x1 convolution when the shape of the output differs from that of the input.

    Parameters
    ----------
    num_channels : int
        Channels of the output.
    use_1x1conv : bool, default False
        Put a 1x1 convolution on the shortcut. Needed where channels or resolution change.
    strides : int, default 1
        Stride of the first 3x3 and of the 1x1 convolution: 2 halves height and width.

    Input and output
    ----------------
    X : float32, shape (batch, channels, height, width)
    Y : float32, shape (batch, num_channels, ceil(height / strides), ceil(width / strides))

    Raises
    ------
    ValueError
        If X is not four-dimensional, or cannot be added to the output (see ``use_1x1conv``).
    TypeError
        If X is not float32.
    RuntimeError
        If the block has not been initialised.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition (2016), section 3.2;
    Dive into Deep Learning, section 8.6.2.
    """

    def __init__(self, num_channels, use_1x1conv=False, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = nn.Conv2D(num_channels, kernel_size=3, padding=1, strides=strides)
        self.conv2 = nn.Conv2D(num_channels, kernel_size=3, padding=1)
        if use_1x1conv:
            self.conv3 = nn.Conv2D(num_channels, kernel_size=1, strides=strides)
        else:
            self.conv3 = None
        self.bn1 = nn.BatchNorm()
        self.bn2 = nn.BatchNorm()

    def hybrid_forward(self, F, X):
        Y = F.npx.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3:
            X = self.conv3(X)
        return F.npx.relu(Y + X)


class BasicBlock(nn.HybridBlock):
    """The block of the paper's networks: as ``Residual``, but without biases, which the batch
    normalisation behind each convolution would cancel, and with a choice of shortcuts.

    Parameters
    ----------
    num_channels : int
        Channels of the output.
    in_channels : int
        Channels of the input.
    strides : int, default 1
        Stride of the first convolution.
    shortcut : {"A", "B", "C"}, default "B"
        ``"A"``: the identity, with zeros for the channels that are new and every ``strides``-th
        pixel. ``"B"``: a 1x1 convolution and batch normalisation where the shape changes, else the
        identity. ``"C"``: a 1x1 convolution and batch normalisation always.
    residual : bool, default True
        False leaves the shortcut out: the plain twin.

    Input and output
    ----------------
    X : float32, shape (batch, in_channels, height, width)
    Y : float32, shape (batch, num_channels, ceil(height / strides), ceil(width / strides))

    Raises
    ------
    ValueError
        If ``shortcut`` is none of the above, or ``"A"`` cannot make the channels asked for.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition (2016), sections 3.3 and 4.1.
    """

    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True, **kwargs):
        super().__init__(**kwargs)
        self.residual = residual
        self.body = nn.HybridSequential()
        self.body.add(
            _conv3x3(num_channels, in_channels, strides),
            nn.BatchNorm(in_channels=num_channels),
            nn.Activation("relu"),
            _conv3x3(num_channels, num_channels),
            nn.BatchNorm(in_channels=num_channels),
        )
        self.shortcut = None  # the identity
        if residual and (shortcut == "C" or num_channels != in_channels or strides != 1):
            self.shortcut = _shortcut(num_channels, in_channels, strides, shortcut)
        self.relu = nn.Activation("relu")

    def hybrid_forward(self, F, X):
        Y = self.body(X)
        if self.residual:
            Y = Y + (self.shortcut(X) if self.shortcut else X)
        return self.relu(Y)


def _conv3x3(num_channels, in_channels, strides=1):
    return nn.Conv2D(num_channels, 3, strides, padding=1, use_bias=False, in_channels=in_channels)


def _shortcut(num_channels, in_channels, strides, option):
    """Return what changes the shape of a block's input by one of the paper's options."""
    if option == "A":
        return _PadChannels(num_channels, in_channels, strides)
    if option not in ("B", "C"):
        raise ValueError(f"shortcut is 'A', 'B' or 'C', not {option!r}")
    blk = nn.HybridSequential()
    blk.add(
        nn.Conv2D(num_channels, 1, strides, use_bias=False, in_channels=in_channels),
        nn.BatchNorm(in_channels=num_channels),
    )
    return blk


class _PadChannels(nn.HybridBlock):
    """Every ``strides``-th pixel, and zeros for the channels that are missing."""

    def __init__(self, num_channels, in_channels, strides):
        super().__init__()
        if num_channels % in_channels:
            raise ValueError(
                f"shortcut 'A' can make {in_channels} channels into a multiple of them, not into "
                f"{num_channels}. Pass shortcut='B'."
            )
        self.times = num_channels // in_channels
        self.pick = nn.AvgPool2D(pool_size=1, strides=strides)

    def hybrid_forward(self, F, X):
        X = self.pick(X)
        return F.np.concatenate([X] + [F.np.zeros_like(X)] * (self.times - 1), axis=1)


def resnet_block(num_channels, num_residuals, first_block=False):
    """Stack residual blocks of equal width: one stage of a ResNet.

    The first block halves height and width and changes the number of channels through a 1x1
    convolution, except in the first stage, which follows a pooling layer and keeps both.

    Parameters
    ----------
    num_channels : int
        Channels of the output of every block.
    num_residuals : int
        Number of blocks, at least 1.
    first_block : bool, default False
        Whether this is the first stage of the network.

    Returns
    -------
    mxnet.gluon.nn.HybridSequential

    Raises
    ------
    ValueError
        If ``num_residuals`` is less than 1.

    References
    ----------
    Dive into Deep Learning, section 8.6.3.
    """
    if num_residuals < 1:
        raise ValueError(f"a stage needs at least one residual block, got {num_residuals}")
    blk = nn.HybridSequential()
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk.add(Residual(num_channels, use_1x1conv=True, strides=2))
        else:
            blk.add(Residual(num_channels))
    return blk
