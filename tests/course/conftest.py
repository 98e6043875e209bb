import pytest
from pretended import facts, gpu, linux

from d2lres import load_data_fashion_mnist
from d2lres.course import recipes

__all__ = ["facts", "gpu", "linux"]


@pytest.fixture
def few_images(monkeypatch):
    """A few of the images that are at hand, without a download, in the place of every data set."""
    monkeypatch.setenv("D2LRES_OFFLINE", "1")
    calls = []

    def load(*args, **kwargs):
        calls.append(kwargs)
        few = {"num_train": 200} if kwargs["num_valid"] else {"num_train": 200, "num_test": 200}
        return load_data_fashion_mnist(*args, **kwargs | few)

    for name in ("fashion_mnist", "cifar10", "cifar100"):
        monkeypatch.setattr(recipes, f"load_data_{name}", load)
    return calls
