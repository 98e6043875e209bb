"""Residual networks in Apache MXNet Gluon: the library behind the lessons.

The names below are imported when they are first used: ``import d2lres`` is quick, and
``python -m d2lres doctor`` works where MXNet does not.
"""

import sys

from . import _hook

# `import mxnet` loads this module (see _hook.py): it imports no more than that.

__version__ = "0.1.0"

_MODULE_OF = {
    "ArrayIter": "data",
    "BasicBlock": "blocks",
    "Compose": "augment",
    "Cutout": "augment",
    "FASHION_MNIST_LABELS": "data",
    "History": "train",
    "RandomCrop": "augment",
    "RandomFlip": "augment",
    "Residual": "blocks",
    "Scale": "scale",
    "cifar_resnet": "models",
    "compile": "compile",
    "confusion_matrix": "train",
    "doctor": "runtime",
    "draw_block": "draw",
    "draw_function_classes": "draw",
    "draw_identity_layers": "draw",
    "draw_network": "draw",
    "evaluate_accuracy": "train",
    "load_data_fashion_mnist": "data",
    "plot_confusion_matrix": "plot",
    "plot_history": "plot",
    "predict": "train",
    "resnet18": "models",
    "resnet_block": "blocks",
    "scale": "scale",
    "show_images": "plot",
    "stem": "models",
    "train": "train",
    "text_labels": "data",
    "try_gpu": "runtime",
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'd2lres' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__


class _Package(type(sys)):
    """Keeps ``d2lres.train`` the function, also once the module of that name is imported."""

    def __setattr__(self, name, value):
        if isinstance(value, type(sys)) and _MODULE_OF.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
_hook.register()  # where the .pth file is not installed, importing d2lres first does as well
