"""What has to be right before MXNet loads, and which device it runs on.

MXNet 1.9.1 was made for Python 3.8 and NumPy 1.21. ``prepare`` lets it run on Python 3.10 to 3.13
and NumPy 1.23 to 2.x: modules of MXNet, and nothing else, import NumPy through a window that
still shows the names which are gone from it.
"""

import ctypes
import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import types
import warnings
from pathlib import Path

__all__ = ["doctor", "machine", "prepare", "try_gpu"]


def prepare() -> None:
    """Get everything ready for ``import mxnet``; called once, by the import hook.

    What stands in the way of MXNet is said in one sentence on stderr, before the import goes on
    and fails in its own words.
    """
    sys.meta_path.insert(0, _MXNetFinder)
    os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    _load_cuda_libraries()
    for obstacle in obstacles():
        print(f"d2lres: {obstacle}", file=sys.stderr)


# --- MXNet's modules on today's Python and NumPy


class _MXNetFinder:
    """Finds MXNet's modules as Python does, but has them executed by ``_MXNetLoader``."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "mxnet" and not name.startswith("mxnet."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _MXNetLoader(spec.loader.name, spec.loader.path)
        return spec


class _MXNetLoader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old string escapes, which newer Pythons remark on
            return super().source_to_code(data, path, **kwargs)

    def exec_module(self, module):
        # a module may bring its own builtins: MXNet's see another import statement
        module.__builtins__ = dict(vars(__import__("builtins")), __import__=_import_for_mxnet)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().exec_module(module)


def _import_for_mxnet(name, globals=None, locals=None, fromlist=(), level=0):
    if name == "numpy" and not fromlist:
        return _numpy_window()
    if name == "distutils.version":
        return _distutils_version()
    return __import__(name, globals, locals, fromlist, level)


@functools.cache
def _numpy_window() -> types.ModuleType:
    """Return a module with all of NumPy's names, and those that MXNet misses."""
    import numpy

    try:
        from numpy.lib.array_utils import normalize_axis_tuple
    except ImportError:  # before NumPy 2
        from numpy.core.numeric import normalize_axis_tuple

    window = types.ModuleType("numpy", numpy.__doc__)
    renamed = {
        "alltrue": "all",
        "cumproduct": "cumprod",
        "float_": "float64",
        "in1d": "isin",
        "product": "prod",
        "round_": "round",
        "row_stack": "vstack",
        "sometrue": "any",
        "trapz": "trapezoid",
    }
    constants = {
        "Inf": numpy.inf,
        "NAN": numpy.nan,
        "NINF": -numpy.inf,
        "NZERO": -0.0,
        "NaN": numpy.nan,
        "PINF": numpy.inf,
        "PZERO": 0.0,
    }
    window.msort = lambda a: numpy.sort(a, axis=0)
    for name in ("mirr", "npv", "pmt", "ppmt", "pv", "rate"):
        setattr(window, name, _moved_to_numpy_financial(name))
    vars(window).update(constants)
    vars(window).update({old: getattr(numpy, new, None) for old, new in renamed.items()})
    vars(window).update(vars(numpy))  # what NumPy still has wins, with one exception
    window.bool, window.int = bool, int
    window.compat = types.SimpleNamespace(basestring=str)
    window.core = types.SimpleNamespace(
        numeric=types.SimpleNamespace(normalize_axis_tuple=normalize_axis_tuple)
    )
    return window


def _moved_to_numpy_financial(name):
    def moved(*args, **kwargs):
        raise NotImplementedError(f"numpy.{name} is gone: use numpy_financial.{name}")

    moved.__name__ = name
    return moved


@functools.cache
def _distutils_version() -> types.ModuleType:
    """Return what is left to need of a module that Python 3.12 dropped."""
    from packaging.version import Version

    module = types.ModuleType("distutils.version")
    module.LooseVersion = module.StrictVersion = Version
    return module


# --- what MXNet needs of the machine


def physical_cores() -> int:
    """Return how many physical cores this process may use.

    MXNet's convolutions fill a core with one thread; a second one on the same core slows both.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS
        import psutil

        return psutil.cpu_count(logical=False) or 1
    cores = {_core_of(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cgroup_cpus()))


def _core_of(cpu):
    """Return the identity of the core that a logical processor belongs to."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return tuple((topology / f).read_text() for f in ("physical_package_id", "core_id"))
    except OSError:
        return cpu


def _cgroup_cpus():
    """Return the processors' worth of time a container may use, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup, or the quota is "max"
        return sys.maxsize


def _load_cuda_libraries():
    """Load the CUDA 11 libraries that came as wheels, so that libmxnet.so finds them loaded."""
    if "mxnet-cu112" not in _installed():
        return
    nvidia = importlib.util.find_spec("nvidia")
    folders = nvidia.submodule_search_locations if nvidia else []
    paths = [p for f in folders for p in sorted(Path(f).glob("*/lib/lib*.so.*"))]
    while paths:  # they need each other: load what can be, until nothing more can
        rest = [path for path in paths if not _loads(path)]
        if len(rest) == len(paths):
            break
        paths = rest


def _loads(library):
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _installed() -> dict[str, str]:
    """Return name and version of the MXNet packages that are installed."""
    found = {}
    for name in ("mxnet", "mxnet-cu112"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def obstacles() -> list[str]:
    """Say what keeps MXNet from working here: a sentence with the cure for each obstacle."""
    installed = _installed()
    found = []
    if not (3, 10) <= sys.version_info < (3, 14):
        found.append(
            f"MXNet 1.9.1 runs on Python 3.10 to 3.13, and this is Python "
            f"{platform.python_version()}: install one of those and run `make clean lab`."
        )
    if not installed:
        found.append(_how_to_get_mxnet())
    if len(installed) > 1:
        found.append(
            "mxnet and mxnet-cu112 are both installed and overwrite each other's files: "
            "run `make clean`, then `make lab`."
        )
    if installed and sys.platform == "linux":
        names = ["libgomp.so.1"] + ["libquadmath.so.0"] * (platform.machine() == "x86_64")
        for name in names:
            library, number = name.split(".so.")
            if not _loads(name):
                found.append(
                    f"MXNet needs the system library {library}, which is not installed: run `sudo "
                    f"apt-get install {library}{number}` (Fedora: `sudo dnf install {library}`)."
                )
        if "mxnet-cu112" in installed and not _loads("libcuda.so.1"):
            found.append(
                "mxnet-cu112 needs NVIDIA's driver (libcuda.so.1), which is not installed: "
                "install the driver, or use the CPU with `make clean`, then `make lab EXTRA=cpu`."
            )
    return found


def _how_to_get_mxnet():
    system, processor = platform.system(), platform.machine()
    if system == "Windows":
        return "there is no MXNet for today's Windows: work in WSL 2 (`wsl --install`)."
    if system == "Darwin" and processor == "arm64":
        return (
            "there is no MXNet for Apple silicon: work in a Linux container "
            "(`docker run --platform linux/amd64`)."
        )
    return "MXNet is not installed: run `make lab`, or `pip install --no-deps mxnet==1.9.1`."


# --- devices


def try_gpu(i: int = 0):
    """Return GPU number ``i`` if MXNet can really compute on it, else the CPU.

    Where there is a GPU that cannot be used, one line says why.

    Parameters
    ----------
    i : int, default 0

    Returns
    -------
    mxnet.Context
        ``mx.gpu(i)`` or ``mx.cpu()``.

    References
    ----------
    Dive into Deep Learning, section 6.7.
    """
    import mxnet as mx

    try:
        if i < mx.context.num_gpus():
            _compute_on(mx.gpu(i))
            return mx.gpu(i)
        reason = None
    except mx.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
    gpus = _nvidia_gpus()
    if i < len(gpus):
        print(f"{gpus[i][0]} cannot be used: {_why_not(gpus[i][1], reason)} Using the CPU.")
    return mx.cpu()


def _compute_on(device):
    """Run a convolution and wait for its result: it needs the driver, a kernel and cuDNN."""
    import mxnet as mx

    X = mx.nd.ones((1, 1, 3, 3), ctx=device)
    w, b = mx.nd.ones((1, 1, 3, 3), ctx=device), mx.nd.zeros((1,), ctx=device)
    mx.nd.Convolution(X, w, b, kernel=(3, 3), num_filter=1).asnumpy()


def _nvidia_gpus() -> list[tuple[str, float]]:
    """Return name and compute capability of each GPU that NVIDIA's driver knows."""
    try:
        lines = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout.splitlines()
        return [(name, float(cap)) for name, cap in (line.split(", ") for line in lines)]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _why_not(compute_capability, reason):
    """Say why MXNet cannot use a GPU that is there."""
    if "mxnet-cu112" not in _installed():
        return "MXNet is installed for the CPU (`make clean`, then `make lab EXTRA=gpu`)."
    if compute_capability >= 9:
        return (
            f"its compute capability {compute_capability} is newer than the code in mxnet-cu112, "
            "which ends with 8.9."
        )
    if reason is None:
        return "MXNet does not see it: check that the driver works with `nvidia-smi`."
    return f"MXNet said: {reason}."


# --- what was found


def machine() -> dict[str, str | int]:
    """Return the versions and the machine, for the record of a run."""
    return {
        "d2lres": importlib.import_module("d2lres").__version__,
        "mxnet": ", ".join(f"{name} {version}" for name, version in _installed().items()),
        "numpy": importlib.metadata.version("numpy"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "physical_cores": physical_cores(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def cache_folder() -> Path:
    """Return the folder of this user for what can be had again: data and measurements."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("d2lres"))


@functools.cache
def _cpu_name():
    import cpuinfo

    return cpuinfo.get_cpu_info().get("brand_raw", "unknown")


def doctor() -> bool:
    """Print what was found and chosen, and what to do where something is amiss.

    Returns
    -------
    bool
        Whether MXNet works.
    """
    found, device = obstacles(), "none that works"
    if not found:
        try:
            device = try_gpu()
            _compute_on(device)
        except Exception as error:
            found = [f"MXNet does not work: {error}"]
    for key, value in (machine() | {"device": device}).items():
        print(f"{key:15}{value or 'not found'}")
    for obstacle in found:
        print(f"amiss: {obstacle}")
    if not found:
        print("all is well")
    return not found
