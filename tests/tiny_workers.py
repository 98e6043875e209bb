"""A small run of training as a program of its own, for several workers.

``python tiny_workers.py OUT [--kvstore NAME] [--checkpoint FOLDER] [--slow] [--epochs N]``: every
process writes its parameters and history to ``OUT-RANK.npz``. A batch of all workers has 16 images.
"""

import argparse
import os
import sys
import time

if __name__ == "__main__":  # MXNet would import them, which takes longer than the run
    sys.modules["sklearn"] = sys.modules["scipy"] = None

import mxnet as mx
import numpy as onp
from mxnet.gluon import nn

from d2lres import ArrayIter, train
from d2lres.runs.workers import Workers

NUM_WORKERS = int(os.environ.get("DMLC_NUM_WORKER", 1))
LAUNCHED = "DMLC_ROLE" in os.environ


def small_net(seed=0):
    """Build a network without batch norm, whose steps do not depend on how a batch is divided."""
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, activation="relu"), nn.Conv2D(8, 3, activation="relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    return net


def data(num, batch_size, augment=None):
    """Return images, some in the last batch, that are light or dark."""
    images = onp.random.default_rng(0).integers(0, 200, (num, 1, 8, 8), onp.uint8)
    labels = onp.arange(num) % 2
    images[labels == 1] += 50
    return ArrayIter(images, labels, batch_size, shuffle=True, augment=augment)


def values(net):
    """Return the parameters of a network, those of its first device."""
    params = net._collect_params_with_prefix().items()
    return {name: param.list_data()[0].asnumpy() for name, param in params}


class Slow:
    """Takes its time over a batch."""

    def __call__(self, images, rng):
        time.sleep(0.05)
        return images

    def __repr__(self):
        return "Slow()"


def tiny_workers(kvstore=None, checkpoint=None, slow=False, epochs=2, num=65, **options):
    """Train; return the network and its history."""
    net, augment = small_net(), Slow() if slow else None
    train_iter, test_iter = data(num, 16 // NUM_WORKERS, augment), data(24, 8)
    options = {
        "optimizer_params": {"momentum": 0.9},
        "precision": "float32",
    } | options
    options |= {"kvstore": kvstore, "checkpoint": checkpoint}
    return net, train(net, train_iter, test_iter, epochs, 0.02, **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--kvstore", default="dist_sync" if LAUNCHED else None)
    parser.add_argument("--checkpoint")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args())
    out = args.pop("out")
    sys.modules["d2lres.runs.keeper"].SECONDS_BETWEEN_CHECKPOINTS = 0
    print("says who prints", flush=True)
    net, history = tiny_workers(**args)
    rank = Workers.of_process.rank if Workers.of_process else 0
    figures = [history.train_loss, history.train_acc, history.test_acc]
    onp.savez(f"{out}-{rank}.npz", figures=figures, **values(net))
