import pytest
from comparing import NETWORKS, initialized
from mxnet import np

from d2lres.compiler import compiled, precision
from d2lres.runtime import cores, machine


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] * n.endswith(("18", "56"))) for n in NETWORKS]
)
def network(request):
    """A network with weights, and a batch for it."""
    build, shape = NETWORKS[request.param]
    return initialized(build(), shape), np.random.uniform(size=shape)


@pytest.fixture
def pretended_bfloat16(monkeypatch):
    """Let every plan compute in float32, so that choosing can be tried on any processor."""
    monkeypatch.setattr(machine, "has_bfloat16", lambda: True)
    monkeypatch.setattr(compiled, "in_bfloat16", lambda symbol, *args: symbol)
    monkeypatch.setattr(cores.Watch, "others", lambda self: 0.0)  # quiet, whatever else runs
