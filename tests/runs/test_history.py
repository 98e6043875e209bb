"""The record of a run."""

import dataclasses
import json
from pathlib import Path

import numpy as onp
import pytest
from mxnet import np

from d2lres import History
from d2lres.files.whole import expanded


def test_a_history_in_words():
    assert str(History()) == "no epoch yet"
    history = History([0.51234], [0.8], [0.75], [2.0], [100.4])
    assert str(history) == "epoch 1: loss 0.512, train acc 0.800, test acc 0.750, 100 images/s"


def test_save_and_load(tmp_path):
    history = History([0.5], [0.8], [0.75], [2.0], [100.4], {"seed": 0, "lr": 0.1})
    path = history.save(tmp_path / "deep" / "history.json")
    assert History.load(path) == history
    assert [p.name for p in path.parent.iterdir()] == ["history.json"]
    assert json.loads(path.read_text()) == dataclasses.asdict(history)


def test_no_record_is_lost_at_the_end(tmp_path):
    """What JSON cannot hold is recorded as what it can."""
    run = {"shape": (1, 8), "matrix": onp.eye(2), "best": onp.float32(0.5), "at": np.array([3, 4])}
    run |= {"where": Path("here"), "labels": {"cat"}, "nothing": None}
    loaded = History.load(History(run=run).save(tmp_path / "run.json")).run
    assert loaded == {
        "shape": [1, 8],
        "matrix": [[1, 0], [0, 1]],
        "best": 0.5,
        "at": [3, 4],
        "where": "here",
        "labels": "{'cat'}",
        "nothing": None,
    }


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert History([0.5]).save("~/runs/h.json") == tmp_path / "runs" / "h.json"
    assert History.load("~/runs/h.json").train_loss == [0.5]
    assert expanded(b"~/bytes") == expanded(Path("~", "bytes")) == tmp_path / "bytes"
    monkeypatch.chdir(tmp_path)
    Path("~notes").touch()
    assert expanded("~notes") == Path("~notes") and expanded(Path("")) == Path(".")
    for path in ("~nobody_of_that_name/h.json", ""):
        with pytest.raises(ValueError, match="no home for ~nobody|is empty"):
            History().save(path)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without a home
    with pytest.raises(ValueError, match="no home for ~. Set HOME, or write the whole path"):
        History().save("~/h.json")


def test_what_is_no_record(tmp_path):
    for text in ("", "[1]", '{"loss": [1]}', "\xff"):
        Path(tmp_path, "a").write_text(text, "latin-1")
        with pytest.raises(ValueError, match="a is no record that History.save wrote"):
            History.load(tmp_path / "a")
