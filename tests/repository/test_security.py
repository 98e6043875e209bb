"""What SECURITY.md promises: nothing unpickled, no shell, JupyterLab for one user only."""

import ast
import re
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from lab import running_lab

ROOT = Path(__file__).parents[2]
FOLDERS = ("d2lres", "tools", "benchmarks")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = re.compile(
    r"(eval|exec|os\.(system|popen)|yaml\.load|torch\.load)$"
    r"|(.*\.)?(getoutput|getstatusoutput|extractall|read_pickle)$"
    r"|get_ipython\(\)\.(system|getoutput|run_cell_magic)$"
    r"|.*\.(load_states|set_states)$"  # MXNet's, of an optimizer: they unpickle
    r"|.*\.(imread|imdecode|ImageIter|ImageRecordIter|MXRecordIO)$"  # of libraries of 2018
)
KEYWORDS = {"shell": False, "allow_pickle": False}  # what they may be


def dangers(code):
    """What a program contains that may run what it was only to read."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            if CALLS.match(name := ast.unparse(node.func)):
                yield name
            for given in node.keywords:
                if given.arg in KEYWORDS and getattr(given.value, "value", None) is not False:
                    yield f"{name}({ast.unparse(given)})"


# takes pickles apart to refuse them: tests/runs/test_workers.py
EXCUSED = {"sent.py": ["pickle"]}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules(path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == EXCUSED.get(path.name, [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        assert list(dangers(TransformerManager().transform_cell(cell.source))) == []


DANGERS = """import pickle
from joblib import load
import shelve as s
eval('1')
exec(text)
os.system('ls')
subprocess.run(command, shell=True)
subprocess.run(command, shell=yes)
numpy.load(path, allow_pickle=True)
torch.load(path)
yaml.load(text)
tar.extractall()
trainer.load_states(path)
mx.image.imread(path)
get_ipython().system('ls')"""


@pytest.mark.parametrize("line", DANGERS.splitlines())
def test_dangers_are_found(line):
    assert len(list(dangers(line))) == 1


def test_harmless_calls_are_not_dangers():
    assert not list(dangers("platform.system(); net.eval(); np.load(x, allow_pickle=False)"))


# JupyterLab

SETTINGS = (ROOT / "tools" / "lab" / "jupyter_server_config.py").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_jupyterlab_is_for_this_machine_and_asks_for_a_token():
    assert 'c.ServerApp.ip = "127.0.0.1"' in SETTINGS
    opened = "token|password|allow_remote|allow_origin|disable_check"
    assert not re.search(opened, SETTINGS + MAKEFILE)


@pytest.fixture
def lab(tmp_path):
    """What JupyterLab says of itself."""
    with running_lab(tmp_path) as about:
        yield about


@pytest.mark.faults
def test_jupyterlab_turns_strangers_away(lab, faults):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{lab['url']}api/contents"

    def status(token):
        request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
        try:
            return opener.open(request, timeout=20).status
        except urllib.error.HTTPError as error:
            return error.code

    with faults("JupyterLab", "request from another machine"):
        connections = psutil.Process(lab["pid"]).net_connections("tcp")
        assert {c.laddr.ip for c in connections if c.status == "LISTEN"} == {"127.0.0.1"}
    for wrong in ("", "wrong", lab["token"][:-1]):
        with faults("JupyterLab", "request without the token"):
            assert status(wrong) == 403
    assert len(lab["token"]) >= 32 and status(lab["token"]) == 200
