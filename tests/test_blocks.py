import mxnet as mx
import numpy as onp
import pytest
from mxnet import np, npx
from mxnet.gluon import nn
from networks import in_a_row, initialized

import d2lres
from d2lres import BasicBlock, Bottleneck, PreActResidual, Residual, resnet_block

SHAPE = (4, 3, 6, 6)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (lambda: Residual(3), (3, 7, 5)),
        (lambda: Residual(6, use_1x1conv=True), (6, 7, 5)),
        (lambda: Residual(6, use_1x1conv=True, strides=2), (6, 4, 3)),
        (lambda: resnet_block(3, 2, first_block=True), (3, 7, 5)),
        (lambda: resnet_block(8, 2), (8, 4, 3)),
        (lambda: resnet_block(8, 5), (8, 4, 3)),
    ],
)
def test_output_shape_with_odd_sizes_rounded_up(block, shape, hybridize):
    blk = initialized(block())
    blk.hybridize(hybridize)
    assert blk(np.random.uniform(size=(4, 3, 7, 5))).shape == (4, *shape)


@pytest.mark.parametrize("training", [False, True])
def test_a_zero_branch_is_the_identity_on_non_negative_input_and_passes_the_gradient_on(training):
    blk, X = initialized(Residual(3), SHAPE), np.random.uniform(size=SHAPE)
    X.attach_grad()
    blk.bn2.gamma.set_data(np.zeros(3))
    with mx.autograd.record(train_mode=training):
        Y = blk(X)
    Y.backward(train_mode=training)
    assert (Y == X).all() and (X.grad == 1).all()


def test_kwargs_reach_gluon():
    assert Residual(3, prefix="mine_").prefix == "mine_"


def test_the_stage_is_made_of_blocks():
    stage = resnet_block(8, 3)
    assert all(isinstance(blk, Residual) for blk in stage)
    assert [blk.conv3 is not None for blk in stage] == [True, False, False]
    assert [blk.conv1._kwargs["stride"] for blk in stage] == [(2, 2), (1, 1), (1, 1)]


# --- what students get wrong


@pytest.mark.parametrize(
    ("blk", "X", "error", "words"),
    [
        (Residual(6), np.ones(SHAPE), ValueError, r"\(4, 3, 6, 6\).* 6 .*use_1x1conv=True"),
        (Residual(3, strides=2), np.ones(SHAPE), ValueError, "height and.* 2.*use_1x1conv=True"),
        *(
            (Residual(3), np.ones(shape), ValueError, r"\(batch, channels, height, .*X\[None\]")
            for shape in [(3, 6, 6), (6, 6), (4, 3, 6, 6, 1)]
        ),
        *(
            (Residual(3), np.ones(SHAPE, dtype), TypeError, f"float32 .*but got {dtype}.*astype")
            for dtype in ("float64", "uint8", "int32")
        ),
        *(
            (Residual(3), X, TypeError, f"array of mxnet.np, but got {type(X).__name__}: write np")
            for X in (onp.ones(SHAPE, "float32"), mx.nd.ones(SHAPE), [1.0])
        ),
        (in_a_row(nn.Conv2D(4, 3), Residual(8)), np.ones(SHAPE), ValueError, "use_1x1conv=True"),
    ],
    ids=str,
)
def test_images_that_a_block_does_not_take(blk, X, error, words):
    with pytest.raises(error, match=words):
        initialized(blk)(X)


def test_weights_are_needed():
    with pytest.raises(RuntimeError, match=r"no weights yet. Call net.initialize\(\)"):
        Residual(3)(np.ones(SHAPE))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Residual(8.0), "num_channels must be a whole number of at least 1, not 8.0"),
        (lambda: Residual(True), "num_channels .* not True"),
        (lambda: Residual(8, True, "2"), "strides .* not '2'"),
        (lambda: Residual(8, strides=0), "strides .* not 0"),
        (lambda: BasicBlock(8, None), "in_channels .* not None"),
        (lambda: Bottleneck("8", 4), "num_channels .* not '8'"),
        (lambda: PreActResidual(8, 4, 2.0), "strides .* not 2.0"),
        (lambda: resnet_block("8", 2), "num_channels .* not '8'"),
        (lambda: resnet_block(8, 0), "at least one residual block, got 0"),
        (lambda: resnet_block(8, -1), "at least one residual block, got -1"),
        (lambda: Bottleneck(6, 4), "a multiple of 4, not 6"),
    ],
)
def test_sizes_are_whole_numbers(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_what_is_missing_is_said_in_the_name_of_the_block():
    with pytest.raises(TypeError, match=r"BasicBlock.__init__.* missing.*'in_channels'"):
        BasicBlock(8)


@pytest.mark.parametrize(
    "build",
    [
        lambda two, four: Residual(four, True, strides=two),
        lambda two, four: Residual(four, True, strides=(two, two)),
        lambda two, four: Bottleneck(four, four, two),
        lambda two, four: BasicBlock(four, four, strides=two, shortcut="A"),
        lambda two, four: resnet_block(four, two),
    ],
)
def test_sizes_may_be_numpys(build):
    shapes = [
        initialized(build(kind(2), kind(4)))(np.ones((1, 4, 6, 6))).shape
        for kind in (int, onp.int64, onp.uint8)
    ]
    assert shapes == [(1, 4, 3, 3)] * 3


# --- the book


def test_the_same_numbers_as_the_book():
    d2l = pytest.importorskip("d2l.mxnet")
    for kwargs in ({}, {"use_1x1conv": True, "strides": 2}):
        X, params = np.random.uniform(size=SHAPE), []
        ours, theirs = (initialized(of.Residual(3, **kwargs), SHAPE) for of in (d2lres, d2l))
        for blk in (ours, theirs):
            names = ["conv1", "conv2", "bn1", "bn2"] + ["conv3"] * bool(kwargs)
            layers = [getattr(blk, name).collect_params().values() for name in names]
            params.append([param for layer in layers for param in layer])
        for param, other in zip(*params, strict=True):
            param.set_data(other.data())
        assert abs(ours(X) - theirs(X)).max() <= 1e-6
        with mx.autograd.record():
            difference = ours(X) - theirs(X)
        assert abs(difference).max() <= 1e-6


# --- the blocks of the papers

BLOCKS = [BasicBlock, Bottleneck, PreActResidual]


def silence(block):
    """Make the residual branch of a block zero."""
    last = [layer for layer in block.body if isinstance(layer, nn.Conv2D)][-1]
    last.weight.set_data(np.zeros(last.weight.shape))
    return block


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_output_shapes_of_the_papers_blocks(block, residual, shortcut, hybridize):
    for strides, num_channels, size in ((1, 4, (7, 5)), (1, 8, (7, 5)), (2, 8, (4, 3))):
        blk = initialized(block(num_channels, 4, strides, shortcut, residual=residual))
        blk.hybridize(hybridize)
        assert blk(np.random.uniform(size=(2, 4, 7, 5))).shape == (2, num_channels, *size)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("block, lowest", [(BasicBlock, 0), (Bottleneck, 0), (PreActResidual, -1)])
def test_a_zero_branch_is_the_identity(block, lowest, training):
    """On non-negative input behind a ReLU, on any input in a pre-activation block."""
    X = np.random.uniform(lowest, 1, size=(4, 4, 6, 6))
    blk = initialized(block(4, 4))
    if block is PreActResidual:
        silence(blk)
    else:
        blk.body[-1].gamma.set_data(np.zeros(4))
    with mx.autograd.record(train_mode=training):
        assert (blk(X) == X).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_plain_twin_has_nothing_but_its_body(block):
    blk = silence(initialized(block(8, 4, 2, "C", residual=False)))
    assert (blk(np.random.uniform(size=(2, 4, 6, 6))) == 0).all()
    weights = [p for p in blk.collect_params() if p.endswith("weight")]
    assert len(weights) == (3 if block is Bottleneck else 2)


@pytest.mark.parametrize(("stride_on_1x1", "strides"), [(False, [1, 2, 1]), (True, [2, 1, 1])])
def test_a_bottleneck(stride_on_1x1, strides):
    block = Bottleneck(16, 8, strides=2, stride_on_1x1=stride_on_1x1)
    convs = [layer for layer in block.body if isinstance(layer, nn.Conv2D)]
    shapes = [conv.weight.shape for conv in convs]
    assert shapes == [(4, 8, 1, 1), (4, 4, 3, 3), (16, 4, 1, 1)]
    assert [conv._kwargs["stride"][0] for conv in convs] == strides


def test_the_order_before_activation():
    block = initialized(PreActResidual(8, 4, strides=2))
    X = np.random.uniform(-1, 1, size=(2, 4, 6, 6))
    activated = npx.relu(block.bn(X))
    Y = block.body[3](npx.relu(block.body[1](block.body[0](activated))))
    assert abs(block(X) - Y - block.shortcut(activated)).max() < 1e-6


@pytest.mark.parametrize("block", BLOCKS)
def test_zeros_for_new_channels_and_every_second_pixel(block):
    X = np.random.uniform(size=(2, 4, 6, 6))
    Y = silence(initialized(block(8, 4, strides=2, shortcut="A")))(X)
    assert (Y[:, :4] == X[:, :, ::2, ::2]).all() and (Y[:, 4:] == 0).all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 0), ("C", 1)])
def test_only_option_c_projects_where_the_shape_stays(block, shortcut, projections):
    blk = block(4, 4, shortcut=shortcut)
    weights = [name for name in blk.collect_params() if name.endswith("weight")]
    assert len(weights) == (3 if block is Bottleneck else 2) + projections


@pytest.mark.parametrize("block", BLOCKS)
def test_shortcuts_that_there_are_not(block):
    for num_channels in (4, 8):
        with pytest.raises(ValueError, match="'A', 'B' or 'C', not 'D'"):
            block(num_channels, 4, shortcut="D")
    with pytest.raises(ValueError, match="8 channels.*not into 12.*shortcut='B'"):
        block(12, 8, shortcut="A")


@pytest.mark.parametrize("block", BLOCKS)
def test_the_papers_blocks_explain_as_well(block):
    blk, X, name = block(8, 4), np.ones((2, 4, 6, 6)), block.__name__
    with pytest.raises(RuntimeError, match=f"{name} has no weights yet"):
        blk(X)
    blk.initialize()
    with pytest.raises(ValueError, match=f"{name} expects a batch.*shape .4, 6, 6.*None"):
        blk(X[0])
    with pytest.raises(TypeError, match=f"{name} expects float32 images, but got uint8"):
        blk(X.astype("uint8"))
    with pytest.raises(ValueError, match=rf"{name} takes images of 4 channels.*\(2, 3, 6, 6\)"):
        blk(np.ones((2, 3, 6, 6)))


def test_a_residual_block_that_has_met_other_images():
    blk = initialized(Residual(6, use_1x1conv=True), (2, 3, 6, 6))
    with pytest.raises(ValueError, match="Residual takes images of 3 channels.*4 channels"):
        blk(np.ones((2, 4, 6, 6)))
