"""The same seed gives the same bits: of the data on every machine, of a run on the same one."""

import hashlib
import os
import subprocess
import sys

import numpy as onp
import pytest

from d2lres import (
    ArrayIter,
    ColorJitter,
    Compose,
    Cutout,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
)
from d2lres.runtime.machine import has_bfloat16


@pytest.mark.parametrize(
    "augment, golden",
    [
        (None, "a0f677ce71ca167c"),
        (Compose([RandomCrop(2), RandomFlip(), Cutout(5)]), "d64dddbca7d56b09"),
        (RandomRotation(30), "efdac92827cf8d91"),
        (RandomResizedCrop(12), "ce2d21c74a64356f"),
        (ColorJitter(0.4, 0.4, 0.4), "8a41b3e547cef3e5"),
    ],
    ids=str,
)
def test_order_and_augmentation_are_the_same_on_every_machine(augment, golden):
    images = onp.arange(40 * 3 * 16 * 16).reshape(40, 3, 16, 16) ** 2 % 251
    options = {"shuffle": True, "seed": 3, "augment": augment}
    data = ArrayIter(images.astype(onp.uint8), onp.arange(40), 16, **options)
    seen = hashlib.sha256()
    for _ in range(2):
        for X, y in data:
            seen.update((X * 255).round().astype("uint8").asnumpy().tobytes())
            seen.update(y.asnumpy().astype("<i4").tobytes())
    assert seen.hexdigest()[:16] == golden


RUN = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
import hashlib
import mxnet as mx
import numpy as onp
from d2lres import ArrayIter, cifar_resnet, train

images = onp.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), onp.uint8)
data = ArrayIter(images, onp.arange(40) % 10, 16, shuffle=True)
mx.random.seed(0)
net = cifar_resnet(8)
net.initialize(mx.init.Xavier())
print(train(net, data, data, 2, 0.1, precision=sys.argv[1]).train_loss)
params = [p.data().asnumpy().tobytes() for p in net._collect_params_with_prefix().values()]
print(hashlib.sha256(b"".join(params)).hexdigest())
"""


@pytest.mark.faults
@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_repeats_with_any_number_of_threads(precision, threads, tmp_path):
    if precision == "bfloat16" and not has_bfloat16():
        pytest.skip("MXNet computes bfloat16 only with AVX-512, which this processor lacks")
    # the home has the choice that was measured for bfloat16
    environment = os.environ | {"OMP_NUM_THREADS": threads, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", RUN, precision]
    first, second = (subprocess.check_output(command, env=environment).splitlines() for _ in "ab")
    assert first[-2:] == second[-2:]
