"""The pages: their tables are those of the records, and what they name is there."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

import d2lres
from d2lres import History

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md"]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    return request.param


# ------------------------------------------------------------------ tables from the records


def test_the_tables_are_what_the_records_say(tool):
    stale = README.replace(tool.headlines(), "of old\n")
    assert tool.with_table(stale) == tool.with_table(README) == README != stale
    assert tool.page() == (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def test_records_that_are_not_there_are_not_missed(tool, tmp_path):
    assert tool.page(tmp_path).count("\nNone yet.\n") == 5
    assert tool.headlines(tmp_path).count("| none yet |") == 4
    assert tool.pictures(tmp_path) == {}


def record(path, acc, **run):
    History([1.0], [acc], [acc - 0.1], [90.0], [1.0], run).save(path)


def test_the_experiments_that_were_recorded(tool, tmp_path):
    record(tmp_path / "plain20_seed0.json", 0.9, precision="float32")
    record(tmp_path / "plain20_seed1.json", 0.85, precision="bfloat16")
    (row,) = tool.experiments(tmp_path).splitlines()[2:]
    assert row == "| plain20 | 1 | 2 | bfloat16 and float32 | 10.00% to 15.00% | 20.00% to 25.00% |"
    assert tool.pictures(tmp_path) == {}  # there is nothing to compare them with


@pytest.mark.parametrize("name", ["fast_seed", "fast_01_epochs_seed"])
def test_the_fast_runs_that_were_recorded(tool, tmp_path, name):
    run = {"precision": "float32", "cpu": "A", "cpu_features": "avx2", "physical_cores": 2}
    for seed, acc in enumerate((0.9, 0.92)):
        record(tmp_path / f"{name}{seed}.json", acc, **run)
    record(tmp_path / f"{name}0_valid5000.json", 0.99, **run)  # not of test images
    assert "| 1 | 1.5 | 80.00%, 82.00% | 81.00% |" in tool.fast(tmp_path)
    assert "In float32 on A (avx2) with 2 cores." in tool.fast(tmp_path)
    assert "81.0% after 2 minutes" in tool.headlines(tmp_path)
    assert tool.experiments(tmp_path) == tool.NONE  # they have a table of their own


def test_the_faults_that_were_recorded(tool, tmp_path):
    kinds = {"cut": {"tried": 1000, "survived": 999}, "404": {"tried": 2, "survived": 2}}
    machine = {"cpu": "A", "physical_cores": 2, "python": "3.12", "numpy": "2"}
    faults = {"machine": machine, "faults": {"download": kinds}}
    (tmp_path / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    row = tool.faults(tmp_path).splitlines()[2]
    assert row == "| download | cut; 404 | 1,002 | 1,001 |"


def test_speeds_are_compared_with_the_best_of_pytorch(tool, tmp_path):
    rates = {"d2lres": 6, "plain": 5, "torch a": 2, "torch b": 4}
    both = {mode: {k: {"median": v} for k, v in rates.items()} for mode in ("train", "inference")}
    one = {name: {"images_per_s": both} for name in ("resnet18_28", "cifar_resnet20")}
    (tmp_path / "bench_avx2.json").write_text(json.dumps({"workloads": one}), encoding="utf-8")
    assert "| training 1.50, inference 1.50 |" in tool.headlines(tmp_path)
    del both["train"]["torch a"], both["train"]["torch b"]
    (tmp_path / "bench_avx2.json").write_text(json.dumps({"workloads": one}), encoding="utf-8")
    assert "| inference 1.50 |" in tool.headlines(tmp_path)


# ------------------------------------------------------------------ the first minute


def test_the_readme_is_short():
    lines = README.splitlines()
    shown = [line for line in lines if not re.match(r"\[.*\]: ", line)]  # and not where links lead
    assert len(shown) <= 90 and max(map(len, lines)) <= 100


def test_it_opens_with_the_two_commands():
    first = README.split("```")[1].strip().splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make lab", "make test"]


def minutes(path):
    """Return how long it takes to read a lesson up to its exercises: 200 words a minute, and 8
    seconds for a line of code, without what is folded away."""
    words = lines = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            lines += sum(bool(line.strip()) and not folded for line in cell.source.splitlines())
        else:
            shown = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
            text, *exercises = shown.split("## Exercises")
            words += len(text.split())
            if exercises:
                return words / 200 + lines * 8 / 60
    raise AssertionError(f"{path} has no exercises")


def test_the_minutes_of_the_lessons_are_true():
    said = re.findall(r"^\| \[.*\]\[(\d+)\] \|.*\| (\d+)(?: \+ \d+)? \|$", README, re.MULTILINE)
    paths = dict(re.findall(r"^\[(\d+)\]: (notebooks/.*)$", README, re.MULTILINE))
    counted = {number: minutes(ROOT / path) for number, path in paths.items()}
    assert {number: pytest.approx(int(m), rel=0.1, abs=2) for number, m in said} == counted
    assert len(counted) == len(list(ROOT.glob("notebooks/*.ipynb"))) - 1  # where to start


@pytest.mark.slow
def test_the_code_runs(monkeypatch, tmp_path, capsys):
    code = README.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    few = "batch_size=256, num_train=512, num_test=256"
    exec(code.replace("batch_size=256", few), {"__name__": "student"})
    assert "history.json" in [path.name for path in tmp_path.iterdir()]
    assert "epoch 1: loss" in capsys.readouterr().out


# ------------------------------------------------------------------ what the pages name


def headings(path):
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"^\[.*\]: (.*)$", text, re.MULTILINE)
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert link.startswith("https://") or target.exists(), link
        assert not anchor or anchor in headings(target), link
    defined = re.findall(r"^\[(.*)\]: ", text, re.MULTILINE)
    assert set(re.findall(r"\]\[(.*?)\]", text)) == set(defined)


def test_every_page_is_linked_from_the_readme():
    links = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"\]: ([^#\n]+)", README)
    assert {str(path.relative_to(ROOT)) for path in PAGES} - {"README.md"} <= set(links)


def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"`make ([^`\n]*)`", page.read_text("utf-8"))
    named = {word for command in commands for word in command.split() if "=" not in word}
    assert named <= targets


def test_every_file_exists(page):
    files = re.findall(r"`((?:d2lres|tests|tools|results)/[\w./-]*)`", page.read_text("utf-8"))
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_function_exists(page):
    named = set(re.findall(r"`([a-z_\d]+)\([^`]*\)`", page.read_text("utf-8")))
    assert named <= {*d2lres.__all__, "help"}


# ------------------------------------------------------------------ the rooms of the house


def test_every_room_is_shown():
    shown = re.findall(r"`([a-z_]+(?:\.py|/))`", CONTRIBUTING.split("## Add a definition")[0])
    there = {p.name + "/" * p.is_dir() for p in (ROOT / "d2lres").glob("[a-z]*")}
    assert there - {"pretrained/"} == {name for name in shown if (ROOT / "d2lres" / name).exists()}


def test_the_layers_are_those_of_the_contract():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = pyproject["tool"]["importlinter"]["contracts"]
    assert "".join(f"    {layer}\n" for layer in contract["layers"]) in CONTRIBUTING
