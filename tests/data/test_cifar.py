"""CIFAR-10 and CIFAR-100: their tables, their files and their loaders.

How they are found and fetched like any other data set is in ``tests/files/test_sources.py``.
"""

import numpy as np
import pytest
from small_sets import records, small_set, write

import d2lres
from d2lres.data import cifar
from d2lres.data.cifar import CIFAR10, CIFAR100

pytestmark = pytest.mark.usefixtures("bare_machine")
BOTH = pytest.mark.parametrize("source", [CIFAR10, CIFAR100], ids=lambda source: source.name)
LOAD = {"CIFAR-10": d2lres.load_data_cifar10, "CIFAR-100": d2lres.load_data_cifar100}


# the tables


def test_class_names():
    assert len(set(cifar.CIFAR100_LABELS)) == 100 and len(cifar.CIFAR100_COARSE_LABELS) == 20
    for labels in (cifar.CIFAR10_LABELS, cifar.CIFAR100_LABELS, cifar.CIFAR100_COARSE_LABELS):
        assert list(labels) == sorted(labels)
    assert np.bincount(cifar.CIFAR100_COARSE_OF_FINE).tolist() == [5] * 20
    of = dict(zip(cifar.CIFAR100_LABELS, cifar.CIFAR100_COARSE_OF_FINE, strict=True))
    names = cifar.CIFAR100_COARSE_LABELS
    assert names[of["apple"]] == "fruit and vegetables" and names[of["wolf"]] == "large carnivores"


# reading files


def broken(source, column, value):
    array = records(source, 30)
    array[7, column] = value
    return array.tobytes()


good = records(CIFAR10, 30).tobytes()
BROKEN = {
    "empty": (CIFAR10, b"", "record of 3,073 bytes for each image, found 0 bytes"),
    "cut off": (CIFAR10, good[:-1], "record of 3,073 bytes for each image, found 92,189 bytes"),
    "of CIFAR-100": (CIFAR10, records(CIFAR100, 30).tobytes(), "3,073 bytes .* found 92,220 bytes"),
    "of CIFAR-10": (CIFAR100, good, "3,074 bytes .* found 92,190 bytes"),
    "web page": (CIFAR10, b"\n<!DOCTYPE html><title>Welcome</title>", "found a web page"),
    "label": (CIFAR10, broken(CIFAR10, 0, 10), "labels from 0 to 9, found the label 10"),
    "fine label": (CIFAR100, broken(CIFAR100, 1, 100), "from 0 to 99, found the label 100"),
    "coarse label": (CIFAR100, broken(CIFAR100, 0, 20), "from 0 to 19, found the label 20"),
    "wrong pair": (CIFAR100, broken(CIFAR100, 0, 3), "its superclass, found 'beetle' in 'food"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path, case, faults):
    source, content, words = BROKEN[case]
    (tmp_path / "x").write_bytes(content)
    with faults("files", "CIFAR: damaged, or something else"):
        with pytest.raises(ValueError, match=f"{tmp_path / 'x'}: .*{words}"):
            source.read(tmp_path / "x")


def test_an_image_that_starts_like_a_web_page(tmp_path):
    plain = cifar.CIFAR100_LABELS.index("plain")
    array = np.full((1, 3074), ord("a"), np.uint8)
    array[0, :2] = cifar.CIFAR100_COARSE_OF_FINE[plain], plain
    assert array[0, :2].tobytes() == b"\n<"
    array.tofile(tmp_path / "x")
    assert len(CIFAR100.read(tmp_path / "x")[0]) == 1


# loading


@pytest.fixture
def given(tmp_path, monkeypatch):
    """The content of a small set of each, which the loaders find."""
    contents = {source.name: small_set(source, 200) for source in (CIFAR10, CIFAR100)}
    for source in (CIFAR10, CIFAR100):
        write(tmp_path / "given" / source.folder, contents[source.name])
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "given"))
    return contents


@BOTH
def test_images_are_those_of_the_files(given, source):
    train_iter, test_iter = data_iters = LOAD[source.name](64)
    assert train_iter.shuffle and not test_iter.shuffle
    *train, test = given[source.name].values()
    for data_iter, content in zip(data_iters, (b"".join(train), test), strict=True):
        array = np.frombuffer(content, np.uint8).reshape(len(data_iter.images), -1)
        assert np.array_equal(data_iter.images.reshape(-1, 3072), array[:, -3072:])
        assert np.array_equal(data_iter.labels, array[:, -3073])
    X, y = next(iter(test_iter))
    assert X.shape == (64, 3, 32, 32) and X.dtype == np.float32
    assert y.shape == (64,) and y.dtype == np.int32
    name = source.name.replace("-", "")
    mean, std = (np.reshape(getattr(d2lres, f"{name}_{s}"), (3, 1, 1)) for s in ("MEAN", "STD"))
    pixels = test_iter.images[:64] / 255
    assert np.allclose(X.asnumpy(), (pixels - mean) / std, atol=1e-5)
    (X, _), *_ = LOAD[source.name](64, normalize=None)[1]
    assert np.allclose(X.asnumpy(), pixels)


def test_coarse_labels(given):
    fine, coarse = (d2lres.load_data_cifar100(64, fine)[1] for fine in (True, False))
    assert np.array_equal(fine.images, coarse.images)
    assert np.array_equal(np.array(d2lres.CIFAR100_COARSE_OF_FINE)[fine.labels], coarse.labels)
    assert coarse.labels.max() == 19
    for value in (32, "coarse", None):
        with pytest.raises(ValueError, match="fine must be True, for 100 .*, or False, for 20"):
            d2lres.load_data_cifar100(8, value)


# the real images


@BOTH
def test_constants_are_those_of_the_training_images(real_places, source):
    if source.name not in real_places:
        pytest.skip("needs the real images")
    place, arrays = real_places[source.name], []
    for path in list(source.all_paths(place).values())[:-1]:
        arrays.append(source.read(path)[0][:, -3072:])
    images = np.concatenate(arrays).reshape(-1, 3, 32, 32)
    name = source.name.replace("-", "")
    for channel in range(3):
        counts = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, 0].size
        values = np.arange(256) / 255
        mean = counts @ values
        std = np.sqrt(counts @ (values - mean) ** 2)
        assert getattr(d2lres, f"{name}_MEAN")[channel] == round(mean, 4)
        assert getattr(d2lres, f"{name}_STD")[channel] == round(std, 4)
