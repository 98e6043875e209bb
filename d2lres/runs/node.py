"""One process of a run of several, from its start to its end."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable

from ..runtime import machine
from . import watch
from .launch import WORKERS_PER_HOST

__all__ = ["run"]


def run(command: list[str], main: Callable[[list[str]], int]) -> int:
    """Do what this process was launched for.

    Parameters
    ----------
    command : list of str
        Words of the command line, or a program in Python and its arguments.
    main : callable
        Runs words of the command line and returns 0 if it went well.
    """
    role = os.environ["DMLC_ROLE"]
    per_host = int(os.environ[WORKERS_PER_HOST])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, machine.physical_cores() // per_host)))
    watch.join(role, os.environ.get("DMLC_NODE_HOST", "this machine"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # by which the launcher stops a worker
    if role != "worker":
        import mxnet  # noqa: F401 - which serves, and ends Python when all workers have ended

    status = _program(command) if command[0].endswith(".py") else main(command)
    workers = sys.modules.get("d2lres.runs.workers")
    if status == 0 and workers:
        workers.say_good_bye()
    elif status == 0:  # a program with a store of its own, whose end is the program's
        watch.leave("done")
        return 0
    watch.leave("done" if status == 0 else "failed")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)  # without waiting for others in what MXNet does at its end


def _program(command):
    sys.argv[:] = command
    sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        return int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
