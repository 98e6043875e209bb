"""What the machine has: cores, the processor's features, AMX."""

import ctypes
import os
import sys
import types

import mxnet as mx
import pytest
from pretended import SAPPHIRE, SKYLAKE

from d2lres.runtime import engine, hook, machine, threads

V1, V2 = "sys/fs/cgroup/cpu/", "sys/fs/cgroup/"
OWN_GROUP = {"proc/self/cgroup": "5:memory:/elsewhere\n4:cpu,cpuacct:/a/b\n0::/a/b\n"}


@pytest.mark.parametrize(
    ("expected", "pretended"),
    [
        (4, dict(cores=[0, 1, 2, 3])),
        (1, dict(cores=[0, 0])),  # two hyper-threads
        (3, dict(cores=[0], affinity=[0, 7, 8])),  # of 7 and 8 nothing is said
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
    assert machine.physical_cores() == expected


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
    assert machine.cpu_features() == features.split()
    assert machine.has_bfloat16() is bfloat16


@pytest.mark.parametrize(
    ("switch", "built_in", "used"),
    [(None, True, True), ("1", True, True), ("true", True, True), ("", True, True)]
    + [("0", True, False), ("false", True, False), ("False", True, False), (None, False, False)],
)
def test_onednn_may_be_switched_off(linux, monkeypatch, switch, built_in, used):
    linux(flags=SKYLAKE)
    monkeypatch.setattr(mx.runtime.Features, "is_enabled", lambda self, name: built_in)
    monkeypatch.delenv("MXNET_MKLDNN_ENABLED", raising=False)
    if switch is not None:
        monkeypatch.setenv("MXNET_MKLDNN_ENABLED", switch)
    assert machine.uses_onednn() is machine.has_bfloat16() is used


@pytest.mark.parametrize(
    ("variable", "value", "is_read"),
    [
        ("MXNET_MKLDNN_ENABLED", "no", False),
        ("MXNET_CPU_WORKER_NTHREADS", "four", False),
        ("MXNET_EXEC_BULK_EXEC_TRAIN", "off", False),
        ("MXNET_SUBGRAPH_VERBOSE", "x", False),
        ("MXNET_MKLDNN_ENABLED", "False", True),
        ("MXNET_SAFE_ACCUMULATION", "1", True),
        ("MXNET_CPU_WORKER_NTHREADS", "", True),
        ("MXNET_ENGINE_TYPE", "NaiveEngine", True),
        ("MXNET_SUBGRAPH_BACKEND", "NONE", True),
        ("MXNET_GPU_MEM_POOL_TYPE", "Round", True),
        ("MXNET_USE_OPERATOR_TUNING", "float32", True),
        ("MXNET_VERSION", "1.9.1-gpu", True),
        ("MXNET_HOME", "/tmp/mxnet", True),
        ("SOME_MXNET_CPU_NUMBER", "x", True),
    ],
)
def test_a_variable_that_mxnet_would_die_of_is_named(facts, monkeypatch, variable, value, is_read):
    facts(installed=["mxnet"])
    monkeypatch.setenv(variable, value)
    named = [f"{variable} is {value!r}, and MXNet, which takes a number there, or true or false, "]
    assert [s.partition("ends Python")[0] for s in machine.in_the_way()] == named * (not is_read)


def test_features_elsewhere_than_on_linux(linux, monkeypatch):
    monkeypatch.setattr(machine, "_py_cpuinfo", lambda: {"flags": ["avx2"], "brand_raw": "A Mac"})
    assert machine.cpu_features() == ["avx2"] and machine._cpu_name() == "A Mac"
    linux(flags=SKYLAKE)
    assert machine.cpu_features() == ["avx2", "avx512"] and machine._cpu_name() == "Test CPU"


def test_processors_that_a_cloud_calls_the_same_are_told_apart(monkeypatch):
    about = {"model name": "AMD EPYC", "cpu family": "23", "model": "1"}
    monkeypatch.setattr(machine, "_cpuinfo", lambda: about)
    assert machine._cpu_name() == "AMD EPYC (family 23, model 1)"


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
    monkeypatch.delitem(sys.modules, "mxnet.base")  # as when the hook calls
    if asked:
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", asked)
    assert machine.amx() == state
    hook.prepare()
    assert machine.amx() == state and os.environ.get("DNNL_MAX_CPU_ISA") == afterwards
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert ("DNNL_MAX_CPU_ISA" in hook.chosen) == (asked is None and afterwards is not None)
    died = "d2lres: DNNL_MAX_CPU_ISA=AVX512_CORE_AMX asks for AMX, which the kernel refuses"
    assert capsys.readouterr().err.startswith(died) == (asked == "AVX512_CORE_AMX" and not granted)


def test_where_mxnet_came_first_amx_is_not_used(linux, monkeypatch, capsys):
    linux(flags=SAPPHIRE)
    calls, put_right = [], []
    monkeypatch.setattr(hook.gc, "get_objects", list)  # nothing was computed
    monkeypatch.setattr(engine, "call", calls.append)
    monkeypatch.setattr(threads, "complete", put_right.append)
    hook.catch_up()
    assert [m.__name__ for m in put_right] == [f"mxnet.{name}" for name in threads.MODULES]
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
    hook.catch_up()
    assert len(calls) == 1 and capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="AMX is granted by Linux")
def test_the_kernel_is_asked_for_the_tiles_of_amx(monkeypatch):
    """System call 158 is arch_prctl; of its requests 0x1023 is the permission, 18 the tiles."""
    calls = []
    libc = types.SimpleNamespace(syscall=lambda *args: calls.append([a.value for a in args]) or 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    assert machine._kernel_grants_amx() and calls == [[158, 0x1023, 18]]
    libc.syscall = lambda *args: -1
    assert not machine._kernel_grants_amx()
    monkeypatch.undo()
    assert machine._kernel_grants_amx() or machine.amx() != "used"


def test_a_record_names_the_machine(linux, monkeypatch):
    linux(cores=[0, 1], flags=SKYLAKE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record = machine.describe()
    expected = {"cpu": "Test CPU", "cpu_features": "avx2 avx512", "amx": "not in this processor"}
    assert expected | {"physical_cores": 2, "threads": "1"} == {
        key: value
        for key, value in record.items()
        if key not in ("d2lres", "mxnet", "numpy", "python", "system")
    }
    assert len(record) == 10
