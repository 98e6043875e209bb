"""What several tests need."""

import contextlib
import gc
import http.server
import json
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

from d2lres.runtime.machine import describe, physical_cores

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores
    os.environ["OMP_NUM_THREADS"] = str(max(1, physical_cores() // int(workers)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist has it ignored
    # of which jsonschema makes a parser, in 3 s, for addresses that no notebook has
    sys.modules.setdefault("rfc3987_syntax", None)

import mxnet as mx
import numpy as onp
import pytest

from d2lres import ArrayIter
from d2lres.data.cifar import CIFAR10, CIFAR100
from d2lres.data.fashion_mnist import FASHION_MNIST
from d2lres.files import sources
from d2lres.files.whole import written_whole

FAULTS = pytest.StashKey()
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser):
    parser.addoption("--record-faults", metavar="FILE", help="write down what `faults` counted")


def pytest_configure(config):
    config.stash[FAULTS] = {}
    if config.pluginmanager.hasplugin("nbval"):
        import nbval.kernel

        nbval.kernel.start_new_kernel = twice(nbval.kernel.start_new_kernel)


def twice(start):
    """Let a kernel that dies at once start again, as Jupyter's own restarter does.

    Its ports were free when they were chosen, and may have been taken meanwhile.
    """

    def started(*args, **kwargs):
        try:
            return start(*args, **kwargs)
        except RuntimeError as error:
            warnings.warn(f"{error}: it is started again", stacklevel=2)
            return start(*args, **kwargs)

    return started


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what is there by now stays, and is not looked at again and again


def pytest_collection_modifyitems(config, items):
    if config.getoption("--record-faults"):  # of all tests those that count, the quick ones too
        items[:] = [i for i in items if "faults" in i.fixturenames or "faults" in i.keywords]


def pytest_sessionfinish(session):
    if path := session.config.getoption("--record-faults"):
        record = {"machine": describe(), "faults": session.config.stash[FAULTS]}
        with written_whole(Path(path)) as file:
            file.write(json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")


@pytest.fixture
def faults(request):
    """Count a fault that is tried and, if the block ends well, survived.

    ``with faults("download", "connection cut"): ...`` is one of the area "download".
    """
    counts = request.config.stash[FAULTS]

    @contextlib.contextmanager
    def one(area, kind):
        count = counts.setdefault(area, {}).setdefault(kind, {"tried": 0, "survived": 0})
        count["tried"] += 1
        yield
        count["survived"] += 1

    return one


@pytest.fixture(autouse=True)
def _seeded():
    mx.random.seed(0)
    onp.random.seed(0)


@pytest.fixture
def saves_every_batch(monkeypatch):
    """Let runs of this process save a checkpoint after every batch."""
    monkeypatch.setattr("d2lres.runs.keeper.SECONDS_BETWEEN_CHECKPOINTS", 0)


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook is given to display and to update, in turn, as pairs of how and what."""
    seen = []

    def display(thing, display_id):
        seen.append(("display", thing))
        return SimpleNamespace(update=lambda thing: seen.append(("update", thing)))

    monkeypatch.setattr("IPython.display.display", display)
    return seen


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


@pytest.fixture(scope="session")
def real_places():
    """Where this machine has the real data sets, for the tests that want them."""
    found = {}
    for source in (FASHION_MNIST, CIFAR10, CIFAR100):
        with contextlib.suppress(FileNotFoundError):
            found[source.name] = source.find(offline=True)[0]
    return found


@pytest.fixture
def bare_machine(real_places, tmp_path, monkeypatch):
    """A machine with no data, no network and no apt-get; the cache is under `tmp_path`."""
    for name in ("D2LRES_DATA", "D2LRES_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    debian = FASHION_MNIST.places[0]._replace(folder=tmp_path / "usr")
    monkeypatch.setattr(FASHION_MNIST, "places", (debian,))
    for source in (FASHION_MNIST, CIFAR10, CIFAR100):
        monkeypatch.setattr(source, "mirrors", ())
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(sources, "_why_not", {})


class Server(http.server.BaseHTTPRequestHandler):
    """The first part of a path says how the server misbehaves."""

    def do_GET(self):
        how, name = self.path.strip("/").split("/")
        have = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        self.server.seen.append((how, name, have))
        body = self.server.contents[name]
        page = b"<html>Please log in</html>"
        if how == "silent":
            self.server.quiet.wait(5)
        elif how in ("404", "500"):
            self.send_error(int(how))
        elif how in ("moved", "loop"):
            self.send_response(302)
            self.send_header("Location", f"/{'good' if how == 'moved' else how}/{name}")
            self.end_headers()
        elif how == "garbage":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n" + body)
        elif how == "drip-headers":
            self.drip(b"HTTP/1.0 200 OK\r\n" + b"X-Wait: yes\r\n" * 100)
        elif how == "page":
            self.answer(page, kind="text/html")
        elif how in ("page-as-data", "wrong", "endless"):
            bodies = {"page-as-data": page, "wrong": self.server.wrong}
            self.answer(bodies.get(how, body + bytes(200_000)))
        elif how in ("longer", "shorter", "nonsense"):
            lengths = {"longer": len(body) + 9, "shorter": len(body) - 9, "nonsense": "many"}
            self.answer(body, length=lengths[how])
        elif how == "other-range":
            self.answer(body[7:], 7, len(body))
        elif how == "whole":
            self.answer(body)
        elif have >= len(body):
            self.send_error(416)
        else:
            self.answer(body[have:], have, len(body), how=how)

    def answer(self, body, have=0, full=None, kind="application/x-gzip", length=None, how=""):
        self.send_response(206 if have else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if have:
            self.send_header("Content-Range", f"bytes {have}-{full - 1}/{full}")
        self.end_headers()
        if how == "dead":
            return
        if how == "drip":
            return self.drip(body)
        broken = how in ("cut", "stall", "reset") and not have
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if broken and how == "stall":
            self.server.quiet.wait(5)
        if broken and how == "reset":  # close without a word of good-bye
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def drip(self, body):
        with contextlib.suppress(OSError):  # the other side left
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                if self.server.quiet.wait(0.02):
                    return

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """A server on this machine that gives the bytes `contents[name]` at `address`/HOW/NAME."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.seen, server.quiet = [], threading.Event()
        server.daemon_threads = True
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.quiet.set()
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not path:
        pytest.skip("Chromium is not here (sudo apt install chromium)")
    why_not = "Playwright is not here (make test-browser)"
    api = pytest.importorskip("playwright.sync_api", reason=why_not)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        # one context, and thereby one cache, for all tests
        yield browser.new_context(viewport={"width": 1280, "height": 720})
        browser.close()
