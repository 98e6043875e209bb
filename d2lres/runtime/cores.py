"""As many threads as others leave cores.

OpenMP's threads wait for each other at the end of every loop: one whose core the system has given
to another program holds up all. Beside a browser, or a second notebook, fewer threads are faster.
"""

import contextlib
import functools
import os
import threading
import time

import psutil

from . import hook, machine

__all__ = ["Watch", "complete", "current", "fixed", "follow", "given"]

SECONDS = 0.5  # between two looks; Linux counts in hundredths of a second
SURELY = 0.6  # of a core: what others take more, or less, before the number of threads changes


class Watch:
    """What other programs use of the processors that this one may use."""

    def __init__(self):
        self._seen = self._look()

    def others(self) -> float:
        """Return how many processors others have kept busy since this was last asked."""
        before, self._seen = self._seen, self._look()
        elapsed, all_busy, ours = (b - a for a, b in zip(before, self._seen, strict=True))
        return max(0.0, all_busy - ours) / max(elapsed, 1e-6)

    @staticmethod
    def _look():
        try:
            of_each = psutil.cpu_times(percpu=True)
        except (OSError, RuntimeError, psutil.Error):  # a sandbox without /proc/stat
            of_each = []
        with contextlib.suppress(AttributeError, IndexError):  # macOS knows no affinity
            of_each = [of_each[cpu] for cpu in os.sched_getaffinity(0)]
        kinds = "user", "nice", "system", "irq", "softirq", "steal"
        busy = sum(getattr(times, kind, 0) for times in of_each for kind in kinds)
        return time.monotonic(), busy, time.process_time()


def given() -> int | None:
    """Return the number of threads that the user chose by ``OMP_NUM_THREADS``, or None."""
    is_theirs = os.environ.get("OMP_NUM_THREADS") and "OMP_NUM_THREADS" not in hook.chosen
    return _in_environment() if is_theirs else None


def _in_environment():
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdecimal() else machine.physical_cores()


class _Team:
    """The threads that MXNet's engine computes with."""

    def __init__(self):
        self.size = self.most = _in_environment()
        self.is_fixed = given() is not None
        self.watch, self.next_look, self.alone = Watch(), time.monotonic(), threading.Lock()

    def is_due(self):
        return not self.is_fixed and time.monotonic() >= self.next_look

    def look(self):
        self.next_look = time.monotonic() + SECONDS
        others, lost = self.watch.others(), self.most - self.size
        if abs(others - lost) > SURELY:
            self.resize(max(1, self.most - round(others)))

    def resize(self, size):
        import mxnet as mx

        if size != self.size:
            hook.in_the_engine(lambda: mx.base._LIB.MXSetNumOMPThreads(size))
            self.size = size


@functools.cache
def _team():
    return _Team()  # when MXNet is there: by then the hook has chosen


def follow() -> None:
    """Take as many threads as others leave cores, unless their number is fixed.

    To be called between two steps; it looks twice a second at most.
    """
    team = _team()
    if team.is_due():
        with team.alone:
            if team.is_due():  # no other Python thread has just looked
                team.look()


def current() -> int:
    """Return the number of threads that MXNet computes with now."""
    return _team().size


@contextlib.contextmanager
def fixed(number: int | None):
    """Keep to a number of threads while a block runs; with None, go on as before.

    The number of threads decides in which order sums are rounded: the same number, the same bits.
    """
    team = _team()
    before = team.size, team.is_fixed
    try:
        if number:
            team.is_fixed = True
            team.resize(number)
        yield
    finally:
        team.is_fixed = before[1]
        if number:
            team.resize(before[0])


def complete(module) -> None:
    """Let Gluon's Trainer, when its module has just been executed, ``follow`` before each step."""
    if module.__name__ == "mxnet.gluon.trainer":
        step = module.Trainer.step

        @functools.wraps(step)
        def following(self, *args, **kwargs):
            follow()
            return step(self, *args, **kwargs)

        module.Trainer.step = following
