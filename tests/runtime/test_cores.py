"""What other programs use of the processors, and how many threads take what they leave."""

import math
import os
import sys
import types

import mxnet as mx
import psutil
import pytest

from d2lres.runtime import cores, engine, hook
from d2lres.runtime.machine import physical_cores


def times(**busy):
    return types.SimpleNamespace(**{"user": 0, "nice": 0, "system": 0, "idle": 0} | busy)


@pytest.mark.parametrize(
    ("allowed", "after", "ours", "others"),
    [
        ({0, 1}, [times(user=2), times(user=2)], 4, 0),  # we alone
        ({0, 1}, [times(user=2), times(nice=1, system=0.5, idle=0.5)], 2, 0.75),
        ({0, 1}, [times(user=2), times(iowait=2)], 0, 1),  # who waits for a disk needs no core
        ({0, 1}, [times(steal=1), times(irq=0.5, softirq=0.5)], 0, 1),
        ({0}, [times(user=2), times(user=2)], 2, 0),  # the second is not for us
        ({0, 1}, [], 1, 0),  # not to be known
    ],
)
def test_what_others_use_is_what_is_busy_less_our_own(monkeypatch, allowed, after, ours, others):
    clock = iter([(10, 5), (12, 5 + ours)])  # two seconds
    now = [times(), times()]

    def tick():
        clock_now, own = next(clock)
        monkeypatch.setattr(cores.time, "monotonic", lambda: clock_now)
        monkeypatch.setattr(cores.time, "process_time", lambda: own)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: now)
    tick()
    watch = cores.Watch()
    tick()
    now = after
    seen = watch.others()
    monkeypatch.undo()
    assert seen == pytest.approx(others)


@pytest.fixture
def machine(monkeypatch):
    """A machine with four cores, whose clock and other programs do what a test says."""
    state = types.SimpleNamespace(now=0.0, others=0.0, num=4, is_free=True)

    def set_threads(num, device_ids):
        assert list(device_ids) == [0]
        state.num = num if state.is_free else state.num
        return state.is_free

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(engine, "most_threads", lambda: 4)
    monkeypatch.setattr(engine, "num_threads", lambda: state.num)
    monkeypatch.setattr(engine, "set_threads", set_threads)
    monkeypatch.setattr(engine, "fixed_because", lambda: None)
    monkeypatch.setattr(hook, "chosen", {"OMP_NUM_THREADS"})
    monkeypatch.setattr(cores.Watch, "others", lambda self: state.others)
    monkeypatch.setattr(cores, "_last", (0, -math.inf))
    monkeypatch.setattr(cores.time, "monotonic", lambda: state.now)
    return state


def looked(machine, threads, others, seconds=1.0):
    """Return how many threads compute after a look at what others use now."""
    machine.now, machine.others = machine.now + seconds, others
    threads.look()
    return machine.num


CPU = [mx.cpu()]


def test_a_run_takes_as_many_threads_as_others_leave(machine):
    with cores.computing(CPU) as threads:
        # those near the border between two numbers change nothing, in either direction
        seen = [looked(machine, threads, others) for others in (0, 0.4, 0.6, 0.45, 0.3, 2.1, 9, 2)]
        assert seen == [4, 4, 3, 3, 4, 2, 1, 2]
        assert looked(machine, threads, 0, seconds=0.9) == 2  # not every step
        assert str(threads) == "1 to 4"
    assert machine.num == 4


@pytest.mark.parametrize(("processors", "others", "num"), [(8, 3.4, 4), (8, 6, 2), (64, 50, 4)])
def test_processors_that_are_no_core_of_ours_are_there_for_others(
    machine, monkeypatch, processors, others, num
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    with cores.computing(CPU) as threads:
        assert looked(machine, threads, others) == num


def test_a_run_right_after_another_begins_with_what_that_had(machine):
    with cores.computing(CPU) as threads:
        assert looked(machine, threads, 3) == 1
    assert machine.num == 4
    machine.now += cores.RECENT - 1
    with cores.computing(CPU) as threads:
        assert machine.num == 1 and str(threads) == "1"
    machine.now += cores.RECENT + 1
    with cores.computing(CPU):
        assert machine.num == 4


def test_an_evaluation_within_a_training_takes_what_that_takes(machine):
    with cores.computing(CPU, fixed=2) as threads:
        with cores.computing(CPU) as of_evaluation:
            assert of_evaluation is threads and looked(machine, of_evaluation, 3) == 2
        assert machine.num == 2
        with cores.computing(CPU, fixed=3):
            assert machine.num == 3
        assert machine.num == 2
    assert machine.num == 4


@pytest.mark.parametrize("case", ["the user's", "two devices", "a GPU", "cannot", "one core"])
def test_a_number_that_is_not_ours_to_choose_stays(machine, monkeypatch, case):
    devices = {"two devices": [mx.cpu(0), mx.cpu(1)], "a GPU": [mx.gpu()]}.get(case, CPU)
    if case == "the user's":
        hook.chosen.clear()
    if case == "cannot":
        monkeypatch.setattr(engine, "fixed_because", lambda: "it is so")
    if case == "one core":
        machine.num = 1
        monkeypatch.setattr(engine, "most_threads", lambda: 1)
    before = machine.num
    with cores.computing(devices) as threads:
        assert looked(machine, threads, 3) == before and str(threads) == str(before)


def test_a_fixed_number_comes_back_after_a_fork(machine):
    with cores.computing(CPU, fixed=2) as threads:
        machine.num = 4  # as MXNet has it after one
        assert looked(machine, threads, 3, seconds=0) == 2


def test_a_fixed_number_that_cannot_be_had_is_refused(machine):
    machine.is_free = False
    with pytest.raises(RuntimeError, match="threads=2 cannot be had here: 4 compute, and another"):
        with cores.computing(CPU, fixed=2):
            pass
    with cores.computing(CPU, fixed=4) as threads:
        assert str(threads) == "4"


def test_a_run_whose_number_could_not_be_given_back_does_not_bind_the_next(machine):
    with cores.computing(CPU) as threads:
        looked(machine, threads, 2)
        machine.is_free = False
    assert machine.num == 2
    machine.is_free, machine.now = True, 100
    with cores.computing(CPU):
        assert machine.num == 4


@pytest.mark.parametrize(("fixed", "used", "num"), [
    (2, [3], 3), (2, [9], 2), (2, [2, 3], 2), (2, [], 2), (None, [3], 4), (None, [1, 4], 4),
])  # fmt: skip
def test_a_run_that_goes_on_keeps_its_fixed_number_where_there_are_as_many(
    machine, fixed, used, num
):
    with cores.computing(CPU, fixed) as threads:
        threads.go_on(used)
        assert looked(machine, threads, 0, seconds=0) == num
        assert threads.used == {num, *used}


TRAIN = """
import subprocess, sys
import mxnet as mx
import numpy as onp
import d2lres
from d2lres.runtime import engine

images = onp.random.default_rng(0).integers(0, 256, (320, 3, 32, 32), onp.uint8)
data = d2lres.ArrayIter(images, onp.arange(320) % 10, 32)
net = d2lres.cifar_resnet(20)
net.initialize(mx.init.Xavier())
net(next(iter(data))[0])
net.save_parameters("start")
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    seen["follows"] = d2lres.train(net, data, data, 1, 0.01).run["threads"]
    seen["after"] = engine.num_threads()
finally:
    for process in busy:
        process.kill()

def fixed(num_epochs, threads, folder):
    net.load_parameters("start")
    history = d2lres.train(net, data, data, num_epochs, 0.01, threads=threads, checkpoint=folder)
    return history.run["threads"], history.train_loss, history.test_acc

whole = fixed(2, 2, "whole")
fixed(1, 2, "in parts")
seen["fixed"] = whole[0], fixed(2, 1, "in parts") == whole
"""


@pytest.mark.slow
@pytest.mark.skipif(physical_cores() < 2 or sys.platform != "linux", reason="one thread at most")
def test_training_takes_fewer_threads_beside_other_programs_unless_they_are_fixed(python, tmp_path):
    seen, _ = python(TRAIN, cwd=tmp_path)
    least, most = map(int, seen["follows"].split(" to "))
    assert least < most == seen["after"] == physical_cores()
    assert seen["fixed"] == ["2", True]
