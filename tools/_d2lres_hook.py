"""Lets d2lres prepare MXNet. d2lres.pth imports it whenever Python starts: it imports nothing."""

import sys


class Finder:
    """The first entry of ``sys.meta_path``; of no consequence until MXNet is asked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in ("d2lres", "mxnet", "d2l.mxnet") and not name.startswith("mxnet."):
            return None
        if name in ("d2lres", "mxnet") and (refusal := _refusal(name)) or name == "d2lres":
            return refusal
        try:
            from d2lres.runtime import hook

            return hook.find_spec(name, path, target)
        except Exception as error:  # d2lres may be gone, or broken: never in the way of MXNet
            sys.meta_path.remove(Finder)  # said once, and not for each of MXNet's modules
            try:
                sys.stderr.write(f"d2lres could not prepare MXNet: {error!r}\n")
            except Exception:  # a service has none, or a closed one
                pass
            return None


def _refusal(name):
    """Return what refuses to be loaded where a file d2lres.py, a student's, hides the library."""
    from importlib.machinery import ModuleSpec, PathFinder

    found = PathFinder.find_spec("d2lres")
    if found is not None and found.submodule_search_locations is None:
        return ModuleSpec(name, Refusal(found.origin))
    return None


class Refusal:
    """Loads a module by saying what is in its way."""

    def __init__(self, path):
        self.path = path

    def refuse(self, *_):
        raise ImportError(
            f"{self.path} has the name of the module d2lres and is imported in its place: rename "
            "it and start Python anew."
        )

    create_module = exec_module = get_code = refuse


sys.meta_path.insert(0, Finder)
