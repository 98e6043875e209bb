"""What a server of MXNet's is sent by a worker: an optimizer, pickled.

Whoever reaches its port can send it another pickle, which would run as a program. So the server
reads with this: it builds optimizers and learning rate schedulers of MXNet's, and nothing else.
"""

import io
import pickle

__all__ = ["is_taken", "loads"]

OF_PICKLE = {("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")}
OBJECT = {("builtins", "object"), ("__builtin__", "object")}


def loads(content: bytes):
    """Return the optimizer in a pickle.

    Raises
    ------
    pickle.UnpicklingError
        If there is anything else in it.
    """
    return _Optimizers(io.BytesIO(content)).load()


def is_taken(optimizer) -> bool:
    """Return whether a server would take an optimizer with its scheduler."""
    try:
        loads(pickle.dumps(optimizer, 0))
    except (pickle.PickleError, AttributeError, TypeError):
        return False
    return True


class _Optimizers(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in OF_PICKLE | OBJECT:
            return super().find_class(module, name)
        if module.startswith("mxnet.") and "." not in name:
            from mxnet.lr_scheduler import LRScheduler
            from mxnet.optimizer import Optimizer

            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, (Optimizer, LRScheduler)):
                return found
        raise pickle.UnpicklingError(f"a server takes optimizers of MXNet's, not {module}.{name}")
