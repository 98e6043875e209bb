"""Augmentations do to every image exactly what they say, and nothing else."""

import mxnet as mx
import numpy as np
import pytest

from d2lres.data.augment import (
    ColorJitter,
    Compose,
    Cutout,
    MixUp,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
)

ALL = [RandomCrop(2), RandomCrop(1, (3, 8)), RandomFlip(), Cutout(3), Cutout(3, 7)]
ALL += [RandomRotation(30), RandomResizedCrop((4, 6)), ColorJitter(0.5, 0.5, 0.5)]
ALL += [Compose([RandomCrop(1), RandomFlip(), Cutout(2)])]
NOTHING = [RandomFlip(0), RandomCrop(0), RandomCrop(0, (5, 7)), RandomRotation(0), ColorJitter()]
NOTHING += [RandomResizedCrop((5, 7), scale=(1, 1), ratio=(1.4, 1.4)), Compose([])]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=["uint8", "float32"])
def images(request):
    """No two pixels of an image are the same, and none is 0."""
    image = np.arange(1, 1 + 3 * 5 * 7).reshape(3, 5, 7)
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


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_arrays_of_mxnet_stay_on_their_device(augment, images):
    X = mx.np.array(images, dtype=images.dtype, ctx=mx.cpu(1))
    new, same = augment(X, rng(1)), augment(images, rng(1))
    assert type(new) is mx.np.ndarray and new.ctx == mx.cpu(1) and new.dtype == images.dtype
    assert np.array_equal(X.asnumpy(), images)
    # MXNet may add up a mean in another order, which can turn the rounding of a grey level
    off = 1.01 if isinstance(augment, ColorJitter) and images.dtype == np.uint8 else 1e-4
    assert np.allclose(new.asnumpy().astype(float), same.astype(float), rtol=0, atol=off)


@pytest.mark.parametrize("augment", NOTHING, ids=repr)
def test_identity(augment, images):
    new = augment(images, rng())
    assert np.array_equal(new, images) and not np.shares_memory(new, images)


def test_flip_mirrors_left_and_right_whole_images_with_probability_p(images):
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
    assert new.shape == (300, 3, height, width)
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


@pytest.mark.parametrize("turns", [-1, 1, 2, 3, 4, 41])
@pytest.mark.parametrize("side", [4, 5])
def test_quarter_turns_are_exact(images, side, turns):
    square = images[:, :, :side, :side] * (images[:, :, :side, :side] % 2)  # black stays black
    new = RandomRotation((90 * turns, 90 * turns))(square, rng())
    assert np.array_equal(new, np.rot90(square, turns, axes=(2, 3)))


def slopes(n, height, width):
    """Images whose channels are the row and the column of each pixel."""
    return np.tile(np.mgrid[:height, :width].astype(np.float32), (n, 1, 1, 1))


@pytest.mark.parametrize("height, width", [(9, 9), (9, 12)])
def test_rotation_by_any_angle(height, width):
    cos, sin = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    middle = np.array([[[height - 1]], [[width - 1]]]) / 2
    old = slopes(1, height, width)
    new = (RandomRotation((25, 25))(old, rng()) - middle)[0, :, 2:-2, 3:-3]
    y, x = (old - middle)[0, :, 2:-2, 3:-3]
    assert np.allclose(new, [cos * y + sin * x, cos * x - sin * y], atol=1e-5)


def test_what_turns_in_from_outside_is_black():
    white = np.full((1, 1, 9, 9), 200, np.uint8)
    new = RandomRotation((45, 45))(white, rng())[0, 0]
    assert (new[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all() and (new[3:6, 3:6] == 200).all()
    assert 0 < new[0, 2] < 200  # the border runs through this pixel


def test_between_pixels_grey_levels_are_rounded():
    steps = np.array([[[[0, 0, 3, 3]]]], np.uint8)  # at 1/4 and 3/4 between 0 and 3: 0.75, 2.25
    new = RandomResizedCrop((1, 8), scale=(1, 1), ratio=(4, 4))(steps, rng())
    assert new.ravel().tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("degrees, low, high", [(30, -30, 30), ((100, 170), 100, 170)])
def test_angles_fill_their_range(degrees, low, high):
    columns = RandomRotation(degrees)(slopes(500, 5, 5), rng())[:, 1]
    middle = columns[:, 2, 2]
    angles = np.rad2deg(np.arctan2(columns[:, 1, 2] - middle, columns[:, 2, 3] - middle))
    assert low - 0.01 < angles.min() < low + 1 and high - 1 < angles.max() < high + 0.01
    assert abs(angles.mean() - (low + high) / 2) < 3  # standard deviation below 1


def rectangle(new, axis):
    """Return where the crops of an axis begin and their sides, from crops of slopes to 2x2."""
    a, b = new[:, axis, 0, 0], new[:, axis, 1, 1]
    side = 2 * (b - a)
    return a + 0.5 - side / 4, side


def test_rectangles_of_the_resized_crop():
    new = RandomResizedCrop(2, scale=(0.1, 0.3), ratio=(0.5, 2))(slopes(3000, 40, 60), rng())
    (top, height), (left, width) = rectangle(new, 0), rectangle(new, 1)
    for first, side, old in [(top, height, 40), (left, width, 60)]:
        assert np.allclose([first, side], np.rint([first, side]), atol=1e-3)
        assert np.isclose(first.min(), 0, atol=1e-3) and np.isclose((first + side).max(), old)
    area, ratio = height * width / 2400, width / height
    assert 0.09 < area.min() < 0.11 and 0.29 < area.max() < 0.32  # sides are rounded
    assert 0.45 < ratio.min() < 0.53 and 1.9 < ratio.max() < 2.2
    assert abs(np.log(ratio).mean()) < 0.03  # wide ones are as likely as high ones


def test_resized_crop_resizes_as_the_loader_does(images):
    from d2lres.data.batches import _bilinear

    whole = RandomResizedCrop((9, 4), scale=(1, 1), ratio=(1.4, 1.4))
    expected = _bilinear(5, 9) @ images.astype(np.float32) @ _bilinear(7, 4).T
    off = 0.51 if images.dtype == np.uint8 else 1e-3
    assert np.allclose(whole(images, rng()), expected, rtol=0, atol=off)


def test_resized_crop_that_never_fits_takes_the_largest_in_the_middle():
    wide = slopes(20, 2, 40)
    crop = RandomResizedCrop((2, 3), scale=(0.9, 1))  # at a ratio of 4/3: 2x3 pixels
    assert np.array_equal(crop(wide, rng()), wide[..., 18:21])
    tall = wide.swapaxes(2, 3)
    crop = RandomResizedCrop((3, 2), scale=(0.9, 1))
    assert np.array_equal(crop(tall, rng()), tall[:, :, 18:21])
    crop = RandomResizedCrop((1, 2), ratio=(50, 50))  # one row is too high for that already
    assert np.array_equal(crop(tall, rng()), tall[:, :, 19:20])


def grey(images):
    return np.tensordot(images, [0.299, 0.587, 0.114], axes=(1, 0))[:, None]


def factors(new, old):
    """Return by which factor each image was multiplied, after checking that it is one."""
    factor = (new * old).sum(axis=(1, 2, 3)) / (old * old).sum(axis=(1, 2, 3))
    assert np.allclose(new, factor[:, None, None, None] * old, atol=1e-4)
    return factor


@pytest.mark.parametrize("b, low, high", [(0.4, 0.6, 1.4), (3, 0, 4)])
@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation"])
def test_jitter_mixes_with_black_mean_and_grey(what, b, low, high):
    images = rng(5).random((1000, 3, 2, 2), np.float32)
    new = ColorJitter(**{what: b})(images, rng())
    other = {
        "brightness": np.zeros_like(images),
        "contrast": grey(images).mean(axis=(2, 3), keepdims=True),
        "saturation": grey(images),
    }[what]
    factor = factors(new - other, images - other)
    margin = (high - low) / 100
    assert low - 1e-3 < factor.min() < low + margin and high - margin < factor.max() < high + 1e-3


def test_jitter_clips_and_rounds_grey_levels():
    images = np.full((300, 3, 2, 2), 200, np.uint8)
    new = ColorJitter(brightness=0.5)(images, rng())[:, 0, 0, 0]
    exact = ColorJitter(brightness=0.5)(images.astype(np.float32), rng())[:, 0, 0, 0]
    assert exact.max() > 290 and np.array_equal(new, np.minimum(np.rint(exact), 255))


def test_jitter_of_grey_images_has_no_saturation(images):
    assert np.array_equal(ColorJitter(saturation=1)(images[:, :1], rng()), images[:, :1])
    assert not np.array_equal(ColorJitter(contrast=1)(images[:, :1], rng()), images[:, :1])


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
    assert (Cutout(9, fill / 2)(np.zeros((2, 1, 3, 3), np.float32), rng()) == fill / 2).all()


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


def mixed(dtype="float32", alpha=1.0, n=40):
    """Mix images whose n pixels are all 0 but one, by which they show what is in the mixture."""
    X = np.eye(n, dtype=dtype).reshape(n, 1, 4, n // 4) * np.array(200, dtype)
    X.flags.writeable = False
    return MixUp(alpha)(X, np.arange(n), rng(), n)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_mixup_mixes_labels_with_the_weights_of_the_images(dtype):
    X, Y = mixed(dtype)
    assert X.dtype == dtype and Y.dtype == np.float32 and Y.shape == (40, 40)
    expected = np.rint(200 * Y) if dtype == "uint8" else 200 * Y
    assert np.allclose(X.reshape(40, 40), expected, atol=1e-4) and np.allclose(Y.sum(axis=1), 1)
    assert (np.count_nonzero(Y, axis=1) <= 2).all() and np.count_nonzero(Y) > 70
    assert np.array_equal(np.count_nonzero(Y, axis=0), np.count_nonzero(Y, axis=1))  # a permutation
    weights = Y.diagonal()
    assert weights.min() < 0.1 and weights.max() > 0.9 and len(set(weights)) > 35


def test_alpha_says_how_much_is_mixed():
    weights = mixed(alpha=1000)[1].diagonal()
    assert abs(weights[weights < 1] - 0.5).max() < 0.1  # 1: it was mixed with itself
    assert np.allclose(mixed(alpha=0.001)[1].max(axis=1), 1)


def test_mixup_repeats_and_agrees_on_mxnet(images):
    y = np.arange(300) % 10
    X, Y = MixUp(0.5)(images, y, rng(), 10)
    for same, other in zip(MixUp(0.5)(images, y, rng(), 10), (X, Y), strict=True):
        assert np.array_equal(same, other)
    assert not np.array_equal(MixUp(0.5)(images, y, rng(1), 10)[1], Y)
    device = mx.np.array(images, dtype=images.dtype, ctx=mx.cpu(1))
    for new, same in zip(MixUp(0.5)(device, mx.np.array(y), rng(), 10), (X, Y), strict=True):
        assert new.ctx == mx.cpu(1) and new.dtype == same.dtype
        assert np.allclose(new.asnumpy(), same, rtol=0, atol=1e-4)
    assert np.array_equal(device.asnumpy(), images)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (([0, 2], rng(), 2), ValueError, "labels go from 0 to 2, but there are 2 classes"),
        (([-1, 1], rng(), 2), ValueError, "labels go from -1 to 1"),
        (([0.5, 1.0], rng(), 2), ValueError, "the whole numbers of classes, but one is 0.5"),
        (([0], rng(), 2), ValueError, r"one for each of the 2 images.* got shape \(1,\)"),
        (([0, 1], rng()), ValueError, "num_classes must be a whole number of at least 1, not None"),
        (([0, 1], 0, 2), TypeError, "a generator of random numbers, got 0"),
        ((rng(),), TypeError, "MixUp mixes labels too, got images alone"),
    ],
)
def test_bad_arguments_of_mixup(arguments, error, words):
    X, (y, *rest) = np.zeros((2, 1, 4, 4), np.uint8), arguments
    y = np.array(y) if type(y) is list else y
    with pytest.raises(error, match=words):
        MixUp(1)(X, y, *rest)


def test_repr():
    assert repr(RandomCrop(padding=2)) == "RandomCrop(padding=2)"
    assert repr(RandomCrop(4, size=(32, 30))) == "RandomCrop(padding=4, size=(32, 30))"
    assert repr(RandomRotation(15)) == "RandomRotation(degrees=(-15, 15))"
    assert repr(RandomResizedCrop(8, ratio=(1, 2))) == (
        "RandomResizedCrop(size=(8, 8), scale=(0.08, 1), ratio=(1, 2))"
    )
    assert repr(ColorJitter(0.4)) == "ColorJitter(brightness=0.4, contrast=0, saturation=0)"
    assert repr(MixUp(0.2)) == "MixUp(alpha=0.2)"
    assert repr(ColorJitter(np.float64(0.4))) == repr(ColorJitter(0.4))  # for the record of a run
    assert repr(RandomRotation(np.int64(15))) == repr(RandomRotation(15))
    assert repr(Cutout(np.int64(8), np.uint8(3))) == "Cutout(size=8, fill=3)"
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
        (lambda: RandomRotation(-5), "degrees must be a number of at least 0, not -5"),
        (lambda: RandomRotation("15"), "degrees must be two numbers, .* or one, not '15'"),
        (lambda: RandomRotation((15, -15)), "the smaller first, like .* not \\(15, -15\\)"),
        (lambda: RandomRotation((0, np.inf)), "degrees must be two numbers"),
        (lambda: RandomResizedCrop(None), "size must be a number of pixels .* not None"),
        (lambda: RandomResizedCrop(8, scale=(0, 1)), "scale must be .* above 0 and at most 1"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 2)), "scale must be two numbers"),
        (lambda: RandomResizedCrop(8, scale=0.5), "scale must be two numbers, .* not 0.5"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), "ratio must be .* above 0, like"),
        (lambda: ColorJitter(-1), "brightness must be a number of at least 0, not -1"),
        (lambda: ColorJitter(0, None), "contrast must be a number"),
        (lambda: ColorJitter(saturation=(0, 1)), "saturation must be a number"),
        (lambda: MixUp(0), "alpha must be a number above 0, not 0: try 0.2"),
        (lambda: Cutout(0), "size must be a whole number of at least 1"),
        (lambda: Cutout(3, "gray"), "fill is the one number .* got 'gray'"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_compose_of_what_is_none():
    for wrong in (RandomFlip(), [RandomFlip(), 4], [RandomFlip(), None], [RandomFlip]):
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
        (mx.nd.zeros((2, 1, 4, 4)), rng(), TypeError, r"mxnet\..*NDArray .* \.as_np_ndarray\(\)"),
        (
            mx.np.zeros((2, 1, 4, 4), "float16"),
            rng(),
            TypeError,
            r"float16: .* \.astype\('float32'\)",
        ),
    ],
)
def test_bad_arguments(augment, images, generator, error, words):
    with pytest.raises(error, match=words):
        augment(images, generator)


@pytest.mark.parametrize(
    "augment, images, words",
    [
        (RandomCrop(1, 7), GOOD, "cannot cut 7x7 pixels out of images of 4x4 with 1 more"),
        (Cutout(2, 256), GOOD, "whole numbers from 0 to 255, got fill=256"),
        (Cutout(2, -1), GOOD, "got fill=-1"),
        (Cutout(2, 0.5), GOOD, "got fill=0.5"),
        (ColorJitter(), GOOD.reshape(1, 2, 4, 4), r"1 channel \(grey\) or 3 .* \(1, 2, 4, 4\)"),
    ],
)
def test_what_does_not_fit_the_images(augment, images, words):
    with pytest.raises(ValueError, match=words):
        augment(images, rng())
