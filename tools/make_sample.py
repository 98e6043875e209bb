"""Make the sample that d2lres ships: the first 600 + 100 images of each class of Fashion-MNIST.

    python tools/make_sample.py FOLDER

FOLDER holds the four official files. The same files come out each time, byte for byte; the lines
printed belong into ``SAMPLE`` of ``d2lres/fashion_mnist.py``.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

from d2lres import fashion_mnist
from d2lres.data import first_of_each_class
from d2lres.fashion_mnist import OFFICIAL
from d2lres.fetch import Place

SAMPLE = Path(fashion_mnist.__file__).with_name("sample")


def write_idx(path: Path, array: np.ndarray) -> str:
    """Write uint8 `array` as IDX compressed with gzip; return the SHA-256 before compression."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        zipped.write(content)
    return hashlib.sha256(content).hexdigest()


def make_sample(source: Path, target: Path = SAMPLE) -> dict:
    """Write the sample's four files; return the shape and SHA-256 of each."""
    target.mkdir(parents=True, exist_ok=True)
    place = Place(source, "", "The sample is made from the official files.", OFFICIAL)
    arrays, _ = fashion_mnist._read(place)
    contents, names = {}, iter(OFFICIAL)
    for (images, labels), num in zip(arrays, (6000, 1000), strict=True):
        chosen = first_of_each_class(labels, num)
        for array in (images[chosen], labels[chosen]):
            name = next(names)
            contents[name] = (array.shape, write_idx(target / f"{name}.gz", array))
    return contents


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the four official files")
    for name, content in make_sample(parser.parse_args().folder).items():
        print(f"{name}: {content}")
