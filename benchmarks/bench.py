"""Measure the speed of d2lres beside its peers, in turns, and record it in results/.

Usage: python benchmarks/bench.py [--peers torch] [--rounds N] [--workloads A,B] [--out FOLDER]

Every peer is a process of its own that is stopped while another one computes. The rounds go
A B C D, A B C D, ..., so that whatever else slows the machine slows all of them; what is
recorded is the median over the rounds.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.metadata
import json
import math
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from protocol import WORKLOADS
from table import tables

HERE = Path(__file__).resolve().parent
SECONDS = 1  # a measurement goes on for that long, or for one step if a step takes longer
BUSY = ("resnet18_28", "cifar_resnet20")  # also measured beside another program that computes
KEEP = 1.15  # a variant of PyTorch stays while it takes at most that x the best of its precision


# --- workers


class WorkerDied(RuntimeError):
    """A worker has ended without an answer."""


class Worker:
    """A program that answers each line of JSON with one, and is stopped in between.

    Stopped, because the OpenMP threads of a process that waits spin on the processor for a while.

    Parameters
    ----------
    name : str
        Under which its figures are recorded.
    command : list of str
    env : dict of str to str, optional
        Its environment; by default that of this process.

    Attributes
    ----------
    about : dict
        What it said of itself when it was prepared.
    steps : dict of str to int
        For each mode it takes part in, the steps of one measurement.
    before : dict of str to int
        For each mode, the steps before a measurement that do not count.
    """

    def __init__(self, name, command, env=None):
        self.name, self.about, self.steps = name, {}, {}
        self.before = {"inference": 1}  # what it folds of the weights is folded anew then
        self._errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._process = subprocess.Popen(
            command, env=env, text=True, start_new_session=True, **pipes
        )

    def answer(self):
        """Wait for the next answer, and stop the process."""
        out = self._process.stdout
        while not select.select([out], [], [], 1)[0]:
            if self._process.poll() is not None:  # its own children may hold its output open
                raise WorkerDied(self._last_words())
        line = out.readline()
        if not line:
            raise WorkerDied(self._last_words())
        self._signal(signal.SIGSTOP)
        return json.loads(line)

    def ask(self, **message):
        """Let the process go on, with something to do, until it has answered."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            print(json.dumps(message), file=self._process.stdin, flush=True)
        return self.answer()

    def end(self):
        """End the process and those it has started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_words(self):
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self._errors.seek(0)
        said = "".join(f"\n    {line}" for line in self._errors.read().splitlines()[-5:])
        return f"the worker {self.name!r} has ended ({how}); its last words:{said or ' none'}"


class Workers(contextlib.ExitStack):
    """Starts workers, and ends those that are left when it is left itself, however that comes."""

    def start(self, *workers):
        """Wait for what was started at the same time to have imported all it needs."""
        for worker in workers:
            self.callback(worker.end)
        for worker in workers:
            worker.answer()
        return list(workers)


def prepare(workers, at_once=1):
    """Have workers build and warm up; two at once where the machine need not be quiet for it."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for worker, about in zip(workers, pool.map(_prepare, workers), strict=True):
            worker.about = about


def _prepare(worker):
    return worker.ask(do="prepare")


def settle(worker):
    """Find out how many steps of each mode a measurement takes; return the seconds of a step."""
    seconds = {m: worker.ask(do=m, steps=1)["seconds"] for m in worker.about["modes"]}
    worker.steps = {mode: math.ceil(SECONDS / took) for mode, took in seconds.items()}
    return seconds


def interleave(workers, rounds):
    """Let workers take turns.

    Parameters
    ----------
    workers : list of Worker
        Settled ones.
    rounds : int

    Returns
    -------
    dict of str to dict of str to list of float
        For each mode and each worker's name, the seconds of a step in every round.
    """
    seconds = {mode: {} for worker in workers for mode in worker.steps}
    for _ in range(rounds):
        for mode, of_mode in seconds.items():
            for worker in workers:
                if mode in worker.steps:
                    of_mode.setdefault(worker.name, []).append(measured(worker, mode))
    return seconds


def measured(worker, mode):
    """Return the seconds of a step of a worker."""
    if before := worker.before.get(mode):
        worker.ask(do=mode, steps=before)
    return worker.ask(do=mode, steps=worker.steps[mode])["seconds"]


# --- the peers


def mxnet_worker(peer, workload="", *more, **env):
    """Start d2lres or a peer that runs in this Python, with the variables of ``env``."""
    command = [sys.executable, str(HERE / "workers_mxnet.py"), peer, workload, *more]
    # a fixed number: d2lres would take those that compute while it is stopped for competitors
    threads = {} if peer == "d2l" else _a_thread_for_each_core()
    return Worker(peer, command, {**_plain_environment(), **threads, **env})


def torch_worker(python, variant, workload=""):
    """Start a variant of PyTorch in the Python that has it."""
    command = [python, str(HERE / "workers_torch.py"), variant, workload]
    environment = _plain_environment() | _a_thread_for_each_core()
    return Worker(f"torch {variant}", command, environment)


def _a_thread_for_each_core():
    from d2lres.runtime.machine import physical_cores

    return {"OMP_NUM_THREADS": str(physical_cores())}


def _plain_environment():
    """Return the environment without what would change the speed of one peer or another."""
    ours = "DNNL_MAX_CPU_ISA GOMP_SPINCOUNT MXNET_CPU_TEMP_COPY MXNET_OMP_MAX_THREADS"
    ours = {*ours.split(), "OMP_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"MPLBACKEND": "agg"}


def torch_variants(bfloat16):
    """Return the variants of PyTorch that this machine can run, and why not the others."""
    variants, skipped = [], {}
    for how in ("eager", "compile"):
        for precision in ("float32", "bfloat16"):
            for layout in ("contiguous", "channels_last"):
                variant = f"{precision} {layout} {how}"
                if precision == "bfloat16" and not bfloat16:
                    skipped[variant] = "the processor has no bfloat16 instructions"
                elif how == "compile" and not shutil.which(os.environ.get("CXX", "g++")):
                    skipped[variant] = "torch.compile needs a C++ compiler"
                else:
                    variants.append(variant)
    return variants, skipped


def start_ours(workers, workload, bfloat16):
    """Start d2lres and its peers in MXNet, ready to be measured."""
    peers = ["d2lres", "plain", "model_zoo"] + ["d2l"] * workload.startswith("resnet18")
    started = workers.start(*(mxnet_worker(peer, workload) for peer in peers))
    prepare(started[:1])  # alone: it may have to measure which precision is faster
    if "bfloat16" in started[0].about["precision"].values():
        off = {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}  # what a processor without bfloat16 has at best
        worker = mxnet_worker("d2lres_float32", workload, "float32", **off)
        started += workers.start(worker)
    prepare(started[1:], at_once=2)
    for worker in started:
        settle(worker)
    return started


def start_torch(workers, workload, python, variants):
    """Start PyTorch's variants, two at a time, and keep those that may be its best.

    Returns
    -------
    list of Worker
        Each with steps only in the modes in which it is among the fastest.
    dict of str to dict of str to float
        For each mode, the seconds of a step of every variant.
    """
    kept, seconds = [], {}
    for i in range(0, len(variants), 2):
        pair = workers.start(*(torch_worker(python, v, workload) for v in variants[i : i + 2]))
        prepare(pair, at_once=2)
        for worker in pair:
            for mode, took in settle(worker).items():
                seconds.setdefault(mode, {})[worker.name] = took
        kept = _fastest(kept + pair, seconds)
    return kept, seconds


def _fastest(workers, seconds):
    """Take workers out of the modes in which others of their precision are much faster.

    Those left without any mode are ended.
    """
    for worker in workers:
        precision = worker.name.split()[1]
        for mode in list(worker.steps):
            rivals = [took for name, took in seconds[mode].items() if name.split()[1] == precision]
            if seconds[mode][worker.name] > KEEP * min(rivals):
                del worker.steps[mode]
        if not worker.steps:
            worker.end()
    return [worker for worker in workers if worker.steps]


# --- what is measured


def measure_workload(workload, rounds, python, variants, bfloat16):
    """Measure one network at one batch size; return its record."""
    network, shape = WORKLOADS[workload]
    with Workers() as workers:
        ours = start_ours(workers, workload, bfloat16)
        torch, first = start_torch(workers, workload, python, variants) if python else ([], {})
        everyone = ours + torch
        seconds = interleave(everyone, rounds)
        about = {worker.name: worker.about for worker in everyone}
    return {
        "network": network,
        "shape": shape,
        "multiply_adds_per_image": about["d2lres"]["multiply_adds_per_image"],
        "precision": about["d2lres"]["precision"],
        "peak_memory_mb": {
            "d2lres": memory_of_training(workload, about["d2lres"]["precision"]["train"]),
            "plain": about["plain"]["memory_mb"],
        },
        "images_per_s": {
            mode: {
                worker.name: rates(of_mode[worker.name], shape[0], worker.steps[mode])
                for worker in everyone
                if mode in worker.steps
            }
            for mode, of_mode in seconds.items()
        },
        "torch_first_round": {
            mode: {name: round(shape[0] / took, 1) for name, took in of_mode.items()}
            for mode, of_mode in first.items()
        },
    }


def rates(seconds, batch_size, steps):
    """Return images per second over the rounds."""
    each = sorted(batch_size / s for s in seconds)
    return {
        "median": round(statistics.median(each), 1),
        "min": round(each[0], 1),
        "max": round(each[-1], 1),
        "rounds": len(each),
        "steps": steps,
    }


def memory_of_training(workload, precision):
    """Return the peak memory of d2lres when it need not measure which precision is faster."""
    with Workers() as workers:
        (worker,) = workers.start(mxnet_worker("d2lres", workload, precision))
        prepare([worker])
        return worker.about["memory_mb"]


@contextlib.contextmanager
def another_program():
    """Let another program compute without a pause, at normal priority."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_busy(rounds, workload, python):
    """Measure training beside another program that computes; return the images per second.

    "alone" is d2lres without that program, "two at once" what it and another training make
    together. Before each measurement go steps in which it can find out what others use.
    """
    with Workers() as workers:
        follows = {"OMP_NUM_THREADS": ""}
        pair = [mxnet_worker("d2lres", workload, "float32", **follows) for _ in range(2)]
        one_thread = mxnet_worker("d2lres", workload, "float32", OMP_NUM_THREADS="1")
        one_thread.name = "one thread"
        everyone = [pair[0], one_thread]
        everyone += [torch_worker(python, "float32 contiguous eager", workload)] if python else []
        prepare(workers.start(*everyone, pair[1]))
        for worker in [*everyone, pair[1]]:
            settle(worker)
            worker.steps = {"train": worker.steps["train"]}
            worker.before = {"train": 3 * worker.steps["train"]}
        seconds = {"alone": interleave(pair[:1], rounds)["train"]["d2lres"]}
        seconds["two at once"] = [together(pair, "train") for _ in range(rounds)]
        with another_program():
            seconds |= interleave(everyone, rounds)["train"]
    steps = {worker.name: worker.steps["train"] for worker in everyone}
    batch_size = WORKLOADS[workload].shape[0]
    return {
        name: rates(took, batch_size, steps.get(name, steps["d2lres"]))
        for name, took in seconds.items()
    }


def together(workers, mode):
    """Return the seconds for each step that workers make who run at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(workers)) as pool:
        each = pool.map(measured, workers, [mode] * len(workers))
        return 1 / sum(1 / seconds for seconds in each)


def measure_end_to_end(rounds, python, batch_size=256, steps=2):
    """Measure training from the files on, with everything a program does; return the record."""
    with Workers() as workers, tempfile.TemporaryDirectory() as folder:
        everyone = [mxnet_worker(peer, "end_to_end") for peer in ("d2lres", "d2l")]
        if python:
            write_fashion_mnist(Path(folder, "FashionMNIST", "raw"))  # where torchvision looks
            everyone.append(torch_worker(python, "end_to_end", folder))
            everyone[-1].name = "torch"
        prepare(workers.start(*everyone))
        for worker in everyone:
            worker.steps = {"train": steps}
        seconds = interleave(everyone, rounds)["train"]
    return {
        "what": f"{rounds} x {steps} batches of one pass over Fashion-MNIST, after 3 to warm up: "
        "loader, training loop and metrics of d2lres against those of d2l and PyTorch",
        "resize": 96,
        "batch_size": batch_size,
        "images_per_s": {name: rates(s, batch_size, steps) for name, s in seconds.items()},
    }


def write_fashion_mnist(folder):
    """Write the training and test images and labels in the format in which they are published."""
    from d2lres import load_data_fashion_mnist

    folder.mkdir(parents=True)
    for part, data in zip(("train", "t10k"), load_data_fashion_mnist(256), strict=True):
        size, images = len(data.labels), data.images.astype("u1").tobytes()
        head = [n.to_bytes(4, "big") for n in (0x803, size, 28, 28)]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"".join(head) + images)
        head = [n.to_bytes(4, "big") for n in (0x801, size)]
        labels = data.labels.astype("u1").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"".join(head) + labels)


def measure_peak(python, bfloat16):
    """Return the best rate of a matrix product in GFLOP/s, and the version of PyTorch, if any."""
    precisions = ["float32"] + ["bfloat16"] * bfloat16
    best, version = {}, None
    with Workers() as workers:
        started = [mxnet_worker("peak")]
        started += [torch_worker(python, " ".join(["peak", *precisions]))] if python else []
        prepare(workers.start(*started))
        for worker in started:
            for precision, rate in worker.about["gflops"].items():
                best[precision] = max(rate, best.get(precision, 0))
            version = worker.about.get("version", version)
    return best, version


def measure(rounds, python, names):
    """Measure everything; return the record."""
    from d2lres.runtime import machine

    bfloat16 = bool({"avx512_bf16", "amx_bf16"} & set(machine.cpu_features()))
    variants, skipped = torch_variants(bfloat16)
    if not python:
        skipped = {"all": "not asked for (--peers torch)"}
    peak, torch_version = measure_peak(python, bfloat16)
    record = {
        "command": " ".join(["python benchmarks/bench.py", *sys.argv[1:]]),
        # but d2l takes MXNet's default
        "machine": machine.describe() | {"threads": str(machine.physical_cores())},
        "versions": {
            "mxnet": importlib.metadata.version("mxnet"),
            "d2l": importlib.metadata.version("d2l"),
            "torch": torch_version,
        },
        "torch_skipped": skipped,
        "peak_gflops": peak,
        "workloads": {},
    }
    for name in names:
        start = time.perf_counter()
        if name == "end_to_end":
            record[name] = measure_end_to_end(rounds, python)
        elif name == "busy":
            record[name] = {w: measure_busy(rounds, w, python) for w in BUSY}
        else:
            record["workloads"][name] = measure_workload(name, rounds, python, variants, bfloat16)
        print(f"{name}: measured in {time.perf_counter() - start:.0f} s", flush=True)
    return record


def file_name(record):
    """Name a record after the kind of processor, so that those of several stand side by side."""
    cpu = re.sub(r"[^a-z0-9]+", "-", record["machine"]["cpu"].lower()).strip("-")
    *_, features = ["cpu", *record["machine"]["cpu_features"].split()]
    return f"bench_{features}_{cpu}.json"


def write(path, record):
    """Write a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def arguments(argv):
    """Read the command line."""
    known = [*WORKLOADS, "busy", "end_to_end"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers",
        metavar="torch[=PYTHON]",
        default="",
        help="also PyTorch, in the Python that has it (.venv-torch/bin/python)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", default=",".join(known), help=", ".join(known))
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    args = parser.parse_args(argv)
    peer, _, python = args.peers.partition("=")
    if peer not in ("", "torch"):
        parser.error(f"--peers knows only torch, not {peer!r}")
    args.python = peer and (python or str(HERE.parent / ".venv-torch" / "bin" / "python"))
    args.workloads = args.workloads.split(",")
    if unknown := set(args.workloads) - set(known):
        parser.error(f"there is no workload {', '.join(sorted(unknown))}: take {', '.join(known)}")
    return args


def main(argv=None):
    args = arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # the workers as well
    try:
        record = measure(args.rounds, args.python, args.workloads)
    except WorkerDied as error:
        sys.exit(f"bench: {error}\nbench: nothing was recorded")
    write(args.out / file_name(record), record)
    print(tables(record))


if __name__ == "__main__":
    main()
