"""JupyterLab as `make lab` starts it, in a clone and with a home that are thrown away."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ("Makefile", "d2lres", "notebooks", "tests", "tools")


@contextlib.contextmanager
def running_lab(clone):
    """Yield what the server of a new clone in an empty folder says of itself.

    Its terminal is the file ``terminal`` there, its home the folder ``home``.
    """
    for name in SHARED:
        (clone / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results", clone / "results")  # JupyterLab shows no files from elsewhere
    (clone / ".venv").symlink_to(sys.prefix)
    home = clone / "home"
    home.mkdir()
    env = {n: v for n, v in os.environ.items() if not n.startswith(("JUPYTER", "OMP", "PYTEST"))}
    env |= {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "BROWSER": "true"}
    env |= {"D2LRES_OFFLINE": "1", "D2LRES_SCALE": "quick"}
    command = ["make", "--old-file=setup", "lab"]
    with open(clone / "terminal", "w") as terminal:
        options = {"cwd": clone, "env": env, "stdout": terminal, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        until = time.monotonic() + 180
        while not (found := list((home / "runtime").glob("jpserver-*.json"))):
            assert process.poll() is None and time.monotonic() < until, _read(clone / "terminal")
            time.sleep(0.1)
        yield json.loads(found[0].read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _read(path):
    return path.read_text(encoding="utf-8")
