import os
import signal

import mxnet as mx
import numpy as onp
import pytest
from mxnet.gluon import nn

from d2lres import train
from d2lres.checkpoint import Checkpoints


class PressStop:
    """An augmentation that changes nothing and presses the stop button at one of its calls."""

    def __init__(self, at=None, signal=signal.SIGINT):
        self.at, self.signal, self.calls = at, signal, 0

    def __call__(self, images, rng):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.signal)
        return images

    def __repr__(self):
        return "PressStop()"


def run(stripes, folder=None, stop=None, *, num_epochs=3, optimizer="sgd", dropout=0.3, **kwargs):
    """Train a small network on four batches an epoch; return it and the history."""
    options = {"sgd": {"momentum": 0.9, "wd": 1e-3}, "adam": {}}[optimizer]
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(dropout))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    lr = kwargs.pop("lr", 0.1)
    cosine = mx.lr_scheduler.CosineScheduler(12, lr, final_lr=0, warmup_steps=3)
    data = stripes(num=30, batch_size=8, augment=stop or PressStop()), stripes(shuffle=False)
    options = {"optimizer": optimizer, "optimizer_params": options, "precision": "float32"} | kwargs
    history = train(net, *data, num_epochs, lr, scheduler=cosine, checkpoint=folder, **options)
    return net, history


def values(net):
    return [p.data().asnumpy() for p in net._collect_params_with_prefix().values()]


def assert_equal_runs(one, other):
    for a, b in zip(values(one[0]), values(other[0]), strict=True):
        onp.testing.assert_array_equal(a, b)
    for name in ("train_loss", "train_acc", "test_acc"):
        assert getattr(one[1], name) == getattr(other[1], name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stop_at", [3, 6, 7, 11])  # the first two calls find shapes
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    stripes, tmp_path, optimizer, stop_at, capsys
):
    whole = run(stripes, optimizer=optimizer)
    _, history = run(stripes, tmp_path, PressStop(stop_at), optimizer=optimizer)
    epochs, batches = divmod(stop_at - 3, 4)
    where = f"epoch {epochs + 1}, batch {batches + 1}"
    assert len(history) == epochs and f"stopped in {where}" in capsys.readouterr().out
    again = run(stripes, tmp_path, optimizer=optimizer)
    assert f"resuming from {where}" in capsys.readouterr().out
    assert_equal_runs(again, whole)
    assert again[1].run["resumed"] == 1


def test_a_run_that_is_complete_is_not_repeated(stripes, tmp_path, capsys):
    first = run(stripes, tmp_path)
    again = run(stripes, tmp_path)
    assert_equal_runs(again, first)
    assert (
        again[1].seconds == first[1].seconds and "from epoch 4, batch 0" in capsys.readouterr().out
    )


def test_ctrl_c_works_as_before_when_a_run_has_ended(stripes, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(stripes, tmp_path, PressStop(3))
    run(stripes, tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_shutdown_goes_on_once_the_run_is_saved(stripes, tmp_path, capsys):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        run(stripes, tmp_path, PressStop(6, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM] and "stopped in epoch 1, batch 4" in capsys.readouterr().out
    assert_equal_runs(run(stripes, tmp_path), run(stripes))


def test_a_loss_that_is_no_number_is_not_saved(stripes, tmp_path):
    run(stripes, tmp_path, PressStop(3))
    files = sorted(tmp_path.iterdir())

    class Bad(mx.gluon.loss.SoftmaxCrossEntropyLoss):
        def hybrid_forward(self, F, *args, **kwargs):
            return super().hybrid_forward(F, *args, **kwargs) * float("nan")

    Bad.__name__ = "SoftmaxCrossEntropyLoss"  # the same run
    words = r"the loss became nan in epoch 1, batch 2, at the learning rate 0.1. Try a tenth"
    with pytest.raises(FloatingPointError, match=f"{words}.*from before is kept"):
        run(stripes, tmp_path, loss=Bad())
    assert sorted(tmp_path.iterdir()) == files
    with pytest.raises(FloatingPointError, match="finite.$"):
        run(stripes, loss=Bad())


def test_another_run_does_not_go_on_from_there(stripes, tmp_path):
    run(stripes, tmp_path, num_epochs=1)
    for change, words in [
        ({"lr": 0.2}, "lr: 0.1 there, 0.2 here"),
        ({"seed": 5}, "seed: 0 there, 5 here"),
        ({"optimizer": "adam"}, "optimizer: sgd there, adam here"),
        ({"dropout": 0.4}, "network: "),
        ({"loss": mx.gluon.loss.SoftmaxCrossEntropyLoss(weight=2)}, "loss: "),
    ]:
        with pytest.raises(ValueError, match=f"of another run.*{words}.*another folder"):
            run(stripes, tmp_path, **change)
    with pytest.raises(ValueError, match="data: "):
        run(lambda **kwargs: stripes(**kwargs | {"num": 29}), tmp_path)


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    with Checkpoints(tmp_path, {}), pytest.raises(BlockingIOError, match="another run is writing"):
        Checkpoints(tmp_path, {}).__enter__()
    with Checkpoints(tmp_path, {}):
        pass


def test_the_last_two_are_kept_and_the_last_good_one_is_taken(tmp_path, capsys):
    with Checkpoints(tmp_path, {"lr": 0.1}) as checkpoints:
        assert checkpoints.load() is None
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": onp.full(3, step)}, {"step": step})
        files = sorted(tmp_path.iterdir())
        assert [path.name.split("-")[0] for path in files] == ["000000002", "000000003"]
        arrays, facts = checkpoints.load()
        assert arrays["x"].tolist() == [3, 3, 3] and facts == {"step": 3}
        files[1].write_bytes(files[1].read_bytes()[:-1])
        assert checkpoints.load()[1] == {"step": 2}
        assert "is damaged and was passed over" in capsys.readouterr().out
        files[0].write_bytes(b"")
        with pytest.raises(ValueError, match="every checkpoint.*is damaged. Delete the folder"):
            checkpoints.load()
