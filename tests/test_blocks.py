import mxnet as mx
import pytest
from mxnet import np
from mxnet.gluon import nn

from d2lres import BasicBlock, Residual, resnet_block


def initialized(block):
    block.initialize(mx.init.Xavier())
    return block


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (lambda: Residual(3), (4, 3, 6, 6)),
        (lambda: Residual(6, use_1x1conv=True), (4, 6, 6, 6)),
        (lambda: Residual(6, use_1x1conv=True, strides=2), (4, 6, 3, 3)),
        (lambda: resnet_block(3, 2, first_block=True), (4, 3, 6, 6)),
        (lambda: resnet_block(8, 2), (4, 8, 3, 3)),
        (lambda: resnet_block(8, 5), (4, 8, 3, 3)),
    ],
)
def test_output_shape(block, shape, hybridize):
    blk = initialized(block())
    if hybridize:
        blk.hybridize()
    assert blk(np.random.uniform(size=(4, 3, 6, 6))).shape == shape


def test_odd_sizes_are_rounded_up():
    blk = initialized(Residual(6, use_1x1conv=True, strides=2))
    assert blk(np.ones((1, 3, 7, 5))).shape == (1, 6, 4, 3)


@pytest.mark.parametrize("training", [False, True])
def test_a_zero_branch_is_the_identity_on_non_negative_input(training):
    blk = initialized(Residual(3))
    X = np.random.uniform(size=(4, 3, 6, 6))
    blk(X)
    blk.bn2.gamma.set_data(np.zeros(3))
    with mx.autograd.record(train_mode=training):
        Y = blk(X)
    assert (Y == X).all()


def test_the_shortcut_passes_the_gradient_on():
    blk = initialized(Residual(3))
    X = np.random.uniform(size=(4, 3, 6, 6))
    X.attach_grad()
    blk(X)
    blk.bn2.gamma.set_data(np.zeros(3))
    with mx.autograd.record():
        Y = blk(X).sum()
    Y.backward()
    assert (X.grad == 1).all()


def test_kwargs_reach_gluon():
    assert Residual(3, prefix="mine_").prefix == "mine_"


def test_the_stage_is_made_of_blocks():
    stage = resnet_block(8, 3)
    assert all(isinstance(blk, Residual) for blk in stage)
    assert [blk.conv3 is not None for blk in stage] == [True, False, False]
    assert [blk.conv1._kwargs["stride"] for blk in stage] == [(2, 2), (1, 1), (1, 1)]


# --- what students get wrong


def test_other_channels_need_the_1x1_convolution():
    with pytest.raises(ValueError, match=r"\(4, 3, 6, 6\).* 6 channels.*use_1x1conv=True"):
        initialized(Residual(6))(np.ones((4, 3, 6, 6)))


def test_strides_need_the_1x1_convolution():
    with pytest.raises(ValueError, match=r"divide height and width by 2.*use_1x1conv=True"):
        initialized(Residual(3, strides=2))(np.ones((4, 3, 6, 6)))


@pytest.mark.parametrize("shape", [(3, 6, 6), (6, 6), (4, 3, 6, 6, 1)])
def test_images_have_four_dimensions(shape):
    with pytest.raises(ValueError, match=r"\(batch, channels, height, width\).*X\[None\]"):
        initialized(Residual(3))(np.ones(shape))


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int32"])
def test_images_are_float32(dtype):
    with pytest.raises(TypeError, match=rf"float32 images, but got {dtype}.*astype"):
        initialized(Residual(3))(np.ones((4, 3, 6, 6), dtype=dtype))


def test_weights_are_needed():
    with pytest.raises(RuntimeError, match=r"no weights yet. Call net.initialize\(\)"):
        Residual(3)(np.ones((4, 3, 6, 6)))


@pytest.mark.parametrize("num_residuals", [0, -1])
def test_a_stage_has_blocks(num_residuals):
    with pytest.raises(ValueError, match=f"at least one residual block, got {num_residuals}"):
        resnet_block(8, num_residuals)


def test_the_error_also_comes_from_within_a_network():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, kernel_size=3, padding=1), Residual(8))
    with pytest.raises(ValueError, match="use_1x1conv=True"):
        initialized(net)(np.ones((1, 1, 6, 6)))


# --- the book


def test_the_same_numbers_as_the_book():
    d2l = pytest.importorskip("d2l.mxnet")
    for kwargs in ({}, {"use_1x1conv": True, "strides": 2}):
        ours, theirs = initialized(Residual(3, **kwargs)), initialized(d2l.Residual(3, **kwargs))
        X = np.random.uniform(size=(4, 3, 6, 6))
        ours(X), theirs(X)
        names = ["conv1", "conv2", "bn1", "bn2"] + ["conv3"] * bool(kwargs)
        for name in names:
            mine = getattr(ours, name).collect_params().values()
            for param, other in zip(
                mine, getattr(theirs, name).collect_params().values(), strict=True
            ):
                param.set_data(other.data())
        assert abs(ours(X) - theirs(X)).max() <= 1e-6
        with mx.autograd.record():
            difference = ours(X) - theirs(X)
        assert abs(difference).max() <= 1e-6


def test_zeros_for_new_channels_and_every_second_pixel():
    block = BasicBlock(8, 4, strides=2, shortcut="A")
    block.initialize()
    block.body[3].weight.set_data(np.zeros((8, 8, 3, 3)))
    X = np.random.uniform(size=(2, 4, 6, 6))
    Y = block(X)
    assert (Y[:, :4] == X[:, :, ::2, ::2]).all() and (Y[:, 4:] == 0).all()


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 0), ("C", 1)])
def test_only_option_c_projects_where_the_shape_stays(shortcut, projections):
    block = BasicBlock(4, 4, shortcut=shortcut)
    names = block.collect_params().keys()
    assert len([name for name in names if "weight" in name]) == 2 + projections


def test_shortcuts_that_there_are_not():
    with pytest.raises(ValueError, match="'A', 'B' or 'C', not 'D'"):
        BasicBlock(8, 4, shortcut="D")
    with pytest.raises(ValueError, match="4 channels.*not into 6.*shortcut='B'"):
        BasicBlock(6, 4, shortcut="A")
