"""What students get wrong, said once: what was expected, what came, and what to do."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Iterator

import numpy as np

__all__ = [
    "as_numpy",
    "batches",
    "callable_like",
    "channels_first",
    "checked",
    "device_of",
    "devices",
    "height_width",
    "images",
    "labels",
    "learning_rate",
    "loss",
    "losses",
    "one_device",
    "optimizer_params",
    "plain",
    "reason",
    "repeatable",
    "scores",
    "scores_of",
    "something_to_train",
    "whole",
    "whole_numbers",
]


def checked(check: Callable, method: str | None = None) -> Callable:
    """Call ``check`` with the arguments of a function, or of a method of a class, before it.

    Arguments that it returns take the place of those it was given. A decorator, because what it
    decorates stands word for word in the lessons.
    """

    def decorate(taught):
        function = getattr(taught, method) if method else taught

        @functools.wraps(function)
        def checked_function(*args, **kwargs):
            try:
                better = check(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__.tb_next:
                    raise
                better = None  # an argument is missing, or too many are: Python says so of taught
            return function(*args, **kwargs) if better is None else function(*better)

        if not method:
            return checked_function
        setattr(taught, method, checked_function)
        return taught

    return decorate


# --- arguments


def whole(name: str, value, least: int = 1, most: int | None = None) -> int:
    """Return a whole number, of Python or NumPy, of at least ``least``, at most ``most``."""
    value = plain(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= (most or number) or isinstance(value, bool):
        span = f"from {least} to {most}" if most else f"of at least {least}"
        raise ValueError(f"{name} must be a whole number {span}, not {value!r}")
    return number


def height_width(name: str, value) -> tuple[int, int] | None:
    """Return a size as (height, width), from that or from the side of a square."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number of pixels or (height, width), not {value!r}")
    return tuple(whole(name, side) for side in pair)


def whole_numbers(*names: str | None) -> Callable:
    """Return a check of the arguments in these places; None may be anything, and strides a pair."""

    def check(*args, **kwargs):
        for name, value in (dict(zip(names, args, strict=False)) | kwargs).items():
            if name in names and name:
                (height_width if name == "strides" else whole)(name, value)

    return check


def learning_rate(lr, scheduler=None) -> float:
    """Return a learning rate that goes downhill, and that a scheduler begins with."""
    try:
        number = float(lr)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(
            f"the learning rate must be a positive number, got lr={lr}: with a negative one each "
            "step would go uphill. Try lr=0.05."
        )
    if scheduler is None:
        return number
    callable_like("mx.lr_scheduler.CosineScheduler(num_steps, lr)", "scheduler", scheduler)
    if not hasattr(scheduler, "base_lr"):  # as those that the book defines itself
        raise TypeError(
            f"the scheduler has no base_lr: derive {type(scheduler).__name__} from "
            "mx.lr_scheduler.LRScheduler, and call super().__init__(base_lr=lr) in its __init__"
        )
    # MXNet would go by the scheduler, or let both disagree, depending on its kind
    if not math.isclose(base_lr := float(scheduler.base_lr), number, rel_tol=1e-6):  # of float32
        raise ValueError(
            f"the scheduler is at the learning rate {base_lr:.3g}, but lr={lr}. Make a new one "
            f"with base_lr={lr}; one that has been used stays where it ended."
        )
    return number


def callable_like(example: str, name: str, value) -> None:
    """Check that an argument, if there is one, can be called and is no class of such things."""
    if isinstance(value, type) or not (value is None or callable(value)):
        raise TypeError(f"{name} must be one like {example}, not {value!r}")


def loss(loss, takes_shares: bool) -> None:
    """Check that a loss, if there is one, is made for labels, or for the shares of mixed images."""
    callable_like("gluon.loss.SoftmaxCrossEntropyLoss()", "loss", loss)
    if getattr(loss, "_sparse_label", not takes_shares) == takes_shares:
        raise ValueError(
            f"the loss must have sparse_label={not takes_shares}: with mixup it gets the share of "
            "each class, without it the labels"
        )


def one_device(device):
    """Return a device of MXNet's, or None for none; a list of one is taken for that one."""
    import mxnet as mx

    if isinstance(device, (list, tuple)) and len(device) == 1:
        (device,) = device
    if device is None:
        return None
    if not isinstance(device, mx.Context):
        raise TypeError(f"device must be one like try_gpu(), mx.gpu(0) or mx.cpu(), not {device!r}")
    if device.device_type == "gpu" and device.device_id >= mx.context.num_gpus():
        raise ValueError(f"there is no {device} that MXNet sees: try_gpu() takes the CPU then")
    return device


def devices(device) -> list | None:
    """Return the devices of a list or of one, or None for none."""
    if device is None:
        return None
    listed = [one_device(each) for each in device] if isinstance(device, (list, tuple)) else None
    listed = listed or [one_device(device)]
    for each in listed:
        if listed.count(each) > 1 or each is None:
            raise ValueError(f"device has {each} more than once: name each device once, {listed}")
    if len({each.device_type for each in listed}) > 1:
        raise ValueError(f"device mixes GPUs and CPUs, {listed}: each step would wait for the CPU")
    return listed


def repeatable(data_iter, name: str) -> None:
    """Check that batches are counted, and can be gone through again in every epoch."""
    if not hasattr(data_iter, "__len__") or hasattr(data_iter, "__next__"):
        hint = f": try list({name})" if hasattr(data_iter, "__iter__") else ""
        raise TypeError(
            f"{name} must have a length and give its batches (X, y) again in every epoch, as a "
            f"loader or a list does, not {type(data_iter).__name__}{hint}"
        )


def plain(value):
    """Return numbers of NumPy and MXNet, also those in lists and dictionaries, as Python's."""
    if isinstance(value, dict):
        return {plain(key): plain(of_key) for key, of_key in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value.item() if getattr(value, "shape", None) == () else value


def optimizer_params(optimizer, params) -> dict:
    """Return what an optimizer takes besides the learning rate, as plain numbers."""
    params = {} if params is None else plain(params)
    if not isinstance(optimizer, str) or not isinstance(params, dict):
        raise TypeError(
            'optimizer must be a name like "adam", and optimizer_params a dict like {"wd": 1e-4}, '
            f"not {optimizer!r} and {params!r}"
        )
    for name, value in params.items():
        if name in ("learning_rate", "lr_scheduler"):
            raise ValueError(
                f"optimizer_params has {name!r}: write lr=..., scheduler=..., which is recorded"
            )
        if not isinstance(value, (int, float, str, type(None))):
            raise TypeError(f"optimizer_params: expected a number for {name}, not {value!r}")
    return params


# --- images, labels and scores


def as_numpy(array) -> np.ndarray:
    """Return NumPy's array of a list or an array; NumPy would take MXNet's apart by elements."""
    if isinstance(array, (list, tuple)):
        array = [as_numpy(part) if hasattr(part, "asnumpy") else part for part in array]
    return array.asnumpy() if hasattr(array, "asnumpy") else np.asarray(array)


def images(X, whose: str, ndim: int | None = 4):
    """Return a batch of images, of NumPy or MXNet and of whatever floats, as MXNet's float32."""
    import mxnet as mx

    X = X.as_np_ndarray() if isinstance(X, mx.nd.NDArray) else as_numpy(X)
    if ndim not in (None, X.ndim) or not (X.ndim and X.size):
        raise ValueError(
            f"{whose}: expected a batch of images (batch, channels, height, width), but got "
            f"{X.shape}; for a single image X write X[None]"
        )
    dtype = np.dtype(X.dtype)
    if dtype.kind != "f":
        raise ValueError(
            f"{whose}: expected images in float32, but got {dtype}. If the network learned from "
            "pixels between 0 and 1, as the loaders give them, write X.astype('float32') / 255"
        )
    channels_first(X, whose)
    if isinstance(X, np.ndarray):
        return mx.np.array(X, dtype="float32")
    return X.astype("float32", copy=False)


def channels_first(X, whose: str) -> None:
    """Check that images do not have their channels last, as most files of others have them."""
    if X.ndim == 4 and min(X.shape[1:3]) > 4 >= X.shape[3]:
        raise ValueError(
            f"{whose}: expected the channels first (n, channels, height, width), but got images of "
            f"shape {X.shape}: write images.transpose(0, 3, 1, 2)"
        )


def labels(
    y, num_images: int | None, num_classes: int | None = None, name: str = "labels"
) -> np.ndarray:
    """Return labels as NumPy's int32: one for each image, from 0 to ``num_classes - 1``.

    MXNet's loss would silently clip others, NumPy would take -1 for the last class.
    """
    y = as_numpy(y)
    if y.ndim != 1 or num_images not in (None, len(y)):
        n, hint = "n" if num_images is None else num_images, ""
        if y.ndim == 0:
            hint = "; single images become batches in gluon.data.DataLoader(dataset, batch_size)"
        elif y.ndim == 2:
            one_hot = "y.argmax(axis=1), if they are one-hot"
            hint = f"; write {'y[:, 0]' if y.shape[1] == 1 else one_hot}"
        raise ValueError(
            f"expected {name}, one for each of the {n} images, of shape ({n},), but got shape "
            f"{y.shape}{hint}"
        )
    if not len(y):
        return y.astype(np.int32)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} are the whole numbers of classes, not an array of {y.dtype}")
    with np.errstate(invalid="ignore"):  # NaN becomes any number
        numbers = y.astype(np.int32)
    if (wrong := numbers != y).any():
        raise ValueError(f"{name} are the whole numbers of classes, but one is {y[wrong][0]}")
    low, high = int(numbers.min()), int(numbers.max())
    if num_classes is not None and (low < 0 or high >= num_classes):
        build = f"Build the network with num_classes={high + 1}, or check y."
        raise ValueError(
            f"{name} go from {low} to {high}, but there are {num_classes} classes, for the labels "
            f"0 to {num_classes - 1}. {build if low >= 0 else 'Check y.'}"
        )
    return numbers


def batches(data_iter, name: str, num_classes: int | None = None) -> Iterator:
    """Yield the batches (X, y) of an iterable as MXNet's arrays, in float32 and int32."""
    import mxnet as mx

    if not (hasattr(data_iter, "__iter__") or hasattr(data_iter, "__getitem__")):
        raise TypeError(
            f"{name} must give batches (X, y), as a list or a loader does, but is {data_iter!r}"
        )
    for batch in data_iter:
        if not isinstance(batch, (list, tuple)) or len(batch) != 2:
            came = type(batch).__name__
            came += f" of {len(batch)}" if isinstance(batch, (list, tuple)) else ""
            raise TypeError(f"{name}: expected batches (X, y) of images and labels, but got {came}")
        X, y = images(batch[0], name, ndim=None), batch[1]
        numbers = labels(y, len(X), num_classes)
        y = y.as_np_ndarray() if isinstance(y, mx.nd.NDArray) else mx.np.array(numbers)
        yield X, y.astype("int32", copy=False)


def losses(l, num_images: int) -> None:
    """Check that a loss is one number for each image."""
    shape = l.shape if hasattr(l, "backward") else type(l).__name__
    if shape != (num_images,):
        raise ValueError(
            f"expected a loss of shape ({num_images},), one number for each image, as those of "
            f"gluon.loss give, but got {shape}: train itself takes the mean over the images"
        )


def scores(Y, num_images: int | None = None) -> None:
    """Check that an output is one array, with one score for each class and image."""
    shape = getattr(Y, "shape", None)
    if shape and len(shape) == 2 and shape[0] and num_images in (None, shape[0]):
        return
    came, hint = shape, "a network for classes ends in nn.Dense(num_classes)"
    if shape is None:
        came = f"{len(Y)} outputs" if isinstance(Y, (list, tuple)) else type(Y).__name__
    elif len(shape) == 1:
        hint = "for a single image write scores[None]"
    raise ValueError(
        f"expected scores of shape (number of images, number of classes), but got {came}; {hint}"
    )


# --- networks


def scores_of(net, X):
    """Return what a network gives for images: one score for each class and image."""
    import mxnet as mx

    try:
        Y = net(X)
    except mx.MXNetError as error:
        raise ValueError(
            f"{type(net).__name__} does not take images of shape {X.shape[1:]}: {reason(error)}"
        ) from error
    scores(Y, len(X))
    return Y


def reason(error: Exception) -> str:
    """Return what an error says; of MXNet's the sentence, without the lines of its C++."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return re.sub(r".*(Check failed|Error in operator \S+|MXNetError): ", "", lines[-1])


def device_of(net):
    """Return the device of a network's parameters, or say that there are none yet."""
    if isinstance(net, type) or not hasattr(net, "collect_params"):
        name = getattr(net, "__name__", repr(net))
        raise TypeError(f"expected a network, such as resnet18() makes, but got {name}")
    for name, param in net.collect_params().items():
        if param._data is None and not param._deferred_init:
            raise RuntimeError(
                f"the network has no weights yet ({name} is not initialized). "
                "Call net.initialize(mx.init.Xavier()) first."
            )
        return param.list_ctx()[0]
    import mxnet as mx

    return mx.cpu()


def something_to_train(net) -> None:
    """Check that a network has weights and that not all of them are frozen."""
    device_of(net)
    if all(param.grad_req == "null" for param in net.collect_params().values()):
        raise ValueError(
            "the network has nothing to train: all its parameters are frozen, or it has none. "
            "Call unfreeze(net), or put a new last layer on it with replace_head."
        )
