import io
import json
import os
import subprocess
import sys
from unittest.mock import Mock

import nbformat
import pytest
from mxnet import np
from PIL import Image

from d2lres import __main__, __version__
from d2lres.__main__ import main
from d2lres.course import lessons
from d2lres.course.lessons import run_lesson
from d2lres.course.recipes import RECIPES, Recipe
from d2lres.course.sizes import Scale
from d2lres.runtime import machine

COMMANDS = (
    "doctor",
    "data",
    "train",
    "experiment",
    "transfer",
    "predict",
    "summary",
    "run",
    "launch",
    "lesson",
)
SUMMARY = ["summary", "cifar_resnet20", "--input", "3x32x32"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_arguments(command, capsys):
    assert set(COMMANDS) == set(_actions(__main__._parser())[-1].choices)
    for action in _actions(_actions(__main__._parser())[-1].choices[command]):
        assert action.help
    with pytest.raises(SystemExit, match="^0$"):
        main([command, "--help"])
    assert f"usage: python -m d2lres {command} " in capsys.readouterr().out


def _actions(parser):
    return parser._actions


@pytest.mark.slow
def test_the_status_of_doctor_says_whether_mxnet_works(monkeypatch, capsys):
    assert main(["doctor"]) == 0  # this machine is healthy
    out = capsys.readouterr().out
    assert out.startswith(f"d2lres        {__version__}\nMXNet         mxnet")
    assert "\nFashion-MNIST " in out and "amiss" not in out
    monkeypatch.setattr("d2lres.runtime.machine.in_the_way", lambda: ["it is broken."])
    assert main(["doctor"]) == 1
    assert "amiss: it is broken." in capsys.readouterr().out.splitlines()
    monkeypatch.setattr("d2lres.runtime.machine.in_the_way", list)
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert main(["doctor"]) == 0
    assert "\nadvice: OMP_NUM_THREADS is 999" in capsys.readouterr().out


def test_data(bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    assert main(["data"]) == 1  # there is a sample of the first, and lessons do without the others
    out, err = capsys.readouterr()
    assert out.startswith("Fashion-MNIST: 6,000") and out.count("\n") == 1
    missing = "of Fashion-MNIST only a sample", "CIFAR-10 is not on", "CIFAR-100 is not on"
    for line, words in zip(err.splitlines(), missing, strict=True):
        assert line.startswith(f"d2lres: {words}")
    assert main(["data", "fashion-mnist"]) == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["data", "cifar-100"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("d2lres: CIFAR-100 is not on this machine (D2LRES_OFFLINE")


@pytest.mark.slow
def test_train_records_the_run(tmp_path, monkeypatch, capsys):
    tiny = Scale("tiny", 40, 20, None, 1, 20, 0.05, True)
    monkeypatch.setattr("d2lres.course.sizes.scale", lambda name=None: tiny)
    record = tmp_path / "run.json"
    assert main(["train", "--seed", "3", "--precision", "float32", "--record", str(record)]) == 0
    run = json.loads(record.read_text())["run"]
    assert (run["scale"], run["seed"], run["num_examples"]) == ("tiny", 3, 40)
    assert "40 images of 28x28 pixels, 1 epoch," in capsys.readouterr().out


def test_transfer(monkeypatch):
    calls = []
    name = "d2lres.course.experiments.transfer_experiment"
    monkeypatch.setattr(name, lambda *args: calls.append(args) or [{}])
    assert main(["transfer"]) == main(["transfer", "--record", "x.json"]) == 0
    assert calls == [("results/transfer.json",), ("x.json",)]


@pytest.mark.slow
def test_train_by_a_recipe(bare_machine, tmp_path, monkeypatch, capsys):
    few = {"options": {"widths": (4, 8)}, "batch_size": 500, "num_train": 1000}
    monkeypatch.setitem(RECIPES, "fast", RECIPES["fast"]._replace(**few))
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = "experiment fast --epochs 2 --seed 5 --precision float32 --num-valid 500"
    assert main([*command.split(), "--record", "~/run.json"]) == 0
    history = json.loads((tmp_path / "run.json").read_text())
    assert len(history["test_acc"]) == 2 and history["run"]["seed"] == 5
    assert history["run"]["recipe"]["num_epochs"] == 2
    out = capsys.readouterr().out
    assert out.startswith("Recipe(network='small_resnet', options={'widths': (4, 8)}, ")
    assert f"\nvalidation accuracy {history['test_acc'][-1]:.1%} after " in out
    assert not (tmp_path / "results").exists()


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
    assert "1.jpg is no JPEG, PNG, GIF, BMP or WebP that can be" in err and "No such file" in err


@pytest.mark.parametrize(
    ("error", "status", "err"),
    [
        (FloatingPointError("the loss is nan"), 1, "d2lres: the loss is nan\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_training_that_was_stopped_or_came_to_nothing(error, status, err, monkeypatch, capsys):
    monkeypatch.setattr("d2lres.__main__._train", Mock(side_effect=error))
    assert main(["train"]) == status
    assert capsys.readouterr() == ("", err)


WHOLE = "must be a whole number of at least 1, not 0"
CANNOT = {
    "train --scale huge": "no scale 'huge': D2LRES_SCALE is one of quick, lesson, full",
    "train --scale quick --precision bfloat16": "MXNet computes bfloat16 only",
    "experiment huge": "no experiment 'huge': choose one of fast, plain20",
    "experiment fast --epochs 0": f"num_epochs {WHOLE}",
    "experiment fast --num-valid 0": f"num_valid {WHOLE}",
    "run missing.ipynb": "there is no lesson missing.ipynb",
    "run 99": "there is no lesson notebooks/99",
    "lesson reset": "`lesson reset` takes the number of one lesson",
    "lesson copy 3": "`lesson reset` takes the number of one lesson",
    "lesson reset 99": "there is no lesson 99: there are",
    "summary resnet19 --input 3x8x8": "no network 'resnet19'; there are resnet18, resnet34, resnet",
    "summary cifar_resnet21 --input 3x8x8": "depth is 6n + 2",
    "summary resnet18 --input 3,8,8": "--input is channels x height x width, like 3x224x224, not",
    "summary resnet18 --input 8x8": "input_shape is (channels, height, width)",
    "summary resnet18 --input 3x8x8 --classes 0": "--classes is at least 1, not 0",
}


@pytest.mark.parametrize("command", CANNOT)
def test_what_cannot_be_done_is_said_in_one_line(command, bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    assert main(command.split()) == 1
    err = capsys.readouterr().err
    assert err.startswith("d2lres: ") and CANNOT[command] in err and err.count("\n") == 1


never = Mock(side_effect=AssertionError("this takes hours"))


@pytest.mark.parametrize("path", ["file/run.json", "file/new/run.json", "folder.safetensors"])
@pytest.mark.parametrize(
    "command",
    [
        "train --record",
        "transfer --record",
        "experiment resnet20 --record",
        "experiment resnet20 --weights",
    ],
)
def test_a_path_that_cannot_be_written_is_found_before_the_work(
    command, path, bare_machine, tmp_path, monkeypatch, capsys, stripes
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("d2lres.train", never)
    monkeypatch.setattr("d2lres.course.experiments._learned", never)
    monkeypatch.setattr(Recipe, "run", never)
    data = Mock(return_value=(stripes(), stripes()))
    monkeypatch.setattr(Recipe, "load", data)
    monkeypatch.setattr("d2lres.course.experiments.load_data_cifar10", data)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    if command.endswith("weights"):
        path = path.replace("json", "safetensors")
    assert main([*command.split(), path]) == 1
    assert capsys.readouterr().err.startswith(f"d2lres: {path} cannot be written: ")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder.safetensors"}


def test_the_folder_of_a_lesson_is_looked_at_before_it_runs(tmp_path, monkeypatch):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "tiny.ipynb")
    (tmp_path / "out").write_text("")
    monkeypatch.setattr(lessons._Client, "execute", never)
    with pytest.raises(OSError, match="out/tiny.html cannot be written: "):
        run_lesson(tmp_path / "tiny.ipynb", tmp_path / "out")


# --- where what is printed goes


@pytest.mark.parametrize("command", [["doctor"], SUMMARY, ["data", "fashion-mnist"], ["--help"]])
def test_a_reader_that_has_left_is_no_error(command, bare_machine, monkeypatch, capsys):
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:  # closing it, as Python's end, writes what is left
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(command) == 141  # as other programs do
    assert "Broken pipe" not in capsys.readouterr().err


def test_a_full_disk_is_said_once_and_no_stdout_not_at_all(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(SUMMARY) == 1
    assert capsys.readouterr().err == "d2lres: [Errno 28] No space left on device\n"
    monkeypatch.setattr(sys, "stdout", None)  # nothing is printed where there is nowhere to print
    assert main(SUMMARY) == 0


@pytest.mark.parametrize(
    ("shell", "status", "err"),
    [
        ("{} --help | true; exit ${{PIPESTATUS[0]}}", (0, 141), ""),
        ("{} --help >&-", (0,), "usage: "),
        ("{} predict none.png 2>&-", (1,), ""),
        ("{} predict none.png > /dev/full", (1,), "d2lres: [Errno 2] No such file"),
    ],
)
def test_streams_that_are_not_there(shell, status, err, tmp_path):
    command = shell.format(f"{sys.executable} -m d2lres")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in status and done.stderr.startswith(err)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_names_that_the_terminal_cannot_show(tmp_path, monkeypatch):
    net = lambda X: np.zeros((len(X), 100))  # noqa: E731
    monkeypatch.setattr("d2lres.narrow_resnet18", lambda pretrained: net)
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding="ascii"))
    paths = [f"{tmp_path}/{name}.png" for name in ("été", "bad\udcff")]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    assert main(["predict", *paths]) == 0
    assert [line for line in screen.getvalue().splitlines() if b"png" in line] == [
        f"{tmp_path}/{name}.png".encode() for name in ("\\xe9t\\xe9", "bad\\xff")
    ]


# --- lessons


def test_a_lesson_by_its_number(monkeypatch):
    monkeypatch.chdir(__main__.__file__.rpartition("d2lres")[0])
    for number in ("3", "03"):
        assert str(lessons._notebook(number)) == "notebooks/03_fashion_mnist.ipynb"


@pytest.fixture
def their_jupyter(tmp_path, monkeypatch):
    """Kernels that are not this Python, as clusters put their folders into JUPYTER_PATH."""
    for name in ("python3", "theirs"):
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        argv = {"argv": ["/bin/false"], "display_name": "theirs", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(argv))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


@pytest.mark.slow
def test_a_lesson_runs_in_this_python_where_there_are_no_streams(tmp_path, their_jupyter):
    cell = nbformat.v4.new_code_cell("import sys; open('python', 'w').write(sys.executable)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "tiny.ipynb")
    command = f"{sys.executable} -m d2lres run tiny.ipynb <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "tiny.html").is_file()
    assert (tmp_path / "python").read_text() == sys.executable


@pytest.mark.slow
def test_a_lesson_without_a_browser_runs_in_this_python(tmp_path, capsys, their_jupyter):
    """Whatever the notebook calls it."""
    sources = {
        "result": "import sys; print('two:', 1 + 1, sys.executable)",
        "curves": "from d2lres import History, plot_history\n"
        "plot_history(History([2.0], [0.5], [0.4], [1.0], [9.0]))",
        "bar": "from tqdm.notebook import tqdm\nfor i in tqdm(range(3), leave=False): pass",
    }
    cells = [nbformat.v4.new_code_cell(s, metadata={"tags": [t]}) for t, s in sources.items()]
    metadata = {"kernelspec": {"name": "theirs", "display_name": "theirs"}}
    book = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(book, tmp_path / "tiny.ipynb")
    html, picture = run_lesson(tmp_path / "tiny.ipynb", tmp_path / "out")
    captured = capsys.readouterr()
    assert captured.out == f"two: 2 {sys.executable}\n" and "3/3" in captured.err
    assert html.name == "tiny.html" and "<img" in html.read_text(encoding="utf-8")
    assert picture.name == "tiny_curves.png" and picture.read_bytes().startswith(b"\x89PNG")
