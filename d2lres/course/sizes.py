"""How large a lesson runs: the one place where images, resolution and epochs are chosen."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

__all__ = ["Scale", "scale"]

CLONE = Path(__file__).parents[2]
KEPT = 3  # runs of one name


class Scale(NamedTuple):
    """How large a lesson runs; ``str`` says it in words.

    Attributes
    ----------
    name : str
    num_train, num_test : int
        Images used for training and for testing.
    resize : int or None
        Height and width in pixels after resizing; None keeps 28x28.
    num_epochs, batch_size : int
    lr : float
    decay : bool
        Whether the learning rate falls to zero along a cosine, as a short run needs to end well.
    """

    name: str
    num_train: int
    num_test: int
    resize: int | None
    num_epochs: int
    batch_size: int
    lr: float
    decay: bool

    def __str__(self) -> str:
        size = self.resize or 28
        return (
            f"scale '{self.name}': {self.num_train:,} images of {size}x{size} pixels, "
            f"{self.num_epochs} epoch{'s' * (self.num_epochs > 1)}, "
            f"batches of {self.batch_size}, lr {self.lr}{' falling to 0' * self.decay}"
        )

    def scheduler(self, num_batches: int):
        """Return MXNet's scheduler for epochs of ``num_batches`` batches; None for a constant lr.

        References
        ----------
        Dive into Deep Learning, section 12.11.
        """
        from mxnet.lr_scheduler import CosineScheduler

        if self.decay:
            return CosineScheduler(self.num_epochs * num_batches, self.lr, final_lr=0)

    def checkpoint(self, name: str, clone: Path = CLONE) -> str | None:
        """Return where a lesson keeps a run, for ``train``: so it goes on after a kernel's restart.

        That is under ``out/``, for each scale, name and start by itself. At ``"quick"``, and where
        nothing can be written, it is None: the run is not kept.
        """
        folder = clone / "out" / "checkpoints" / self.name
        if self.name == "quick" or not (clone / "notebooks").is_dir():
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        runs = sorted(folder.glob(f"{name}-????????"), key=lambda run: run.stat().st_mtime)
        for run in runs[:-KEPT]:
            shutil.rmtree(run, ignore_errors=True)
        return os.path.relpath(folder / f"{name}-{{run}}") if os.access(folder, os.W_OK) else None


_SCALES = {
    # full is the run of Dive into Deep Learning in its editions before 1.0, section 7.6
    "fashion_mnist": (
        Scale("quick", 2_000, 1_000, None, 3, 64, 0.05, True),
        Scale("lesson", 60_000, 10_000, None, 3, 256, 0.1, True),
        Scale("full", 60_000, 10_000, 96, 10, 256, 0.05, False),
    ),
    # deeper networks on colour images: full takes hours
    "cifar": (
        Scale("quick", 500, 500, 32, 2, 50, 0.1, True),
        Scale("lesson", 5_000, 2_000, 32, 3, 128, 0.1, True),
        Scale("full", 50_000, 10_000, 32, 15, 128, 0.1, True),
    ),
}


def scale(name: str | None = None, data: str = "fashion_mnist") -> Scale:
    """Return the scale a lesson runs at.

    Parameters
    ----------
    name : {"quick", "lesson", "full"}, optional
        By default the environment variable ``D2LRES_SCALE``, else ``"lesson"``.
    data : {"fashion_mnist", "cifar"}, default "fashion_mnist"
        What the lesson is about: those on CIFAR train several deeper networks.

    Raises
    ------
    ValueError
        If there is no scale of this name, or ``data`` is none of the above.
    """
    if data not in _SCALES:
        raise ValueError(f"there are no scales for {data!r}: data is one of {', '.join(_SCALES)}")
    name = name or os.environ.get("D2LRES_SCALE") or "lesson"
    scales = {s.name: s for s in _SCALES[data]}
    if name not in scales:
        raise ValueError(f"there is no scale {name!r}: D2LRES_SCALE is one of {', '.join(scales)}")
    return scales[name]
