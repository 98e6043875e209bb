import json

import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn

from d2lres import (
    ArrayIter,
    History,
    MixUp,
    Residual,
    confusion_matrix,
    evaluate_accuracy,
    freeze,
    predict,
    top_k_accuracy,
    train,
)


def small_net(num_classes=2):
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, kernel_size=3, padding=1),
        Residual(8),
        nn.GlobalAvgPool2D(),
        nn.Dense(num_classes),
    )
    net.initialize(mx.init.Xavier())
    return net


def run(stripes, num_epochs=3, seed=0, **kwargs):
    mx.random.seed(seed)
    net = small_net()
    data = stripes(), stripes(shuffle=False)
    return net, train(net, *data, num_epochs, 0.1, seed=seed, precision="float32", **kwargs)


def test_it_learns(stripes, capsys):
    net, history = run(stripes, num_epochs=8)
    assert history.train_loss[-1] < history.train_loss[0] / 2
    assert history.train_acc[-1] == history.test_acc[-1] == 1
    assert evaluate_accuracy(net, stripes()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[-1] == str(history)


def test_what_the_history_holds(stripes):
    _, history = run(stripes)
    columns = ("train_loss", "train_acc", "test_acc", "seconds", "images_per_second")
    assert all(len(getattr(history, name)) == len(history) == 3 for name in columns)
    assert all(32 / s == n for s, n in zip(history.seconds, history.images_per_second, strict=True))
    run_of = history.run
    assert (run_of["seed"], run_of["lr"], run_of["num_epochs"]) == (0, 0.1, 3)
    assert (run_of["source"], run_of["batch_size"], run_of["num_examples"]) == ("stripes", 16, 32)
    assert run_of["mxnet"].endswith("1.9.1") and run_of["cpu"] and run_of["numpy"]


def test_mixup_trains_on_mixed_images_and_labels(stripes):
    shapes = set()

    class Loss(gluon.loss.SoftmaxCrossEntropyLoss):
        def forward(self, Y_hat, Y):
            shapes.add((Y_hat.shape, Y.shape))
            return super().forward(Y_hat, Y)

    (net, history), (_, same), (_, plain) = (
        run(stripes, mixup=MixUp(1)),
        run(stripes, mixup=MixUp(1), loss=Loss(sparse_label=False)),
        run(stripes),
    )
    assert history.train_loss == same.train_loss != plain.train_loss
    assert shapes == {((16, 2), (16, 2))} and history.run["mixup"] == "MixUp(alpha=1)"
    assert "mixup" not in plain.run
    assert history.test_acc[-1] == evaluate_accuracy(net, stripes())  # on images as they are


def test_the_same_seed_gives_the_same_history(stripes):
    first, second, other = (run(stripes, seed=seed)[1] for seed in (3, 3, 4))
    assert first.train_loss == second.train_loss
    assert (first.train_acc, first.test_acc) == (second.train_acc, second.test_acc)
    assert first.train_loss != other.train_loss


def test_the_same_seed_gives_the_same_parameters(stripes):
    nets = [run(stripes, seed=3)[0] for _ in range(2)]
    pairs = zip(*(net.collect_params().values() for net in nets), strict=True)
    assert all((p.data() == q.data()).all() for p, q in pairs)


def test_it_is_the_plain_loop_of_the_book(stripes):
    """The compiled network takes the steps that the book's loop takes on the plain one."""
    _, history = run(stripes, num_epochs=1)
    mx.random.seed(0)
    net = small_net()
    mx.random.seed(0)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    loss, losses = mx.gluon.loss.SoftmaxCrossEntropyLoss(), []
    for X, y in stripes():
        with mx.autograd.record():
            batch_loss = loss(net(X), y)
        batch_loss.backward()
        trainer.step(len(y))
        losses += batch_loss.tolist()
    assert history.train_loss[0] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_scheduler_sets_the_learning_rate(stripes):
    ended = mx.lr_scheduler.CosineScheduler(max_update=1, base_lr=0.1, final_lr=0)
    net = small_net()
    net(np.ones((1, 1, 8, 8)))
    before = net[0].weight.data().copy()
    one_batch = stripes(batch_size=32)
    history = train(net, one_batch, one_batch, 1, 0.1, scheduler=ended, precision="float32")
    assert history.run["scheduler"] == "CosineScheduler" and history.run["lr"] == 0.1
    assert (net[0].weight.data() == before).all()


def test_a_scheduler_stays_as_it_is(stripes):
    steps = mx.lr_scheduler.MultiFactorScheduler([3, 5], factor=0.1, base_lr=0.1)
    first, again = (run(stripes, num_epochs=2, scheduler=steps)[1] for _ in range(2))
    assert first.train_loss == again.train_loss


def test_a_scheduler_that_begins_elsewhere_is_refused(stripes):
    with pytest.raises(ValueError, match=r"is at the learning rate 0\.01, but lr=0\.1"):
        run(stripes, scheduler=mx.lr_scheduler.CosineScheduler(1000))


def test_nothing_to_train(stripes):
    net = small_net()
    freeze(net)
    with pytest.raises(ValueError, match="nothing to train.*frozen"):
        train(net, stripes(), stripes(), 1, 0.1)


def test_a_seed_of_numpy_can_be_recorded(stripes, tmp_path):
    _, history = run(stripes, num_epochs=1, seed=onp.int64(1))
    assert History.load(history.save(tmp_path / "run.json")).run["seed"] == 1


def test_any_iterable_of_batches_will_do(stripes):
    batches = list(stripes())
    history = train(small_net(), batches, batches, 1, 0.1, precision="float32")
    assert history.run["source"] is None and len(history) == 1


@pytest.mark.parametrize("num, batch_size", [(20, 16), (5, 16), (3, 1), (1, 16)])
def test_batches_of_any_size(stripes, num, batch_size):
    data = stripes(num=num, batch_size=batch_size)
    history = train(small_net(), data, data, 2, 0.1, precision="float32")
    assert len(history) == 2 and history.train_loss[1] < history.train_loss[0] < 2
    assert history.train_acc[1] * num == pytest.approx(round(history.train_acc[1] * num))


@pytest.mark.parametrize("num_classes", [1, 2])
def test_images_of_one_class_only(stripes, num_classes):
    data = stripes()
    data.labels[:] = 0
    history = train(small_net(num_classes), data, data, 3, 0.1, precision="float32")
    assert history.test_acc[-1] == 1 and history.train_loss[-1] < 0.5


def test_save_and_load(stripes, tmp_path):
    _, history = run(stripes, num_epochs=1)
    path = history.save(tmp_path / "deep" / "history.json")
    loaded = History.load(path)
    assert loaded.train_loss == history.train_loss and loaded.test_acc == history.test_acc
    assert loaded.run | {"image_shape": (1, 8, 8)} == history.run
    assert [p.name for p in path.parent.iterdir()] == ["history.json"]
    assert json.loads(path.read_text())["run"]["seed"] == 0


def test_a_history_in_words():
    assert str(History()) == "no epoch yet"
    history = History([0.51234], [0.8], [0.75], [2.0], [100.4])
    assert str(history) == "epoch 1: loss 0.512, train acc 0.800, test acc 0.750, 100 images/s"


def test_accuracy_counts_images_not_batches():
    def net(X):
        return np.stack([1 - X.mean(axis=(1, 2, 3)), X.mean(axis=(1, 2, 3))], axis=1)

    net.collect_params = dict
    images = onp.array([0, 0, 255, 255, 255], onp.uint8)[:, None, None, None]
    data = ArrayIter(images, onp.array([0, 1, 1, 1, 1]), 4)
    assert evaluate_accuracy(net, data) == 4 / 5


def test_predict(stripes):
    net, _ = run(stripes, num_epochs=8)
    data = stripes(num=300, shuffle=False)
    X = np.concatenate([X for X, _ in data])
    y_hat = predict(net, X)
    assert y_hat.shape == (300,) and y_hat.dtype == "int32"
    assert (y_hat.asnumpy() == data.labels).all()


def test_confusion_matrix():
    y, y_hat = onp.array([0, 0, 1, 2]), np.array([0, 1, 1, 2], dtype="int32")
    assert confusion_matrix(y, y_hat, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("array", [onp.array, np.array])
def test_top_k_accuracy(array):
    scores = array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    y = array([0, 1, 2, 2], dtype="int32")
    assert [top_k_accuracy(scores, y, k) for k in (1, 2, 3)] == [2 / 4, 3 / 4, 1]


# --- what students get wrong


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_a_number_of_classes(k):
    with pytest.raises(ValueError, match=f"from 1 to the number of classes, 3, not {k}"):
        top_k_accuracy(onp.zeros((2, 3)), onp.array([0, 1]), k)


@pytest.mark.parametrize("array", [onp.array, np.array])
def test_scores_that_have_no_order(array):
    y = array([0, 1], dtype="int32")
    with pytest.raises(ValueError, match="hold NaN: the network has diverged"):
        top_k_accuracy(array([[0.1, float("nan")], [0.2, 0.1]]), y, 1)
    with pytest.raises(ValueError, match="expected 1 labels, one for each image, but got 2"):
        top_k_accuracy(array([[0.1, 0.9]]), y, 1)
    with pytest.raises(ValueError, match=r"got \(2,\); for a single image write scores\[None\]"):
        top_k_accuracy(array([0.1, 0.9]), y, 1)


@pytest.mark.parametrize("array", [onp.array, np.array])
def test_classes_that_have_no_row(array):
    y, y_hat = array([0, 1], dtype="int32"), array([-1, 1], dtype="int32")
    with pytest.raises(ValueError, match="from 0 to 1 .*but y_hat goes from -1 to 1"):
        confusion_matrix(y, y_hat, 2)  # -1 would be the last column
    with pytest.raises(ValueError, match="but y goes from 0 to 1"):
        confusion_matrix(y, y, 1)
    with pytest.raises(ValueError, match="expected 2 predicted classes, one for each image, but"):
        confusion_matrix(y, y_hat[1:], 2)


@pytest.mark.parametrize("lr", [-0.1, 0, float("nan"), float("inf")])
def test_lr_is_positive(stripes, lr):
    with pytest.raises(ValueError, match="learning rate must be a positive number, got lr="):
        train(small_net(), stripes(), stripes(), 1, lr)


@pytest.mark.parametrize("num_epochs", [0, -1, 1.5])
def test_num_epochs_is_a_whole_number(stripes, num_epochs):
    with pytest.raises(ValueError, match="num_epochs is a whole number of at least 1"):
        train(small_net(), stripes(), stripes(), num_epochs, 0.1)


def test_labels_have_outputs(stripes):
    data = stripes()
    data.labels += 1
    for function in (
        lambda net: train(net, data, data, 1, 0.1, precision="float32"),
        lambda net: evaluate_accuracy(net, data),
    ):
        with pytest.raises(ValueError, match="labels go from 1 to 2.* 2 outputs.*num_classes=3"):
            function(small_net())
    data.labels -= 2
    with pytest.raises(ValueError, match="labels go from -1 to 0"):
        evaluate_accuracy(small_net(), data)


def test_weights_are_needed(stripes):
    net = nn.Dense(2)
    for function in (
        lambda: train(net, stripes(), stripes(), 1, 0.1),
        lambda: evaluate_accuracy(net, stripes()),
        lambda: predict(net, np.ones((1, 1, 8, 8))),
    ):
        with pytest.raises(RuntimeError, match="no weights yet.*net.initialize"):
            function()


def test_data_is_needed():
    with pytest.raises(ValueError, match="no batch: there is nothing to train on"):
        train(small_net(), [], [], 1, 0.1)
    with pytest.raises(ValueError, match="no batch: there is nothing to evaluate"):
        evaluate_accuracy(small_net(), [])


@pytest.mark.parametrize("shape", [(1, 8, 8), (0, 1, 8, 8)])
def test_predict_wants_a_batch(shape):
    with pytest.raises(ValueError, match=r"predict expects a batch.*X\[None\]"):
        predict(small_net(), np.ones(shape))
