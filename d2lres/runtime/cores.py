"""What other programs leave of this machine's processors, and as many threads as that.

OpenMP's threads wait for each other after every layer. Where another program has the core of one of
them, all wait for it, and fewer threads are faster.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator

import psutil

from . import engine, hook

__all__ = ["SECONDS", "Threads", "Watch", "computing", "left", "may_follow"]

SECONDS = 1  # to look for; Linux counts in hundredths of a second
RECENT = 10  # seconds for which what a run has found is worth something


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


def left(most: int, others: float) -> float:
    """Return how many of ``most`` threads find a processor beside what others use.

    Not every processor is a core of ours. On a core with two, two programs are faster than one
    after the other, and a container with a share of many sees what its neighbours use of them all.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        processors = os.cpu_count() or most
    return min(most, processors - others)


def may_follow() -> bool:
    """Whether the number of threads is not the user's choice, and can change in this process."""
    return "OMP_NUM_THREADS" in hook.chosen and not engine.fixed_because()


class Threads:
    """How many threads compute in a run; see ``computing``.

    Attributes
    ----------
    used : set of int
        The numbers so far.
    """

    def __init__(self, devices, fixed):
        self._is_fixed, self.used, self._most = fixed is not None, set(), engine.most_threads()
        self._ids = [device.device_id for device in devices if device.device_type == "cpu"]
        self._follows = not fixed and len(self._ids) == 1 < self._most and may_follow()
        recent = self._follows and time.monotonic() - _last[1] < RECENT
        self._num = fixed or (_last[0] if recent else self._most)
        self._watch, self._next = Watch(), time.monotonic() + SECONDS

    def __str__(self):
        return " to ".join(map(str, sorted({min(self.used), max(self.used)})))

    def look(self) -> bool:
        """Between two steps: take as many threads as others leave, if this run follows them.

        Return whether there are as many as there should be.
        """
        if self._follows and time.monotonic() >= self._next:
            self._num, self._next = self._left(), time.monotonic() + SECONDS
        is_so = self._num == engine.num_threads() or engine.set_threads(self._num, self._ids)
        self.used.add(engine.num_threads())
        return is_so

    def _left(self):
        """Return how many threads are for what others leave. Near the border they stay."""
        there = left(self._most, self._watch.others())
        if self._num - 0.5 <= there <= self._num + 0.6:
            return self._num
        return max(1, round(there))

    def go_on(self, used: list[int]) -> None:
        """Go on with a run that has used such numbers: if its number is fixed, with the same."""
        if self._is_fixed and len(used) == 1 and used[0] <= self._most:
            self._num, self.used = used[0], set()
        self.used.update(used)


_under_way = []  # the Threads of the run at hand, behind those of one around it
_last = 0, -math.inf  # how many computed when a run that follows ended, and when that was


@contextlib.contextmanager
def computing(devices: list, fixed: int | None = None) -> Iterator[Threads]:
    """Compute with as many threads as others leave, or with a fixed number.

    They are given back in the end. An evaluation in the course of a training takes what that takes,
    and a run right after another one begins with what that had. A number that the user has set in
    OMP_NUM_THREADS stays, and so does that of several devices.
    """
    global _last
    if _under_way and fixed is None:
        yield _under_way[-1]
        return
    before = engine.num_threads() if _under_way else engine.most_threads()
    threads = Threads(devices, fixed)
    if not threads.look() and fixed:
        why = engine.fixed_because() or "another thread of this program is computing"
        raise RuntimeError(
            f"threads={fixed} cannot be had here: {engine.num_threads()} compute, and {why}. Set "
            f"OMP_NUM_THREADS={fixed} before Python starts."
        )
    _under_way.append(threads)
    try:
        yield threads
    finally:
        _under_way.remove(threads)
        if threads._follows:
            _last = engine.num_threads(), time.monotonic()
        if before != engine.num_threads():
            engine.set_threads(before, threads._ids)
