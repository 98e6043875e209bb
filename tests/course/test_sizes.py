import os

import pytest

from d2lres.course.sizes import scale


def test_the_scale_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("D2LRES_SCALE", "full")
    assert scale() == ("full", 60_000, 10_000, 96, 10, 256, 0.05, False)
    assert "60,000 images of 96x96 pixels, 10 epochs" in str(scale())
    assert scale().scheduler(num_batches=7) is None
    monkeypatch.delenv("D2LRES_SCALE")
    assert scale().name == "lesson"
    with pytest.raises(ValueError, match="no scale 'small'"):
        scale("small")
    with pytest.raises(ValueError, match="for 'cifar10': data is one of fashion_mnist, cifar"):
        scale(data="cifar10")


def test_the_learning_rate_of_a_short_run_falls_to_zero():
    size = scale("quick")
    scheduler = size.scheduler(num_batches=10)
    rates = [scheduler(step) for step in range(10 * size.num_epochs + 1)]
    assert rates[0] == size.lr and rates[-1] == 0 and rates == sorted(rates, reverse=True)
    assert "lr 0.05 falling to 0" in str(size)


def test_a_lesson_keeps_its_last_runs_where_it_may(tmp_path, monkeypatch):
    size = scale("lesson")
    assert size.checkpoint("3-resnet18", tmp_path) is None  # no clone
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert scale("quick").checkpoint("3-resnet18", tmp_path) is None
    folder = tmp_path / "out" / "checkpoints" / "lesson"
    for age, run in enumerate(["3-resnet18-00000001", "3-resnet18-00000002", "3-linear-00000001"]):
        (folder / run).mkdir(parents=True)
        os.utime(folder / run, (age, age))
    for run in ("3-resnet18-00000003", "3-resnet18-00000000"):
        (folder / run).mkdir()
    assert size.checkpoint("3-resnet18", tmp_path) == "../out/checkpoints/lesson/3-resnet18-{run}"
    kept = {run.name for run in folder.glob("3-resnet18-*")}
    assert kept == {f"3-resnet18-0000000{i}" for i in (2, 3, 0)}
    assert (folder / "3-linear-00000001").exists()


def test_a_lesson_runs_where_nothing_can_be_written(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "out").touch()
    assert scale("lesson").checkpoint("3-resnet18", tmp_path) is None
