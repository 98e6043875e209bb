"""A recipe for high accuracy in little time: a small network and all that makes it learn fast."""

from typing import NamedTuple

import mxnet as mx
from mxnet import gluon, npx

from .augment import Compose, RandomCrop, RandomFlip
from .data import load_data_fashion_mnist
from .models import small_resnet
from .train import History, train

__all__ = ["FAST", "LabelSmoothing", "Recipe"]

npx.set_np()


class LabelSmoothing(gluon.loss.Loss):
    """The cross-entropy against labels of which a part ``smoothing`` is spread over all classes.

    Parameters
    ----------
    smoothing : float
        Between 0, the plain cross-entropy, and 1.

    References
    ----------
    Szegedy et al., Rethinking the Inception Architecture for Computer Vision (2016), section 7.
    """

    def __init__(self, smoothing, **kwargs):
        super().__init__(weight=None, batch_axis=0, **kwargs)
        self.smoothing = smoothing

    def hybrid_forward(self, F, Y_hat, y):
        log_p = F.npx.log_softmax(Y_hat)
        of_label = F.npx.pick(log_p, y)
        return -(1 - self.smoothing) * of_label - self.smoothing * F.np.mean(log_p, axis=1)


class Recipe(NamedTuple):
    """All that is chosen before a run on Fashion-MNIST at 28x28 pixels.

    The learning rate rises along a line and falls to zero along a cosine (one cycle).

    Attributes
    ----------
    widths : tuple of int
        See ``small_resnet``.
    num_epochs, batch_size : int
    lr : float
        The highest learning rate.
    warmup : float
        Share of the steps in which the learning rate rises.
    momentum, wd : float
        Only weights decay, no biases and no batch norms.
    smoothing : float
        See ``LabelSmoothing``.
    padding : int
        Training images are shifted by up to so many pixels, see ``RandomCrop``, and flipped.

    References
    ----------
    Smith and Topin, Super-Convergence (2018); He et al., Bag of Tricks for Image Classification
    with Convolutional Neural Networks (2019), sections 3.1 and 5.
    """

    widths: tuple[int, ...]
    num_epochs: int
    batch_size: int
    lr: float
    warmup: float
    momentum: float
    wd: float
    smoothing: float
    padding: int

    def run(self, seed: int = 0, num_valid: int | None = None, precision: str = "auto") -> History:
        """Train by this recipe.

        Parameters
        ----------
        seed : int, default 0
        num_valid : int, optional
            Keep so many of the training images for validation in place of the test images, which
            then stay unseen: for choosing a recipe.
        precision : {"auto", "float32", "bfloat16"}, default "auto"

        Returns
        -------
        History
            ``test_acc`` is that of the validation images if there are any.
        """
        train_iter, test_iter = load_data_fashion_mnist(
            self.batch_size,
            num_valid=num_valid,
            augment=Compose([RandomCrop(padding=self.padding), RandomFlip()]),
        )
        mx.random.seed(seed)
        net = small_resnet(self.widths)
        net.initialize(mx.init.MSRAPrelu(slope=0))
        net.collect_params(".*(bias|gamma|beta)$").setattr("wd_mult", 0)
        num_steps = self.num_epochs * len(train_iter)
        scheduler = mx.lr_scheduler.CosineScheduler(
            num_steps,
            self.lr,
            final_lr=0,
            warmup_steps=int(self.warmup * num_steps),
            warmup_begin_lr=self.lr / 20,
        )
        history = train(
            net,
            train_iter,
            test_iter,
            self.num_epochs,
            self.lr,
            seed=seed,
            scheduler=scheduler,
            precision=precision,
            optimizer="sgd",
            optimizer_params={"momentum": self.momentum, "wd": self.wd},
            loss=LabelSmoothing(self.smoothing),
        )
        history.run["recipe"] = self._asdict()
        return history


FAST = Recipe(
    widths=(16, 32, 64, 128),
    num_epochs=13,
    batch_size=128,
    lr=0.2,
    warmup=0.2,
    momentum=0.9,
    wd=5e-4,
    smoothing=0.1,
    padding=1,
)
