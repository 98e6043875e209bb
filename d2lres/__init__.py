"""Residual networks in Apache MXNet Gluon: the library behind the lessons.

The names in ``__init__.pyi`` are imported when they are first used: ``import d2lres`` is quick, and
``python -m d2lres doctor`` works where MXNet does not.
"""

import lazy_loader

from .runtime import hook, namesakes

__version__ = "0.2.0"
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

hook.register()  # where the .pth file is not installed, importing d2lres first does as well


def __getattr__(name):
    try:
        return _load(name)
    except Exception as error:
        if name not in __all__:  # many tools ask a module for names of their own
            raise
        namesakes.explain(error)
        if isinstance(error, AttributeError):  # else it would seem not to exist
            raise ImportError(f"d2lres.{name} could not be loaded: {error}") from error
        raise
