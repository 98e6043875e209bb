import os
import random
import resource
import signal
import tempfile

import mxnet as mx
import numpy as onp
import pytest
from mxnet.gluon import nn
from networks import in_a_row, initialized, values_of
from tiny_run import At

from d2lres import train, training
from d2lres.compiler.compiled import Compiled
from d2lres.compiler.graph import Traced
from d2lres.compiler.precision import Plan
from d2lres.runs import keeper
from d2lres.runs.checkpoint import Checkpoints


def stop_at(batch, number=signal.SIGINT):
    return At({batch: lambda: signal.raise_signal(number)})


def handlers():
    """What Ctrl-C and a shutdown do."""
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


def run(stripes, folder=None, at=None, *, num_epochs=3, optimizer="sgd", dropout=0.3, **kwargs):
    """Train a small network on four batches an epoch; return it and the history."""
    options = {"sgd": {"momentum": 0.9, "wd": 1e-3}, "adam": {}}[optimizer]
    mx.random.seed(0)
    layers = nn.Conv2D(4, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(dropout)
    net = initialized(in_a_row(*layers, nn.GlobalAvgPool2D(), nn.Dense(2)))
    lr = kwargs.pop("lr", 0.1)
    cosine = mx.lr_scheduler.CosineScheduler(12, lr, final_lr=0, warmup_steps=3)
    data = stripes(num=30, batch_size=8, augment=at or At()), stripes(shuffle=False)
    options = {"optimizer": optimizer, "optimizer_params": options, "precision": "float32"} | kwargs
    history = train(net, *data, num_epochs, lr, scheduler=cosine, checkpoint=folder, **options)
    return net, history


def assert_equal_runs(one, other):
    params = [values_of(net._collect_params_with_prefix()) for net, _ in (one, other)]
    for a, b in zip(*params, strict=True):
        onp.testing.assert_array_equal(a, b)
    for name in ("train_loss", "train_acc", "test_acc"):
        assert getattr(one[1], name) == getattr(other[1], name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batch", [1, 4, 5, 9])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    stripes, tmp_path, optimizer, batch, capsys
):
    whole, before = run(stripes, optimizer=optimizer), handlers()
    _, history = run(stripes, tmp_path, stop_at(batch), optimizer=optimizer)
    epochs, batches = divmod(batch - 1, 4)
    where = f"epoch {epochs + 1}, batch {batches + 1}"
    assert len(history) == epochs and f"stopped in {where}" in capsys.readouterr().out
    assert handlers() == before
    again = run(stripes, tmp_path, optimizer=optimizer)
    assert f"resuming from {where}" in capsys.readouterr().out
    assert_equal_runs(again, whole)
    assert again[1].run["resumed"] == 1


@pytest.mark.slow
def test_a_run_on_a_loader_of_gluon_goes_on_with_the_same_images(stripes, tmp_path):
    """The images of a loader, in the order that it draws, and what it draws to change them."""

    def loader(shuffle=True, actions=(), **kwargs):
        at = At(actions)

        def changed(image):
            at(None, None)
            return image * onp.random.uniform() * random.random() * mx.np.random.uniform()

        images, labels = zip(*stripes(num=12, batch_size=1, shuffle=False), strict=True)
        data = mx.gluon.data.ArrayDataset([X[0] for X in images], [int(y) for y in labels])
        return mx.gluon.data.DataLoader(data.transform_first(changed, lazy=True), 3, shuffle)

    def tried(folder, actions=()):
        return run(lambda **kwargs: loader(actions=actions, **kwargs), folder)

    stop = stop_at(3 + 12 + 4).actions[3 + 12 + 4]
    tried(tmp_path, {3 + 12 + 4: stop})
    assert_equal_runs(tried(tmp_path), tried(None))


def test_a_run_that_is_complete_is_not_repeated_or_made_shorter(stripes, tmp_path, capsys):
    before = handlers()
    first = run(stripes, tmp_path)
    again = run(stripes, tmp_path)
    assert_equal_runs(again, first)
    assert again[1].seconds == first[1].seconds and not again[1].run["resumed"]
    output = capsys.readouterr().out
    assert f"the run in {tmp_path} is complete\n" in output and "resuming" not in output
    assert handlers() == before
    with pytest.raises(ValueError, match="is past num_epochs=2: it has 3 epochs and 0 batches"):
        run(stripes, tmp_path, num_epochs=2)


def test_a_shutdown_goes_on_once_the_run_is_saved(stripes, tmp_path, capsys):
    came = []

    def shut_down(number, frame):
        came.append(number)

    before = signal.signal(signal.SIGTERM, shut_down)
    try:
        run(stripes, tmp_path, stop_at(4, signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is shut_down  # as before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM] and "stopped in epoch 1, batch 4" in capsys.readouterr().out
    assert_equal_runs(run(stripes, tmp_path), run(stripes))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_is_not_saved(stripes, tmp_path, faults, value):
    run(stripes, tmp_path, stop_at(1))
    files = sorted(tmp_path.iterdir())

    class Bad(mx.gluon.loss.SoftmaxCrossEntropyLoss):
        def hybrid_forward(self, F, *args, **kwargs):
            return super().hybrid_forward(F, *args, **kwargs) * float(value)

    Bad.__name__ = "SoftmaxCrossEntropyLoss"  # the same run
    words = "the loss became nan in epoch 1, batch 2, at the learning rate 0.1. Try a tenth"
    with faults("numbers", f"loss {value}"):
        with pytest.raises(FloatingPointError, match=f"{words}.*{tmp_path} holds is from before"):
            run(stripes, tmp_path, loss=Bad())
        assert sorted(tmp_path.iterdir()) == files
    with pytest.raises(FloatingPointError, match="finite.$"):
        run(stripes, loss=Bad())


def test_parameters_that_are_no_numbers_are_not_saved(stripes, tmp_path, saves_every_batch, faults):
    """One step can spoil them, and the loss shows it only in the next."""
    words = r"0.weight is no longer finite in epoch 1, batch 1, at the learning rate"
    with faults("numbers", "parameters that overflow"):
        with pytest.raises(FloatingPointError, match=words):
            run(stripes, tmp_path, lr=1e30, loss=mx.gluon.loss.SoftmaxCrossEntropyLoss(weight=1e30))
        assert list(tmp_path.iterdir()) == []


def test_another_run_does_not_go_on_from_there(stripes, tmp_path):
    run(stripes, tmp_path, num_epochs=1)
    for change, words in [
        ({"lr": 0.2}, "lr: 0.1 there, 0.2 here"),
        ({"seed": 5}, "seed: 0 there, 5 here"),
        ({"optimizer": "adam"}, "optimizer: sgd there, adam here"),
        ({"dropout": 0.4}, "network: "),
        ({"at": lambda images, rng: images}, "augment: At.. there, <lambda> here"),
        ({"loss": mx.gluon.loss.SoftmaxCrossEntropyLoss(weight=2)}, "loss: "),
    ]:
        with pytest.raises(ValueError, match=f"of another run.*{words}.*another folder"):
            run(stripes, tmp_path, **change)
    for change, words in [({"num": 29}, "run .data: "), ({"shuffle": False}, "shuffle: True")]:
        with pytest.raises(ValueError, match=words):
            run(lambda change=change, **kwargs: stripes(**kwargs | change), tmp_path)
    with pytest.raises(ValueError, match="another run .test data: [^;]*. Repeat"):
        run(lambda num=33, **kwargs: stripes(num, **kwargs), tmp_path)


def test_a_run_goes_on_by_the_plans_it_began_with(stripes, tmp_path, monkeypatch):
    """What is the fastest may be measured otherwise the second time, beside other programs."""
    began = {"training": Plan("float32"), "inference": Plan("float32", 17, fused=False)}
    compiled = []

    def compile_by(plans):
        def other(net, X, precision):
            compiled.append(Compiled(Traced(net), X, **plans))
            return compiled[-1]

        monkeypatch.setattr(training, "compile", other)

    compile_by(began)
    run(stripes, tmp_path, stop_at(1))
    compile_by(dict.fromkeys(began, Plan("float32", 4)))
    _, history = run(stripes, tmp_path)
    assert compiled[-1].plans == began and history.run["precision"] == "float32"


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


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    names = "0-best.safetensors", "z-final.safetensors", "notes", "film.mkv.part", "9-a.1.part"
    others = [tmp_path / name for name in names]
    mine = tmp_path / f"{1:09d}-{'a' * 32}.safetensors.123.part"  # of a run that was killed
    for path in (*others, mine):
        path.touch()
    with Checkpoints(tmp_path, {}) as checkpoints:
        assert checkpoints.load() is None and not mine.exists()
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": onp.zeros(1)}, {"step": step})
        assert checkpoints.load()[1] == {"step": 3}
    assert all(path.exists() for path in others) and len(list(tmp_path.iterdir())) == 2 + 5


def test_a_damaged_checkpoint_does_not_count_as_one_of_two(tmp_path):
    with Checkpoints(tmp_path, {}) as checkpoints:
        for step in (1, 9):
            checkpoints.save(step, {"x": onp.zeros(1)}, {"step": step})
        max(tmp_path.iterdir()).write_bytes(b"")
        assert checkpoints.load()[1] == {"step": 1}
        checkpoints.save(2, {"x": onp.zeros(1)}, {"step": 2})
    assert [path.name[:9] for path in sorted(tmp_path.iterdir())] == ["000000001", "000000002"]


# --- a disk that is full, a folder that cannot be written to


@pytest.fixture
def limit():
    """Set how many bytes this process may write to a file: beyond, it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size=soft: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_goes_on_while_the_disk_is_full(
    stripes, tmp_path, saves_every_batch, limit, capsys, faults
):
    with faults("disk", "a limit to the size of files"):
        done = run(stripes, tmp_path, At({3: lambda: limit(500), 10: limit}))
        assert_equal_runs(done, run(stripes))
    output = capsys.readouterr().out
    words = f"epoch 1, batch 3 could not be saved in {tmp_path} (File too large). The run goes on"
    assert words in output and output.count("could not be saved") == 1
    assert [path.name[:9] for path in sorted(tmp_path.iterdir())] == ["000000014", "000000015"]


def test_a_run_stopped_while_the_disk_is_full_goes_on_from_before(
    stripes, tmp_path, saves_every_batch, limit, capsys
):
    stop = stop_at(7).actions[7]
    run(stripes, tmp_path, At({6: lambda: limit(500), 7: stop}))
    limit()
    words = "stopped in epoch 2, batch 3: train again to go on from the last checkpoint\n"
    assert words in capsys.readouterr().out
    again = run(stripes, tmp_path)
    assert "resuming from epoch 2, batch 1\n" in capsys.readouterr().out
    assert_equal_runs(again, run(stripes))


def test_a_folder_may_begin_at_home(stripes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(stripes, "~/runs/mine", num_epochs=1)
    assert [file.suffix for file in (tmp_path / "runs/mine").iterdir()] == [".safetensors"]


def test_a_folder_that_another_run_writes_to_or_that_cannot_be_made(tmp_path, faults):
    with Checkpoints(tmp_path, {}), pytest.raises(BlockingIOError, match="another run is writing"):
        Checkpoints(tmp_path, {}).__enter__()
    with Checkpoints(tmp_path, {}):
        pass  # once the other has ended
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        words = f"no checkpoints can be written to {folder} .*another"
        with faults("disk", "no folder"), pytest.raises(OSError, match=words):
            Checkpoints(folder, {}).__enter__()


def test_a_folder_that_cannot_be_written_to(faults):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        os.seteuid(os.getuid() or 65534)  # no permission stops root
        try:
            words = "can be written to .*Permission denied.*another"
            with faults("disk", "a read-only folder"), pytest.raises(OSError, match=words):
                Checkpoints(folder, {}).__enter__()
        finally:
            os.seteuid(os.getuid())


@pytest.mark.slow
def test_a_folder_for_each_run_that_starts_elsewhere(stripes, tmp_path, capsys):
    folder = tmp_path / "a-{run}"
    run(stripes, folder)
    run(stripes, folder)
    (only,) = tmp_path.iterdir()
    assert f"the run in {only} is complete" in capsys.readouterr().out and only.name[:2] == "a-"
    run(stripes, folder, lr=0.05)  # other arguments
    run(stripes, folder, dropout=0.2)  # another network
    assert len(list(tmp_path.iterdir())) == 3
    net, _ = run(stripes, num_epochs=1)  # other weights
    data = stripes(num=30, batch_size=8), stripes(shuffle=False)
    for _ in range(2):
        train(net, *data, 1, 0.1, checkpoint=folder)
    assert len(list(tmp_path.iterdir())) == 5


def test_the_stop_button_of_a_notebook_leaves_a_sentence_and_the_history(
    stripes, monkeypatch, capsys
):
    with pytest.raises(KeyboardInterrupt):  # a script ends
        run(stripes, at=stop_at(6))
    monkeypatch.setattr(keeper, "in_notebook", lambda: True)
    _, history = run(stripes, at=stop_at(6))
    assert len(history) == 1
    assert "stopped in epoch 2, batch 2: the network is as it is now" in capsys.readouterr().out
