"""Runs of training that are killed, stopped, starved and spoiled go on, or say why not."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as onp
import psutil
import pytest
import tiny_run as program
from jupyter_client import KernelManager
from tiny_run import BATCHES, At, tiny_run

from d2lres.runs.checkpoint import Checkpoints

faulty = pytest.mark.faults


def few_or_many(names, few, many):
    """Parametrize with a part for every day and the whole for `make test-faults`."""
    values = [pytest.param(*few, id="few"), pytest.param(*many, id="many", marks=faulty)]
    return pytest.mark.parametrize(names, values)


def life(folder, num_epochs=60, batches=0, strike=None):
    """Run the program and strike it before so many batches; return its code and output."""
    command = [sys.executable, program.__file__, str(folder), str(num_epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if strike and lines.count("batch\n") == 2 + batches:  # the first two find shapes
                strike(run)
                strike = None
    return run.returncode, "".join(lines)


def last_checkpoint(folder):
    """Say where a run goes on, by the names of the files."""
    step = max((int(file.name.split("-")[0]) for file in folder.glob("*.safetensors")), default=0)
    epochs, batches = divmod(step, BATCHES + 1)
    return f"epoch {epochs + 1}, batch {batches}"


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@pytest.mark.slow
@few_or_many("signals, num_epochs", ([KILL, TERM], 20), ([KILL] * 30 + [TERM, INT] * 5, 60))
def test_a_run_survives_signals_at_random_moments(tmp_path, faults, signals, num_epochs):
    rng, at = random.Random(0), last_checkpoint(tmp_path)

    def strike(run):
        time.sleep(rng.uniform(0, 0.03))
        run.send_signal(number)

    for number in rng.sample(signals, len(signals)):
        with faults("run", number.name):
            code, output = life(tmp_path, num_epochs, rng.randint(1, 3), strike)
            assert code == (0 if number == INT else -number), output
            assert at == "epoch 1, batch 0" or f"resuming from {at}\n" in output
            at = last_checkpoint(tmp_path)
            assert number == KILL or f"stopped in {at}: train again" in output
    code, output = life(tmp_path, num_epochs)
    assert code == 0 and output.splitlines()[-1] == tiny_run(num_epochs=num_epochs)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"] * 2


@faulty
def test_a_second_process_is_refused(tmp_path, faults):
    def strike(run):
        run.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(BlockingIOError, match="another run is writing its checkpoints"):
                tiny_run(tmp_path)
        finally:
            run.send_signal(signal.SIGCONT)

    with faults("run", "two in one folder"):
        code, output = life(tmp_path, batches=5, strike=strike)
        assert code == 0 and output.splitlines()[-1] == tiny_run()


@few_or_many("stride", (97,), (1,))
def test_a_checkpoint_is_damaged_anywhere(tmp_path, faults, capsys, stride):
    with Checkpoints(tmp_path, {"lr": 0.1}) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": onp.arange(3.0)}, {"step": step})
        last = max(tmp_path.iterdir())
        content = last.read_bytes()
        for i in range(0, len(content), stride):
            flipped = bytearray(content)
            flipped[i] ^= 1 << i % 8
            for kind, damaged in [("cut off", content[:i]), ("a bit flipped", flipped)]:
                with faults("checkpoint", kind):
                    last.write_bytes(damaged)
                    assert checkpoints.load()[1] == {"step": 1} and not last.exists()
                    assert f"{last} is damaged and was passed over" in capsys.readouterr().out
        last.write_bytes(content)
        assert checkpoints.load()[1] == {"step": 2}


# --- disks


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only root of a whole machine mounts a disk: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@faulty
@pytest.mark.parametrize("kind", ["a full disk", "a read-only disk"])
def test_a_disk_takes_no_more_for_a_while(disk, faults, capsys, saves_every_batch, kind):
    filler = disk / "filler"

    def fill():
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    begin, end = {
        "a full disk": (fill, filler.unlink),
        "a read-only disk": (lambda: remount("ro"), lambda: remount("rw")),
    }[kind]
    times = range(10, 230, 20)
    with contextlib.ExitStack() as tried:
        for _ in times:
            tried.enter_context(faults("disk", kind))
        at = At({at: begin for at in times} | {at + 10: end for at in times})
        assert tiny_run(disk, at) == tiny_run()
        assert capsys.readouterr().out.count("The run goes on and tries again") == len(times)
        assert [file.suffix for file in disk.iterdir()] == [".safetensors"] * 2


@faulty
def test_memory_stays_flat(tmp_path):
    rss, memory = [], psutil.Process().memory_info
    note = {1 + BATCHES * epoch: lambda: rss.append(memory().rss) for epoch in (30, 299)}
    tiny_run(tmp_path, At(note), num_epochs=300)
    assert rss[1] < 1.02 * rss[0], rss


# --- notebooks


CELL = f"""
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
sys.path.insert(0, {os.path.dirname(program.__file__)!r})
from tiny_run import Announce, tiny_run
sys.modules["d2lres.runs.keeper"].SECONDS_BETWEEN_CHECKPOINTS = 0
print(tiny_run("run", Announce()))
"""


class Ended(Exception):
    """Nobody is there to listen to any more."""


def notebook(folder, strike=None):
    """Open a notebook's kernel, train, strike the kernel after a few batches; return its output."""
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder))
    client, lines = manager.blocking_client(), []
    client.start_channels()

    def listen(message):
        nonlocal strike
        lines.extend(message["content"].get("text", "").splitlines())
        if strike and lines.count("batch") >= 5:
            now, strike = strike, None
            now(manager)

    try:
        client.wait_for_ready(timeout=120)
        client.execute_interactive(CELL, output_hook=listen, timeout=300)
    except Ended:
        pass
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    return lines


def press_stop(manager):
    manager.interrupt_kernel()


def shut_down(manager):
    manager.signal_kernel(signal.SIGTERM)
    assert manager.provisioner.process.wait(timeout=60) == -signal.SIGTERM
    raise Ended


@faulty
def test_notebooks_leave_nothing_behind(tmp_path, monkeypatch, faults):
    for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    run, left = tmp_path / "run", []
    for i in range(19):
        at, strike = last_checkpoint(run), (press_stop, shut_down)[i % 2]
        with faults("notebook", strike.__name__.replace("_", " ")):
            output = notebook(tmp_path, strike)
            assert i == 0 or f"resuming from {at}" in output
            assert strike == shut_down or f"stopped in {last_checkpoint(run)}: " in str(output)
        left.append({path for path in tmp_path.rglob("*") if path.parent != run})
        assert not [p for p in psutil.process_iter(["environ"]) if str(tmp_path) in str(p.info)]
    assert notebook(tmp_path)[-1] == tiny_run()
    assert left[-1] == left[1] and not list((tmp_path / "TMPDIR").iterdir())
    assert not list((tmp_path / "JUPYTER_RUNTIME_DIR").iterdir())
