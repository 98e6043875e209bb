"""The recorded experiments: a recipe run to its end, and what is measured on its network."""

from pathlib import Path
from typing import Any

import numpy as onp
from mxnet import gluon

from .cifar import CIFAR100_COARSE_OF_FINE
from .compile import compile
from .recipe import RECIPES
from .summary import layer_stats
from .train import History, top_k_accuracy

__all__ = ["experiment", "measure"]


def experiment(
    name: str, seed: int = 0, num_epochs: int | None = None, record: str | None = None
) -> History:
    """Train by a recipe, saving checkpoints under ``runs/``, and record the run.

    Called again after an interruption, it goes on.

    Parameters
    ----------
    name : str
        One of ``RECIPES``.
    seed : int, default 0
    num_epochs : int, optional
        By default the recipe's.
    record : path, optional
        By default ``results/NAME_seedN.json``.

    Returns
    -------
    History
        Not recorded if the run was told to stop before its end.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no experiment {name!r}: choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    recipe = recipe._replace(num_epochs=num_epochs or recipe.num_epochs)
    data = train_iter, test_iter = recipe.load()
    net, history = recipe.run(*data, seed, checkpoint=Path("runs", f"{name}_seed{seed}"))
    if len(history) == recipe.num_epochs:
        train_iter.epoch = 0
        history.run["measured"] = measure(net, *data, is_cifar100=recipe.data == "cifar100")
        print(f"recorded in {history.save(record or Path('results', f'{name}_seed{seed}.json'))}")
    return history


def measure(
    net: gluon.HybridBlock, train_iter, test_iter, is_cifar100: bool = False
) -> dict[str, Any]:
    """Look at a trained network more closely.

    Returns
    -------
    dict
        ``"class_acc"``: the accuracy in each class; ``"top5_acc"``: the share of test images whose
        label is among the five highest scores; ``"layer_stats"``: see there, of the next batch of
        training images; ``"coarse_acc"``, for the fine classes of CIFAR-100: the share of test
        images taken for a class of the right coarse class.
    """
    X, y = next(iter(train_iter))
    fast, stats = compile(net, X), layer_stats(net, X, y)
    scores, labels = [], []
    for X, y in test_iter:
        scores.append(fast(X).asnumpy())
        labels.append(y.asnumpy())
    scores, y = onp.concatenate(scores), onp.concatenate(labels)
    y_hat = scores.argmax(axis=1)
    measured = {
        "class_acc": [float((y_hat[y == label] == label).mean()) for label in onp.unique(y)],
        "top5_acc": top_k_accuracy(scores, y, 5),
        "layer_stats": [of_layer._asdict() for of_layer in stats],
    }
    if is_cifar100:
        coarse = onp.array(CIFAR100_COARSE_OF_FINE)
        measured["coarse_acc"] = float((coarse[y_hat] == coarse[y]).mean())
    return measured
