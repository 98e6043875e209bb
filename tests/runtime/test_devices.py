"""A GPU is taken only if it computes; else one line says why not."""

import os

import mxnet as mx
import pytest

from d2lres import try_gpu
from d2lres.runtime import devices


def test_a_gpu_that_computes_is_taken(gpu, capsys):
    gpu()
    assert try_gpu() == mx.gpu(0)
    assert try_gpu(1) == mx.cpu()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("installed", "capability", "num_gpus", "error", "words"),
    [
        (["mxnet"], 8.6, 0, None, "installed for the CPU"),
        (["mxnet-cu112"], 9.0, 1, "no kernel image is available", "9.0 is newer than the code"),
        (["mxnet-cu112"], 8.6, 0, None, "check that the driver works"),
        (["mxnet-cu112"], 8.6, 1, "x\nCUDNN_STATUS_NOT_INITIALIZED", "MXNet said: CUDNN_STATUS"),
    ],
)
def test_a_gpu_that_does_not_says_why(
    facts, gpu, capsys, installed, capability, num_gpus, error, words
):
    facts(installed, gpus=[("NVIDIA Test", capability)])
    gpu(num_gpus, error)
    assert try_gpu() == mx.cpu()
    out = capsys.readouterr().out
    assert out.startswith("NVIDIA Test cannot be used: ") and words in out
    assert out.count("\n") == 1 and out.endswith("Using the CPU.\n")


def test_no_gpu_no_words(facts, gpu, capsys):
    facts(["mxnet"])
    gpu(0)
    assert try_gpu() == mx.cpu() and capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="number of a GPU, 0 for the first, not -1"):
        try_gpu(-1)


def test_nvidia_smi_is_read(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 9.0'\necho 'NVIDIA A10, 8.6'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert devices._nvidia_gpus() == [("NVIDIA H100", 9.0), ("NVIDIA A10", 8.6)]
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert devices._nvidia_gpus() == []
