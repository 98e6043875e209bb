"""MXNet's threads follow what others leave of the processors, unless somebody has fixed them."""

import ctypes
import os
import types

import mxnet as mx
import numpy as onp
import psutil
import pytest
from mxnet import autograd, gluon

from d2lres import ArrayIter, Residual, compile, train
from d2lres.runtime import cores, hook


def in_engine():
    """Return the threads that OpenMP would take in the thread that computes."""
    seen = []
    hook.in_the_engine(lambda: seen.append(ctypes.CDLL("libgomp.so.1").omp_get_max_threads()))
    return seen[0]


@pytest.fixture
def team(monkeypatch):
    """Four cores, and others who use what ``team.others`` says, looked at whenever one may."""
    most = cores.current()
    pretended = cores._Team()
    pretended.most, pretended.is_fixed, pretended.others = 4, False, 0.0
    pretended.resize(4)
    pretended.watch = types.SimpleNamespace(others=lambda: pretended.others)
    monkeypatch.setattr(cores, "_team", lambda: pretended)
    monkeypatch.setattr(cores, "SECONDS", 0)
    yield pretended
    pretended.resize(most)
    assert in_engine() == most


@pytest.mark.parametrize(
    ("others", "sizes"),
    [
        ((0.0, 0.4, 0.0), (4, 4, 4)),
        ((1.0, 0.9, 0.5, 1.5, 1.0), (3, 3, 3, 3, 3)),  # about one: no going to and fro
        ((1.0, 0.1), (3, 4)),
        ((0.7, 2.2, 3.0, 9.0, 0.0), (3, 2, 1, 1, 4)),
    ],
)
def test_threads_are_as_many_as_others_leave_cores(team, others, sizes):
    seen = []
    for team.others in others:
        cores.follow()
        assert in_engine() == cores.current()
        seen.append(cores.current())
    assert tuple(seen) == sizes


def times(**busy):
    return types.SimpleNamespace(**{"user": 0, "nice": 0, "system": 0, "idle": 0} | busy)


@pytest.mark.parametrize(
    ("allowed", "after", "ours", "others"),
    [
        ({0, 1}, [times(user=2), times(user=2)], 4, 0),  # we alone
        ({0, 1}, [times(user=2), times(nice=1, system=0.5, idle=0.5)], 2, 0.75),
        ({0, 1}, [times(user=2), times(iowait=2)], 0, 1),  # who waits for a disk needs no core
        ({0, 1}, [times(steal=1), times(irq=0.5, softirq=0.5)], 0, 1),
        ({0}, [times(user=2), times(user=2)], 2, 0),  # the second is not for us
        ({0, 1}, [], 1, 0),  # not to be known
    ],
)
def test_what_others_use_is_what_is_busy_less_our_own(monkeypatch, allowed, after, ours, others):
    clock = iter([(10, 5), (12, 5 + ours)])  # two seconds
    now = [times(), times()]

    def tick():
        clock_now, own = next(clock)
        monkeypatch.setattr(cores.time, "monotonic", lambda: clock_now)
        monkeypatch.setattr(cores.time, "process_time", lambda: own)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: now)
    tick()
    watch = cores.Watch()
    tick()
    now = after
    seen = watch.others()
    monkeypatch.undo()
    assert seen == pytest.approx(others)


def test_steps_of_training_and_compiled_networks_follow(team):
    net = Residual(4)
    net.initialize()
    X = mx.np.ones((2, 4, 8, 8))
    fast = compile(net, X, "float32")
    team.others = 2
    fast(X)
    assert in_engine() == 2
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    with autograd.record():
        l = net(X).sum()
    l.backward()
    team.others = 1
    trainer.step(2)  # of a loop that knows nothing of d2lres
    assert in_engine() == 3


def test_a_number_that_is_given_is_kept_and_given_back(team):
    team.others = 3
    with cores.fixed(None):
        cores.follow()
        assert in_engine() == 1
    with pytest.raises(KeyError), cores.fixed(2):
        team.others = 0
        cores.follow()
        assert in_engine() == 2
        raise KeyError
    assert in_engine() == 1
    cores.follow()
    assert in_engine() == 4


def test_what_the_user_has_set_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(hook, "chosen", set())
    assert cores._Team().is_fixed and cores.given() == 3
    hook.chosen.add("OMP_NUM_THREADS")
    assert not cores._Team().is_fixed and cores.given() is None


@pytest.mark.parametrize("threads", [1, 2, None])
def test_a_run_keeps_to_its_threads_and_records_them(team, monkeypatch, threads):
    monkeypatch.setattr(cores, "given", lambda: None)
    team.others, seen = 1, []
    data = ArrayIter(onp.zeros((8, 1, 8, 8), onp.uint8), onp.arange(8), 4)
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Conv2D(2, 3), gluon.nn.GlobalAvgPool2D(), gluon.nn.Dense(10))
    net.initialize()
    loss = type("Watched", (gluon.loss.SoftmaxCELoss,), {})()
    loss.register_forward_hook(lambda *_: seen.append(in_engine()))
    history = train(net, data, data, 1, 0.1, loss=loss, threads=threads)
    assert set(seen) == {threads or 3} and history.run["threads"] == threads


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2", True, 1025])
def test_a_number_of_threads_that_no_system_makes_is_refused(threads):
    with pytest.raises(ValueError, match="threads"):
        train(Residual(1), [], [], 1, 0.1, threads=threads)
