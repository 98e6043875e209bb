"""A lesson run without a browser: its bar in the terminal, its results in files."""

import base64
import os
import sys
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from tqdm import tqdm

from ..files.whole import expanded, writable, written_whole
from ..runs.progress import is_terminal

__all__ = ["run_lesson"]


def run_lesson(path: str | os.PathLike, out: str | os.PathLike = "out") -> list[Path]:
    """Execute a lesson, print its result and write it as HTML, with its curves as a picture.

    The cells to take them from have the tags ``result`` and ``curves``.

    Parameters
    ----------
    path : path of a notebook, or the number of a lesson
    out : path of a folder, default "out"

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    FileNotFoundError
        If there is no such lesson.
    OSError
        If ``out`` cannot be written to; this is found before the lesson runs.
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    path = _notebook(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no lesson {path}: call this in the folder of the clone")
    lesson, html = nbformat.read(path, as_version=4), writable(Path(out, f"{path.stem}.html"))
    client = _Client(
        lesson,
        timeout=None,
        kernel_manager_class=_ThisPython,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # no advice about sockets on the teacher's terminal
    )
    client.execute()
    for text in _outputs(lesson, "result", "text/plain"):
        print(text)
    files = {html: HTMLExporter().from_notebook_node(lesson)[0].encode()}
    for picture in _outputs(lesson, "curves", "image/png"):
        files[html.with_name(f"{path.stem}_curves.png")] = base64.b64decode(picture)
    html.parent.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        with written_whole(path) as file:
            file.write(content)
    return list(files)


def _notebook(path):
    """Return where a lesson is, also of its number."""
    if str(path).isdecimal():
        found = sorted(Path("notebooks").glob(f"{int(path):02}_*.ipynb"))
        return found[0] if found else Path("notebooks", str(path))
    return expanded(path)


class _ThisPython(AsyncKernelManager):
    """Starts this Python, whatever the folders of Jupyter call python3."""

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    )


class _Client(NotebookClient):
    """Runs a notebook and repeats the progress bars of its widgets in the terminal."""

    bar = None

    def handle_comm_msg(self, outs, msg, cell_index):
        super().handle_comm_msg(outs, msg, cell_index)
        state = msg["content"]["data"].get("state", {})
        if state.get("_model_name") == "FloatProgressModel":
            quiet = 0.5 if is_terminal(sys.stderr) else 20  # seconds between two lines in a pipe
            options = {"mininterval": quiet, "disable": sys.stderr is None}
            self.bar = tqdm(total=int(state["max"]), unit="batch", **options)
        elif self.bar is not None and isinstance(state.get("value"), float | int):
            self.bar.update(int(state["value"]) - self.bar.n)
            if self.bar.n == self.bar.total:
                self.bar.close()


def _outputs(lesson, tag, mime):
    """Return what the cells with a tag show of a type; what they print is plain text."""
    cells = (cell for cell in lesson.cells if tag in cell.metadata.get("tags", []))
    for output in (output for cell in cells for output in cell.outputs):
        shown = {"text/plain": output.get("text", "").strip()} | output.get("data", {})
        if shown.get(mime):
            yield shown[mime]
