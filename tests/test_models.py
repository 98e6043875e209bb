import mxnet as mx
import pytest
from mxnet import np
from mxnet.gluon import nn

from d2lres import BasicBlock, Residual, cifar_resnet, resnet18, stem


def shapes_of(net, X):
    shapes = []
    for layer in net:
        X = layer(X)
        shapes.append(X.shape)
    return shapes


def num_trainable(net):
    params = net.collect_params().values()
    return sum(p.data().size for p in params if p.grad_req != "null")


@pytest.mark.parametrize("size", [28, 96, 97, 224])
def test_every_shape_on_the_way(size):
    net = resnet18()
    net.initialize()
    sizes = []
    for divisor in (4, 4, 8, 16, 32):
        sizes.append(-(-size // divisor))
    channels = (64, 64, 128, 256, 512)
    expected = [(2, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    assert shapes_of(net, np.ones((2, 1, size, size))) == [*expected, (2, 512, 1, 1), (2, 10)]


def test_golden_number_of_parameters():
    net = resnet18()
    net.initialize()
    net(np.ones((1, 1, 28, 28)))
    assert num_trainable(net) == 11_178_378


def test_eighteen_layers():
    def count(block):
        own = isinstance(block, nn.Conv2D | nn.Dense) and block.weight.shape[-1] != 1
        return own + sum(count(child) for child in block._children.values())

    net = resnet18()
    net.initialize()
    net(np.ones((1, 1, 28, 28)))
    assert count(net) == 18  # 1x1 convolutions on shortcuts are not counted, as in the paper


def test_num_classes_and_colour():
    net = resnet18(num_classes=3)
    net.initialize()
    assert net(np.ones((2, 3, 32, 32))).shape == (2, 3)


def test_the_stem_quarters_the_image():
    blk = stem(16)
    blk.initialize()
    assert blk(np.ones((1, 1, 96, 96))).shape == (1, 16, 24, 24)


def test_hybridized_gives_the_same():
    net = resnet18()
    net.initialize(mx.init.Xavier())
    X = np.random.uniform(size=(2, 1, 28, 28))
    plain = net(X)
    net.hybridize()
    assert abs(net(X) - plain).max() < 1e-5


def test_the_same_parameters_as_the_book():
    d2l = pytest.importorskip("d2l.mxnet")
    theirs = nn.Sequential()
    theirs.add(
        nn.Conv2D(64, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    )
    for i, num_channels in enumerate((64, 128, 256, 512)):
        for j in range(2):
            shrink = i > 0 and j == 0
            theirs.add(d2l.Residual(num_channels, shrink, 2 if shrink else 1))
    theirs.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    ours = resnet18()
    X = np.ones((1, 1, 28, 28))
    for net in (ours, theirs):
        net.initialize()
        net(X)
    shapes = [sorted(p.shape for p in net.collect_params().values()) for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert num_trainable(ours) == num_trainable(theirs)
    assert sum(isinstance(b, Residual) for stage in ours for b in _children(stage)) == 8


def _children(block):
    return block._children.values()


# the paper's table 6 has them in millions; akamaster/pytorch_resnet_cifar10 prints them for A
GOLDEN = {
    ("A", 20): 269_722,
    ("A", 32): 464_154,
    ("A", 44): 658_586,
    ("A", 56): 853_018,
    ("A", 110): 1_727_962,
    ("B", 20): 272_474,
    ("B", 32): 466_906,
    ("B", 44): 661_338,
    ("B", 56): 855_770,
    ("B", 110): 1_730_714,
}


@pytest.mark.parametrize(("shortcut", "depth"), GOLDEN)
def test_golden_numbers_of_the_cifar_networks(shortcut, depth):
    net = cifar_resnet(depth, shortcut=shortcut)
    net.initialize()
    assert num_trainable(net) == GOLDEN[shortcut, depth]


def test_shapes_of_a_cifar_network():
    net = cifar_resnet(20, num_classes=100)
    net.initialize()
    shapes = shapes_of(net, np.ones((2, 3, 32, 32)))
    stages = [(2, 16, 32, 32)] * 3 + [(2, 32, 16, 16)] * 3 + [(2, 64, 8, 8)] * 3
    assert shapes == [(2, 16, 32, 32)] * 3 + stages + [(2, 64, 1, 1), (2, 100)]


def test_a_plain_twin_has_no_shortcuts():
    net = cifar_resnet(20, residual=False)
    net.initialize()
    assert num_trainable(net) == GOLDEN["A", 20]
    block = BasicBlock(4, 4, residual=False)
    block.initialize()
    block.body[3].weight.set_data(np.zeros((4, 4, 3, 3)))
    assert (block(np.random.uniform(size=(2, 4, 8, 8))) == 0).all()


@pytest.mark.parametrize("depth", [2, 21, 18])
def test_a_depth_that_is_not_6n_plus_2(depth):
    with pytest.raises(ValueError, match=f"6n.*not {depth}"):
        cifar_resnet(depth)
