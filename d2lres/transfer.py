"""Transfer: the features of a trained network, put to another task."""

from __future__ import annotations

import itertools

import mxnet as mx
from mxnet import gluon, npx
from mxnet.gluon import nn

from . import checks
from .blocks import sequence
from .runs.history import History
from .training import train

__all__ = ["features", "fine_tune", "freeze", "layer_lr", "replace_head", "unfreeze"]

npx.set_np()


def features(net: gluon.HybridBlock) -> nn.HybridSequential:
    """Return all of a network but its last layer, with the same parameters.

    It takes what ``net`` takes and gives what its last layer sees: float32 (batch, channels). To
    train or freeze it is to train or freeze ``net``, a network of this library or of
    ``gluon.model_zoo``.

    Raises
    ------
    TypeError
        If the last layer of ``net`` is not a dense one.
    """
    body, _ = _body_and_head(net)
    return sequence(*body, nn.Flatten())


def replace_head(net: gluon.HybridBlock, num_classes: int) -> nn.HybridSequential:
    """Return a network for other classes, on the features of a trained one.

    Its last layer is a fresh dense one (Xavier), on the device of the old one. ``net`` stays as it
    is, but shares all parameters except those of its last layer with the new network: what one
    learns there, the other has learned.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If the last layer of ``net`` is not a dense one; if ``num_classes`` is less than 1; if
        ``net`` has not been initialized.
    """
    num_classes = checks.whole("num_classes", num_classes)
    body, old = _body_and_head(net)
    head = nn.Dense(num_classes, in_units=max(old.weight.shape[1], 0))
    head.initialize(mx.init.Xavier(), ctx=old.weight.list_ctx())
    return sequence(*body, head)


def freeze(net: gluon.HybridBlock) -> None:
    """Let training change nothing of a network, or of the part of one that is given.

    The parameters get no gradient. Batch normalization would still move its running averages and
    compute with the mean and variance of each batch, in training: now it always computes with the
    averages, which stay. ``freeze(features(net))`` leaves the last layer to be trained.

    ``train`` and ``compile`` notice it. A network that was hybridized before has to be hybridized
    again, ``net.hybridize()``: MXNet would go on with the graph that it has.
    """
    for param in net.collect_params().values():
        if param.grad_req != "null" or not hasattr(param, "_before_freeze"):
            param._before_freeze = param.grad_req
        param.grad_req = "null"
    for block in _batch_norms(net):
        if not hasattr(block, "_before_freeze"):
            block._before_freeze = block._kwargs["use_global_stats"]
        block._kwargs["use_global_stats"] = True


def unfreeze(net: gluon.HybridBlock) -> None:
    """Undo ``freeze``: what could be trained before can be trained again.

    Of a network that was frozen in another way, by ``grad_req``, all can be trained again.
    """
    for param in net.collect_params().values():
        if param.grad_req == "null":
            param.grad_req = getattr(param, "_before_freeze", "write")
        if param.grad_req != "null":
            vars(param).pop("_before_freeze", None)
    for block in _batch_norms(net):
        if hasattr(block, "_before_freeze"):
            block._kwargs["use_global_stats"] = vars(block).pop("_before_freeze")


def layer_lr(net: gluon.HybridBlock, factor: float) -> None:
    """Let the layers of a network learn the more slowly, the further they are from its last one.

    The last layer keeps the learning rate of the trainer. The stage before it has that divided by
    ``factor``, the one before that by ``factor ** 2``, and so on to the stem. A batch normalization
    that stands alone goes with the stage before it. It is the parameters' ``lr_mult`` that is set;
    a ``factor`` of 1 gives all layers the same learning rate again. See Howard and Ruder, Universal
    Language Model Fine-tuning for Text Classification (2018), section 3.2.

    Raises
    ------
    TypeError, ValueError
        If the last layer of ``net`` is not a dense one; if ``factor`` is not positive.
    """
    factor = float(factor)  # an integer of NumPy's has no negative power
    if not factor > 0:
        raise ValueError(
            f"factor divides the learning rate of each stage and is positive, not {factor!r}; "
            "to leave the stages as they are, freeze(features(net))"
        )
    body, head = _body_and_head(net)
    parts = [*body, head]
    has_weights = [any(part.collect_params(".*weight$")) for part in parts]
    steps = list(itertools.accumulate(has_weights))
    for part, step in zip(parts, steps, strict=True):
        # what stands before the first convolution goes with that
        part.collect_params().setattr("lr_mult", factor ** (max(step, 1) - steps[-1]))


def fine_tune(
    net: gluon.HybridBlock,
    train_iter,
    test_iter,
    num_epochs: int,
    lr: float,
    device: mx.Context | None = None,
    *,
    factor: float = 2.0,
    **options,
) -> History:
    """Train a network that has learned another task before (section 14.2 of Dive into Deep
    Learning).

    The early layers, whose features are the most general (Yosinski et al., How Transferable Are
    Features in Deep Neural Networks?, 2014), learn more slowly than the late ones, and the learning
    rate falls to zero along a cosine. To train the new head alone first ::

        net = replace_head(narrow_resnet18(pretrained=True), 10)
        freeze(features(net))
        fine_tune(net, train_iter, test_iter, num_epochs=1, lr=0.1)
        unfreeze(net)
        fine_tune(net, train_iter, test_iter, num_epochs=5, lr=0.01)

    Parameters
    ----------
    net, train_iter, test_iter, num_epochs, device
        As for ``train``; ``net`` is what ``replace_head`` returned.
    lr : float
        The learning rate of the last layer at the start.
    factor : float, default 2.0
        See ``layer_lr``, which is what stays set.
    **options
        What else ``train`` takes. By default ``optimizer_params={"momentum": 0.9}``.

    Raises
    ------
    TypeError, ValueError
        As for ``train`` and ``layer_lr``.
    """
    num_epochs, lr = checks.whole("num_epochs", num_epochs), checks.learning_rate(lr)
    checks.something_to_train(net)
    checks.repeatable(train_iter, "train_iter")
    layer_lr(net, factor)
    num_steps = max(num_epochs * len(train_iter), 1)  # train says what is wrong with 0
    scheduler = mx.lr_scheduler.CosineScheduler(num_steps, lr, final_lr=0)
    options = {"scheduler": scheduler, "optimizer_params": {"momentum": 0.9}} | options
    history = train(net, train_iter, test_iter, num_epochs, lr, device, **options)
    history.run["layer_lr"] = float(factor)
    return history


def _body_and_head(net):
    """Return the layers up to the pooled vector, and the dense one behind them."""
    if isinstance(net, nn.HybridSequential):
        layers = list(net)
    else:  # as the networks of gluon.model_zoo are built
        layers = [*getattr(net, "features", ()), getattr(net, "output", None)]
    if not layers or not isinstance(layers[-1], nn.Dense):
        raise TypeError(
            "expected a network whose last layer is a dense one, as all of d2lres and the ResNets "
            f"of gluon.model_zoo are, but this is another {type(net).__name__}. For a compiled "
            "network pass the one it was compiled from."
        )
    return layers[:-1], layers[-1]


def _batch_norms(net):
    """Return the blocks that normalize by a batch, or by running averages."""
    found = []
    net.apply(lambda block: found.append(block) if hasattr(block, "_kwargs") else None)
    return [block for block in found if "use_global_stats" in block._kwargs]
