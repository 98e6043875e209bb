"""What MXNet's tests and the book's cells find around them: nose, a time limit, little data."""

import functools
import itertools
import json
import re
import signal
import sys
import types
import unittest

SECONDS = 300  # for one test or cell
case = unittest.TestCase()


def raises(*errors):
    return lambda f: functools.wraps(f)(lambda *args: case.assertRaises(errors, f, *args))


def too_long(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, too_long)
tools = types.ModuleType("nose.tools")
for name in filter(re.compile("assert[A-Z]").match, dir(case)):
    setattr(tools, re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name), getattr(case, name))
tools.raises, tools.ok_, tools.eq_ = raises, case.assertTrue, case.assertEqual
tools.make_decorator = functools.wraps
sys.modules["nose"] = nose = types.ModuleType("nose")
sys.modules["nose.tools"] = nose.tools = tools


def pytest_runtest_setup(item):
    signal.alarm(SECONDS)


def pytest_runtest_teardown(item):
    signal.alarm(0)


def cells(text):
    """Return the cells of a chapter that are for MXNet, with one epoch where they train."""
    for cell in re.findall(r"^```\{\.python \.input[^\n]*\n(.*?)^```", text, re.M | re.S):
        tab = re.search(r"^(?:#@|%%)tab (.*)\n", cell, re.M)
        if not tab or re.search("mxnet|all", tab[1]):
            cell = cell.replace(tab[0], "") if tab else cell
            cell = re.sub(r"\b(num_epochs|max_epochs)( *= *)\d+", r"\1\g<2>1", cell)
            yield re.sub(r"^%(load_ext d2lbook|matplotlib).*\n", "", cell, flags=re.M)


def run_chapter(path, report):
    import mxnet as mx
    from IPython.core.interactiveshell import InteractiveShell

    shell, passed = InteractiveShell.instance(), []
    every = mx.gluon.data.DataLoader.__iter__
    mx.gluon.data.DataLoader.__iter__ = lambda self: itertools.islice(every(self), 3)
    shell.user_ns["tab"] = types.SimpleNamespace(
        selected=lambda *names: "mxnet" in names, interact_select=lambda *names: None
    )
    for number, code in enumerate(cells(open(path, encoding="utf-8").read())):
        signal.alarm(SECONDS)
        passed += [str(number)] if shell.run_cell(code).success else []
        signal.alarm(0)
        with open(report, "w") as file:
            json.dump(passed, file)


if __name__ == "__main__":
    run_chapter(*sys.argv[1:])
