"""Where what can be had again is kept, and where there is no place for it."""

import pwd
from pathlib import Path

import pytest

from d2lres.files.whole import cache_folder, expanded


@pytest.fixture
def nobody(monkeypatch):
    """A user of whom the system knows nothing, as a container may have one."""

    def unknown(_):
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_no_home_no_cache(nobody, monkeypatch, tmp_path):
    assert cache_folder() is None
    with pytest.raises(ValueError, match="~/runs: there is no home for ~. Set HOME"):
        expanded("~/runs")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path) and expanded("~/runs") == tmp_path / "runs"


@pytest.mark.skipif(not Path("/proc").exists(), reason="XDG's variables are Linux's")
def test_a_cache_that_is_named_needs_no_home(nobody, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "d2lres"
