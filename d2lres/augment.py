"""Augmentation: every epoch sees the training images a little changed, at random.

An augmentation is any callable ``augment(images, rng)`` that returns new images and leaves those
it was given alone; it works on a whole batch at once. Importing this module does not import MXNet.
"""

from __future__ import annotations

import numbers

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .data import _height_width, _whole

__all__ = ["Compose", "Cutout", "RandomCrop", "RandomFlip"]


class Augmentation:
    """What the augmentations have in common; a new one defines ``_apply(images, rng)``.

    ``repr`` shows the parameters, for the record of a run: they are the attributes, by the names
    they have in ``__init__``.
    """

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return new images, changed at random.

        Parameters
        ----------
        images : numpy.ndarray
            uint8 or float32 of shape (n, channels, height, width). It stays as it is.
        rng : numpy.random.Generator
            Where the draws come from: the same state gives the same images.

        Returns
        -------
        numpy.ndarray
            Of the same dtype and, unless `RandomCrop` was given a size, of the same shape.

        Raises
        ------
        TypeError
            If `images` or `rng` is something else.
        ValueError
            If `images` has another shape, or its images do not fit the parameters.
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
        if not isinstance(images, np.ndarray) or dtype not in (np.uint8, np.float32):
            came = f"{type(images).__module__}.{type(images).__name__}"
            raise TypeError(
                f"{name} expects a NumPy array of uint8 or float32, got {came} of {dtype}: "
                "call .asnumpy() on an array of MXNet, and .astype('float32') on other numbers."
            )
        if images.ndim != 4:
            raise ValueError(
                f"{name} expects a batch of images (n, channels, height, width), got the shape "
                f"{images.shape}: for one grey image write image[None, None]."
            )
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"{name} expects a generator of random numbers, got {rng!r}: "
                "write rng = np.random.default_rng(0)."
            )


class RandomCrop(Augmentation):
    """Pad with zeros and cut out at a random place, for each image another: the image shifts.

    Parameters
    ----------
    padding : int
        Pixels added at each of the four sides.
    size : int or (int, int), optional
        Side, or height and width, of what is cut out. By default the size of the image.

    Raises
    ------
    ValueError
        If one of them is not a whole number, or `padding` below 0, or `size` below 1.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2, with
    ``RandomCrop(4)`` on images of 32x32.
    """

    def __init__(self, padding, size=None):
        self.padding = _whole("padding", padding, least=0)
        self.size = _height_width("size", size)

    def _apply(self, images, rng):
        n, channels, *old = images.shape
        new, p = self.size or old, self.padding
        if any(b > a + 2 * p for a, b in zip(old, new, strict=True)):
            raise ValueError(
                f"cannot cut {new[0]}x{new[1]} pixels out of images of {old[0]}x{old[1]} with "
                f"{p} more at each side: take a smaller size or a larger padding."
            )
        padded = np.zeros((n, channels, *(a + 2 * p for a in old)), images.dtype)
        padded[:, :, p : p + old[0], p : p + old[1]] = images
        windows = sliding_window_view(padded, new, axis=(2, 3))  # all crops there are, as a view
        top, left = (rng.integers(places, size=n) for places in windows.shape[2:4])
        return windows[np.arange(n), :, top, left]


class RandomFlip(Augmentation):
    """Mirror each image, left to right, with probability `p`.

    Parameters
    ----------
    p : float, default 0.5

    Raises
    ------
    ValueError
        If `p` is not a number from 0 to 1.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    def __init__(self, p=0.5):
        if not (isinstance(p, numbers.Real) and 0 <= p <= 1):
            raise ValueError(f"p is a probability, a number from 0 to 1, got {p!r}: try 0.5.")
        self.p = float(p)

    def _apply(self, images, rng):
        flipped = rng.random(len(images)) < self.p
        images = images.copy()
        images[flipped] = images[flipped, :, :, ::-1]
        return images


class Cutout(Augmentation):
    """Blank out a square at a random place of each image.

    The middle of the square may be any pixel, so that it can stand out over the border: then less
    of the image is lost.

    Parameters
    ----------
    size : int
        Side of the square in pixels.
    fill : int or float, optional
        What its pixels become, by default 0. For uint8 images a whole number from 0 to 255.

    Raises
    ------
    ValueError
        If `size` is not a whole number of at least 1, or `fill` not a number.

    References
    ----------
    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    2017, with ``Cutout(16)`` on images of 32x32.
    """

    def __init__(self, size, fill=None):
        self.size = _whole("size", size)
        if not (fill is None or isinstance(fill, numbers.Real)):
            raise ValueError(f"fill is the one number all pixels of the square get, got {fill!r}")
        self.fill = fill

    def _apply(self, images, rng):
        fill = self.fill or 0
        if images.dtype == np.uint8 and not (0 <= fill <= 255 and fill == int(fill)):
            raise ValueError(
                f"the pixels of uint8 images are whole numbers from 0 to 255, got fill={fill!r}: "
                "take one of those."
            )
        rows, columns = (self._hit(side, len(images), rng) for side in images.shape[2:])
        images = images.copy()
        np.copyto(images, fill, "unsafe", where=(rows[:, :, None] & columns[:, None, :])[:, None])
        return images

    def _hit(self, side, n, rng):
        """Return which pixels of an axis the squares of n images cover."""
        first = rng.integers(side, size=(n, 1)) - self.size // 2
        at = np.arange(side)
        return (first <= at) & (at < first + self.size)


class Compose(Augmentation):
    """Apply several augmentations one after the other, from one stream of random numbers.

    Parameters
    ----------
    augmentations : list of callable
        Each of the form ``augment(images, rng)``. None at all leave the images as they are.

    Raises
    ------
    TypeError
        If it is not a list, or holds something that cannot be called.
    """

    def __init__(self, augmentations):
        if not (isinstance(augmentations, (list, tuple)) and all(map(callable, augmentations))):
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
