"""JupyterLab as `make lab` starts it, in Chromium."""

import pytest
from lab import running_lab


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return tmp_path_factory.mktemp("clone")


@pytest.fixture(scope="session")
def server(clone):
    with running_lab(clone) as about:
        yield about


@pytest.fixture
def tab(chromium, server, clone):
    """A tab that is opened by the test; in the end, nothing may have gone wrong in it."""
    from tab import Tab

    tab = Tab(chromium, server, clone / "lessons")
    yield tab
    tab.close()
    tab.end_kernels()
    assert tab.complaints == []
