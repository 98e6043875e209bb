"""A lesson that is opened in JupyterLab and saved is the same file, to the byte."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start a Jupyter server on copies of the lessons; return its address and their folder."""
    folder, home = (tmp_path_factory.mktemp(name) for name in ("lessons", "home"))
    for path in NOTEBOOKS:
        shutil.copy(path, folder)
    (folder / "untidy.ipynb").write_text(json.dumps(json.loads(NOTEBOOKS[0].read_text("utf-8"))))
    options = [f"--ServerApp.root_dir={folder}", "--ServerApp.port=0", "--IdentityProvider.token="]
    options += ["--ServerApp.disable_check_xsrf=True", "--allow-root", "--no-browser"]
    environment = os.environ | {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home)}
    command = [sys.executable, "-m", "jupyter_server", *options]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield address(process, home), folder
    finally:
        process.terminate()
        process.wait()


def address(process, home):
    for _ in range(600):
        assert process.poll() is None, (home / "log").read_text()
        for path in home.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                url = json.loads(path.read_text())["url"]
                urllib.request.urlopen(f"{url}api/status").close()
                return url
        time.sleep(0.1)
    raise AssertionError((home / "log").read_text())


def open_and_save(url, name):
    with urllib.request.urlopen(f"{url}api/contents/{name}?type=notebook&content=1") as answer:
        model = json.load(answer)
    body = json.dumps({key: model[key] for key in ("type", "format", "content")}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}api/contents/{name}", body, method="PUT"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opening_and_saving_a_lesson_changes_no_byte(server, path):
    url, folder = server
    open_and_save(url, path.name)
    assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_saving_would_change_what_is_written_otherwise(server):
    url, folder = server
    before = (folder / "untidy.ipynb").read_bytes()
    open_and_save(url, "untidy.ipynb")
    assert (folder / "untidy.ipynb").read_bytes() == NOTEBOOKS[0].read_bytes() != before
