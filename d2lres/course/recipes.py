"""Recipes: all that is chosen before a run, by name, so that a run can be repeated."""

import os
from typing import Any, NamedTuple

import mxnet as mx
from mxnet import gluon, npx

from .. import models
from ..checks import whole
from ..data.augment import Augmentation, Compose, Cutout, MixUp, RandomCrop, RandomFlip
from ..data.cifar import load_data_cifar10, load_data_cifar100
from ..data.fashion_mnist import load_data_fashion_mnist
from ..runs.history import History
from ..runtime import engine
from ..training import train

__all__ = ["RECIPES", "LabelSmoothing", "Recipe"]

npx.set_np()


class LabelSmoothing(gluon.loss.Loss):
    """The cross-entropy against labels of which a part ``smoothing`` is spread over all classes.

    0 is the plain cross-entropy, 1 the most. See Szegedy et al., Rethinking the Inception
    Architecture for Computer Vision (2016), section 7.
    """

    def __init__(self, smoothing, **kwargs):
        super().__init__(weight=None, batch_axis=0, **kwargs)
        self.smoothing = smoothing

    def hybrid_forward(self, F, Y_hat, y):
        log_p = F.npx.log_softmax(Y_hat)
        of_label = F.npx.pick(log_p, y)
        return -(1 - self.smoothing) * of_label - self.smoothing * F.np.mean(log_p, axis=1)


class Recipe(NamedTuple):
    """A network, its data and how it is trained.

    The schedule "one cycle" rises along a line for the share ``warmup`` of all steps and then falls
    to zero along a cosine (Smith and Topin, Super-Convergence, 2018); "steps" divides by 10 after a
    half and after three quarters; the third is "constant". Only weights decay, no biases and no
    batch norms, and labels may be smoothed (He et al., Bag of Tricks for Image Classification with
    Convolutional Neural Networks, 2019, sections 3.1 and 5). Adam has no momentum.
    """

    network: str  # the name of a function of d2lres.models
    options: dict[str, Any]  # what it is called with
    data: str  # "fashion_mnist", "cifar10" or "cifar100"
    num_epochs: int
    batch_size: int
    lr: float  # the highest
    schedule: str
    optimizer: str = "sgd"
    momentum: float = 0.9
    wd: float = 0
    smoothing: float = 0
    augment: tuple[Augmentation, ...] = ()  # of the training images, in this order
    mixup: MixUp | None = None
    warmup: float = 0
    num_train: int | None = None  # train on so many images only

    def build(self) -> gluon.HybridBlock:
        """Return the network with fresh weights (He et al., 2015), of which only some decay."""
        net = getattr(models, self.network)(**self.options)
        net.initialize(mx.init.MSRAPrelu(slope=0))
        net.collect_params(".*(bias|gamma|beta)$").setattr("wd_mult", 0)
        return net

    def load(self, num_valid: int | None = None) -> tuple:
        """Return iterators over the augmented training images and the test images.

        With ``num_valid`` so many of the training images are kept for validation and returned in
        place of the test images, which then stay unseen: for choosing a recipe.
        """
        load = {
            "fashion_mnist": load_data_fashion_mnist,
            "cifar10": load_data_cifar10,
            "cifar100": load_data_cifar100,
        }[self.data]
        augment = Compose(self.augment) if self.augment else None
        options = {"num_train": self.num_train, "num_valid": num_valid, "augment": augment}
        return load(self.batch_size, **options)

    def scheduler(self, num_batches: int) -> mx.lr_scheduler.LRScheduler | None:
        """Return MXNet's scheduler for epochs of so many batches; ValueError if there is none."""
        num_steps = self.num_epochs * num_batches
        if self.schedule == "one cycle":
            rise = {"warmup_steps": int(self.warmup * num_steps), "warmup_begin_lr": self.lr / 20}
            return mx.lr_scheduler.CosineScheduler(num_steps, self.lr, final_lr=0, **rise)
        if self.schedule == "steps":
            steps = [num_steps // 2, num_steps * 3 // 4]
            return mx.lr_scheduler.MultiFactorScheduler(steps, factor=0.1, base_lr=self.lr)
        if self.schedule == "constant":
            return None
        raise ValueError(f"schedule is 'one cycle', 'steps' or 'constant', not {self.schedule!r}")

    def run(
        self,
        train_iter,
        test_iter,
        seed: int = 0,
        precision: str = "auto",
        checkpoint: str | os.PathLike | None = None,
    ) -> tuple[gluon.HybridBlock, History]:
        """Train by this recipe; return the trained network and its history.

        The number of threads is fixed, so that the run can be repeated.

        Parameters
        ----------
        train_iter, test_iter : ArrayIter
            What ``load`` returns.
        seed, precision, checkpoint
            See ``train``.
        """
        whole("num_epochs", self.num_epochs)  # of which the scheduler needs one
        mx.random.seed(seed)
        net = self.build()
        momentum = {"momentum": self.momentum} if self.optimizer == "sgd" else {}
        history = train(
            net,
            train_iter,
            test_iter,
            self.num_epochs,
            self.lr,
            seed=seed,
            scheduler=self.scheduler(len(train_iter)),
            precision=precision,
            optimizer=self.optimizer,
            optimizer_params={**momentum, "wd": self.wd},
            loss=LabelSmoothing(self.smoothing) if self.smoothing else None,
            mixup=self.mixup,
            checkpoint=checkpoint,
            threads=engine.num_threads(),
        )
        kinds = {"augment": repr(list(self.augment)), "mixup": repr(self.mixup)}
        history.run["recipe"] = self._asdict() | kinds
        return net, history


# the paper's recipe (He et al. 2016, section 4.2) but for its length and, first, its schedule
_CIFAR10 = Recipe(
    network="cifar_resnet",
    options={"depth": 20},
    data="cifar10",
    num_epochs=15,
    batch_size=128,
    lr=0.1,
    schedule="one cycle",
    wd=1e-4,
    augment=(RandomCrop(padding=4), RandomFlip()),
    warmup=0.2,
)
_CIFAR100 = _CIFAR10._replace(
    network="narrow_resnet18", options={}, data="cifar100", num_epochs=24, wd=5e-4
)
# few images and a network that learns them by heart, for what augmentation does about it
_FEW = _CIFAR10._replace(
    network="small_resnet",
    options={},
    num_train=2_000,
    num_epochs=30,
    batch_size=64,
    augment=(),
    wd=5e-4,
)
RECIPES = {
    "fast": Recipe(
        network="small_resnet",
        options={"widths": (16, 32, 64, 128)},
        data="fashion_mnist",
        num_epochs=13,
        batch_size=128,
        lr=0.2,
        schedule="one cycle",
        wd=5e-4,
        smoothing=0.1,
        augment=(RandomCrop(padding=1), RandomFlip()),
        warmup=0.2,
    ),
    **{
        f"{kind}{depth}": _CIFAR10._replace(options={"depth": depth, "residual": kind == "resnet"})
        for kind in ("plain", "resnet")
        for depth in (20, 56)
    },
    "resnet110": _CIFAR10._replace(options={"depth": 110, "preact": False}, num_epochs=3),
    "preact110": _CIFAR10._replace(options={"depth": 110, "preact": True}, num_epochs=3),
    "few": _FEW,
    "few-crop-flip": _FEW._replace(augment=_CIFAR10.augment),
    "few-cutout": _FEW._replace(augment=(*_CIFAR10.augment, Cutout(8))),
    "few-mixup": _FEW._replace(augment=_CIFAR10.augment, mixup=MixUp(1)),
    "resnet20-80": _CIFAR10._replace(num_epochs=80, schedule="steps", warmup=0),
    "cifar100": _CIFAR100._replace(
        network="resnet18",
        options={"num_classes": 100, "form": "paper", "stem": "cifar"},
        num_epochs=12,
    ),
    "cifar100-narrow": _CIFAR100,
    "cifar100-narrow-adam": _CIFAR100._replace(
        lr=3e-4, schedule="constant", optimizer="adam", wd=0, warmup=0
    ),
}
