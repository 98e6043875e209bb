"""What happened in a run, one entry per epoch, and what the run was."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ..checks import plain
from ..files.whole import expanded, written_whole
from ..runtime import machine
from .progress import in_notebook

__all__ = ["History", "Meter", "as_json", "describe", "facts_of"]


@dataclasses.dataclass
class History:
    """What happened in a run, one entry per epoch, and what the run was.

    Attributes
    ----------
    train_loss : list of float
        Mean loss over the training images, measured while training: the cross-entropy in nats,
        unless another loss was chosen.
    train_acc, test_acc : list of float
        Shares between 0 and 1. ``train_acc`` is measured while training.
    seconds : list of float
        Time spent in the training steps of the epoch.
    images_per_second : list of float
    run : dict
        Seed, learning rate, data source, versions, machine and so on.
    """

    train_loss: list[float] = dataclasses.field(default_factory=list)
    train_acc: list[float] = dataclasses.field(default_factory=list)
    test_acc: list[float] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    images_per_second: list[float] = dataclasses.field(default_factory=list)
    run: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.train_loss)

    def __str__(self) -> str:
        if not len(self):
            return "no epoch yet"
        return (
            f"epoch {len(self)}: loss {self.train_loss[-1]:.3f}, train acc "
            f"{self.train_acc[-1]:.3f}, test acc {self.test_acc[-1]:.3f}, "
            f"{self.images_per_second[-1]:.0f} images/s"
        )

    def add(self, meter: Meter, test_acc: float) -> None:
        """Add an epoch."""
        self.train_loss.append(meter.loss)
        self.train_acc.append(meter.acc)
        self.test_acc.append(test_acc)
        self.seconds.append(meter.seconds)
        self.images_per_second.append(meter.num_images / meter.seconds)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the history as JSON, whole or not at all."""
        path = expanded(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = as_json(dataclasses.asdict(self), indent=1) + "\n"
        with written_whole(path) as file:
            file.write(text.encode())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> History:
        """Read a history that ``save`` wrote."""
        path = expanded(path)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no record that History.save wrote: {error}") from error


class Meter:
    """Sums of loss and hits in an epoch, and the time they took.

    They are read one batch late, so that MXNet never waits for Python.

    Parameters
    ----------
    num_parts : int, default 1
        Parts of a batch, each added by itself.
    """

    def __init__(self, num_parts: int = 1):
        self._num_parts, self._late = num_parts, collections.deque()
        self.reset()

    def reset(self, loss_sum=0.0, hits=0, num_images=0, seconds=0.0):
        """Begin an epoch, or go on with the ``state`` of one."""
        self.loss_sum, self.hits, self.num_images = loss_sum, hits, num_images
        self.seconds = seconds
        self._late.clear()
        self.start()

    def start(self):
        self._started = time.perf_counter()

    def stop(self):
        self.flush()
        self.seconds += time.perf_counter() - self._started

    @property
    def state(self):
        return {k: getattr(self, k) for k in ("loss_sum", "hits", "num_images", "seconds")}

    def add(self, loss_sum, hits, num_images):
        self.flush(self._num_parts - 1)
        self._late.append((loss_sum, hits, num_images))

    def flush(self, leave=0):
        while len(self._late) > leave:
            loss_sum, hits, num_images = self._late.popleft()
            self.loss_sum += float(loss_sum)
            self.hits += int(hits)
            self.num_images += num_images

    @property
    def loss(self):
        return self.loss_sum / max(self.num_images, 1)

    @property
    def acc(self):
        return self.hits / max(self.num_images, 1)


def as_json(facts: dict, **options) -> str:
    """Return facts as JSON, what that cannot hold in words: no record is lost at its end."""
    words = {"default": lambda thing: thing.tolist() if hasattr(thing, "tolist") else str(thing)}
    return json.dumps(plain(facts), **words, **options)


def facts_of(train_iter, *names: str) -> dict[str, Any]:
    """Return what an ArrayIter knows of its images; any other iterable knows nothing."""
    known = {"augment": "augmented_by"}
    return {name: getattr(train_iter, known.get(name, name), None) for name in names}


def describe(train_iter) -> dict[str, Any]:
    """Say what a run was made on, and by which command."""
    data = "batch_size", "num_examples", "image_shape", "source", "augment", "normalize"
    return {
        **facts_of(train_iter, *data),
        "scale": os.environ.get("D2LRES_SCALE", ""),
        "command": _command(),
        **machine.describe(),
    }


def _command():
    """Return the command line of this run, without the folders of this machine."""
    program, *arguments = sys.argv
    arguments = [Path(a).name if os.path.isabs(a) else a for a in arguments]
    if program.endswith(os.path.join("d2lres", "__main__.py")):
        return " ".join(["python -m d2lres", *arguments])
    return "a notebook" if in_notebook() else Path(program).name
