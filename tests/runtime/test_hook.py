"""MXNet is prepared when it is imported, whoever imports it first, and never before."""

import importlib.machinery
import sys
import types

import pytest

from d2lres.runtime import hook
from d2lres.runtime.machine import physical_cores

NO_HOOK = "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'd2lres' not in str(f)]\n"


def test_a_process_without_mxnet_pays_nothing(python):
    """What the lines of tools/ cost is in the tests of the package."""
    seen, err = python(
        "import sys\n"
        "seen['modules'] = [m for m in sys.modules if m.startswith(('d2lres', 'mxnet', 'numpy'))]\n"
        "seen['finders'] = [f.__module__ for f in sys.meta_path].count('_d2lres_hook')"
    )
    assert (seen, err) == ({"modules": [], "finders": 1}, "")


ORDERS = {
    "mxnet first": "import mxnet, d2lres",
    "d2lres first": "import d2lres, mxnet",
    "without the file in site-packages": f"{NO_HOOK}import d2lres, mxnet",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_order_of_imports_does_not_matter(python, fake_mxnet, order):
    seen, err = python(
        f"{order}\nimport sys\nseen['threads'] = mxnet.threads\n"
        "seen['finders'] = sum('d2lres' in str(finder) for finder in sys.meta_path)",
        PYTHONPATH=fake_mxnet,
    )
    assert (seen, err) == ({"threads": str(physical_cores()), "finders": 1}, "")


@pytest.mark.parametrize("no_hook", ["", NO_HOOK])
def test_mxnet_is_prepared_once(python, fake_mxnet, no_hook):
    """By the file in site-packages and ``import d2lres``, or by the latter alone."""
    seen, err = python(
        f"{no_hook}from d2lres.runtime import hook\n"
        "prepare, calls = hook.prepare, []\n"
        "hook.prepare = lambda: (calls.append(1), prepare())\n"
        "import mxnet, os\n"
        "seen['calls'], seen['chosen'] = len(calls), 'OMP_NUM_THREADS' in hook.chosen",
        PYTHONPATH=fake_mxnet,
    )
    assert (seen, err) == ({"calls": 1, "chosen": True}, "")


@pytest.mark.parametrize("no_hook", ["", NO_HOOK])
def test_a_failure_in_the_hook_is_one_line(python, fake_mxnet, no_hook):
    seen, err = python(
        f"{no_hook}from d2lres.runtime import hook\n"
        "def broken(): raise RuntimeError('broken on purpose')\n"
        "hook.prepare = broken\n"
        "import mxnet\nseen['alive'] = True",
        PYTHONPATH=fake_mxnet,
    )
    assert seen["alive"]
    assert err == "d2lres could not prepare MXNet: RuntimeError('broken on purpose')"


def test_threads_are_the_physical_cores_unless_told_otherwise(python, fake_mxnet):
    show = "import mxnet\nseen['threads'] = mxnet.threads"
    seen, _ = python(show, PYTHONPATH=fake_mxnet, OMP_NUM_THREADS="7")
    assert seen == {"threads": "7"}


MXNET_FIRST = f"""{NO_HOOK}
import importlib.machinery, os
from d2lres.runtime import hook, machine
sys.meta_path.insert(0, hook._Finder)
import mxnet, ctypes, threading
mxnet.__loader__ = importlib.machinery.SourceFileLoader("mxnet", mxnet.__file__)
seen["before"] = os.environ.pop("OMP_NUM_THREADS")
machine.physical_cores = lambda: 3
hook.register()
def look():
    seen["threads"] = ctypes.CDLL("libgomp.so.1").omp_get_max_threads()
    seen["in Python's own thread"] = threading.get_native_id() == os.getpid()
hook.in_the_engine(look)
seen["after"] = os.environ["OMP_NUM_THREADS"]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_where_mxnet_came_first_the_threads_are_still_set(python):
    seen, err = python(MXNET_FIRST, DNNL_MAX_CPU_ISA="AVX2")
    cores = str(physical_cores())
    assert seen == {"before": cores, "threads": 3, "in Python's own thread": False, "after": "3"}
    assert not err


def test_what_is_called_mxnet_and_is_none_is_no_trouble(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mxnet", sys)
    monkeypatch.delenv("OMP_NUM_THREADS")
    hook.register()
    err = capsys.readouterr().err
    assert err.startswith("d2lres could not prepare MXNet: AttributeError") and err.count("\n") == 1


def test_old_string_escapes_are_not_remarked_on(tmp_path, recwarn):
    path = tmp_path / "old.py"
    path.write_text('pattern = "\\d"\n')
    loader = hook.Loader("old", str(path))
    module = types.ModuleType("old")
    module.__spec__ = importlib.machinery.ModuleSpec("old", loader, origin=str(path))
    loader.exec_module(module)
    assert module.pattern == "\\d" and not recwarn.list
