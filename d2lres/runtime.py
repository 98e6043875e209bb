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
import itertools
import os
import platform
import subprocess
import sys
import types
import warnings
from pathlib import Path

__all__ = ["amx", "cpu_features", "doctor", "has_bfloat16", "machine", "prepare", "try_gpu"]

_PROC, _SYS = Path("/proc"), Path("/sys")
_AMX = "AVX512_CORE_AMX"  # what oneDNN may use at most: all it knows, AMX included
_REFUSED, _TOO_LATE = "refused by the kernel", "not used, as mxnet was imported before d2lres"
_chosen = set()  # the environment variables that were set here, and not by the user


def prepare() -> None:
    """Get everything ready for ``import mxnet``; called once, by the import hook.

    What stands in the way of MXNet is said in one sentence on stderr, before the import goes on
    and fails in its own words.
    """
    sys.meta_path.insert(0, _MXNetFinder)
    _choose("OMP_NUM_THREADS", physical_cores())
    if amx() == "used":
        _choose("DNNL_MAX_CPU_ISA", _AMX)
    _load_cuda_libraries()
    for obstacle in obstacles():
        print(f"d2lres: {obstacle}", file=sys.stderr)


def catch_up() -> None:
    """Set what can still be set where MXNet was imported first, and no hook stood ready.

    What is too late is said in one sentence on stderr.
    """
    if _choose("OMP_NUM_THREADS", cores := physical_cores()):
        mxnet = sys.modules["mxnet"]
        _in_the_engine(lambda: mxnet.base._LIB.MXSetNumOMPThreads(cores))
    if amx() == _TOO_LATE:
        print(f"d2lres: {_what_to_do_about_amx()}", file=sys.stderr)


def _choose(variable, value):
    """Set an environment variable, unless the user has; return whether it was set."""
    if variable in os.environ:
        return False
    os.environ[variable] = str(value)
    _chosen.add(variable)
    return True


def _in_the_engine(function):
    """Call a function in the thread of MXNet's engine that runs what is computed on the CPU.

    OpenMP keeps a number of threads for each thread that asks for them: set from Python's own
    thread, it would be without effect.
    """
    import mxnet as mx

    called = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: function())
    cpu = (ctypes.c_int * 2)(1, 0)  # MXNet's struct Context: kind and number of a device
    push = mx.base._LIB.MXEnginePushSync
    mx.base.check_call(push(called, None, None, cpu, None, 0, None, 0, None, 0, b"d2lres"))
    mx.nd.waitall()


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
    if name == "sklearn.base":  # for one deprecated class, with 500 modules
        raise ImportError("MXNet is told that scikit-learn is not installed")
    if name in ("scipy", "scipy.sparse", "scipy.stats"):
        return _scipy_on_demand()
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


class _OnDemand(types.ModuleType):
    """Stands for a module, which is loaded when something of it is used."""

    def __getattr__(self, name):
        return getattr(importlib.import_module(self.__name__), name)


@functools.cache
def _scipy_on_demand() -> types.ModuleType:
    """Return SciPy with the parts that MXNet imports: a third of its time, and hardly ever used."""
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("SciPy is not installed")
    scipy = _OnDemand("scipy")
    scipy.sparse, scipy.stats = _OnDemand("scipy.sparse"), _OnDemand("scipy.stats")
    return scipy


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
    topology = _SYS / f"devices/system/cpu/cpu{cpu}/topology"
    try:
        return tuple((topology / f).read_text() for f in ("physical_package_id", "core_id"))
    except OSError:
        return cpu


def _cgroup_cpus():
    """Return the processors' worth of time a container may use, rounded up.

    It is the least that this process's group and the groups around it are given, in version 1 or
    2 of cgroups. A container often sees its own group in the place of the root.
    """
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    least = sys.maxsize
    for line in ["0::/", "1:cpu:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = _SYS / "fs/cgroup" / ("cpu" if controllers else "")
        for name in ["", *path.strip("/").split("/")]:
            group /= name
            least = min(least, _quota(group))
    return least


def _quota(group):
    """Return the processors' worth of time that one cgroup is given, rounded up."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = map(int, " ".join((group / f).read_text() for f in files).split())
        except (OSError, ValueError):  # the other version, or the quota is "max"
            continue
        if quota > 0:  # version 1 says -1 for no quota
            return -(-quota // period)
    return sys.maxsize


def cpu_features() -> list[str]:
    """Return what the processor has of the features that decide how fast MXNet convolves.

    Returns
    -------
    list of str
        Of ``avx2``, ``avx512`` (the set that oneDNN calls avx512_core), ``avx512_bf16`` and
        ``amx_bf16``, those that are there.
    """
    needed = {
        "avx2": {"avx2"},
        "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
        "avx512_bf16": {"avx512_bf16"},
        "amx_bf16": {"amx_tile", "amx_bf16"},
    }
    about = _cpuinfo()
    flags = set(about.get("flags", "").split() if about else _py_cpuinfo().get("flags", []))
    return [feature for feature, wanted in needed.items() if wanted <= flags]


def has_bfloat16() -> bool:
    """Return whether MXNet's oneDNN (2.4) has bfloat16 convolutions here: with AVX-512 it has."""
    too_low = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_MIC", "AVX512_MIC_4OPS")
    return "avx512" in cpu_features() and os.environ.get("DNNL_MAX_CPU_ISA") not in too_low


def amx() -> str:
    """Return whether MXNet computes bfloat16 in the matrix unit (AMX) of newer Intel processors.

    It is used where it can be. A value of the environment variable ``DNNL_MAX_CPU_ISA`` set by the
    user wins: ``AVX512_CORE_BF16`` computes bfloat16 without AMX, ``AVX512_CORE`` without any
    instructions of its own. (``ALL`` does not mean AMX in oneDNN 2.4.)

    Returns
    -------
    str
        ``"used"``, or in a few words why not.
    """
    asked = os.environ.get("DNNL_MAX_CPU_ISA")
    if sys.platform != "linux" or "amx_bf16" not in cpu_features():
        return "not in this processor"
    if asked not in (None, _AMX):
        return "switched off by DNNL_MAX_CPU_ISA"
    if not _kernel_grants_amx():
        return _REFUSED
    return _TOO_LATE if asked is None and "mxnet" in sys.modules else "used"


def _kernel_grants_amx():
    """Ask Linux for AMX's registers, for this process; without them oneDNN dies of SIGILL."""
    arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = map(ctypes.c_long, (158, 0x1023, 18))
    return ctypes.CDLL(None).syscall(arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0


def _cpuinfo():
    """Return what Linux says of the first processor; nothing on another system."""
    try:
        with open(_PROC / "cpuinfo", encoding="utf-8") as file:
            pairs = (line.partition(":") for line in itertools.takewhile(str.strip, file))
            return {key.strip(): value.strip() for key, _, value in pairs}
    except OSError:
        return {}


@functools.cache
def _py_cpuinfo():
    import cpuinfo  # takes a second

    return cpuinfo.get_cpu_info()


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
    if os.environ.get("DNNL_MAX_CPU_ISA") == _AMX and amx() == _REFUSED:
        found.append(
            f"DNNL_MAX_CPU_ISA={_AMX} asks for AMX, which the kernel refuses, and the first "
            "convolution would end Python: unset it."
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

    Raises
    ------
    ValueError
        If ``i`` is negative.

    References
    ----------
    Dive into Deep Learning, section 6.7.
    """
    if i < 0:
        raise ValueError(f"i is the number of a GPU, 0 for the first, not {i}")
    device, why_not = _device(i)
    if why_not:
        print(why_not, "Using the CPU.")
    return device


def _device(i):
    """Return the GPU or the CPU, and a sentence on a GPU that is there and cannot be used."""
    import mxnet as mx

    try:
        if i < mx.context.num_gpus():
            _compute_on(mx.gpu(i))
            return mx.gpu(i), ""
        reason = None
    except mx.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
    gpus = _nvidia_gpus()
    if i < len(gpus):
        return mx.cpu(), f"{gpus[i][0]} cannot be used: {_why_not(gpus[i][1], reason)}"
    return mx.cpu(), ""


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
        "cpu_features": " ".join(cpu_features()),
        "amx": amx(),
        "physical_cores": physical_cores(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def _cpu_name():
    return _cpuinfo().get("model name") or _py_cpuinfo().get("brand_raw", "unknown")


def cache_folder() -> Path:
    """Return the folder of this user for what can be had again: data and measurements."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("d2lres"))


def doctor() -> bool:
    """Print what was found and chosen, and what to do where something is amiss.

    Returns
    -------
    bool
        Whether MXNet works.
    """
    amiss, gpu = obstacles(), "not tried"
    if not amiss:
        try:
            device, why_not = _device(0)
            _compute_on(device)
            gpu = why_not or ("none" if device.device_type == "cpu" else f"{device}, which works")
        except Exception as error:
            amiss = [f"MXNet does not work: {error}"]
    about, (data, data_advice) = machine(), _data()
    found = {
        "d2lres": about["d2lres"],
        "MXNet": about["mxnet"] or "not found",
        "NumPy": about["numpy"],
        "Python": f"{about['python']} on {about['system']}",
        "CPU": f"{about['cpu']} ({about['cpu_features'] or 'without AVX2'})",
        "cores": f"{_cores(about['physical_cores'])} for this process",
        "threads": _threads(),
        "AMX": about["amx"],
        "GPU": gpu,
        **data,
    }
    for name, value in found.items():
        print(f"{name:10}{value}")
    advice = _advice() + data_advice
    for sentence in [f"amiss: {s}" for s in amiss] + [f"advice: {s}" for s in advice]:
        print(sentence)
    if not amiss + advice:
        print("all is well")
    return not amiss


def _cores(number):
    return f"{number} physical core{'s' * (number > 1)}"


def _threads():
    """Say how many threads MXNet takes, and by whose choice."""
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None or "OMP_NUM_THREADS" in _chosen:
        return f"{given or physical_cores()}, one for each physical core"
    return f"{given}, set by OMP_NUM_THREADS"


def _data():
    """Say where each data set is found, without fetching it, and what to do if it is not whole."""
    from . import cifar, fashion_mnist

    offline = os.environ.get("D2LRES_OFFLINE")
    os.environ["D2LRES_OFFLINE"] = "1"
    try:
        place, _ = fashion_mnist._find()
        found = {"data": f"Fashion-MNIST {place.name}, {place.folder}"}
        for images in (cifar.CIFAR10, cifar.CIFAR100):
            try:
                of_images, _ = cifar._find(images)
                found[images.name] = f"{of_images.name}, {of_images.folder}"
            except FileNotFoundError:
                found[images.name] = "not found; lessons use Fashion-MNIST in its place"
    finally:
        del os.environ["D2LRES_OFFLINE"]
        os.environ.update({} if offline is None else {"D2LRES_OFFLINE": offline})
    try:
        fashion_mnist._all_files(place)
    except FileNotFoundError as error:
        return found, [str(error)]
    advice = "Fashion-MNIST is not on this machine, only a sample of it: run `make data`."
    return found, [advice] * (place.contents is fashion_mnist.SAMPLE)


def _advice():
    """Say what could be faster: a sentence with the cure for each thing."""
    found, cores = [], physical_cores()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > cores:
        found.append(
            f"OMP_NUM_THREADS is {threads}, but this process may use {_cores(cores)}, and threads "
            "that share a core slow each other: unset it."
        )
    if amx() in (_REFUSED, _TOO_LATE):
        found.append(_what_to_do_about_amx())
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in cpu_features():
        found.append(
            "this processor has no AVX2, and convolutions are slow without: run the lessons with "
            "D2LRES_SCALE=quick, or on a newer machine."
        )
    return found


def _what_to_do_about_amx():
    cure = "import d2lres before mxnet, or install d2lres with its hook (`make lab`)"
    if amx() == _REFUSED:
        cure = "it takes Linux 5.16 or newer, and a container or sandbox that lets it through"
    return f"bfloat16 could be several times as fast, but AMX is {amx()}: {cure}."
