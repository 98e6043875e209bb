"""A file of the student's that is imported in the place of a module, because it has its name."""

import os
import sys
from importlib.machinery import PathFinder

__all__ = ["explain", "in_the_place_of", "of_error"]


def explain(error: Exception) -> None:
    """Raise what is to be said instead of an error that an import ended in, if ``of_error`` has."""
    if better := of_error(error):
        raise better from error


def in_the_place_of(name: str, path: str) -> ImportError:
    """Return the error that says so."""
    path = path.removesuffix(os.sep + "__init__.py")
    return ImportError(
        f"{path} has the name of the module {name} and is imported in its place: rename it and "
        "start Python anew.",
        name=name,
        path=path,
    )


def of_error(error: BaseException | None) -> ImportError | None:
    """Return what to say instead of an error that an import ended in, if a namesake is behind it.

    A namesake is a file or a folder that was imported by then and has the name of a module of
    Python or of an installed one, without being one itself.
    """
    paths = []
    if isinstance(error, (ImportError, AttributeError, TypeError)):  # as of one thing for another
        modules = [module for name, module in list(sys.modules.items()) if name != "__main__"]
        paths = [getattr(module, "__file__", None) for module in modules]
    while error is not None:  # what failed is not among the modules any more
        traceback = error.__traceback__
        while traceback:
            paths.append(traceback.tb_frame.f_code.co_filename)
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__
    folders = [os.path.abspath(entry) for entry in sys.path]
    for path in paths:
        if path and (name := _hidden_by(os.path.abspath(path), folders)):
            return in_the_place_of(name, path)
    return None


def _hidden_by(path, folders):
    """Return the name of the module that a file hides, if it does, in what Python searches."""
    folder, file = os.path.split(path)
    if file == "__init__.py":
        folder, file = os.path.split(folder)
    name = file.removesuffix(".py")
    if not name.isidentifier() or folder not in folders or _is_installed(folder):
        return None
    spec = PathFinder.find_spec(name, [entry for entry in folders if _is_installed(entry)])
    is_module = spec is not None and spec.origin is not None  # and no folder without modules
    return name if is_module or name in sys.stdlib_module_names else None


def _is_installed(folder):
    return "-packages" in folder or folder.startswith(os.path.dirname(os.__file__))
