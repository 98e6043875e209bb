import importlib.machinery
import os
import subprocess
import sys
import types
from pathlib import Path

import mxnet as mx
import pytest

from d2lres import runtime, try_gpu


def python(code, **env):
    """Run code in a new interpreter; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}, **env},
        check=False,
    )
    return result.stdout.strip(), result.stderr.strip()


# --- the import hook


def test_the_order_of_imports_does_not_matter():
    state = """
import sys, os, numpy
from mxnet import np, npx
npx.set_np()
x = np.arange(6).reshape(2, 3)
print(d2lres.Residual, mxnet.__version__, x[x > 2], x.mean(), os.environ["OMP_NUM_THREADS"],
      [getattr(f, "__name__", type(f)) for f in sys.meta_path], sorted(vars(numpy)))
"""
    results = {
        python("import mxnet; import d2lres" + state),
        python("import d2lres; import mxnet" + state),
    }
    ((out, err),) = results
    assert "1.9.1" in out and not err


def test_numpy_stays_as_it_was_for_everyone_else():
    out, err = python(
        "import numpy, warnings, sys, packaging.version\n"
        "try: import scipy.sparse  # which MXNet imports, and which imports much of NumPy\n"
        "except ImportError: pass\n"
        "import numpy.linalg, numpy.fft, numpy.random, numpy.testing, numpy.ma, numpy.polynomial\n"
        "def state():\n"
        "    seen = 'distutils' in sys.modules\n"
        "    return dir(numpy), dict(vars(numpy)), list(warnings.filters), seen\n"
        "before = state()\n"
        "import mxnet\n"
        "print(before == state(), hasattr(numpy, 'PZERO') == numpy.__version__.startswith('1.'))"
    )
    assert (out, err) == ("True True", "")


def test_a_process_without_mxnet_pays_nothing():
    out, _ = python(
        "import sys\n"
        "print(sorted(m for m in sys.modules if m.startswith(('d2lres', 'mxnet', 'numpy'))))"
    )
    assert out == "['d2lres', 'd2lres._hook']"


def test_a_failure_in_the_hook_is_one_line():
    out, err = python(
        "import d2lres.runtime as r\n"
        "def broken(): raise RuntimeError('broken on purpose')\n"
        "r.prepare = broken\n"
        "try:\n    import mxnet\nexcept Exception: pass\n"
        "print('alive')"
    )
    assert out == "alive"
    assert err == "d2lres could not prepare MXNet: RuntimeError('broken on purpose')"


def test_the_pth_line_survives_a_missing_package(tmp_path):
    line = Path(__file__).parents[1].joinpath("tools/d2lres.pth").read_text()
    assert len(line.strip().splitlines()) == 1 and line.startswith("import ")
    broken = tmp_path / "d2lres"
    broken.mkdir()
    broken.joinpath("__init__.py").write_text("raise ValueError('half an installation')")
    forget = "import sys\nfor m in ('d2lres', 'd2lres._hook'): sys.modules.pop(m, None)\n"
    out, err = python(forget + line + "\nprint('alive')", PYTHONPATH=str(tmp_path))
    assert out == "alive"
    assert err.splitlines()[-1].startswith("d2lres: the hook for mxnet is not set: ValueError")


def test_old_names_are_seen_through_the_window_only():
    window = runtime._numpy_window()
    assert window.bool is bool and window.PZERO == 0 and window.NINF == -float("inf")
    assert window.product([2, 3]) == 6 and window.msort([[2], [1]]).tolist() == [[1], [2]]
    assert window.compat.basestring is str
    assert window.core.numeric.normalize_axis_tuple(-1, 2) == (1,)
    if not hasattr(window, "npv") or window.npv.__name__ == "npv":
        with pytest.raises((NotImplementedError, RuntimeError)):
            window.npv()


def test_versions_compare():
    Version = runtime._distutils_version().LooseVersion
    assert Version("2.10.1") > Version("2.9") > Version("1.17")


def test_old_string_escapes_are_not_remarked_on(tmp_path, recwarn):
    path = tmp_path / "old.py"
    path.write_text('pattern = "\\d"\n')
    loader = runtime._MXNetLoader("old", str(path))
    module = types.ModuleType("old")
    module.__spec__ = importlib.machinery.ModuleSpec("old", loader, origin=str(path))
    loader.exec_module(module)
    assert module.pattern == "\\d" and not recwarn.list


@pytest.mark.parametrize("lines", ["x = onp.array([1.5, 2.5])", "x = np.zeros(3)[np.array([1])]"])
def test_mxnet_works_under_its_own_tests_idioms(lines):
    out, err = python(
        "import numpy as onp\nfrom mxnet import np, npx\nnpx.set_np()\n" + lines + "\nprint(len(x))"
    )
    assert out in "12" and not err


# --- what MXNet needs of the machine


def test_threads_are_the_physical_cores_unless_told_otherwise():
    show = "import mxnet, os; print(os.environ['OMP_NUM_THREADS'])"
    assert python(show)[0] == str(runtime.physical_cores())
    assert python(show, OMP_NUM_THREADS="7")[0] == "7"


def test_physical_cores_counts_what_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(runtime, "_cgroup_cpus", lambda: 99)
    monkeypatch.setattr(runtime, "_core_of", lambda cpu: cpu // 2)  # two hyper-threads a core
    assert runtime.physical_cores() == 2
    monkeypatch.setattr(runtime, "_cgroup_cpus", lambda: 1)
    assert runtime.physical_cores() == 1


@pytest.fixture
def facts(monkeypatch):
    """Pretend things about the machine."""

    def pretend(installed, missing=(), system="Linux", processor="x86_64", gpus=()):
        monkeypatch.setattr(runtime, "_installed", lambda: {name: "1.9.1" for name in installed})
        monkeypatch.setattr(runtime, "_loads", lambda library: library not in missing)
        monkeypatch.setattr(runtime.platform, "system", lambda: system)
        monkeypatch.setattr(runtime.platform, "machine", lambda: processor)
        monkeypatch.setattr(runtime.sys, "platform", system.lower())
        monkeypatch.setattr(runtime, "_nvidia_gpus", lambda: list(gpus))

    return pretend


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (dict(installed=["mxnet"], missing=["libgomp.so.1"]), "apt-get install libgomp1"),
        (dict(installed=["mxnet"], missing=["libquadmath.so.0"]), "apt-get install libquadmath0"),
        (dict(installed=["mxnet", "mxnet-cu112"]), "both installed.*make clean"),
        (dict(installed=["mxnet-cu112"], missing=["libcuda.so.1"]), "driver.*EXTRA=cpu"),
        (dict(installed=[]), "not installed: run `make lab`"),
        (dict(installed=[], system="Windows"), "WSL 2"),
        (dict(installed=[], system="Darwin", processor="arm64"), "Linux container"),
    ],
)
def test_each_obstacle_is_one_sentence(facts, case, words):
    import re

    facts(**case)
    (sentence,) = runtime.obstacles()
    assert re.search(words, sentence) and "\n" not in sentence


def test_an_old_python_is_named(facts, monkeypatch):
    facts(installed=["mxnet"])
    monkeypatch.setattr(runtime.sys, "version_info", (3, 14, 0))
    assert "Python 3.10 to 3.13" in runtime.obstacles()[0]


def test_nothing_is_amiss_here():
    assert runtime.obstacles() == []


# --- devices


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that MXNet counts one GPU, which computes or fails."""

    def pretend(num_gpus=1, error=None):
        def compute(device):
            if error:
                raise mx.MXNetError(error)

        monkeypatch.setattr(mx.context, "num_gpus", lambda: num_gpus)
        monkeypatch.setattr(runtime, "_compute_on", compute)

    return pretend


def test_a_gpu_that_computes_is_taken(gpu, capsys):
    gpu()
    assert try_gpu() == mx.gpu(0)
    assert try_gpu(1) == mx.cpu()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("installed", "capability", "num_gpus", "error", "words"),
    [
        (["mxnet"], 8.6, 0, None, "installed for the CPU"),
        (["mxnet-cu112"], 9.0, 1, "no kernel image is available", "9.0 is newer than the code"),
        (["mxnet-cu112"], 8.6, 0, None, "check that the driver works"),
        (["mxnet-cu112"], 8.6, 1, "x\nCUDNN_STATUS_NOT_INITIALIZED", "MXNet said: CUDNN_STATUS"),
    ],
)
def test_a_gpu_that_does_not_says_why(
    facts, gpu, capsys, installed, capability, num_gpus, error, words
):
    facts(installed, gpus=[("NVIDIA Test", capability)])
    gpu(num_gpus, error)
    assert try_gpu() == mx.cpu()
    out = capsys.readouterr().out
    assert out.startswith("NVIDIA Test cannot be used: ") and words in out
    assert out.count("\n") == 1 and out.endswith("Using the CPU.\n")


def test_no_gpu_no_words(facts, gpu, capsys):
    facts(["mxnet"])
    gpu(0)
    assert try_gpu() == mx.cpu() and capsys.readouterr().out == ""


def test_nvidia_smi_is_read(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 9.0'\necho 'NVIDIA A10, 8.6'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert runtime._nvidia_gpus() == [("NVIDIA H100", 9.0), ("NVIDIA A10", 8.6)]
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert runtime._nvidia_gpus() == []


# --- doctor


def test_doctor_says_what_was_found(capsys):
    assert runtime.doctor()
    out = capsys.readouterr().out
    assert "1.9.1" in out and "device" in out and out.endswith("all is well\n")


def test_doctor_says_what_is_amiss(facts, capsys):
    facts(["mxnet"], missing=["libgomp.so.1"])
    assert not runtime.doctor()
    assert "amiss: MXNet needs the system library libgomp" in capsys.readouterr().out
