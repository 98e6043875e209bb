"""A run of training, kept so that it can stop after any batch and go on from there."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import mxnet as mx
import numpy as onp
from mxnet import gluon

from .. import checks
from ..data.batches import ArrayIter
from .checkpoint import Checkpoints, digest, numbers_in, restore, state_of
from .history import History, as_json, facts_of
from .progress import in_notebook, say

__all__ = ["Keeper"]

SECONDS_BETWEEN_CHECKPOINTS = 60


class Keeper:
    """Hands out the batches of a run; given a folder, saves the run there and goes on from there.

    Use it in a ``with`` statement. A run that is told to stop (the stop button, Ctrl-C, a shutdown)
    while it is kept ends after the batch at hand.

    Parameters
    ----------
    fast : Compiled
    trainer : mxnet.gluon.Trainer
    history : History
    meter : Meter
    train_iter : iterable of (X, y)
    batch_size : int
        That of the first batch.
    num_classes : int
    devices : list of mxnet.Context
    workers : Alone or Workers

    Attributes
    ----------
    num_batches : int
        Steps in an epoch.
    num_images : int
        Images of the step at hand, those of all workers together.
    is_stopped : bool
        Whether ``batches`` ended early, because the run was told to stop.
    threads : Threads
        That compute; to be set before the ``with`` statement.
    """

    def __init__(
        self, fast, trainer, history, meter, train_iter, batch_size, num_classes, devices, workers
    ):
        self.fast, self.trainer, self.history = fast, trainer, history
        self.meter, self.train_iter, self.batch = meter, train_iter, 0
        self.num_classes, self.devices, self.workers = num_classes, devices, workers
        self.num_batches, self.num_images = math.ceil(len(train_iter) / workers.num), 0
        if len(train_iter) < workers.num:
            raise ValueError(
                f"train_iter has {len(train_iter)} batches for {workers.num} workers: take smaller "
                "batches, or fewer workers"
            )
        self.is_stopped, self._checkpoints, self._is_saved = False, None, True
        self._signals = None
        self._folder, self._size = None, batch_size

    def keep_in(self, folder, recipe: dict[str, Any], loss, test_iter) -> None:
        """Save the run in a folder from now on, and go on from what is there of the same run."""
        if self.workers.is_async and folder is not None:
            raise ValueError(
                "with dist_async the servers have the optimizer's state, which cannot be saved: "
                "leave out checkpoint, or take dist_sync"
            )
        of_data = "num_examples", "image_shape", "batch_size", "shuffle", "augment", "normalize"
        params = self.fast.net._collect_params_with_prefix().items()
        params = [(name, float(p.lr_mult), float(p.wd_mult)) for name, p in params]
        scheduler = self.trainer._optimizer.lr_scheduler
        identity = {
            **recipe,
            **facts_of(self.train_iter, *of_data),
            "num_batches": len(self.train_iter),
            "loss": [type(loss).__name__, numbers_in(loss)],
            "scheduler": [type(scheduler).__name__, numbers_in(scheduler)],
            "network": digest(json.dumps([params, self.fast.traced.operators])),
            "data": _digest_of(self.train_iter),
            "test data": _digest_of(test_iter),
        }
        self.workers.must_agree(identity)
        self._folder = folder = self._named(folder, identity)
        if folder is not None and self.workers.rank == 0:
            self._checkpoints = Checkpoints(folder, identity)

    def _named(self, folder, identity):
        """Put what identifies the run and the weights it starts from in the place of ``{run}``."""
        if "{run}" not in str(folder):
            return folder
        params = self.fast.net._collect_params_with_prefix().values()
        weights = (param.list_data()[0].asnumpy() for param in params)
        return str(folder).replace("{run}", digest(as_json(identity), *weights)[:8])

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(onp.random.set_state, onp.random.get_state())  # see _to_come
            stack.callback(random.setstate, random.getstate())
            state = None
            if self._checkpoints:
                self._saved_at = time.monotonic()
                stack.enter_context(self._checkpoints)
                state = self._checkpoints.load()
            if self._checkpoints or in_notebook():
                self._signals = stack.enter_context(_Signals())
            if state := self.workers.of_first(state):
                self._go_on_from(*state)
            self.workers.begin(self.trainer, self._size)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    @property
    def num_done(self) -> int:
        """Batches that were trained on."""
        return len(self.history) * self.num_batches + self.batch

    def batches(self) -> Iterator:
        """Yield the batches of this epoch that are still to come; save the run between them."""
        self.meter.start()
        for X, y in self._to_come():
            if self.fast.traced.draws:
                mx.random.seed(self._seed(self._number))
            if self.workers.is_async:  # whose servers know one size of batches
                self.num_images = self._size
            self.threads.look()
            self.history.run["threads"] = str(self.threads)
            yield X, y
            self._check_loss()
            self.batch += 1
            if self._is_told_to_stop():
                self.is_stopped = True
                self.workers.leave()
                return
        self.meter.stop()
        self._check_loss()
        self._take_averages()
        if not self.batch:
            raise ValueError("train_iter gave no batch: there is nothing to train on")

    def _to_come(self):
        """Yield this worker's batch of each step: an empty one, where there are not enough."""
        batches = checks.batches(self.train_iter, "train_iter", self.num_classes)
        if isinstance(self.train_iter, ArrayIter):
            yield from self._every_so_many(batches)
            return
        num, of_step = self.workers.num, []
        first = self.batch * num
        for number in itertools.count():
            for seed in (mx.random.seed, onp.random.seed, random.seed):  # a DataLoader's may be any
                seed(self._seed(number, 2))
            if (batch := next(batches, None)) is None:
                break
            if number >= first:
                of_step.append(batch)
            if len(of_step) == num:
                yield self._mine(of_step)
                of_step = []
        if of_step:
            yield self._mine(of_step)

    def _every_so_many(self, batches):
        data, num = self.train_iter, self.workers.num
        data.epoch, data.batch, data.every = len(self.history), self._number, num
        nothing = mx.np.zeros((0, *data.image_shape)), mx.np.zeros(0, "int32")
        steps = range(self.batch, self.num_batches)
        for step, batch in itertools.zip_longest(steps, batches, fillvalue=nothing):
            first, many = step * num * data.batch_size, num * data.batch_size
            self.num_images = min(many, data.num_examples - first)
            yield batch

    def _mine(self, of_step):
        self.num_images = sum(len(y) for _, y in of_step)
        X, y = of_step[self.workers.rank % len(of_step)]
        return (X, y) if self.workers.rank < len(of_step) else (X[:0], y[:0])

    @property
    def _number(self):
        """The number of this worker's batch among those of all workers."""
        return self.batch * self.workers.num + self.workers.rank

    def split(self, X, y):
        """Yield each device's part of a batch; one that gets none adds nothing to the step."""
        busy, idle = self.devices[: len(y)], self.devices[len(y) :]
        for device in idle:
            for param in self.trainer._params:
                if param.grad_req != "null":
                    param.grad(device)[:] = 0
                    param.data(device)._fresh_grad = True
        if busy:
            parts = [gluon.utils.split_and_load(a, busy, even_split=False) for a in (X, y)]
            yield from zip(*parts, strict=True)

    def _seeds(self, *more):
        """Return where random numbers of this epoch begin, whatever came before it."""
        return onp.random.SeedSequence([self.history.run["seed"], len(self.history), *more])

    def _seed(self, *more):
        return int(self._seeds(*more).generate_state(1)[0] >> 1)

    def rng(self) -> onp.random.Generator:
        """Return a generator for what is drawn on the host for this batch."""
        return onp.random.default_rng(self._seeds(self.batch, 1))

    def _is_told_to_stop(self):
        """Save the run if it is time to, and say whether it was told to stop."""
        came = self._signals and self._signals.came
        is_kept = self._checkpoints is not None
        if is_kept and (came or time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS):
            self._save()
        if came:
            there = "there" if self._is_saved else "the last checkpoint"
            again = f"train again to go on from {there}"
            then = "the network is as it is now, the history ends with the epoch before"
            say(f"stopped in {self._where()}: {again if is_kept else then}")
        return came

    def _take_averages(self):
        """Give every device of every worker the averages of batch norm that the first one has.

        Each normalizes its own part of a batch, so they differ. Nothing else does.
        """
        if len(self.devices) * self.workers.num == 1 or self.workers.is_async:
            return
        params = [p for p in self.fast.net.collect_params().values() if p.grad_req == "null"]
        if not params:
            return
        mx.npx.waitall()  # see state_of
        flat = [param.list_data()[0].reshape(-1) for param in params]
        flat = self.workers.first_value(mx.np.concatenate(flat))
        for param in params:
            size = param.list_data()[0].size
            param.set_data(flat[:size].reshape(param.shape))
            flat = flat[size:]

    def next_epoch(self) -> None:
        """Save the run at the end of an epoch."""
        self.meter.reset()
        self.batch = 0
        if self._checkpoints:
            self._save()

    def _check_loss(self):
        """Stop where the loss is no number any more, before that is saved."""
        if not math.isfinite(self.meter.loss_sum):
            raise self._diverged(f"the loss became {self.meter.loss_sum}")

    def _diverged(self, what):
        lr, kept = self.trainer.learning_rate, ""
        if self._checkpoints:
            kept = f" What {self._checkpoints.folder} holds is from before."
        return FloatingPointError(
            f"{what} in {self._where()}, at the learning rate {lr:.3g}. Try a tenth of it, or let "
            f"it rise slowly at the start; then look for images that are not finite.{kept}"
        )

    def _go_on_from(self, arrays, facts):
        saved, num_epochs = History(**facts["history"]), self.history.run["num_epochs"]
        if (len(saved), facts["batch"]) > (num_epochs, 0):
            raise ValueError(
                f"the run in {self._folder} is past num_epochs={num_epochs}: it has "
                f"{len(saved)} epochs and {facts['batch']} batches. Ask for more epochs, or pass "
                "another folder."
            )
        self.fast.compute_by(facts["plans"])  # measured again, another might be the fastest
        self.threads.go_on(facts.get("threads", []))
        restore(self.fast.net, self.trainer, arrays, facts)
        self.meter.reset(**facts["meter"])
        self.batch = facts["batch"]
        is_complete = len(saved) == num_epochs
        resumed = {"resumed": saved.run.get("resumed", 0) + (not is_complete)}
        resumed |= {"precision": self.fast.precision, "threads": str(self.threads)}
        vars(self.history).update(vars(saved), run=self.history.run | resumed)
        complete = f"the run in {self._folder} is complete"
        say(complete if is_complete else f"resuming from {self._where()}")

    def _save(self):
        self.meter.stop()
        self._check_loss()
        arrays, facts = state_of(self.fast.net, self.trainer)
        for name, array in arrays.items():  # one step can spoil them before a loss shows it
            if name.startswith("param:") and not onp.isfinite(array).all():
                raise self._diverged(f"{name.removeprefix('param:')} is no longer finite")
        facts |= {"batch": self.batch, "meter": self.meter.state, "plans": self.fast.plans}
        facts["threads"] = sorted(self.threads.used)
        facts["history"] = dataclasses.asdict(self.history)
        step = len(self.history) * (len(self.train_iter) + 1) + self.batch  # + 1: the epoch's end
        try:
            self._checkpoints.save(step, arrays, facts)
            self._is_saved = True
        except OSError as error:
            if self._is_saved:
                say(
                    f"{self._where()} could not be saved in {self._checkpoints.folder} "
                    f"({error.strerror}). The run goes on and tries again; the last checkpoint "
                    "is kept."
                )
            self._is_saved = False
        self.meter.start()
        self._saved_at = time.monotonic()

    def _where(self):
        return f"epoch {len(self.history) + 1}, batch {self.batch}"


class _Signals:
    """Notes that the stop button, Ctrl-C or a shutdown asks to stop; a second time they do it.

    A shutdown goes on when the run has been saved.
    """

    def __enter__(self):
        self.came, self._old = None, {}
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.came = number
        self._restore()

    def __exit__(self, *_):
        self._restore()
        if self.came == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)

    def _restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _digest_of(data_iter):
    """Return what identifies the images and labels of an ArrayIter; others all look the same."""
    arrays = [getattr(data_iter, name, ()) for name in ("images", "labels")]
    return digest(*map(onp.ascontiguousarray, arrays))
