"""Write what was measured into README.md, and its curves as a picture, from the records.

Usage: python tools/readme.py
"""

import json
import runpy
from pathlib import Path

from d2lres import History, plot_history
from d2lres.recipe import RECIPES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
COLUMNS = ("train_loss", "train_acc", "test_acc")
START, END = "<!-- from results/ by `make readme` -->\n", "<!-- end -->"
FAST_START = "<!-- fast from results/ by `make readme` -->\n"
RUNS_START = "<!-- runs from results/ by `make readme` -->\n"
FAULTS_START = "<!-- faults from results/ by `make readme` -->\n"
SPEED_START = "<!-- speed from results/ by `make readme` -->\n"


def _markdown(rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def table() -> str:
    """Return the recorded run of ResNet-18 on Fashion-MNIST beside the book's, as Markdown."""
    ours = History.load(RESULTS / "fashion_mnist_full.json")
    book = json.loads((RESULTS / "published.json").read_text())["d2l_resnet18_fashion_mnist"]
    last = ours.test_acc[-5:]
    ours_last = [f"{getattr(ours, name)[-1]:.3f}" for name in COLUMNS]
    rows = [
        ("", "training loss", "training accuracy", "test accuracy", "over the last 5 epochs"),
        ("---",) * 5,
        ("this course", *ours_last, f"{min(last):.3f} to {max(last):.3f}"),
        ("the book, 2019", *(f"{book[name]:.3f}" for name in COLUMNS), "not printed"),
    ]
    run = ours.run
    says = (
        f"Seed {run['seed']}, convolutions in {run['precision']}, {run['cpu']} with "
        f"{run['physical_cores']} cores, Python {run['python']}, NumPy {run['numpy']}: "
        f"`{run['command']}`."
    )
    return _markdown(rows) + f"\n{says}\n"


def fast(folder: Path = RESULTS) -> str:
    """Return the recorded runs of the recipe "fast" by their length, as Markdown."""
    runs = [History.load(path) for path in sorted(folder.glob("fast_*_epochs_seed*.json"))]
    rows = [("epochs", "minutes of training", "test accuracy, by seed", "mean"), ("---",) * 4]
    for num_epochs in sorted({len(run) for run in runs}):
        of_length = [run for run in runs if len(run) == num_epochs]
        minutes = [sum(run.seconds) / 60 for run in of_length]
        acc = [run.test_acc[-1] for run in of_length]
        rows.append((f"{num_epochs}", f"{min(minutes):.1f} to {max(minutes):.1f}"))
        rows[-1] += (", ".join(f"{a:.2%}" for a in acc), f"{sum(acc) / len(acc):.2%}")
    run = runs[-1].run
    command = run["command"].split(" --epochs")[0]
    says = (
        f"In {run['precision']} on {run['cpu']} ({run['cpu_features']}) with "
        f"{run['physical_cores']} cores: `{command} --epochs N --seed N`."
    )
    return _markdown(rows) + f"\n{says}\n"


def experiments(folder: Path = RESULTS) -> str:
    """Return the recorded runs of every recipe on CIFAR, as Markdown."""
    heads = ("experiment", "epochs", "seeds", "precision", "training error", "test error")
    rows = [heads, ("---",) * len(heads)]
    for name, recipe in RECIPES.items():
        runs = [History.load(path) for path in sorted(folder.glob(f"{name}_seed*.json"))]
        if runs and recipe.data != "fashion_mnist":
            errors = [[1 - getattr(r, k)[-1] for r in runs] for k in ("train_acc", "test_acc")]
            spans = [" to ".join(f"{e:.2%}" for e in sorted({min(e), max(e)})) for e in errors]
            precisions = " and ".join(sorted({r.run["precision"] for r in runs}))
            rows.append((name, f"{len(runs[0])}", f"{len(runs)}", precisions, *spans))
    if len(rows) == 2:
        return "None yet.\n"
    return _markdown(rows)


def speed(folder: Path = RESULTS) -> str:
    """Return the speeds beside those of the peers, as Markdown: a record for each processor."""
    paths = sorted(folder.glob("bench_*.json"))
    if not paths:
        return "Not measured yet: `make bench PEERS=torch`.\n"
    tables = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["tables"]
    return "\n".join(tables(json.loads(path.read_text(encoding="utf-8"))) for path in paths)


def faults(path: Path = RESULTS / "faults.json") -> str:
    """Return how many faults were tried and survived, as Markdown."""
    if not path.exists():
        return "Not tried yet: `make test-faults`.\n"
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [("what", "faults", "tried", "survived"), ("---",) * 4]
    for area, kinds in record["faults"].items():
        tried, survived = (sum(k[n] for k in kinds.values()) for n in ("tried", "survived"))
        rows.append((area, "; ".join(kinds), f"{tried:,}", f"{survived:,}"))
    about = record["machine"]
    says = f"{about['cpu']} with {about['physical_cores']} cores, Python {about['python']}"
    return _markdown(rows) + f"\n{says}, NumPy {about['numpy']}: `make test-faults`.\n"


def with_table(readme: str) -> str:
    """Return the text of the README with fresh tables."""
    renders = {START: table, FAST_START: fast, RUNS_START: experiments, SPEED_START: speed}
    renders[FAULTS_START] = faults
    for start, render in renders.items():
        if start in readme:
            before, rest = readme.split(start)
            readme = before + start + render() + END + rest.split(END, 1)[1]
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
    ours = History.load(RESULTS / "fashion_mnist_full.json")
    plot_history(ours, title="ResNet-18 on Fashion-MNIST, 96x96").savefig(
        RESULTS / "fashion_mnist_full.png", dpi=100, metadata={"Software": None}
    )
