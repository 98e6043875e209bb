"""Data sets are found, fetched, verified and read: all in the same way."""

import concurrent.futures
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from small_sets import contents_of, make_official, on_disk, small_set, write

from d2lres import RandomFlip, load_data_cifar10, load_data_fashion_mnist
from d2lres.data.cifar import CIFAR10
from d2lres.data.fashion_mnist import FASHION_MNIST
from d2lres.files import download, sources

BOTH = [FASHION_MNIST, CIFAR10]  # files of their own, and an archive of all


def of(*which):
    """Run a test with these sources in place of both."""
    return pytest.mark.parametrize("one", which, ids=lambda source: source.name, indirect=True)


@pytest.fixture(params=BOTH, ids=lambda source: source.name)
def one(request, bare_machine, web, tmp_path, monkeypatch):
    """A source whose official files are small: what they hold, and a server that has them."""
    source = request.param
    contents, web.contents = make_official(source, monkeypatch)
    web.wrong = b"wrong"
    cache = tmp_path / "cache" / source.folder
    loader = load_data_fashion_mnist if source is FASHION_MNIST else load_data_cifar10

    def fetch(*mirrors, only=None):
        web.seen.clear()
        addresses = tuple(f"{web.address}/{how}/" for how in mirrors)
        monkeypatch.setattr(source, "mirrors", addresses)
        return source.fetch(only).where

    def why_not(*mirrors):
        """Say why they could not be fetched: in one line, and with no half file left."""
        try:
            words = fetch(*mirrors)
            assert words.startswith("from the small sample shipped with d2lres (")
        except FileNotFoundError as error:
            words = str(error)
            assert words.startswith(f"{source.name} is not on this machine (")
        assert "\n" not in words and not any(contents_of(cache).values())
        return words

    return types.SimpleNamespace(
        source=source,
        contents=contents,
        files=on_disk(source, contents),
        cache=cache,
        fetch=fetch,
        why_not=why_not,
        loader=loader,
        load=lambda: loader(8)[0].source.split(" test images ")[1],
        seen=web.seen,
    )


# finding


def test_order_of_places(one, tmp_path, monkeypatch):
    usr = sources.Place(tmp_path / "usr", "from /usr", "")
    monkeypatch.setattr(one.source, "places", (usr,))
    assert "not downloaded: " in one.why_not("404")
    write(tmp_path / "usr", one.files)
    assert one.load() == "from /usr"
    write(one.cache, one.files)
    assert one.load() == "from the user cache"
    given = write(tmp_path / "given" / one.source.folder, one.contents)
    for value in (given, given.parent):
        monkeypatch.setenv("D2LRES_DATA", str(value))
        assert one.load() == "from $D2LRES_DATA"
        assert {p.parent for p in one.source.all_paths(one.source.find()[0]).values()} == {given}


def test_one_line_a_call_and_the_options_reach_the_iterators(one, capsys):
    write(one.cache, one.files)
    train_iter, test_iter = one.loader(8, num_train=30, num_test=99)
    num = 40 if one.source is FASHION_MNIST else 100
    line = f"{one.source.name}: 30 of {num} training and 20 test images from the user cache"
    assert capsys.readouterr().out == f"{line}\n"
    assert train_iter.source == test_iter.source == line
    flip = RandomFlip(1)
    train_iter, valid_iter = one.loader(4, num_train=5, num_valid=10, augment=flip, seed=3)
    assert train_iter.source.split(" and ")[1].startswith("10 validation images, of the ")
    assert train_iter.batch_size == 4 and train_iter.seed == 3 and train_iter.num_examples == 5
    assert train_iter.augment is flip and valid_iter.augment is None


def test_given_folder_without_the_files(one, tmp_path, monkeypatch):
    write(one.cache, one.files)
    for value, words in {
        str(tmp_path): " ($D2LRES_DATA holds no such files)",
        str(tmp_path / "nowhere"): f" ($D2LRES_DATA is no folder: {tmp_path / 'nowhere'})",
        str(one.cache / list(one.files)[0]): f" ($D2LRES_DATA is no folder: {one.cache}/",
        "": "",
        " ": "",
    }.items():
        monkeypatch.setenv("D2LRES_DATA", value)
        assert one.load().startswith(f"from the user cache{words}")


@pytest.mark.parametrize("value", ["~/given", "given", "{}/given/ ", "{}/given/../given"])
def test_given_folder_in_other_words(one, tmp_path, monkeypatch, value):
    write(tmp_path / "given", one.files)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2LRES_DATA", value.format(tmp_path))
    assert one.load() == "from $D2LRES_DATA"


def test_given_folder_with_some_files(one, tmp_path, monkeypatch):
    given = write(tmp_path / "given", one.files)
    name = list(one.files)[1]
    (given / name).unlink()
    monkeypatch.setenv("D2LRES_DATA", str(given))
    name = name.removesuffix(".gz")
    words = f"given: expected {len(one.files)} files of {one.source.name}, missing {name}. Put good"
    with pytest.raises(FileNotFoundError, match=words):
        one.load()


@pytest.mark.parametrize("place", ["given", "usr"])
def test_broken_file_of_others_stays(one, tmp_path, monkeypatch, place):
    name = list(one.files)[-1]
    folder = write(tmp_path / place, one.files | {name: one.files[name][:-20]})
    if place == "given":
        monkeypatch.setenv("D2LRES_DATA", str(folder))
    else:
        monkeypatch.setattr(one.source, "places", (sources.Place(folder, "", "Reinstall it."),))
    with pytest.raises(ValueError, match=f"{folder / name}: .* (Put good files|Reinstall)"):
        one.load()
    assert (folder / name).exists()


def test_broken_file_in_the_cache_goes(one, monkeypatch, faults):
    name = list(one.files)[-1]
    write(one.cache, one.files | {name: b"<html>Please log in</html>"})

    def refuse(path):
        raise PermissionError(30, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with (
            faults("disk", "a cache that can only be read"),
            pytest.raises(ValueError, match="web page.* Remove the file, and run this again"),
        ):
            one.load()
    with pytest.raises(ValueError, match="web page.*was removed; run this again"):
        one.load()
    assert contents_of(one.cache).keys() == one.files.keys() - {name}


def test_images_of_your_own_are_told_apart(one, tmp_path, monkeypatch):
    other = small_set(one.source, num=10, seed=1)
    monkeypatch.setenv("D2LRES_DATA", str(write(tmp_path / "given", other)))
    assert one.load() == "from $D2LRES_DATA (not the official files)"
    monkeypatch.delenv("D2LRES_DATA")
    write(one.cache, on_disk(one.source, other))
    if one.source is FASHION_MNIST:  # what was fetched has to be official
        with pytest.raises(ValueError, match="expected the shape .40, 28, 28., found .20, 28, 28."):
            one.load()
        write(one.cache, on_disk(one.source, small_set(one.source, seed=1)))
        with pytest.raises(ValueError, match="expected the official content, SHA-256"):
            one.load()
    else:
        assert one.load() == "from the user cache (not the official files)"


# fetching

DOWNLOADED = "downloaded into the user cache"


def test_download(one, capsys):
    assert one.fetch("good") == DOWNLOADED
    assert contents_of(one.cache) == one.files  # no archive, no readme, nothing half done
    assert list(one.files)[0] in capsys.readouterr().err or one.source.archive  # a progress bar
    assert one.fetch("404") == "from the user cache" and not one.seen


BAD_MIRRORS = {  # more of them are in test_download.py
    "page-as-data": "must you log in to this network",
    "wrong": "expected (an IDX|the magic number|the official archive)",
    "endless": "expected at most [0-9,]+ bytes, found more",
}


@pytest.mark.parametrize("how", BAD_MIRRORS)
def test_bad_mirror_is_passed_over(one, how, tmp_path, faults):
    with faults("download", f"{one.source.name} from a bad mirror"):
        words = one.why_not(how)
        assert re.search(rf"\(not downloaded: .*{BAD_MIRRORS[how]}", words), words
        assert str(tmp_path) not in words
        assert one.fetch(how, "good") == DOWNLOADED
        assert contents_of(one.cache) == one.files


def test_next_run_goes_on(one, web):
    name, content = next(iter(web.contents.items()))
    write(one.cache, {f"{name}.part": content[:1000]})
    assert one.fetch("good") == DOWNLOADED
    assert [have for *_, have in one.seen][0] == 1000


@of(FASHION_MNIST)
def test_only_missing_and_bad_files_are_fetched(one):
    names = list(one.files)
    write(one.cache, one.files)
    (one.cache / names[3]).unlink()
    write(one.cache, {names[0].removesuffix(".gz"): b"bad"})  # beside it the good one, compressed
    assert one.fetch("good") == DOWNLOADED
    assert {name for _, name, _ in one.seen} == {names[0], names[3]}
    assert contents_of(one.cache) == one.files


@of(CIFAR10)
def test_archive_goes_also_where_it_cannot_be_unpacked(one, monkeypatch):
    monkeypatch.setattr(one.source, "archive", one.source.archive._replace(max_unpacked=1000))
    assert re.search("not downloaded: .*at most 1,000 bytes when decompressed", one.why_not("good"))
    assert contents_of(one.cache) == {}


@of(CIFAR10)
def test_archive_that_a_killed_process_left_is_unpacked(one, web, faults):
    write(one.cache, web.contents | {"data_batch_1.bin.99.part": b"half"})
    with faults("archive", "SIGKILL while it is unpacked"):
        assert one.fetch("404") == DOWNLOADED and not one.seen
        assert contents_of(one.cache) == one.files


@of(CIFAR10)
def test_files_of_a_faster_process_are_taken(one):
    sources.download_archive(one.source, write(one.cache, one.files))
    assert not one.seen


def test_failed_download_is_not_tried_again_by_loading(one):
    one.why_not("404")
    assert len(one.seen) == 1
    if one.source.sample:
        assert "(not downloaded: HTTP Error 404" in one.load()
    else:
        with pytest.raises(FileNotFoundError, match=r"\(not downloaded: HTTP Error 404"):
            one.load()
    assert len(one.seen) == 1
    assert one.fetch("good") == DOWNLOADED  # but it is when asked for


@pytest.mark.parametrize("on, off", [("1", "0"), ("yes", "False"), ("TRUE", ""), ("2", " no ")])
def test_offline(one, monkeypatch, on, off):
    monkeypatch.setenv("D2LRES_OFFLINE", on)
    words = one.why_not("good")
    assert "(D2LRES_OFFLINE is set)" in words and not one.seen
    if not one.source.sample:
        command = f"python -m d2lres data {one.source.name.lower()}"
        folder = f"set D2LRES_DATA to a folder that holds {one.source.folder}"
        assert re.search(f": run `{command}` where there is a network, or {folder}", words)
    monkeypatch.setenv("D2LRES_OFFLINE", off)
    assert one.fetch("good") == DOWNLOADED


def test_chosen_folder(one, tmp_path, monkeypatch):
    monkeypatch.setattr(one.source, "places", (sources.Place(tmp_path / "usr", "", ""),))
    write(tmp_path / "usr", one.files)
    monkeypatch.setattr(sources, "cache_folder", lambda: pytest.fail("the cache was used"))
    stick = tmp_path / "stick"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert one.fetch("good", only="~/stick") == "downloaded into ~/stick"
    assert one.fetch("404", only=stick) == f"from {stick}"
    assert contents_of(stick / one.source.folder) == one.files
    monkeypatch.setenv("D2LRES_DATA", str(stick))
    assert one.fetch() == "from $D2LRES_DATA"


def test_no_time_and_no_place_for_a_download(one, tmp_path, monkeypatch, faults):
    with monkeypatch.context() as patch:
        patch.setattr(download, "DOWNLOAD_SECONDS", -1)
        assert "not downloaded: not done after" in one.why_not("good")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with faults("disk", "a file in place of the cache"):
        assert f"not downloaded: Not a directory: {tmp_path / 'cache'}" in one.why_not("good")


def test_no_home_for_a_cache(one, monkeypatch, tmp_path, faults):
    monkeypatch.setattr(sources, "cache_folder", lambda: None)
    with faults("disk", "no home for a cache"):
        assert "there is no home for a cache: set HOME" in one.why_not("good")
    assert one.fetch("good", only=tmp_path / "stick").startswith("downloaded into")
    monkeypatch.setenv("D2LRES_DATA", str(tmp_path / "stick"))
    assert one.load() == "from $D2LRES_DATA"


# several at once, and other disasters


def test_threads_at_once_fetch_once(one):
    one.fetch("good", only=one.cache.parent / "elsewhere")  # sets the mirror
    one.seen.clear()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda _: one.source.load().where, range(3))]
    assert DOWNLOADED in found and set(found) <= {DOWNLOADED, "from the user cache"}
    assert len(one.seen) == (1 if one.source.archive else 4)


CONTENT = random.Random(0).randbytes(20_000)
PROCESS = """
import resource, sys
from pathlib import Path
from d2lres.files.sources import Source, download_files

mirror, folder, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

def read(path, wanted):
    if path.stat().st_size != 20_000:
        raise ValueError("not the right size")

files, ways = {"x": ((19_999,), "")}, {"downloaded": download_files}
source = Source("A set", "set", files, read, None, (mirror,), ways, endings=(".gz",))
try:
    print(source.find(folder)[0].name)
except FileNotFoundError as error:
    print(error)
"""


@pytest.fixture
def process(web, tmp_path, monkeypatch):
    """Start a process that downloads set/x.gz; `process.left` says what is there."""
    monkeypatch.setenv("no_proxy", "*")
    web.contents = {"x.gz": CONTENT}

    def process(how="good", most=1_000_000):
        command = [sys.executable, "-c", PROCESS, f"{web.address}/{how}/", tmp_path, most]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        return subprocess.Popen([*map(str, command)], **output)

    process.done = f"downloaded into {tmp_path}\n"
    process.left = lambda: contents_of(tmp_path / "set")
    return process


def test_processes_at_once_end_with_one_good_file(process, web, faults):
    with faults("download", "several processes at once"):
        answers = {each.communicate()[0] for each in [process("cut") for _ in range(3)]}
        assert process.done in answers
        assert process.left() == {"x.gz": CONTENT}
        assert [have for *_, have in web.seen] == [0, 10_000]  # one of them, in two parts


def test_full_disk(process, faults):
    with faults("download", "full disk"):
        assert "File too large" in process(most=5000).communicate()[0]
        assert "x.gz" not in process.left()
        assert process().communicate()[0] == process.done
        assert process.left() == {"x.gz": CONTENT}


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment(seed, process, web, faults):
    with faults("download", "SIGKILL while another waits"):
        killed = process("drip")
        while not web.seen:
            time.sleep(0.01)
        waiting = process("cut")
        time.sleep(random.Random(seed).uniform(0, 1.5))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert waiting.communicate()[0] == process.done
        assert process.left() == {"x.gz": CONTENT}
