"""Fixtures that pretend another machine. Both conftest.py that need them take them from here."""

import os
import sys

import mxnet as mx
import pytest

from d2lres.runtime import devices, hook, machine, obstacles

# as they are once MXNet is imported
CHOSEN = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "MXNET_CPU_TEMP_COPY", "DNNL_MAX_CPU_ISA")
SKYLAKE = "avx avx2 avx512f avx512bw avx512vl avx512dq"
SAPPHIRE = SKYLAKE + " avx512_bf16 amx_bf16 amx_tile amx_int8"


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
        monkeypatch.setattr(machine, "_kernel_grants_amx", lambda: kernel_grants_amx)
        monkeypatch.setattr(sys, "platform", "linux")

    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(hook, "chosen", set())
    for variable in CHOSEN:
        monkeypatch.setenv(variable, "")  # so that it is put back, whatever is set here
        monkeypatch.delenv(variable)
    return pretend


@pytest.fixture
def facts(monkeypatch):
    """Pretend things about what is installed."""

    def pretend(installed, missing=(), system="Linux", processor="x86_64", gpus=()):
        for module in (devices, machine, obstacles):
            monkeypatch.setattr(module, "installed", lambda: dict.fromkeys(installed, "1.9.1"))
        monkeypatch.setattr(obstacles, "loads", lambda library: library not in missing)
        monkeypatch.setattr(obstacles.platform, "system", lambda: system)
        monkeypatch.setattr(obstacles.platform, "machine", lambda: processor)
        monkeypatch.setattr(sys, "platform", system.lower())
        monkeypatch.setattr(devices, "_nvidia_gpus", lambda: list(gpus))

    return pretend


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that MXNet counts one GPU, which computes or fails."""

    def pretend(num_gpus=1, error=None):
        def compute(device):
            if error:
                raise mx.MXNetError(error)

        monkeypatch.setattr(mx.context, "num_gpus", lambda: num_gpus)
        monkeypatch.setattr(devices, "compute_on", compute)

    return pretend
