import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn
from networks import initialized

from d2lres import ArrayIter, confusion_matrix, evaluate_accuracy, predict, top_k_accuracy

IMAGES = onp.random.default_rng(0).random((4, 1, 8, 8), "float32")
LABELS = [0, 1, 1, 0]


class Outputs(nn.HybridBlock):
    """Gives two outputs, or one of any shape."""

    def __init__(self, *shapes):
        super().__init__()
        self.shapes, self.dense = shapes, nn.Dense(2)

    def hybrid_forward(self, F, X):
        Y = self.dense(X)
        outputs = [F.np.reshape(Y, shape) for shape in self.shapes]
        return outputs if len(outputs) > 1 else outputs[0]


@pytest.fixture
def net():
    return initialized(nn.Dense(2))


def test_accuracy_counts_images_not_batches():
    def net(X):
        return np.stack([1 - X.mean(axis=(1, 2, 3)), X.mean(axis=(1, 2, 3))], axis=1)

    net.collect_params = dict
    images = onp.array([0, 0, 255, 255, 255], onp.uint8)[:, None, None, None]
    data = ArrayIter(images, onp.array([0, 1, 1, 1, 1]), 4)
    assert evaluate_accuracy(net, data) == 4 / 5


def test_predict_takes_many_images(net):
    X = onp.random.default_rng(0).random((300, 1, 8, 8), "float32")
    y_hat = predict(net, np.array(X))
    assert y_hat.shape == (300,) and y_hat.dtype == "int32"
    assert y_hat.tolist() == net(np.array(X)).argmax(axis=1).tolist()


KINDS = {"numpy": onp.array, "mx.np": np.array, "mx.nd": mx.nd.array, "list": list}
KINDS |= {"float64": lambda X: X.astype("float64"), "list of mx.np": lambda X: [*map(np.array, X)]}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_images_of_any_kind(net, kind):
    X, y = np.array(IMAGES), np.array(LABELS)
    assert (predict(net, kind(IMAGES)) == predict(net, X)).all()
    assert evaluate_accuracy(net, [(kind(IMAGES), LABELS)]) == evaluate_accuracy(net, [(X, y)])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float32", "float64"])
@pytest.mark.parametrize("kind", [onp.array, np.array, mx.nd.array])
def test_labels_of_any_kind(net, kind, dtype):
    if kind is mx.nd.array and dtype == "bool":
        pytest.skip("mx.nd has no booleans")
    X, y = np.array(IMAGES), predict(net, IMAGES).asnumpy()
    assert evaluate_accuracy(net, [(X, kind(y, dtype=dtype)), [X, kind(1 - y, dtype=dtype)]]) == 0.5


def test_batches_may_come_from_anywhere(net):
    X, y = np.array(IMAGES), predict(net, IMAGES)
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(X, y), 3)
    for batches in (loader, iter([(X, y)]), ((X, y) for _ in range(2)), zip([X], [y], strict=True)):
        assert evaluate_accuracy(net, batches, device=[mx.cpu()]) == 1


def test_confusion_matrix():
    for kind in (onp.array, np.array, list):
        matrix = confusion_matrix(kind([0, 0, 1, 2]), kind([0, 1, 1, 2]), onp.int64(3))
        assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("kind", [onp.array, np.array, list])
def test_top_k_accuracy(kind):
    scores = kind([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    y = kind([0, 1, 2, 2])
    assert [top_k_accuracy(scores, y, k) for k in (1, 2, 3)] == [2 / 4, 3 / 4, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float16", "bool"])
def test_scores_of_any_kind(dtype):
    """The minus of an unsigned one, and of the least of an int8, is none."""
    scores = onp.array([[0, 1], [1, 0], [0, 1]]).astype(dtype)
    assert top_k_accuracy(scores, [1, 0, 0], 1) == 2 / 3
    assert top_k_accuracy(onp.array([[-128, 127]], "int8"), [1], 1) == 1


# --- what students get wrong


@pytest.mark.parametrize(
    ("scores", "k", "words"),
    [
        (onp.zeros((2, 3)), 4, "from 1 to the number of classes, 3, not 4"),
        *((onp.zeros((2, 3)), k, f"not {k}") for k in (0, 1.0, None)),
        (onp.array([[0.1, onp.nan], [0.2, 0.1]]), 1, "hold NaN: the network has diverged"),
        (onp.array([0.1, 0.9]), 1, r"but got \(2,\); for a single image write scores\[None\]"),
        (onp.array([[0.1, 0.9]]), 1, r"one for each of the 1 images, .*got shape \(2,\)"),
        (onp.zeros((2, 1)), 1, "labels go from 0 to 1, but there are 1 classes"),
    ],
)
def test_scores_and_k_that_have_no_order(scores, k, words):
    for kind in (onp.array, np.array):
        with pytest.raises(ValueError, match=words):
            top_k_accuracy(kind(scores), kind([0, 1]), k)


@pytest.mark.parametrize("array", [onp.array, np.array])
def test_classes_that_have_no_row(array):
    y, y_hat = array([0, 1], dtype="int32"), array([-1, 1], dtype="int32")
    with pytest.raises(ValueError, match="classes in y_hat go from -1 to 1, .*the labels 0 to 1"):
        confusion_matrix(y, y_hat, 2)  # -1 would be the last column
    with pytest.raises(ValueError, match="classes in y go from 0 to 1"):
        confusion_matrix(y, y, 1)
    with pytest.raises(ValueError, match="classes in y_hat, one for each of the 2 images.*got.*1"):
        confusion_matrix(y, y_hat[1:], 2)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(-1, 2, 1, 1)], r"scores of shape .*got \(4, 2, 1, 1\); .* ends in nn.Dense"),
        ([(-1,)], r"got \(8,\)"),
        ([(2, -1)], r"got \(2, 4\)"),
        ([(-1, 2), (-1, 2)], "got 2 outputs"),
    ],
)
def test_a_network_gives_one_score_for_each_class(shapes, words):
    net = initialized(Outputs(*shapes))
    with pytest.raises(ValueError, match=words):
        predict(net, IMAGES)
    with pytest.raises(ValueError, match=words):
        evaluate_accuracy(net, [(IMAGES, LABELS)])


@pytest.mark.parametrize(
    ("net", "error", "words"),
    [
        *((net, TypeError, "a network, such as") for net in (nn.Dense, lambda X: X, "resnet18")),
        (nn.Dense(2), RuntimeError, "no weights yet.*net.initialize"),
    ],
)
def test_a_network_with_weights_is_needed(net, error, words):
    for function in (lambda: evaluate_accuracy(net, []), lambda: predict(net, IMAGES)):
        with pytest.raises(error, match=words):
            function()


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (IMAGES[0], r"a batch of images \(batch, .*got \(1, 8, 8\); .*write X\[None\]"),
        (IMAGES[:0], r"got \(0, 1, 8, 8\)"),
        ((IMAGES * 255).astype("uint8"), r"float32, but got uint8.*X.astype\('float32'\) / 255"),
        (IMAGES > 0, "float32, but got bool"),
        (IMAGES.transpose(0, 2, 3, 1), r"channels first .*images.transpose\(0, 3, 1, 2\)"),
        ("cat.png", r"got \(\)"),
        (None, r"got \(\)"),
    ],
)
def test_predict_wants_a_batch_of_images(net, X, words):
    with pytest.raises(ValueError, match=f"predict: expected .*{words}"):
        predict(net, X)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        ([], ValueError, "no batch: there is nothing to evaluate"),
        (None, TypeError, "data_iter must give batches .*, but is None"),
        ((np.array(IMAGES), np.array(LABELS)), TypeError, r"batches \(X, y\).*got ndarray"),
        ([(IMAGES, LABELS, 1)], TypeError, "got tuple of 3"),
        (mx.io.NDArrayIter(mx.nd.array(IMAGES), mx.nd.array(LABELS)), TypeError, "got DataBatch"),
        ([((IMAGES * 255).astype("uint8"), LABELS)], ValueError, "float32, but got uint8"),
        ([(IMAGES.transpose(0, 2, 3, 1), LABELS)], ValueError, "data_iter: .*the channels first"),
    ],
    ids=["none", "None", "one batch", "three parts", "mx.io", "uint8", "channels last"],
)
def test_batches_are_pairs(net, batches, error, words):
    net(np.array(IMAGES))
    with pytest.raises(error, match=words):
        evaluate_accuracy(net, batches)


@pytest.mark.parametrize("device", ["cpu", "gpu(0)", 0, [mx.cpu(0), mx.cpu(1)], mx.gpu(99)])
def test_a_device_is_one_of_mxnet(net, device):
    with pytest.raises((TypeError, ValueError), match="try_gpu()"):
        evaluate_accuracy(net, [(IMAGES, LABELS)], device)
