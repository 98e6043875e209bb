"""What other programs use of the processors is what is busy, less our own."""

import os
import types

import psutil
import pytest

from d2lres.runtime import cores


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
