import hashlib
import inspect
import math
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np
from mxnet.gluon import nn
from networks import in_a_row, initialized

from d2lres import (
    BasicBlock,
    Bottleneck,
    History,
    PreActResidual,
    Residual,
    cifar_resnet,
    models,
    narrow_resnet18,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    save_torch_weights,
    small_resnet,
    stem,
    summary,
)
from d2lres.models import make_stage, make_stem


def shapes_of(net, X):
    shapes = []
    for layer in net:
        X = layer(X)
        shapes.append(X.shape)
    return shapes


def num_trainable(net):
    params = net.collect_params().values()
    return sum(math.prod(p.shape) for p in params if p.grad_req != "null")


@pytest.mark.parametrize("size", [28, 96, 97, 224])
def test_every_shape_on_the_way(size):
    sizes = [-(-size // divisor) for divisor in (4, 4, 8, 16, 32)]
    channels = (64, 64, 128, 256, 512)
    expected = [(2, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    shapes = shapes_of(initialized(resnet18()), np.ones((2, 1, size, size)))
    assert shapes == [*expected, (2, 512, 1, 1), (2, 10)]


def test_eighteen_layers_with_the_golden_number_of_parameters():
    def count(block):
        own = isinstance(block, nn.Conv2D | nn.Dense) and block.weight.shape[-1] != 1
        return own + sum(count(child) for child in block._children.values())

    net = initialized(resnet18(), (1, 1, 28, 28))
    assert num_trainable(net) == 11_178_378
    assert count(net) == 18  # 1x1 convolutions on shortcuts are not counted, as in the paper


@pytest.mark.slow
def test_hybridized_gives_the_same():
    net, X = initialized(resnet18()), np.random.uniform(size=(2, 1, 28, 28))
    plain = net(X)
    net.hybridize()
    assert abs(net(X) - plain).max() < 1e-5


def test_the_same_parameters_as_the_book():
    d2l = pytest.importorskip("d2l.mxnet")
    first = nn.Conv2D(64, kernel_size=7, strides=2, padding=3)
    ours, theirs = resnet18(), nn.Sequential()
    theirs.add(first, nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(3, 2, 1))
    for i, num_channels in enumerate((64, 128, 256, 512)):
        for j in range(2):
            shrink = i > 0 and j == 0
            theirs.add(d2l.Residual(num_channels, shrink, 2 if shrink else 1))
    theirs.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    both = [initialized(net, (1, 1, 28, 28)) for net in (ours, theirs)]
    shapes = [sorted(p.shape for p in net.collect_params().values()) for net in both]
    assert shapes[0] == shapes[1] and num_trainable(ours) == num_trainable(theirs)
    assert sum(isinstance(b, Residual) for stage in ours for b in stage._children.values()) == 8


# the paper's table 6 has them in millions; akamaster/pytorch_resnet_cifar10 prints them for A
DEPTHS = (20, 32, 44, 56, 110)
GOLDEN = {
    "A": [269_722, 464_154, 658_586, 853_018, 1_727_962],
    "B": [272_474, 466_906, 661_338, 855_770, 1_730_714],
    "C": [283_962, 489_594, 695_226, 900_858, 1_826_202],
}
GOLDEN = {(o, depth): n for o in GOLDEN for depth, n in zip(DEPTHS, GOLDEN[o], strict=True)}


def num_before_activation(shortcut, depth):
    """Less the batch normalization of the projections: 2 parameters a channel."""
    n = (depth - 2) // 6
    projected = {"A": 0, "B": 32 + 64, "C": n * (16 + 32 + 64)}[shortcut]
    return GOLDEN[shortcut, depth] - 2 * projected


@pytest.mark.parametrize("depth", DEPTHS)
def test_option_c_counts_one_projection_more_for_each_other_block(depth):
    added = sum(c * c + 2 * c for c in (16, 32, 64)) * ((depth - 2) // 6 - 1) + 16 * 16 + 2 * 16
    assert GOLDEN["C", depth] == GOLDEN["B", depth] + added


WITH_MARKS = [pytest.param(*key, marks=[pytest.mark.slow] * (key[1] == 110)) for key in GOLDEN]


@pytest.mark.parametrize(("shortcut", "depth"), WITH_MARKS)
def test_golden_numbers_of_the_cifar_networks(shortcut, depth):
    nets = (cifar_resnet(depth, shortcut=shortcut, preact=preact) for preact in (False, True))
    counted = [summary(net, (3, 32, 32)).num_params for net in nets]
    assert counted == [GOLDEN[shortcut, depth], num_before_activation(shortcut, depth)]


@pytest.mark.parametrize("preact", [False, True])
@pytest.mark.parametrize("depth", [20, 56])
def test_a_plain_twin_has_no_shortcuts(depth, preact):
    net = cifar_resnet(depth, shortcut="C", residual=False, preact=preact)
    net.infer_shape(np.ones((1, 3, 32, 32)))
    assert num_trainable(net) == GOLDEN["A", depth]


@pytest.mark.parametrize("preact", [False, True])
def test_shapes_of_a_cifar_network(preact):
    net = initialized(cifar_resnet(20, num_classes=100, preact=preact))
    shapes = shapes_of(net, np.ones((2, 3, 32, 32)))
    stages = [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)] + [(2, 64, 8, 8)] * 2 * preact
    assert shapes == [(2, 16, 32, 32), *stages, (2, 64, 1, 1), (2, 100)]
    block = PreActResidual if preact else BasicBlock
    assert all([type(b) for b in stage] == [block] * 3 for stage in net[1:4])
    assert [len(net[0]), len(net)] == ([1, 8] if preact else [3, 6])


@pytest.mark.parametrize("depth", [2, 21, 18])
def test_a_depth_is_6n_plus_2(depth):
    assert [len(stage) for stage in cifar_resnet(122)[1:4]] == [20, 20, 20]
    with pytest.raises(ValueError, match=f"6n.*not {depth}"):
        cifar_resnet(depth)


# --- the paper's table 1: torchvision has the same numbers of parameters


def paper18(**options):
    return resnet18(1000, form="paper", **options)


# block, blocks of each stage, parameters; multiply-adds with the paper's stride, and those of them
# on shortcuts; and times 10^9, as the paper prints them
TABLE = {
    paper18: (BasicBlock, [2, 2, 2, 2], 11_689_512, 1_814_073_344, 19_267_584, 1.8),
    resnet34: (BasicBlock, [3, 4, 6, 3], 21_797_672, 3_663_761_408, 19_267_584, 3.6),
    resnet50: (Bottleneck, [3, 4, 6, 3], 25_557_032, 3_857_973_248, 359_661_568, 3.8),
    resnet101: (Bottleneck, [3, 4, 23, 3], 44_549_160, 7_570_194_432, 359_661_568, 7.6),
    resnet152: (Bottleneck, [3, 8, 36, 3], 60_192_808, 11_282_415_616, 359_661_568, 11.3),
}


def inferred_shapes(net, shape):
    """The shape behind each element of a network, without computing anything."""
    X, shapes = mx.sym.var("data").as_np_ndarray(), []
    for layer in net:
        X = layer(X)
        shapes.append(X.infer_shape(data=shape)[1][0])
    return shapes


@pytest.mark.parametrize("build", TABLE)
def test_the_networks_of_the_table(build):
    block, numbers, num_params, *_ = TABLE[build]
    net = build()
    channels = [c * block.expansion for c in (64, 128, 256, 512)]
    stages = [(1, c, s, s) for c, s in zip(channels, (56, 28, 14, 7), strict=True)]
    shapes = inferred_shapes(net, (1, 3, 224, 224))
    assert shapes == [(1, 64, 56, 56), *stages, (1, channels[-1], 1, 1), (1, 1000)]
    assert [len(stage) for stage in net[1:5]] == numbers
    assert all(type(b) is block for stage in net[1:5] for b in stage)
    net.infer_shape(np.ones((1, 3, 224, 224)))
    assert num_trainable(net) == num_params
    assert not any(name.endswith("bias") for name in net[:-1].collect_params())


@pytest.mark.slow
@pytest.mark.parametrize("build", TABLE)
def test_multiply_adds_of_the_table(build):
    block, _, num_params, multiply_adds, on_shortcuts, printed = TABLE[build]
    options = {"stride_on_1x1": True} if block is Bottleneck else {}
    table = summary(build(**options), (3, 224, 224))
    shortcuts = sum(row.multiply_adds for row in table.rows if ".shortcut." in row.name)
    assert (table.num_params, table.multiply_adds) == (num_params, multiply_adds)
    assert shortcuts == on_shortcuts
    count = (multiply_adds - shortcuts * (block is BasicBlock)) / 1e9  # option A has none
    assert abs(count - printed) < 0.1
    assert round(count, 1) == printed or build is resnet50  # 3.858, of which it prints 3.8
    if options:
        today = summary(build(), (3, 224, 224), depth=1)
        assert today.multiply_adds - multiply_adds == 231_211_008
        assert today.num_params == num_params


@pytest.mark.parametrize("build", TABLE)
def test_the_stem_for_small_images_keeps_them(build):
    sizes = [shape[2] for shape in inferred_shapes(build(stem="cifar")[:-1], (1, 3, 32, 32))]
    assert sizes == [32, 32, 16, 8, 4, 1]


@pytest.mark.parametrize("build", [resnet50, resnet101, resnet152])
def test_where_the_stride_is(build):
    for on_1x1 in (False, True):
        firsts = [stage[0].body for stage in build(stride_on_1x1=on_1x1)[2:5]]
        strides = [(body[0]._kwargs["stride"][0], body[3]._kwargs["stride"][0]) for body in firsts]
        assert strides == [(2, 1) if on_1x1 else (1, 2)] * 3


def test_the_books_form_of_34_layers():
    """Projections without batch normalization, and biases."""
    net = resnet34(form="d2l")
    net.infer_shape(np.ones((1, 3, 224, 224)))
    widths = [64] + [64] * 6 + [128] * 9 + [256] * 13 + [512] * 7
    assert num_trainable(net) == TABLE[resnet34][2] + sum(widths) - 2 * (128 + 256 + 512)


@pytest.mark.parametrize("build", [resnet18, resnet34])
def test_the_books_form_for_small_images(build):
    net = build(10, form="d2l", stem="cifar")
    assert net[0][0].weight.shape[2:] == (3, 3) and net[0][0].bias is not None
    assert isinstance(net[1][0], Residual)
    assert inferred_shapes(net, (2, 1, 32, 32))[-2:] == [(2, 512, 1, 1), (2, 10)]


def test_resnet18_says_what_it_takes():
    assert str(inspect.signature(resnet18)) == "(num_classes=10, *, form='d2l', stem='imagenet')"
    assert list(inspect.signature(resnet18.__wrapped__).parameters) == ["num_classes"]
    with pytest.raises(TypeError, match="positional"):
        resnet18(10, "paper")


NETWORKS = (resnet18, resnet34, resnet50, resnet101, resnet152)


BUILDERS = {
    "resnet18": resnet18,
    "resnet18, the paper's": lambda n: resnet18(n, form="paper"),
    "resnet50": resnet50,
    "narrow_resnet18": narrow_resnet18,
    "cifar_resnet": lambda n: cifar_resnet(8, n),
    "small_resnet": lambda n: small_resnet((4, 8), n),
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_number_of_classes_is_a_whole_number(builder):
    build, labels = BUILDERS[builder], onp.array([2, 0, 1])
    for num_classes in (labels.max() + 1, onp.uint8(3)):
        assert build(num_classes)[-1].weight.shape[0] == 3
    for wrong in (10.0, "10", 0, -1, True, None):
        with pytest.raises(ValueError, match=f"num_classes must be a whole.* 1, not {wrong!r}"):
            build(wrong)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: cifar_resnet(20.0), "depth must be a whole number of at least 1, not 20.0"),
        (lambda: cifar_resnet("20"), "depth .* not '20'"),
        (lambda: small_resnet((4, 8.5)), "each of widths .* not 8.5"),
        (lambda: small_resnet("48"), "each of widths .* not '4'"),
        (lambda: small_resnet(()), "widths are the channels of the first convolution and of each"),
        (lambda: stem(0), "num_channels .* not 0"),
        (lambda: make_stage(BasicBlock, 4, 4, 0, 1), "num_residuals .* not 0"),
        (lambda: resnet18(form="book"), "form is 'paper' or 'd2l', not 'book'"),
        (lambda: resnet34(form="book"), "form is 'paper' or 'd2l', not 'book'"),
        (lambda: make_stem(16, "mnist"), "stem is 'imagenet' or 'cifar', not 'mnist'"),
        *(
            (lambda build=build: build(stem="mnist"), "stem is .* not 'mnist'")
            for build in NETWORKS
        ),
    ],
)
def test_arguments_of_which_no_network_is_made(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_numbers_may_be_numpys():
    stage = make_stage(BasicBlock, onp.int64(8), onp.int64(8), onp.int64(2), onp.int64(1))
    net = in_a_row(*small_resnet(onp.array([4, 8])), stage)
    assert len(cifar_resnet(onp.int64(20))[1]) == 3 and len(net[-1]) == 2


# --- with the weights that come with the course


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A network of which the weights are shipped: one that was never trained."""
    net, path = (
        initialized(narrow_resnet18(), (1, 3, 32, 32)),
        tmp_path / "narrow_resnet18.safetensors",
    )
    save_torch_weights(net, path, "float16")
    monkeypatch.setattr(models, "PRETRAINED", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(models, "PRETRAINED_SHA256", digest)
    return net


def test_pretrained_weights(shipped):
    net, X = narrow_resnet18(pretrained=True), np.random.uniform(size=(2, 3, 32, 32))
    assert 0 < abs(net(X) - shipped(X)).max() < 0.01
    assert all(p.data().dtype == "float32" for p in net.collect_params().values())
    assert models.PRETRAINED.stat().st_size < 1_500_000


def test_pretrained_weights_that_are_not_those(shipped):
    with pytest.raises(ValueError, match="100 classes.*10 others: write replace_head.*, 10\\)"):
        narrow_resnet18(10, pretrained=True)
    models.PRETRAINED.write_bytes(models.PRETRAINED.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="damaged or another's: install d2lres again"):
        narrow_resnet18(pretrained=True)
    models.PRETRAINED.unlink()
    with pytest.raises(FileNotFoundError, match="narrow_resnet18.safetensors"):
        narrow_resnet18(pretrained=True)


def test_the_weights_that_are_shipped_are_those_of_the_record():
    path = models.PRETRAINED.with_suffix(".json")
    shown = Path(__file__).parents[1] / "results" / "cifar100-narrow_seed0.json"  # in lesson 6
    assert path.read_bytes() == shown.read_bytes()
    record = History.load(path)
    assert record.run["weights_sha256"] == models.PRETRAINED_SHA256
    assert record.run["recipe"]["network"] == "narrow_resnet18"
    assert len(record) == record.run["num_epochs"] == 24
    # rounding to 16 bits has cost nothing
    assert abs(record.run["measured"]["top1_acc"] - record.test_acc[-1]) < 0.002
    assert num_trainable(narrow_resnet18(pretrained=True)) == 713_076
