"""The contract of layers in pyproject.toml: a module imports only from layers below its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)


def lint(folder):
    """What import-linter says of the d2lres in a folder, by the contract there."""
    # from -c, the first folder of sys.path is the current one
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_contract_is_kept():
    ran = lint(ROOT)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("added", "broken"),
    [
        (
            {
                "files/whole.py": "from d2lres import blocks\nfrom ..course import doctor",
                "blocks.py": "def late():\n    from .data import batches",
            },
            ["files -> d2lres.blocks", "files -> d2lres.course", "blocks -> d2lres.data"],
        ),
        ({"helpers.py": ""}, ["helpers"]),  # a module that is in no layer
    ],
)
def test_the_contract_is_broken_by(tmp_path, added, broken):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignore = shutil.ignore_patterns("__pycache__", "sample", "pretrained")
    shutil.copytree(ROOT / "d2lres", tmp_path / "d2lres", ignore=ignore)
    for module, line in added.items():
        with open(tmp_path / "d2lres" / module, "a") as file:
            file.write(f"\n{line}\n")
    ran = lint(tmp_path)
    assert ran.returncode == 1 and "1 broken" in ran.stdout
    told = ran.stdout.replace(" is not allowed to import ", " -> ")
    assert [words for words in broken if words not in told] == []
