"""Training: the loop, its metrics and the record of a run."""

import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, np, npx

from . import runtime
from .augment import MixUp
from .checkpoint import Checkpoints, digest, numbers_in, restore, state_of
from .compile import compile, operators
from .data import ArrayIter, _whole
from .files import written_whole
from .progress import Progress, in_notebook

__all__ = [
    "History",
    "confusion_matrix",
    "evaluate_accuracy",
    "predict",
    "top_k_accuracy",
    "train",
]

npx.set_np()

SECONDS_BETWEEN_CHECKPOINTS = 60


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

    def save(self, path: str | os.PathLike) -> Path:
        """Write the history as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        with written_whole(path) as file:
            file.write(text.encode())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "History":
        """Read a history that ``save`` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def train(
    net: gluon.HybridBlock,
    train_iter,
    test_iter,
    num_epochs: int,
    lr: float,
    device: mx.Context | None = None,
    *,
    seed: int = 0,
    scheduler: mx.lr_scheduler.LRScheduler | None = None,
    precision: str = "auto",
    optimizer: str = "sgd",
    optimizer_params: dict[str, float] | None = None,
    loss: gluon.loss.Loss | None = None,
    mixup: MixUp | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> History:
    """Train a classifier, by default with minibatch SGD and the cross-entropy loss.

    A notebook shows a progress bar and live curves, a terminal a bar, a pipe one line per epoch.

    Parameters
    ----------
    net : HybridBlock
        An initialised network; float32 images (batch, channels, height, width) to one score per
        class, (batch, num_classes).
    train_iter, test_iter : iterable of (X, y)
        What ``load_data_fashion_mnist`` returns, or any iterables with a length that give float32
        images and integer labels from 0 to num_classes - 1.
    num_epochs : int
        Passes over the training images.
    lr : float
        Learning rate.
    device : mxnet.Context, optional
        By default ``try_gpu()``.
    seed : int, default 0
        Fixes the order of the images and the draws of MXNet's random numbers. The same seed on the
        same machine gives the same history to the last bit (not with MXNet's ``nag``).
    scheduler : mxnet.lr_scheduler.LRScheduler, optional
        Sets the learning rate of every step; its ``base_lr`` is ``lr``. It is copied, and stays
        as it is. By default the learning rate is constant.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        See ``compile``.
    optimizer : str, default "sgd"
        The name of one of MXNet's optimizers.
    optimizer_params : dict, optional
        What it takes besides the learning rate, such as ``{"momentum": 0.9, "wd": 1e-4}``.
    loss : mxnet.gluon.loss.Loss, optional
        Of scores and labels, one number per image. By default the cross-entropy.
    mixup : MixUp, optional
        Mixes the images of each batch, and their labels: ``loss`` then gets float32 shares (batch,
        num_classes), and an image counts as right if the class of its larger share is predicted.
    checkpoint : path, optional
        A folder for the state of the run, saved every minute, after every epoch and when the run
        is told to stop (the stop button, Ctrl-C). The same call made again goes on from there, and
        ends with the same history and parameters, to the last bit, as a run that never stopped; an
        iterable of your own has to give the same batches again. While a state cannot be written,
        as on a full disk, the run goes on with the last one kept.

    Returns
    -------
    History
        Of the epochs so far, if the run was told to stop.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock, or cannot be traced.
    ValueError
        If ``num_epochs``, ``lr``, ``seed`` or a label is out of range, ``scheduler`` begins
        elsewhere, a data set is empty, the network has nothing to train, or ``checkpoint`` is that
        of another run or of a longer one.
    FloatingPointError
        If the loss or a parameter to be saved becomes infinite or no number; the last checkpoint
        is from before.
    RuntimeError
        If the network has not been initialised, or this processor cannot compute in bfloat16 and
        ``precision`` asks for it.
    BlockingIOError
        If another process writes to ``checkpoint``.
    OSError
        If ``checkpoint`` cannot be made or written to when the run starts.

    References
    ----------
    Dive into Deep Learning, section 7.6 (``train_ch6``).
    """
    _check_arguments(net, num_epochs, lr)
    _check_scheduler(scheduler, lr)
    seed, scheduler = _whole("seed", seed, least=0), copy.deepcopy(scheduler)  # steps change it
    device = device or runtime.try_gpu()
    net.collect_params().reset_ctx(device)
    mx.random.seed(seed)
    if isinstance(train_iter, ArrayIter):
        train_iter.seed, train_iter.epoch = seed, 0
    X = _first_batch(train_iter).as_in_ctx(device)
    fast = compile(net, X, precision)
    mix = mixup and functools.partial(mixup, num_classes=fast(X).shape[1])
    loss = loss or gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=not mixup)
    extra = optimizer_params or {}
    options = {"learning_rate": lr, "lr_scheduler": scheduler, **extra}
    trainer = gluon.Trainer(net.collect_params(), optimizer, options)
    recipe = {"optimizer": optimizer, "lr": lr, **extra, "scheduler": type(scheduler).__name__}
    recipe |= {"precision": fast.precision, "loss": type(loss).__name__, "seed": seed}
    recipe |= {"mixup": repr(mixup)} if mixup else {}
    history = History(run=recipe | {"num_epochs": num_epochs, "device": str(device)})
    history.run |= _describe(train_iter)
    run = _Run(fast, train_iter, test_iter, trainer, loss, mix, device, history)
    if checkpoint is None:
        return run.to_epoch(num_epochs)
    identity = recipe | _identity(net, train_iter, test_iter, loss, scheduler)
    with Checkpoints(checkpoint, identity) as checkpoints:
        return run.saved_in(checkpoints).to_epoch(num_epochs)


# in the names of operators that draw random numbers: they are seeded anew for every batch
_RANDOM = ("Dropout", "RNN", "bernoulli", "choice", "normal", "random", "sample", "uniform")


class _Run:
    """A run of training, which can stop after any batch and go on from there."""

    def __init__(self, net, train_iter, test_iter, trainer, loss, mix, device, history):
        self.net, self.train_iter, self.test_iter = net, train_iter, test_iter
        self.trainer, self.loss, self.mix = trainer, loss, mix
        self.device, self.history = device, history
        self.meter, self.batch, self.checkpoints, self.is_saved = _Meter(), 0, None, True
        self.draws = any(word in op for op, *_ in operators(net.net) for word in _RANDOM)

    def to_epoch(self, num_epochs):
        """Train until so many epochs are complete, or a signal asks to stop."""
        done = len(self.history) * len(self.train_iter) + self.batch
        progress = Progress(self.history, num_epochs, len(self.train_iter), done)
        with _Signals() if self.checkpoints else contextlib.nullcontext() as signals, progress:
            while len(self.history) < num_epochs:
                self.meter.start()
                for X, y in self._batches():
                    self._step(X, y)
                    progress.step(self.meter.loss, self.meter.acc)
                    if self.checkpoints and (signals.came or self._save_is_due()):
                        self._save()
                        if signals.came:
                            there = "there" if self.is_saved else "the last checkpoint"
                            again = f"train again to go on from {there}"
                            print(f"stopped in {self._where()}: {again}", flush=True)
                            return self.history
                self._end_epoch()
                progress.epoch()
        return self.history

    def _batches(self):
        """Return the batches of this epoch that are still to come."""
        if isinstance(self.train_iter, ArrayIter):
            self.train_iter.epoch, self.train_iter.batch = len(self.history), self.batch
            return self.train_iter
        return itertools.islice(self.train_iter, self.batch, None)

    def _step(self, X, y):
        labels = y.asnumpy()  # before it goes to the device: no computation is waited for
        X, y = X.as_in_ctx(self.device), y.as_in_ctx(self.device)
        if self.draws:
            mx.random.seed(_draw(*self._step_seed))
        if self.mix:
            X, y = self.mix(X, y, onp.random.default_rng([*self._step_seed, 1]))
        with autograd.record():
            Y_hat = self.net(X)
            l = self.loss(Y_hat, y)
        _check_labels(labels, Y_hat.shape[1])
        l.backward()
        self.trainer.step(len(y))
        self.meter.add(l.sum(), _hits(Y_hat, y.argmax(axis=1) if self.mix else y), len(y))
        self._check_loss()
        self.batch += 1

    @property
    def _step_seed(self):
        return self.history.run["seed"], len(self.history), self.batch

    def _check_loss(self):
        """Stop where the loss is no number any more, before that is saved."""
        if not math.isfinite(self.meter.loss_sum):
            raise self._diverged(f"the loss became {self.meter.loss_sum}")

    def _diverged(self, what):
        lr = self.trainer.learning_rate
        kept = f" What {self.checkpoints.folder} holds is from before." if self.checkpoints else ""
        return FloatingPointError(
            f"{what} in {self._where()}, at the learning rate {lr:.3g}. Try a tenth of it, or let "
            f"it rise slowly at the start; then look for images that are not finite.{kept}"
        )

    def _end_epoch(self):
        meter, history = self.meter, self.history
        meter.stop()
        self._check_loss()
        if not meter.num_images:
            raise ValueError("train_iter gave no batch: there is nothing to train on")
        acc = evaluate_accuracy(self.net, self.test_iter, self.device)
        history.train_loss.append(meter.loss)
        history.train_acc.append(meter.acc)
        history.seconds.append(meter.seconds)
        history.images_per_second.append(meter.num_images / meter.seconds)
        history.test_acc.append(acc)
        self.meter, self.batch = _Meter(), 0
        if self.checkpoints:
            self._save()

    def saved_in(self, checkpoints):
        """Save this run there from now on; go on from the last state that is there already."""
        self.checkpoints, self._saved_at = checkpoints, time.monotonic()
        state = checkpoints.load()
        if state:
            self._go_on_from(*state)
        return self

    def _go_on_from(self, arrays, facts):
        saved, num_epochs = History(**facts["history"]), self.history.run["num_epochs"]
        if (len(saved), facts["batch"]) > (num_epochs, 0):
            raise ValueError(
                f"the run in {self.checkpoints.folder} is past num_epochs={num_epochs}: it has "
                f"{len(saved)} epochs and {facts['batch']} batches. Ask for more epochs, or pass "
                "another folder."
            )
        restore(self.net.net, self.trainer, arrays, facts)
        self.meter, self.batch = _Meter(**facts["meter"]), facts["batch"]
        is_complete = len(saved) == num_epochs
        resumed = {"resumed": saved.run.get("resumed", 0) + (not is_complete)}
        vars(self.history).update(vars(saved), run=self.history.run | resumed)
        complete = f"the run in {self.checkpoints.folder} is complete"
        print(complete if is_complete else f"resuming from {self._where()}")

    def _save_is_due(self):
        return time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS

    def _save(self):
        self.meter.stop()
        self._check_loss()
        arrays, facts = state_of(self.net.net, self.trainer)
        for name, array in arrays.items():  # one step can spoil them before a loss shows it
            if name.startswith("param:") and not onp.isfinite(array).all():
                raise self._diverged(f"{name.removeprefix('param:')} is no longer finite")
        facts |= {"batch": self.batch, "meter": self.meter.state}
        facts["history"] = dataclasses.asdict(self.history)
        step = len(self.history) * (len(self.train_iter) + 1) + self.batch  # + 1: the epoch's end
        try:
            self.checkpoints.save(step, arrays, facts)
            self.is_saved = True
        except OSError as error:
            if self.is_saved:
                print(
                    f"{self._where()} could not be saved in {self.checkpoints.folder} "
                    f"({error.strerror}). The run goes on and tries again; the last checkpoint "
                    "is kept."
                )
            self.is_saved = False
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


def _draw(seed, epoch, batch):
    """Return a seed for MXNet's random numbers in one step of a run."""
    return int(onp.random.SeedSequence([seed, epoch, batch]).generate_state(1)[0] >> 1)


def _identity(net, train_iter, test_iter, loss, scheduler):
    """Say what a run has besides its recipe, so that no other goes on from its checkpoints."""
    of_data = "num_examples", "image_shape", "batch_size", "shuffle", "augment", "normalize"
    params = [(n, p.lr_mult, p.wd_mult) for n, p in net._collect_params_with_prefix().items()]
    return {
        **_of_data(train_iter, *of_data),
        "num_batches": len(train_iter),
        "loss": [type(loss).__name__, numbers_in(loss)],
        "scheduler": [type(scheduler).__name__, numbers_in(scheduler)],
        "network": digest(json.dumps([params, operators(net)])),
        "data": _digest_of(train_iter),
        "test data": _digest_of(test_iter),
    }


def _digest_of(data_iter):
    """Return what identifies the images and labels of an ArrayIter; others all look the same."""
    arrays = [getattr(data_iter, name, ()) for name in ("images", "labels")]
    return digest(*map(onp.ascontiguousarray, arrays))


class _Meter:
    """Sums of loss and hits, read one batch late so that MXNet never waits for Python, and the
    time they took."""

    def __init__(self, loss_sum=0.0, hits=0, num_images=0, seconds=0.0):
        self.loss_sum, self.hits, self.num_images = loss_sum, hits, num_images
        self.seconds, self._last = seconds, None
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
        self.flush()
        self._last = loss_sum, hits, num_images

    def flush(self):
        if self._last:
            loss_sum, hits, num_images = self._last
            self.loss_sum += float(loss_sum)
            self.hits += int(hits)
            self.num_images += num_images
            self._last = None

    @property
    def loss(self):
        return self.loss_sum / max(self.num_images, 1)

    @property
    def acc(self):
        return self.hits / max(self.num_images, 1)


def _hits(Y_hat, y):
    """Count the rows of scores whose largest stands at the label."""
    return (Y_hat.argmax(axis=1).astype("int32") == y.astype("int32")).sum()


def evaluate_accuracy(net: gluon.Block, data_iter, device: mx.Context | None = None) -> float:
    """Return the share of images in ``data_iter`` that ``net`` classifies correctly.

    Parameters
    ----------
    net : Block
        float32 images (batch, channels, height, width) to scores (batch, num_classes).
    data_iter : iterable of (X, y)
    device : mxnet.Context, optional
        By default the device that holds the parameters of ``net``.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If ``data_iter`` is empty or a label is out of range.
    RuntimeError
        If the network has not been initialised.
    """
    device = device or _device_of(net)
    hits = num_images = 0
    for X, y in data_iter:
        Y_hat = net(X.as_in_ctx(device))
        _check_labels(y.asnumpy(), Y_hat.shape[1])
        hits += int(_hits(Y_hat, y.as_in_ctx(device)))
        num_images += len(y)
    if not num_images:
        raise ValueError("data_iter gave no batch: there is nothing to evaluate")
    return hits / num_images


def predict(net: gluon.Block, X: np.ndarray) -> np.ndarray:
    """Return the class with the highest score for each image.

    Parameters
    ----------
    net : Block
        float32 images (batch, channels, height, width) to scores (batch, num_classes).
    X : float32 array, shape (batch, channels, height, width)

    Returns
    -------
    int32 array, shape (batch,)

    Raises
    ------
    ValueError
        If X is not a batch of images.
    RuntimeError
        If the network has not been initialised.
    """
    device = _device_of(net)
    _check_images(X, "predict")
    batches = (X[i : i + 256].as_in_ctx(device) for i in range(0, len(X), 256))
    return np.concatenate([net(batch).argmax(axis=1).astype("int32") for batch in batches])


def _classes_checked(matrix):
    """Check the classes: a decorator, as ``matrix`` stands word for word in a lesson."""

    @functools.wraps(matrix)
    def checked_matrix(y, y_hat, num_classes):
        _check_pairs(y, y_hat, "predicted classes")
        for name, labels in (("y", y), ("y_hat", y_hat)):
            # a label of -1 would count for the last class
            if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
                raise ValueError(
                    f"expected classes from 0 to {num_classes - 1} (num_classes={num_classes}), "
                    f"but {name} goes from {int(labels.min())} to {int(labels.max())}"
                )
        return matrix(y, y_hat, num_classes)

    return checked_matrix


@_classes_checked
def confusion_matrix(y, y_hat, num_classes):
    """Count how often images of each class are taken for each class.

    Parameters
    ----------
    y, y_hat : array of int, shape (n,)
        True and predicted classes.
    num_classes : int

    Returns
    -------
    numpy.ndarray of int, shape (num_classes, num_classes)
        Entry (i, j) counts the images of class i that were predicted to be of class j.

    Raises
    ------
    ValueError
        If there are more classes in one than in the other, or one is out of range.
    """
    matrix = onp.zeros((num_classes, num_classes), dtype=int)
    for i, j in zip(y.tolist(), y_hat.tolist(), strict=True):
        matrix[i, j] += 1
    return matrix


def _scores_checked(accuracy):
    """Check the scores: a decorator, as ``accuracy`` stands word for word in a lesson."""

    @functools.wraps(accuracy)
    def checked_accuracy(scores, y, k):
        if scores.ndim != 2 or not len(scores):
            raise ValueError(
                "expected scores of shape (number of images, number of classes), but got "
                f"{scores.shape}; for a single image write scores[None]"
            )
        _check_pairs(scores, y, "labels")
        if bool((scores != scores).any()):  # NaN has no place in an order
            raise ValueError(
                "the scores hold NaN: the network has diverged, or its images hold NaN. Train it "
                "again with a lower learning rate, or look at its images."
            )
        return accuracy(scores, y, k)

    return checked_accuracy


@_scores_checked
def top_k_accuracy(scores, y, k):
    """Return the share of images whose label is among the ``k`` classes of the highest scores.

    Parameters
    ----------
    scores : array of float, shape (n, num_classes)
    y : array of int, shape (n,)
        The label of each image.
    k : int
        From 1, the accuracy, to ``num_classes``, where no answer is wrong.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If ``k`` is none of these, there are more labels than images or fewer, or scores are NaN.

    References
    ----------
    Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (2015), section 4.1.
    """
    num_classes = scores.shape[1]
    if not 1 <= k <= num_classes:
        raise ValueError(f"k is from 1 to the number of classes, {num_classes}, not {k!r}")
    best = (-scores).argsort(axis=1)[:, :k].tolist()
    hits = sum(label in classes for label, classes in zip(y.tolist(), best, strict=True))
    return hits / len(best)


def _device_of(net):
    """Return the device of the parameters, or say that there are none yet."""
    for name, param in net.collect_params().items():
        if param._data is None and not param._deferred_init:
            raise RuntimeError(
                f"the network has no weights yet ({name} is not initialised). "
                "Call net.initialize(mx.init.Xavier()) first."
            )
        return param.list_ctx()[0]
    return mx.cpu()


def _check_arguments(net, num_epochs, lr):
    if not isinstance(num_epochs, int) or num_epochs < 1:
        raise ValueError(f"num_epochs is a whole number of at least 1, got {num_epochs!r}")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(
            f"the learning rate must be a positive number, got lr={lr}: with a negative one each "
            "step would go uphill. Try lr=0.05."
        )
    _device_of(net)
    if all(param.grad_req == "null" for param in net.collect_params().values()):
        raise ValueError(
            "the network has nothing to train: all its parameters are frozen, or it has none. "
            "Call unfreeze(net), or put a new last layer on it with replace_head."
        )


def _check_scheduler(scheduler, lr):
    """MXNet would go by the scheduler, or let both disagree, depending on its kind."""
    if scheduler and not math.isclose(scheduler.base_lr, lr):
        raise ValueError(
            f"the scheduler is at the learning rate {scheduler.base_lr:.3g}, but lr={lr}. Make a "
            f"new one with base_lr={lr}; one that has been used stays where it ended."
        )


def _check_images(X, function):
    if X.ndim != 4 or not len(X):
        raise ValueError(
            f"{function} expects a batch of images (batch, channels, height, width), got "
            f"{X.shape}; for a single image X write X[None]"
        )


def _check_pairs(first, second, name):
    if len(first) != len(second):
        raise ValueError(f"expected {len(first)} {name}, one for each image, but got {len(second)}")


def _check_labels(y, num_classes):
    """MXNet's loss would silently clip a label that is out of range."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels go from {low} to {high}, but the network has {num_classes} outputs, for the "
            f"labels 0 to {num_classes - 1}. Build it with num_classes={high + 1}, or check y."
        )


def _first_batch(train_iter):
    """Return a batch to trace the network with."""
    for X, _ in train_iter:
        return X
    raise ValueError("train_iter gave no batch: there is nothing to train on")


def _of_data(train_iter, *names):
    """Return what an ArrayIter knows of its images; any other iterable knows nothing."""
    known = {"augment": "augmented_by"}
    return {name: getattr(train_iter, known.get(name, name), None) for name in names}


def _describe(train_iter):
    """Say what a run was made on, and by which command."""
    data = "batch_size", "num_examples", "image_shape", "source", "augment", "normalize"
    return {
        **_of_data(train_iter, *data),
        "scale": os.environ.get("D2LRES_SCALE", ""),
        "command": _command(),
        **runtime.machine(),
    }


def _command():
    """Return the command line of this run, without the folders of this machine."""
    program, *arguments = sys.argv
    arguments = [Path(a).name if os.path.isabs(a) else a for a in arguments]
    if program.endswith(os.path.join("d2lres", "__main__.py")):
        return " ".join(["python -m d2lres", *arguments])
    return "a notebook" if in_notebook() else Path(program).name
