"""Interpreters of their own, which have not imported MXNet yet, and a pretended machine."""

import json
import os
import subprocess
import sys

import pytest

CHOSEN = ("OMP_NUM_THREADS", "DNNL_MAX_CPU_ISA")  # as they are once MXNet is imported
SHOW = "\nimport json\nprint(json.dumps(seen))"


@pytest.fixture(scope="session")
def python():
    """Run code in a new interpreter; return what it left in ``seen``, and what it said on stderr.

    To start one that imports MXNet takes seconds: let one answer many questions.
    """

    def run(code, *options, **env):
        result = subprocess.run(
            [sys.executable, *options, "-c", f"seen = {{}}\n{code}{SHOW}"],
            capture_output=True,
            text=True,
            env={k: v for k, v in {**os.environ, **dict.fromkeys(CHOSEN), **env}.items() if v},
            check=False,
        )
        assert result.stdout, result.stderr
        return json.loads(result.stdout.splitlines()[-1]), result.stderr.strip()

    return run
