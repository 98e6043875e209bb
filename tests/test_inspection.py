import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision
from networks import imported, in_a_row, initialized, values_of

from d2lres import (
    Bottleneck,
    PreActResidual,
    Residual,
    cifar_resnet,
    compile,
    grad_cam,
    layer_stats,
    summary,
)
from d2lres.__main__ import main

# --- multiply-adds


def stage(num_convs, pixels, new, old):
    """The 3x3 convolutions of a stage, and its 1x1 convolution if it changes the shape."""
    windows = 9 * (old + (num_convs - 1) * new) + (old != new) * old
    return pixels**2 * new * windows


def test_multiply_adds_of_cifar_resnet_count_every_image():
    first = 32 * 32 * 16 * 3 * 9
    stages = stage(6, 32, 16, 16) + stage(6, 16, 32, 16) + stage(6, 8, 64, 32)
    forward = first + stages + 64 * 10
    counts = summary(cifar_resnet(20), (2, 3, 32, 32), depth=1)
    assert counts.multiply_adds == 2 * forward
    assert counts.training_multiply_adds == 2 * (3 * forward - first)
    assert 40.5e6 < forward < 41e6


def test_groups_and_dense_layers_on_several_rows():
    net = in_a_row(nn.Conv2D(8, 3, groups=2), nn.Dense(5, flatten=False, use_bias=False))
    counts = [row.multiply_adds for row in summary(net, (4, 6, 6)).rows]
    assert counts == [8 * 4 * 4 * 2 * 9, 8 * 4 * 5 * 4]


# --- the table


@pytest.mark.parametrize("preact", [False, True])
def test_all_parameters_are_counted_once_and_the_network_is_not_run(preact):
    net = cifar_resnet(8, preact=preact)
    summary(net, (3, 8, 8))
    assert all(p._data is None for p in net.collect_params().values())
    initialized(net, (1, 3, 8, 8))
    net[-1].bias.grad_req = "null"
    sizes = {"write": 0, "null": 0}
    for param in net.collect_params().values():
        sizes[param.grad_req] += param.data().size
    for depth in (None, 1, 2):
        table = summary(net, (3, 8, 8), depth)
        assert (table.num_params, table.num_others) == (sizes["write"], sizes["null"])


def test_layers_by_name_in_order():
    block = Residual(4, use_1x1conv=True, strides=2)
    net = in_a_row(block, nn.MaxPool2D(2), nn.Flatten(), nn.Dense(3))
    assert [tuple(row) for row in summary(net, (3, 8, 8)).rows] == [
        ("0.conv1", "conv 3x3, stride 2", (4, 4, 4), 112, 0, 1728),
        ("0.bn1", "batch norm", (4, 4, 4), 8, 8, 0),
        ("0.conv2", "conv 3x3", (4, 4, 4), 148, 0, 2304),
        ("0.bn2", "batch norm", (4, 4, 4), 8, 8, 0),
        ("0.conv3", "conv 1x1, stride 2", (4, 4, 4), 16, 0, 192),
        ("0.sum", "sum", (4, 4, 4), 0, 0, 0),
        ("1", "max pool 2x2, stride 2", (4, 2, 2), 0, 0, 0),
        ("2", "flatten", (16,), 0, 0, 0),
        ("3", "dense", (3,), 51, 0, 48),
    ]
    assert [tuple(row) for row in summary(net, (5, 3, 8, 8), depth=1).rows] == [
        ("0", "Residual", (5, 4, 4, 4), 292, 16, 5 * 4224),
        ("1", "max pool 2x2, stride 2", (5, 4, 2, 2), 0, 0, 0),
        ("2", "flatten", (5, 16), 0, 0, 0),
        ("3", "dense", (5, 3), 51, 0, 5 * 48),
    ]


def test_a_layer_that_is_applied_twice_has_its_parameters_once():
    layer = nn.Conv2D(3, 3, padding=1, in_channels=3)
    rows = summary(in_a_row(layer, nn.MaxPool2D(), layer), (3, 8, 8)).rows
    assert [row.output_shape for row in rows] == [(3, 8, 8), (3, 4, 4), (3, 4, 4)]
    assert [row.num_params for row in rows] == [84, 0, 0]
    assert [row.multiply_adds for row in rows] == [81 * 64, 0, 81 * 16]


def test_a_shape_may_be_of_numpys_numbers():
    shapes = [((3, 8, 8), 1), (tuple(onp.array([3, 8, 8])), onp.int64(1)), ([3, 8, 8], 1)]
    assert len({str(summary(cifar_resnet(8), *each)) for each in shapes}) == 1


def test_stages_as_text():
    assert str(summary(cifar_resnet(8), (3, 32, 32), depth=1)).splitlines() == [
        "layer  kind              output shape  parameters  not trained  multiply-adds",
        "-----------------------------------------------------------------------------",
        "0      3 layers          (16, 32, 32)         464           32        442,368",
        "1      1 x BasicBlock    (16, 32, 32)       4,672           64      4,718,592",
        "2      1 x BasicBlock    (32, 16, 16)      14,528          192      3,670,016",
        "3      1 x BasicBlock    (64, 8, 8)        57,728          384      3,670,016",
        "4      global mean pool  (64, 1, 1)",
        "5      dense             (10,)                650                         640",
        "-----------------------------------------------------------------------------",
        "total                                      78,042          672     12,501,632",
    ]


def test_a_table_in_a_notebook():
    class Odd(nn.HybridBlock):
        pass

    Odd.__name__ = "<b>odd</b>"
    Odd.hybrid_forward = lambda self, F, X: self.conv(X)
    block = Odd()
    block.conv = nn.Conv2D(2, 1)
    html = summary(in_a_row(block), (1, 8, 8), depth=1)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;odd" in html
    assert html.count("<tr>") == html.count("</tr>") == 3 and ">128</td>" in html


@pytest.mark.parametrize("shape", [(28, 28), (1, 1, 1, 28, 28), (3, 0, 8), (3, 8.0, 8), "3x8x8"])
def test_a_shape_that_is_none_of_an_image(shape):
    with pytest.raises(ValueError, match=r"is \(channels, height, width\).*not.*8"):
        summary(cifar_resnet(8), shape)


def test_images_that_the_network_does_not_take(capfd):
    net = in_a_row(nn.Conv2D(4, 5, in_channels=3))
    with pytest.raises(ValueError, match=r"does not take images of shape \(1, 8, 8\): Shape"):
        summary(net, (1, 8, 8))
    with pytest.raises(ValueError, match=r"of shape \(3, 4, 4\): .*kernel size exceed input"):
        summary(net, (3, 4, 4))
    net = cifar_resnet(8)
    assert summary(net, (1, 8, 8)).num_params == summary(net, (3, 8, 8)).num_params - 2 * 16 * 9
    initialized(net, (1, 3, 8, 8))  # which fixes the number of channels
    with pytest.raises(ValueError, match=r"does not take images of shape \(1, 8, 8\): Shape"):
        summary(net, (1, 8, 8))
    assert capfd.readouterr().out == ""  # MXNet prints, too
    for depth in (0, 1.5, "1"):
        with pytest.raises(ValueError, match=f"depth is at least 1, or None.*not {depth!r}"):
            summary(net, (3, 8, 8), depth)
    with pytest.raises(TypeError, match="expected a HybridBlock.*got Sequential"):
        summary(nn.Sequential(), (3, 8, 8))


def test_on_the_command_line(capsys):
    assert main(["summary", "resnet50", "--input", "3x224x224", "--depth", "1"]) == 0
    assert "4      3 x Bottleneck    (2048, 7, 7) " in capsys.readouterr().out
    assert main("summary cifar_resnet20 --input 2x3x32x32 --classes 100".split()) == 0
    assert "(2, 100)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_a_network_that_was_imported(tmp_path):
    net = initialized(cifar_resnet(8), (1, 3, 8, 8))
    both = net, imported(net, np.ones((1, 3, 8, 8)), tmp_path)
    tables = [summary(net, (3, 8, 8)) for net in both]
    numbers = [[row[1:] for row in table.rows] for table in tables]
    assert numbers[0] == numbers[1] and tables[0].num_params == tables[1].num_params
    X, y = batch()
    for ours, theirs in zip(*(layer_stats(net, X, y) for net in both), strict=True):
        assert ours[1:] == theirs[1:]


def test_a_hook_that_looks_at_what_passes_by_is_not_in_the_way():
    net, seen = initialized(cifar_resnet(8)), []
    net[1].register_forward_hook(lambda block, inputs, output: seen.append(output.asnumpy()))
    table, stats = summary(net, (3, 8, 8)), layer_stats(net, *batch())
    assert table.num_params == 78_042 and len(stats) == 7
    grad_cam(net, *batch())
    assert seen  # where the network is run, the hook is called


# --- responses and gradients


def batch(num=4, size=8):
    return np.random.normal(size=(num, 3, size, size)), np.arange(num)


def test_responses_and_gradients_are_those_of_the_network():
    conv, (X, y) = nn.Conv2D(4, 3, padding=1), batch()
    net = in_a_row(conv, nn.BatchNorm(), Residual(4), nn.Flatten(), nn.Dense(4))
    initialized(net, X.shape)[1].gamma.set_data(np.array([0.5, 1, 2, 3]))
    stats = layer_stats(net, X, y)
    with autograd.record():
        first = net[1](net[0](X))
        block = net[2]
        second = block.bn1(block.conv1(first))
        third = block.bn2(block.conv2(np.maximum(second, 0)))
        Y = net[4](net[3](np.maximum(third + first, 0)))
        l = gluon.loss.SoftmaxCrossEntropyLoss()(Y, y).mean()
    l.backward()
    convs = {"0": net[0], "2.conv1": block.conv1, "2.conv2": block.conv2}
    assert [s.name for s in stats] == list(convs)
    for s, response, conv in zip(stats, (first, second, third), convs.values(), strict=True):
        assert s.response_std == pytest.approx(response.asnumpy().std(), rel=1e-5)
        norm = onp.linalg.norm(conv.weight.grad().asnumpy())
        assert s.gradient_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    ("shortcut", "preact", "residual"),
    [("A", False, True), ("B", True, True), ("C", False, True), ("B", False, False)],
)
def test_the_depth_counts_the_convolutions_and_the_dense_layer(shortcut, preact, residual):
    net = cifar_resnet(14, shortcut=shortcut, preact=preact, residual=residual)
    stats = layer_stats(initialized(net), *batch())
    assert len(stats) == 14 - 1 and not any("shortcut" in s.name for s in stats)
    kinds = {row.name: row.kind for row in summary(net, (3, 8, 8)).rows}
    assert all(kinds[s.name].startswith("conv 3x3") for s in stats)


def test_without_batch_norm_it_is_what_the_convolution_gives():
    net, (X, y) = (
        in_a_row(nn.Conv2D(4, 3, activation="relu"), nn.Conv2D(4, 3), nn.Dense(4)),
        batch(),
    )
    stats = layer_stats(initialized(net), X, y)
    assert [s.name for s in stats] == ["0", "1"]
    second = net[1](net[0](X)).asnumpy()
    assert stats[1].response_std == pytest.approx(second.std(), rel=1e-5)


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize(
    "block", [lambda: Bottleneck(4, 3), lambda: PreActResidual(4, 3), lambda: Residual(3)]
)
def test_the_network_stays_as_it_is(block, hybridized):
    net, (X, y) = initialized(in_a_row(block(), nn.Dense(4))), batch()
    net.hybridize(hybridized)
    with autograd.record():
        l = net(X).sum()
    l.backward()
    params = net.collect_params()

    def numbers():
        gradients = [p.grad().asnumpy() for p in params.values() if p.grad_req != "null"]
        return [*values_of(params), *gradients]

    before = numbers()
    assert layer_stats(net, X, y) == layer_stats(net, X, y)
    assert all((a == b).all() for a, b in zip(before, numbers(), strict=True))


def test_frozen_convolutions_have_a_gradient_too():
    net, (X, y) = initialized(cifar_resnet(8)), batch()
    stats = layer_stats(net, X, y)
    net.collect_params(".*conv.*").setattr("grad_req", "null")
    assert layer_stats(net, X, y) == stats and all(s.gradient_norm > 0 for s in stats)


def test_a_network_without_convolutions_has_no_layer_stats():
    assert layer_stats(initialized(in_a_row(nn.Dense(10))), *batch()) == []


@pytest.mark.parametrize("function", [layer_stats, grad_cam])
def test_images_and_labels_of_which_nothing_can_be_said(function):
    net, (X, y) = cifar_resnet(8, num_classes=3), batch()
    with pytest.raises(RuntimeError, match="no weights yet.* [cC]all net.initialize"):
        function(net, X, y)
    initialized(net)
    for *given, words in [
        (X, y[:3], r"each of the 4 images.*\(4,\).*got shape \(3,\)"),
        (X, y, "go from 0 to 3, but.*labels 0 to 2.*check y"),
        (X, y - 1, "from -1 to 2, but"),
        (X, y[:, None], r"write y\[:, 0\]"),
        (X[0], y[:3], rf"{function.__name__}: expected a batch.*got \(3, 8, 8\).* X\[None\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            function(net, *given)


def test_what_layer_stats_cannot_do():
    net, (X, y) = initialized(cifar_resnet(8)), batch()
    for *given, words in [
        (net, X.astype("uint8"), y, "layer_stats: expected images in float32, but got uint8"),
        (net[:-2], X, y, r"scores of shape .*got \(4, 64, 2, 2\)"),
        (initialized(cifar_resnet(8), X.shape), X[:, :2], y, r"does not take .* \(2, 8, 8\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            layer_stats(*given)


# --- where a network looks


def net_of(weight):
    """Build a network whose feature maps are its input, on dense weights (classes, channels)."""
    constant = mx.init.Constant(np.array(weight))
    head = nn.Dense(len(weight), use_bias=False, weight_initializer=constant)
    return initialized(in_a_row(nn.Activation("relu"), nn.GlobalAvgPool2D(), head))


def test_a_map_is_the_weighted_sum_of_the_channels():
    weight, X = np.array([[2.0, -1.0], [0.0, 3.0]]), np.random.uniform(size=(2, 2, 4, 5))
    maps = grad_cam(net_of(weight), X, np.array([0, 1]))
    # behind a mean over 20 places, the gradient at each of them is the weight divided by 20
    wanted = onp.stack([2 * X[0, 0] - X[0, 1], 3 * X[1, 1]]).clip(min=0) / 20
    assert maps.shape == (2, 4, 5)
    assert onp.allclose(maps.asnumpy(), wanted, rtol=0, atol=1e-6)
    assert (wanted[0] == 0).any()  # something spoke against class 0


def test_it_leaves_the_network_as_it_is():
    net = in_a_row(nn.BatchNorm(in_channels=2), nn.GlobalAvgPool2D(), nn.Dense(2))
    X, y = np.random.uniform(size=(3, 2, 4, 4)), np.array([0, 1, 0])
    before = initialized(net)(X).asnumpy()
    grad_cam(net, X, y)
    assert (net[0].running_mean.data() == 0).all() and (net(X).asnumpy() == before).all()


def zoo(version):
    return vision.get_resnet(version, 18, classes=10)


# a network, and how many times its last feature maps are smaller than its images
NETWORKS = {
    "a network of the zoo": (lambda: zoo(1), 32),
    "pre-activation, with Flatten": (lambda: zoo(2), 32),
    "dense layers with dropout": (lambda: vision.vgg11(classes=10), 16),
    "body and head": (lambda: in_a_row(cifar_resnet(8)[:-1], nn.Dropout(0.5), nn.Dense(10)), 4),
    "no pooling": (lambda: in_a_row(nn.Conv2D(10, 3, padding=1), nn.Dense(10)), 1),
    "no dense layer": (
        lambda: in_a_row(nn.Conv2D(10, 3, 2, 1), nn.GlobalAvgPool2D(), nn.Flatten()),
        2,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_show_their_layers(name):
    build, times = NETWORKS[name]
    X, net = np.random.uniform(size=(2, 3, 64, 64)), initialized(build())
    maps = grad_cam(net, X, [3, 4])
    assert maps.shape == (2, 64 // times, 64 // times)
    assert (maps >= 0).all() and (grad_cam(net, X, [4, 3]) != maps).any()


def test_maps_of_a_compiled_network_are_those_of_the_network():
    net, X = initialized(cifar_resnet(8)), np.random.uniform(size=(2, 3, 16, 16))
    maps = grad_cam(net, X, [1, 2])
    assert maps.max() > 0 and (grad_cam(compile(net, X, "float32"), X, [1, 2]) == maps).all()
    assert (grad_cam(net, X.asnumpy().astype(float), onp.array([1, 2])) == maps).all()


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_networks_whose_maps_are_not_shown(tmp_path):
    X, dense = np.ones((2, 3, 16, 16)), in_a_row(nn.Dense(3), nn.Dense(2))
    theirs = imported(initialized(cifar_resnet(8)), X, tmp_path)
    for net in (theirs, nn.Dense(2), dense, Residual(3), "net"):
        with pytest.raises(TypeError, match=f"{type(net).__name__} shows no such layers"):
            grad_cam(net, X, [0, 1])
    with pytest.raises(TypeError, match=r"^grad_cam\(\) missing 1 required .* 'y'"):
        grad_cam(net, X)
