import mxnet as mx
import numpy as onp
import pytest
from mxnet import np
from mxnet.gluon import nn

from d2lres import grad_cam


def net_of(weight):
    """Build a network whose feature maps are its input, on dense weights (classes, channels)."""
    net = nn.HybridSequential()
    net.add(nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(len(weight), use_bias=False))
    net.initialize(mx.init.Constant(np.array(weight)))
    return net


def test_a_map_is_the_weighted_sum_of_the_channels():
    weight, X = np.array([[2.0, -1.0], [0.0, 3.0]]), np.random.uniform(size=(2, 2, 4, 5))
    maps = grad_cam(net_of(weight), X, np.array([0, 1]))
    # behind a mean over 20 places, the gradient at each of them is the weight divided by 20
    wanted = onp.stack([2 * X[0, 0] - X[0, 1], 3 * X[1, 1]]).clip(min=0) / 20
    assert maps.shape == (2, 4, 5)
    assert onp.allclose(maps.asnumpy(), wanted, rtol=0, atol=1e-6)
    assert (wanted[0] == 0).any()  # something spoke against class 0


def test_it_leaves_the_network_as_it_is():
    net = nn.HybridSequential()
    net.add(nn.BatchNorm(in_channels=2), nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize(mx.init.Xavier())
    X, y = np.random.uniform(size=(3, 2, 4, 4)), np.array([0, 1, 0])
    before = net(X).asnumpy()
    grad_cam(net, X, y)
    assert (net[0].running_mean.data() == 0).all() and (net(X).asnumpy() == before).all()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 9], "from 0 to 9, but the network has 2 outputs, for the labels 0 to 1.*check y"),
        ([-1, 0], "from -1 to 0, but"),
        ([0], r"one class for each of the 2 images, y of shape \(2,\), but got shape \(1,\)"),
        ([[0], [1]], r"got shape \(2, 1\)"),
    ],
)
def test_a_class_that_cannot_be_asked_for(y, words):
    with pytest.raises(ValueError, match=words):
        grad_cam(net_of(np.ones((2, 2))), np.ones((2, 2, 4, 4)), np.array(y, dtype="int32"))


def test_a_single_image_is_no_batch():
    with pytest.raises(ValueError, match=r"grad_cam expects a batch of images.*write X\[None\]"):
        grad_cam(net_of(np.ones((2, 2))), np.ones((2, 4, 4)), np.array([0, 1], dtype="int32"))
