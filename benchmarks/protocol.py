"""What the workers measure, and how they are told to: needs nothing but the standard library."""

import json
import os
import resource
import sys
import time
from typing import NamedTuple


class Workload(NamedTuple):
    """A network and the shape of a batch: images, channels, height, width."""

    network: str
    shape: tuple[int, int, int, int]


WORKLOADS = {
    "resnet18_96": Workload("resnet18", (128, 1, 96, 96)),
    "resnet18_28": Workload("resnet18", (256, 1, 28, 28)),
    "cifar_resnet20": Workload("cifar_resnet20", (128, 3, 32, 32)),
    "cifar_resnet56": Workload("cifar_resnet56", (128, 3, 32, 32)),
}


class Channel:
    """A worker's end of the line to the driver: one line of JSON asks, one answers."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not be taken for an answer

    def say(self, **message):
        print(json.dumps(message), file=self._out, flush=True)

    def __iter__(self):
        return map(json.loads, sys.stdin)


def serve(channel, prepare):
    """Be a worker: once to prepare, then to run as many steps of a mode as are asked for.

    Parameters
    ----------
    channel : Channel
    prepare : callable
        Builds and warms up. Returns what is to be told of it, and for each mode a function that
        runs ``n`` steps and comes back when all is computed.
    """
    channel.say()  # everything is imported
    runs = {}
    for message in channel:
        if message["do"] == "prepare":
            about, runs = prepare()
            channel.say(modes=list(runs), **about)
        else:
            start = time.perf_counter()
            runs[message["do"]](message["steps"])
            channel.say(seconds=(time.perf_counter() - start) / message["steps"])


class Paced:
    """Batches for a training loop that is not ours to stop: it waits where it asks for the next.

    Parameters
    ----------
    batches : iterable
        Begun anew when it ends.
    channel : Channel
    wait : callable
        Comes back when everything is computed.
    num_warm : int, default 3
        Batches given out before the driver is told that the loop runs.
    """

    def __init__(self, batches, channel, wait, num_warm=3):
        self.batches, self.channel, self.wait, self.num_warm = batches, channel, wait, num_warm

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        endless = (batch for _ in iter(int, 1) for batch in self.batches)
        for _ in range(self.num_warm):
            yield next(endless)
        self.wait()
        self.channel.say(modes=["train"])
        for message in self.channel:
            start = time.perf_counter()
            for _ in range(message["steps"]):
                yield next(endless)
            self.wait()
            self.channel.say(seconds=(time.perf_counter() - start) / message["steps"])


def peak_memory():
    """Return the most memory this process ever held, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def best_gflops(product, wait, sizes=(2048, 4096), tries=3):
    """Return the best rate of ``product(size)``, a matrix product of that order."""
    best = 0.0
    for size in sizes:
        run = product(size)
        for _ in range(tries + 1):
            start = time.perf_counter()
            result = run()
            wait(result)
            best = max(best, 2e-9 * size**3 / (time.perf_counter() - start))
    return round(best, 1)
