"""Augmentations do to every image exactly what they say, and nothing else."""

import numpy as np
import pytest

from d2lres.augment import Compose, Cutout, RandomCrop, RandomFlip

ALL = [
    RandomCrop(2),
    RandomCrop(1, (3, 8)),
    RandomFlip(),
    Cutout(3),
    Compose([RandomCrop(1), RandomFlip(), Cutout(2)]),
]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=["uint8", "float32"])
def images(request):
    """No two pixels of an image are the same, and none is 0."""
    image = np.arange(1, 1 + 2 * 5 * 7).reshape(2, 5, 7)
    return (image + np.arange(300)[:, None, None, None] % 150).astype(request.param)


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_what_all_have_in_common(augment, images):
    before = images.copy()
    images.flags.writeable = False
    first, again, other = augment(images, rng(1)), augment(images, rng(1)), augment(images, rng(2))
    assert np.array_equal(images, before)
    assert first.dtype == images.dtype and first.shape[:2] == images.shape[:2]
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.flags.writeable and not np.shares_memory(first, images)


@pytest.mark.parametrize(
    "augment", [RandomFlip(0), RandomCrop(0), RandomCrop(0, (5, 7)), Compose([])], ids=repr
)
def test_identity(augment, images):
    new = augment(images, rng())
    assert np.array_equal(new, images) and not np.shares_memory(new, images)


def test_flip_mirrors_left_and_right(images):
    new = RandomFlip(1)(images, rng())
    assert new[0, 0, 0].tolist() == images[0, 0, 0].tolist()[::-1]
    assert np.array_equal(new, np.flip(images, 3))


def test_flip_takes_whole_images_with_probability_p(images):
    new = RandomFlip(0.25)(images, rng())
    flipped = [np.array_equal(b, a[:, :, ::-1]) for a, b in zip(images, new, strict=True)]
    stayed = [np.array_equal(b, a) for a, b in zip(images, new, strict=True)]
    assert sum(flipped) + sum(stayed) == 300
    assert 50 < sum(flipped) < 100  # 75, and 3 standard deviations of 7.5


def crops(image, padding, height, width):
    """All that can be cut out of one image, by its upper left corner in the padded one."""
    p = padding
    padded = np.pad(image, [(0, 0), (p, p), (p, p)])
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    corners = [(i, j) for i in range(rows) for j in range(columns)]
    return {(i, j): padded[:, i : i + height, j : j + width] for i, j in corners}


@pytest.mark.parametrize("padding, size", [(1, None), (3, None), (0, 4), (1, (7, 2)), (9, 5)])
def test_every_crop_is_one_of_the_possible(images, padding, size):
    height, width = (5, 7) if size is None else size if type(size) is tuple else (size, size)
    new = RandomCrop(padding, size)(images, rng())
    assert new.shape == (300, 2, height, width)
    for image, crop in zip(images, new, strict=True):
        assert any(np.array_equal(crop, c) for c in crops(image, padding, height, width).values())


def test_all_offsets_are_as_likely():
    image = np.zeros((5000, 1, 5, 7), np.uint8)
    image[:, 0, 2, 3] = 1  # one bright pixel in the middle shows where the image went
    rows, columns = RandomCrop(2)(image, rng())[:, 0].nonzero()[1:]
    counts = np.bincount(rows * 7 + columns)
    assert counts.sum() == 5000 and np.count_nonzero(counts) == 25
    expected = {r * 7 + c for r in range(5) for c in range(1, 6)}
    assert set(np.flatnonzero(counts)) == expected
    assert 140 < counts[counts > 0].min() <= counts.max() < 260  # 200, sd 14


def squares(side, height, width):
    """Where a square can lie: by its middle pixel, as a mask of the image."""
    masks = {}
    for i in range(height):
        for j in range(width):
            top, left = i - side // 2, j - side // 2
            mask = np.zeros((height, width), bool)
            mask[max(top, 0) : top + side, max(left, 0) : left + side] = True
            masks[i, j] = mask
    return masks


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_cutout_is_a_square_around_any_pixel(images, size):
    new = Cutout(size)(images, rng())
    possible, seen = squares(size, 5, 7), set()
    for before, after in zip(images, new, strict=True):
        hit = (before != after).any(axis=0)
        assert (after[:, hit] == 0).all() and np.array_equal(after[:, ~hit], before[:, ~hit])
        where = [middle for middle, mask in possible.items() if np.array_equal(hit, mask)]
        assert where
        seen.update(where)
    assert len(seen) == 35


@pytest.mark.parametrize("fill", [9, 255.0, np.int64(3)])
def test_cutout_fill(images, fill):
    assert (Cutout(99, fill)(images, rng())[:, :, 2, 3] == fill).all()


def test_float_fill():
    gray = Cutout(9, 0.5)(np.zeros((2, 1, 3, 3), np.float32), rng())
    assert (gray == 0.5).all()


def test_compose_keeps_the_order_and_one_stream(images):
    crop, cutout, stream = RandomCrop(1), Cutout(2, fill=255), rng(3)
    both = Compose([crop, cutout])(images, rng(3))
    assert np.array_equal(both, cutout(crop(images, stream), stream))
    assert not np.array_equal(both, Compose([cutout, crop])(images, rng(3)))

    def add_one(images, rng):
        return images + np.uint8(1)

    def double(images, rng):
        return images * np.uint8(2)

    assert (Compose([add_one, double])(np.zeros_like(images), rng()) == 2).all()


def test_repr():
    assert repr(RandomCrop(padding=2)) == "RandomCrop(padding=2)"
    assert repr(RandomCrop(4, size=(32, 30))) == "RandomCrop(padding=4, size=(32, 30))"
    both = Compose([RandomFlip(), Cutout(8)])
    assert repr(both) == "Compose([RandomFlip(p=0.5), Cutout(size=8)])"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: RandomCrop(-1), "padding must be a whole number of at least 0, not -1"),
        (lambda: RandomCrop(1.5), "padding must be a whole number"),
        (lambda: RandomCrop(2, 0), "size must be a whole number of at least 1"),
        (lambda: RandomCrop(2, (3, 4, 5)), "size must be a number of pixels or"),
        (lambda: RandomFlip(1.1), "p is a probability, a number from 0 to 1, got 1.1"),
        (lambda: RandomFlip("often"), "got 'often'"),
        (lambda: Cutout(0), "size must be a whole number of at least 1"),
        (lambda: Cutout(3, "gray"), "fill is the one number .* got 'gray'"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_compose_of_what_is_none():
    for wrong in (RandomFlip(), [RandomFlip(), 4], [RandomFlip(), None]):
        with pytest.raises(TypeError, match="expects a list of augmentations, got .*RandomFlip"):
            Compose(wrong)


GOOD = np.zeros((2, 1, 4, 4), np.uint8)


@pytest.mark.parametrize("augment", ALL, ids=repr)
@pytest.mark.parametrize(
    "images, generator, error, words",
    [
        (GOOD.astype(float), rng(), TypeError, "of uint8 or float32, got numpy.ndarray of float64"),
        (GOOD.tolist(), rng(), TypeError, "got builtins.list"),
        (GOOD[0], rng(), ValueError, r"a batch of images .* got the shape \(1, 4, 4\)"),
        (GOOD, 0, TypeError, "a generator of random numbers, got 0: write rng ="),
        (GOOD, None, TypeError, "a generator of random numbers, got None"),
    ],
)
def test_bad_arguments(augment, images, generator, error, words):
    with pytest.raises(error, match=words):
        augment(images, generator)


def test_arrays_of_mxnet():
    mx = pytest.importorskip("mxnet")
    with pytest.raises(TypeError, match=r"got mxnet\..*call .asnumpy\(\)"):
        RandomFlip()(mx.np.zeros((2, 1, 4, 4)), rng())


def test_what_does_not_fit_the_images():
    with pytest.raises(ValueError, match="cannot cut 7x7 pixels out of images of 4x4 with 1 more"):
        RandomCrop(1, 7)(GOOD, rng())
    for fill in (256, -1, 0.5):
        with pytest.raises(ValueError, match=f"whole numbers from 0 to 255, got fill={fill}"):
            Cutout(2, fill)(GOOD, rng())
