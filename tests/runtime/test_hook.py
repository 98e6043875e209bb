"""MXNet is prepared when it is imported, whoever imports it first, and never before."""

import importlib.machinery
import os
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


WAYS = {
    "mxnet first": ("import mxnet, d2lres",),
    "d2lres first": ("import d2lres, mxnet",),
    "without the file in site-packages": (f"{NO_HOOK}import d2lres, mxnet",),
    "isolated": ("import mxnet", "-I"),
    "without site-packages": (
        f"import sys; sys.path += {[p for p in sys.path if p]}; import d2lres, mxnet", "-S", "-I"),
    "no stderr": ("import sys; sys.stderr = None; import mxnet",),
    "closed stderr": ("import sys; sys.stderr.close(); import mxnet",),
    "odd stderr": ("import sys; sys.stderr = object(); import mxnet",),
    "in a thread": ("import threading, importlib as i\n"
        "t = threading.Thread(target=i.import_module, args=('mxnet',)); t.start(); t.join()\n"
        "import mxnet",),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_mxnet_is_prepared_whatever_way_it_is_imported(python, fake_mxnet, way):
    code, *options = way
    seen, err = python(
        f"import sys; sys.path.insert(0, {fake_mxnet!r})\n{code}\nseen['threads'] = mxnet.threads\n"
        "seen['finders'] = sum('d2lres' in str(finder) for finder in sys.meta_path)",
        *options,
    )
    assert (seen, err) == ({"threads": str(physical_cores()), "finders": 1}, "")


def test_mxnet_is_prepared_in_processes_of_every_kind(python, fake_mxnet):
    """They end with 1 if the code they are given does not go well."""
    seen, err = python(
        f"code = 'import mxnet; assert int(mxnet.threads) == {physical_cores()}'\n"
        "import multiprocessing\n"
        "for method in multiprocessing.get_all_start_methods():\n"
        "    process = multiprocessing.get_context(method).Process(target=exec, args=(code,))\n"
        "    process.start(); process.join()\n"
        "    seen[method] = process.exitcode",
        PYTHONPATH=fake_mxnet,
    )
    assert not err and seen == dict.fromkeys(seen, 0) and "spawn" in seen


PROBES = """
import importlib.metadata, importlib.util, os, pkgutil, sys
before, environ, filters = set(sys.modules), dict(os.environ), list(sys.meta_path)
spec = importlib.util.find_spec("mxnet")
assert importlib.util.find_spec("mxnet").origin == spec.origin
assert pkgutil.find_loader("mxnet") if sys.version_info < (3, 14) else True
assert "mxnet" in [module.name for module in pkgutil.iter_modules()]
assert importlib.metadata.version("mxnet")
seen["unchanged"] = environ == dict(os.environ) and filters == sys.meta_path
seen["loaded"] = [m for m in ("mxnet", "numpy", "d2lres.runtime.machine") if m in sys.modules]
sys.path.remove(os.environ["PYTHONPATH"])
sys.path[:] = [p for p in sys.path if "-packages" not in p]
sys.path_importer_cache.clear()
seen["there"] = importlib.util.find_spec("mxnet") is not None
"""


def test_to_look_for_mxnet_is_not_to_import_it(python, fake_mxnet):
    """Nor is anything said where it is not installed."""
    seen, err = python(PROBES, "-W", "ignore", PYTHONPATH=fake_mxnet)
    assert (seen, err) == ({"unchanged": True, "loaded": [], "there": False}, "")


MISSING = """
import sys
from d2lres.runtime import hook, machine, obstacles  # found as yet
obstacles.installed = dict
sys.path[:] = [p for p in sys.path if "-packages" not in p]
sys.path_importer_cache.clear()
try: import mxnet
except ImportError as error: seen["error"] = str(error)
"""


def test_where_there_is_no_mxnet_the_cure_is_said(python):
    seen, err = python(MISSING)
    assert seen == {"error": "No module named 'mxnet'"}
    assert err.startswith("d2lres: MXNet is not installed: run `make lab`") and "\n" not in err


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


NONE = dict.fromkeys(("abc", "0", "-1", "2.5", "four", "99999999999", "1025", ",2"), "said")
THREADS = {"7": "7", " 3 ": "3", "4,2": "4", "2,": "2", "1024": "1024", None: None, "": None}


@pytest.mark.parametrize(("asked", "threads"), (THREADS | NONE).items())
def test_threads_are_the_physical_cores_unless_told_otherwise(
    linux, monkeypatch, capsys, asked, threads
):
    """MXNet ends Python if it is told in another way than by one whole number."""
    linux(cores=[0, 1, 2])
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    hook.prepare()
    if threads == "said":
        words = f"OMP_NUM_THREADS is {asked!r}, not a whole number from 1 to 1024: MXNet takes 3"
        assert words in capsys.readouterr().err
    assert capsys.readouterr().err == ""
    assert os.environ["OMP_NUM_THREADS"] == (threads if threads and threads != "said" else "3")
    assert ("OMP_NUM_THREADS" in hook.chosen) == (threads in (None, "said"))


@pytest.mark.parametrize(
    ("variable", "value", "spins"),
    [
        ("UNRELATED", "1", "10000"),
        ("GOMP_SPINCOUNT", "5", "5"),
        ("OMP_WAIT_POLICY", "active", None),
    ],
)
def test_threads_do_not_spin_for_long_unless_told_otherwise(
    linux, monkeypatch, variable, value, spins
):
    linux()
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv(variable, value)
    hook.prepare()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert ("GOMP_SPINCOUNT" in hook.chosen) == (variable == "UNRELATED")


@pytest.mark.parametrize(("asked", "copies"), [(None, "1"), ("4", "4")])
def test_operators_have_one_room_to_work_in_unless_told_otherwise(
    linux, monkeypatch, asked, copies
):
    linux()
    if asked:
        monkeypatch.setenv("MXNET_CPU_TEMP_COPY", asked)
    hook.prepare()
    assert os.environ["MXNET_CPU_TEMP_COPY"] == copies
    assert ("MXNET_CPU_TEMP_COPY" in hook.chosen) == (not asked)


MXNET_FIRST = f"""{NO_HOOK}
import importlib.machinery, os
from d2lres.runtime import engine, hook, machine
sys.meta_path.insert(0, hook._Finder)
import mxnet, ctypes, threading
mxnet.__loader__ = importlib.machinery.SourceFileLoader("mxnet", mxnet.__file__)
seen["before"] = os.environ.pop("OMP_NUM_THREADS")
machine.physical_cores = lambda: 3
hook.register()
def look():
    seen["threads"] = ctypes.CDLL("libgomp.so.1").omp_get_max_threads()
    seen["in Python's own thread"] = threading.get_native_id() == os.getpid()
engine.call(look)
seen["after"] = os.environ.pop("OMP_NUM_THREADS")
machine.physical_cores = lambda: 5
array = mxnet.nd.ones(1)  # it has computed
hook.catch_up()
engine.call(lambda: seen.update(then=ctypes.CDLL("libgomp.so.1").omp_get_max_threads()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_where_mxnet_came_first_the_threads_are_still_set_unless_it_has_computed(python):
    seen, err = python(MXNET_FIRST, DNNL_MAX_CPU_ISA="AVX2")
    cores = str(physical_cores())
    then = seen.pop("then")
    assert seen == {"before": cores, "threads": 3, "in Python's own thread": False, "after": "3"}
    assert then == 3 and err.count("\n") == 0
    assert err.startswith("d2lres: mxnet has computed before d2lres was imported, and keeps to")


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
