import importlib.util
import json
import re
from pathlib import Path

from d2lres import History
from d2lres.runtime import machine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def readme_tool():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_records_say():
    assert readme_tool().with_table(README) == README


def test_speeds_are_put_between_their_markers(monkeypatch):
    tool = readme_tool()
    text = f"before\n{tool.SPEED_START}old\n{tool.END}\nafter\n"
    monkeypatch.setattr(tool, "speed", lambda: "new\n")
    assert tool.with_table(text) == text.replace("old", "new")


def test_speeds_that_were_not_measured_are_not_missed(tmp_path):
    assert "make bench" in readme_tool().speed(tmp_path)


def test_the_experiments_that_were_recorded(tmp_path):
    tool = readme_tool()
    assert tool.experiments(tmp_path) == "None yet.\n"
    for seed, (acc, precision) in enumerate([(0.9, "float32"), (0.85, "bfloat16")]):
        run = {"precision": precision}
        history = History([1.0], [acc], [acc - 0.1], [1.0], [1.0], run)
        history.save(tmp_path / f"plain20_seed{seed}.json")
    history.save(tmp_path / "fast_05_epochs_seed0.json")  # has a table of its own
    (row,) = tool.experiments(tmp_path).splitlines()[2:]
    assert row == "| plain20 | 1 | 2 | bfloat16 and float32 | 10.00% to 15.00% | 20.00% to 25.00% |"


def test_the_faults_that_were_recorded(tmp_path):
    tool, path = readme_tool(), tmp_path / "faults.json"
    assert "make test-faults" in tool.faults(path)
    kinds = {"cut": {"tried": 1000, "survived": 999}, "404": {"tried": 2, "survived": 2}}
    record = {"machine": machine(), "faults": {"download": kinds}}
    path.write_text(json.dumps(record), encoding="utf-8")
    row = tool.faults(path).splitlines()[2]
    assert row == "| download | cut; 404 | 1,002 | 1,001 |"


def test_it_opens_with_the_two_commands():
    first = README.split("```")[1].strip().splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make lab", "make test"]


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets


def test_the_code_runs(monkeypatch, tmp_path, capsys):
    code = README.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    few = "batch_size=256, num_train=512, num_test=256"
    exec(code.replace("batch_size=256", few), {"__name__": "student"})
    assert "history.json" in [path.name for path in tmp_path.iterdir()]
    assert "epoch 1: loss" in capsys.readouterr().out
