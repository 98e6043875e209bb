"""What happens when MXNet is imported: it is prepared for, and sees Python and NumPy as they were.

MXNet 1.9.1 was made for Python 3.8 and NumPy 1.21. Here it runs on Python 3.10 to 3.13 and NumPy
1.23 to 2.x: its modules, and no others, are executed with an import statement of their own
(``old_names``). Nothing happens before MXNet is really imported: to look for it is not to load it.
"""

import gc
import importlib.machinery
import os
import sys
import warnings

from . import namesakes

__all__ = ["Loader", "catch_up", "find_spec", "prepare", "register"]

MOST_THREADS = 1024  # more than a machine has cores; a system refuses to make very many
chosen = set()  # the environment variables that were set here, and not by the user
# How often OpenMP's threads look whether there is work before they sleep. By default 300,000 times:
# beside another notebook that trains, they take the processor from those that they wait for.
SPINS = 10_000


def find_spec(name, path=None, target=None):
    """Find a module of MXNet as Python does, to be executed by ``Loader``."""
    if name not in ("mxnet", "d2l.mxnet") and not name.startswith("mxnet."):
        return None
    spec = importlib.machinery.PathFinder.find_spec(name, path, target)
    if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        spec.loader = Loader(spec.loader.name, spec.loader.path)
    elif name == "mxnet" and _is_import():  # there is none, or a folder that holds no modules
        _say_obstacles()
    return spec


def _is_import():
    """Whether a module is looked for to be imported, and not by ``importlib.util.find_spec``."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in ("find_spec", "_find_spec"):
        frame = frame.f_back
    return frame.f_code.co_name == "_find_and_load_unlocked"


def register() -> None:
    """Wait for ``import mxnet``; where it has come first, set what can still be set.

    The line in ``d2lres.pth`` does so whenever Python starts: this is for where that is missing.
    """
    if "mxnet" in sys.modules:
        if not isinstance(sys.modules["mxnet"].__loader__, Loader):
            _or_one_line(catch_up)
    elif not {getattr(f, "__module__", None) for f in sys.meta_path} & {__name__, "_d2lres_hook"}:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    find_spec = staticmethod(find_spec)


class Loader(importlib.machinery.SourceFileLoader):
    """Executes a module of MXNet with builtins of its own."""

    def source_to_code(self, data, path, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old string escapes, which newer Pythons remark on
            return super().source_to_code(data, path, **kwargs)

    def exec_module(self, module):
        if module.__name__ != "mxnet":
            return self._execute(module)
        if module.__spec__.submodule_search_locations is None:
            raise namesakes.in_the_place_of("mxnet", self.path)
        _or_one_line(prepare)
        try:
            self._execute(module)
        except Exception as error:
            namesakes.explain(error)
            raise

    def _execute(self, module):
        from . import old_names, threads

        module.__builtins__ = old_names.builtins_for(module.__name__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().exec_module(module)
        old_names.complete(module)
        threads.complete(module)


def _or_one_line(function):
    """Call a function that may fail but must not be in the way of Python itself."""
    try:
        function()
    except Exception as error:
        _say(f"d2lres could not prepare MXNet: {namesakes.of_error(error) or repr(error)}")


def _say(line):
    try:
        sys.stderr.write(f"{line}\n")
    except Exception:  # a service has none, or a closed one; nobody is there to read
        pass


def prepare() -> None:
    """Get everything ready, just before MXNet's first module is executed.

    What stands in its way is said in one sentence on stderr, before the import goes on and fails
    in its own words.
    """
    from . import machine

    _choose_threads()
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        _choose("GOMP_SPINCOUNT", SPINS)
    if "MXNET_CPU_TEMP_COPY" not in os.environ:
        _choose("MXNET_CPU_TEMP_COPY", 1)  # room for operators to work in: one computes at a time
    if machine.amx() == "used" and not os.environ.get("DNNL_MAX_CPU_ISA"):
        _choose("DNNL_MAX_CPU_ISA", machine.WITH_AMX)
    _load_cuda_libraries()
    _say_obstacles()


def _say_obstacles():
    from . import machine

    for obstacle in machine.in_the_way():
        _say(f"d2lres: {obstacle}")


def catch_up() -> None:
    """Set what can still be set where MXNet was imported first, and no hook stood ready.

    What is too late is said in one sentence on stderr.
    """
    from . import engine, machine, threads

    cores, mxnet = _choose_threads(), sys.modules["mxnet"]
    if cores and not any(isinstance(thing, mxnet.nd.NDArray) for thing in gc.get_objects()):
        engine.call(lambda: mxnet.base._LIB.MXSetNumOMPThreads(cores))
    elif cores:  # what oneDNN made for fewer threads than there are later would end Python
        _say(
            "d2lres: mxnet has computed before d2lres was imported, and keeps to its own number of "
            "threads: import d2lres first, or install it with its hook (`make lab`)."
        )
    for name in threads.MODULES:
        threads.complete(sys.modules[f"mxnet.{name}"])
    if machine.amx() == machine.TOO_LATE:
        _say(f"d2lres: {machine.advice_on_amx()}")


def _choose_threads():
    """Let MXNet take a thread for each physical core, unless the user says how many; return those.

    MXNet reads no more than one whole number, and ends Python at anything else. OpenMP takes a list
    of them as well, for threads of threads: its first is for us.
    """
    from . import machine

    given = os.environ.get("OMP_NUM_THREADS", "")
    first, cores = given.split(",")[0].strip(), machine.physical_cores()
    if first.isdecimal() and 1 <= int(first) <= MOST_THREADS:
        os.environ["OMP_NUM_THREADS"] = str(int(first))
        return None
    if given.strip():
        _say(
            f"d2lres: OMP_NUM_THREADS is {given!r}, not a whole number from 1 to {MOST_THREADS}: "
            f"MXNet takes {cores}, one thread for each physical core."
        )
    _choose("OMP_NUM_THREADS", cores)
    return cores


def _choose(variable, value):
    os.environ[variable] = str(value)
    chosen.add(variable)


def _load_cuda_libraries():
    """Load the CUDA 11 libraries that came as wheels, so that libmxnet.so finds them loaded."""
    import importlib.util
    from pathlib import Path

    from . import obstacles

    if "mxnet-cu112" not in obstacles.installed():
        return
    nvidia = importlib.util.find_spec("nvidia")
    folders = nvidia.submodule_search_locations if nvidia else []
    paths = [p for f in folders for p in sorted(Path(f).glob("*/lib/lib*.so.*"))]
    while paths:  # they need each other: load what can be, until nothing more can
        rest = [path for path in paths if not obstacles.loads(path)]
        if len(rest) == len(paths):
            break
        paths = rest
