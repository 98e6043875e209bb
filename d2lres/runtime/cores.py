"""What other programs leave of this machine's processors.

The number of MXNet's threads does not follow it: oneDNN makes a convolution for the threads there
are when it first runs, and one made for fewer than there are later ends Python.
"""

import contextlib
import os
import time

import psutil

__all__ = ["SECONDS", "Watch"]

SECONDS = 0.5  # to look for; Linux counts in hundredths of a second


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
