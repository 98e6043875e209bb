"""The recorded experiments: a recipe run to its end, and what is measured on its network."""

from pathlib import Path
from typing import Any

import numpy as onp
from mxnet import gluon

from .cifar import CIFAR100_COARSE_OF_FINE
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
    net, history = recipe.run(seed, checkpoint=Path("runs", f"{name}_seed{seed}"))
    if len(history) == recipe.num_epochs:
        history.run["measured"] = measure(net, *recipe.load(), recipe.data)
        print(f"recorded in {history.save(record or Path('results', f'{name}_seed{seed}.json'))}")
    return history


def measure(net: gluon.HybridBlock, train_iter, test_iter, data: str) -> dict[str, Any]:
    """Look at a trained network more closely.

    Returns
    -------
    dict
        ``"class_acc"``: the accuracy in each class; ``"top5_acc"``: the share of test images whose
        label is among the five highest scores; ``"layer_stats"``: see there, of the first batch of
        training images; ``"coarse_acc"``, for the fine classes of CIFAR-100: the share of test
        images taken for a class of the right coarse class.
    """
    scores, labels = [], []
    for X, y in test_iter:
        scores.append(net(X).asnumpy())
        labels.append(y.asnumpy())
    scores, y = onp.concatenate(scores), onp.concatenate(labels)
    y_hat = scores.argmax(axis=1)
    measured = {
        "class_acc": [float((y_hat[y == label] == label).mean()) for label in onp.unique(y)],
        "top5_acc": top_k_accuracy(scores, y, 5),
        "layer_stats": [stats._asdict() for stats in layer_stats(net, *next(iter(train_iter)))],
    }
    if data == "cifar100":
        coarse = onp.array(CIFAR100_COARSE_OF_FINE)
        measured["coarse_acc"] = float((coarse[y_hat] == coarse[y]).mean())
    return measured
