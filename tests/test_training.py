import random

import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn
from networks import in_a_row, initialized

from d2lres import History, MixUp, Residual, evaluate_accuracy, freeze, train


def small_net(num_classes=2):
    end = nn.GlobalAvgPool2D(), nn.Dense(num_classes)
    return initialized(in_a_row(nn.Conv2D(8, 3, padding=1), Residual(8), *end))


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


def test_the_same_seed_gives_the_same_run(stripes):
    (net, first), (same, second), (_, other) = (run(stripes, seed=seed) for seed in (3, 3, 4))
    assert first.train_loss == second.train_loss != other.train_loss
    assert (first.train_acc, first.test_acc) == (second.train_acc, second.test_acc)
    pairs = zip(net.collect_params().values(), same.collect_params().values(), strict=True)
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
    net = initialized(small_net(), (1, 1, 8, 8))
    before = net[0].weight.data().copy()
    one_batch = stripes(batch_size=32)
    history = train(net, one_batch, one_batch, 1, 0.1, scheduler=ended, precision="float32")
    assert history.run["scheduler"] == "CosineScheduler" and history.run["lr"] == 0.1
    assert (net[0].weight.data() == before).all()


def test_a_scheduler_stays_as_it_is(stripes):
    steps = mx.lr_scheduler.MultiFactorScheduler([3, 5], factor=0.1, base_lr=0.1)
    first, again = (run(stripes, num_epochs=2, scheduler=steps)[1] for _ in range(2))
    assert first.train_loss == again.train_loss


@pytest.mark.parametrize("number", [onp.float32, onp.float64, onp.array, np.array])
def test_numbers_of_numpy_are_taken_and_recorded_as_plain_ones(stripes, tmp_path, number):
    options = {"momentum": number(0.9), "wd": number(1e-4), "clip_gradient": None}
    steps = [onp.int64(2), onp.int64(3)]
    scheduler = mx.lr_scheduler.MultiFactorScheduler(steps, number(0.5), base_lr=number(0.1))
    data = stripes(), stripes(shuffle=False)
    how = {"optimizer_params": options, "scheduler": scheduler, "seed": onp.int64(1)}
    history = train(small_net(), *data, onp.int64(2), number(0.1), checkpoint=tmp_path, **how)
    recorded = History.load(history.save(tmp_path / "run.json")).run
    assert (recorded["seed"], recorded["clip_gradient"], recorded["num_epochs"]) == (1, None, 2)
    assert recorded["lr"] == pytest.approx(0.1) and recorded["momentum"] == pytest.approx(0.9)
    assert not {type(value) for value in history.run.values()} & {onp.float64, onp.int64}


@pytest.mark.parametrize("kind", [lambda a: a, lambda a: a.asnumpy(), lambda a: a.as_nd_ndarray()])
def test_any_list_of_batches_will_do(stripes, kind):
    batches = [(kind(X), kind(y)) for X, y in stripes(shuffle=False)]
    mx.random.seed(0)
    history = train(small_net(), batches, batches, 1, 0.1, [mx.cpu()], precision="float32")
    _, same = run(lambda shuffle=False: stripes(shuffle=False), num_epochs=1)
    assert history.run["source"] is None and history.train_loss == same.train_loss


@pytest.fixture
def loader():
    """A loader of Gluon's, which draws the order of its images, and its own changes to them."""
    images = onp.random.default_rng(0).random((32, 8, 8, 1), "float32")
    rotate = gluon.data.vision.transforms.RandomFlipLeftRight()

    def cut(image):
        return (rotate(image) * random.random()).transpose(2, 0, 1)

    data = gluon.data.ArrayDataset(np.array(images), onp.arange(32, dtype="int32") % 2)
    return gluon.data.DataLoader(data.transform_first(cut), 8, shuffle=True)


def test_the_seed_is_that_of_a_gluon_loader_too(loader, stripes):
    """And the random numbers of the caller go on as if there had been no run."""
    losses, drawn = [], []
    for seed in (1, 1, 2):
        mx.random.seed(0)
        onp.random.seed(0), random.seed(0)
        history = train(small_net(), loader, stripes(), 2, 0.1, seed=seed, precision="float32")
        losses.append(history.train_loss)
        drawn.append((onp.random.uniform(), random.random()))
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][0] != losses[0][1] and len({*drawn}) == 1


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


# --- what students get wrong


BAD_RATES = -0.1, 0, float("nan"), float("inf"), None, "fast", [0.1, 0.2]


class Book:
    """The book's own schedulers are no LRScheduler."""

    def __call__(self, num_update):
        return 0.1


class Two(nn.HybridBlock):
    """A network of two outputs."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(2)

    def hybrid_forward(self, F, X):
        return self.dense(X), X


CE = gluon.loss.SoftmaxCrossEntropyLoss
COSINE = mx.lr_scheduler.CosineScheduler(1000)


def mean(Y_hat, y):
    return CE()(Y_hat, y).mean()


def frozen(net):
    freeze(initialized(net))
    return net


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        *(({"lr": lr}, ValueError, "must be a positive number, got lr=") for lr in BAD_RATES),
        *(({"num_epochs": n}, ValueError, f"of at least 1, not {n}") for n in (0, -1, 1.5, None)),
        *(
            ({"threads": n}, ValueError, "threads must be .* from 1 to 1024")
            for n in (0, 1025, "2")
        ),
        ({"num_epochs": True}, ValueError, "num_epochs must be a whole number of .*, not True"),
        ({"optimizer_params": {"learning_rate": 0.5}}, ValueError, r"rate': write lr=\.\.\."),
        ({"optimizer_params": {"lr_scheduler": None}}, ValueError, r"write .*scheduler=\.\.\."),
        ({"optimizer_params": 0.9}, TypeError, "a dict like"),
        ({"optimizer": mx.optimizer.Adam}, TypeError, 'a name like "adam"'),
        ({"scheduler": 0.1}, TypeError, r"one like mx\.lr_scheduler\.CosineScheduler.*not 0\.1"),
        ({"scheduler": mx.lr_scheduler.CosineScheduler}, TypeError, "one like .*not <class"),
        ({"scheduler": COSINE}, ValueError, r"is at the learning rate 0\.01, but lr=0\.1"),
        ({"scheduler": Book()}, TypeError, "no base_lr: derive Book from mx.lr_scheduler.LRSch"),
        ({"loss": gluon.loss.L2Loss}, TypeError, "one like .*EntropyLoss.*not <class .*L2Loss"),
        ({"loss": "l2"}, TypeError, "loss must be one like .*, not 'l2'"),
        ({"loss": mean}, ValueError, r"loss of shape \(16,\), .* got \(\): train itself takes"),
        ({"loss": lambda Y_hat, y: Y_hat}, ValueError, r"loss of shape \(16,\), .* got \(16, 2\)"),
        ({"loss": lambda Y_hat, y: 0.0}, ValueError, "but got float"),
        ({"loss": CE(sparse_label=False)}, ValueError, "must have sparse_label=True"),
        ({"loss": CE(), "mixup": MixUp(1)}, ValueError, "must have sparse_label=False: with mixup"),
        ({"mixup": MixUp}, TypeError, r"mixup must be one like MixUp\(0\.2\), not <class"),
        ({"mixup": 0.2}, TypeError, r"mixup must be one like MixUp\(0\.2\), not 0.2"),
        ({"device": "cpu"}, TypeError, r"one like try_gpu\(\).*, not 'cpu'"),
        ({"device": mx.gpu(99)}, ValueError, r"there is no gpu\(99\).* try_gpu\(\)"),
        ({"seed": 1.5}, ValueError, "seed must be a whole number of at least 0, not 1.5"),
        ({"net": small_net}, TypeError, r"expected a network.*but got small_net"),
        ({"net": nn.Dense(2)}, RuntimeError, "no weights yet.*net.initialize"),
        ({"net": frozen(nn.Dense(2))}, ValueError, "nothing to train.*frozen"),
        ({"net": initialized(Two())}, ValueError, r"expected scores.*, but got 2 outputs; .*Dense"),
        ({"net": initialized(nn.Conv2D(2, 3))}, ValueError, r"but got \(1, 2, 6, 6\)"),
        ({"test_iter": None}, TypeError, "test_iter must have a length.*not NoneType"),
        ({"test_iter": 5}, TypeError, "test_iter must have a length.*not int"),
        ({"test_iter": []}, ValueError, "test_iter gave no batch: there is nothing to evaluate"),
        ({"train_iter": []}, ValueError, "train_iter gave no batch: there is nothing to train on"),
        ({"train_iter": (b for b in ())}, TypeError, r"not generator: try list\(train_iter\)"),
        ({"test_iter": zip([], [], strict=True)}, TypeError, r"not zip: try list\(test_iter\)"),
        ({"test_iter": np.ones((3, 2, 1, 8, 8))}, TypeError, "test_iter: expected batches"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
def test_it_says_what_is_wrong_before_it_trains(stripes, argument, error, words):
    good = {"net": small_net(), "train_iter": stripes(), "test_iter": stripes()}
    good |= {"num_epochs": 1, "lr": 0.1, "precision": "float32"}
    with pytest.raises(error, match=words):
        train(**good | argument)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (onp.arange(16) % 2 + 1, "labels go from 1 to 2.* 2 classes.*num_classes=3"),
        (onp.arange(16) % 2 - 1, "labels go from -1 to 0"),
        ((onp.arange(16) % 2)[:, None], r"one for each of the 16 images.* got .*\(16, 1\); .*0\]"),
        (onp.eye(2)[onp.arange(16) % 2], r"got shape \(16, 2\); write y.argmax\(axis=1\)"),
        (onp.zeros(15), r"of shape \(16,\), but got shape \(15,\)"),
        (onp.full(16, 0.5), "are the whole numbers of classes, but one is 0.5"),
        (onp.full(16, onp.nan, "float32"), "but one is nan"),
        (onp.full(16, 2**32 + 1), "but one is 4294967297"),
        (["cat"] * 16, "of classes, not an array of <U3"),
    ],
)
def test_labels_have_outputs(stripes, labels, words):
    """In the first batch as in a later one, those to test with before anything is trained."""
    good = list(stripes())
    bad = [(X, labels) for X, _ in good]
    for data in ((bad, good), (good, bad), ([good[0], bad[0]], good)):
        with pytest.raises(ValueError, match=words):
            train(small_net(), *data, 1, 0.1, precision="float32")
    with pytest.raises(ValueError, match=words):
        evaluate_accuracy(small_net(), bad)
