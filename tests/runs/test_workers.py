"""Several devices, and several processes over the loopback of this machine."""

import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest
from tiny_workers import data, small_net, tiny_workers, values

from d2lres import Residual, train, try_all_gpus
from d2lres.runs.keeper import Keeper
from d2lres.runs.launch import launch
from d2lres.runs.workers import Alone, workers_of
from d2lres.runtime import sent

PROGRAM = str(Path(__file__).parents[1] / "tiny_workers.py")


def launched(*command, n=2, s=1, timeout=120):
    """Run a command in workers of their own; return how it ended and what it said."""
    how = ["-n", str(n), "-s", str(s), "--", *map(str, command)]
    command = [sys.executable, "-m", "d2lres", "launch", *how]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def saved(path):
    with onp.load(path) as file:
        return dict(file)


def far(one, other):
    """Return how far two sets of parameters are from each other."""
    assert one.keys() == other.keys()
    return max(abs(one[name] - other[name]).max() for name in one)


# Devices


@pytest.mark.parametrize("num_devices", [1, 2, 3, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_several_devices_take_the_steps_of_one(num_devices, optimizer):
    """The last of five batches has one image: the other devices have nothing to do."""
    options = {"optimizer": optimizer, "optimizer_params": {}, "epochs": 1}
    net, history = tiny_workers(device=mx.cpu(), **options)
    devices = [mx.cpu(i) for i in range(num_devices)]
    same, again = tiny_workers(device=devices, **options)
    assert far(values(net), values(same)) < 1e-5
    assert again.train_loss == pytest.approx(history.train_loss, rel=1e-5)
    assert (again.train_acc, again.test_acc) == (history.train_acc, history.test_acc)
    assert again.run["device"] == ", ".join(map(str, devices))
    for param in same.collect_params().values():
        arrays = [array.asnumpy() for array in param.list_data()]
        assert len(arrays) == num_devices and all((a == arrays[0]).all() for a in arrays)


def test_the_averages_of_batch_norm_are_those_of_the_first_device():
    net = mx.gluon.nn.HybridSequential()
    net.add(Residual(1), mx.gluon.nn.GlobalAvgPool2D(), mx.gluon.nn.Dense(2))
    net.initialize()
    train(net, data(32, 16), data(8, 8), 1, 0.1, [mx.cpu(0), mx.cpu(1)], precision="float32")
    assert all(
        (p.list_data()[0] == p.list_data()[1].as_in_ctx(mx.cpu())).all()
        for p in net.collect_params().values()
    )


def test_a_run_on_two_devices_goes_on_where_it_stopped(tmp_path, saves_every_batch):
    options = {"device": [mx.cpu(0), mx.cpu(1)], "optimizer": "adam", "optimizer_params": {}}
    whole, _ = tiny_workers(epochs=3, **options)
    tiny_workers(epochs=2, checkpoint=tmp_path, **options)
    resumed, history = tiny_workers(epochs=3, checkpoint=tmp_path, **options)
    assert history.run["resumed"] == 1 and far(values(whole), values(resumed)) == 0
    with pytest.raises(ValueError, match="num_devices"):
        tiny_workers(epochs=3, checkpoint=tmp_path, **(options | {"device": mx.cpu()}))


@pytest.mark.parametrize(
    "device, words",
    [
        ([mx.cpu(0), mx.cpu(0)], r"cpu\(0\) more than once"),
        ([mx.cpu(0), mx.gpu(7)], r"there is no gpu\(7\)"),
        ([], "device must be one like"),
        ([mx.cpu(0), "cpu"], "device must be one like"),
    ],
)
def test_devices_that_cannot_be(device, words):
    with pytest.raises((TypeError, ValueError), match=words):
        tiny_workers(device=device)


def test_all_gpus_that_compute_or_the_cpu(monkeypatch):
    assert try_all_gpus() == [mx.cpu()]
    monkeypatch.setattr("mxnet.context.num_gpus", lambda: 3)
    works = {0: mx.gpu(0), 1: mx.cpu(), 2: mx.gpu(2)}
    monkeypatch.setattr("d2lres.runtime.devices.try_gpu", lambda i=0: works[i])
    assert try_all_gpus() == [mx.gpu(0), mx.gpu(2)]


# Who reads what


class _Net:
    traced = type("traced", (), {"draws": False})


@pytest.mark.parametrize("num_images", [32, 33, 41, 60])
@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_the_shares_of_workers_are_disjoint_and_complete(num_images, num):
    """The images of a step are the same, however many workers share them."""
    whole = data(num_images, 12)
    steps = [sorted(X.sum(axis=(1, 2, 3)).tolist()) for X, _ in whole]
    for kind in (lambda it: it, list):
        parts = []
        for rank in range(num):
            who = Alone("device")
            who.rank, who.num = rank, num
            share = data(num_images, 12 // num)
            history = type("history", (), {"run": {"seed": 0}, "__len__": lambda _: 0})()
            keeper = Keeper(_Net, None, history, None, kind(share), 1, 2, [mx.cpu()], who)
            mine = []
            for X, y in keeper._to_come():
                sums = X.sum(axis=(1, 2, 3)).tolist() if len(y) else []
                mine.append((sums, len(y), keeper.num_images))
            assert len(mine) == keeper.num_batches == len(steps)
            parts.append(mine)
        for step, of_all in zip(steps, zip(*parts, strict=True), strict=True):
            assert sorted(itertools.chain(*(sums for sums, _, _ in of_all))) == step
            assert {total for _, _, total in of_all} == {len(step)}


# Processes


@pytest.mark.slow
def test_workers_end_where_one_process_does(tmp_path):
    """One to the last bit, with as many threads; two up to the order of sums. And one prints."""
    alone, history = tiny_workers()
    for n, limit in ((1, 0), (2, 1e-5)):
        done = launched(PROGRAM, tmp_path / str(n), n=n)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 3 and lines[0] == "says who prints" and lines[2].startswith("epoch 2")
        for rank in range(n):
            params = saved(tmp_path / f"{n}-{rank}.npz")
            figures = params.pop("figures")
            assert far(params, values(alone)) <= limit
            expected = history.train_loss, history.train_acc, history.test_acc
            assert figures == pytest.approx(onp.array(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kvstore", ["dist_device_sync", "dist_async"])
def test_workers_by_other_key_value_stores(kvstore, tmp_path):
    """In step they end where one process does; where nobody waits, they learn."""
    alone, history = tiny_workers()
    done = launched(PROGRAM, tmp_path / "params", "--kvstore", kvstore)
    assert done.returncode == 0, done.stderr
    losses, *_ = saved(tmp_path / "params-0.npz")["figures"]
    assert losses[-1] < losses[0]
    if kvstore == "dist_device_sync":
        assert losses == pytest.approx(history.train_loss, rel=1e-5)


def own_program(tmp_path, code):
    """Write a program beside which tiny_workers is found."""
    program = tmp_path / "own.py"
    path = f"import os, sys; sys.path.insert(0, {str(Path(PROGRAM).parent)!r})\n"
    program.write_text(f"{path}from tiny_workers import tiny_workers\n{code}")
    return program


@pytest.mark.slow
def test_a_scheduler_of_ones_own_stays_with_the_workers(tmp_path):
    """The servers, which take the steps of dist_async, would not take it."""
    code = (
        "import mxnet as mx\n"
        "class Own(mx.lr_scheduler.LRScheduler):\n    __call__ = lambda self, num_update: 0.02\n"
        "tiny_workers('dist_async', scheduler=Own(0.02))"
    )
    done = launched(own_program(tmp_path, code))
    assert done.returncode == 1 and "Own stays with the workers: take dist_sync" in done.stderr


@pytest.mark.slow
def test_workers_with_different_runs_are_refused(tmp_path):
    done = launched(own_program(tmp_path, "tiny_workers('dist_sync', seed=os.getpid())"))
    assert done.returncode == 1 and done.stdout == ""
    assert "worker 1 has another run than worker 0; seed differ" in done.stderr
    assert "worker 0 ends: worker 1 on 127.0.0.1 ended with an error" in done.stderr


def test_what_cannot_be_launched(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# none\n\n")
    with pytest.raises(ValueError, match="names no host"):
        launch(["train"], 2, hosts=hosts)
    hosts.write_text("a;b\n")
    with pytest.raises(ValueError, match="expected address or address:port in a line, not 'a;b'"):
        launch(["train"], 2, hosts=hosts)
    with pytest.raises(ValueError, match="no quote"):
        launch(["train", "it's"], 2)


def test_a_key_value_store_that_is_none_or_needs_others():
    with pytest.raises(ValueError, match="kvstore is one of local, device, dist_sync"):
        workers_of("p2p")
    with pytest.raises(RuntimeError, match="started alone: python -m d2lres launch -n 2"):
        workers_of("dist_sync")
    assert workers_of(None).num == workers_of("local").num == 1


def test_a_server_is_sent_optimizers_and_nothing_else():
    scheduler = mx.lr_scheduler.CosineScheduler(10, 0.1)
    adam = mx.optimizer.Adam(learning_rate=0.1, wd=1e-3, lr_scheduler=scheduler)
    same = sent.loads(pickle.dumps(adam, 0))
    assert same.wd == 1e-3 and same.lr_scheduler.max_update == 10
    for other in (os.system, subprocess.Popen, mx.nd.load, Path("/"), small_net):
        with pytest.raises(pickle.UnpicklingError, match="a server takes optimizers"):
            sent.loads(pickle.dumps(other))
