"""Write what the records in results/ say: results/README.md, a table of README.md, two pictures.

Usage: python tools/readme.py
"""

import json
import runpy
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from d2lres import History, plot_history, plot_runs
from d2lres.course.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PUBLISHED = json.loads((RESULTS / "published.json").read_text("utf-8"))
BOOK, PAPER = PUBLISHED["d2l_resnet18_fashion_mnist"], PUBLISHED["paper_resnet20_cifar10"]
START, END = "<!-- from results/ by `make readme` -->\n", "<!-- end -->\n"
NONE = "None yet.\n"
MACHINE = "{cpu} with {physical_cores} cores, Python {python}, NumPy {numpy}"
HOW = f"Seed {{seed}}, convolutions in {{precision}}, {MACHINE}: `{{command}}`.\n"
WHERE = "In {precision} on {cpu} ({cpu_features}) with {physical_cores} cores.\n"
SPEED = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))


def _table(head, rows, says=()):
    """Return rows as Markdown, and below them what else there is to say, each sentence once."""
    lines = [f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows)]
    return "".join([*lines, "\n" * bool(says), *dict.fromkeys(says)]) if rows else NONE


def _records(folder, names, load=lambda path: json.loads(path.read_text("utf-8"))):
    """Return the records, by the names of their files, of what was tested on test images."""
    paths = sorted(folder.glob(f"{names}.json"))
    return [load(path) for path in paths if "_valid" not in path.name]


def _runs(folder, names):
    return _records(folder, names, History.load)


def _span(values, form):
    """Return the lowest and the highest of some numbers in words: one number if they are alike."""
    return " to ".join(dict.fromkeys(form.format(each) for each in (min(values), max(values))))


def full(folder: Path = RESULTS) -> str:
    """Return the recorded run of ResNet-18 on Fashion-MNIST beside the book's."""
    head = ("", "training loss", "training accuracy", "test accuracy", "over the last 5 epochs")
    names, rows, says = ("train_loss", "train_acc", "test_acc"), [], []
    for run in _runs(folder, "fashion_mnist_full"):
        ours = (f"{getattr(run, name)[-1]:.3f}" for name in names)
        rows.append(("this course", *ours, _span(run.test_acc[-5:], "{:.3f}")))
        rows.append(("the book, 2019", *(f"{BOOK[name]:.3f}" for name in names), "not printed"))
        says.append(HOW.format(**run.run))
    return _table(head, rows, says)


def _fast(folder):
    """Return the runs of the recipe "fast" by their length."""
    runs = sorted(_runs(folder, "fast_*seed*"), key=len)
    return {num: [run for run in runs if len(run) == num] for num in map(len, runs)}


def fast(folder: Path = RESULTS) -> str:
    """Return the recorded runs of the recipe "fast" by their length."""
    head, rows, says = ("epochs", "minutes of training", "test accuracy, by seed", "mean"), [], []
    for num_epochs, runs in _fast(folder).items():
        minutes = _span([sum(run.seconds) / 60 for run in runs], "{:.1f}")
        acc = [run.test_acc[-1] for run in runs]
        each = ", ".join(f"{a:.2%}" for a in acc)
        rows.append((f"{num_epochs}", minutes, each, f"{mean(acc):.2%}"))
        says += [WHERE.format(**run.run) for run in runs]
    return _table(head, rows, says)


def experiments(folder: Path = RESULTS) -> str:
    """Return the recorded runs of every recipe on CIFAR."""
    head = ("experiment", "epochs", "seeds", "precision", "training error", "test error")
    rows = []
    for name, recipe in RECIPES.items():
        runs = _runs(folder, f"{name}_seed*")
        if runs and recipe.data != "fashion_mnist":
            errors = [[1 - getattr(r, k)[-1] for r in runs] for k in ("train_acc", "test_acc")]
            precisions = " and ".join(sorted({r.run["precision"] for r in runs}))
            row = (name, f"{len(runs[0])}", f"{len(runs)}", precisions)
            rows.append(row + tuple(_span(each, "{:.2%}") for each in errors))
    return _table(head, rows)


def speed(folder: Path = RESULTS) -> str:
    """Return the speeds beside those of the peers: a record for each processor."""
    return "\n".join(map(SPEED["tables"], _records(folder, "bench_*"))) or NONE


def faults(folder: Path = RESULTS) -> str:
    """Return how many faults were tried and survived."""
    rows, says = [], []
    for record in _records(folder, "faults"):
        for area, kinds in record["faults"].items():
            sums = (f"{sum(k[n] for k in kinds.values()):,}" for n in ("tried", "survived"))
            rows.append((area, "; ".join(kinds), *sums))
        says.append(f"{MACHINE}.\n".format(**record["machine"]))
    return _table(("what", "faults", "tried", "survived"), rows, says)


def headlines(folder: Path = RESULTS) -> str:
    """Return four results, each with a link that README.md defines."""
    modes, records = {"training": "train", "inference": "inference"}, _records(folder, "bench_*")
    torch = {word: SPEED["against_torch"](records, mode) for word, mode in modes.items()}
    rows = {
        "[ResNet-18 on Fashion-MNIST][full]": [
            f"test accuracy {run.test_acc[-1]:.1%}, the book's in 2019 {BOOK['test_acc']:.1%}"
            for run in _runs(folder, "fashion_mnist_full")
        ],
        "[A small network, test accuracy][fast]": [
            f"{mean(run.test_acc[-1] for run in runs):.1%} after "
            f"{mean(sum(run.seconds) for run in runs) / 60:.0f} minutes"
            for runs in _fast(folder).values()
        ],
        "[ResNet-20 on CIFAR-10][5]": [
            f"test error {1 - run.test_acc[-1]:.2%} after {len(run)} epochs, "
            f"the paper's, after more, {PAPER['test_error']:.2%}"
            for run in _runs(folder, "resnet20-80_seed0")
        ],
        "[Speed, where PyTorch's best is 1][speed]": [
            f"{word} {_span(ratios, '{:.2f}')}" for word, ratios in torch.items() if ratios
        ],
    }
    return _table(("what", "result"), [(k, ", ".join(v) or "none yet") for k, v in rows.items()])


def page(folder: Path = RESULTS) -> str:
    """Return results/README.md."""
    tables = {each.__name__: each(folder) for each in (full, fast, experiments, speed, faults)}
    return (ROOT / "tools" / "results.md").read_text("utf-8").format(**tables)


def with_table(readme: str) -> str:
    """Return the text of README.md with a fresh table between its markers."""
    before, rest = readme.split(START)
    return before + START + headlines() + END + rest.split(END, 1)[1]


def pictures(folder: Path = RESULTS) -> dict[str, Figure]:
    """Return the figures of both pages by the names of their files."""
    drawn, axes = {}, Figure(figsize=(9, 3.5), layout="constrained").subplots(1, 2, sharey=True)
    for run in _runs(folder, "fashion_mnist_full"):
        title = "ResNet-18 on Fashion-MNIST, 96x96"
        drawn["fashion_mnist_full.png"] = plot_history(run, title=title)
    for ax, kind, title in zip(axes, ("plain", "resnet"), ("without", "with"), strict=True):
        runs = {f"{n} layers": _runs(folder, f"{kind}{n}_seed*") for n in (20, 56)}
        if all(runs.values()):
            drawn["degradation.png"] = plot_runs(runs, title=f"CIFAR-10, {title} shortcuts", ax=ax)
            ax.set_ylim(0, 0.9)  # that of guessing
    return drawn


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8")), "utf-8")
    (RESULTS / "README.md").write_text(page(), "utf-8")
    for name, figure in pictures().items():
        figure.savefig(RESULTS / name, dpi=100, metadata={"Software": None})
