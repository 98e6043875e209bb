"""What several tests need."""

import mxnet as mx
import numpy as onp
import pytest

from d2lres import ArrayIter


@pytest.fixture(autouse=True)
def _seeded():
    mx.random.seed(0)
    onp.random.seed(0)


@pytest.fixture
def stripes():
    """Two classes that any network can tell apart: horizontal and vertical stripes."""

    def iterator(num=32, batch_size=16, shuffle=True, **kwargs):
        labels = onp.arange(num) % 2
        lines = onp.arange(8) // 2 % 2 * 255
        images = onp.where(labels[:, None, None], lines, lines[:, None])[:, None]
        noise = onp.random.default_rng(0).integers(-60, 60, images.shape)
        images = onp.clip(images + noise, 0, 255).astype(onp.uint8)
        return ArrayIter(images, labels, batch_size, shuffle=shuffle, source="stripes", **kwargs)

    return iterator
