"""What this machine has, of all that decides how fast MXNet computes."""

import ctypes
import functools
import importlib.metadata
import itertools
import os
import platform
import re
import sys
from pathlib import Path

from .obstacles import installed, obstacles

__all__ = [
    "amx",
    "cpu_features",
    "describe",
    "has_bfloat16",
    "in_the_way",
    "physical_cores",
    "uses_onednn",
]

_PROC, _SYS = Path("/proc"), Path("/sys")
WITH_AMX = "AVX512_CORE_AMX"  # what oneDNN may use at most: all it knows, AMX included
REFUSED, TOO_LATE = "refused by the kernel", "not used, as mxnet was imported before d2lres"


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


def uses_onednn() -> bool:
    """Return whether MXNet computes with oneDNN on the CPU: it is built in, and not switched off.

    ``mxnet.runtime.Features`` tells the first alone.
    """
    import mxnet as mx

    asked = os.environ.get("MXNET_MKLDNN_ENABLED", "").lower()
    return asked not in ("0", "false") and mx.runtime.Features().is_enabled("MKLDNN")


def has_bfloat16() -> bool:
    """Return whether MXNet has bfloat16 convolutions here: its oneDNN (2.4) has, with AVX-512."""
    too_low = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_MIC", "AVX512_MIC_4OPS")
    asked = os.environ.get("DNNL_MAX_CPU_ISA")
    return "avx512" in cpu_features() and asked not in too_low and uses_onednn()


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
    asked = os.environ.get("DNNL_MAX_CPU_ISA") or None  # empty is as good as unset
    if sys.platform != "linux" or "amx_bf16" not in cpu_features():
        return "not in this processor"
    if asked not in (None, WITH_AMX):
        return "switched off by DNNL_MAX_CPU_ISA"
    if not _kernel_grants_amx():
        return REFUSED
    return TOO_LATE if asked is None and "mxnet.base" in sys.modules else "used"


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


def advice_on_amx() -> str:
    """Say what to do where AMX is there and not used."""
    cure = "import d2lres before mxnet, or install d2lres with its hook (`make lab`)"
    if amx() == REFUSED:
        cure = "it takes Linux 5.16 or newer, and a container or sandbox that lets it through"
    return f"bfloat16 could be several times as fast, but AMX is {amx()}: {cure}."


# the variables of the environment that MXNet reads a number from, or a switch
_NUMBERS = re.compile(
    r"MXNET_((CPU|EXEC|MP|OMP|KVSTORE|SAFE|BACKWARD|ENFORCE|ELIMINATE|(DISABLE_)?MKLDNN)_\w+"
    r"|(GPU_(?!MEM_POOL_TYPE)|USE_(?!OPERATOR_TUNING))\w+|\w+_VERBOSE)"
)


def in_the_way() -> list[str]:
    """Say what keeps MXNet from working here: a sentence with the cure for each obstacle."""
    unreadable = [
        f"{name} is {value!r}, and MXNet, which takes a number there, or true or false, ends "
        "Python at anything else: unset it."
        for name, value in os.environ.items()
        if _NUMBERS.fullmatch(name) and not _is_number(value)
    ]
    asks_for_amx = os.environ.get("DNNL_MAX_CPU_ISA") == WITH_AMX
    return unreadable + obstacles(amx_refused=asks_for_amx and amx() == REFUSED)


def _is_number(text):
    return re.fullmatch(r"\s*([-+]?[\d.]+|true|false|)\s*", text, re.IGNORECASE)


def describe() -> dict[str, str | int]:
    """Return the versions and the machine, for the record of a run."""
    return {
        "d2lres": importlib.metadata.version("d2lres"),
        "mxnet": ", ".join(f"{name} {version}" for name, version in installed().items()),
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
    """Return the processor's name, and its numbers: a cloud may call all of a maker's the same."""
    about = _cpuinfo()
    name = about.get("model name") or _py_cpuinfo().get("brand_raw", "unknown")
    if "cpu family" not in about:
        return name
    return f"{name} (family {about['cpu family']}, model {about['model']})"
