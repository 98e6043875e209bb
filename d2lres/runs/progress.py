"""How a run shows itself: in a notebook, in a terminal or in a pipe."""

import sys

from tqdm.auto import tqdm

__all__ = ["Progress", "in_notebook"]


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
    """

    def __init__(self, history, num_epochs: int, num_batches: int, done: int = 0):
        self.history, self.num_epochs, self.num_batches = history, num_epochs, num_batches
        self.done = done
        self.notebook = in_notebook()

    def __enter__(self):
        total = self.num_epochs * self.num_batches
        if self.notebook:
            from IPython.display import display

            from ..plot import LiveCurves

            self.bar = tqdm(total=total, initial=self.done, unit="batch", display=False)
            self.line = display(self.bar.container, display_id=True)
            self.curves = LiveCurves(self.num_epochs)
        else:
            quiet = not sys.stderr.isatty()
            self.bar = tqdm(
                total=total, initial=self.done, unit="batch", disable=quiet, leave=False
            )
        return self

    def step(self, loss: float, acc: float) -> None:
        """Show one more batch."""
        self.bar.set_postfix_str(f"loss {loss:.3f}, train acc {acc:.3f}", refresh=False)
        self.bar.update()

    def epoch(self) -> None:
        """Show one more epoch."""
        if self.notebook:
            self.curves.draw(self.history)
        else:
            tqdm.write(f"{self.history}")

    def __exit__(self, *_):
        self.bar.close()
        if self.notebook:  # the last line of the history takes the place of the bar
            from IPython.display import Pretty

            self.line.update(Pretty(str(self.history)))


def in_notebook() -> bool:
    """Whether this runs in a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
