"""Images in memory are chosen, split and handed out in batches."""

import json
import re
import time

import mxnet as mx
import numpy as np
import pytest

from d2lres.data import batches as data
from d2lres.data.augment import Compose, RandomCrop, RandomFlip
from d2lres.files.sources import Loaded


@pytest.fixture
def toy():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 1, 28, 28)).astype(np.uint8)
    return images, np.arange(10, dtype=np.uint8)


def taken(data_iter):
    """The labels of one epoch: here each image has its own."""
    return [int(label) for _, y in data_iter for label in y]


def noise(images, rng):
    return rng.integers(0, 256, images.shape, np.uint8)


def pixels(data_iter):
    """The batches of one epoch, as NumPy arrays."""
    return [X.asnumpy() for X, _ in data_iter]


def test_order(toy):
    train_iter = data.ArrayIter(*toy, 3, shuffle=True, seed=5)
    first, second = taken(train_iter), taken(train_iter)
    assert train_iter.epoch == 2
    assert first != second and sorted(first) == sorted(second) == list(range(10))
    assert second == np.random.default_rng([5, 1]).permutation(10).tolist()

    train_iter.epoch = 0
    next(iter(train_iter))  # a look at a batch is no epoch
    assert (taken(train_iter), taken(train_iter)) == (first, second)
    train_iter.seed, train_iter.epoch = 6, 0
    assert taken(train_iter) not in (first, second)
    assert taken(data.ArrayIter(*toy, 3)) == list(range(10))


def test_images_go_with_their_labels(toy):
    images, _ = toy
    for X, y in data.ArrayIter(*toy, 4, shuffle=True):
        assert np.array_equal(X.asnumpy(), images[y.asnumpy()].astype(np.float32) / 255)


@pytest.mark.parametrize("seed, epoch", [(5, 0), (5, 7), (6, 7)])
def test_seed_epoch_and_number_make_a_batch(toy, seed, epoch):
    data_iter = data.ArrayIter(*toy, 4, shuffle=True, seed=seed, augment=noise)
    data_iter.epoch = epoch
    for number, X in enumerate(pixels(data_iter)):
        drawn = noise(X, np.random.default_rng([seed, epoch, 1 + number]))
        assert np.array_equal(X, drawn.astype(np.float32) / 255)


def test_an_epoch_can_start_at_any_batch(toy):
    whole, rest = (data.ArrayIter(*toy, 3, shuffle=True, seed=5, augment=noise) for _ in range(2))
    whole.epoch = rest.epoch = 7
    rest.batch = 2
    batches = pixels(whole)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(rest), batches[2:], strict=True))
    assert (rest.epoch, rest.batch) == (8, 0)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(rest), pixels(whole), strict=True))
    plain = data.ArrayIter(*toy, 3)
    plain.batch = 1
    _, y = next(iter(plain))  # only the next iteration starts there, even if it is broken off
    assert y.tolist() == [3, 4, 5] and taken(plain) == list(range(10))


def test_augmenting_leaves_order_and_images_alone(toy):
    plain = data.ArrayIter(*toy, 4, shuffle=True, seed=5)
    flipped = data.ArrayIter(*toy, 4, shuffle=True, seed=5, augment=RandomFlip(1))
    before = toy[0].copy()
    assert taken(flipped) == taken(plain)
    for X, flipped_X in zip(pixels(plain), pixels(flipped), strict=True):
        assert np.array_equal(flipped_X, X[:, :, :, ::-1])

    def in_place(images, rng):
        images[...] = 0
        return images

    assert not any(X.any() for X in pixels(data.ArrayIter(*toy, 4, augment=in_place)))
    assert np.array_equal(toy[0], before)


def test_augments_before_it_resizes(toy):
    crop = RandomCrop(0, (14, 10))
    assert data.ArrayIter(*toy, 10, augment=crop).image_shape == (1, 14, 10)
    data_iter = data.ArrayIter(*toy, 10, resize=20, augment=crop)
    assert data_iter.image_shape == (1, 20, 20)
    cut = crop(toy[0], np.random.default_rng([0, 0, 1]))
    expected = data.ArrayIter(cut, toy[1], 10, resize=20)
    assert np.array_equal(pixels(data_iter), pixels(expected))


def test_augmented_images_may_differ_in_size_from_batch_to_batch(toy):
    def crop(images, rng):
        return images[:, :, rng.integers(9) :]

    data_iter = data.ArrayIter(*toy, 5, augment=crop, seed=1)
    assert len({X.shape for X in pixels(data_iter)}) == 2
    data_iter = data.ArrayIter(*toy, 5, augment=crop, seed=1, resize=20)
    assert {X.shape for X in pixels(data_iter)} == {(5, 1, 20, 20)}


def test_record_of_the_augmentation(toy):
    both = Compose([RandomCrop(2), RandomFlip()])
    words = "Compose([RandomCrop(padding=2), RandomFlip(p=0.5)])"
    assert data.ArrayIter(*toy, 4, augment=both).augmented_by == words
    assert data.ArrayIter(*toy, 4, augment=noise).augmented_by == "noise"
    assert data.ArrayIter(*toy, 4).augmented_by is None


BAD_AUGMENT = {
    "not callable": ([RandomFlip()], r"one callable like RandomCrop\(2\), not \[RandomFlip"),
    "the class": (RandomFlip, "one callable like .* not <class"),
    "another dtype": (lambda X, rng: X / 255, "must return uint8 images.*returned float64"),
    "fewer images": (lambda X, rng: X[:0], r"as many .* \(1, 1, 28, 28\); .* \(0, 1, 28, 28\)"),
    "flat images": (lambda X, rng: X.reshape(1, 1, -1), r"returned uint8 \(1, 1, 784\)"),
    "nothing": (lambda X, rng: None, "returned NoneType"),
}


@pytest.mark.parametrize("case", BAD_AUGMENT)
def test_bad_augment(toy, case):
    augment, words = BAD_AUGMENT[case]
    with pytest.raises(ValueError, match=words):
        data.ArrayIter(*toy, 4, augment=augment)


MEAN, STD = (0.1, 0.5, 0.9), (0.5, 0.25, 1)


@pytest.mark.parametrize("resize", [None, (5, 12)])
def test_normalize(resize):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    labels = np.arange(6)
    options = {"resize": resize, "augment": RandomFlip()}
    plain = data.ArrayIter(images, labels, 4, **options)
    normal = data.ArrayIter(images, labels, 4, normalize=(MEAN, STD), **options)
    mean, std = np.reshape((MEAN, STD), (2, 3, 1, 1))
    for X, Z in zip(pixels(plain), pixels(normal), strict=True):
        assert Z.dtype == np.float32 and Z.shape == X.shape
        assert np.allclose(Z, (X - mean) / std, atol=1e-5)


def test_what_a_crop_pads_with_is_black():
    images = np.full((1, 1, 4, 4), 255, np.uint8)
    crop = RandomCrop(4, 12)  # nothing but the padded image
    data_iter = data.ArrayIter(images, np.zeros(1), 1, augment=crop, normalize=((0.5,), (0.5,)))
    (X,) = pixels(data_iter)
    assert X[0, 0, 0, 0] == -1 and X[0, 0, 5, 5] == 1


@pytest.mark.parametrize(
    "normalize",
    [(0.5, 0.25), ([0.5], [0.25]), np.array([0.5, 0.25]), np.array([[0.5], [0.25]], "float32")],
)
def test_normalize_grey_images(normalize):
    images = np.zeros((2, 1, 4, 4), np.uint8)
    data_iter = data.ArrayIter(images, np.zeros(2), 2, normalize=normalize)
    (X,) = pixels(data_iter)
    assert (X == -2).all()
    assert data_iter.normalize == ((0.5,), (0.25,))
    assert json.loads(json.dumps(data_iter.normalize)) == [[0.5], [0.25]]


PAIRS = tuple(zip(MEAN, STD, strict=True))  # one for each channel
BAD_NORMALIZE = [0.5, (0.5, 0.5), (MEAN,), (MEAN, STD[:2]), (MEAN, (0, 1, 1)), (MEAN, "abc")]


@pytest.mark.parametrize("normalize", [*BAD_NORMALIZE, ((np.nan,) * 3, STD), (*MEAN, *STD), PAIRS])
def test_bad_normalize(normalize):
    images = np.zeros((2, 3, 4, 4), np.uint8)
    words = r"normalize must be \(mean, std\), each with one number for every one of the 3 channels"
    with pytest.raises(ValueError, match=words):
        data.ArrayIter(images, np.zeros(2), 1, normalize=normalize)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
def test_copies_to_mxnet(dtype):
    for cut in (np.copy, lambda array: array[::2], np.transpose):
        source = cut(np.random.default_rng(0).integers(0, 256, (4, 3, 5)).astype(dtype))
        copy = data.to_mxnet(source)
        assert isinstance(copy, mx.np.ndarray) and copy.dtype == dtype and copy.ctx == mx.cpu()
        expected = source.copy()
        assert np.array_equal(copy.asnumpy(), expected)
        source[...] = 7
        assert np.array_equal(copy.asnumpy(), expected)


def test_a_batch_does_not_wait_for_mxnet(toy):
    data_iter = iter(data.ArrayIter(*toy, 5))
    A = mx.np.ones((1500, 1500))
    next(data_iter)
    mx.nd.waitall()
    slow = mx.np.dot(A, A)
    start = time.perf_counter()
    _, y = next(data_iter)
    assert y.asnumpy().tolist() == [5, 6, 7, 8, 9]  # nor do the labels, to be checked
    made = time.perf_counter()
    slow.wait_to_read()
    assert made - start < time.perf_counter() - made


@pytest.mark.parametrize("resize, size", [(None, (28, 28)), (28, (28, 28)), ((40, 9), (40, 9))])
@pytest.mark.parametrize("batch_size", [4, 99])  # which is more than there are
def test_shapes(toy, resize, size, batch_size):
    data_iter = data.ArrayIter(*toy, batch_size, resize=resize)
    assert data_iter.image_shape == (1, *size)
    for X in pixels(data_iter):
        assert X.shape in [(n, 1, *size) for n in (batch_size, 2, 10)] and X.dtype == np.float32


def test_resized_images_stay_in_range():
    images = np.full((1, 1, 28, 28), 255, np.uint8)
    for side in (1, 7, 27, 29, 96, 97, 224):
        X = data.ArrayIter(images, np.zeros(1), 1, resize=side)._pixels(images)
        assert 1 - 1e-6 < X.min() <= X.max() <= 1


@pytest.mark.parametrize(
    "images, words",
    [
        (np.zeros((2, 28, 28), np.uint8), r"\(2, 28, 28\): of grey images write images\[:, None\]"),
        (np.zeros((2, 784), np.uint8), r"got uint8 \(2, 784\)$"),
        (np.zeros((2, 1, 8, 8)), r"got float64 .*\(255 \* images\).round\(\).astype\('uint8'\)"),
        (np.zeros((2, 1, 8, 8), int).tolist(), r"got int64 .*, write images.astype\('uint8'\)"),
        ([None, None], r"got object \(2,\)"),
    ],
)
def test_bad_images(images, words):
    words = rf"expected uint8 images \(n, channels, height, width\), but .*{words}"
    with pytest.raises(ValueError, match=words):
        data.ArrayIter(images, np.zeros(2), 1)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (5, 224, 4)])
def test_channels_last(shape, faults):
    images, words = np.zeros((2, *shape), np.uint8), "write images.transpose(0, 3, 1, 2)"
    for take in (lambda: data.ArrayIter(images, [0, 1], 1), lambda: RandomFlip()(images, None)):
        match = re.escape(f"{images.shape}: {words}")
        with faults("numbers", "channels last"), pytest.raises(ValueError, match=match):
            take()


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (2, 9, 9), (3, 32, 3), (4, 32, 4), (16, 4, 4), (512, 1, 1), (13, 64, 64)]
)
def test_any_number_of_channels_may_come_first(shape):
    assert data.ArrayIter(np.zeros((2, *shape), np.uint8), np.zeros(2), 1).image_shape == shape


@pytest.mark.parametrize(
    "labels, words",
    [
        ([0, 0.7], "whole numbers of classes, but one is 0.7"),
        ([0.2, 1.5], "but one is 0.2"),
        ([0, np.nan], "but one is nan"),
        ([0, 2**32 + 1], "but one is 4294967297"),
        (["cat", "dog"], "whole numbers of classes, not an array of <U3"),
        (np.zeros((2, 1)), r"of shape \(2,\), but got shape \(2, 1\); write y\[:, 0\]"),
        (np.eye(2), r"but got shape \(2, 2\); write y.argmax"),
        ([0], r"one for each of the 2 images, of shape \(2,\), but got shape \(1,\)"),
    ],
)
def test_bad_labels(labels, words, faults):
    with faults("numbers", "labels that are no classes"), pytest.raises(ValueError, match=words):
        data.ArrayIter(np.zeros((2, 1, 4, 4), np.uint8), labels, 1)


def test_lists_and_arrays_of_any_kind_are_taken(toy):
    images, labels = toy
    for kind in (list, np.float64, np.int16, lambda a: mx.np.array(a, dtype="int64")):
        data_iter = data.ArrayIter(list(images), kind(labels), 4)
        assert np.array_equal(data_iter.images, images) and data_iter.labels.dtype == np.int32
        assert np.array_equal(data_iter.labels, labels)
    assert data.ArrayIter(images[:2], [True, False], 2).labels.tolist() == [1, 0]
    whole = data.ArrayIter(mx.np.array(images, "uint8"), labels, np.int64(10), resize=np.int8(9))
    assert pixels(whole)[0].shape == (10, 1, 9, 9)


def test_first_of_each_class():
    labels = np.array([3, 3, 3, 1, 1, 2, 3])
    assert data.first_of_each_class(labels, 3).tolist() == [0, 3, 5]
    assert data.first_of_each_class(labels, 5).tolist() == [0, 1, 3, 4, 5]
    assert data.first_of_each_class(labels, 99).tolist() == list(range(7))


# the iterators of a loader


@pytest.fixture
def load():
    """A loader of 600 + 100 images of ten classes, of which no two are the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (700, 1, 8, 8)).astype(np.uint8)
    sets = [(images[:600], rng.permutation(600) % 10), (images[600:], rng.permutation(100) % 10)]
    nothing = dict.fromkeys(["num_train", "num_test", "num_valid", "augment"])

    def load(batch_size=8, **options):
        options = nothing | {"seed": 0} | options
        return data.two_iterators("Toy", lambda: Loaded(sets, "from here"), batch_size, **options)

    return load


def contents(data_iter):
    return {image.tobytes(): y for image, y in zip(data_iter.images, data_iter.labels, strict=True)}


def test_parts_are_the_first_of_each_class(load):
    whole, few, fewer = (load(num_train=num, num_test=num) for num in (None, 100, 50))
    for all_of, more, less in zip(whole, few, fewer, strict=True):
        assert contents(less).items() < contents(more).items() <= contents(all_of).items()
        assert np.bincount(more.labels).tolist() == [10] * 10
        assert more.images[0].tobytes() == all_of.images[0].tobytes()
    assert few[0].source == "Toy: 100 of 600 training and 100 test images from here"


def test_validation_images_are_training_images(load, capsys):
    train_iter, test_iter = load()
    capsys.readouterr()
    smaller, valid_iter = load(num_valid=100, seed=3)
    line = "500 training and 100 validation images, of the 600 for training, from here"
    assert capsys.readouterr().out == f"Toy: {line}\n"
    assert valid_iter.source == smaller.source == f"Toy: {line}"
    assert contents(smaller) | contents(valid_iter) == contents(train_iter)
    assert len(contents(smaller)) == 500 and not contents(valid_iter).keys() & contents(test_iter)
    assert smaller.shuffle and not valid_iter.shuffle


def test_validation_images_are_fixed_and_balanced(load):
    train_iter, valid_iter = load(num_valid=100)
    assert np.bincount(valid_iter.labels).tolist() == [10] * 10
    for options in ({"seed": 9}, {"num_train": 50}, {"batch_size": 3}):
        assert np.array_equal(load(num_valid=100, **options)[1].images, valid_iter.images)
    few = load(num_valid=100, num_train=50)[0]  # the same ones with and without
    assert np.array_equal(few.images, load(num_train=50)[0].images)
    assert "50 of 500 training and 100 validation images, of the 600 for" in few.source
    assert load(num_valid=599)[0].num_examples == 1
    everything, last = load()[0], load(num_valid=10)[1]
    for image, label in zip(last.images, last.labels, strict=True):
        at = np.flatnonzero(everything.labels == label)[-1]
        assert np.array_equal(everything.images[at], image)


def test_only_training_images_are_augmented(load):
    for options in ({"num_test": 50}, {"num_valid": 50}):
        options |= {"num_train": 64, "seed": 2, "batch_size": 64}
        plain, flipped = load(**options), load(**options, augment=RandomFlip(1))
        assert flipped[1].augment is None
        (X, valid_X), (flipped_X, same_X) = (
            [next(iter(data_iter))[0].asnumpy() for data_iter in pair] for pair in (plain, flipped)
        )
        assert np.array_equal(flipped_X, X[:, :, :, ::-1])
        assert np.array_equal(same_X, valid_X)


WHOLE = "must be a whole number of at least"


@pytest.mark.parametrize(
    "words, values",
    [
        (f"batch_size {WHOLE} 1", [{"batch_size": n} for n in (0, -1, 2.5, "8", None, True, [8])]),
        ("resize must be", [{"resize": n} for n in (0, -96, 96.0, "96", (96,), (96, 0), True)]),
        ("resize must be", [{"resize": (1, 96, 96)}]),
        (WHOLE, [{"num_train": 0}, {"num_test": 1.5}, {"seed": -1}, {"num_valid": 0}]),
        ("num_test and num_valid exclude each other", [{"num_test": 10, "num_valid": 10}]),
        ("some of the 600 training .* 600 does not: try num_valid=60", [{"num_valid": 600}]),
        ("training images .* 60,000 does not: try num_valid=60", [{"num_valid": 60_000}]),
    ],
)
def test_bad_options(load, words, values):
    for options in values:
        with pytest.raises(ValueError, match=words):
            load(**options)


def test_options_in_numbers_of_numpy(load):
    options = {"num_train": np.int32(30), "num_test": np.int64(20), "resize": np.int64(9)}
    both = load(np.int16(8), **options, seed=np.int64(2**62))
    assert load(resize=np.array([9, 12]))[0].image_shape == (1, 9, 12)
    assert [each.num_examples for each in both] == [30, 20]
    assert type(both[0].seed) is int and both[0].image_shape == (1, 9, 9)
    assert len(list(load(8, seed=2**200)[0])) == 75
