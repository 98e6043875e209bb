"""A student's file that has the name of a module is named, in whatever an import ends."""

import sys
import types

import pytest

from d2lres.runtime import namesakes

TRY = """
for statement in {statements!r}:
    try: exec(statement)
    except Exception as error: seen[statement] = str(error)
"""
MXNET, D2LRES, DATA = "import mxnet", "from d2lres import train", "import d2lres; d2lres.ArrayIter"
FILES = {
    "random.py": ("x = 1", [DATA]),  # NumPy takes a name that it has not
    "numpy.py": ("x = 1", [MXNET, D2LRES]),
    "numpy/__init__.py": ("", [MXNET, D2LRES]),
    "logging.py": (D2LRES, [MXNET, D2LRES]),  # which comes back here, half way
    "platform.py": ("1 / 0", [MXNET]),
    "mxnet.py": ("from mxnet import np", [MXNET, D2LRES]),
    "d2lres.py": (D2LRES, [MXNET, D2LRES, "import d2lres"]),
}


@pytest.mark.parametrize("file", FILES)
def test_it_is_named(python, tmp_path, file):
    content, statements = FILES[file]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    path, name = str(tmp_path / file).removesuffix("/__init__.py"), file.split("/")[0]
    seen, err = python(TRY.format(statements=statements), cwd=tmp_path)
    words = f"{path} has the name of the module {name.removesuffix('.py')} and is imported in its "
    assert seen == dict.fromkeys(statements, f"{words}place: rename it and start Python anew.")
    assert all(words in line for line in err.splitlines())


def test_the_command_line_names_it(python, tmp_path):
    (tmp_path / "random.py").touch()
    run = "import runpy, sys; sys.argv = ['d2lres', 'doctor']\n"
    run += "try: runpy.run_module('d2lres', run_name='__main__')\n"
    run += "except SystemExit as end: seen['status'] = end.code"
    seen, err = python(run, cwd=tmp_path)
    assert seen == {"status": 1}
    assert err.splitlines()[-1].startswith(f"d2lres: {tmp_path}/random.py has the name of the")


def test_a_file_that_is_in_nobody_s_way_is_not_blamed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("helper", "statistics"):
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    assert namesakes.of_error(OSError("libgomp.so.1 is not found")) is None
    assert "statistics.py has" in str(namesakes.of_error(AttributeError("no mean")))
    monkeypatch.delitem(sys.modules, "statistics")
    assert namesakes.of_error(AttributeError("no mean")) is None
    namesakes.explain(AttributeError("no mean"))  # which goes on as it is
