"""The programs under benchmarks/, without measuring anything."""

import json
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from d2lres import cifar_resnet, resnet18, summary

ROOT = Path(__file__).parents[2]
BENCHMARKS = str(ROOT / "benchmarks")
tables = runpy.run_path(BENCHMARKS + "/table.py")["tables"]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench

    return bench


def test_torch_builds_the_same_networks(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import workers_torch

    ours = {"resnet18": resnet18(), "cifar_resnet20": cifar_resnet(20)}
    for network, net in (ours | {"cifar_resnet56": cifar_resnet(56)}).items():
        channels = 1 if network == "resnet18" else 3
        theirs = sum(p.numel() for p in workers_torch.build(network).parameters())
        assert theirs == summary(net, (channels, 32, 32)).num_params


# --- the driver, with workers that compute nothing

FAKE = """
import sys
sys.path.insert(0, {folder!r})
from protocol import Channel, serve

def run(mode):
    def log(steps):
        if {dies!r} == mode:
            sys.exit("there is no memory left")
        print("never an answer")
        with open({log!r}, "a") as file:
            print({name!r}, mode, file=file)
    return log

serve(Channel(), lambda: ({{"colour": "red"}}, {{mode: run(mode) for mode in {modes!r}}}))
"""


@pytest.fixture
def fake(bench, tmp_path):
    log = tmp_path / "log"

    def start(name, modes=("train", "inference"), dies=None):
        values = {"folder": BENCHMARKS, "log": str(log), "name": name, "dies": dies}
        code = FAKE.format(**values, modes=modes)
        return bench.Worker(name, [sys.executable, "-c", code])

    start.log = lambda: log.read_text().splitlines()
    return start


def test_workers_take_turns(bench, fake):
    with bench.Workers() as workers:
        all_of_them = workers.start(fake("A"), fake("B"), fake("C", modes=("inference",)))
        bench.prepare(all_of_them, at_once=2)
        assert all_of_them[0].about["colour"] == "red"
        for worker in all_of_them:
            worker.steps = dict.fromkeys(worker.about["modes"], 1)
        seconds = bench.interleave(all_of_them, rounds=2)
    inference = [f"{name} inference" for name in "AABBCC"]  # once to fold what was trained anew
    assert fake.log() == 2 * ["A train", "B train", *inference]
    assert {mode: set(of_mode) for mode, of_mode in seconds.items()} == {
        "train": {"A", "B"},
        "inference": {"A", "B", "C"},
    }
    assert all(len(each) == 2 for of_mode in seconds.values() for each in of_mode.values())


def test_a_measurement_takes_steps_for_a_second(bench):
    took = {"train": 2.5, "inference": 0.3}
    worker = SimpleNamespace(about={"modes": [*took]}, ask=lambda do, steps: {"seconds": took[do]})
    bench.settle(worker)
    assert worker.steps == {"train": 1, "inference": 4}


def test_a_worker_that_dies_is_named_and_the_others_are_ended(bench, fake):
    with pytest.raises(bench.WorkerDied, match="(?s)'B'.*exit code 1.*no memory left"):
        with bench.Workers() as workers:
            both = workers.start(fake("A"), fake("B", dies="train"))
            bench.prepare(both)
            for worker in both:
                bench.settle(worker)
    assert all(worker._process.poll() is not None for worker in both)


def test_an_idle_worker_is_stopped(bench, fake):
    with bench.Workers() as workers:
        (worker,) = workers.start(fake("A"))
        state = Path(f"/proc/{worker._process.pid}/stat")
        if not state.exists():
            pytest.skip("no /proc here")
        end = time.monotonic() + 30  # the signal takes a moment, on a busy machine a long one
        while state.read_text().rsplit(") ")[1][0] != "T":
            assert time.monotonic() < end, "it still runs"
            time.sleep(0.01)


def test_slow_variants_leave_the_race(bench, monkeypatch):
    ended = []
    took = {
        "torch bfloat16 a": {"train": 1.0, "inference": 2.0},
        "torch bfloat16 b": {"train": 1.1, "inference": 1.0},
        "torch bfloat16 c": {"train": 1.2, "inference": 1.2},
        "torch float32 d": {"train": 3.0, "inference": 3.0},  # the best in float32
        "torch float32 e": {"train": 3.5, "inference": 3.1},
    }
    workers = []
    for name in took:
        of_name = {"name": name, "steps": {"train": 1, "inference": 1}}
        workers.append(SimpleNamespace(**of_name, end=lambda name=name: ended.append(name)))
    seconds = {mode: {name: took[name][mode] for name in took} for mode in ("train", "inference")}
    kept = bench._fastest(workers, seconds)
    assert {w.name[6:]: list(w.steps) for w in kept} == {
        "bfloat16 a": ["train"],
        "bfloat16 b": ["train", "inference"],
        "float32 d": ["train", "inference"],
        "float32 e": ["inference"],
    }
    assert ended == ["torch bfloat16 c"]


def test_nothing_is_written_when_a_worker_dies(bench, monkeypatch, tmp_path):
    def measure(*_):
        raise bench.WorkerDied("the worker 'd2l' has ended")

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match="'d2l' has ended\nbench: nothing was recorded"):
        bench.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_pytorch_runs_in_bfloat16_only_where_the_processor_does(bench, monkeypatch):
    monkeypatch.setattr(bench.shutil, "which", lambda name: "/usr/bin/g++")
    assert [len(names) for names in bench.torch_variants(bfloat16=True)] == [8, 0]
    variants, skipped = bench.torch_variants(bfloat16=False)
    assert len(variants) == len(skipped) == 4
    assert all(variant.startswith("bfloat16") for variant in skipped)


def test_peers_and_workloads_are_checked(bench, capsys):
    assert bench.arguments([]).python == ""
    assert bench.arguments(["--peers", "torch=python"]).python == "python"
    for wrong in (["--peers", "jax"], ["--workloads", "resnet18_96,vgg"]):
        with pytest.raises(SystemExit):
            bench.arguments(wrong)
    assert "no workload vgg" in capsys.readouterr().err


def test_each_kind_of_processor_has_a_record_of_its_own(bench):
    assert bench.file_name(record()) == "bench_avx512_abacus-family-1.json"
    old = {"cpu": "Old", "cpu_features": ""}
    assert bench.file_name({"machine": old}) == "bench_cpu_old.json"


def test_training_is_measured_beside_another_program(bench, fake, monkeypatch):
    """It computes while the busy rounds go, and not while d2lres is measured alone."""
    beside = []
    interleave = bench.interleave

    def seen(workers, rounds):
        beside.append(([worker.name for worker in workers], programs()))
        return interleave(workers, rounds)

    def programs():
        return sum("while True" in p.cmdline()[-1] for p in psutil.Process().children())

    monkeypatch.setattr(bench, "interleave", seen)
    monkeypatch.setattr(bench, "SECONDS", 0.01)
    monkeypatch.setattr(bench, "mxnet_worker", lambda peer, *_, **env: fake(peer))
    monkeypatch.setattr(bench, "torch_worker", lambda *_: fake("torch"))
    rates = bench.measure_busy(2, "resnet18_28", "python")
    assert sorted(rates) == ["alone", "d2lres", "one thread", "torch", "two at once"]
    assert all(rate["rounds"] == 2 and rate["median"] > 0 for rate in rates.values())
    assert beside == [(["d2lres"], 0), (["d2lres", "one thread", "torch"], 1)]
    assert programs() == 0


# --- the table


def record(**rates):
    modes = {mode: {name: {"median": r} for name, r in rates.items()} for mode in TRAIN_AND_INFER}
    workload = {
        "network": "resnet18",
        "shape": [128, 1, 96, 96],
        "multiply_adds_per_image": {"train": 1e9, "inference": 0.5e9},
        "precision": dict.fromkeys(
            TRAIN_AND_INFER, "bfloat16" if "d2lres_float32" in rates else "float32"
        ),
        "peak_memory_mb": {"d2lres": 1500, "plain": 2000},
        "images_per_s": modes,
    }
    return {
        "command": "python benchmarks/bench.py",
        "machine": {
            "cpu": "Abacus (family 1)",
            "cpu_features": "avx2 avx512",
            "d2lres": "0.2.0",
            "physical_cores": 2,
        },
        "versions": {"mxnet": "1.9.1", "d2l": "1.0.3", "torch": "2.13.0"},
        "peak_gflops": {"float32": 400.0},
        "workloads": {"resnet18_96": workload},
    }


TRAIN_AND_INFER = ("train", "inference")


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| resnet18")]


def test_the_table_compares():
    torch = {"torch float32 contiguous eager": 40, "torch float32 channels_last compile": 80}
    text = tables(record(d2lres=100, d2l=25, plain=80, **torch))
    row = (
        "| resnet18, 128 x 96x96 | 100 (float32) | 4.00x | – | 1.25x "
        "| 1.25x (float32 channels_last compile) | {} |"
    )
    assert rows(text) == [row.format("50%"), row.format("25%")]
    assert "plain, hybridized: resnet18, 128 x 96x96: 0.75." in text
    assert "resnet18, 128 x 96x96 200 and 100." in text


def test_the_table_sets_float32_against_float32():
    torch = {"torch float32 contiguous eager": 50, "torch bfloat16 contiguous eager": 160}
    first, second, *_ = rows(tables(record(d2lres=200, d2lres_float32=100, **torch)))
    assert "| 200 (bfloat16) |" in first and "| 1.25x (bfloat16 contiguous eager) | – |" in first
    assert "| 100 (float32) |" in second and "| 2.00x (float32 contiguous eager) | – |" in second


def test_the_table_names_the_precision_of_training_and_of_inference():
    some = record(d2lres=100)
    some["workloads"]["resnet18_96"]["precision"]["inference"] = "bfloat16"
    training, inference = rows(tables(some))
    assert "| 100 (float32) |" in training and training.endswith("| 50% |")
    assert "| 100 (bfloat16) |" in inference and inference.endswith("| – |")  # no such peak


def test_the_table_says_what_else_was_measured():
    some = record(d2lres=100)
    rates = some["workloads"]["resnet18_96"]["images_per_s"]
    rates |= {"batches": {"d2lres": {"median": 5000}}, "train_fed": {"d2lres": {"median": 98}}}
    each = {"d2lres": {"median": 90}, "d2l": {"median": 30}}
    some["end_to_end"] = {"resize": 96, "batch_size": 256, "images_per_s": each}
    text = tables(json.loads(json.dumps(some)))
    assert "resnet18, 128 x 96x96: 2.0% alone, +2.0% of a step beside it" in text
    some["workloads"]["resnet18_96"]["shape"][1] = 3
    assert "96x96, shifted and flipped: 2.0% alone" in tables(some)
    assert "90 images/s against 30 with the book's code, 3.00x" in text
    each["torch"] = {"median": 60}
    assert "3.00x, 1.50x PyTorch's usual loop." in tables(some)
    busy = {"d2lres": 90, "one thread": 60, "alone": 180, "torch float32 contiguous eager": 45}
    busy["two at once"] = 171
    some["busy"] = {"resnet18_28": {name: {"median": rate} for name, rate in busy.items()}}
    words = "resnet18_28 90 images/s, 50% of what it is alone, 1.50x one thread, 2.00x PyTorch"
    assert words in tables(some)
    assert "PyTorch as it comes, two at once on a quiet machine together 0.95x one" in tables(some)
    some["workloads"] = {}
    assert "3.00x" in tables(some) and not rows(tables(some))
