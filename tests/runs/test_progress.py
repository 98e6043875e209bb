"""A run shows itself where it can, and goes on where it cannot."""

import io
import sys

import pytest
from tqdm.std import tqdm as bar_of_text

from d2lres import History
from d2lres.runs import progress
from d2lres.runs.progress import Progress, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Pipe(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed():
    file = io.StringIO()
    file.close()
    return file


def shown():
    """Show a run of an epoch of two batches."""
    history = History()
    with Progress(history, 1, 2) as bar:
        for _ in range(2):
            bar.step(0.5, 0.8)
        for name, value in {"train_loss": 0.5, "train_acc": 0.8, "test_acc": 0.7}.items():
            getattr(history, name).append(value)
        history.images_per_second.append(100)
        bar.epoch()
    return str(history)


def test_a_terminal_has_a_bar_and_a_pipe_a_line_for_each_epoch(monkeypatch, capsys):
    line = shown()
    assert capsys.readouterr() == (f"{line}\n", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown()
    assert "2/2" in sys.stderr.getvalue() and "loss 0.500" in sys.stderr.getvalue()


@pytest.mark.parametrize("stderr", [None, object(), closed()], ids=["none", "bare", "closed"])
@pytest.mark.parametrize("stdout", [None, Pipe(), closed()], ids=["none", "pipe", "closed"])
def test_a_run_goes_on_where_nobody_reads(monkeypatch, stderr, stdout):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stderr)
        patched.setattr(sys, "stdout", stdout)
        shown()
        say("what is lost")


def test_a_notebook_without_widgets_shows_its_curves(monkeypatch, displayed):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "tqdm", bar_of_text)
    line = shown()
    shown_things = [type(thing).__name__ for _, thing in displayed]
    assert shown_things == ["Pretty", "Figure", "Pretty"] and displayed[-1][1].data == line


def test_the_curves_of_a_run_that_goes_on_are_there_at_once(monkeypatch, displayed):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    with Progress(History([0.5], [0.8], [0.7], [1.0], [100.0]), 1, 2, done=2):
        figures = [thing for _, thing in displayed if type(thing).__name__ == "Figure"]
        assert len(figures) == 1 and "training loss from 0.50" in figures[0].alt.lower()
    displayed.clear()
    with Progress(History(), 1, 2):
        assert not any(type(thing).__name__ == "Figure" for _, thing in displayed)
