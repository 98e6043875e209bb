"""Lets d2lres prepare MXNet. d2lres.pth imports it whenever Python starts: it imports nothing."""

import sys


class Finder:
    """The first entry of ``sys.meta_path``; of no consequence until MXNet is asked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "mxnet" and not name.startswith("mxnet."):
            return None
        try:
            from d2lres.runtime import hook

            return hook.find_spec(name, path, target)
        except Exception as error:  # d2lres may be gone, or broken: never in the way of MXNet
            sys.meta_path.remove(Finder)  # said once, and not for each of MXNet's modules
            if sys.stderr is not None:
                print(f"d2lres could not prepare MXNet: {error!r}", file=sys.stderr)
            return None


sys.meta_path.insert(0, Finder)
