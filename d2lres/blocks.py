"""The residual block, its kin in the papers, and the stage that stacks it.

*The paper* is He et al., Deep Residual Learning for Image Recognition (2016); *the book* is Dive
into Deep Learning.
"""

from mxnet import np, npx
from mxnet.gluon import nn
from mxnet.symbol import Symbol

from .checks import checked, whole_numbers

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "PadChannels",
    "PreActResidual",
    "Residual",
    "ResidualBase",
    "make_conv",
    "make_shortcut",
    "resnet_block",
    "sequence",
]

npx.set_np()

_SIZES = whole_numbers(None, "num_channels", "in_channels", "strides")  # None stands for self


def _takes_images(block, X, *_):
    """Raise an error in words if ``block`` cannot take the images ``X``."""
    if isinstance(X, Symbol):  # while a graph is traced there is nothing to see yet
        return
    name = type(block).__name__
    if not isinstance(X, np.ndarray):
        raise TypeError(
            f"{name} expects images in an array of mxnet.np, but got {type(X).__name__}: "
            "write np.array(X)"
        )
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
    conv = block.conv1 if isinstance(block, Residual) else block.body[0]
    in_channels = conv.weight.shape[1]  # -1 before a Residual has met its first images
    if 0 < in_channels != X.shape[1]:
        raise ValueError(
            f"this {name} takes images of {in_channels} channels, but X has shape {X.shape}, with "
            f"{X.shape[1]} channels. Give it what the layer before it makes, or build it anew."
        )
    if isinstance(block, Residual):
        _check_sum(block, X)
    if conv.weight._data is None and not conv.weight._deferred_init:
        raise RuntimeError(
            f"{name} has no weights yet. Call net.initialize() before the first net(X)."
        )


def _check_sum(block, X):
    """Raise an error in words if a ``Residual`` cannot add its input to its output."""
    num_channels, strides = block.conv1._channels, block.conv1._kwargs["stride"][0]
    if block.conv3 is None and (X.shape[1] != num_channels or strides != 1):
        raise ValueError(
            f"{type(block).__name__} cannot add its input to its output: X has shape {X.shape}, "
            f"but the convolutions make {num_channels} channels and divide height and width by "
            f"{strides}. Pass use_1x1conv=True, so that the shortcut changes the shape alike."
        )


@checked(whole_numbers(None, "num_channels", None, "strides"), "__init__")
@checked(_takes_images, "forward")
class Residual(nn.HybridBlock):
    """The residual block: two 3x3 convolutions whose result is added to the input.

    ``Y = relu(bn2(conv2(relu(bn1(conv1(X))))) + shortcut(X))``, where the shortcut is the identity,
    or a 1x1 convolution when the shape of the output differs from that of the input: section 3.2 of
    the paper, 8.6.2 of the book. X is float32 (batch, channels, height, width), Y is float32
    (batch, num_channels, ceil(height / strides), ceil(width / strides)).

    Parameters
    ----------
    num_channels : int
        Channels of the output.
    use_1x1conv : bool, default False
        Put a 1x1 convolution on the shortcut. Needed where channels or resolution change.
    strides : int, default 1
        Stride of the first 3x3 and of the 1x1 convolution: 2 halves height and width.

    Raises
    ------
    ValueError
        If a number is no whole one of at least 1, X is not four-dimensional, or cannot be added to
        the output (see ``use_1x1conv``).
    TypeError, RuntimeError
        If X is no float32 array of ``mxnet.np``; if the block has not been initialized.
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


@checked(_takes_images, "forward")
class ResidualBase(nn.HybridBlock):
    """What the blocks of the papers have in common: a body, a shortcut and the sum of both.

    Attributes
    ----------
    body : HybridSequential
    shortcut : HybridBlock or None
        What changes the shape of the input; None is the identity.
    residual : bool
    expansion : int
        Channels of the output for one channel of the widths in the paper's table 1.
    """

    expansion = 1

    def __init__(self, body, shortcut, residual=True, **kwargs):
        super().__init__(**kwargs)
        self.residual = residual
        self.body = body
        self.shortcut = shortcut if residual else None
        self.relu = nn.Activation("relu")

    def hybrid_forward(self, F, X):
        Y = self.body(X)
        if self.residual:
            Y = Y + (self.shortcut(X) if self.shortcut else X)
        return self.relu(Y)


@checked(_SIZES, "__init__")
class BasicBlock(ResidualBase):
    """The block of the paper's smaller networks: two 3x3 convolutions, and a choice of shortcuts.

    As ``Residual``, also in its input and output, but without biases, which the batch normalization
    behind each convolution would cancel. See sections 3.3 and 4.1 of the paper.

    Parameters
    ----------
    num_channels, in_channels : int
        Channels of the output and of the input.
    strides : int, default 1
        Stride of the first convolution.
    shortcut : {"A", "B", "C"}, default "B"
        ``"A"``: the identity, with zeros for the channels that are new and every ``strides``-th
        pixel. ``"B"``: a 1x1 convolution and batch normalization where the shape changes, else the
        identity. ``"C"``: a 1x1 convolution and batch normalization always.
    residual : bool, default True
        False leaves the shortcut out: the plain twin.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for ``Residual``, and if ``shortcut`` is none of the above or ``"A"`` cannot make the
        channels asked for.
    """

    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True, **kwargs):
        body = sequence(
            make_conv(num_channels, in_channels, 3, strides),
            nn.BatchNorm(in_channels=num_channels),
            nn.Activation("relu"),
            make_conv(num_channels, num_channels, 3),
            nn.BatchNorm(in_channels=num_channels),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut)
        super().__init__(body, shortcut, residual, **kwargs)


def _in_quarters(block, num_channels, *_, **__):
    if num_channels % 4:
        raise ValueError(
            f"a Bottleneck computes on a quarter of its channels: num_channels is a multiple of 4, "
            f"not {num_channels}"
        )


@checked(_SIZES, "__init__")
@checked(_in_quarters, "__init__")
class Bottleneck(ResidualBase):
    """The block of the paper's larger networks: 1x1, 3x3 and 1x1 convolutions (its figure 5).

    The 3x3 convolution is the costly one. The first 1x1 convolution reduces the channels that it
    works on to a quarter of ``num_channels``, the second makes them ``num_channels`` again. Input,
    output and errors are those of ``BasicBlock``.

    Parameters
    ----------
    num_channels, in_channels, strides, shortcut, residual
        See ``BasicBlock``; ``num_channels`` is a multiple of 4.
    stride_on_1x1 : bool, default False
        False puts the stride on the 3x3 convolution, as these networks are trained today: all
        pixels are looked at. True puts it on the first 1x1 convolution, as in the paper. Both have
        the same parameters.
    """

    expansion = 4

    def __init__(
        self, num_channels, in_channels, strides=1, shortcut="B", residual=True, stride_on_1x1=False
    ):
        first, second = (strides, 1) if stride_on_1x1 else (1, strides)
        width = num_channels // 4
        body = sequence(
            make_conv(width, in_channels, 1, first),
            nn.BatchNorm(in_channels=width),
            nn.Activation("relu"),
            make_conv(width, width, 3, second),
            nn.BatchNorm(in_channels=width),
            nn.Activation("relu"),
            make_conv(num_channels, width, 1),
            nn.BatchNorm(in_channels=num_channels),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut)
        super().__init__(body, shortcut, residual)


@checked(_SIZES, "__init__")
class PreActResidual(ResidualBase):
    """The block with batch normalization and ReLU before each 3x3 convolution, and none behind.

    Where the shape does not change, nothing stands between the input and the sum, and nothing
    behind the sum: from block to block the input is passed on as it is. The sum may be negative: a
    batch normalization and a ReLU follow the last of these blocks. See He et al., Identity Mappings
    in Deep Residual Networks (2016), figures 1 and 4 and the appendix.

    Input, output, errors and parameters are those of ``BasicBlock``. But a 1x1 convolution on the
    shortcut takes what the body takes, after the first ReLU, and no batch normalization follows it;
    zeros for new channels (``"A"``) are put to the input itself.
    """

    def __init__(self, num_channels, in_channels, strides=1, shortcut="B", residual=True, **kwargs):
        body = sequence(
            make_conv(num_channels, in_channels, 3, strides),
            nn.BatchNorm(in_channels=num_channels),
            nn.Activation("relu"),
            make_conv(num_channels, num_channels, 3),
        )
        shortcut = make_shortcut(num_channels, in_channels, strides, shortcut, is_normalised=False)
        super().__init__(body, shortcut, residual, **kwargs)
        self.bn = nn.BatchNorm(in_channels=in_channels)

    def hybrid_forward(self, F, X):
        activated = self.relu(self.bn(X))
        Y = self.body(activated)
        if self.residual:
            X = activated if isinstance(self.shortcut, nn.Conv2D) else X
            Y = Y + (self.shortcut(X) if self.shortcut else X)
        return Y


def sequence(*layers):
    """Return layers one after the other, as one block."""
    blk = nn.HybridSequential()
    blk.add(*layers)
    return blk


def make_conv(num_channels, in_channels, kernel_size, strides=1):
    """Return a convolution that keeps height and width, but for its stride."""
    padding, known = kernel_size // 2, {"use_bias": False, "in_channels": in_channels}
    return nn.Conv2D(num_channels, kernel_size, strides, padding, **known)


def make_shortcut(num_channels, in_channels, strides, option, is_normalised=True):
    """Return what changes the shape of a block's input by one of the paper's options, or None.

    The options, errors and other numbers are those of ``BasicBlock``; None is the identity.
    ``is_normalised`` says whether batch normalization follows a 1x1 convolution.
    """
    if option not in ("A", "B", "C"):
        raise ValueError(f"shortcut is 'A', 'B' or 'C', not {option!r}")
    if option != "C" and num_channels == in_channels and strides == 1:
        return None  # the identity
    if option == "A":
        return PadChannels(num_channels, in_channels, strides)
    conv = make_conv(num_channels, in_channels, 1, strides)
    return sequence(conv, nn.BatchNorm(in_channels=num_channels)) if is_normalised else conv


class PadChannels(nn.HybridBlock):
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


@checked(whole_numbers("num_channels"))
def resnet_block(num_channels, num_residuals, first_block=False):
    """Stack residual blocks of equal width, in a sequence: one stage of a ResNet (the book's
    8.6.3).

    The first block halves height and width and changes the number of channels through a 1x1
    convolution, except in the first stage, which follows a pooling layer and keeps both.

    Parameters
    ----------
    num_channels : int
        Channels of the output of every block.
    num_residuals : int
        Number of blocks.
    first_block : bool, default False
        Whether this is the first stage of the network.

    Raises
    ------
    ValueError
        If a number is no whole one of at least 1.
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
