import ctypes
import importlib.machinery
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import mxnet as mx
import pytest

from d2lres import runtime, try_gpu

HOOK = Path(__file__).parents[1] / "tools" / "d2lres.pth"
CHOSEN = ("OMP_NUM_THREADS", "DNNL_MAX_CPU_ISA")  # as they are once MXNet is imported


def python(code, **env):
    """Run code in a new interpreter; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k not in CHOSEN}, **env},
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


def test_mxnet_loads_scipy_and_scikit_learn_when_they_are_used():
    out, err = python(
        "import sys, mxnet as mx\n"
        "import mxnet.test_utils, mxnet.contrib.quantization as quantization\n"
        "loaded = {'scipy', 'sklearn'} & set(sys.modules)\n"
        "csr = mx.nd.sparse.csr_matrix(([1.0, 2.0], [1, 0], [0, 1, 2]), shape=(2, 2)).asscipy()\n"
        "print(loaded, csr.toarray().tolist(), quantization.stats.entropy([1.0]))\n"
        "import sklearn.base\nprint(sklearn.__version__ > '0')"
    )
    assert (out, err) == ("set() [[0.0, 1.0], [2.0, 0.0]] 0.0\nTrue", "")


def test_mxnet_does_without_scipy():
    out, err = python("import sys\nsys.modules['scipy'] = None\nimport mxnet\nprint('loaded')")
    assert (out, err) == ("loaded", "")


NO_HOOK = "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'D2lres' not in str(f)]\n"


def test_a_process_without_mxnet_pays_nothing():
    out, err = python(
        "import sys\n"
        "print([m for m in sys.modules if m.startswith(('d2lres', 'mxnet', 'numpy'))],\n"
        "      [f.__name__ for f in sys.meta_path if isinstance(f, type)].count('D2lresFinder'))"
    )
    assert (out, err) == ("[] 1", "")
    line = HOOK.read_text()
    assert len(line.splitlines()) == 1 and line.startswith("import sys;")
    out, err = python(
        f"{NO_HOOK}before = set(sys.modules)\nexec({line!r})\n"
        "print(set(sys.modules) - before, sys.meta_path[0].__name__)"
    )
    assert (out, err) == ("set() D2lresFinder", "")


COUNT = """
import d2lres.runtime as runtime
prepare, calls = runtime.prepare, []
runtime.prepare = lambda: (calls.append(1), prepare())
import mxnet, os
print(len(calls), mxnet.__version__, 'OMP_NUM_THREADS' in runtime._chosen & set(os.environ))
"""


@pytest.mark.parametrize("hook", ["", NO_HOOK])
def test_mxnet_is_prepared_once(hook):
    """By the line in d2lres.pth and ``import d2lres``, or by the latter alone."""
    assert python(hook + COUNT) == ("1 1.9.1 True", "")


@pytest.mark.parametrize("hook", ["", NO_HOOK])
def test_a_failure_in_the_hook_is_one_line(hook):
    out, err = python(
        f"{hook}import d2lres.runtime as r\n"
        "def broken(): raise RuntimeError('broken on purpose')\n"
        "r.prepare = broken\n"
        "try:\n    import mxnet\nexcept Exception: pass\n"
        "print('alive')"
    )
    assert out == "alive"
    assert err == "d2lres could not prepare MXNet: RuntimeError('broken on purpose')"


MXNET_FIRST = f"""
# as with NumPy 1.23, on which MXNet imports without help
import importlib.util
spec = importlib.util.spec_from_file_location("window", {runtime.__file__!r})
window = importlib.util.module_from_spec(spec)
spec.loader.exec_module(window)
sys.meta_path.insert(0, window._MXNetFinder)
import mxnet, ctypes, os, threading
import d2lres.runtime as runtime
cores = os.environ.pop("OMP_NUM_THREADS")
runtime.physical_cores = lambda: 3
runtime.catch_up()
def look():
    print(ctypes.CDLL("libgomp.so.1").omp_get_max_threads(),
          threading.get_native_id() == os.getpid())
runtime._in_the_engine(look)
print(cores, os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_where_mxnet_came_first_the_threads_are_still_set():
    out, err = python(NO_HOOK + MXNET_FIRST, DNNL_MAX_CPU_ISA="AVX2")
    assert (out, err) == (f"3 False\n{runtime.physical_cores()} 3", "")
    out, err = python(NO_HOOK + "sys.modules['mxnet'] = sys\nimport d2lres\nprint('alive')")
    assert out == "alive"
    assert err.startswith("d2lres could not prepare MXNet: AttributeError") and "\n" not in err


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


def test_mxnet_works_under_its_own_tests_idioms():
    out, err = python(
        "import numpy as onp\nfrom mxnet import np, npx\nnpx.set_np()\n"
        "print(len(onp.array([1.5, 2.5])), np.zeros(3)[np.array([1])])"
    )
    assert (out, err) == ("2 [0.]", "")


# --- what MXNet needs of the machine


def test_threads_are_the_physical_cores_unless_told_otherwise():
    show = "import mxnet, os; print(os.environ['OMP_NUM_THREADS'])"
    assert python(show)[0] == str(runtime.physical_cores())
    assert python(show, OMP_NUM_THREADS="7")[0] == "7"


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Pretend to be a Linux machine with these processors, flags and files under /proc and /sys."""

    def pretend(cores=(0,), affinity=None, flags="", files=(), kernel_grants_amx=True):
        write = {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Test CPU\nflags\t\t: {flags}\n"}
        write["proc/cpuinfo"] += "\nprocessor\t: 1\nflags\t\t: of another\n"
        for cpu, core in enumerate(cores):
            topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
            write |= {f"{topology}/physical_package_id": "0\n", f"{topology}/core_id": f"{core}\n"}
        for name, text in {**write, **dict(files)}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        allowed = set(range(len(cores)) if affinity is None else affinity)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
        monkeypatch.setattr(runtime, "_kernel_grants_amx", lambda: kernel_grants_amx)
        monkeypatch.setattr(sys, "platform", "linux")

    monkeypatch.setattr(runtime, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(runtime, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(runtime, "_chosen", set())
    for variable in CHOSEN:
        monkeypatch.setenv(variable, "")  # so that it is put back, whatever is set here
        monkeypatch.delenv(variable)
    return pretend


V1, V2 = "sys/fs/cgroup/cpu/", "sys/fs/cgroup/"
OWN_GROUP = {"proc/self/cgroup": "5:memory:/elsewhere\n4:cpu,cpuacct:/a/b\n0::/a/b\n"}


@pytest.mark.parametrize(
    ("expected", "pretended"),
    [
        (4, dict(cores=[0, 1, 2, 3])),
        (1, dict(cores=[0, 0])),  # two hyper-threads
        (2, dict(cores=[0, 1, 0, 1])),
        (1, dict(cores=[0, 1, 0, 1], affinity=[1, 3])),
        (2, dict(cores=[0, 1, 2, 3], affinity=[1, 3])),
        (4, dict(cores=range(4), files={V2 + "cpu.max": "max 100000\n"})),
        (2, dict(cores=range(4), files={V2 + "cpu.max": "150000 100000\n"})),  # rounded up
        (1, dict(cores=range(4), files={V2 + "cpu.max": "50000 100000\n"})),
        (1, dict(cores=[0], files={V2 + "cpu.max": "800000 100000\n"})),
        (3, dict(cores=range(4), files={**OWN_GROUP, V2 + "a/b/cpu.max": "300000 100000\n"})),
        (2, dict(cores=range(4), files={**OWN_GROUP, V2 + "a/b/cpu.max": "300000 100000\n",
                                        V2 + "a/cpu.max": "200000 100000\n"})),
        (4, dict(cores=range(4), files={**OWN_GROUP, V2 + "elsewhere/cpu.max": "100000 100000"})),
        (4, dict(cores=range(4), files={V1 + "cpu.cfs_quota_us": "-1\n",
                                        V1 + "cpu.cfs_period_us": "100000\n"})),
        (2, dict(cores=range(4), files={V1 + "cpu.cfs_quota_us": "150000\n",
                                        V1 + "cpu.cfs_period_us": "100000\n"})),
        (1, dict(cores=range(4), files={**OWN_GROUP, V1 + "a/b/cpu.cfs_quota_us": "50000\n",
                                        V1 + "a/b/cpu.cfs_period_us": "50000\n"})),
    ],
)  # fmt: skip
def test_physical_cores_counts_what_may_be_used(linux, expected, pretended):
    linux(**pretended)
    assert runtime.physical_cores() == expected


def test_a_processor_that_says_nothing_of_its_core_is_one(linux):
    linux(cores=[0], affinity=[0, 7, 8])
    assert runtime.physical_cores() == 3


SKYLAKE = "avx avx2 avx512f avx512bw avx512vl avx512dq"
SAPPHIRE = SKYLAKE + " avx512_bf16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "asked", "features", "bfloat16"),
    [
        ("sse4_1 avx", None, "", False),
        ("avx avx2", None, "avx2", False),
        ("avx2 avx512f avx512er", None, "avx2", False),  # Xeon Phi
        (SKYLAKE, None, "avx2 avx512", True),
        (SKYLAKE, "ALL", "avx2 avx512", True),
        (SKYLAKE, "AVX512_CORE", "avx2 avx512", True),
        (SKYLAKE, "AVX2", "avx2 avx512", False),
        (SKYLAKE, "SSE41", "avx2 avx512", False),
        (SAPPHIRE, None, "avx2 avx512 avx512_bf16 amx_bf16", True),
    ],
)
def test_features_of_the_processor(linux, monkeypatch, flags, asked, features, bfloat16):
    linux(flags=flags)
    if asked:
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", asked)
    assert runtime.cpu_features() == features.split()
    assert runtime.has_bfloat16() is bfloat16


def test_features_elsewhere_than_on_linux(linux, monkeypatch):
    monkeypatch.setattr(runtime, "_py_cpuinfo", lambda: {"flags": ["avx2"], "brand_raw": "A Mac"})
    assert runtime.cpu_features() == ["avx2"] and runtime._cpu_name() == "A Mac"
    linux(flags=SKYLAKE)
    assert runtime.cpu_features() == ["avx2", "avx512"] and runtime._cpu_name() == "Test CPU"


@pytest.mark.parametrize(
    ("flags", "asked", "granted", "state", "afterwards"),
    [
        (SAPPHIRE, None, True, "used", "AVX512_CORE_AMX"),
        (SAPPHIRE, "AVX512_CORE_AMX", True, "used", "AVX512_CORE_AMX"),
        (SAPPHIRE, "AVX512_CORE", True, "switched off by DNNL_MAX_CPU_ISA", "AVX512_CORE"),
        (SAPPHIRE, "ALL", True, "switched off by DNNL_MAX_CPU_ISA", "ALL"),
        (SAPPHIRE, None, False, "refused by the kernel", None),
        (SAPPHIRE, "AVX512_CORE_AMX", False, "refused by the kernel", "AVX512_CORE_AMX"),
        (SKYLAKE, None, True, "not in this processor", None),
        (SKYLAKE + " amx_tile amx_int8", None, True, "not in this processor", None),
    ],
)  # fmt: skip
def test_amx_is_used_where_it_can_be(
    linux, monkeypatch, capsys, flags, asked, granted, state, afterwards
):
    linux(flags=flags, kernel_grants_amx=granted)
    monkeypatch.delitem(sys.modules, "mxnet")  # as when the hook calls
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    if asked:
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", asked)
    assert runtime.amx() == state
    runtime.prepare()
    assert runtime.amx() == state and os.environ.get("DNNL_MAX_CPU_ISA") == afterwards
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert ("DNNL_MAX_CPU_ISA" in runtime._chosen) == (asked is None and afterwards is not None)
    died = "d2lres: DNNL_MAX_CPU_ISA=AVX512_CORE_AMX asks for AMX, which the kernel refuses"
    assert capsys.readouterr().err.startswith(died) == (asked == "AVX512_CORE_AMX" and not granted)


def test_where_mxnet_came_first_amx_is_not_used(linux, monkeypatch, capsys):
    linux(flags=SAPPHIRE)
    calls = []
    monkeypatch.setattr(runtime, "_in_the_engine", calls.append)
    runtime.catch_up()
    assert (
        len(calls) == 1
        and os.environ["OMP_NUM_THREADS"] == "1"
        and "DNNL_MAX_CPU_ISA" not in os.environ
    )
    err = capsys.readouterr().err
    assert "AMX is not used, as mxnet was imported before d2lres: import d2lres before" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    linux(flags=SKYLAKE)
    runtime.catch_up()
    assert len(calls) == 1 and capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="AMX is granted by Linux")
def test_the_kernel_is_asked_for_the_tiles_of_amx(monkeypatch):
    """System call 158 is arch_prctl; of its requests 0x1023 is the permission, 18 the tiles."""
    calls = []
    libc = types.SimpleNamespace(syscall=lambda *args: calls.append([a.value for a in args]) or 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    assert runtime._kernel_grants_amx() and calls == [[158, 0x1023, 18]]
    libc.syscall = lambda *args: -1
    assert not runtime._kernel_grants_amx()
    monkeypatch.undo()
    assert runtime._kernel_grants_amx() or runtime.amx() != "used"


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


def test_a_gpu_has_a_number_from_0_on():
    with pytest.raises(ValueError, match="number of a GPU, 0 for the first, not -1"):
        try_gpu(-1)


def test_nvidia_smi_is_read(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 9.0'\necho 'NVIDIA A10, 8.6'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert runtime._nvidia_gpus() == [("NVIDIA H100", 9.0), ("NVIDIA A10", 8.6)]
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert runtime._nvidia_gpus() == []


# --- doctor


@pytest.fixture
def doctor(linux, facts, gpu, monkeypatch, capsys):
    """The lines that the doctor prints of a pretended machine, and whether MXNet works there."""
    from d2lres import cifar, fashion_mnist
    from d2lres.fetch import Place

    def find(images):
        assert os.environ["D2LRES_OFFLINE"]
        if images.name == "CIFAR-100":
            raise FileNotFoundError("it is nowhere")
        return Place(Path("/there"), "from here", ""), ""

    def lines(
        flags=SAPPHIRE, granted=True, gpus=(), num_gpus=0, error=None, sample=False, found=4, **case
    ):
        linux(cores=[0, 0, 1, 1], flags=flags, kernel_grants_amx=granted)
        facts(**{"installed": ["mxnet"], "gpus": gpus, **case})
        gpu(num_gpus, error)
        contents = fashion_mnist.SAMPLE if sample else {}
        place = Place(Path("/there"), "from here", "Put good files there.", contents)
        files = dict.fromkeys(list(fashion_mnist.OFFICIAL)[:found])
        monkeypatch.setattr(fashion_mnist, "_files", lambda folder: (folder, files))
        monkeypatch.setattr(fashion_mnist, "_find", lambda: (place, os.environ["D2LRES_OFFLINE"]))
        monkeypatch.setattr(cifar, "_find", find)
        monkeypatch.setattr(runtime.platform, "python_version", lambda: "3.12.1")
        monkeypatch.setattr(runtime.importlib.metadata, "version", lambda name: "2.1.0")
        works = runtime.doctor()
        return works, capsys.readouterr().out.splitlines()

    monkeypatch.setattr("d2lres.__version__", "9.9")
    return lines


HEALTHY = """\
d2lres    9.9
MXNet     mxnet 1.9.1
NumPy     2.1.0
Python    3.12.1 on Linux x86_64
CPU       Test CPU (avx2 avx512 avx512_bf16 amx_bf16)
cores     2 physical cores for this process
threads   2, one for each physical core
AMX       used
GPU       none
data      Fashion-MNIST from here, /there
CIFAR-10  from here, /there
CIFAR-100 not found; lessons use Fashion-MNIST in its place
all is well""".splitlines()


def test_doctor_says_what_was_found(doctor, linux, monkeypatch):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert doctor() == (True, HEALTHY)
    assert "D2LRES_OFFLINE" not in os.environ
    monkeypatch.setenv("D2LRES_OFFLINE", "0")
    assert doctor() == (True, HEALTHY) and os.environ["D2LRES_OFFLINE"] == "0"


@pytest.mark.parametrize(
    ("environment", "case", "changed"),
    [
        ({"OMP_NUM_THREADS": "2"}, {}, {"threads": "2, set by OMP_NUM_THREADS"}),
        ({"OMP_NUM_THREADS": "4"}, {}, {
            "threads": "4, set by OMP_NUM_THREADS",
            "advice:": "OMP_NUM_THREADS is 4, but this process may use 2 physical cores, and "
            "threads that share a core slow each other: unset it."}),
        ({"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, {}, {"AMX": "switched off by DNNL_MAX_CPU_ISA"}),
        ({"DNNL_MAX_CPU_ISA": None}, {"granted": False}, {
            "AMX": "refused by the kernel",
            "advice:": "bfloat16 could be several times as fast, but AMX is refused by the kernel: "
            "it takes Linux 5.16 or newer, and a container or sandbox that lets it through."}),
        ({"DNNL_MAX_CPU_ISA": None}, {}, {
            "AMX": "not used, as mxnet was imported before d2lres",
            "advice:": "bfloat16 could be several times as fast, but AMX is not used, as mxnet was "
            "imported before d2lres: import d2lres before mxnet, or install d2lres with its hook "
            "(`make lab`)."}),
        ({}, {"flags": "avx"}, {
            "CPU": "Test CPU (without AVX2)",
            "AMX": "not in this processor",
            "advice:": "this processor has no AVX2, and convolutions are slow without: run the "
            "lessons with D2LRES_SCALE=quick, or on a newer machine."}),
        ({}, {"installed": ["mxnet-cu112"], "num_gpus": 1}, {
            "MXNet": "mxnet-cu112 1.9.1", "GPU": "gpu(0), which works"}),
        ({}, {"gpus": [("Tesla T4", 7.5)]}, {
            "GPU": "Tesla T4 cannot be used: MXNet is installed for the CPU (`make clean`, then "
            "`make lab EXTRA=gpu`)."}),
        ({}, {"sample": True}, {
            "advice:": "Fashion-MNIST is not on this machine, only a sample of it: run "
            "`make data`."}),
        ({}, {"found": 3}, {
            "advice:": "/there: expected four files, missing t10k-labels-idx1-ubyte. Put good "
            "files there."}),
    ],
)  # fmt: skip
def test_doctor_advises(doctor, linux, monkeypatch, environment, case, changed):
    for name, value in {"DNNL_MAX_CPU_ISA": "AVX512_CORE_AMX", **environment}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    works, lines = doctor(**case)
    healthy = {line.split()[0]: line for line in HEALTHY}
    if "advice:" in changed:
        del healthy["all"]
    expected = healthy | {name: f"{name:9} {text}" for name, text in changed.items()}
    if "advice:" in changed:
        expected["advice:"] = f"advice: {changed['advice:']}"
    assert works and lines == list(expected.values())


@pytest.mark.parametrize(
    ("case", "mxnet", "words"),
    [
        (dict(missing=["libgomp.so.1"]), "mxnet 1.9.1", "MXNet needs the system library libgomp"),
        (dict(installed=[]), "not found", "MXNet is not installed: run `make lab`"),
        (dict(installed=["mxnet", "mxnet-cu112"]), "mxnet 1.9.1, mxnet-cu112 1.9.1", "both"),
    ],
)
def test_doctor_says_what_is_amiss(doctor, monkeypatch, case, mxnet, words):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    works, lines = doctor(**case)
    expected = list(HEALTHY[:-1])
    expected[1], expected[8] = f"MXNet     {mxnet}", "GPU       not tried"
    assert not works and lines[:-1] == expected
    assert lines[-1].startswith("amiss: ") and words in lines[-1]


def test_doctor_tries_the_device(doctor, gpu, monkeypatch):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    works, lines = doctor(error="no kernel image")
    assert not works and lines[-1] == "amiss: MXNet does not work: no kernel image"


def test_doctor_finds_this_machine_healthy(capsys):
    assert runtime.doctor()
    out = capsys.readouterr().out
    assert "MXNet     mxnet" in out and "amiss" not in out


def test_a_record_names_the_machine(linux, monkeypatch):
    linux(cores=[0, 1], flags=SKYLAKE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record = runtime.machine()
    expected = {"cpu": "Test CPU", "cpu_features": "avx2 avx512", "amx": "not in this processor"}
    assert expected | {"physical_cores": 2, "threads": "1"} == {
        key: value
        for key, value in record.items()
        if key not in ("d2lres", "mxnet", "numpy", "python", "system")
    }
    assert len(record) == 10
