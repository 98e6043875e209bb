"""The exercises of the lessons: `check` says whether an answer is right, or gives a hint."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as onp
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn

from ..blocks import PreActResidual, Residual, make_conv, resnet_block, sequence
from ..checks import as_numpy, reason
from ..data.augment import Compose, Cutout, RandomCrop, RandomFlip
from ..data.cifar import CIFAR100_COARSE_OF_FINE
from ..inspection import summary
from ..models import cifar_resnet, resnet18, resnet34, small_resnet, stem
from .judging import Wrong, called, expect, expect_array, expect_network, means
from .recipes import RECIPES

__all__ = ["EXERCISES", "check"]

npx.set_np()

EXERCISES: dict[str, Callable[[Any], None]] = {}  # what raises Wrong if an answer is


def check(exercise: str, answer: Any) -> str:
    """Say whether an answer to an exercise is right.

    Parameters
    ----------
    exercise : str
        The numbers of the lesson and of the exercise in it, such as ``"1.2"``.
    answer
        What is asked for; None is no answer yet. Numbers may be Python's, NumPy's or MXNet's, and
        in a list or a tuple. Code is tried on several inputs, and a network, which gets new
        weights, on several images.

    Returns
    -------
    str
        "right", "not answered yet", or "not right yet" with a hint.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    if exercise not in EXERCISES:
        raise ValueError(
            f"there is no exercise {exercise!r} that checks itself. Write the numbers of lesson "
            f'and exercise as text: "1.2". There are {", ".join(EXERCISES)}.'
        )
    if answer is None:
        return "not answered yet"
    try:
        EXERCISES[exercise](answer)
    except Wrong as hint:
        return f"not right yet: {hint}"
    except Exception as error:  # of the student's code, which may do anything
        return f"not right yet: your code stops with {type(error).__name__}: {reason(error)}"
    return "right"


def exercise(name: str) -> Callable:
    """Register a function that judges the answers to an exercise."""
    return functools.partial(EXERCISES.setdefault, name)


def value(name: str, right: Any, hint: str, slips: dict[Any, str] | None = None) -> None:
    """Register an exercise that asks for a value; a function computes the right one, once."""
    right = functools.cache(right) if callable(right) else right

    def judge(answer):
        expect(answer, right() if callable(right) else right, hint, slips)

    EXERCISES[name] = judge


def uniform(*shape, seed=0, low=-1.0, high=1.0):
    """Return random numbers as an array of NumPy."""
    return onp.random.default_rng(seed).uniform(low, high, shape).astype("float32")


def num_params(net, *shape):
    """Return how many trainable parameters a network has."""
    return summary(net, shape).num_params


# --- 1: the residual block


def output_shape(net, *shape):
    net.initialize()
    return net(np.zeros(shape)).shape


value(
    "1.1",
    lambda: output_shape(Residual(8, use_1x1conv=True, strides=2), 2, 3, 7, 7),
    "Batch, channels, height, width. How many steps of 2 does a 3x3 window make over 7 pixels and "
    "a zero on each side?",
    {
        (2, 8, 3, 3): "Half of 7 is not rounded down here: there is a zero on each side.",
        (8, 4, 4): "The batch has an axis, too.",
    },
)
value(
    "1.2",
    lambda: num_params(Residual(3), 3, 6, 6),
    "Two convolutions, each with 3·3 weights for every pair of channels and a bias for every "
    "channel out, and two batch norms.",
    {
        162: "These are the weights alone. What else is learned?",
        168: "And the batch norms?",
        174: "And the biases of the convolutions?",
        192: "The running averages of the batch norms are not trained.",
    },
)
value(
    "1.3",
    (4, 6, 6, 6),
    "What does NumPy do when an axis of length 1 meets a longer one?",
    {"fails": "Run it. What does NumPy do when an axis of length 1 meets a longer one?"},
)


@exercise("1.4")
def write_residual(answer):
    hint = "Go through hybrid_forward line by line: what is added, and what comes after it?"
    for args, shapes in {
        (3,): [(4, 3, 6, 6), (2, 3, 5, 7)],
        (8, True): [(2, 3, 6, 6)],
        (6, True, 2): [(2, 4, 7, 6), (3, 4, 8, 8)],
    }.items():
        expect_network(called(answer, *args), Residual(*args), *shapes, hint=hint)


class PreActivation(nn.HybridBlock):
    """The layers of ``Residual(num_channels)`` in the order of He et al. (2016b)."""

    def __init__(self, num_channels):
        super().__init__()
        self.branch = sequence(
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Conv2D(num_channels, kernel_size=3, padding=1),
            nn.BatchNorm(),
            nn.Activation("relu"),
            nn.Conv2D(num_channels, kernel_size=3, padding=1),
        )

    def hybrid_forward(self, F, X):
        return X + self.branch(X)


@exercise("1.5")
def write_preactivation(answer):
    hint = "Batch norm, ReLU, convolution, and once more. Then the addition, and nothing after it."
    for num_channels in (3, 8):
        shapes = (4, num_channels, 6, 6), (2, num_channels, 5, 7)
        expect_network(
            called(answer, num_channels), PreActivation(num_channels), *shapes, hint=hint
        )


# --- 2: ResNet-18

value(
    "2.1",
    lambda: output_shape(resnet18()[:4], 1, 1, 60, 60)[1:],
    "Each step halves the side. Where the side is odd, think of the zero on each side.",
    {
        (256, 3, 3): "Half of 15 is not rounded down here.",
        (1, 256, 4, 4): "Without the batch axis.",
        (128, 8, 8): "That is stage 2.",
    },
)
value(
    "2.2",
    lambda: num_params(resnet18(1000), 1, 32, 32) - num_params(resnet18(10), 1, 32, 32),
    "Only the dense layer changes. What does it have for each class?",
    {
        990 * 512: "Each class has a bias, too.",
        1000 * 513: "Ten of the thousand classes were there before.",
    },
)


@exercise("2.3")
def build_resnet34(answer):
    right = sequence(
        stem(64),
        resnet_block(64, 3, first_block=True),
        resnet_block(128, 4),
        resnet_block(256, 6),
        resnet_block(512, 3),
        nn.GlobalAvgPool2D(),
        nn.Dense(10),
    )
    hint = "The stem, 3, 4, 6 and 3 blocks, the pooling and a dense layer for 10 classes."
    expect_network(answer, right, (2, 1, 64, 64), hint=hint)


@exercise("2.4")
def sides_of_stages(answer):
    stages = [resnet_block(1, 1, first_block=True), *(resnet_block(1, 1) for _ in range(3))]
    parts = [stem(1), *stages]
    for part in parts:
        part.initialize()
    for size in (96, 28, 224, 61, 33):
        X, right = np.zeros((1, 1, size, size)), []
        for part in parts:
            X = part(X)
            right.append(X.shape[-1])
        hint = "The stem halves the side twice, stages 2 to 4 once each. An odd side is rounded up."
        expect(called(answer, size), right, f"For {size} pixels it is something else. {hint}")


# --- 3: Fashion-MNIST

value(
    "3.1",
    math.ceil(60_000 / 256),
    "How many batches does it take to see every image once?",
    {60_000 // 256: "Some images are left over. They make a batch, too."},
)
SMALL = onp.array([[8, 2, 0], [1, 9, 0], [3, 0, 7]])
value(
    "3.2",
    SMALL.trace() / SMALL.sum(),
    "Where in the matrix are the images that were classified correctly?",
    {80: "As a share, between 0 and 1.", 0.2: "That is the error."},
)


@exercise("3.3")
def accuracy_of_classes(answer):
    for num_classes in (3, 10):
        matrix = onp.random.default_rng(num_classes).integers(1, 50, (num_classes, num_classes))
        right = matrix.diagonal() / matrix.sum(axis=1)
        came = called(answer, matrix)
        if means(came, matrix.diagonal() / matrix.sum(axis=0)):
            raise Wrong("You divide by how often a class was predicted. How often does it occur?")
        expect_array(came, right, f"for {num_classes} classes", "Row i has the images of class i.")


@exercise("3.4")
def cross_entropy(answer):
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for factor, hint in {
        1: "It is minus the logarithm of the probability that softmax gives to the right class.",
        1000: "exp(1000) is infinite. Subtract the largest score of each image first: that changes "
        "no probability.",
    }.items():
        scores, y = np.array(factor * uniform(8, 10)), np.array([3, 1, 4, 1, 5, 9, 2, 6])
        right = float(loss(scores, y).mean())
        came = as_numpy(called(answer, scores, y))
        if means(came, 8 * right):
            raise Wrong("That is the sum over the images. The mean is asked for.")
        expect_array(came, right, f"for scores up to {factor}", hint)


# --- 4: degradation

value(
    "4.1",
    "B",
    "Which error does degradation show in, that on new images or that on the images it learned?",
)


def num_blocks(depth):
    return sum(len(stage) for stage in cifar_resnet(depth, residual=False)[1:4])


value(
    "4.2",
    lambda: num_blocks(110) - num_blocks(20),
    "depth = 6n + 2, with n blocks in each of the three stages.",
    {54: "Some of them are copies.", 15: "That is one stage.", 90: "A block has two layers."},
)


def more_than_plain(shortcut):
    nets = cifar_resnet(56, shortcut=shortcut), cifar_resnet(56, residual=False)
    residual, plain = (num_params(net, 3, 32, 32) for net in nets)
    return residual - plain


value(
    "4.3",
    lambda: (more_than_plain("A"), more_than_plain("B")),
    "What do zeros cost? And which two shortcuts change the shape: from 16 to 32 channels and ...?",
    {
        (0, 16 * 32 + 32 * 64): "Each batch norm has two numbers per channel.",
        (0, 16 * 32 + 32 + 32 * 64 + 64): "A batch norm has two numbers per channel, not one.",
    },
)


@exercise("4.4")
def zero_branches(answer):
    for options in ({"depth": 8}, {"depth": 20, "shortcut": "C"}):
        net = cifar_resnet(**options)
        net.initialize()
        net(np.array(uniform(1, 3, 8, 8)))  # as one that has seen images
        right = {name: p.data().copy() for name, p in net.collect_params().items()}
        for blk in (blk for stage in net[1:4] for blk in stage):
            right[blk.body[-1].gamma.name][:] = 0
        if not callable(answer):
            raise Wrong("expected a function of a network")
        answer(net)  # in place: what it returns does not matter
        for name, param in net.collect_params().items():
            if not (param.data() == right[name]).all():
                is_zero = not right[name].any()
                raise Wrong(
                    f"{name} should {'now be zero' if is_zero else 'be what it was'}. One batch "
                    "norm in each block is enough, the last in its branch, and of that one gamma."
                )


@exercise("4.5")
def without_a_block(answer):
    net, X = cifar_resnet(20), np.array(uniform(2, 3, 16, 16))
    net.initialize()
    before = net(X)
    for stage, block in ((1, 0), (1, 2), (2, 1), (3, 2)):
        Y = X
        for i, part in enumerate(net):
            for j, layer in enumerate(part if 1 <= i <= 3 else [part]):
                Y = Y if (i, j) == (stage, block) else layer(Y)
        came, case = called(answer, net, stage, block)(X), f"for stage {stage} and block {block}"
        expect_array(came, Y, case, "All layers but one, in their order, with the weights of net.")
        if not (net(X) == before).all():
            raise Wrong("net itself has lost a block. Build a new network from its layers")


# --- 5: ResNet-20 on CIFAR-10

value(
    "5.1",
    lambda: len(cifar_resnet(110)[1]),
    "The depth is 6n + 2.",
    {36: "These are the convolutions. A block has two.", 54: "There are three stages."},
)
value(
    "5.2",
    lambda: more_than_plain("B") - more_than_plain("A"),
    "From 16 to 32 channels and from 32 to 64: weights without biases, and two numbers for each "
    "channel of a batch norm.",
    {16 * 32 + 32 * 64: "And the batch norms?"},
)


def steps_before_the_lowest():
    scheduler = RECIPES["resnet20-80"].scheduler(391)
    return sum(scheduler(step) > 0.005 for step in range(1, 80 * 391 + 1))


value(
    "5.3",
    steps_before_the_lowest,
    "It is divided by ten twice. After which share of the 80 epochs is the second time?",
    {
        60: "In steps, not in epochs.",
        40 * 391: "From there on it is 0.01.",
        80 * 391: "That is the whole run.",
    },
)


def forms_of_an_image():
    rng = onp.random.default_rng(0)
    images = rng.integers(256, size=(1, 1, 32, 32), dtype="uint8").repeat(3000, axis=0)
    augment = Compose([RandomCrop(padding=4), RandomFlip()])
    return len({image.tobytes() for image in augment(images, rng)})


value(
    "5.4",
    forms_of_an_image,
    "How many places are there from 4 pixels up to 4 pixels down? As many from left to right, and "
    "each flipped or not.",
    {81: "And flipped?", 128: "There is also the shift by no pixel.", 64: "And by no pixel?"},
)


@exercise("5.5")
def shortcut_a(answer):
    for shape, num_channels, strides in (
        ((2, 4, 6, 6), 8, 2),
        ((1, 3, 5, 7), 10, 2),
        ((2, 2, 4, 4), 3, 1),
    ):
        X = uniform(*shape)
        picked = X[:, :, ::strides, ::strides]
        missing = num_channels - shape[1]
        right = onp.pad(picked, ((0, 0), (0, missing), (0, 0), (0, 0)))
        case = f"for X of shape {shape}, {num_channels} channels and stride {strides}"
        hint = "The channels of X come first, the zeros after them."
        expect_array(called(answer, np.array(X), num_channels, strides), right, case, hint)


@exercise("5.6")
def paired(answer):
    rng = onp.random.default_rng(0)
    for share_A, share_C in ((0.9, 0.8), (0.7, 0.75)):
        hits_A, hits_C = (rng.random(2000) < share for share in (share_A, share_C))
        only_A, only_C = (hits_A & ~hits_C).sum(), (hits_C & ~hits_A).sum()
        right = (only_A - only_C) / math.sqrt(only_A + only_C)
        came = called(answer, hits_A, hits_C)
        hint = "Of m coins the difference of the two sides has a standard deviation of √m. Which m?"
        slips = {-right: "The other way round: positive where A is better."}
        expect(came, float(right), hint, slips)


# --- 6: ResNet-18 on CIFAR-100


def first_conv():
    net = resnet18(num_classes=100, form="paper", stem="cifar")
    return summary(net, (3, 32, 32)).rows[0].num_params


value(
    "6.1",
    first_conv,
    "A weight for each place of the window, each colour and each of the 64 channels.",
    {
        7 * 7 * 3 * 64: "That is the stem for large images.",
        3 * 3 * 64: "The images have three colours.",
        3 * 3 * 3 * 64 + 64: "A batch norm follows, so there are no biases.",
    },
)
value(
    "6.2",
    lambda: 2 * len(resnet34(num_classes=100, stem="cifar")[3]),
    "How many blocks does stage 3 have, and how many convolutions a block?",
    {6: "These are the blocks.", 13: "The 1x1 convolution on the shortcut is not 3x3."},
)
value(
    "6.3",
    2 / 3,
    "In how many of the three images is the label among the two highest scores?",
    {
        1 / 3: "That is the top-1 accuracy.",
        2: "As a share of the three images.",
        1.0: "Look again.",
    },
)


def share_of_a_superclass():
    coarse = onp.array(CIFAR100_COARSE_OF_FINE)
    return (coarse[:, None] == coarse).mean()


value(
    "6.4",
    share_of_a_superclass,
    "How many of the hundred classes are in the superclass of the image?",
    {
        0.01: "That is the class itself.",
        4 / 99: "Here the right class counts, too.",
        0.2: "The superclasses are twenty, not five.",
        5: "As a probability, between 0 and 1.",
    },
)


@exercise("6.5")
def probabilities_of_superclasses(answer):
    for num_images in (1, 7):
        fine = uniform(num_images, 100, seed=num_images, low=0)
        fine /= fine.sum(axis=1, keepdims=True)
        right = onp.zeros((num_images, 20))
        for k, coarse in enumerate(CIFAR100_COARSE_OF_FINE):
            right[:, coarse] += fine[:, k]
        hint = "Class k is one of the superclass CIFAR100_COARSE_OF_FINE[k]: the fives do not "
        hint += "stand next to each other."
        expect_array(called(answer, fine), right, f"for {num_images} images", hint)


@exercise("6.6")
def warm_up_and_cosine(answer):
    num_steps, lr, num_warmup = 100, 0.4, 10
    for step, hint in {
        0: "It starts at 0.",
        5: "Until step num_warmup it rises along a line.",
        10: "At step num_warmup it is lr.",
        40: "The cosine begins at step num_warmup, not at step 0.",
        55: "Halfway down the cosine it is half of lr.",
        90: "After the warm-up it follows half a wave: (1 + cos) / 2, from angle 0 to π.",
        100: "At step num_steps it is 0.",
    }.items():
        done = (step - num_warmup) / (num_steps - num_warmup)
        right = lr * step / num_warmup if done < 0 else lr * (1 + math.cos(math.pi * done)) / 2
        expect(called(answer, step, num_steps, lr, num_warmup), right, f"At step {step}: {hint}")


# --- 7: bottlenecks

value(
    "7.1",
    lambda: summary(make_conv(128, 512, 1), (512, 28, 28)).multiply_adds,
    "Each weight is used once for every pixel of the output.",
    {
        512 * 128: "These are the weights. How often is each used?",
        9 * 512 * 128 * 28 * 28: "A 1x1 window has one pixel, not nine.",
    },
)
value(
    "7.2",
    lambda: next(n for n in range(200) if 1 + 3 * (3 + 24 + n + 3) + 1 == 200),
    "A bottleneck has three layers. Which two layers are in no block?",
    {66: "These are all blocks together.", 37: "The stem and the dense layer are two layers."},
)


class SqueezeExcitation(nn.HybridBlock):
    """Multiplies each channel by a number that depends on the means of all channels."""

    def __init__(self, num_channels, ratio):
        super().__init__()
        self.weigh = sequence(
            nn.GlobalAvgPool2D(),
            nn.Dense(num_channels // ratio, activation="relu"),
            nn.Dense(num_channels, activation="sigmoid"),
        )

    def hybrid_forward(self, F, X):
        return X * F.np.expand_dims(F.np.expand_dims(self.weigh(X), axis=2), axis=3)


@exercise("7.3")
def squeeze_excitation(answer):
    hint = "The mean of each channel, a dense layer with ReLU, a dense layer with sigmoid; then X "
    hint += "times the result, which needs two more axes."
    for num_channels, ratio in ((8, 4), (32, 2)):
        shapes = (2, num_channels, 5, 6), (3, num_channels, 4, 4)
        right = SqueezeExcitation(num_channels, ratio)
        expect_network(called(answer, num_channels, ratio), right, *shapes, hint=hint)


@exercise("7.4")
def shortcut_of_resnet_d(answer):
    hint = "First the mean of 2x2 pixels, with stride 2. Then a 1x1 convolution without bias, with "
    hint += "stride 1, and batch norm."
    for num_channels, in_channels in ((8, 4), (5, 3)):
        right = sequence(
            nn.AvgPool2D(pool_size=2, strides=2),
            make_conv(num_channels, in_channels, 1),
            nn.BatchNorm(),
        )
        shapes = (2, in_channels, 6, 6), (3, in_channels, 4, 8)
        expect_network(called(answer, num_channels, in_channels), right, *shapes, hint=hint)


# --- 8: batch norm

value(
    "8.1",
    3 * (6 - 2) / math.sqrt(4) + 1,
    "Subtract the mean, divide by the standard deviation, then gamma and beta.",
    {
        3 * (6 - 2) / 4 + 1: "Divide by the standard deviation. The variance is its square.",
        3 * (6 - 2) + 1: "And the variance?",
        3 * (6 - 2) / math.sqrt(4): "And beta?",
        (6 - 2) / math.sqrt(4): "And gamma and beta?",
    },
)


@exercise("8.2")
def batch_norm_by_hand(answer):
    for shape in ((4, 3, 5, 6), (2, 8, 3, 3)):
        X, gamma, beta = 3 * uniform(*shape) + 1, *(uniform(shape[1], seed=s) for s in (1, 2))
        bn = nn.BatchNorm(in_channels=shape[1])
        bn.initialize()
        bn.gamma.set_data(np.array(gamma))
        bn.beta.set_data(np.array(beta))
        with autograd.train_mode():
            right = bn(np.array(X))
        arrays = map(np.array, (X, gamma, beta))
        hint = "Each channel has one mean and one variance: over which three axes?"
        expect_array(called(answer, *arrays), right, f"for X of shape {shape}", hint)


@exercise("8.3")
def stochastic_depth(answer):
    blk, X = PreActResidual(4, 4), np.array(uniform(2, 4, 5, 5))
    blk.initialize()
    with autograd.train_mode():
        in_full = blk(X)
    for p in (0.0, 0.5, 1.0):
        net, skipped = called(answer, blk, p), []
        hint = "Outside of training the branch is weighted by how often it takes part: 1 - p."
        right = X + (1 - p) * (blk(X) - X)
        expect_array(net(X), right, f"outside of training, with p={p}", hint)
        with autograd.train_mode():
            for _ in range(60):
                Y = net(X)
                skipped.append(bool((Y == X).all()))
                if not skipped[-1]:
                    case = f"in training, with p={p}"
                    expect_array(Y, in_full, case, "There it is all of blk(X), or X itself.")
        if abs(onp.mean(skipped) - p) > 0.3:
            raise Wrong(
                f"of 60 training passes with p={p}, {sum(skipped)} left the branch out. Draw a new "
                "random number in each pass, and leave it out with probability p"
            )


# --- 9: PyTorch and Keras

value(
    "9.1",
    (32, 16, 3, 3),
    "In Gluon: out, in, height, width.",
    {
        (16, 32, 3, 3): "Which of the two is out?",
        (32, 3, 3, 16): "The axes of the window come last.",
        (3, 3, 16, 32): "That is how Keras has it.",
    },
)


def zeros_of_same(size, kernel_size, strides):
    """Return how many zeros ``padding="same"`` puts before and after the pixels of an axis."""
    missing = max((math.ceil(size / strides) - 1) * strides + kernel_size - size, 0)
    return missing // 2, missing - missing // 2


value(
    "9.2",
    zeros_of_same(224, 7, 2),
    "112 windows. Where does the last one begin, and where does it end?",
    {
        (3, 2): "Which side gets the zero that is left over?",
        (3, 3): "That is padding=3, one row more than is needed.",
    },
)
value(
    "9.3",
    math.ceil(math.log(0.5) / math.log(0.99)),
    "After k steps the average is 1 - 0.99 ** k.",
    {7: "That is Gluon's default.", 50: "It is not a line: each step closes a part of the gap."},
)


@exercise("9.4")
def to_pytorch(answer):
    theirs = {
        "gamma": "weight",
        "beta": "bias",
        **{name: name for name in ("weight", "bias", "running_mean", "running_var")},
    }
    for case, blk in {
        "of Residual(3)": Residual(3),
        "of Residual(8, True, 2)": Residual(8, True, 2),
    }.items():
        right = {}
        blk.initialize()
        blk(np.array(uniform(2, 3, 6, 6)))
        for name in ("conv1", "conv2", "conv3", "bn1", "bn2"):
            for ours, its in theirs.items():
                if (param := getattr(getattr(blk, name), ours, None)) is not None:
                    param.set_data(np.array(uniform(*param.shape, seed=len(right), low=0.1)))
                    right[f"{name}.{its}"] = param.data()
        came = called(answer, blk)
        came = {n: a for n, a in came.items() if not n.endswith("num_batches_tracked")}
        if missing := sorted(right.keys() - came.keys()):
            raise Wrong(f"{case}, {missing[0]} is missing")
        if more := sorted(map(str, came.keys() - right.keys())):
            raise Wrong(f"{case}, PyTorch has no {more[0]}")
        for name, array in right.items():
            expect_array(came[name], array, f"{case}, for {name}", "Which of our parameters is it?")


@exercise("9.5")
def pad_as_same(answer):
    for height, width, kernel_size, strides in (
        (6, 6, 3, 2),
        (7, 6, 3, 2),
        (5, 8, 3, 1),
        (8, 8, 7, 2),
        (6, 6, 1, 2),
        (9, 7, 3, 3),
    ):
        X = uniform(2, 3, height, width)
        zeros = (zeros_of_same(size, kernel_size, strides) for size in (height, width))
        case = f"for {height}x{width} pixels, a window of {kernel_size} and stride {strides}"
        hint = "Each axis has ⌈size / stride⌉ windows. The zeros that the last one needs come in "
        hint += "two halves, the larger at the end; never fewer than none."
        came = called(answer, np.array(X), kernel_size, strides)
        expect_array(came, onp.pad(X, ((0, 0), (0, 0), *zeros)), case, hint)


# --- 10: augmentation


def fewest_black():
    white = onp.ones((20_000, 1, 32, 32), dtype="uint8")
    kept = Cutout(8)(white, onp.random.default_rng(0)).sum(axis=(1, 2, 3))
    return int(32 * 32 - kept.max())


value(
    "10.1",
    fewest_black,
    "Put the middle of the square on the pixel in a corner. How much of it is inside?",
    {
        64: "That is all of it.",
        32: "In a corner two sides are cut off.",
        0: "Its middle is inside.",
    },
)
value(
    "10.2",
    [0.25, 0.0, 0.75],
    "The label mixes as the images do. Which place belongs to which class?",
    {
        (0.75, 0, 0.25): "Which class has the weight 0.75?",
        (0.75, 0.25, 0): "The places belong to class 0, 1 and 2.",
        (25, 0, 75): "As shares that sum to 1.",
    },
)


@exercise("10.3")
def upside_down(answer):
    for shape in ((2, 1, 4, 3), (3, 3, 5, 5)):
        images = (255 * uniform(*shape, low=0)).astype("uint8")
        came = called(answer, images, onp.random.default_rng(0))
        if onp.shape(came) == shape and (came == images[..., ::-1]).all():
            raise Wrong("That is left to right. Which axis has the rows?")
        hint = "The first row becomes the last, in every image."
        expect_array(came, images[:, :, ::-1], f"for images of shape {shape}", hint)


@exercise("10.4")
def mixed_pairs(answer):
    if not any(means(answer, near) for near in range(90, 111)):
        hint = "With which probability is the partner of an image of the other class?"
        expect(answer, 100, hint, {200: "Some meet their own class."})


@exercise("10.5")
def cut_squares(answer):
    images = (1 + 254 * uniform(4, 3, 8, 6, low=0)).astype("uint8")
    for size, rows, columns in (
        (3, (0, 2, 5, 1), (0, 1, 3, 2)),
        (4, (-2, -1, 6, 3), (-3, 4, 5, -1)),
    ):
        right = images.copy()
        for image, top, left in zip(right, rows, columns, strict=True):
            image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        came = called(answer, images, onp.array(rows), onp.array(columns), size)
        hint = "Each image has a square of its own."
        if min(rows) < 0:
            hint = "NumPy counts a negative index from the end, so it has to be 0 at least."
        expect_array(came, right, f"for squares of {size} pixels at {rows}, {columns}", hint)


# --- 11: transfer

value(
    "11.1",
    10 * (128 + 1),
    "A weight for each feature and class, and what else for each class?",
    {1280: "And the biases?"},
)
value(
    "11.2",
    0.08 / 2**2,
    "The head has all of it, stage 4 half of it, and so on.",
    {0.04: "That is stage 4.", 0.01: "That is stage 2.", 0.08: "That is the head."},
)
value(
    "11.3",
    False,
    "What moves the running averages of a batch norm? It is no gradient.",
)


@exercise("11.4")
def new_head(answer):
    for net, num_classes in ((small_resnet(), 5), (cifar_resnet(8), 3)):
        net.initialize()
        X = np.array(uniform(2, 3, 16, 16))
        before, old = net(X), list(net.collect_params().values())
        new = called(answer, net, num_classes)
        if not isinstance(new, gluon.Block):
            raise Wrong(f"expected a network, not {type(new).__name__}")
        if not (len(net(X)) == 2 and net(X).shape == before.shape and (net(X) == before).all()):
            raise Wrong("net itself has changed. Build a new network around its layers")
        if new(X).shape != (2, num_classes):
            raise Wrong(f"expected {num_classes} scores for each image, got {new(X).shape}")
        params = new.collect_params().values()
        shared = sum(any(param is ours for ours in old) for param in params)
        fresh = len(params) - shared
        if fresh != 2 or shared != len(old) - 2:
            raise Wrong(
                f"the new network shares {shared} of its {len(params)} parameters with "
                "net. It should share all but those of its head, and that is one new dense layer"
            )


@exercise("11.5")
def nearest_mean(answer):
    for seed in range(3):
        V, y = uniform(40, 6, seed=seed), onp.arange(40) % 4
        V += 0.4 * onp.eye(6)[y] * (1 + y[:, None])  # classes of means of unequal length
        V /= onp.linalg.norm(V, axis=1, keepdims=True)
        centres = onp.stack([V[y == k].mean(axis=0) for k in range(4)])
        centres /= onp.linalg.norm(centres, axis=1, keepdims=True)
        queries = uniform(50, 6, seed=10 + seed)
        hint = "A class for each row of queries. Have the means the length 1?"
        expect_array(
            called(answer, V, y, queries),
            (queries @ centres.T).argmax(axis=1),
            "for 50 queries",
            hint,
        )


# --- 12: several devices

value(
    "12.1",
    math.ceil(60_000 / (4 * 32)),
    "Of how many images is one step made, and what becomes of the last few?",
    {
        1875: "A step takes a batch of every worker.",
        468: "The last step is smaller, but it is one.",
        15_000: "That is how many images each worker reads.",
    },
)
value(
    "12.2",
    0.4 / 4 + 90 / 125,
    "The computing is shared, the sending is not: every worker sends a number for each parameter.",
    {
        0.1: "That is the computing alone.",
        0.72: "That is the sending alone.",
        1.12: "Each worker has a quarter of the batch to compute.",
        (0.4 + 0.72) / 4: "The gradient of a part is as large as that of the whole.",
        0.1 + 0.09: "1 Gbit/s is a billion bits. How many bits does a byte have?",
    },
)


@exercise("12.3")
def mean_gradient(answer):
    for seed, sizes in enumerate(([4, 4], [8, 2, 1], [3])):
        gradients = [uniform(2, 3, seed=10 * seed + i) for i in range(len(sizes))]
        expect_array(
            called(answer, gradients, sizes),
            sum(n * g for n, g in zip(sizes, gradients, strict=True)) / sum(sizes),
            f"for parts of {sizes} images",
            "Each image counts as much as any other, in whatever part it is.",
        )


@exercise("12.4")
def share(answer):
    for num_images, num_workers in ((12, 3), (10, 4), (2, 3)):
        order = onp.random.default_rng(0).permutation(100)[:num_images]
        parts = [as_numpy(called(answer, order, rank, num_workers)) for rank in range(num_workers)]
        read, lengths = onp.concatenate(parts), [len(part) for part in parts]
        case = f"of {num_images} images {num_workers} workers"
        if sorted(read) != sorted(order):
            missing = len(set(order.tolist()) - set(read.tolist()))
            raise Wrong(f"{case} read {len(read)}, and {missing} are read by none")
        if max(lengths) - min(lengths) > 1:
            raise Wrong(f"{case} read {', '.join(map(str, lengths))}: one waits for another")
