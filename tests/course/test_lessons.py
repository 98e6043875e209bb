"""The lessons: what a cell teaches is what the library holds, and every notebook is a test."""

import ast
import builtins
import copy
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import d2lres

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.name != "00_start.ipynb"]
TAUGHT = """
BasicBlock Bottleneck PadChannels PreActResidual Residual ResidualBase cifar_resnet grad_cam
make_conv make_shortcut make_stage make_stem resnet18 resnet_block sequence stem top_k_accuracy
""".split()
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return read(request.param)


def code_cells(notebook, tag=None):
    """Return the code cells of a notebook, or those with a tag."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in tags(cell)]


def tags(cell):
    return cell.metadata.get("tags", [])


# ------------------------------------------------------------------ the cell is the library


def bare(node):
    """Dump a class or function without docstrings and without the library's checks."""
    node = copy.deepcopy(node)
    for part in ast.walk(node):
        if isinstance(part, DEFINITIONS):
            part.decorator_list = [d for d in part.decorator_list if not _is_the_librarys(d)]
            if ast.get_docstring(part, clean=False) is not None:
                del part.body[0]
    return ast.dump(node)


def _is_the_librarys(decorator):
    name = getattr(decorator, "func", decorator).id
    return name == "checked" or name.startswith("_")


def definitions(source):
    """Return the classes and functions at the top level of a source by name."""
    return {node.name: node for node in ast.parse(source).body if isinstance(node, DEFINITIONS)}


@functools.cache
def library():
    """Return the public definitions of the library by name; no two files may have the same."""
    found = {}
    for path in sorted((ROOT / "d2lres").rglob("*.py")):
        public = {n: d for n, d in definitions(path.read_text("utf-8")).items() if n[0] != "_"}
        twice = found.keys() & public.keys() & set(d2lres.__all__)
        assert not twice, f"{path} defines {twice}, which stands elsewhere, too"
        found |= public
    return found


def differences(notebook):
    """Return the names of all taught definitions that are not those of the library."""
    known = library()
    return [
        name
        for cell in code_cells(notebook)
        for name, node in definitions(cell.source).items()
        if ("definition" in tags(cell) or name in d2lres.__all__)
        and (name not in known or bare(node) != bare(known[name]))
    ]


def test_taught_definitions_are_the_librarys(notebook):
    assert differences(notebook) == []


def test_all_that_has_to_be_taught_is_taught():
    cells = [cell for path in NOTEBOOKS for cell in code_cells(read(path), "definition")]
    assert {*TAUGHT} <= {name for cell in cells for name in definitions(cell.source)}


# ------------------------------------------------------------------ the cell is the other library

REFERENCES = {"pytorch": ("twins.py", "Residual"), "keras": ("make_keras.py", "residual")}


def references(lesson):
    """Return the code of each library that lesson 9 shows, and that made the numbers it has."""
    cells = {cell.id: cell.source for cell in lesson.cells}
    for library, (file, name) in REFERENCES.items():
        shown = re.search(r"```python\n(.*?)\n```", cells[library], re.DOTALL)[1]
        source = (ROOT / "tests" / "reference" / file).read_text(encoding="utf-8")
        yield shown, ast.get_source_segment(source, definitions(source)[name])


def test_code_of_other_libraries_is_what_made_the_references():
    lesson = read(ROOT / "notebooks" / "09_pytorch_and_keras.ipynb")
    shown, made = zip(*references(lesson), strict=True)
    assert shown == made
    cells = {cell.id: cell.source for cell in lesson.cells}
    rows = [line.split(" | ")[1:] for line in cells["side-by-side"].splitlines() if "`" in line]
    assert len(rows) == 5
    for *entries, code in zip(*rows, [*made, cells["define-residual"]], strict=True):
        assert all(line in code for line in re.findall(r"`(.*?)`", " ".join(entries)))


# ------------------------------------------------------------------ a student copies a cell


DEFINED = [
    pytest.param(cell.source, id=f"{path.stem[:2]}-{cell.id}")
    for path in NOTEBOOKS
    for cell in code_cells(read(path), "definition")
]


@pytest.mark.parametrize("source", DEFINED)
def test_a_definition_runs_alone_in_an_empty_file(source):
    student = {"__name__": "student"}
    exec(source, student)
    assert all(student[name].__module__ == "student" for name in definitions(source))
    assert unbound(source) == set()
    assert "mxnet" not in source or "npx.set_np()" in source


def unbound(source):
    """Return the names that a cell uses, also in a function's body, and neither has nor imports."""
    used, bound = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, DEFINITIONS):
            bound.add(node.name)
    return used - bound


# ------------------------------------------------------------------ the form of a notebook

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": "3.11.7",
}
FOLDERS = "home|root|tmp|work|usr|opt|var|mnt|Users"
MACHINE_PATH = re.compile(rf"(?<![\w.:/])(?:/(?:{FOLDERS})/|[A-Z]:\\)")


def faults(notebook):
    """Return in words what is wrong with the form of a notebook that is to be committed."""
    found, cells = [], code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("the execution counts are not 1, 2, 3, ...: restart and run all")
    for cell in cells:
        found += [f"cell {cell.id}: {fault}" for fault in _faults_of_outputs(cell)]
        if "definition" in tags(cell) and len(cell.source.splitlines()) > 30:
            found.append(f"cell {cell.id}: a definition of more than 30 lines")
    ignored = [_is_ignored(cell) for cell in cells]
    if sum(ignored) > len(cells) / 2:
        found.append("more than half of the cells are not compared")
    for cell, is_ignored, next_cell in zip(cells, ignored, cells[1:] + [None], strict=True):
        checked = next_cell and next_cell.outputs and not _is_ignored(next_cell)
        if is_ignored and not checked:
            found.append(f"cell {cell.id}: ignored, and no cell after it checks the outcome")
    if not any(cell.outputs for cell in cells):
        found.append("no outputs")
    if notebook.metadata != {"kernelspec": KERNEL, "language_info": LANGUAGE}:
        found.append("other metadata than those of a fresh notebook")
    return [*found, *_faults_of_story(notebook)]


def _is_ignored(cell):
    comments = cell.source.replace("-", "_").upper()
    marks = {tag.replace("_", "-").lower() for tag in tags(cell)}
    return "NBVAL_IGNORE_OUTPUT" in comments or bool(
        marks & {"nbval-ignore-output", "pytest-validate-ignore-output", "nbval-skip"}
    )


def _faults_of_outputs(cell):
    may_raise = {"nbval-raises-exception", "raises-exception"} & set(tags(cell))
    for output in cell.outputs:
        if output.output_type == "error" and not may_raise:
            yield "an error"
        if output.get("name") == "stderr":
            yield "a message on stderr"
        data = output.get("data", {})
        told = output.get("metadata", {}).get("image/png", {}), cell.metadata
        if "image/png" in data and not any(metadata.get("alt") for metadata in told):
            yield "a picture that is not told in words (alt)"
        if data.get("text/plain", "").startswith("<Figure") and "image/png" not in data:
            yield "a figure that was not drawn"
        text = "".join([output.get("text", ""), *map(str, output.get("traceback", []))])
        text += "".join(str(value) for kind, value in data.items() if not kind.startswith("image/"))
        if MACHINE_PATH.search(text):
            yield "a path of a machine in its output"


def _faults_of_story(notebook):
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell has no title"
    if not re.search(r"\*\*Duration:\*\*.*\b(minutes|seconds)\b", first.source):
        yield "the first cell does not say how long the lesson takes"
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    if first.source.startswith("# Start here"):
        return
    headings = re.findall(r"^## (.*)", "\n".join(texts), re.MULTILINE)
    if headings[-2:] != ["Summary", "Exercises"]:
        yield "the last two sections are not Summary and Exercises"


def test_form(notebook):
    assert faults(notebook) == []


def test_the_papers_of_the_lessons_are_in_the_list_of_the_start():
    texts = {path.name: path.read_text(encoding="utf-8") for path in NOTEBOOKS}
    papers = {name: set(re.findall(r"arxiv\.org/abs/([\d.]+\d)", texts[name])) for name in texts}
    assert papers.pop("00_start.ipynb") == set().union(*papers.values())


# ------------------------------------------------------------------ the tests themselves


def excerpt(path, *ids):
    """Return a notebook with a few cells only."""
    notebook = read(path)
    notebook.cells = [cell for cell in notebook.cells if cell.id in ids]
    return notebook


def numbered(notebook):
    """Count the cells of a notebook anew."""
    for count, cell in enumerate(notebook.cells, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            output.execution_count = count
    return notebook


@pytest.mark.slow
def test_a_changed_shape_and_a_block_without_its_addition_fail_and_nothing_else(tmp_path):
    """By nbval, on a small lesson: as it is, but for one shape, and with its block broken."""
    lesson = excerpt(LESSONS[0], "define-residual", "shape-kept", "shape-changed", "identity")
    changed, broken = copy.deepcopy(lesson), copy.deepcopy(lesson)
    changed.cells[1].outputs[0].data["text/plain"] = "(4, 3, 6, 7)"
    broken.cells[0].source = lesson.cells[0].source.replace("Y + X", "Y")
    assert lesson != changed and lesson != broken
    for cell in broken.cells:
        cell.id += "-again"
    changed.cells += broken.cells  # in one kernel, to start which takes seconds
    nbformat.write(numbered(changed), tmp_path / "lesson.ipynb")
    options = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-rA", "--color=no"]
    sanitize = f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    command = [sys.executable, "-m", "pytest", *options, sanitize, "."]
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    outcomes = re.findall(r"^(PASSED|FAILED) .*::Cell (\d)", run.stdout, re.MULTILINE)
    failed = [int(cell) for outcome, cell in outcomes if outcome == "FAILED"]
    # all shapes of the broken block are still right: the identity is what tells
    assert (len(outcomes), failed) == (8, [1, 4 + 3]), run.stdout + run.stderr


def test_a_block_without_its_addition_is_not_the_librarys():
    lesson = read(LESSONS[0])
    assert differences(lesson) == []
    for cell in lesson.cells:
        cell.source = cell.source.replace("Y + X)", "Y)")
    assert differences(lesson) == ["Residual"]


def each(cells=slice(None), **changed):
    """Change the code cells of a part of a notebook."""

    def change(notebook):
        for cell in code_cells(notebook)[cells]:
            cell.update(copy.deepcopy(changed))

    return change


def output(kind, **content):
    return each(slice(1), outputs=[nbformat.v4.new_output(kind, **content)])


def without(text):
    def change(notebook):
        notebook.cells = [cell for cell in notebook.cells if text not in cell.source]

    return change


IGNORED = {"tags": ["nbval-ignore-output"]}
SPOILT = {
    "execution counts": (each(execution_count=None), each(slice(1), execution_count=2)),
    "no outputs": (each(outputs=[]),),
    "more than half": (each(slice(None, -1), metadata=IGNORED),),
    "no cell after it": (each(slice(-1, None), metadata=IGNORED),),
    "stderr": (output("stream", name="stderr", text="a warning"),),
    "an error": (output("error", ename="ValueError", evalue="", traceback=[]),),
    "a path of a machine": (output("stream", text="saved to /home/student/lesson.json"),),
    "not told in words": (
        each(metadata={}, outputs=[nbformat.v4.new_output("display_data", {"image/png": ""})]),
    ),
    "other metadata": (
        lambda notebook: notebook.metadata.update(widgets={}),
        lambda notebook: notebook.metadata.kernelspec.update(display_name="d2lres"),
    ),
    "not drawn": (output("display_data", data={"text/plain": "<Figure size 640x480>"}),),
    "no title": (lambda notebook: notebook.cells.pop(0),),
    "Summary and Exercises": (without("## Exercises"),),
    "more than 30 lines": (
        lambda book: code_cells(book, "definition")[0].update(source="\n" * 31),
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_faults_of_form_are_found(fault):
    for change in SPOILT[fault]:
        lesson = read(LESSONS[0])
        change(lesson)
        assert any(fault in found for found in faults(lesson)), faults(lesson)
