"""MXNet from any thread: from a web page's, from a pool's.

``npx.set_np()`` is said once, in the first cell or when ``d2lres`` is imported, and MXNet has it
for that thread alone. The first call of a network notes on its layers how far it is, so a second
thread that calls it meanwhile finds them half made; a later call plans its graph for the shape that
comes, so two that come with different shapes stop each other for good.
"""

import copy
import ctypes
import functools
import threading
import weakref

from . import engine

__all__ = ["MODULES", "complete"]

MODULES = ("util", "attribute", "ndarray", "gluon.parameter", "gluon.block")  # of MXNet


def complete(module) -> None:
    """Put right what a module of MXNet, which has just been executed, keeps for each thread."""
    if module.__name__ == "mxnet.util":
        _share_numpy(module)
    elif module.__name__ == "mxnet.attribute":
        _share_attributes(module.AttrScope)
    elif module.__name__ == "mxnet.ndarray":
        _call_alone(module)
    elif module.__name__ == "mxnet.gluon.parameter":
        _finish_at_once(module.Parameter)
    elif module.__name__ == "mxnet.gluon.block":
        _begin_alone(module)


def _share_numpy(util):
    """Let ``npx.set_np()`` hold in every thread.

    ``npx.reset_np()`` goes back in its own thread and, if that is the main one, in threads that
    begin later; the scopes ``np_array`` and ``np_shape`` are their thread's own, as they always
    were. Without a call of ``set_np`` nothing is other than in MXNet.
    """
    set_array, set_shape, Scope = util._set_np_array, util.set_np_shape, util._NumpyArrayScope
    everyone = Scope(util.is_np_array())  # what a thread has until it chooses for itself
    apart = weakref.WeakSet()  # what those have that went back

    class Current(threading.local):
        def __init__(self):  # in each thread, when it first asks
            self.value = everyone
            if everyone._is_np_array:
                set_shape(True)

    def set_np_array(active):
        nonlocal everyone
        before = set_array(active)
        if active:
            everyone._is_np_array, current.value = True, everyone
        else:
            apart.add(current.value)
            if threading.current_thread() is threading.main_thread():
                everyone = Scope(False)
        return before

    def set_np_shape(active):
        util.is_np_array()  # so that this thread has what everyone has, before it chooses
        before = set_shape(active)
        if active and everyone._is_np_array and not apart:
            # reaches all threads: those that have not asked yet, but those that went back, too
            util._LIB.MXSetIsNumpyShape(2, ctypes.byref(ctypes.c_int()))
        return before

    current = Scope._current = Current()
    util._set_np_array, util.set_np_shape = set_np_array, set_np_shape


def _share_attributes(Scope):
    """Give every thread the attributes of symbols that MXNet gives the first."""

    class Current(threading.local):
        def __init__(self):
            self.value = Scope()

    Scope._current = Current()


def _call_alone(ndarray):
    """Let a graph take one call at a time. It is computed later, by the engine.

    What it keeps of the engine's threads, such as a folded convolution, goes with them.
    """

    class CachedOp(ndarray.CachedOp):
        def __init__(self, *args):
            self.alone, self.args = threading.Lock(), args
            self.make()

        def make(self):
            super().__init__(*self.args)
            self.generation = engine.generation

        def __call__(self, *args, **kwargs):
            with self.alone:
                if self.generation != engine.generation:
                    self.__del__()
                    self.make()
                return super().__call__(*args, **kwargs)

    ndarray.CachedOp = CachedOp


def _finish_at_once(Parameter):
    """Let a parameter have its weights in one moment: it never looks as if it had not begun."""
    finish = Parameter._finish_deferred_init

    @functools.wraps(finish)
    def finish_at_once(self):
        twin = copy.copy(self)
        finish(twin)
        vars(self).update(vars(twin))

    Parameter._finish_deferred_init = finish_at_once


def _begin_alone(block):
    """Let one thread at a time trace a network, or finish its weights."""
    alone = threading.RLock()

    def only_one(forward, is_ready):
        @functools.wraps(forward)
        def locked(self, x, *args):
            if isinstance(x, block.NDArray) and is_ready(self):
                return forward(self, x, *args)
            with alone:
                return forward(self, x, *args)

        return locked

    def has_weights(net):
        return all(param._data is not None for param in net._reg_params.values())

    def is_ready(net):
        return has_weights(net) if not net._active else net._cached_op is not None

    Hybrid, Symbolic = block.HybridBlock, block.SymbolBlock
    Hybrid.forward = only_one(Hybrid.forward, is_ready)
    Symbolic.forward = only_one(Symbolic.forward, lambda net: net._cached_op is not None)
