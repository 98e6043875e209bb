"""CIFAR-10 and CIFAR-100 are found or fetched, verified and loaded."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest

import d2lres
from d2lres import cifar


@pytest.fixture(scope="session")
def best_place():
    """What $D2LRES_DATA and the user cache are before the tests change them."""
    return os.environ.get("D2LRES_DATA"), cifar.cache_folder()


@pytest.fixture(autouse=True)
def _nothing_found(best_place, bare_machine):
    pass


def records(which, num, seed=0):
    """So many records of random images, the classes in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (num, 3072))
    labels = np.arange(num) % len(which.label_names[-1])
    columns = [labels]
    if which is cifar.CIFAR100:
        columns = [np.array(cifar.CIFAR100_COARSE_OF_FINE)[labels], labels]
    return np.column_stack([*columns, images]).astype(np.uint8)


def small_set(which, num=200):
    """The content of all files, with so many images in each."""
    return {name: records(which, num, i).tobytes() for i, name in enumerate(which.files)}


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


BOTH = pytest.mark.parametrize("which", [cifar.CIFAR10, cifar.CIFAR100], ids=lambda w: w.name)
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


@BOTH
def test_read_records(tmp_path, which):
    expected = records(which, 30)
    expected.tofile(tmp_path / "x")
    assert np.array_equal(cifar.read_records(tmp_path / "x", which), expected)


def broken(which, column, value):
    array = records(which, 30)
    array[7, column] = value
    return array.tobytes()


TEN, HUNDRED = cifar.CIFAR10, cifar.CIFAR100
good = records(TEN, 30).tobytes()
BROKEN = {
    "empty": (TEN, b"", "record of 3,073 bytes for each image, found 0 bytes"),
    "cut off": (TEN, good[:-1], "record of 3,073 bytes for each image, found 92,189 bytes"),
    "of CIFAR-100": (TEN, records(HUNDRED, 30).tobytes(), "3,073 bytes .* found 92,220 bytes"),
    "of CIFAR-10": (HUNDRED, good, "3,074 bytes .* found 92,190 bytes"),
    "web page": (TEN, b"\n<!DOCTYPE html><title>Welcome</title>", "found a web page"),
    "label": (TEN, broken(TEN, 0, 10), "labels from 0 to 9, found the label 10"),
    "fine label": (HUNDRED, broken(HUNDRED, 1, 100), "from 0 to 99, found the label 100"),
    "coarse label": (HUNDRED, broken(HUNDRED, 0, 20), "from 0 to 19, found the label 20"),
    "wrong pair": (HUNDRED, broken(HUNDRED, 0, 3), "its superclass, found 'beetle' in 'food cont"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path, case, faults):
    which, content, words = BROKEN[case]
    (tmp_path / "x").write_bytes(content)
    with faults("files", "CIFAR: damaged, or something else"):
        with pytest.raises(ValueError, match=words) as error:
            cifar.read_records(tmp_path / "x", which)
        assert str(tmp_path / "x") in str(error.value)


def test_an_image_that_starts_like_a_web_page(tmp_path):
    plain = cifar.CIFAR100_LABELS.index("plain")
    array = np.full((1, 3074), ord("a"), np.uint8)
    array[0, :2] = cifar.CIFAR100_COARSE_OF_FINE[plain], plain
    assert array[0, :2].tobytes() == b"\n<"
    array.tofile(tmp_path / "x")
    assert len(cifar.read_records(tmp_path / "x", HUNDRED)) == 1


# finding files


@BOTH
def test_given_folder(tmp_path, monkeypatch, capsys, which):
    contents = small_set(which)
    given = write(tmp_path / "given" / which.folder, contents)
    num_train = f"{200 * len(which.train):,}"
    line = f"{which.name}: {num_train} training and 200 test images from $D2LRES_DATA"
    for value in (given.parent, given):
        monkeypatch.setenv("D2LRES_DATA", str(value))
        train_iter, test_iter = LOAD[which.name](64)
        assert capsys.readouterr().out == f"{line} (not the official files)\n"
        assert train_iter.source == test_iter.source == f"{line} (not the official files)"
    assert cifar.fetch_cifar(which) == (given, train_iter.source)

    content = b"".join(contents[name] for name in which.train)
    everything = np.frombuffer(content, np.uint8).reshape(len(train_iter.images), -1)
    assert np.array_equal(train_iter.images.reshape(-1, 3072), everything[:, -3072:])
    assert np.array_equal(train_iter.labels, everything[:, -3073])


@pytest.fixture
def official(monkeypatch):
    """The files of a small set that counts as the official CIFAR-10, and its archive."""
    contents, buffer = small_set(TEN, 20), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"readme.html": b"<html>", **contents}.items():
            info = tarfile.TarInfo(f"{TEN.folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive = buffer.getvalue()

    def digests(names):
        return {name: hashlib.sha256(contents[name]).hexdigest() for name in names}

    changed = {"train": digests(TEN.train), "test": digests(TEN.test)}
    changed["digest"] = hashlib.sha256(archive).hexdigest()
    monkeypatch.setattr(cifar, "CIFAR10", TEN._replace(**changed))
    return contents, archive


def test_cache(tmp_path, official, monkeypatch):
    contents, _ = official
    folder = write(tmp_path / "cache" / TEN.folder, contents)
    line = "CIFAR-10: 100 training and 20 test images from the user cache"
    assert cifar.fetch_cifar(cifar.CIFAR10) == (folder, line)
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "nowhere"))
    assert cifar.fetch_cifar(cifar.CIFAR10)[1] == f"{line} ($D2LRES_DATA holds no such files)"
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "cache"))
    assert cifar.fetch_cifar(cifar.CIFAR10)[1].endswith("test images from $D2LRES_DATA")


def test_given_folder_with_some_files(tmp_path, monkeypatch):
    given = write(tmp_path / "given", small_set(TEN, 1))
    (given / "data_batch_3.bin").unlink()
    monkeypatch.setenv("D2LRES_DATA", str(given))
    words = "expected 6 files of CIFAR-10, missing data_batch_3.bin.*unset D2LRES_DATA"
    with pytest.raises(FileNotFoundError, match=words):
        d2lres.load_data_cifar10(8)


def test_broken_file_of_others_stays(tmp_path, monkeypatch):
    given = write(tmp_path / "given", small_set(HUNDRED, 1) | {"test.bin": b"<html>"})
    monkeypatch.setenv("D2LRES_DATA", str(given))
    with pytest.raises(ValueError, match="test.bin.*web page.*Put good files there"):
        d2lres.load_data_cifar100(8)
    assert (given / "test.bin").exists()


def test_broken_file_in_the_cache_goes(tmp_path, official):
    contents, _ = official
    folder = write(tmp_path / "cache" / TEN.folder, contents | {"test_batch.bin": b"cut off"})
    with pytest.raises(ValueError, match="record of.*was removed"):
        d2lres.load_data_cifar10(8)
    assert sorted(p.name for p in folder.iterdir()) == sorted(TEN.train)


def test_other_images_in_the_cache_are_told_apart(tmp_path, official, capsys):
    contents, _ = official
    other = {"test_batch.bin": records(TEN, 20, seed=9).tobytes()}
    write(tmp_path / "cache" / TEN.folder, contents | other)
    d2lres.load_data_cifar10(8)
    assert "from the user cache (not the official files)" in capsys.readouterr().out


@BOTH
def test_nowhere(monkeypatch, which):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    words = (
        rf"^{which.name} is not on this machine \(D2LRES_OFFLINE is set\): run `python -m d2lres "
        f"data {which.name.lower()}` where .* set D2LRES_DATA to a folder that holds {which.folder}"
    )
    with pytest.raises(FileNotFoundError, match=words) as error:
        LOAD[which.name](8)
    assert "\n" not in str(error.value)


# fetching


@pytest.fixture
def server(official, web, monkeypatch):
    """A server on this machine; `mirrors` says how its mirrors behave, and fetches from them."""
    web.contents, web.wrong = {TEN.archive: official[1]}, b"wrong"

    def mirrors(*how):
        web.seen.clear()
        monkeypatch.setattr(cifar, "MIRRORS", tuple(f"{web.address}/{h}/" for h in how))
        return cifar.fetch_cifar(cifar.CIFAR10)

    web.mirrors = mirrors
    return web


DOWNLOADED = "CIFAR-10: 100 training and 20 test images downloaded into the user cache"


def cached(tmp_path):
    return {p.name: p.read_bytes() for p in (tmp_path / "cache" / TEN.folder).iterdir()}


@pytest.mark.parametrize("how", ["good", "cut", "whole", "moved"])
def test_download(server, official, tmp_path, how):
    assert server.mirrors(how) == (tmp_path / "cache" / TEN.folder, DOWNLOADED)
    assert cached(tmp_path) == official[0]  # no archive, no readme, nothing half done
    assert server.mirrors("404")[1].endswith("from the user cache") and not server.seen


@pytest.mark.parametrize("how", ["404", "page", "page-as-data", "wrong", "endless", "dead"])
def test_bad_mirror(server, official, tmp_path, how, monkeypatch, faults):
    monkeypatch.setattr(cifar, "MAX_ARCHIVE", len(official[1]) + 1000)
    with faults("download", "CIFAR-10 from a bad mirror"):
        with pytest.raises(
            FileNotFoundError, match=r"machine \(not downloaded: .+\): run"
        ) as error:
            server.mirrors(how)
        assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
        assert not any(cached(tmp_path).values())
        assert server.mirrors(how, "good")[1] == DOWNLOADED
        assert cached(tmp_path) == official[0]


@pytest.mark.parametrize("how", ["good", "moved"])
def test_next_run_resumes(server, official, tmp_path, how):
    write(tmp_path / "cache" / TEN.folder, {f"{TEN.archive}.part": official[1][:1000]})
    assert server.mirrors(how)[1] == DOWNLOADED
    assert {have for *_, have in server.seen} == {1000}
    assert cached(tmp_path) == official[0]


def test_failed_download_is_not_tried_again_by_loading(server):
    with pytest.raises(FileNotFoundError):
        server.mirrors("404")
    with pytest.raises(FileNotFoundError, match="HTTP Error 404"):
        d2lres.load_data_cifar10(8)
    assert len(server.seen) == 1


def test_archive_goes_also_where_it_cannot_be_unpacked(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_UNPACKED", 1000)
    with pytest.raises(FileNotFoundError, match="not downloaded: .*at most 1,000 bytes when"):
        server.mirrors("good")
    assert cached(tmp_path) == {}


def test_archive_that_a_killed_process_left_is_unpacked(server, official, tmp_path, faults):
    left = {TEN.archive: official[1], "data_batch_1.bin.99.part": b"half"}
    write(tmp_path / "cache" / TEN.folder, left)
    with faults("archive", "SIGKILL while it is unpacked"):
        assert server.mirrors("404")[1] == DOWNLOADED and not server.seen
        assert cached(tmp_path) == official[0]


def test_files_of_a_faster_process_are_taken(server, official, tmp_path):
    folder = write(tmp_path / "cache" / TEN.folder, official[0])
    cifar._download(cifar.CIFAR10, folder)
    assert not server.seen


# loading


@pytest.fixture
def given(tmp_path, monkeypatch):
    for which in (TEN, HUNDRED):
        write(tmp_path / "given" / which.folder, small_set(which))
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "given"))


@BOTH
def test_batches(given, which):
    train_iter, test_iter = LOAD[which.name](64)
    assert train_iter.shuffle and not test_iter.shuffle
    X, y = next(iter(test_iter))
    assert X.shape == (64, 3, 32, 32) and X.dtype == np.float32
    assert y.shape == (64,) and y.dtype == np.int32
    assert np.array_equal(y.asnumpy(), np.arange(64) % len(which.label_names[-1]))
    name = which.name.replace("-", "")
    mean, std = (np.reshape(getattr(d2lres, f"{name}_{s}"), (3, 1, 1)) for s in ("MEAN", "STD"))
    pixels = test_iter.images[:64] / 255
    assert np.allclose(X.asnumpy(), (pixels - mean) / std, atol=1e-5)
    (X, _), *_ = LOAD[which.name](64, normalize=None)[1]
    assert np.allclose(X.asnumpy(), pixels)


def test_from_minus_1_to_1(given):
    X, _ = next(iter(d2lres.load_data_cifar10(99, normalize=((0.5,) * 3, (0.5,) * 3))[1]))
    assert X.asnumpy().min() == -1 and X.asnumpy().max() == 1


def test_coarse_labels(given):
    fine, coarse = (d2lres.load_data_cifar100(64, fine)[1] for fine in (True, False))
    assert np.array_equal(fine.images, coarse.images)
    assert np.array_equal(np.array(d2lres.CIFAR100_COARSE_OF_FINE)[fine.labels], coarse.labels)
    assert coarse.labels.max() == 19


@pytest.mark.parametrize("value", [32, "coarse", None])
def test_bad_fine(value):
    with pytest.raises(ValueError, match="fine must be True, for 100 classes, or False, for 20"):
        d2lres.load_data_cifar100(8, value)


def test_split_and_augmentation(given):
    flip = d2lres.RandomFlip(1)
    train_iter, valid_iter = d2lres.load_data_cifar10(64, num_valid=100, augment=flip, seed=3)
    assert "900 training and 100 validation images, of the 1,000" in train_iter.source
    assert np.bincount(valid_iter.labels).tolist() == [10] * 10
    assert train_iter.augment is flip and valid_iter.augment is None and train_iter.seed == 3
    few = d2lres.load_data_cifar10(64, num_train=50, num_test=20)
    assert [np.bincount(each.labels).tolist() for each in few] == [[5] * 10, [2] * 10]


# the real images


@BOTH
def test_constants_are_those_of_the_training_images(best_place, monkeypatch, which):
    given, cache = best_place
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    monkeypatch.setenv("D2LRES_DATA", given or "")
    monkeypatch.setattr(cifar, "cache_folder", lambda: cache)
    try:
        train_iter = LOAD[which.name](8)[0]
    except FileNotFoundError:
        pytest.skip("needs the real images")
    images = train_iter.images
    name = which.name.replace("-", "")
    for channel in range(3):
        counts = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, 0].size
        values = np.arange(256) / 255
        mean = counts @ values
        std = np.sqrt(counts @ (values - mean) ** 2)
        assert getattr(d2lres, f"{name}_MEAN")[channel] == round(mean, 4)
        assert getattr(d2lres, f"{name}_STD")[channel] == round(std, 4)
