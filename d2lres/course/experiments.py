"""The recorded experiments: a recipe run to its end, what is measured on its network, and what the
pre-trained network is good for.
"""

import copy
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as onp
from mxnet import gluon

from ..checks import whole
from ..compiler.compiled import compile
from ..data.augment import Compose, RandomCrop, RandomFlip
from ..data.batches import ArrayIter, first_of_each_class
from ..data.cifar import CIFAR100_COARSE_OF_FINE, CIFAR100_MEAN, CIFAR100_STD, load_data_cifar10
from ..files.whole import writable, written_whole
from ..inspection import layer_stats
from ..interop.weights import load_torch_weights, save_torch_weights
from ..metrics import evaluate_accuracy, top_k_accuracy
from ..models import narrow_resnet18
from ..runs.history import History
from ..runtime import engine
from ..transfer import features, fine_tune, freeze, replace_head
from .recipes import RECIPES

__all__ = ["experiment", "measure", "transfer_experiment"]


def experiment(
    name: str,
    seed: int = 0,
    num_epochs: int | None = None,
    record: str | None = None,
    weights: str | None = None,
    precision: str = "auto",
    num_valid: int | None = None,
) -> History:
    """Train by a recipe, saving checkpoints under ``runs/``, and record the run.

    Called again after an interruption, it goes on. Called again after its end, it takes the trained
    network from the last checkpoint. A run that was told to stop before its end is not recorded.

    Parameters
    ----------
    name : str
        One of ``RECIPES``.
    seed : int, default 0
    num_epochs : int, optional
        By default the recipe's.
    record : path, optional
        By default ``results/NAME_seedN.json``, or ``results/NAME_EE_epochs_seedN.json`` if they are
        not the recipe's.
    weights : path, optional
        A ``.safetensors`` file for the trained network in float16, see ``save_torch_weights``. What
        is measured and recorded then is the network that was saved.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        See ``compile``. A record says in which its network was trained; to be comparable, those of
        one figure are made in the same.
    num_valid : int, optional
        To choose a recipe: test on so many of the training images, which are kept aside. Such a run
        is recorded only if ``record`` says where.

    Raises
    ------
    ValueError
        If there is no such recipe, or the network's weights cannot be saved.
    OSError
        If ``record`` or ``weights`` cannot be written; this is found before the training.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no experiment {name!r}: choose one of {', '.join(RECIPES)}")
    recipe, run = RECIPES[name], f"{name}_seed{seed}"
    if num_epochs not in (None, recipe.num_epochs):
        run = f"{name}_{whole('num_epochs', num_epochs):02}_epochs_seed{seed}"
        recipe = recipe._replace(num_epochs=num_epochs)
    if num_valid is not None:
        run += f"_valid{num_valid}"
    elif not record:
        record = Path("results", f"{run}.json")
    print(recipe)
    data = train_iter, test_iter = recipe.load(num_valid)
    if weights:
        _check_weights(recipe, test_iter, Path(weights))
        weights = writable(weights)
    record = record and writable(record)
    net, history = recipe.run(*data, seed, precision, checkpoint=Path("runs", run))
    if len(history) == recipe.num_epochs:
        if weights:
            history.run["weights_sha256"] = _saved(net, weights)
        train_iter.epoch = 0
        history.run["measured"] = measure(net, *data, is_cifar100=recipe.data == "cifar100")
        of, seconds = "test" if num_valid is None else "validation", sum(history.seconds)
        print(f"{of} accuracy {history.test_acc[-1]:.1%} after {seconds:.0f} s of training")
        if record:
            print(f"recorded in {history.save(record)}")
    return history


def _check_weights(recipe, data_iter, path):
    """Refuse what could not be saved, before hours of training."""
    net = recipe.build()
    net(next(iter(data_iter))[0])  # fixes the shapes of its parameters
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_torch_weights(net, Path(folder, path.name))
        except TypeError as error:
            raise ValueError(f"the weights could not be saved: {error}") from error


def _saved(net, path):
    """Save the weights in float16, give the network what was saved, and return its SHA-256."""
    save_torch_weights(net, path, "float16")
    load_torch_weights(net, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"weights in {path}, SHA-256 {digest}")
    return digest


def measure(
    net: gluon.HybridBlock, train_iter, test_iter, is_cifar100: bool = False
) -> dict[str, Any]:
    """Look at a trained network more closely; return, by name:

    ``"class_acc"``: the accuracy in each class; ``"top1_acc"`` and ``"top5_acc"``: the share of
    test images whose label has the highest score, or one of the five highest; ``"train_acc"``: the
    accuracy on the training images as they are, not augmented; ``"layer_stats"``: see there, of the
    next batch of training images; ``"coarse_acc"``, for the fine classes of CIFAR-100: the share of
    test images taken for a class of the right coarse class.
    """
    X, y = next(iter(train_iter))
    fast, stats = compile(net, X), layer_stats(net, X, y)
    as_they_are = copy.copy(train_iter)
    as_they_are.augment = None
    scores, labels = [], []
    for X, y in test_iter:
        scores.append(fast(X).asnumpy())
        labels.append(y.asnumpy())
    scores, y = onp.concatenate(scores), onp.concatenate(labels)
    y_hat = scores.argmax(axis=1)
    measured = {
        "class_acc": [float((y_hat[y == label] == label).mean()) for label in onp.unique(y)],
        "top1_acc": top_k_accuracy(scores, y, 1),
        "top5_acc": top_k_accuracy(scores, y, 5),
        "train_acc": evaluate_accuracy(fast, as_they_are),
        "layer_stats": [of_layer._asdict() for of_layer in stats],
    }
    if is_cifar100:
        coarse = onp.array(CIFAR100_COARSE_OF_FINE)
        measured["coarse_acc"] = float((coarse[y_hat] == coarse[y]).mean())
    return measured


NUM_TRAIN = (50, 200, 1000)
METHODS = ("from scratch", "linear probe", "fine-tuning")
RATES = (0.01, 0.03, 0.1)


def transfer_experiment(
    record: str = "results/transfer.json", num_steps: int = 200, num_seeds: int = 3
) -> list[dict[str, Any]]:
    """Learn CIFAR-10 from few images: from scratch, and from what CIFAR-100 has taught.

    50, 200 and 1,000 training images, as many of each class, drawn by the seed, are learned in
    ``num_steps`` batches of 50, shifted and flipped: by a fresh ``narrow_resnet18``, by a new last
    layer on the frozen features of the pre-trained one, and by fine-tuning all of that. No class of
    CIFAR-10 is one of CIFAR-100 ("truck" comes near its "pickup truck"). For each number of images
    and method, the learning rate is the one of three that is best on 2,000 other training images,
    with seed 0. So many would not be there to choose with if only 50 were labelled, but they serve
    all methods alike; the test images are looked at only after that, once for each seed. (The
    question is that of Kornblith et al., Do Better ImageNet Models Transfer Better?, 2019.)

    Every trial is recorded when it ends. Called again after an interruption, it goes on. It is a
    FileNotFoundError if CIFAR-10 or the pre-trained weights are not there, and an OSError, before
    the training, if ``record`` cannot be written.

    Returns
    -------
    list of dict
        The trials: ``"images"`` ("validation" or "test"), ``"method"``, ``"num_train"``,
        ``"seed"``, ``"lr"``, ``"num_steps"`` and ``"acc"``, the share of those images that were
        classified correctly.
    """
    how = {"normalize": (CIFAR100_MEAN, CIFAR100_STD)}  # as the features know it
    augment = Compose([RandomCrop(padding=4), RandomFlip()])
    pool, validation = load_data_cifar10(50, num_valid=2000, augment=augment, **how)
    of = {"validation": validation, "test": load_data_cifar10(50, **how)[1]}
    path = writable(record)
    trials = json.loads(path.read_text(encoding="utf-8"))["trials"] if path.exists() else []

    def acc(images, method, num_train, seed, lr):
        trial = {"images": images, "method": method, "num_train": num_train, "seed": seed, "lr": lr}
        trial["num_steps"] = num_steps
        for known in trials:
            if trial.items() <= known.items():
                return known["acc"]
        history = _learned(method, _few(pool, num_train, seed, num_steps), of[images], seed, lr)
        trials.append(trial | {"acc": history.test_acc[-1]})
        run = {name: value for name, value in history.run.items() if name not in trial}
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(json.dumps({"trials": trials, "run": run}, indent=1).encode() + b"\n")
        print(trials[-1])
        return trials[-1]["acc"]

    for num_train, method in itertools.product(NUM_TRAIN, METHODS):
        best = max(RATES, key=lambda lr: acc("validation", method, num_train, 0, lr))  # noqa: B023
        for seed in range(num_seeds):
            acc("test", method, num_train, seed, best)
    return trials


def _few(pool, num_train, seed, num_steps):
    """Return batches of a few images, as many of each class, over and over again."""
    order = onp.random.default_rng(seed).permutation(pool.num_examples)
    few = order[first_of_each_class(pool.labels[order], num_train)]
    chosen = onp.resize(few, num_steps * pool.batch_size)
    options = {"augment": pool.augment, "normalize": pool.normalize, "source": pool.source}
    return ArrayIter(
        pool.images[chosen], pool.labels[chosen], pool.batch_size, shuffle=True, **options
    )


def _learned(method, train_iter, test_iter, seed, lr):
    """Return the history of a network that learned ten classes by a method."""
    mx.random.seed(seed)
    if method == "from scratch":
        net = narrow_resnet18(10)
        net.initialize(mx.init.MSRAPrelu(slope=0))
    else:
        net = replace_head(narrow_resnet18(pretrained=True), 10)
    if method == "linear probe":
        freeze(features(net))
    options = {"seed": seed, "optimizer_params": {"momentum": 0.9, "wd": 5e-4}}
    options["threads"] = engine.num_threads()  # to be repeated
    factor = 2 if method == "fine-tuning" else 1
    return fine_tune(net, train_iter, test_iter, 1, lr, factor=factor, **options)
