"""Augmentation: every epoch sees the training images a little changed, at random.

An augmentation is any callable ``augment(images, rng)`` that returns new images and leaves those
it was given alone; it works on a whole batch at once. A parameter that does not fit is refused
with a ValueError. Importing this module does not import MXNet.

What is random, and with it which pixel goes where, is decided by NumPy on the host; the pixels are
moved and mixed by methods that the arrays of NumPy and of MXNet share. So images of MXNet stay on
their device, and the same seed does the same to both.
"""

from __future__ import annotations

import numbers
import sys

import numpy as np

from ..checks import channels_first, height_width, labels, plain, whole
from .batches import to_mxnet

__all__ = [
    "ColorJitter",
    "Compose",
    "Cutout",
    "MixUp",
    "RandomCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
]


class Augmentation:
    """What the augmentations have in common; a new one defines ``_apply(images, rng)``.

    ``repr`` shows the parameters, for the record of a run: they are the attributes, by the names
    they have in ``__init__``.
    """

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return new images, changed at random.

        Parameters
        ----------
        images : numpy.ndarray or mxnet.np.ndarray
            uint8 or float32 of shape (n, channels, height, width). It stays as it is.
        rng : numpy.random.Generator
            Where the draws come from: the same state gives the same images.

        Returns
        -------
        numpy.ndarray or mxnet.np.ndarray
            Of the same kind, device, dtype and, but for a crop that was given a size, shape.

        Raises
        ------
        TypeError, ValueError
            If `images` or `rng` is something else; if `images` has another shape, or does not fit
            the parameters.
        """
        self._check(images, rng)
        return self._apply(images, rng)

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"

    def _apply(self, images, rng):
        raise NotImplementedError

    def _check(self, images, rng):
        name, dtype = type(self).__name__, getattr(images, "dtype", None)
        known = isinstance(images, np.ndarray) or _is_mxnet(images)
        if not known or dtype not in (np.uint8, np.float32):
            came = f"{type(images).__module__}.{type(images).__name__}"
            raise TypeError(
                f"{name} expects an array of NumPy or mxnet.np, of uint8 or float32, got {came} of "
                f"{getattr(dtype, '__name__', dtype)}: call .astype('float32') on other numbers, "
                "and .as_np_ndarray() on an mx.nd.NDArray."
            )
        if images.ndim != 4:
            raise ValueError(
                f"{name} expects a batch of images (n, channels, height, width), got the shape "
                f"{images.shape}: for one grey image write image[None, None]."
            )
        channels_first(images, name)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"{name} expects a generator of random numbers, got {rng!r}: "
                "write rng = np.random.default_rng(0)."
            )


class RandomCrop(Augmentation):
    """Pad with zeros and cut out at a random place, for each image another: the image shifts.

    ``RandomCrop(4)`` on images of 32x32 is that of He et al., "Deep Residual Learning for Image
    Recognition", CVPR 2016, section 4.2.

    Parameters
    ----------
    padding : int
        Pixels added at each of the four sides, 0 or more.
    size : int or (int, int), optional
        Side, or height and width, of what is cut out. By default the size of the image.
    """

    def __init__(self, padding, size=None):
        self.padding = whole("padding", padding, least=0)
        self.size = height_width("size", size)

    def _apply(self, images, rng):
        n, _, *old = images.shape
        new, p = self.size or old, self.padding
        places = list(zip(old, new, strict=True))
        if any(b > a + 2 * p for a, b in places):
            raise ValueError(
                f"cannot cut {new[0]}x{new[1]} pixels out of images of {old[0]}x{old[1]} with "
                f"{p} more at each side: take a smaller size or a larger padding."
            )
        top, left = (rng.integers(a + 2 * p - b + 1, size=(n, 1, 1)) - p for a, b in places)
        return _pixels(images, top + np.arange(new[0])[:, None], left + np.arange(new[1]))


class RandomFlip(Augmentation):
    """Mirror each image, left to right, with probability `p`, as in the paper of `RandomCrop`."""

    def __init__(self, p=0.5):
        if not (isinstance(p, numbers.Real) and 0 <= p <= 1):
            raise ValueError(f"p is a probability, a number from 0 to 1, got {p!r}: try 0.5.")
        self.p = float(p)

    def _apply(self, images, rng):
        n, _, height, width = images.shape
        flipped, columns = rng.random((n, 1, 1)) < self.p, np.arange(width)
        columns = np.where(flipped, columns[::-1], columns)
        return _pixels(images, np.arange(height)[:, None], columns)


class RandomRotation(Augmentation):
    """Turn each image about its centre by a random angle; what comes in from outside is black.

    The pixels are interpolated bilinearly; by a multiple of 90 degrees square images turn exactly,
    as by `numpy.rot90`.

    Parameters
    ----------
    degrees : float or (float, float)
        The angle is drawn from ``[-degrees, degrees]`` or between the two, counterclockwise, as by
        ``torchvision.transforms.RandomRotation``.
    """

    def __init__(self, degrees):
        if isinstance(degrees, numbers.Real):
            degrees = (-_number("degrees", degrees), degrees)
        self.degrees = _ascending("degrees", degrees, "like (-15, 15), or one")

    def _apply(self, images, rng):
        n, _, height, width = images.shape
        angle = np.deg2rad(rng.uniform(*self.degrees, size=(n, 1, 1)))
        cos, sin = np.cos(angle).round(12), np.sin(angle).round(12)  # of 90 degrees: exactly 0, 1
        y, x = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        rows, columns = sin * x + cos * y, cos * x - sin * y  # where a new pixel was before
        return _bilinear(images, rows + (height - 1) / 2, columns + (width - 1) / 2)


class RandomResizedCrop(Augmentation):
    """Cut a rectangle of random area, shape and place out of each image and resize it to `size`.

    The pixels are interpolated bilinearly, with no smoothing before shrinking. An image for which
    ten rectangles in turn stood out over its border gets the largest in its middle. It is that of
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6, with the details of
    ``torchvision.transforms.RandomResizedCrop``.

    Parameters
    ----------
    size : int or (int, int)
        Side, or height and width, of the new images.
    scale : (float, float), default (0.08, 1)
        The least and the largest share of the image's area, above 0 and at most 1.
    ratio : (float, float), default (3 / 4, 4 / 3)
        The least and the largest width over height, above 0: its logarithm is uniform.
    """

    def __init__(self, size, scale=(0.08, 1), ratio=(3 / 4, 4 / 3)):
        self.size = height_width("size", size)
        if size is None:
            raise ValueError("size must be a number of pixels or (height, width), not None")
        self.scale = _ascending("scale", scale, "above 0 and at most 1, like (0.08, 1)", 0, 1)
        self.ratio = _ascending("ratio", ratio, "above 0, like (3 / 4, 4 / 3)", 0)

    def _apply(self, images, rng):
        n, _, *old = images.shape
        *sides, fit = self._sides(n, *old, rng)
        rows, columns = (
            self._places(*axis, fit, rng) for axis in zip(old, sides, self.size, strict=True)
        )
        return _bilinear(images, rows[:, :, None], columns[:, None, :])

    def _sides(self, n, height, width, rng):
        """Return heights and widths of n rectangles, and which were not the last resort."""
        area = height * width * rng.uniform(*self.scale, size=(10, n))
        ratio = np.exp(rng.uniform(*np.log(self.ratio), size=(10, n)))
        heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (1 <= heights) & (heights <= height) & (1 <= widths) & (widths <= width)
        fit, first = fits.any(axis=0), (fits.argmax(axis=0), np.arange(n))
        highest = max(round(min(height, width / self.ratio[0])), 1)
        widest = max(round(min(width, height * self.ratio[1])), 1)
        heights, widths = np.where(fit, (heights[first], widths[first]), [[highest], [widest]])
        return heights.astype(int), widths.astype(int), fit

    def _places(self, old, side, new, fit, rng):
        """Return where along an axis the new pixels lie among the old, of shape (n, new)."""
        first = np.where(fit, rng.integers(old - side + 1), (old - side) // 2)
        at = (np.arange(new) + 0.5) * side[:, None] / new - 0.5
        return first[:, None] + at.clip(0, side[:, None] - 1)


class ColorJitter(Augmentation):
    """Change brightness, contrast and saturation of each image, in this order, at random.

    An image becomes ``factor * image + (1 - factor) * other``, where the other is black, then the
    mean of its grey (by ITU-R BT.601), then its grey. A factor is drawn from
    ``[max(0, 1 - b), 1 + b]``, where ``b`` is the parameter, as by
    ``torchvision.transforms.ColorJitter``. At last uint8 images are rounded and clipped to 0 to
    255; float32 images, whose range is not known, are not.

    Parameters
    ----------
    brightness, contrast, saturation : float, default 0
        0 or more. The images are grey (1 channel), which have no saturation, or red, green and blue
        (3).
    """

    def __init__(self, brightness=0, contrast=0, saturation=0):
        self.brightness = _number("brightness", brightness)
        self.contrast = _number("contrast", contrast)
        self.saturation = _number("saturation", saturation)

    def _apply(self, images, rng):
        if images.shape[1] not in (1, 3):
            raise ValueError(
                "ColorJitter expects images with 1 channel (grey) or 3 (red, green, blue), got "
                f"the shape {images.shape}: give it the channels of colour alone."
            )
        size = (len(images), 1, 1, 1)
        brightness, contrast, saturation = (
            _beside(images, rng.uniform(max(0, 1 - b), 1 + b, size).astype("float32"))
            for b in (self.brightness, self.contrast, self.saturation)
        )
        X = images.astype("float32") * brightness
        mean = _grey(X).mean(axis=(1, 2, 3), keepdims=True)
        X = X * contrast + mean * (1 - contrast)
        if images.shape[1] == 3:
            X = X * saturation + _grey(X) * (1 - saturation)
        return _rounded(X, images.dtype)


class Cutout(Augmentation):
    """Blank out a square at a random place of each image.

    The middle of the square may be any pixel, so that it can stand out over the border: then less
    of the image is lost. ``Cutout(16)`` on images of 32x32 is that of DeVries and Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017.

    Parameters
    ----------
    size : int
        Side of the square in pixels, 1 or more.
    fill : int or float, optional
        What its pixels become, by default 0. For uint8 images a whole number from 0 to 255.
    """

    def __init__(self, size, fill=None):
        self.size = whole("size", size)
        if not (fill is None or isinstance(fill, numbers.Real)):
            raise ValueError(f"fill is the one number all pixels of the square get, got {fill!r}")
        self.fill = plain(fill)

    def _apply(self, images, rng):
        fill = self.fill or 0
        if images.dtype == np.uint8 and not (0 <= fill <= 255 and fill == int(fill)):
            raise ValueError(
                f"the pixels of uint8 images are whole numbers from 0 to 255, got fill={fill!r}: "
                "take one of those."
            )
        rows, columns = (self._hit(side, len(images), rng) for side in images.shape[2:])
        hit = (rows[:, :, None] & columns[:, None, :])[:, None]
        square = np.where(hit, fill, 0).astype(images.dtype)
        return images * _beside(images, ~hit) + _beside(images, square)

    def _hit(self, side, n, rng):
        """Return which pixels of an axis the squares of n images cover."""
        at = np.arange(side) - rng.integers(side, size=(n, 1)) + self.size // 2
        return (0 <= at) & (at < self.size)


class Compose(Augmentation):
    """Apply several augmentations one after the other, from one stream of random numbers.

    Each is a callable of the form ``augment(images, rng)``; something else is a TypeError. An empty
    list leaves the images as they are.
    """

    def __init__(self, augmentations):
        known = isinstance(augmentations, (list, tuple)) and all(map(callable, augmentations))
        if not known or any(isinstance(augment, type) for augment in augmentations):
            raise TypeError(
                f"Compose expects a list of augmentations, got {augmentations!r}: write for "
                "example Compose([RandomCrop(4), RandomFlip()])."
            )
        self.augmentations = list(augmentations)

    def __repr__(self) -> str:
        return f"Compose({self.augmentations!r})"

    def _apply(self, images, rng):
        images = images.copy()
        for augment in self.augmentations:
            images = augment(images, rng)
        return images


class MixUp(Augmentation):
    """Mix each image of a batch, and its label, with another one: ``lam * X + (1 - lam) * X'``.

    It changes labels too, so it is called with them and is not a step of `Compose`. The network is
    trained on what it returns by ``gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)``, which
    is the same as ``lam`` times the loss of the one label and ``1 - lam`` times that of the other.
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, section 2, take
    ``MixUp(1)`` for CIFAR-10 and ``MixUp(0.2)`` for ImageNet.

    Parameters
    ----------
    alpha : float
        Above 0. The weight ``lam`` of each pair is drawn from the distribution Beta(alpha, alpha):
        1 makes all weights as likely, less leaves most images nearly alone.
    """

    def __init__(self, alpha):
        if not (isinstance(alpha, numbers.Real) and 0 < alpha < np.inf):
            raise ValueError(
                f"alpha must be a number above 0, not {alpha!r}: try 0.2, or 1 for CIFAR"
            )
        self.alpha = plain(alpha)

    def __call__(self, X, y, rng=None, num_classes=None):
        """Return the mixed images and what shares they have in each class.

        Parameters
        ----------
        X, rng
            As the images and the generator of any augmentation.
        y : numpy.ndarray or mxnet.np.ndarray
            Integers of shape (n,), from 0 to ``num_classes - 1``.
        num_classes : int

        Returns
        -------
        X, Y : numpy.ndarray or mxnet.np.ndarray
            Both of the kind and on the device of `X`: the images, of the same dtype and shape;
            float32 of shape (n, num_classes), of which each row sums to 1.

        Raises
        ------
        TypeError, ValueError
            As any augmentation; also if the labels are left out, or do not fit.
        """
        if isinstance(y, np.random.Generator):
            raise TypeError(
                "MixUp mixes labels too, got images alone: it is no augmentation of a Compose or a "
                "loader, write X, Y = MixUp(0.2)(X, y, rng, num_classes)."
            )
        self._check(X, rng)
        n, num_classes = len(X), whole("num_classes", num_classes)
        shares = np.eye(num_classes, dtype="float32")[labels(y, n, num_classes)]
        lam = rng.beta(self.alpha, self.alpha, size=(n, 1)).astype("float32")
        other = rng.permutation(n)
        Y = lam * shares + (1 - lam) * shares[other]
        weight, floats = _beside(X, lam.reshape(n, 1, 1, 1)), X.astype("float32")
        mixed = floats * weight + floats.take(_beside(X, other), axis=0) * (1 - weight)
        return _rounded(mixed, X.dtype), _beside(X, Y)


# ---------------------------------------------- on arrays of NumPy and of MXNet, by common methods


def _is_mxnet(array):
    mxnet = sys.modules.get("mxnet")  # without it there is no array of it
    return mxnet is not None and isinstance(array, mxnet.np.ndarray)


def _beside(images, array):
    """Return a NumPy array as one of the kind of `images`, on their device."""
    return to_mxnet(array).as_in_ctx(images.ctx) if _is_mxnet(images) else array


def _pixels(images, rows, columns, weight=True):
    """Return the pixels at whole rows and columns times `weight`: black where there are none.

    `rows`, `columns` and `weight` are NumPy's and together of shape (n, new height, new width).
    """
    n, channels, height, width = images.shape
    inside = (0 <= rows) & (rows < height) & (0 <= columns) & (columns < width)
    at = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
    first = np.arange(n * channels).reshape(n, channels, 1, 1) * (height * width)
    taken = images.reshape(-1).take(_beside(images, first + at[:, None]), mode="clip")
    return taken * _beside(images, (inside * weight)[:, None])


def _bilinear(images, rows, columns):
    """Return the images at rows and columns between the pixels, in their own dtype."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    X, Y = images.astype("float32"), 0
    for i, a in ((top, 1 - down), (top + 1, down)):
        for j, b in ((left, 1 - right), (left + 1, right)):
            Y = Y + _pixels(X, i, j, (a * b).astype("float32"))
    return _rounded(Y, images.dtype)


def _rounded(X, dtype):
    """Return float32 images as `dtype`."""
    return (X + 0.5).clip(0, 255).astype("uint8") if dtype == np.uint8 else X


def _grey(X):
    """Return the brightness of grey or RGB images by ITU-R BT.601, with one channel."""
    return X if X.shape[1] == 1 else 0.299 * X[:, :1] + 0.587 * X[:, 1:2] + 0.114 * X[:, 2:]


# -------------------------------------------------------------------------------- the parameters


def _number(name, value):
    if not (isinstance(value, numbers.Real) and 0 <= value < np.inf):
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
    return plain(value)


def _ascending(name, value, words, above=-np.inf, most=np.inf):
    """Return a pair of numbers, the smaller first; `words` say which they may be."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    real = len(pair) == 2 and all(isinstance(x, numbers.Real) and np.isfinite(x) for x in pair)
    if not (real and above < pair[0] <= pair[1] <= most):
        raise ValueError(f"{name} must be two numbers, the smaller first, {words}, not {value!r}")
    return plain(pair)
