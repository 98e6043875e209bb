"""The threads that compute: how many OpenMP takes for MXNet's engine.

What oneDNN makes for a layer is made for the threads there are then, each thread of the engine
keeps it, and to run it with more of them later ends Python. So the number changes together with the
engine's threads. They end, and new ones begin that keep nothing yet, as MXNet has it around a fork;
and a graph that kept something itself is made anew (``runtime.threads``).
"""

import ctypes
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path

from .machine import physical_cores

__all__ = ["call", "fixed_because", "generation", "most_threads", "num_threads", "set_threads"]

# of libmxnet.so: mxnet::pthread_atfork_prepare() and mxnet::pthread_atfork_parent()
STOP, START = "_ZN5mxnet22pthread_atfork_prepareEv", "_ZN5mxnet21pthread_atfork_parentEv"
ENGINE = "ThreadedEnginePerDevice"  # MXNet's default

generation = 0  # how often the engine's threads have begun anew
_num = None  # how many threads OpenMP takes, where that is not what the environment says


def most_threads() -> int:
    """Return the number of threads that was chosen when MXNet was imported."""
    return int(os.environ.get("OMP_NUM_THREADS") or physical_cores())


def num_threads() -> int:
    """Return the number of threads that compute now."""
    return _num or most_threads()


def call(function, device_id: int = 0) -> None:
    """Call a function in the thread of MXNet's engine that runs what is computed on a CPU device.

    OpenMP keeps a number of threads for each thread that asks for them: set from Python's own
    thread, it would be without effect.
    """
    import mxnet as mx

    called = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: function())
    cpu = (ctypes.c_int * 2)(1, device_id)  # MXNet's struct Context: kind and number of a device
    push = mx.base._LIB.MXEnginePushSync
    mx.base.check_call(push(called, None, None, cpu, None, 0, None, 0, None, 0, b"d2lres"))
    mx.nd.waitall()


def fixed_because() -> str | None:
    """Say why the number of threads cannot change in this process; None if it can."""
    import mxnet as mx

    from .hook import Loader

    if sys.platform != "linux":
        return "this is not Linux"
    if not isinstance(mx.__loader__, Loader):  # graphs from before may keep something
        return "MXNet was imported before d2lres"
    if "DMLC_ROLE" in os.environ:
        return "this is one of several workers"
    if mx.runtime.Features().is_enabled("CUDA"):
        return "this MXNet computes on GPUs as well"
    for variable, usual in {"MXNET_ENGINE_TYPE": ENGINE, "MXNET_CPU_WORKER_NTHREADS": "1"}.items():
        if os.environ.get(variable, usual) != usual:
            return f"{variable} is {os.environ[variable]}"
    return None


def set_threads(num: int, device_ids: Iterable[int] = (0,)) -> bool:
    """Let ``num`` threads compute on each of some CPU devices; return whether that could be done.

    It cannot while another thread of Python's is in MXNet or d2lres, or for ``fixed_because``.
    """
    global generation, _num
    import mxnet as mx

    if fixed_because() or not _is_alone(mx):
        return False
    mx.nd.waitall()
    library = ctypes.PyDLL(mx.base._LIB._name)  # keeps Python's lock: nobody comes in between
    if not _is_alone(mx):
        return False
    mx.base.check_call(library.MXNDArrayWaitAll())
    library[STOP]()
    library[START]()
    generation, _num = generation + 1, num
    for device_id in device_ids:
        call(lambda: mx.base._LIB.MXSetNumOMPThreads(num), device_id)
    return True


def _is_alone(mx):
    """Whether no other thread of Python's is on its way through MXNet or d2lres."""
    modules = mx, sys.modules["d2lres"]
    homes = tuple(f"{Path(module.__file__).parent}{os.sep}" for module in modules)
    others = [f for i, f in sys._current_frames().items() if i != threading.get_ident()]
    return not any(
        frame.f_code.co_filename.startswith(homes)
        for innermost in others
        for frame, _ in traceback.walk_stack(innermost)
    )


def _forked():
    """Note that MXNet has made its engine's threads anew, with the number of the environment."""
    global generation, _num
    if _num is not None:
        generation, _num = generation + 1, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_forked, after_in_child=_forked)
