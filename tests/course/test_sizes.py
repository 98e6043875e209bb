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
