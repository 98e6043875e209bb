"""The state of a run in files, so that an interruption loses little and spoils nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import Any

import mxnet as mx
import numpy as np
import safetensors
from safetensors.numpy import save

from ..checks import plain
from ..files.whole import expanded, locked, written_whole
from .history import as_json
from .progress import say

__all__ = ["Checkpoints", "digest", "numbers_in", "restore", "state_of"]

KEPT = 2  # should the last one be damaged, there is one before it
NAMES = f"{'[0-9]' * 9}-{'[0-9a-f]' * 32}.safetensors"  # the step, and the digest of the content


class Checkpoints:
    """The last states of one run, in a folder that one process at a time may write to.

    A file bears the SHA-256 of its content in its name and gets that name when it is complete, so
    what was cut off or damaged is never taken for a state. Use it in a ``with`` statement.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    identity : dict
        What makes the run this one: its network, data, seed, learning rate and so on, as JSON can
        hold them.

    Raises
    ------
    BlockingIOError
        If another process is writing to the folder.
    OSError
        If the folder cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike, identity: dict[str, Any]):
        self.folder, self.identity = expanded(folder), json.loads(as_json(identity))

    def __enter__(self) -> Checkpoints:
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder, wait=False))
                for part in self.folder.glob(f"{NAMES}.*.part"):  # of a run that was killed
                    part.unlink()
                tempfile.TemporaryFile(dir=self.folder).close()
            except BlockingIOError:
                raise BlockingIOError(
                    f"another run is writing its checkpoints to {self.folder}. Wait for it, stop "
                    "it, or pass another folder."
                ) from None
            except OSError as error:
                raise OSError(
                    f"no checkpoints can be written to {self.folder} ({error.strerror}). Pass "
                    "another folder, one of your own."
                ) from error
            self._lock = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._lock.close()

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Return the arrays and facts of the last good state, or None if there is no state.

        Damaged files that are newer than that are deleted.

        Raises
        ------
        ValueError
            If the state is that of another run, or all files are damaged.
        """
        damaged = []
        for path in reversed(self._files()):
            if digest(path.read_bytes()) != path.stem.split("-")[1]:
                say(f"{path} is damaged and was passed over")
                damaged.append(path)
                continue
            with safetensors.safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["facts"])
                self._check(json.loads(file.metadata()["identity"]))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for path in damaged:  # which would count as one of those kept
                path.unlink()
            return arrays, facts
        if damaged:
            raise ValueError(
                f"every checkpoint in {self.folder} is damaged. Delete the folder to start anew."
            )
        return None

    def save(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write the state after a number of steps, whole or not at all, and delete older ones.

        Raises
        ------
        OSError
            If it cannot be written, for example to a full disk. The states from before are kept.
        """
        metadata = {"facts": as_json(facts), "identity": as_json(self.identity)}
        content = save(arrays, metadata)
        with written_whole(self.folder / f"{step:09d}-{digest(content)}.safetensors") as file:
            file.write(content)
        for old in self._files()[:-KEPT]:
            old.unlink()

    def _files(self):
        return sorted(self.folder.glob(NAMES))

    def _check(self, theirs):
        """Raise an error that says what differs between the run of a state and this one."""
        names = sorted({*theirs, *self.identity})
        differ = [
            f"{name}: {theirs.get(name)} there, {self.identity.get(name)} here"
            for name in names
            if theirs.get(name) != self.identity.get(name)
        ]
        if differ:
            raise ValueError(
                f"the checkpoint in {self.folder} is of another run ({'; '.join(differ)}). Repeat "
                "that run's arguments to go on with it, or pass another folder to start anew."
            )


def digest(*parts: str | bytes | np.ndarray) -> str:
    """Return what identifies a content: half of its SHA-256."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
    return whole.hexdigest()[:32]


# --- what a run consists of


def state_of(net, trainer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the parameters and the state of the optimizer as arrays and facts, without pickle.

    Parameters
    ----------
    net : mxnet.gluon.Block
        Initialized. Of several devices, the first counts: what a step changes is the same on all.
    trainer : mxnet.gluon.Trainer
        Of its parameters.
    """
    mx.npx.waitall()  # a fused batch normalization moves its averages unseen by MXNet's engine
    arrays, indices = {}, _indices(net, trainer)
    states = trainer._updaters[0].states
    for name, param in net._collect_params_with_prefix().items():
        arrays[f"param:{name}"] = param.list_data()[0].asnumpy()
        for i, array in enumerate(_arrays(states.get(indices.get(name)))):
            arrays[f"state{i}:{name}"] = array.asnumpy()
    optimizer = trainer._optimizer
    counts = _update_counts(trainer, trainer._contexts[0])
    facts = {
        "optimizer": numbers_in(optimizer),
        "scheduler": numbers_in(optimizer.lr_scheduler),
        "counts": {name: counts[i] for name, i in indices.items() if i in counts},
    }
    return arrays, facts


def restore(net, trainer, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Give a network and its trainer the state that ``state_of`` returned."""
    optimizer = trainer._optimizer
    indices = _indices(net, trainer)
    for name, param in net._collect_params_with_prefix().items():
        param.set_data(mx.np.array(arrays[f"param:{name}"]))
        index = indices.get(name)
        if name in facts["counts"]:
            for updater, data in zip(trainer._updaters, param.list_data(), strict=True):
                state = optimizer.create_state_multi_precision(index, data.as_nd_ndarray())
                for i, array in enumerate(_arrays(state)):
                    array[:] = mx.np.array(arrays[f"state{i}:{name}"]).as_nd_ndarray()
                updater.states[index], updater.states_synced[index] = state, True
    vars(optimizer).update(facts["optimizer"])
    if optimizer.lr_scheduler:
        vars(optimizer.lr_scheduler).update(facts["scheduler"])
    counts = {indices[name]: count for name, count in facts["counts"].items()}
    for device in trainer._contexts:
        _update_counts(trainer, device).update(counts)


def _indices(net, trainer):
    """Return the trainer's number of each parameter by its place in the network.

    The trainer numbers them in the order of names that differ from process to process.
    """
    number = {id(param): i for i, param in enumerate(trainer._params)}
    params = net._collect_params_with_prefix().items()
    return {name: number[id(param)] for name, param in params if id(param) in number}


def _update_counts(trainer, device):
    """Return the optimizer's own dictionary of how often each parameter was updated."""
    return trainer._optimizer._all_index_update_counts.setdefault(device.device_id, {})


def _arrays(state):
    """Return the arrays in an optimizer's state of one parameter: None, one, or a nested tuple."""
    if isinstance(state, list | tuple):
        return [array for part in state for array in _arrays(part)]
    return [] if state is None else [state]


def numbers_in(thing: Any) -> dict[str, Any]:
    """Return the attributes of an optimizer or scheduler that are numbers or lists of them."""
    numbers = int | float | list | np.generic
    attributes = getattr(thing, "__dict__", {}).items()  # a function may have none
    return {name: plain(value) for name, value in attributes if isinstance(value, numbers)}
