"""What the doctor prints of a pretended machine, and of this one."""

import importlib.metadata
import platform

import pytest
from pretended import SAPPHIRE

from d2lres.course import doctor as room
from d2lres.data.cifar import CIFAR10, CIFAR100
from d2lres.data.fashion_mnist import FASHION_MNIST
from d2lres.files.sources import Place, Source
from d2lres.runtime import cores


@pytest.fixture
def doctor(linux, facts, gpu, monkeypatch, capsys, tmp_path):
    """Whether MXNet works on a pretended machine, and the lines that the doctor prints there."""

    def lines(
        flags=SAPPHIRE,
        granted=True,
        gpus=(),
        num_gpus=0,
        error=None,
        sample=False,
        found=4,
        others=0.3,
        follows=True,
        **case,
    ):
        linux(cores=[0, 0, 1, 1], flags=flags, kernel_grants_amx=granted)
        facts(**{"installed": ["mxnet"], "gpus": gpus, **case})
        gpu(num_gpus, error)
        place = Place(tmp_path / "there", "from here", "Put good files there.")
        for name in [*list(FASHION_MNIST.files)[:found], *CIFAR10.files]:
            place.folder.mkdir(exist_ok=True)
            (place.folder / name).touch()

        def find(self, offline):
            assert offline
            if self is CIFAR100:
                raise FileNotFoundError("it is nowhere")
            return place, ""

        monkeypatch.setattr(Source, "find", find)
        monkeypatch.setattr(FASHION_MNIST, "sample", place if sample else None)
        monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
        monkeypatch.setattr(importlib.metadata, "version", lambda name: VERSIONS[name])
        monkeypatch.setattr(cores.Watch, "others", lambda self: others)
        monkeypatch.setattr(cores, "SECONDS", 0)
        monkeypatch.setattr(cores, "may_follow", lambda: follows)
        works = room.doctor()
        return works, capsys.readouterr().out.replace(str(tmp_path), "").splitlines()

    return lines


VERSIONS = {"d2lres": "9.9", "numpy": "2.1.0"}
HEALTHY = """\
d2lres        9.9
MXNet         mxnet 1.9.1
NumPy         2.1.0
Python        3.12.1 on Linux x86_64
CPU           Test CPU (avx2 avx512 avx512_bf16 amx_bf16)
cores         2 physical cores for this process
threads       2, one for each physical core
others        other programs use 0.3 cores now
AMX           used
GPU           none
Fashion-MNIST from here, /there
CIFAR-10      from here, /there
CIFAR-100     not found; lessons use Fashion-MNIST in its place
all is well""".splitlines()


def test_doctor_says_what_was_found(doctor, monkeypatch):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert doctor() == (True, HEALTHY)


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
        ({}, {"others": 2.2}, {"others": "other programs use 2.2 cores now"}),
        ({}, {"others": 2.8}, {
            "others": "other programs use 2.8 cores now",
            "advice:": "other programs compute, and train and evaluate_accuracy take threads=1 as "
            "long as they do: end them."}),
        ({}, {"others": 2.8, "follows": False}, {
            "others": "other programs use 2.8 cores now",
            "advice:": "other programs compute, and a thread that waits for its core holds up all "
            "others: end them, or start with OMP_NUM_THREADS=1."}),
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
            "advice:": "/there: expected 4 files of Fashion-MNIST, missing t10k-labels-idx1-ubyte. "
            "Put good files there."}),
    ],
)  # fmt: skip
def test_doctor_advises(doctor, monkeypatch, environment, case, changed):
    for name, value in {"DNNL_MAX_CPU_ISA": "AVX512_CORE_AMX", **environment}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    works, lines = doctor(**case)
    healthy = {line.split()[0]: line for line in HEALTHY}
    if "advice:" in changed:
        del healthy["all"]
    expected = healthy | {name: f"{name:14}{text}" for name, text in changed.items()}
    if "advice:" in changed:
        expected["advice:"] = f"advice: {changed['advice:']}"
    assert works and lines == list(expected.values())


@pytest.mark.parametrize(
    ("case", "mxnet", "words"),
    [
        (dict(missing=["libgomp.so.1"]), "mxnet 1.9.1", "MXNet needs libgomp.so.1"),
        (dict(installed=[]), "not found", "MXNet is not installed: run `make lab`"),
        (dict(installed=["mxnet", "mxnet-cu112"]), "mxnet 1.9.1, mxnet-cu112 1.9.1", "both"),
    ],
)
def test_doctor_says_what_is_amiss(doctor, monkeypatch, case, mxnet, words):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    works, lines = doctor(**case)
    expected = list(HEALTHY[:-1])
    expected[1], expected[9] = f"MXNet         {mxnet}", "GPU           not tried"
    assert not works and lines[:-1] == expected
    assert lines[-1].startswith("amiss: ") and words in lines[-1]


def test_doctor_tries_the_device(doctor, gpu, monkeypatch):
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    works, lines = doctor(error="no kernel image")
    assert not works and lines[-1] == "amiss: MXNet does not work: no kernel image"
