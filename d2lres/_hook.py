"""Waits for the first ``import mxnet``, then lets ``d2lres.runtime`` prepare it.

The line in ``d2lres.pth`` runs whenever Python starts, so it imports nothing: its finder passes
the name ``mxnet``, and only that, on to the one below.
"""

import sys


class Finder:
    """The first entry of ``sys.meta_path``; of no consequence until MXNet is asked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mxnet" and Finder in sys.meta_path:  # the .pth line's finder asks again
            sys.meta_path.remove(Finder)
            _call("prepare")
        return None  # the finders that follow find MXNet as ever


def register():
    """Install the finder, once; where MXNet has come first, set what can still be set."""
    if "mxnet" in sys.modules:
        _call("catch_up")
    elif Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def _call(name):
    try:
        from d2lres import runtime

        getattr(runtime, name)()
    except Exception as error:  # never in the way of Python itself
        print(f"d2lres could not prepare MXNet: {error!r}", file=sys.stderr)
