"""Several processes, on one machine or on several, that train one network together.

MXNet's key-value store does it (ps-lite): a worker pushes its gradients to the servers and pulls
their sums. ``python -m d2lres launch`` starts workers, servers and the scheduler.
"""

from __future__ import annotations

import atexit
import copy
import itertools
import json
import os
from typing import Any

import mxnet as mx
import numpy as onp
from mxnet.base import _LIB, KVStoreHandle, check_call
from safetensors.numpy import load, save

from ..data.batches import ArrayIter, to_mxnet
from ..runtime import sent
from . import watch
from .history import as_json

__all__ = ["Alone", "Workers", "say_good_bye", "workers_of"]

LOCAL = ("local", "device")
DISTRIBUTED = ("dist_sync", "dist_device_sync", "dist_async", "dist_device_async")


def workers_of(kvstore: str | None):
    """Return who trains together: by the name of a key-value store of MXNet's, or alone."""
    if kvstore is None or kvstore in LOCAL:
        return Alone(kvstore or "device")
    if kvstore not in DISTRIBUTED:
        known = ", ".join((*LOCAL, *DISTRIBUTED))
        raise ValueError(f"kvstore is one of {known}, not {kvstore!r}")
    if os.environ.get("DMLC_ROLE") != "worker":
        raise RuntimeError(
            f"kvstore={kvstore!r} trains together with other processes, and this one was started "
            "alone: python -m d2lres launch -n 2 -- train, or with a program of your own in the "
            "place of train"
        )
    return Workers.started(kvstore)


def say_good_bye() -> None:
    """Wait until all workers have come to their end, if this process is one."""
    if Workers.of_process:
        Workers.of_process.close()


class Alone:
    """One process with everything.

    Parameters
    ----------
    store : str
        What Gluon's trainer sums the gradients of several devices with.
    """

    rank, num = 0, 1
    is_async = False

    def __init__(self, store: str):
        self.store = store

    def must_agree(self, identity):
        pass

    def of_first(self, state):
        return state

    def begin(self, trainer, batch_size):
        pass

    def share(self, data_iter):
        return data_iter

    def over_all(self, meter, acc):
        return acc

    def first_value(self, array):
        return array

    def leave(self):
        pass


class Workers(mx.kv.KVStoreBase):
    """One of the processes that train together; also what Gluon's trainer sums gradients with.

    Every array gets a key of its own, as ps-lite keeps a key for good: so that a program can train
    more than once.

    Parameters
    ----------
    kvstore : str
        The name of a distributed key-value store of MXNet's.

    Attributes
    ----------
    rank, num : int
        The number of this worker, from 0, and how many there are.
    is_async : bool
        Whether the servers take the steps, gradient by gradient, and no worker waits for others.
    """

    of_process = None
    rank = None  # which the base has as a property

    @classmethod
    def started(cls, kvstore):
        """Return this process's place among the workers, of which it has one."""
        if cls.of_process is None:
            cls.of_process = cls(kvstore)
        if cls.of_process.kvstore != kvstore:
            raise ValueError(
                f"this process trains with kvstore={cls.of_process.kvstore!r} already: a program "
                "keeps to one"
            )
        return cls.of_process

    def __init__(self, kvstore: str):
        self._store = mx.kv.create(kvstore)
        self.kvstore, self.store, self.is_async = kvstore, self, "async" in kvstore
        self.rank, self.num = self._store.rank, self._store.num_workers
        self._num_keys, self._key_of = 0, {}
        watch.got_rank(self.rank)
        atexit.register(self.close)

    def close(self):
        """Say good-bye to the other workers, when all have come so far."""
        handle, self._store.handle = self._store.handle, KVStoreHandle()
        if handle:
            mx.npx.waitall()
            check_call(_LIB.MXKVStoreFree(handle))

    def leave(self):
        """Go without waiting for the others, to whom the launcher says that the run has stopped."""
        self._store.handle = KVStoreHandle()
        watch.leave("stopped")

    # what Gluon's trainer calls

    type = property(lambda self: self.kvstore)
    num_workers = property(lambda self: self.num)

    @staticmethod
    def is_capable(capability):
        return True

    def set_optimizer(self, optimizer):
        if not sent.is_taken(optimizer):
            name = type(optimizer.lr_scheduler or optimizer).__name__
            raise ValueError(
                f"with {self.kvstore} the servers take the steps, by an optimizer and a scheduler "
                f"of MXNet's, and {name} stays with the workers: take dist_sync"
            )
        self._store.set_optimizer(optimizer)

    def broadcast(self, key, value, out, priority=0):
        self._key_of[key] = self._num_keys
        self._num_keys += 1
        value = to_mxnet(value.asnumpy())  # in oneDNN's layout, it would be refused
        self._store.broadcast(self._key_of[key], value, out, priority)

    def pushpull(self, key, value, out=None, priority=0):
        for array in value if isinstance(value, list) else [value]:
            array.wait_to_read()  # MXNet looks at the layout now, and the backward pass may set it
        self._store.pushpull(self._key_of[key], value, out, priority)

    # what a run needs besides

    def first_value(self, array: mx.np.ndarray) -> mx.np.ndarray:
        """Return the array that worker 0 has."""
        new = mx.np.zeros_like(array)
        self.broadcast("other", array, new)
        return new

    def total(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over all workers."""
        array = to_mxnet(onp.array(numbers, onp.float64))
        self.first_value(array)
        self.pushpull("other", array)
        return array.tolist()

    def of_first(self, state):
        """Return the arrays and facts that worker 0 goes on from, or None if it has none."""
        content = b""
        if self.rank == 0 and state:
            arrays, facts = state
            content = save(arrays, {"facts": json.dumps(facts)})
        content = self._bytes_of_first(content)
        if not content:
            return None
        if self.rank == 0:
            return state
        facts = json.loads(_metadata(content)["facts"])
        return load(content), facts | {"meter": {}}  # what it counted was its own

    def _bytes_of_first(self, content):
        size = int(self.first_value(to_mxnet(onp.array([len(content)], onp.float64)))[0])
        if not size:
            return b""
        words = onp.zeros(-(-size // 4), onp.float32)  # of whatever bits: nobody adds them
        if self.rank == 0:
            words.view(onp.uint8)[:size] = onp.frombuffer(content, onp.uint8)
        words = self.first_value(to_mxnet(words)).asnumpy()
        return words.tobytes()[:size]

    def must_agree(self, identity: dict[str, Any]) -> None:
        """Check that this worker does what worker 0 does.

        Raises
        ------
        ValueError
            If it differs, with what differs.
        """
        mine = json.loads(as_json(identity))
        theirs = json.loads(self._bytes_of_first(as_json(identity).encode()))
        if differ := [name for name in mine if theirs.get(name) != mine[name]]:
            raise ValueError(
                f"worker {self.rank} has another run than worker 0; {', '.join(differ)} differ. "
                "Start the same command everywhere, on the same data"
            )

    def begin(self, trainer, batch_size) -> None:
        """Give all workers the parameters of the first; else they would get them after one step."""
        if self.is_async:  # the servers will not hear of another size
            trainer._optimizer.rescale_grad = trainer._scale / batch_size
        trainer._init_kvstore()
        trainer._init_params()

    def share(self, data_iter) -> _Share:
        """Return this worker's share of the batches to evaluate."""
        self._share = _Share(data_iter, self.rank, self.num)
        return self._share

    def over_all(self, meter, acc: float) -> float:
        """Make what a meter counted that of all workers; return their accuracy on their shares."""
        if self.is_async:
            return acc
        hits, num_images = round(acc * self._share.num_images), self._share.num_images
        counted = meter.loss_sum, meter.hits, meter.num_images
        sums = self.total(*counted, hits, num_images)
        meter.loss_sum, meter.hits, meter.num_images = sums[0], int(sums[1]), int(sums[2])
        return sums[3] / sums[4]


class _Share:
    """Every so many of the batches of an iterable, and how many images they were."""

    def __init__(self, data_iter, rank, num):
        self.data_iter, self.rank, self.num, self.num_images = data_iter, rank, num, 0

    def __iter__(self):
        self.num_images, counts = 0, self.rank < len(self.data_iter)
        first = self.rank if counts else 0  # with fewer batches than workers, one in vain
        if isinstance(self.data_iter, ArrayIter):
            batches = copy.copy(self.data_iter)
            batches.batch, batches.every = first, self.num
        else:
            batches = itertools.islice(self.data_iter, first, None, self.num)
        for X, y in batches:
            self.num_images += len(y) * counts
            yield X, y


def _metadata(content):
    """Return what safetensors has beside its arrays."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]
