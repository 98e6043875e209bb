"""Each thing that keeps MXNet from working is said in one sentence, with the cure."""

import re

import pytest

from d2lres.runtime import obstacles


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (dict(installed=["mxnet"], missing=["libgomp.so.1"]), "apt-get install libgomp1"),
        (dict(installed=["mxnet"], missing=["libquadmath.so.0"]), "apt-get install libquadmath0"),
        (dict(installed=["mxnet", "mxnet-cu112"]), "both installed.*make clean"),
        (dict(installed=["mxnet-cu112"], missing=["libcuda.so.1"]), "driver.*EXTRA=cpu"),
        (dict(installed=[]), "not installed: run `make lab`"),
        (dict(installed=[], system="Windows"), "WSL 2"),
        (dict(installed=[], system="Darwin", processor="arm64"), "Linux container"),
    ],
)
def test_each_obstacle_is_one_sentence(facts, case, words):
    facts(**case)
    (sentence,) = obstacles.obstacles()
    assert re.search(words, sentence) and "\n" not in sentence


def test_nothing_is_amiss_here_but_with_another_python(facts, monkeypatch):
    assert obstacles.obstacles() == []
    facts(installed=["mxnet"])
    monkeypatch.setattr(obstacles.sys, "version_info", (3, 14, 0))
    assert "Python 3.10 to 3.13" in obstacles.obstacles()[0]
