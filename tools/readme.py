"""Write what was measured into README.md, and its curves as a picture, from the records.

Usage: python tools/readme.py
"""

import json
import runpy
from pathlib import Path

from d2lres import History, plot_history

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
COLUMNS = ("train_loss", "train_acc", "test_acc")
START, END = "<!-- from results/ by `make readme` -->\n", "<!-- end -->"
SPEED_START = "<!-- speed from results/ by `make readme` -->\n"


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
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{says}\n"


def speed(path: Path = RESULTS / "bench_cpu.json") -> str:
    """Return the recorded speeds beside those of the peers, as Markdown."""
    if not path.exists():
        return "Not measured yet: `make bench PEERS=torch`.\n"
    tables = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["tables"]
    return tables(json.loads(path.read_text(encoding="utf-8")))


def with_table(readme: str) -> str:
    """Return the text of the README with fresh tables."""
    for start, render in ((START, table), (SPEED_START, speed)):
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
