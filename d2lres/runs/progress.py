"""How a run shows itself: in a notebook, in a terminal or in a pipe."""

import contextlib
import sys

from tqdm import TqdmKeyError
from tqdm.auto import tqdm

__all__ = ["Progress", "in_notebook", "is_terminal", "say"]


def say(line: str) -> None:
    """Print a line above the bar. No run ends because nobody is there any more to read it."""
    if sys.stdout is not None:  # as it is where Python has no console
        with contextlib.suppress(OSError, ValueError):  # a pipe that was left, a closed file
            tqdm.write(line)
            sys.stdout.flush()


class Progress:
    """Show a bar and live curves in a notebook, a bar in a terminal, one line an epoch in a pipe.

    Parameters
    ----------
    history : History
        Filled by the caller, one entry per epoch.
    num_epochs, num_batches : int
        Epochs in the run and batches in an epoch.
    done : int, default 0
        Batches trained before.
    is_shown : bool, default True
        Of several workers, one shows the run.
    """

    def __init__(self, history, num_epochs: int, num_batches: int, done: int = 0, is_shown=True):
        self.history, self.num_epochs = history, num_epochs
        self._count = {"total": num_epochs * num_batches, "initial": done, "unit": "batch"}
        self.notebook, self.is_shown = in_notebook(), is_shown

    def __enter__(self):
        if not self.notebook:
            quiet = not (self.is_shown and is_terminal(sys.stderr))
            self.bar = tqdm(**self._count, disable=quiet, leave=False)
            return self
        from IPython.display import Pretty, display

        from ..plot import LiveCurves

        try:
            self.bar = tqdm(**self._count, display=False)
            shown = self.bar.container
        except TqdmKeyError:  # without ipywidgets it is a bar of text, and the curves will do
            self.bar, shown = tqdm(disable=True), Pretty("")
        self.line, self.curves = display(shown, display_id=True), LiveCurves(self.num_epochs)
        if len(self.history):  # of a run that goes on, or that is complete
            self.curves.draw(self.history)
        return self

    def step(self, loss: float, acc: float) -> None:
        """Show one more batch."""
        self.bar.set_postfix_str(f"loss {loss:.3f}, train acc {acc:.3f}", refresh=False)
        self.bar.update()

    def epoch(self) -> None:
        """Show one more epoch."""
        if self.notebook:
            self.curves.draw(self.history)
        elif self.is_shown:
            say(f"{self.history}")

    def __exit__(self, *_):
        self.bar.close()
        if self.notebook:  # the last line of the history takes the place of the bar
            from IPython.display import Pretty

            self.line.update(Pretty(str(self.history)))


def is_terminal(stream) -> bool:
    """Whether a stream, such as ``sys.stderr``, is read by a person at once."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def in_notebook() -> bool:
    """Whether this runs in a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
