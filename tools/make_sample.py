"""Make the sample that d2lres ships: the first 600 + 100 images of each class of Fashion-MNIST.

    python tools/make_sample.py FOLDER

FOLDER holds the four official files. The same files come out each time, byte for byte; the lines
printed belong into ``SAMPLE`` of ``d2lres/data/fashion_mnist.py``.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

from d2lres.data.batches import first_of_each_class
from d2lres.data.fashion_mnist import FASHION_MNIST, OFFICIAL, read_idx
from d2lres.files.sources import Place


def write_idx(path: Path, array: np.ndarray) -> str:
    """Write uint8 `array` as IDX compressed with gzip; return the SHA-256 before compression."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        zipped.write(content)
    return hashlib.sha256(content).hexdigest()


def make_sample(folder: Path, target: Path = FASHION_MNIST.sample.folder) -> dict:
    """Write the sample's four files; return the shape and SHA-256 of each."""
    target.mkdir(parents=True, exist_ok=True)
    paths = FASHION_MNIST.all_paths(Place(folder, "", "The sample is made from all of them."))
    X, y, X_test, y_test = (read_idx(paths[name], OFFICIAL[name])[0] for name in OFFICIAL)
    chosen, of_test = first_of_each_class(y, 6000), first_of_each_class(y_test, 1000)
    parts = zip(OFFICIAL, (X[chosen], y[chosen], X_test[of_test], y_test[of_test]), strict=True)
    return {name: (part.shape, write_idx(target / f"{name}.gz", part)) for name, part in parts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the four official files")
    for name, content in make_sample(parser.parse_args().folder).items():
        print(f"{name}: {content}")
