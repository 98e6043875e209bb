"""What several tests need."""

import http.server
import threading

import mxnet as mx
import numpy as onp
import pytest

from d2lres import ArrayIter, cifar, fashion_mnist, fetch


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


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    """A machine with no data, no network and no apt-get; the cache is under `tmp_path`."""
    for name in ("D2LRES_DATA", "D2LRES_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "usr")
    for module in (fashion_mnist, cifar):
        monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
        monkeypatch.setattr(module, "MIRRORS", ())
    monkeypatch.setattr(fetch, "_why_not", {})


class Server(http.server.BaseHTTPRequestHandler):
    """The first part of a path says how the server misbehaves."""

    def do_GET(self):
        how, name = self.path.strip("/").split("/")
        have = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        first = have == 0
        self.server.seen.append((how, name, have))
        body = self.server.contents[name]
        if how == "silent":
            self.server.quiet.wait(5)
            return
        if how == "404":
            return self.send_error(404)
        if how == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            return self.end_headers()
        if how == "page":
            return self.answer(b"<html>Please log in</html>", kind="text/html")
        if how == "page-as-data":
            return self.answer(b"<html>Please log in</html>")
        if how == "wrong":
            return self.answer(self.server.wrong)
        if how == "endless":
            return self.answer(body + bytes(200_000))
        if how == "whole":
            return self.answer(body)
        if have >= len(body):
            return self.send_error(416)
        self.answer(body[have:], have, len(body), send=len(body) // 2 if first else None, how=how)

    def answer(self, body, have=0, full=None, kind="application/x-gzip", send=None, how=""):
        self.send_response(206 if have else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if have:
            self.send_header("Content-Range", f"bytes {have}-{full - 1}/{full}")
        self.end_headers()
        self.wfile.write(body[:send] if how == "cut" else b"" if how == "dead" else body)

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
