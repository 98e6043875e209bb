"""What the lessons share: recorded runs, tables, and a network trained out of sight."""

import numpy as onp
import pytest

from d2lres import ArrayIter, History, scale
from d2lres.course import classroom
from d2lres.course.classroom import (
    load_photographs,
    published,
    records,
    spread,
    table,
    train_small,
)


def test_photographs_or_what_there_is_in_their_place(monkeypatch, capsys):
    size = scale("quick", data="cifar")

    def is_missing(*_, **__):
        raise FileNotFoundError("CIFAR-10 is not here")

    monkeypatch.setattr(classroom, "load_data_cifar10", is_missing)
    labels, train_iter, test_iter = load_photographs(size, augment=lambda images, rng: images)
    X, y = next(iter(train_iter))
    assert X.shape == (50, 1, 32, 32) and labels[9] == "ankle boot" and train_iter.augment
    assert test_iter.num_examples == 500 and not test_iter.augment
    assert "CIFAR-10 is not here\nThe lesson goes on with Fashion" in capsys.readouterr().out
    monkeypatch.setattr(classroom, "load_data_cifar10", lambda *_, **__: ("a", "b"))
    assert load_photographs(size)[0][8:] == ("ship", "truck")


def test_the_runs_of_all_seeds_are_loaded_and_a_missing_one_is_told(tmp_path, capsys):
    for name in ("few_seed0", "few_seed1", "few_seed0_valid500", "fewer_seed0"):
        History([1.0], run={"file": name}).save(tmp_path / f"{name}.json")
    assert [run.run["file"] for run in records("few", tmp_path)] == ["few_seed0", "few_seed1"]
    assert capsys.readouterr().out == ""
    assert records("many", tmp_path) == []
    assert "python -m d2lres experiment many --seed 0" in capsys.readouterr().out


def test_the_course_has_records_and_the_numbers_of_others():
    assert all(len(run) == 15 for run in records("plain20")) and records("plain20")
    assert published()["paper_resnet20_cifar10"]["test_error"] == pytest.approx(0.0875)


def test_rows_become_a_table():
    assert table(("a", "b"), (1, 2.5)).data == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"


@pytest.mark.parametrize(
    ("shares", "words"), [([0.5], "50.0%"), ([0.25, 0.75], "50.0% (25.0% to 75.0%)")]
)
def test_the_spread_over_seeds_in_words(shares, words):
    assert spread(shares) == words


def test_a_small_network_is_trained_out_of_sight(capsys):
    y = onp.arange(100) % 2
    images = onp.zeros((100, 1, 8, 8), "uint8")
    images[y == 1, :, :4] = 255
    test_iter = ArrayIter(images[:20], y[:20], 10)
    matrices = train_small(images, y, None, 6, 0, test_iter, test_iter)
    assert matrices.shape == (2, 10, 10) and matrices[0].trace() == matrices[0].sum() == 20
    assert capsys.readouterr() == ("", "")
