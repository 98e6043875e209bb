"""A small run of training as a program of its own, for tests that interrupt it.

``python tiny_run.py FOLDER NUM_EPOCHS`` saves a checkpoint after every batch, prints a line before
each, and in the end what `tiny_run` returns. It does without SciPy and scikit-learn.
"""

import hashlib
import sys

if __name__ == "__main__":  # MXNet would import them, which takes longer than the run
    sys.modules["sklearn"] = sys.modules["scipy"] = None

import mxnet as mx
import numpy as onp
from mxnet.gluon import nn

from d2lres import ArrayIter, train

BATCHES = 4  # an epoch


class At:
    """An augmentation that changes nothing, and does something when a batch comes.

    The first batch of a run is number 1, that of the second epoch ``1 + BATCHES``.
    """

    def __init__(self, actions=()):
        self.actions, self.batch = dict(actions), -2  # the first two calls find shapes

    def __call__(self, images, rng):
        self.batch += 1
        self.actions.get(self.batch, lambda: None)()
        return images

    def __repr__(self):
        return "At()"


class Announce(At):
    """Prints a line before each batch."""

    def __call__(self, images, rng):
        print("batch", flush=True)
        return images


def tiny_run(checkpoint=None, augment=None, num_epochs=60):
    """Train a small network; return the digest of its parameters and the measured history."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.3), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    images = onp.random.default_rng(0).integers(0, 256, (8 * BATCHES - 2, 1, 8, 8), onp.uint8)
    labels = images[:, 0, 0, 0] // 128
    train_iter = ArrayIter(images, labels, 8, shuffle=True, augment=augment or At())
    test_iter = ArrayIter(images[:8], labels[:8], 8)
    cosine = mx.lr_scheduler.CosineScheduler(num_epochs * BATCHES, 0.01, warmup_steps=9)
    options = {"optimizer": "adam", "scheduler": cosine, "precision": "float32"}
    history = train(net, train_iter, test_iter, num_epochs, 0.01, checkpoint=checkpoint, **options)
    params = [p.data().asnumpy() for p in net._collect_params_with_prefix().values()]
    digest = hashlib.sha256(b"".join(p.tobytes() for p in params)).hexdigest()
    return f"{digest} {history.train_loss} {history.train_acc} {history.test_acc}"


if __name__ == "__main__":
    sys.modules["d2lres.runs.keeper"].SECONDS_BETWEEN_CHECKPOINTS = 0
    print(tiny_run(sys.argv[1], Announce(), int(sys.argv[2])))
