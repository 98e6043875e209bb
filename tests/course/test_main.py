import json
import sys

import nbformat
import pytest
from mxnet import np
from PIL import Image

from d2lres import __version__
from d2lres.runtime import machine
from d2lres.__main__ import main
from d2lres.course.lessons import run_lesson
from d2lres.course.sizes import Scale, scale


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"d2lres    {__version__}\n") and "\ndata      Fashion-MNIST " in out


def test_the_status_of_doctor_says_whether_mxnet_works(monkeypatch, capsys):
    monkeypatch.setattr("d2lres.runtime.machine.in_the_way", lambda: ["it is broken."])
    assert main(["doctor"]) == 1
    assert "amiss: it is broken." in capsys.readouterr().out.splitlines()
    monkeypatch.setattr("d2lres.runtime.machine.in_the_way", list)
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert main(["doctor"]) == 0
    assert "\nadvice: OMP_NUM_THREADS is 999" in capsys.readouterr().out


def test_data(bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert main(["data"]) == 0  # there is a sample of the first, and lessons do without the others
    lines = capsys.readouterr().out.splitlines()
    names = ["Fashion-MNIST: 6,000", "CIFAR-10 is not on this", "CIFAR-100 is not on this"]
    assert all(line.startswith(n) for line, n in zip(lines, names, strict=True))


def test_data_by_name(bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert main(["data", "fashion-mnist"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["data", "cifar-100"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("d2lres: CIFAR-100 is not on this machine (D2LRES_OFFLINE")


def test_train_records_the_run(tmp_path, monkeypatch, capsys):
    tiny = Scale("tiny", 40, 20, None, 1, 20, 0.05, True)
    monkeypatch.setattr("d2lres.course.sizes.scale", lambda name=None: tiny)
    record = tmp_path / "run.json"
    assert main(["train", "--seed", "3", "--precision", "float32", "--record", str(record)]) == 0
    run = json.loads(record.read_text())["run"]
    assert (run["scale"], run["seed"], run["num_examples"]) == ("tiny", 3, 40)
    assert "40 images of 28x28 pixels, 1 epoch," in capsys.readouterr().out


def test_what_the_processor_cannot_is_said_in_a_line(bare_machine, monkeypatch, capsys):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert main(["train", "--scale", "quick", "--precision", "bfloat16"]) == 1
    assert capsys.readouterr().err.startswith("d2lres: MXNet computes bfloat16 only")


@pytest.mark.parametrize("option, name", [("--epochs", "num_epochs"), ("--num-valid", "num_valid")])
def test_none_of_what_is_counted(option, name, bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert main(["train", "--recipe", "fast", option, "0"]) == 1
    assert f"d2lres: {name} must be a whole number of at least 1, not 0" in capsys.readouterr().err


def test_transfer(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "d2lres.course.experiments.transfer_experiment", lambda *args: calls.append(args) or [{}]
    )
    assert main(["transfer"]) == main(["transfer", "--record", "x.json"]) == 0
    assert calls == [("results/transfer.json",), ("x.json",)]


def test_train_by_a_recipe(tmp_path, monkeypatch, capsys):
    from d2lres import recipe

    few = {"options": {"widths": (4, 8)}, "batch_size": 500, "num_train": 1000}
    monkeypatch.setitem(recipe.RECIPES, "fast", recipe.RECIPES["fast"]._replace(**few))
    record = tmp_path / "run.json"
    command = "train --recipe fast --epochs 2 --num-valid 500 --seed 5 --record"
    assert main([*command.split(), str(record)]) == 0
    history = json.loads(record.read_text())
    assert len(history["test_acc"]) == 2 and history["run"]["seed"] == 5
    assert history["run"]["recipe"]["num_epochs"] == 2
    out = capsys.readouterr().out
    assert "500 validation images" in out and f"accuracy {history['test_acc'][-1]:.1%}" in out


def test_predict(tmp_path, monkeypatch, capsys):
    def net(X):
        assert X.shape == (2, 3, 32, 32)
        scores = np.zeros((2, 100))
        scores[:, [3, 8, 98]] = X.mean(axis=(2, 3))
        return scores

    monkeypatch.setattr("d2lres.narrow_resnet18", lambda pretrained: pretrained and net)
    for name, colour in (("red", (255, 0, 0)), ("yellow", (255, 255, 0))):
        Image.new("RGB", (60, 40), colour).save(tmp_path / f"{name}.png")
    red, yellow = (str(tmp_path / f"{name}.png") for name in ("red", "yellow"))
    assert main(["predict", red, yellow]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0], lines[6]) == (12, red, yellow)
    # red is 1.84 by the mean and standard deviation of CIFAR-100, and e^1.84 of 103.8 is 6.1%
    assert lines[1] == "  6.1%  bear" and lines[2].startswith("  1.0%  ")
    assert {line.split("%  ")[1] for line in lines[7:9]} == {"bear", "bicycle"}


def test_predict_needs_pictures(tmp_path, capsys):
    (tmp_path / "1.jpg").write_text("text")
    assert main(["predict", str(tmp_path / "1.jpg")]) == 1
    assert main(["predict", str(tmp_path / "2.jpg")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 2
    assert "1.jpg is no JPEG or PNG that can be read" in err and "No such file" in err


def test_a_training_that_came_to_nothing_ends_in_one_line(monkeypatch, capsys):
    def fail(**_):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr("d2lres.__main__._train", fail)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "d2lres: the loss is nan\n"


def test_what_cannot_be_done_is_said_in_one_line(capsys):
    assert main(["train", "--epochs", "3"]) == 1
    assert "--epochs and --num-valid go with --recipe" in capsys.readouterr().err
    assert main(["train", "--scale", "huge"]) == 1
    assert "no scale 'huge': D2LRES_SCALE is one of quick, lesson, full" in capsys.readouterr().err
    assert main(["run", "missing.ipynb"]) == 1
    assert "there is no lesson missing.ipynb" in capsys.readouterr().err


def test_the_scale_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("D2LRES_SCALE", "full")
    assert scale() == ("full", 60_000, 10_000, 96, 10, 256, 0.05, False)
    assert "60,000 images of 96x96 pixels, 10 epochs" in str(scale())
    assert scale().scheduler(num_batches=7) is None
    monkeypatch.delenv("D2LRES_SCALE")
    assert scale().name == "lesson"
    with pytest.raises(ValueError, match="no scale 'small'"):
        scale("small")


def test_the_learning_rate_of_a_short_run_falls_to_zero():
    size = scale("quick")
    scheduler = size.scheduler(num_batches=10)
    rates = [scheduler(step) for step in range(10 * size.num_epochs + 1)]
    assert rates[0] == size.lr and rates[-1] == 0 and rates == sorted(rates, reverse=True)
    assert "lr 0.05 falling to 0" in str(size)


def test_a_lesson_without_a_browser(tmp_path, capsys):
    cells = [
        nbformat.v4.new_code_cell("print('two:', 1 + 1)", metadata={"tags": ["result"]}),
        nbformat.v4.new_code_cell(
            "from d2lres import History, plot_history\n"
            "plot_history(History([2.0], [0.5], [0.4], [1.0], [9.0]))",
            metadata={"tags": ["curves"]},
        ),
        nbformat.v4.new_code_cell(
            "from tqdm.notebook import tqdm\nfor i in tqdm(range(3), leave=False): pass"
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "tiny.ipynb")
    html, picture = run_lesson(tmp_path / "tiny.ipynb", tmp_path / "out")
    captured = capsys.readouterr()
    assert captured.out == "two: 2\n" and "3/3" in captured.err
    assert html.name == "tiny.html" and "<img" in html.read_text(encoding="utf-8")
    assert picture.name == "tiny_curves.png" and picture.read_bytes().startswith(b"\x89PNG")
