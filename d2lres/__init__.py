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
    "Bottleneck": "blocks",
    "CIFAR100_COARSE_LABELS": "cifar",
    "CIFAR100_COARSE_OF_FINE": "cifar",
    "CIFAR100_LABELS": "cifar",
    "CIFAR100_MEAN": "cifar",
    "CIFAR100_STD": "cifar",
    "CIFAR10_LABELS": "cifar",
    "CIFAR10_MEAN": "cifar",
    "CIFAR10_STD": "cifar",
    "ColorJitter": "augment",
    "Compose": "augment",
    "Cutout": "augment",
    "FASHION_MNIST_LABELS": "fashion_mnist",
    "History": "train",
    "MixUp": "augment",
    "PreActResidual": "blocks",
    "RandomCrop": "augment",
    "RandomFlip": "augment",
    "RandomResizedCrop": "augment",
    "RandomRotation": "augment",
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
    "export": "export",
    "features": "transfer",
    "fine_tune": "transfer",
    "freeze": "transfer",
    "grad_cam": "cam",
    "layer_lr": "transfer",
    "layer_stats": "summary",
    "load_data_cifar10": "cifar",
    "load_data_cifar100": "cifar",
    "load_data_fashion_mnist": "fashion_mnist",
    "load_image_folder": "folder",
    "load_keras_weights": "weights",
    "load_torch_weights": "weights",
    "narrow_resnet18": "models",
    "plot_confusion_matrix": "plot",
    "plot_history": "plot",
    "plot_runs": "plot",
    "predict": "train",
    "replace_head": "transfer",
    "resnet101": "models",
    "resnet152": "models",
    "resnet18": "models",
    "resnet34": "models",
    "resnet50": "models",
    "resnet_block": "blocks",
    "save_torch_weights": "weights",
    "scale": "scale",
    "show_images": "plot",
    "stem": "models",
    "summary": "summary",
    "text_labels": "fashion_mnist",
    "top_k_accuracy": "train",
    "train": "train",
    "try_gpu": "runtime",
    "unfreeze": "transfer",
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
