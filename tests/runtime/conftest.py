"""Interpreters of their own, which have not imported MXNet yet."""

import json
import os
import subprocess
import sys

import pytest
from pretended import CHOSEN, facts, gpu, linux

__all__ = ["facts", "fake_mxnet", "gpu", "linux", "python"]

SHOW = "\nimport json\nprint(json.dumps(seen))"


@pytest.fixture(scope="session")
def python():
    """Run code in a new interpreter; return what it left in ``seen``, and what it said on stderr.

    To start one that imports MXNet takes seconds: let one answer many questions.
    """

    def run(code, *options, cwd=None, **env):
        result = subprocess.run(
            [sys.executable, *options, "-c", f"seen = {{}}\n{code}{SHOW}"],
            capture_output=True,
            text=True,
            env={k: v for k, v in {**os.environ, **dict.fromkeys(CHOSEN), **env}.items() if v},
            cwd=cwd,
            check=False,
        )
        assert result.stdout, result.stderr
        return json.loads(result.stdout.splitlines()[-1]), result.stderr.strip()

    return run


@pytest.fixture(scope="session")
def fake_mxnet(tmp_path_factory):
    """A folder with a package called mxnet, which needs NumPy as it was and is loaded at once."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "mxnet").mkdir()
    (folder / "mxnet" / "__init__.py").write_text(
        "import numpy, os\nnumpy.PZERO\nthreads = os.environ.get('OMP_NUM_THREADS')\n"
    )
    return str(folder)
