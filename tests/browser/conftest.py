"""Chromium, and JupyterLab in it as `make lab` starts it."""

import shutil

import pytest
from lab import running_lab

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium():
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not path:
        pytest.skip("Chromium is not here (sudo apt install chromium)")
    why_not = "Playwright is not here (make test-browser)"
    api = pytest.importorskip("playwright.sync_api", reason=why_not)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        # one context, and thereby one cache, for all tests
        yield browser.new_context(viewport={"width": 1280, "height": 720})
        browser.close()


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
