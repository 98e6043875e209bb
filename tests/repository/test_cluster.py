"""The page on clusters: its figures come from the record, by the formula that it shows."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("cluster", ROOT / "benchmarks" / "cluster.py")
cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cluster)


@pytest.mark.parametrize(
    "num_workers, num_servers, messages",
    [(1, 1, 0), (8, 8, 2), (8, 4, 4), (8, 1, 16), (2, 4, 2)],
)
def test_messages_wait_for_the_link_that_carries_most(num_workers, num_servers, messages):
    """100 bytes over a link of 100 bytes a second, there and back."""
    step = cluster.step_seconds(3, 100, num_workers, num_servers, 100)
    assert step == (3 + messages, messages)
    assert cluster.efficiency(3, 100, num_workers, num_servers, 100) == 3 / (3 + messages)


def test_the_page_has_the_figures_of_the_record():
    page = cluster.PAGE.read_text(encoding="utf-8")
    assert cluster.with_tables(page) == page and page.count("\n| 512 |") == 4
    assert cluster.plan(64).count("| 0.72 s | 58% |") == 3  # with 1 second of computing, 1 Gbit/s


def test_the_formula_of_the_page_is_that_of_the_program():
    page = cluster.PAGE.read_text(encoding="utf-8")
    formula = page.split("a step takes\n\n    ")[1].splitlines()[0]
    names = {"compute": 1, "num_bytes": 5, "num_workers": 8, "num_servers": 2}
    names["bytes_per_second"] = 7
    assert eval(formula, {"max": max}, names) == cluster.step_seconds(1, 5, 8, 2, 7)[0]
