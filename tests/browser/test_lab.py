"""The lessons as students have them: JupyterLab in Chromium, with a mouse and a keyboard."""

import os
import re
import time

import nbformat
import pytest
from lab import ROOT
from nbformat import v4
from nbformat.sign import NotebookNotary

from d2lres.course.copies import SIGNATURES

LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
MEANT_TO_FAIL = {"raises-exception", "nbval-raises-exception"}

NUM_EPOCHS = 20
TRAINING = [
    """\
from mxnet import init
from d2lres import load_data_fashion_mnist, plot_history, small_resnet, train

train_iter, test_iter = load_data_fashion_mnist(64, num_train=640, num_test=64)
net = small_resnet(widths=(4, 8))
net.initialize(init.Xavier())""",
    f'history = train(net, train_iter, test_iter, {NUM_EPOCHS}, 0.05, checkpoint="runs/NAME")',
    "print(len(history), 'epochs')\nplot_history(history)",
]


def test_the_first_lesson_opens_by_itself(tab):
    tab.open()
    assert tab.page.url.endswith(f"/lab/tree/lessons/{LESSONS[0]}.ipynb")
    files = tab.page.locator(".jp-DirListing-itemText").all()
    assert {file.inner_text() for file in files} >= {f"{lesson}.ipynb" for lesson in LESSONS}
    is_cut = "node => node.scrollWidth > node.clientWidth"
    assert not any(file.evaluate(is_cut) for file in files)
    assert tab.page.locator(".jp-KernelName").inner_text() == "Python of this course"
    assert tab.page.locator(".jp-Dialog, .Toastify__toast").count() == 0


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_opens_trusted_and_can_be_read_by_all(lesson, tab):
    tab.open(lesson)
    page, cells = tab.page, tab.read(lesson).cells
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(cells)
    page.locator("[data-icon='ui-components:trusted']").first.wait_for()
    assert not page.locator("[data-icon='ui-components:not-trusted']").count()
    assert not page.locator(".jp-mod-dirty").count()  # or it would ask to save what nobody changed
    pictures = page.locator(".jp-Notebook img").all()
    assert all(picture.evaluate("node => node.naturalWidth") for picture in pictures)
    assert not page.locator(".jp-RenderedMarkdown", has_text="$").count()
    assert tab.barriers() == []


def test_the_dark_theme(tab):
    tab.open(LESSONS[-1])
    tab.menu("Settings", "Theme", "JupyterLab Dark")
    tab.page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
    pictures = tab.page.locator(".jp-OutputArea-output img")
    assert pictures.count()
    corner = """node => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.drawImage(node, 0, 0);
        return canvas.getImageData(0, 0, 1, 1).data[3];
    }"""
    assert {picture.evaluate(corner) for picture in pictures.all()} == {255}  # not transparent
    assert tab.barriers() == []
    tab.menu("Settings", "Theme", "JupyterLab Light")
    tab.page.locator("body[data-jp-theme-light=true]").wait_for(state="attached")


def errors(cells):
    """Return what went wrong, of what was not meant to."""
    for cell in cells:
        if cell.cell_type == "code" and not MEANT_TO_FAIL & set(cell.metadata.get("tags", [])):
            for output in cell.outputs:
                if output.output_type == "error" or output.get("name") == "stderr":
                    yield cell.source, output


def run_and_save(tab, lesson):
    """Run all of a lesson and return its cells."""
    tab.run_all()
    tab.wait_until_idle()
    tab.save()
    cells = tab.read(lesson).cells
    assert list(errors(cells)) == []
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    return cells


@pytest.mark.parametrize("lesson", [name for name in LESSONS if name[:2] in ("02", "03")])
def test_all_of_a_lesson_runs(lesson, tab):
    tab.open(lesson)
    run_and_save(tab, lesson)


def test_an_exercise_says_what_is_wrong_and_what_is_right(tab):
    lesson = next(name for name in LESSONS if name[:2] == "01")
    tab.open(lesson)
    cells = run_and_save(tab, lesson)
    index = next(i for i, cell in enumerate(cells) if "answer = None" in cell.source)
    blank = re.search("answer = None.*\n", cells[index].source)[0]
    answer = re.search(r"```python\n(.*?)```", cells[index + 1].source, re.DOTALL)[1]
    assert tab.shown(index).strip("'").startswith("not answered yet")
    wrong = tab.write(index, cells[index].source.replace(blank, "answer = 12345\n"))
    assert wrong.strip("'").startswith("not right yet")
    right = tab.write(index, cells[index].source.replace(blank, answer))
    assert right.strip("'").startswith("right")


def put(tab, name, sources):
    """Lay a small lesson of one's own beside the others."""
    cells = [v4.new_code_cell(source.replace("NAME", name)) for source in sources]
    kernel = {"name": "python3", "display_name": "Python of this course"}
    lesson = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    write(tab, name, lesson)


def write(tab, name, lesson):
    notary = NotebookNotary(data_dir=str(tab.lessons / SIGNATURES))
    notary.sign(lesson)
    notary.store.close()
    nbformat.write(lesson, tab.lessons / f"{name}.ipynb")


def test_training_is_watched_and_stopped_and_goes_on(tab):
    put(tab, "stopped", TRAINING)
    tab.open("stopped")
    tab.run_all()
    tab.cell(1).locator(".widget-hprogress, [role=progressbar]").first.wait_for()
    tab.cell(1).locator("img").first.wait_for()  # the curves so far
    tab.stop()
    tab.wait_until_idle()
    stopped = tab.shown(1)
    assert re.search(r"stopped in .*train again to go on", stopped), stopped
    assert "Traceback" not in stopped and f"{NUM_EPOCHS} epochs" not in tab.shown(2)
    tab.run_all()
    tab.wait_until_idle()
    assert "resuming from" in tab.shown(1)
    assert f"{NUM_EPOCHS} epochs" in tab.shown(2)


@pytest.mark.parametrize("is_switched_off", [False, True], ids=["kernel lives", "kernel ended"])
def test_a_closed_tab_loses_nothing(is_switched_off, tab):
    name = "switched_off" if is_switched_off else "closed"
    put(tab, name, TRAINING)
    tab.open(name)
    tab.run_all()
    tab.cell(1).locator("img").first.wait_for()
    tab.close()
    if is_switched_off:
        tab.end_kernels()
    tab.open(name)
    tab.run_all()
    tab.wait_until_idle()
    assert ("resuming from" if is_switched_off else "complete") in tab.shown(1)
    assert f"{NUM_EPOCHS} epochs" in tab.shown(2)
    assert tab.cell(2).locator("img").count() == 1


def test_the_terminal_and_the_shell_of_a_cell_have_the_courses_python_and_reset_works(tab):
    who = "import sys, d2lres; print(sys.prefix)"
    put(tab, "shell", ["import time; time.sleep(2)", f'!python -c "{who}"', who])
    tab.open("shell")
    tab.run_all()
    tab.wait_until_idle()
    places = {os.path.realpath(tab.shown(index).strip()) for index in (1, 2)}
    assert len(places) == 1, places

    lesson = LESSONS[1]
    tab.open(lesson)
    first = next(i for i, c in enumerate(tab.read(lesson).cells) if c.cell_type == "code")
    before = tab.read(lesson).cells[first].source
    assert "mine" in tab.write(first, "'mine'")
    tab.save()
    tab.menu("File", "New", "Terminal")
    terminal = tab.page.locator(".jp-Terminal .xterm-helper-textarea")
    terminal.wait_for(state="attached")
    terminal.focus()
    tab.page.keyboard.type(f"python -m d2lres lesson reset {int(lesson[:2])}\n")
    kept = tab.lessons / f"{lesson}_old.ipynb"
    until = time.monotonic() + 60
    while not kept.exists() or tab.read(lesson).cells[first].source == "'mine'":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert tab.read(kept.stem).cells[first].source == "'mine'"
    assert tab.read(lesson).cells[first].source == before


def test_links_to_other_files_open_inside_of_jupyterlab(tab):
    cells = [v4.new_markdown_cell("[results](../results/README.md) [next](closed.ipynb)")]
    write(tab, "links", v4.new_notebook(cells=cells))
    tab.open("links")
    tab.page.get_by_role("link", name="results").click()
    tab.page.locator(".jp-MarkdownViewer table").first.wait_for()


def test_the_terminal_of_the_teacher_stays_quiet(tab, clone):
    """When Lab starts, and when a page is opened and closed; kernels may die noisily."""
    terminal = clone / "terminal"
    before = len(terminal.read_text(encoding="utf-8"))
    tab.open()
    tab.close()
    said = terminal.read_text(encoding="utf-8")
    said = said[: said.index("?token=")] + said[before:]
    assert not re.search(r"\[[WE] |Warning|eavesdrop|not trusted", said), said
    homes = [p.relative_to(clone / "home") for p in (clone / "home").rglob("*") if p.is_file()]
    assert {path.parts[0] for path in homes} <= {"runtime", ".ipython", ".cache", ".jupyter"}
