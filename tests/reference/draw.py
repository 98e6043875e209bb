"""Weights that need no file: drawn from a tensor's name, by the scripts here and by the tests."""

import math
import zlib

import numpy as np


def draw(name, shape):
    """Return the float32 tensor of this name: the same one wherever it is asked for.

    Convolutions and dense layers have He's scale. Batch normalization has its scales between 0.4
    and 0.8 and its variances between 0.5 and 1.5: a network of any depth gives outputs near one.
    """
    kind = name.replace("/", ".").rpartition(".")[2]
    low, high = -0.2, 0.2  # biases and means
    if kind == "X":
        low, high = -1, 1
    elif len(shape) > 1:
        fan_in = math.prod(shape[:-1] if kind == "kernel" else shape[1:])
        low, high = -math.sqrt(6 / fan_in), math.sqrt(6 / fan_in)
    elif kind in ("weight", "gamma"):
        low, high = 0.4, 0.8
    elif kind in ("running_var", "moving_variance"):
        low, high = 0.5, 1.5
    tensor = np.asarray(np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32))
    tensor *= np.float32(high - low)
    tensor += np.float32(low)
    return tensor


def sampled(tensor, most=16):
    """Return at most so many numbers of a tensor, from all over it, as a flat array."""
    flat = np.ravel(tensor)
    return flat[:: -(-flat.size // most)]
