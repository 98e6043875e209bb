"""Fashion-MNIST is found or fetched, verified and loaded."""

import gzip
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from d2lres import fashion_mnist, fetch
from d2lres.augment import RandomFlip

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(fashion_mnist.OFFICIAL)
IMAGES = NAMES[2]  # the test images: the files of t10k come last


def idx(array):
    """The bytes of an IDX file."""
    shape = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def small_set(num_train=40, num_test=20, seed=0):
    """The uncompressed content of the four files of a small set."""
    rng = np.random.default_rng(seed)
    contents = []
    for n in (num_train, num_test):
        contents += [idx(rng.integers(0, 256, (n, 28, 28))), idx(np.arange(n) % 10)]
    return dict(zip(NAMES, contents, strict=True))


def write(folder, contents, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(
            gzip.compress(content, mtime=0) if zipped else content
        )
    return folder


@pytest.fixture(scope="session")
def best_place():
    """The real data if this machine has it, else the shipped sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2LRES_OFFLINE", "1")
        return fashion_mnist._find()[0]


@pytest.fixture(autouse=True)
def _nothing_found(best_place, bare_machine):
    pass


@pytest.fixture
def official(monkeypatch):
    """The content of a small set that counts as the official one."""
    contents = small_set()
    table = {}
    for name, content in contents.items():
        shape = tuple(np.frombuffer(content, ">u4", count=content[3], offset=4).tolist())
        table[name] = (shape, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(fashion_mnist, "OFFICIAL", table)
    return contents


def cached(tmp_path):
    """What lies in the cache."""
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())


GZIPPED = sorted(f"{name}.gz" for name in NAMES)


# reading files


@pytest.mark.parametrize("zipped", [True, False])
def test_read_idx(tmp_path, zipped):
    contents = small_set()
    folder = write(tmp_path, contents, zipped)
    for name, path in zip(NAMES, (folder / (n + ".gz" * zipped) for n in NAMES), strict=True):
        array = fashion_mnist.read_idx(path)
        assert array.dtype == np.uint8
        assert idx(array) == contents[name]


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
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path, case, faults):
    content, words = BROKEN[case]
    path = tmp_path / IMAGES
    path.write_bytes(content)
    with faults("files", "IDX: damaged, or something else"):
        with pytest.raises(ValueError, match=words) as error:
            fashion_mnist.read_idx(path)
        assert str(path) in str(error.value)


def test_label_out_of_range(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.array([0, 9, 10])))
    with pytest.raises(ValueError, match="labels from 0 to 9, found the label 10"):
        fashion_mnist.read_idx(path)


CLAIMS = {  # sizes in the header, bytes that follow, the same compressed?
    "impossible": ((2**32 - 1, 2**16, 2**16), 100, False),
    "impossible, compressed": ((2**32 - 1, 2**16, 2**16), 100, True),
    "possible": ((5000, 100, 1000), 500_000, True),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_header_cannot_claim_memory(tmp_path, claim, faults):
    sizes, n, zipped = CLAIMS[claim]
    content = good[:4] + np.array(sizes, ">u4").tobytes() + np.random.default_rng(0).bytes(n)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with faults("files", "IDX: a header that claims too much"):
        tracemalloc.start()
        with pytest.raises(ValueError, match="a file too short|after the header, found 500,000"):
            fashion_mnist.read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6


# finding files


def test_order_of_places(tmp_path, monkeypatch, official, capsys):
    def where():
        folder, line = fashion_mnist.fetch_fashion_mnist()
        assert "Fashion-MNIST: " in line and "\n" not in line
        return folder, line

    folder, line = where()
    assert folder == ROOT / "d2lres" / "sample"
    assert "6,000 training and 1,000 test images from the small sample" in line
    assert "not fetched with apt-get: this system has none" in line

    debian = write(fashion_mnist.DEBIAN_FOLDER, official)
    assert where() == (
        debian,
        "Fashion-MNIST: 40 training and 20 test images from Debian's dataset-fashion-mnist",
    )
    cache = write(tmp_path / "cache", official)
    assert where()[0] == cache and "from the user cache" in where()[1]

    given = write(tmp_path / "given" / "fashion-mnist", official, zipped=False)
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "given"))
    assert where()[0] == given and where()[1].endswith("from $D2LRES_DATA")
    assert capsys.readouterr().out == ""


def test_one_line_a_call(tmp_path, monkeypatch, official, capsys):
    write(tmp_path / "cache", official)
    train_iter, test_iter = fashion_mnist.load_data_fashion_mnist(8, num_train=30, num_test=99)
    line = "Fashion-MNIST: 30 of 40 training and 20 test images from the user cache"
    assert capsys.readouterr().out == f"{line}\n"
    assert train_iter.source == test_iter.source == line


def test_given_folder_without_the_files(tmp_path, monkeypatch, official):
    write(tmp_path / "cache", official)
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "nowhere"))
    line = fashion_mnist.fetch_fashion_mnist()[1]
    assert line.endswith("from the user cache ($D2LRES_DATA holds no such files)")


def test_given_folder_with_some_files(tmp_path, monkeypatch, official):
    monkeypatch.setenv("D2LRES_DATA", str(write(tmp_path / "given", official)))
    (tmp_path / "given" / f"{NAMES[1]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {NAMES[1]}.*unset D2LRES_DATA"):
        fashion_mnist.load_data_fashion_mnist(8)


@pytest.mark.parametrize("place", ["given", "usr"])
def test_broken_file_of_others_stays(tmp_path, monkeypatch, official, place):
    path = write(tmp_path / place, official) / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    if place == "given":
        monkeypatch.setenv("D2LRES_DATA", str(tmp_path / place))
    with pytest.raises(ValueError, match="Put good files there|Reinstall") as error:
        fashion_mnist.load_data_fashion_mnist(8)
    assert str(path) in str(error.value)
    assert path.exists()


def test_broken_file_in_the_cache_goes(tmp_path, official):
    path = write(tmp_path / "cache" / "fashion-mnist", official) / f"{IMAGES}.gz"
    path.write_bytes(b"<html>Please log in</html>")
    with pytest.raises(ValueError, match="web page.*was removed; run this again"):
        fashion_mnist.load_data_fashion_mnist(8)
    assert cached(tmp_path) == [name for name in GZIPPED if name != path.name]


def test_own_set(tmp_path, monkeypatch, official):
    contents = small_set(7, 3, seed=1)
    monkeypatch.setenv("D2LRES_DATA", str(write(tmp_path / "given", contents)))
    line = fashion_mnist.fetch_fashion_mnist()[1]
    assert line == (
        "Fashion-MNIST: 7 training and 3 test images from $D2LRES_DATA (not the official files)"
    )
    write(tmp_path / "given", {NAMES[3]: idx(np.arange(4))})
    with pytest.raises(ValueError, match="expected 3 labels, found 4"):
        fashion_mnist.fetch_fashion_mnist()
    write(tmp_path / "given", {IMAGES: idx(np.zeros((3, 28, 29)))})
    with pytest.raises(ValueError, match="images of 28x28"):
        fashion_mnist.fetch_fashion_mnist()

    monkeypatch.delenv("D2LRES_DATA")
    write(tmp_path / "cache", small_set(seed=1))  # what we fetch has to be official
    with pytest.raises(ValueError, match="expected the official content, SHA-256"):
        fashion_mnist.fetch_fashion_mnist()


# the sample and the real data


def test_validation_images_are_training_images(capsys, tmp_path, official):
    write(tmp_path / "cache", official)
    train_iter, test_iter = fashion_mnist.load_data_fashion_mnist(8)
    capsys.readouterr()
    smaller, valid_iter = fashion_mnist.load_data_fashion_mnist(8, num_valid=10, seed=3)
    line = "30 training and 10 validation images, of the 40 for training, from the user cache"
    assert capsys.readouterr().out == f"Fashion-MNIST: {line}\n"
    assert valid_iter.source == smaller.source and smaller.source.endswith(line)

    def contents(data_iter):
        return {image.tobytes() for image in data_iter.images}

    assert contents(smaller) | contents(valid_iter) == contents(train_iter)
    assert (len(contents(smaller)), len(contents(valid_iter))) == (30, 10)
    assert not contents(valid_iter) & contents(test_iter)
    assert smaller.shuffle and not valid_iter.shuffle
    for of in (smaller, valid_iter):  # the images still go with their labels
        for image, label in zip(of.images, of.labels, strict=True):
            (at,) = np.flatnonzero((train_iter.images == image).all(axis=(1, 2, 3)))
            assert train_iter.labels[at] == label


def test_validation_images_are_fixed_and_balanced():
    options = [{}, {"seed": 9}, {"num_train": 500}, {"batch_size": 3}]
    loads = [
        fashion_mnist.load_data_fashion_mnist(**{"batch_size": 8, "num_valid": 600} | o)
        for o in options
    ]
    (train_iter, valid_iter), *others = loads
    assert np.bincount(valid_iter.labels).tolist() == [60] * 10
    assert np.bincount(train_iter.labels).tolist() == [540] * 10
    for _, other in others:
        assert np.array_equal(other.images, valid_iter.images)
    few = fashion_mnist.load_data_fashion_mnist(8, num_train=500)[
        0
    ]  # the same ones with and without
    assert np.array_equal(loads[2][0].images, few.images)
    assert "500 of 5,400 training and 600 validation images, of the 6,000" in loads[2][0].source
    last = fashion_mnist.load_data_fashion_mnist(8, num_valid=10)[1]
    everything = fashion_mnist.load_data_fashion_mnist(8)[0]
    for image, label in zip(last.images, last.labels, strict=True):
        at = np.flatnonzero(everything.labels == label)[-1]
        assert np.array_equal(everything.images[at], image)


@pytest.mark.parametrize("num_valid", [6000, 60_000])
def test_too_many_validation_images(num_valid):
    words = f"some of the 6,000 training images .* {num_valid:,} does not: try num_valid=600"
    with pytest.raises(ValueError, match=words):
        fashion_mnist.load_data_fashion_mnist(8, num_valid=num_valid)
    assert fashion_mnist.load_data_fashion_mnist(8, num_valid=5999)[0].num_examples == 1


def test_validation_or_test_images():
    with pytest.raises(ValueError, match="num_test and num_valid exclude each other"):
        fashion_mnist.load_data_fashion_mnist(8, num_test=10, num_valid=10)


def test_sample():
    place = fashion_mnist._find()[0]
    (train, test), _ = fashion_mnist._read(place)
    assert place.contents is fashion_mnist.SAMPLE
    for (images, labels), per_class in ((train, 600), (test, 100)):
        assert images.shape == (10 * per_class, 28, 28)
        assert np.bincount(labels).tolist() == [per_class] * 10
        assert 60 < images.mean() < 85  # pictures, not noise
    assert "Copyright (c) 2017 Zalando SE" in (place.folder / "LICENSE").read_text()


def test_sample_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "__file__", str(tmp_path / "fashion_mnist.py"))
    with pytest.raises(FileNotFoundError, match="missing train-images.*Reinstall d2lres"):
        fashion_mnist.load_data_fashion_mnist(8)


def test_sample_is_verified(monkeypatch):
    (shape, digest) = fashion_mnist.SAMPLE[IMAGES]
    monkeypatch.setitem(fashion_mnist.SAMPLE, IMAGES, (shape, digest[::-1]))
    with pytest.raises(ValueError, match="SHA-256.*Reinstall d2lres"):
        fashion_mnist.load_data_fashion_mnist(8)


def test_sample_is_made_again_byte_for_byte(best_place, tmp_path):
    if best_place.contents is fashion_mnist.SAMPLE:
        pytest.skip("needs the official files")
    tool = ROOT / "tools" / "make_sample.py"
    if not tool.exists():
        pytest.skip("needs the repository")
    spec = importlib.util.spec_from_file_location("make_sample", tool)
    make_sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_sample)
    assert (
        make_sample.make_sample(fashion_mnist._files(best_place.folder)[0], tmp_path)
        == fashion_mnist.SAMPLE
    )
    again = make_sample.write_idx(tmp_path / "again", fashion_mnist.read_idx(tmp_path / GZIPPED[0]))
    assert again == fashion_mnist.SAMPLE[NAMES[2]][1]
    assert (tmp_path / "again").read_bytes() == (tmp_path / GZIPPED[0]).read_bytes()


# fetching


@pytest.fixture
def server(official, web, monkeypatch):
    """A server on this machine; `mirrors` says how its mirrors behave, and fetches from them."""
    web.contents = {f"{name}.gz": gzip.compress(c, mtime=0) for name, c in official.items()}
    web.wrong = gzip.compress(idx(np.zeros((20, 28, 28))))

    def mirrors(*how, folder=None):
        web.seen.clear()
        monkeypatch.setattr(fashion_mnist, "MIRRORS", tuple(f"{web.address}/{h}/" for h in how))
        return fashion_mnist.fetch_fashion_mnist(folder)

    web.mirrors = mirrors
    return web


DOWNLOADED = "Fashion-MNIST: 40 training and 20 test images downloaded into the user cache"


def test_download(server, tmp_path, capsys):
    folder, line = server.mirrors("good")
    assert (folder, line) == (tmp_path / "cache" / "fashion-mnist", DOWNLOADED)
    assert cached(tmp_path) == GZIPPED
    assert len(server.seen) == 4
    assert "train-images-idx3-ubyte" in capsys.readouterr().err  # the progress bar
    assert "from the user cache" in server.mirrors("good")[1]
    assert server.seen == []


@pytest.mark.parametrize("mirror", ["404", "page", "page-as-data", "wrong", "endless", "dead"])
def test_bad_mirror_is_passed_over(server, tmp_path, mirror, faults):
    with faults("download", "Fashion-MNIST from a bad mirror"):
        assert server.mirrors(mirror, "good")[1] == DOWNLOADED
        assert cached(tmp_path) == GZIPPED
        assert [how for how, *_ in server.seen] == [mirror, "good"] * 4


WORDS = {
    "404": "HTTP Error 404: Not Found",
    "page": "must you log in to this network",
    "page-as-data": "must you log in to this network",
    "wrong": r"expected the shape \(40, 28, 28\), found \(20, 28, 28\)",
    "endless": "expected at most",
    "dead": "the connection broke after 0 of",
}


@pytest.mark.parametrize("mirror", WORDS)
def test_only_bad_mirrors(server, tmp_path, mirror, capsys):
    folder, line = server.mirrors(mirror)
    assert folder.name == "sample" and "small sample shipped with d2lres (not downloaded: " in line
    assert re.search(WORDS[mirror], line), line
    assert str(tmp_path) not in line and "\n" not in line
    leftovers = cached(tmp_path)
    assert leftovers in ([], [f"{NAMES[0]}.gz.part"])
    assert all((tmp_path / "cache" / "fashion-mnist" / n).stat().st_size == 0 for n in leftovers)


def test_failed_download_is_not_tried_again_by_loading(server):
    server.mirrors("404")
    assert len(server.seen) == 1
    source = fashion_mnist.load_data_fashion_mnist(8)[0].source
    assert "not downloaded: HTTP Error 404" in source and len(server.seen) == 1
    assert server.mirrors("good")[1] == DOWNLOADED  # but it is when asked for


def test_broken_connection_is_resumed(server, tmp_path):
    assert server.mirrors("cut")[1] == DOWNLOADED
    starts = [have for *_, have in server.seen]
    assert starts[::2] == [0] * 4 and all(have > 0 for have in starts[1::2])
    assert cached(tmp_path) == GZIPPED


def leave_part(tmp_path, content):
    part = tmp_path / "cache" / "fashion-mnist" / f"{NAMES[0]}.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


@pytest.mark.parametrize("mirror", ["good", "whole"])
def test_next_run_resumes(server, official, tmp_path, mirror):
    leave_part(tmp_path, gzip.compress(official[NAMES[0]], mtime=0)[:1000])
    assert server.mirrors("404", mirror)[1] == DOWNLOADED
    later = [("404", 0), (mirror, 0)] * 3
    assert [(how, have) for how, _, have in server.seen] == [("404", 1000), (mirror, 1000), *later]
    assert cached(tmp_path) == GZIPPED


def test_web_page_does_not_spoil_what_came_before(server, official, tmp_path):
    leave_part(tmp_path, gzip.compress(official[NAMES[0]], mtime=0)[:1000])
    server.mirrors("page", "good")
    assert [have for *_, have in server.seen][:2] == [1000, 1000]


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_resuming_wrong_bytes_starts_afresh(server, tmp_path, size):
    leave_part(tmp_path, b"\x1f\x8b" + bytes(size - 2))
    assert server.mirrors("good")[1] == DOWNLOADED
    assert [have for *_, have in server.seen][:2] == [size, 0]


def test_complete_part_is_used(server, official, tmp_path):
    leave_part(tmp_path, gzip.compress(official[NAMES[0]], mtime=0))
    assert server.mirrors("good")[1] == DOWNLOADED
    assert len(server.seen) == 4


def test_only_missing_and_bad_files_are_fetched(server, official, tmp_path):
    folder = write(tmp_path / "cache" / "fashion-mnist", official)
    (folder / f"{NAMES[3]}.gz").unlink()
    (folder / NAMES[0]).write_bytes(b"bad")  # beside it the good one, compressed
    assert server.mirrors("good")[1] == DOWNLOADED
    assert {name for _, name, _ in server.seen} == {f"{NAMES[0]}.gz", f"{NAMES[3]}.gz"}
    assert cached(tmp_path) == GZIPPED


def test_silent_server_is_left_in_time(server, monkeypatch):
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    assert re.search("not downloaded: (no answer|timed out)", server.mirrors("silent")[1])
    assert time.monotonic() - start < 3


def test_name_look_up_that_hangs_is_left_in_time(server, monkeypatch):
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda *_, **__: server.quiet.wait(5))
    start = time.monotonic()
    assert "not downloaded: no answer in 0.2 s" in server.mirrors("good")[1]
    assert time.monotonic() - start < 3


def test_deadline(server, monkeypatch):
    monkeypatch.setattr(fetch, "DOWNLOAD_SECONDS", -1)
    assert "not downloaded: not done after" in server.mirrors("good")[1]


def test_several_at_a_time_fetch_once(server, tmp_path):
    server.mirrors("good", folder=tmp_path / "other")  # sets the mirror
    server.seen.clear()
    results = []

    def fetch():
        results.append(fashion_mnist._fetch(tmp_path / "cache" / "fashion-mnist"))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [("downloaded", "")] * 3
    assert len(server.seen) == 4


def test_offline(server, monkeypatch):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert server.mirrors("good")[1].endswith("with d2lres (D2LRES_OFFLINE is set)")
    assert server.seen == []
    monkeypatch.setenv("D2LRES_OFFLINE", "0")
    assert server.mirrors("good")[1] == DOWNLOADED


def test_chosen_folder(server, official, tmp_path, monkeypatch):
    write(fashion_mnist.DEBIAN_FOLDER, official)
    monkeypatch.setattr(fashion_mnist, "cache_folder", lambda: pytest.fail("the cache was used"))
    stick = tmp_path / "stick"
    folder, line = server.mirrors("good", folder=stick)
    assert folder == stick / "fashion-mnist" and line.endswith(f"downloaded into {stick}")
    monkeypatch.setenv("D2LRES_DATA", str(stick))
    assert fashion_mnist.fetch_fashion_mnist()[1].endswith("from $D2LRES_DATA")


def test_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "not downloaded: " in server.mirrors("good")[1]


def fake_commands(tmp_path, apt_get, dpkg):
    (tmp_path / "bin").mkdir()
    for name, script in {"apt-get": apt_get, "dpkg": dpkg}.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!{sys.executable}\nimport sys, shutil, time\n{script}\n")
        path.chmod(0o755)


GOOD_APT = "assert sys.argv[-2:] == ['download', 'dataset-fashion-mnist']; open('x.deb', 'w')"
GOOD_DPKG = (
    "assert sys.argv[1:3] == ['-x', sys.argv[2]]; shutil.copytree({0!r}, sys.argv[3] + {1!r})"
)


def test_debian_package(server, official, tmp_path):
    packed = write(tmp_path / "packed", official)
    dpkg = GOOD_DPKG.format(str(packed), str(fashion_mnist.DEBIAN_FOLDER))
    fake_commands(tmp_path, GOOD_APT, dpkg)
    folder, line = server.mirrors("404")
    assert line.endswith("20 test images fetched with apt-get into the user cache")
    assert folder == tmp_path / "cache" / "fashion-mnist"
    assert cached(tmp_path) == GZIPPED


@pytest.mark.parametrize(
    "apt_get, words",
    [
        ("sys.exit('E: Unable to locate package')", "apt-get: E: Unable to locate package"),
        ("time.sleep(9)", "apt-get: .*timed out"),
        (GOOD_APT, f"apt-get: .*{NAMES[0]}.*expected"),
    ],
)
def test_debian_package_fails(official, tmp_path, monkeypatch, apt_get, words):
    packed = write(tmp_path / "packed", small_set(seed=1))
    dpkg = GOOD_DPKG.format(str(packed), str(fashion_mnist.DEBIAN_FOLDER))
    fake_commands(tmp_path, apt_get, dpkg)
    monkeypatch.setattr(fashion_mnist, "APT_SECONDS", 0.5 if "sleep" in apt_get else 20)
    with_sample = fashion_mnist.fetch_fashion_mnist()[1]
    assert "small sample" in with_sample
    assert re.search(words, with_sample), with_sample
    assert cached(tmp_path) == []


def test_data_needs_no_mxnet(tmp_path):
    code = (
        "import sys; sys.modules['mxnet'] = None\n"
        "from d2lres.fashion_mnist import fetch_fashion_mnist as f; print(f()[1])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "D2LRES_OFFLINE": "1", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.startswith("Fashion-MNIST: "), done.stderr


# loading


def test_batches_of_the_real_thing(best_place, monkeypatch):
    mx = pytest.importorskip("mxnet")
    monkeypatch.setattr(fashion_mnist, "_find", lambda: (best_place, ""))
    train_iter, test_iter = fashion_mnist.load_data_fashion_mnist(256, num_train=1000, num_test=300)
    assert (len(train_iter), train_iter.num_examples, train_iter.batch_size) == (4, 1000, 256)
    assert np.bincount(train_iter.labels).tolist() == [100] * 10
    for data_iter in (train_iter, test_iter):
        for X, y in data_iter:
            assert isinstance(X, mx.np.ndarray) and isinstance(y, mx.np.ndarray)
            assert X.dtype == np.float32 and y.dtype == np.int32
            assert X.shape == (len(y), 1, 28, 28) and y.shape == (len(y),)
            assert X.asnumpy().min() == 0 and 0.99 < X.asnumpy().max() <= 1
    assert len(y) == 300 - 256
    taken = [int(label) for _, y in test_iter for label in y]
    assert taken == test_iter.labels.tolist()


def test_all_images_are_the_default(capsys):
    pytest.importorskip("mxnet")
    train_iter, test_iter = fashion_mnist.load_data_fashion_mnist(64)
    assert (train_iter.num_examples, test_iter.num_examples) == (6000, 1000)
    assert len(train_iter) == 94


def test_only_training_images_are_augmented():
    mirror = RandomFlip(1)
    for options in ({"num_test": 50}, {"num_valid": 50}):
        options |= {"num_train": 64, "seed": 2}
        plain = fashion_mnist.load_data_fashion_mnist(64, **options)
        flipped = fashion_mnist.load_data_fashion_mnist(64, **options, augment=mirror)
        assert flipped[0].augment is mirror and flipped[1].augment is None
        (X, valid_X), (flipped_X, same_X) = (
            [next(iter(data_iter))[0].asnumpy() for data_iter in pair] for pair in (plain, flipped)
        )
        assert np.array_equal(flipped_X, X[:, :, :, ::-1])
        assert np.array_equal(same_X, valid_X)


@pytest.mark.parametrize("resize", [None, 96, 14, (40, 56)])
def test_agrees_with_d2l(monkeypatch, resize):
    """d2l's own loader, given the same images in place of its download."""
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    mx = pytest.importorskip("mxnet")
    d2l = pytest.importorskip("d2l.mxnet")
    _, test_iter = fashion_mnist.load_data_fashion_mnist(32, resize, num_test=50)
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


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", None, True, [8]])
def test_bad_batch_size(value):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        fashion_mnist.load_data_fashion_mnist(value)


@pytest.mark.parametrize("value", [0, -96, 96.0, "96", (96,), (96, 0), (1, 96, 96), True])
def test_bad_resize(value):
    with pytest.raises(ValueError, match="resize must be"):
        fashion_mnist.load_data_fashion_mnist(8, value)


@pytest.mark.parametrize(
    "options", [{"num_train": 0}, {"num_test": 1.5}, {"seed": -1}, {"num_valid": 0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="must be a whole number"):
        fashion_mnist.load_data_fashion_mnist(8, **options)


def test_text_labels():
    assert fashion_mnist.text_labels(np.array([0, 9])) == ["t-shirt", "ankle boot"]
