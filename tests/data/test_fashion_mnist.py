"""Fashion-MNIST: its files, its sample, Debian's package, and its loader beside d2l's.

How it is found and fetched like any other data set is in ``tests/files/test_sources.py``.
"""

import gzip
import hashlib
import importlib.util
import re
import sys
import tracemalloc
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from small_sets import contents_of, idx, make_official, small_set, write, zipped

from d2lres.data import fashion_mnist
from d2lres.data.fashion_mnist import (
    DEBIAN_FOLDER,
    FASHION_MNIST,
    OFFICIAL,
    SAMPLE,
    load_data_fashion_mnist,
    read_idx,
    text_labels,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(OFFICIAL)
IMAGES = NAMES[2]  # the test images: the files of t10k come last

pytestmark = pytest.mark.usefixtures("bare_machine")


# reading files


@pytest.mark.parametrize("packed", [zipped, dict])
def test_read_idx(tmp_path, packed):
    contents = small_set(FASHION_MNIST)
    for path in write(tmp_path / "set", packed(contents)).iterdir():
        array, (shape, digest) = read_idx(path)
        content = contents[path.name.removesuffix(".gz")]
        assert array.dtype == np.uint8 and array.shape == shape and idx(array) == content
        assert digest == hashlib.sha256(content).hexdigest()


good = idx(np.arange(2 * 28 * 28).reshape(2, 28, 28))
labels = idx(np.arange(8))
BROKEN = {
    "empty": (b"", "magic number 00000803, found nothing"),
    "no magic number": (b"\0\0\x08\x02" + good[4:], "00000803, found 00000802"),
    "labels for images": (labels, "00000803, found 00000801"),
    "header cut off": (good[:11], "sizes above 0"),
    "no images": (idx(np.zeros((0, 28, 28))), "sizes above 0"),
    "too short": (good[:-1], "1,568 bytes after the header, found 1,567"),
    "much too short": (good[:99], "1,568 bytes of content, found a file too short"),
    "too long": (good + b"\0", "1,568 bytes after the header, found more"),
    "web page": (b"\n<!DOCTYPE html><title>Welcome</title>", "web page"),
    "gzip cut off": (gzip.compress(good)[:-9], "gzip file"),
    "gzip header only": (gzip.compress(good)[:5], "gzip file"),
    "gzip damaged": (gzip.compress(good)[:-8] + bytes(8), "gzip file"),
    "gzip with rubbish after": (gzip.compress(good) + b"rubbish", "gzip file"),
    "gzip of too little": (gzip.compress(good[:-1]), "1,568 bytes after the header, found 1,567"),
    "gzip of too much": (gzip.compress(good + b"\0"), "found more"),
    "label out of range": (idx(np.array([0, 9, 10])), "from 0 to 9, found the label 10"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path, case, faults):
    content, words = BROKEN[case]
    path = tmp_path / ("labels" if case == "label out of range" else IMAGES)
    path.write_bytes(content)
    with faults("files", "IDX: damaged, or something else"):
        with pytest.raises(ValueError, match=f"{path}: .*{words}"):
            read_idx(path)


CLAIMS = {  # sizes in the header, bytes that follow, the same compressed?
    "impossible": ((2**32 - 1, 2**16, 2**16), 100, False),
    "impossible, compressed": ((2**32 - 1, 2**16, 2**16), 100, True),
    "possible": ((5000, 100, 1000), 500_000, True),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_header_cannot_claim_memory(tmp_path, claim, faults):
    sizes, n, is_zipped = CLAIMS[claim]
    content = good[:4] + np.array(sizes, ">u4").tobytes() + np.random.default_rng(0).bytes(n)
    (tmp_path / "x").write_bytes(gzip.compress(content) if is_zipped else content)
    with faults("files", "IDX: a header that claims too much"):
        tracemalloc.start()
        with pytest.raises(ValueError, match="a file too short|after the header, found 500,000"):
            read_idx(tmp_path / "x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6


@pytest.mark.parametrize(
    "changed, words",
    [
        ({NAMES[3]: idx(np.arange(4))}, f"{NAMES[3]}: expected 3 labels, found 4. Put good files"),
        ({IMAGES: idx(np.zeros((3, 28, 29)))}, f"{IMAGES}: .* images of 28x28, found 28x29"),
    ],
)
def test_files_that_do_not_go_together(tmp_path, monkeypatch, changed, words):
    folder = write(tmp_path / "given", small_set(FASHION_MNIST, 3) | changed)
    monkeypatch.setenv("D2LRES_DATA", str(folder))
    with pytest.raises(ValueError, match=words):
        load_data_fashion_mnist(8)


# the sample and Debian's package


def test_sample():
    place, _ = FASHION_MNIST.find()
    loaded = FASHION_MNIST.load()
    assert place is FASHION_MNIST.sample and loaded.is_sample
    assert "small sample shipped with d2lres (not downloaded: " in loaded.where
    for (images, labels), per_class in zip(loaded.sets, (600, 100), strict=True):
        assert images.shape == (10 * per_class, 1, 28, 28)
        assert np.bincount(labels).tolist() == [per_class] * 10
        assert 60 < images.mean() < 85  # pictures, not noise
    train_iter, test_iter = load_data_fashion_mnist(64)  # by default all of them
    assert (train_iter.num_examples, test_iter.num_examples, len(train_iter)) == (6000, 1000, 94)
    assert "Copyright (c) 2017 Zalando SE" in (place.folder / "LICENSE").read_text()


def test_sample_is_verified(tmp_path, monkeypatch):
    shape, digest = SAMPLE[IMAGES]
    monkeypatch.setitem(SAMPLE, IMAGES, (shape, digest[::-1]))
    with pytest.raises(ValueError, match="SHA-256.*Reinstall d2lres"):
        load_data_fashion_mnist(8)
    elsewhere = FASHION_MNIST.sample._replace(folder=tmp_path)
    monkeypatch.setattr(FASHION_MNIST, "sample", elsewhere)
    with pytest.raises(FileNotFoundError, match="missing train-images.*Reinstall d2lres"):
        load_data_fashion_mnist(8)


@pytest.mark.slow
def test_sample_is_made_again_byte_for_byte(real_places, tmp_path):
    place, tool = real_places["Fashion-MNIST"], ROOT / "tools" / "make_sample.py"
    if place is FASHION_MNIST.sample or not tool.exists():
        pytest.skip("needs the official files and the repository")
    spec = importlib.util.spec_from_file_location("make_sample", tool)
    make_sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_sample)
    assert make_sample.make_sample(place.folder, tmp_path) == SAMPLE
    first = tmp_path / f"{IMAGES}.gz"
    again = make_sample.write_idx(tmp_path / "again", read_idx(first)[0])
    assert again == SAMPLE[IMAGES][1]
    assert (tmp_path / "again").read_bytes() == first.read_bytes()


GOOD_APT = "assert sys.argv[-2:] == ['download', 'dataset-fashion-mnist']; open('x.deb', 'w')"


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """`apt(script, seed)` loads with a false apt-get, and a dpkg that unpacks a small set."""
    contents, _ = make_official(FASHION_MNIST, monkeypatch)

    def apt(script, seed=0):
        packed = write(tmp_path / "packed", zipped(small_set(FASHION_MNIST, seed=seed)))
        unpacked = f"sys.argv[3] + {str(DEBIAN_FOLDER)!r}"
        dpkg = f"assert sys.argv[1] == '-x'; shutil.copytree({str(packed)!r}, {unpacked})"
        scripts = {"apt-get": script, "dpkg": dpkg}
        head = f"#!{sys.executable}\nimport sys, shutil, time\n"
        write(tmp_path / "bin", {name: f"{head}{s}".encode() for name, s in scripts.items()})
        for name in scripts:
            (tmp_path / "bin" / name).chmod(0o755)
        where = FASHION_MNIST.fetch().where
        left = contents_of(tmp_path / "cache" / "fashion-mnist")
        assert left == ({} if "sample" in where else zipped(contents))
        return where

    return apt


def test_debian_package(apt):
    assert apt(GOOD_APT) == "fetched with apt-get into the user cache"


@pytest.mark.parametrize(
    "script, words",
    [
        ("sys.exit('E: Unable to locate package')", "apt-get: E: Unable to locate package"),
        ("time.sleep(9)", "apt-get: .*timed out"),
        (GOOD_APT, f"apt-get: .*{NAMES[0]}.*expected the official content"),
    ],
)
def test_debian_package_fails(apt, monkeypatch, script, words):
    monkeypatch.setattr(fashion_mnist, "APT_SECONDS", 0.5 if "sleep" in script else 20)
    where = apt(script, seed=1)
    assert re.search(rf"small sample .*{words}", where), where


# loading


def test_batches_of_the_real_thing(real_places, monkeypatch):
    monkeypatch.setattr(FASHION_MNIST, "find", lambda _: (real_places["Fashion-MNIST"], ""))
    train_iter, test_iter = load_data_fashion_mnist(256, num_train=1000, num_test=300)
    assert (len(train_iter), train_iter.num_examples, train_iter.batch_size) == (4, 1000, 256)
    assert np.bincount(train_iter.labels).tolist() == [100] * 10
    for data_iter in (train_iter, test_iter):
        for X, y in data_iter:
            assert isinstance(X, mx.np.ndarray) and isinstance(y, mx.np.ndarray)
            assert X.dtype == np.float32 and y.dtype == np.int32
            assert X.shape == (len(y), 1, 28, 28) and y.shape == (len(y),)
            assert X.asnumpy().min() == 0 and 0.99 < X.asnumpy().max() <= 1
    assert len(y) == 300 - 256
    assert [int(label) for _, y in test_iter for label in y] == test_iter.labels.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("resize", [None, 96, 14, (40, 56)])
def test_agrees_with_d2l(monkeypatch, resize):
    """d2l's own loader, given the same images in place of its download."""
    d2l = pytest.importorskip("d2l.mxnet")
    _, test_iter = load_data_fashion_mnist(32, resize, num_test=50)
    images = mx.np.array(test_iter.images.transpose(0, 2, 3, 1), dtype="uint8")
    dataset = mx.gluon.data.ArrayDataset(images, test_iter.labels)
    monkeypatch.setattr(mx.gluon.data.vision, "FashionMNIST", lambda train: dataset)
    monkeypatch.setattr(d2l, "get_dataloader_workers", lambda: 0)
    theirs_size = resize[::-1] if type(resize) is tuple else resize  # Gluon's is (width, height)
    with mx.util.np_shape(True), mx.util.np_array(True):  # what npx.set_np() switches on
        theirs = list(d2l.load_data_fashion_mnist(32, theirs_size)[1])
    for (X, y), (their_X, their_y) in zip(test_iter, theirs, strict=True):
        assert X.shape == their_X.shape and X.dtype == their_X.dtype and y.dtype == their_y.dtype
        assert np.array_equal(y.asnumpy(), their_y.asnumpy())
        difference = np.abs(X.asnumpy() - their_X.asnumpy()).max()
        assert difference <= (1 / 255 if resize else 0)


def test_text_labels():
    for indices in (np.array([0, 9]), [0, 9], (i for i in (0, 9)), np.array([0.0, 9.0])):
        assert text_labels(indices) == ["t-shirt", "ankle boot"]
    assert text_labels(divmod(90, 10)) == ["ankle boot", "t-shirt"] and text_labels([]) == []
    for indices, words in [
        ([-1], "labels go from -1 to -1, but there are 10 classes"),
        ([0, 10], "labels go from 0 to 10, but there are 10 classes"),
        ([0.7], "the whole numbers of classes, but one is 0.7"),
        ([[0], [1]], r"got shape \(2, 1\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            text_labels(indices)
