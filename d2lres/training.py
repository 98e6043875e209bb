"""Training: the loop of the book, and what stands around it."""

from __future__ import annotations

import copy
import math
import os

import mxnet as mx
from mxnet import autograd, gluon, npx

from . import checks
from .compiler.compiled import compile
from .data.augment import MixUp
from .data.batches import ArrayIter
from .metrics import count_hits, evaluate_accuracy
from .runs.history import History, Meter, describe
from .runs.keeper import Keeper
from .runs.progress import Progress
from .runs.workers import workers_of
from .runtime import cores
from .runtime.devices import try_gpu
from .runtime.hook import MOST_THREADS

__all__ = ["train"]

npx.set_np()


def train(
    net: gluon.HybridBlock,
    train_iter,
    test_iter,
    num_epochs: int,
    lr: float,
    device: mx.Context | list[mx.Context] | None = None,
    *,
    seed: int = 0,
    scheduler: mx.lr_scheduler.LRScheduler | None = None,
    precision: str = "auto",
    optimizer: str = "sgd",
    optimizer_params: dict[str, float] | None = None,
    loss: gluon.loss.Loss | None = None,
    mixup: MixUp | None = None,
    checkpoint: str | os.PathLike | None = None,
    kvstore: str | None = None,
    threads: int | None = None,
) -> History:
    """Train a classifier, by default with minibatch SGD and the cross-entropy loss.

    A notebook shows a progress bar and live curves, a terminal a bar, a pipe one line per epoch.

    Parameters
    ----------
    net : HybridBlock
        An initialized network; float32 images (batch, channels, height, width) to one score per
        class, (batch, num_classes).
    train_iter, test_iter : iterable of (X, y)
        What ``load_data_fashion_mnist`` returns, or anything with a length that gives the batches
        in every epoch: float32 images and labels from 0 to num_classes - 1, of MXNet or NumPy.
    num_epochs : int
        Passes over the training images.
    lr : float
        Learning rate.
    device : mxnet.Context or list of them, optional
        By default ``try_gpu()``. Of several, each gets its part of every batch, and the gradients
        are summed: the steps are those of one device but for the order of sums, except that each
        device normalizes its own part in a batch normalization. Where these differ (in their
        running averages), those of the first device count.
    seed : int, default 0
        Fixes the order of the images and what is drawn in training. The same seed and the same
        ``threads`` on the same machine give the same history to the last bit (not with MXNet's
        ``nag``). For a DataLoader of Gluon's, the global generators of NumPy and Python
        are seeded in every epoch, and given back in the end; what its workers draw, if it has
        some, is their own.
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
        ends as a run that never stopped, with fixed ``threads`` to the last bit; an iterable of
        your own has to give the same batches again. While a state cannot be written, as on a full
        disk, the run goes on with the last one kept. ``{run}`` in its name becomes eight characters
        that differ wherever the arguments, the data or the weights to start from do, so that each
        run has a folder of its own.
    kvstore : str, optional
        A key-value store of MXNet's: with "dist_sync" or "dist_device_sync" the workers that
        ``python -m d2lres launch`` started train together. They take the batches of ``train_iter``
        in turn, and each step is made of one batch of every worker: N workers with batches of B/N
        images take the steps of one with batches of B. Worker 0 saves the ``checkpoint``. With
        "dist_async" nobody waits for the others: servers take a step for each worker's batch, there
        is no checkpoint, and a history is one worker's own. By default, or with "local" or
        "device", this process trains alone.
    threads : int, optional
        How many threads compute on a CPU. Another number adds numbers in another order, so the last
        bits differ. By default a run begins with one for each core, and follows what other programs
        leave of them, unless OMP_NUM_THREADS or several devices or workers fix the number: beside
        another program fewer are faster. A run that goes on keeps a fixed number, where there are
        as many cores. ``history.run["threads"]`` says what it was.

    Returns
    -------
    History
        Of the epochs so far, if the run was told to stop.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock, or cannot be traced, or another argument is not of the kind
        above.
    ValueError
        If ``num_epochs``, ``lr``, ``seed`` or a label is out of range, ``scheduler`` begins
        elsewhere, ``optimizer_params`` has a learning rate, images, scores or losses are of another
        shape or dtype, a data set is empty, the network has nothing to train, or ``checkpoint`` is
        that of another run or of a longer one.
    FloatingPointError
        If the loss or a parameter to be saved becomes infinite or no number; the last checkpoint
        is from before.
    RuntimeError
        If the network has not been initialized, this processor cannot compute in bfloat16 and
        ``precision`` asks for it, or the number of ``threads`` cannot change in this process.
    BlockingIOError
        If another process writes to ``checkpoint``.
    OSError
        If ``checkpoint`` cannot be made or written to when the run starts.

    References
    ----------
    Dive into Deep Learning, section 7.6 (``train_ch6``).
    """
    num_epochs, seed = checks.whole("num_epochs", num_epochs), checks.whole("seed", seed, least=0)
    threads = None if threads is None else checks.whole("threads", threads, most=MOST_THREADS)
    lr, devices = checks.learning_rate(lr, scheduler), checks.devices(device) or [try_gpu()]
    workers, device = workers_of(kvstore), devices[0]
    options = checks.optimizer_params(optimizer, optimizer_params)
    checks.callable_like("MixUp(0.2)", "mixup", mixup or None)
    checks.loss(loss, takes_shares=bool(mixup))
    checks.something_to_train(net)
    net.collect_params().reset_ctx(devices)
    mx.random.seed(seed)
    if isinstance(train_iter, ArrayIter):
        train_iter.seed, train_iter.epoch = seed, 0
    X, y = _first(train_iter, "train_iter")
    _, num_classes = checks.scores_of(net, X[:1].as_in_ctx(device)).shape
    checks.labels(y, len(y), num_classes)
    _first(test_iter, "test_iter", num_classes)

    fast = compile(net, X[: math.ceil(len(X) / len(devices))].as_in_ctx(device), precision)
    loss = loss or gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=not mixup)
    scheduler = copy.deepcopy(scheduler)  # steps change it
    if scheduler:
        vars(scheduler).update(checks.plain(vars(scheduler)) | {"base_lr": lr})
    rates = {"learning_rate": lr, "lr_scheduler": scheduler}
    summing = {"kvstore": workers.store, "update_on_kvstore": workers.is_async}
    trainer = gluon.Trainer(net.collect_params(), optimizer, rates | options, **summing)
    recipe = {"optimizer": optimizer, "lr": lr, **options, "scheduler": type(scheduler).__name__}
    recipe |= {"precision": fast.precision, "loss": type(loss).__name__, "seed": seed}
    recipe |= {"mixup": repr(mixup)} if mixup else {}
    recipe |= {"num_devices": len(devices)} if len(devices) > 1 else {}
    recipe |= {"kvstore": kvstore, "num_workers": workers.num} if workers.num > 1 else {}
    facts = {"num_epochs": num_epochs, "device": ", ".join(map(str, devices))}
    history, meter = History(run=describe(train_iter) | facts | recipe), Meter(len(devices))
    of_data = train_iter, len(X), num_classes
    keeper = Keeper(fast, trainer, history, meter, *of_data, devices, workers)
    if checkpoint is not None or workers.num > 1:
        keeper.keep_in(checkpoint, recipe | {"precision": precision}, loss, test_iter)

    shown = workers.rank == 0
    with (
        cores.computing(devices, threads) as keeper.threads,
        keeper,
        Progress(history, num_epochs, keeper.num_batches, keeper.num_done, shown) as progress,
    ):
        while len(history) < num_epochs:
            for X, y in keeper.batches():
                if mixup and len(y):
                    X, y = mixup(X, y, keeper.rng(), num_classes)
                for X_part, y_part in keeper.split(X, y):  # one for each device
                    with autograd.record():
                        Y_hat = fast(X_part)
                        l = loss(Y_hat, y_part)
                    checks.losses(l, len(y_part))
                    l.backward()
                    meter.add(l.sum(), count_hits(Y_hat, y_part), len(y_part))
                trainer.step(keeper.num_images)
                progress.step(meter.loss, meter.acc)
            if keeper.is_stopped:
                break
            acc = evaluate_accuracy(fast, workers.share(test_iter), device)
            history.add(meter, workers.over_all(meter, acc))
            keeper.next_epoch()
            progress.epoch()
    return history


def _first(data_iter, name, num_classes=None):
    """Return the first batch of what can be gone through in every epoch."""
    checks.repeatable(data_iter, name)
    for X, y in checks.batches(data_iter, name, num_classes):
        return X, y
    what = {"train_iter": "train on", "test_iter": "evaluate"}[name]
    raise ValueError(f"{name} gave no batch: there is nothing to {what}")
