"""Waits for the first ``import mxnet``, then lets ``d2lres.runtime`` prepare it.

A line in ``d2lres.pth`` imports this module whenever Python starts, so it stays this small.
"""

import sys


class _Finder:
    """The first entry of ``sys.meta_path``; of no consequence until MXNet is asked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "mxnet":
            return None
        sys.meta_path.remove(_Finder)
        try:
            from d2lres import runtime

            runtime.prepare()
        except Exception as error:  # never in the way of Python itself
            print(f"d2lres could not prepare MXNet: {error!r}", file=sys.stderr)
        return None  # the finders that follow find MXNet as ever


def register():
    """Install the finder, once, unless MXNet has been imported already."""
    if "mxnet" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


register()
