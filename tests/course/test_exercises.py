"""The exercises: solutions are right, plausible mistakes are not, and hints give nothing away."""

import re
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as onp
import pytest
from mxnet import np

from d2lres import check
from d2lres.course.exercises import EXERCISES

ROOT = Path(__file__).parents[2]


def exercises():
    """Return, for each exercise, the cell that asks for it and the solution below that cell."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for cell, below in zip(cells, cells[1:], strict=False):
            if asked := re.search(r'^check\("(.*?)", answer\)', cell.source, re.MULTILINE):
                solution = re.search(r"<details>.*?```python\n(.*?)```", below.source, re.DOTALL)
                found[asked[1]] = cell.source, solution[1]
    return found


ASKED = exercises()
IS_CODE = {name: "answer = None  # your " in cell for name, (cell, _) in ASKED.items()}

WRONG = {  # values, or what in a solution is replaced by what
    "1.1": [(2, 8, 3, 3), (8, 4, 4), (2, 8, 7, 7), (4, 8, 4, 4), "fails"],
    "1.2": [162, 168, 174, 192, 181, 180.5, "180", [180]],
    "1.3": ["fails", (4, 1, 6, 6), (4, 7, 6, 6)],
    "1.4": [
        ("Y + (", "Y + 0 * ("),
        ("F.npx.relu(Y + (self.conv3(X) if self.conv3 else X))", "F.npx.relu(Y) + X"),
        ("relu(Y + (self.conv3(X) if self.conv3 else X))", "tanh(Y)"),
        ("F.npx.relu(self.bn1(self.conv1(X)))", "self.bn1(self.conv1(X))"),
        ("kernel_size=1, strides=strides", "kernel_size=1"),
        ("padding=1, strides=strides", "padding=1"),
        ("padding=1)", "padding=1, use_bias=False)"),
        ("self.bn2(self.conv2(Y))", "self.bn1(self.conv2(Y))"),
        ("answer = MyResidual", "answer = MyResidual(3)"),
        ("answer = MyResidual", "answer = lambda *args: None"),
        ("answer = MyResidual", 'answer = "MyResidual"'),
    ],
    "1.5": [
        ("Y + X", "Y"),
        ("return Y + X", "return F.npx.relu(Y + X)"),
        ("self.conv1(F.npx.relu(self.bn1(X)))", "F.npx.relu(self.bn1(self.conv1(X)))"),
        ("self.bn2(Y)", "Y"),
    ],
    "2.1": [(256, 3, 3), (1, 256, 4, 4), (128, 8, 8), (512, 2, 2)],
    "2.2": [990 * 512, 513_000, 507_871, 11_178_378],
    "2.3": [
        ("resnet_block(256, 6)", "resnet_block(256, 5)"),
        (", first_block=True", ""),
        ("nn.Dense(10)", "nn.Dense(1000)"),
        ("nn.GlobalAvgPool2D(), ", ""),
        ("answer.add(stem(64), ", "answer.add("),
    ],
    "2.4": [
        ("(side + 1) // 2", "side // 2"),
        ("range(3)", "range(4)"),
        ("half(half(size))", "half(size)"),
        ("return found", "return found[1:]"),
        ("    return found", "    found"),
    ],
    "3.1": [234, 234.4, 236, 256],
    "3.2": [0.2, 80, 24, 0.7, True],
    "3.3": [
        ("axis=1", "axis=0"),
        ("matrix.sum(axis=1)", "matrix.sum()"),
        ("return matrix.diagonal()", "return 1 - matrix.diagonal()"),
    ],
    "3.4": [
        ("    scores = scores - scores.max(axis=1, keepdims=True)\n", ""),
        (".mean()", ".sum()"),
        ("log_sum - npx", "npx"),
        (").mean()", ")"),
        (".sum(axis=1)", ".sum()"),
        ("scores = scores -", "scores -="),
    ],
    "4.1": ["A", "both", "C", 1, True],
    "4.2": [54, 15, 90, 44],
    "4.3": [(0, 2560), (0, 2656), (2752, 0), (0, 0), 2752],
    "4.4": [
        ("blk.body[-1].gamma", "blk.body[1].gamma"),
        ("blk.body[-1].gamma", "blk.body[-2].weight"),
        ("blk.body[-1].gamma", "blk.body[-1].beta"),
        ("net[1:4]", "net[1:3]"),
        ("np.zeros(", "np.ones("),
        ("answer = start_at_zero", "answer = 0"),
    ],
    "4.5": [
        ("j != block", "j == block"),
        ("i == stage", "i == stage - 1"),
        ("if j != block", ""),
        (
            "    shorter = ",
            "    del net[stage]._children[str(block)]\n    return net\n    shorter = ",
        ),
    ],
    "5.1": [36, 54, 17, 110],
    "5.2": [2560, 2656, 2751, 272_474],
    "5.3": [60, 15_640, 31_280, 23_459],
    "5.4": [81, 128, 64, 2],
    "5.5": [
        ("[:, :, ::strides, ::strides]", "[:, :, :: strides + 1, ::strides]"),
        ("[:, :, ::strides, ::strides]", "[:, :, strides - 1 :: strides, strides - 1 :: strides]"),
        ("[X, zeros]", "[zeros, X]"),
        ("num_channels - in_channels", "num_channels"),
    ],
    "5.6": [
        ("(only_A - only_C)", "(only_C - only_A)"),
        ("math.sqrt(only_A + only_C)", "math.sqrt(len(hits_A))"),
        ("math.sqrt(only_A + only_C)", "(only_A + only_C)"),
        ("hits_A & ~hits_C", "hits_A & hits_C"),
    ],
    "6.1": [9408, 576, 1792, 1727],
    "6.2": [6, 13, 8, 34],
    "6.3": [1 / 3, 2, 1, 0.6, 0.7],
    "6.4": [0.01, 4 / 99, 0.2, 5, 0.06],
    "6.5": [
        ("CIFAR100_COARSE_OF_FINE)]", "[k // 5 for k in range(100)])]"),
        ("probabilities @ is_in", "probabilities @ is_in / 5"),
        ("return probabilities", "return probabilities.T"),
    ],
    "6.6": [
        ("lr * step / num_warmup", "lr * (step + 1) / num_warmup"),
        ("(step - num_warmup) / (num_steps - num_warmup)", "step / num_steps"),
        ("(1 + math.cos(math.pi * done)) / 2", "math.cos(math.pi * done / 2)"),
        ("(1 + math.cos(math.pi * done)) / 2", "(1 - done)"),
    ],
    "7.1": [65_536, 462_422_016, 51_380_225],
    "7.2": [66, 37, 35],
    "7.3": [
        ("sigmoid", "relu"),
        (', activation="relu"', ""),
        ("X * weights", "X + X * weights"),
        ("X * weights", "weights"),
        ("num_channels // ratio", "ratio"),
    ],
    "7.4": [
        ("nn.AvgPool2D(", "nn.MaxPool2D("),
        ("kernel_size=1, use_bias=False", "kernel_size=1"),
        ("nn.AvgPool2D(pool_size=2, strides=2)", "nn.AvgPool2D(pool_size=1, strides=2)"),
        ("        nn.BatchNorm(),\n", ""),
    ],
    "8.1": [4, 13, 6, 2, 7.1],
    "8.2": [
        ("(0, 2, 3)", "(0,)"),
        ("(0, 2, 3)", "(2, 3)"),
        ("np.sqrt(var + 1e-5)", "(var + 1e-5)"),
        (" + beta.reshape(1, -1, 1, 1)", ""),
    ],
    "8.3": [
        ("(1 - self.p) * ", ""),
        ("(1 - self.p)", "self.p"),
        ("random.random() < self.p", "random.random() > self.p"),
        ("random.random() < self.p", "self.p > 0.5"),
        ("else self.blk(X)", "else self.blk(X) / (1 - self.p)"),
    ],
    "9.1": [(16, 32, 3, 3), (32, 3, 3, 16), (3, 3, 16, 32), (32, 16, 3)],
    "9.2": [(3, 2), (3, 3), (2, 2), 5],
    "9.3": [7, 50, 68, 70, 0.5],
    "9.4": [
        ('"gamma": "weight"', '"gamma": "gamma"'),
        ('"weight": "weight"', '"weight": "bias"'),
        (', "conv3"', ""),
        ("param.data().asnumpy()", "param"),
        ("param.data().asnumpy()", "param.data().asnumpy().T"),
    ],
    "9.5": [
        ("total // 2, total - total // 2", "total - total // 2, total // 2"),
        ("total // 2, total - total // 2", "kernel_size // 2, kernel_size // 2"),
        ("zeros(height), zeros(width)", "zeros(width), zeros(height)"),
        ("max((num_outputs - 1)", "abs((num_outputs - 1)"),
        (" - size, 0)", " - size)"),
    ],
    "10.1": [64, 32, 0, 15],
    "10.2": [[0.75, 0, 0.25], [0.75, 0.25, 0], [25, 0, 75], [0, 0, 1], 0.75],
    "10.3": [
        ("[:, :, ::-1]", "[:, :, :, ::-1]"),
        ("[:, :, ::-1]", "[::-1]"),
        ("images[:, :, ::-1].copy()", "images"),
        ("    return", "    images[:] = images[:, :, ::-1]\n    return"),
    ],
    "10.4": [200, 50, 89, 111, 0.5],
    "10.5": [
        ("    images = images.copy()\n", ""),
        ("max(row, 0), max(column, 0)", "row, column"),
        ("max(row + size, 0)", "top + size"),
        ("] = 0", "] = 1"),
    ],
    "11.1": [1280, 1291, 701_000],
    "11.2": [0.04, 0.01, 0.08, 0.16],
    "11.3": [True, 0, "False", 0.0, None.__class__, onp.bool_(True)],
    "11.4": [
        ("nn.Dense(num_classes)", "nn.Dense(10)"),
        ("net[:-1]", "net"),
        ("new = nn.HybridSequential()", "new = net"),
        (
            "    head.initialize()",
            "    new.collect_params().initialize(force_reinit=True)\n    head.initialize()",
        ),
    ],
    "11.5": [
        ("    centres /= onp.linalg.norm(centres, axis=1, keepdims=True)\n", ""),
        ("argmax", "argmin"),
        ("y.max() + 1", "y.max()"),
    ],
    "12.1": [1875, 468, 468.75, 15_000],
    "12.2": [0.1, 0.72, 1.12, 0.28, 0.19, 0.4],
    "12.3": [
        ("size * gradient", "gradient"),
        ("/ sum(sizes)", "/ len(sizes)"),
        ("return total / sum(sizes)", "return total"),
        ("return total / sum(sizes)", "return sum(gradients) / len(gradients)"),
    ],
    "12.4": [
        ("order[rank::num_workers]", "order"),
        (
            "[rank::num_workers]",
            "[rank * (len(order) // num_workers) :][: len(order) // num_workers]",
        ),
        ("[rank::num_workers]", "[rank + 1 :: num_workers]"),
        ("[rank::num_workers]", "[: len(order)] if rank == 0 else order[:0]"),
        ("order[rank::num_workers]", "range(rank, len(order) // 2 * 2, num_workers)"),
    ],
}


def outcome(name, answer):
    """Return what the cell of an exercise says to some code in the place of `answer = None`."""
    source = ASKED[name][0]
    blank = re.search(r"answer = None.*\n", source)[0]
    *body, last = source.replace(blank, answer).strip().splitlines()
    student = {"__name__": "student"}
    exec("\n".join(body), student)
    return eval(last, student)


def test_every_exercise_is_asked_and_each_lesson_asks_for_code():
    assert list(ASKED) == list(EXERCISES) == list(WRONG)
    lessons = [name.partition(".")[0] for name, is_code in IS_CODE.items() if is_code]
    assert all(lessons.count(str(number)) >= 2 for number in range(1, 13))


TRAINED = ("2.3", "2.4", "4.3", "4.4", "4.5", "5.2", "10.1", "11.4")  # or run, for each mistake
WITH_MARKS = [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAINED)) for name in ASKED]


@pytest.mark.parametrize("name", WITH_MARKS)
def test_a_solution_is_right(name):
    cell, solution = ASKED[name]
    assert outcome(name, "answer = None\n") == "not answered yet"
    assert outcome(name, solution) == "right"


@pytest.mark.parametrize("name", WITH_MARKS)
def test_a_wrong_answer_gets_a_hint_and_not_the_answer(name):
    hints = [check(name, nonsense) for nonsense in (0, "", [0], (), {}, set(), onp.nan, object)]
    solution = ASKED[name][1]
    if IS_CODE[name]:
        assert all(old in solution for old, _ in WRONG[name])
        hints += [outcome(name, solution.replace(old, new)) for old, new in WRONG[name]]
    else:
        hints += [check(name, answer) for answer in WRONG[name]]
        namespace = {}
        exec(solution, namespace)
        if namespace["answer"] is not False:  # "expected True or False" gives nothing away
            right = rf"(?<![\w.]){re.escape(str(namespace['answer']))}(?!\w)"
            assert not [hint for hint in hints if re.search(right, hint)]
    print(*hints, sep="\n")
    assert all(re.match("not right yet: .{8}", hint) for hint in hints)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("1.1", [2, 8, 4, 4]),
        ("1.1", onp.array([2, 8, 4, 4])),
        ("1.1", np.array([2, 8, 4, 4])),
        ("1.2", onp.int64(180)),
        ("1.2", 180.0),
        ("1.2", np.array(180)),
        ("4.1", " b "),
        ("6.3", 0.667),
        ("6.3", 0.67),
        ("6.3", Fraction(2, 3)),
        ("6.3", onp.float32(2 / 3)),
        ("10.2", (0.25, 0, 0.75)),
        ("11.3", onp.bool_(False)),
    ],
)
def test_what_means_the_same_is_right(name, answer):
    assert check(name, answer) == "right"


def test_what_is_no_exercise_is_an_error():
    with pytest.raises(ValueError, match='"1.2"'):
        check(1.1, 180)
