"""What the lessons show as "the same in PyTorch" computes the same, and learns the same."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from reference.draw import draw, sampled

import d2lres
from d2lres import blocks, models

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference"
SUMMARY = "<details><summary>The same in PyTorch</summary>"
OWN_CELL = {"define-residual": "pytorch"}  # where a lesson is about PyTorch, it is not folded away
NO_TWIN = {"sequence"}  # nn.Sequential takes its layers as they are

NETS = {
    "Residual": lambda: d2lres.Residual(3),
    "Residual 1x1": lambda: d2lres.Residual(8, use_1x1conv=True, strides=2),
    "stem": lambda: models.stem(16),
    "resnet_block": lambda: d2lres.resnet_block(16, 2),
    "resnet_block first": lambda: d2lres.resnet_block(8, 2, first_block=True),
    "resnet18": lambda: d2lres.resnet18(),
    "make_conv": lambda: blocks.make_conv(6, 4, 3, 2),
    "PadChannels": lambda: blocks.PadChannels(8, 4, 2),
    "make_shortcut": lambda: blocks.make_shortcut(8, 4, 2, "B"),
    "BasicBlock A": lambda: d2lres.BasicBlock(8, 4, 2, shortcut="A"),
    "BasicBlock B": lambda: d2lres.BasicBlock(8, 4, 2),
    "BasicBlock C": lambda: d2lres.BasicBlock(8, 8, shortcut="C"),
    "BasicBlock plain": lambda: d2lres.BasicBlock(8, 4, 2, residual=False),
    "make_stem imagenet": lambda: models.make_stem(8, "imagenet"),
    "make_stage": lambda: models.make_stage(d2lres.BasicBlock, 8, 4, 2, 2),
    "cifar_resnet": lambda: d2lres.cifar_resnet(8),
    "cifar_resnet preact": lambda: d2lres.cifar_resnet(8, preact=True),
    "cifar_resnet plain": lambda: d2lres.cifar_resnet(8, residual=False),
    "Bottleneck": lambda: d2lres.Bottleneck(16, 8, 2),
    "PreActResidual": lambda: d2lres.PreActResidual(8, 8),
    "PreActResidual A": lambda: d2lres.PreActResidual(8, 4, 2, shortcut="A"),
    "PreActResidual B": lambda: d2lres.PreActResidual(8, 4, 2),
}


@pytest.fixture(scope="module")
def reference():
    with onp.load(REFERENCE / "twins.npz", allow_pickle=False) as file:
        return dict(file)


def carried(net, tensors, X):
    """Give a network the weights of its twin, one after the other, and return its parameters."""
    net.initialize()
    net(X)  # the shapes are known from here on
    params = list(net.collect_params().values())
    for param, line in zip(params, str(tensors).splitlines(), strict=True):
        name, *shape = line.split()
        param.set_data(np.array(draw(name, tuple(map(int, shape)))))
    return params


def numbers(params):
    return onp.concatenate([onp.float32([]), *(sampled(p.data().asnumpy()) for p in params)])


def training_step(net, X, lr):
    """Move a network one step towards its target, and return what it gave before."""
    target = np.array(draw("target", net(X).shape))
    with autograd.record():
        Y = net(X)
        l = ((Y - target) ** 2).mean()
    if trained := [p for p in net.collect_params().values() if p.grad_req != "null"]:
        l.backward()
        gluon.Trainer(trained, "sgd", {"learning_rate": lr}).step(1)
    return Y.asnumpy()


def test_every_net_of_the_reference_has_its_twin(reference):
    assert NETS.keys() == {name.partition("/")[0] for name in reference if name.endswith("/shape")}


@pytest.mark.parametrize("name", NETS)
def test_a_net_computes_and_learns_what_its_twin_does(name, reference):
    of = {key.partition("/")[2]: a for key, a in reference.items() if key.startswith(f"{name}/")}
    net, X = NETS[name](), np.array(draw("X", tuple(of["shape"])))
    params = carried(net, of["tensors"], X)
    onp.testing.assert_array_equal(numbers(params), of["before"])

    close = {"rtol": 1e-4, "atol": 1e-4}
    onp.testing.assert_allclose(net(X).asnumpy(), of["inference"], **close)
    Y = training_step(net, X, float(of.get("lr", 0)))
    onp.testing.assert_allclose(Y, of["training"], **close)
    with autograd.train_mode():
        onp.testing.assert_allclose(net(X).asnumpy(), of["stepped"], **close)
    if params:
        assert abs(of["stepped"] - of["training"]).max() > 1e-2
    learned = [p.grad_req != "null" for p in params for _ in sampled(p.data().asnumpy())]
    onp.testing.assert_allclose(numbers(params)[learned], of["after"][learned], **close)


def test_a_function_returns_what_its_twin_does(reference):
    scores, y, y_hat = (reference[name] for name in ("scores", "y", "y_hat"))
    matrix = d2lres.confusion_matrix(y, y_hat, 10)
    onp.testing.assert_array_equal(matrix, reference["confusion_matrix"])
    top_k = [d2lres.top_k_accuracy(scores, y, k) for k in (1, 3, 10)]
    onp.testing.assert_allclose(top_k, reference["top_k_accuracy"], rtol=1e-6)
    net, X = d2lres.cifar_resnet(8), np.array(draw("X", (2, 3, 16, 16)))
    carried(net, reference["cifar_resnet/tensors"], X)
    heat = d2lres.grad_cam(net, X, np.array(y[:2], dtype="int32")).asnumpy()
    assert heat.max() > 1e-3
    onp.testing.assert_allclose(heat, reference["grad_cam"], atol=1e-5)


# ------------------------------------------------------------------ where PyTorch is installed


def python_with_torch():
    """Return a Python that has PyTorch: this one, or that of `make .venv-torch/installed`."""
    if importlib.util.find_spec("torch"):
        return sys.executable
    beside = ROOT / ".venv-torch" / "bin" / "python"
    return str(beside) if beside.exists() else None


@pytest.mark.skipif(not python_with_torch(), reason="PyTorch is not installed")
def test_pytorch_makes_the_reference_again(tmp_path, reference):
    made = tmp_path / "twins.npz"
    subprocess.run([python_with_torch(), REFERENCE / "make_twins.py", made], check=True)
    with onp.load(made, allow_pickle=False) as file:
        again = dict(file)
    assert again.keys() == reference.keys()
    for name in reference.keys() - {"versions"}:
        if reference[name].dtype.kind == "f":
            onp.testing.assert_allclose(again[name], reference[name], rtol=1e-4, atol=1e-4)
        else:
            onp.testing.assert_array_equal(again[name], reference[name])


# ------------------------------------------------------------------ what the lessons show

MADE = (REFERENCE / "twins.py").read_text(encoding="utf-8")


def definitions(source):
    """Return the source of the classes and functions at the top level by name."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    return {node.name: ast.get_source_segment(source, node) for node in nodes}


def shown():
    """Yield for each cell that defines something its names, and the code of the twin it has."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for cell, below in zip(cells, cells[1:], strict=False):
            if "definition" not in cell.metadata.get("tags", []):
                continue
            own = [c for c in cells if c.id == OWN_CELL.get(cell.id)]
            text = own[0].source if own else below.source
            where = f"{path.stem}, below {cell.id}"
            assert own or text.startswith(SUMMARY), f"{where}: no twin in PyTorch"
            code = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
            yield where, definitions(cell.source).keys() - NO_TWIN, code


def test_lessons_show_what_made_the_reference():
    seen, made = {}, definitions(MADE)
    for where, names, code in shown():
        twins = definitions(code)
        assert names <= twins.keys(), where
        assert twins == {name: made[name] for name in twins}, where
        assert len([line for line in code.splitlines() if line]) <= 20, where
        seen |= twins
    assert seen == made
