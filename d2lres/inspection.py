"""What a network is made of, layer by layer, what passes through it, and where it looks.

*The paper* is He et al., Deep Residual Learning for Image Recognition (2016).
"""

import dataclasses
import html
import itertools
import math
from typing import NamedTuple

import numpy as onp
from mxnet import MXNetError, autograd, gluon, np, npx
from mxnet.gluon import nn
from mxnet.ndarray import CachedOp
from mxnet.symbol import Group

from . import checks
from .checks import checked
from .compiler.compiled import Compiled
from .compiler.graph import Graph, attrs_of, traced

__all__ = ["Layer", "LayerStats", "Summary", "grad_cam", "layer_stats", "summary"]

npx.set_np()


class Layer(NamedTuple):
    """A line of a summary: one layer, or several that stand in one block.

    ``name`` is where it stands: ``1.0.conv2`` is ``net[1][0].conv2``. What a block computes by
    itself, such as the sum of its shortcut, stands under the block's name. ``output_shape`` has a
    batch axis if ``input_shape`` has one. ``num_params`` counts the trainable parameters, those
    that several layers share for the first; ``num_others`` the running averages of batch
    normalization and what was frozen by ``grad_req="null"``; ``multiply_adds`` those of a
    convolution or dense layer, forward, without its bias.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    num_params: int
    num_others: int
    multiply_adds: int


@dataclasses.dataclass(repr=False)
class Summary:
    """The layers of a network as a table: text when printed, HTML in a notebook.

    ``rows`` are its lines; ``num_params``, ``num_others`` and ``multiply_adds`` are their totals.
    ``training_multiply_adds`` are those of a step of training: the backward pass takes the forward
    pass twice, for the gradients of the weights and of the inputs, which the first layer, whose
    input is the images, does not need.
    """

    rows: list[Layer]
    training_multiply_adds: int

    @property
    def num_params(self) -> int:
        return sum(row.num_params for row in self.rows)

    @property
    def num_others(self) -> int:
        return sum(row.num_others for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    def _cells(self):
        """Return the heading, the lines and the totals as text."""
        heading = "layer", "kind", "output shape", "parameters", "not trained", "multiply-adds"
        total = Layer("total", "", "", self.num_params, self.num_others, self.multiply_adds)
        lines = [
            (name, kind, str(shape), *(f"{n:,}" if n else "" for n in numbers))
            for name, kind, shape, *numbers in [*self.rows, total]
        ]
        return heading, lines[:-1], lines[-1]

    def __repr__(self) -> str:
        heading, lines, total = self._cells()
        table = [heading, *lines, total]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        rule = "-" * max(map(len, text))
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])

    def _repr_html_(self) -> str:
        heading, lines, total = self._cells()
        head, foot = _html_row(heading, "th"), _html_row(total, "th")
        body = "\n".join(_html_row(line, "td") for line in lines)
        return (
            f'<table style="font-size: 16px">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n'
            f"</tbody>\n<tfoot>\n{foot}\n</tfoot>\n</table>"
        )


def _html_row(cells, tag):
    aligned = (
        f'<{tag} style="text-align: {"left" if i < 3 else "right"}">{html.escape(cell)}</{tag}>'
        for i, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"


def summary(
    net: gluon.HybridBlock, input_shape: tuple[int, ...], depth: int | None = None
) -> Summary:
    """List the layers of a network: shapes, parameters and multiply-adds.

    The network need not be initialized. It is traced, not run: no array is made or changed.

    Listed are layers with parameters, poolings, sums and all that changes the shape; activations
    are left out. Multiply-adds are those of convolutions and dense layers in the forward pass: each
    number of the output takes as many as there are weights to it. The paper's table 1 calls them
    FLOPs. Its 1.8 and 3.6 times 10^9 for 18 and 34 layers are 1.814 and 3.664 here, of which 0.019
    are 1x1 convolutions on shortcuts; its 3.8, 7.6 and 11.3 are, with ``stride_on_1x1=True``,
    3.858, 7.570 and 11.282, and 0.231 more with the stride where it is today.

    Parameters
    ----------
    net : HybridBlock
    input_shape : tuple of int
        (channels, height, width) of an image, or (batch, channels, height, width): the output
        shapes then have a batch axis and the multiply-adds are those of the whole batch.
    depth : int, optional
        Take together what stands deeper than this many names below ``net``: 1 gives a line for each
        element of a HybridSequential, 2 for each element of those. By default all layers.

    Raises
    ------
    TypeError
        If ``net`` is not a HybridBlock, or cannot be traced.
    ValueError
        If ``input_shape`` or ``depth`` is none of the above, or the network takes no such images.
    """
    shape = _batch_shape(input_shape)
    if depth is not None and not (isinstance(depth, int | onp.integer) and depth >= 1):
        raise ValueError(f"depth is at least 1, or None for all layers, not {depth!r}")
    (_, graph), blocks = _graph(net, shape), dict(_blocks(net))
    rows = _layers(graph, net.collect_params(), blocks)
    if len(input_shape) == 3:
        rows = [row._replace(output_shape=row.output_shape[1:]) for row in rows]
    counts = [row.multiply_adds for row in rows if row.multiply_adds]
    return Summary(_folded(rows, blocks, depth), 3 * sum(counts) - sum(counts[:1]))


def _batch_shape(input_shape):
    """Return the shape with a batch axis."""
    numbers = isinstance(input_shape, tuple | list) and all(
        isinstance(n, int | onp.integer) and n > 0 for n in input_shape
    )
    if not numbers or len(input_shape) not in (3, 4):
        raise ValueError(
            "input_shape is (channels, height, width) of an image, such as (3, 224, 224), or "
            f"(batch, channels, height, width), not {input_shape!r}"
        )
    return (1, *map(int, input_shape))[-4:]


def _graph(net, shape):
    symbol, params = traced(net), net.collect_params()
    known = {name: params[name] for name in symbol.list_arguments() if name in params}
    # of a network that was imported, only the arrays have shapes
    shapes = {n: p.shape or p.list_data()[0].shape for n, p in known.items() if p.shape or p._data}
    try:
        return symbol, Graph(symbol, shape, shapes)
    except MXNetError as error:
        reason = checks.reason(error)
        raise ValueError(
            f"{type(net).__name__} does not take images of shape {shape[1:]}: {reason}"
        ) from error


def _blocks(block, path=""):
    """Yield where each block stands, and the block."""
    yield path, block
    for name, child in block._children.items():
        yield from _blocks(child, f"{path}.{name}".strip("."))


def _layers(graph, params, blocks):
    """Return a row for every node that is listed."""
    paths, seen, rows = _Paths(blocks), set(), []
    for node in graph.nodes:
        sources = [graph.node(entry) for entry in node["inputs"]]
        own = {n["name"]: graph.output_shape(n) for n in sources if n["name"] in params}
        shape = graph.output_shape(node)
        changes = own or len(sources) > 1 or any(graph.shape(e) != shape for e in node["inputs"])
        if not changes and node["op"] != "Pooling":
            continue
        sizes = {True: 0, False: 0}
        for name in own.keys() - seen:
            sizes[params[name].grad_req != "null"] += math.prod(own[name])
        seen |= own.keys()
        kind, weights = _kind(node), 0
        if node["op"] in ("Convolution", "FullyConnected"):
            weights = math.prod(graph.shape(node["inputs"][1])[1:])
        name = paths.of(node, kind)
        rows.append(Layer(name, kind, shape, sizes[True], sizes[False], math.prod(shape) * weights))
    return rows


class _Paths:
    """Where nodes stand: MXNet names a node by the prefix of the block that computes it."""

    def __init__(self, blocks):
        self._blocks = blocks
        self._of_prefix = {block.prefix: path for path, block in reversed(blocks.items())}

    def of(self, node, kind):
        name = node["name"]
        ends = (i for i in range(len(name), 0, -1) if name[i - 1] == "_")
        path = next((self._of_prefix[name[:i]] for i in ends if name[:i] in self._of_prefix), None)
        if path is None:
            return name
        block = self._blocks[path]
        is_layer = block._reg_params or not block._children
        return path if path and is_layer else f"{path}.{kind}".strip(".")


def _kind(node):
    """Say in a few words what a node computes."""
    attrs = attrs_of(node)
    if node["op"] == "Convolution":
        return f"conv {_window(attrs)}"
    if node["op"] == "Pooling":
        name = {"avg": "mean"}.get(attrs["pool_type"], attrs["pool_type"]) + " pool"
        return f"global {name}" if attrs.get("global_pool") is True else f"{name} {_window(attrs)}"
    plain = node["op"].removeprefix("_npi_").removeprefix("_npx_").removeprefix("_np_")
    names = {"FullyConnected": "dense", "BatchNorm": "batch norm", "add": "sum"}
    return names.get(plain, plain.lower())


def _window(attrs):
    stride = max(attrs["stride"], default=1)
    return "x".join(map(str, attrs["kernel"])) + f", stride {stride}" * (stride > 1)


def _folded(rows, blocks, depth):
    """Take rows together that stand in one block, ``depth`` names below the network."""
    if depth is None:
        return rows
    folded = []
    for path, group in itertools.groupby(rows, lambda row: ".".join(row.name.split(".")[:depth])):
        group = list(group)
        if path in blocks and any(row.name != path for row in group):
            _, _, shapes, *numbers = zip(*group, strict=True)
            group = [Layer(path, _block_kind(blocks[path]), shapes[-1], *map(sum, numbers))]
        folded += group
    return folded


def _block_kind(block):
    kinds = [type(child).__name__ for child in block._children.values()]
    if not isinstance(block, nn.HybridSequential):
        return type(block).__name__
    return f"{len(kinds)} x {kinds[0]}" if len(set(kinds)) == 1 else f"{len(kinds)} layers"


class LayerStats(NamedTuple):
    """What ``layer_stats`` measures of one convolution, with its name as in ``summary``.

    ``response_std`` is the standard deviation of its response over all images, channels and pixels,
    ``gradient_norm`` the Euclidean norm of the gradient of its weights.
    """

    name: str
    response_std: float
    gradient_norm: float


def layer_stats(net: gluon.HybridBlock, X: np.ndarray, y: np.ndarray) -> list[LayerStats]:
    """Measure how strongly each convolution responds, and what gradient reaches it.

    The response is that of the paper's figure 7 (section 4.2): after the batch normalization that
    follows the convolution, before the ReLU or the sum with the shortcut. Where none follows it, it
    is what the convolution gives. Batch normalization uses the statistics of the batch, as in
    training; the gradient is that of the mean cross-entropy over the batch.

    All is computed on a copy: parameters, gradients and running averages stay as they are.

    Parameters
    ----------
    net : HybridBlock
        An initialized network; float32 images to one score per class, (batch, num_classes).
    X : float32 array, shape (batch, channels, height, width)
    y : integer array, shape (batch,)
        Labels from 0 to num_classes - 1.

    Returns
    -------
    list of LayerStats
        For the convolutions on the longest way through the network, in order: those that its depth
        counts. 1x1 convolutions on shortcuts are not among them.

    Raises
    ------
    TypeError, RuntimeError
        If ``net`` is not a HybridBlock, or cannot be traced; if it has not been initialized.
    ValueError
        If X is none of the above, there is not one label for each image, or one is out of range.
    """
    X = checks.images(X, "layer_stats")
    y = np.array(checks.labels(y, len(X)), ctx=X.ctx)
    (symbol, graph), params = _graph(net, X.shape), net.collect_params()
    if any(p._data is None and not p._deferred_init for p in params.values()):
        raise RuntimeError(
            "the network has no weights yet: call net.initialize() before layer_stats(net, X, y)"
        )
    with autograd.pause():
        net(X[:1])  # fixes shapes that were deferred
    convs = _longest_way(graph)
    if not convs:
        return []
    internals = symbol.get_internals()
    responses = [internals[graph.index(_response(graph, conv))] for conv in convs]
    weights = [graph.node(conv["inputs"][1])["name"] for conv in convs]
    outputs, gradients = _run(symbol, responses, params, weights, X, y)
    paths = _Paths(dict(_blocks(net)))
    stats = []
    for conv, output, weight in zip(convs, outputs, weights, strict=True):
        std = output.asnumpy().std(dtype="float64")
        norm = onp.linalg.norm(gradients[weight].asnumpy().astype("float64"))
        stats.append(LayerStats(paths.of(conv, _kind(conv)), float(std), float(norm)))
    return stats


def _longest_way(graph):
    """Return the convolutions on the way with the most of them, from the input to the output."""
    lengths = []
    for node in graph.nodes:
        before = (lengths[number] for number, *_ in node["inputs"])
        lengths.append(max(before, default=0) + (node["op"] == "Convolution"))
    convs, node = [], graph.nodes[-1]
    while node["inputs"]:
        if node["op"] == "Convolution":
            convs.append(node)
        node = graph.node(max(node["inputs"], key=lambda entry: lengths[entry[0]]))
    return convs[::-1]


def _response(graph, conv):
    """Return the batch normalization behind a convolution, or the convolution itself."""
    users = [graph.nodes[number] for number in graph.takers(graph.number(conv))]
    return users[0] if [n["op"] for n in users] == ["BatchNorm"] else conv


def _run(symbol, responses, params, weights, X, y):
    """Run forward and backward on copies; return the responses and the weights' gradients."""
    arrays = {name: param.data(X.ctx).copy() for name, param in params.items()} | {"data": X}
    for name in weights:
        arrays[name].attach_grad()
    graph = CachedOp(Group([symbol, *responses]).as_np_ndarray())
    with autograd.record():
        Y, *outputs = graph(*(arrays[name] for name in symbol.list_inputs()))
        checks.scores(Y, len(X))
        checks.labels(y, len(X), Y.shape[1])
        l = gluon.loss.SoftmaxCrossEntropyLoss()(Y, y).mean()
    l.backward()
    return outputs, {name: arrays[name].grad for name in weights}


def _in_parts(net, X, y):
    parts = _parts(net)
    device = checks.device_of(parts)
    X = checks.images(X, "grad_cam").as_in_ctx(device)
    with autograd.pause():
        scores = net(X[:1])
    checks.scores(scores)
    y = checks.labels(y, len(X), scores.shape[1], "classes")
    return parts, X, np.array(y, ctx=device)


def _parts(net):
    """Return what makes the last feature maps of a network, the layer behind them, and the rest."""
    net = net.net if isinstance(net, Compiled) else net
    of_the_zoo = [getattr(net, name, None) for name in ("features", "output")]  # Gluon's
    blocks = of_the_zoo if all(of_the_zoo) else [net]
    layers = [layer for block in blocks for layer in _chain(block)]
    is_end = [isinstance(layer, nn.Flatten | nn.Dense) for layer in layers]
    end = [*is_end, True].index(True)
    while end and isinstance(layers[end - 1], _POOLINGS):
        end -= 1
    if end in (0, len(layers)):
        raise TypeError(
            "grad_cam follows the layers of a network to its last feature maps, which go through "
            f"a pooling or a dense layer, and {type(net).__name__} shows no such layers. If it was "
            "imported, build the network from blocks and load its parameters into that."
        )
    parts, rest = nn.Sequential(), nn.Sequential()
    rest.add(*layers[end + 1 :])
    parts.add(*layers[: end + 1], rest)
    return parts


_POOLINGS = nn.GlobalAvgPool2D, nn.GlobalMaxPool2D, nn.AvgPool2D, nn.MaxPool2D, nn.Dropout


def _chain(block):
    """Yield the layers of a network that stand one after the other."""
    if type(block) in (nn.Sequential, nn.HybridSequential):
        for child in block:
            yield from _chain(child)
    else:
        yield block


@checked(_in_parts)
def grad_cam(net, X, y):
    """Return heat maps: how much each place of the last feature maps speaks for a class.

    The channels are weighted by the mean gradient of the class's score, added up, and what speaks
    against the class is cut off at zero: Selvaraju et al., Grad-CAM: Visual Explanations from Deep
    Networks via Gradient-based Localization (2017), section 3.

    Parameters
    ----------
    net : Block
        A trained network of layers one after the other, as those of ``d2lres``, compiled or not,
        and of Gluon's model zoo are.
    X : float32 array, shape (batch, channels, height, width)
    y : int array, shape (batch,)
        The class asked about in each image: its own, the predicted one, or any other.

    Returns
    -------
    float32 array, shape (batch, map_height, map_width)
        Not negative; of the size of the last feature maps.

    Raises
    ------
    TypeError, RuntimeError
        If ``net`` does not show its layers, as one that was imported, or has no feature maps; if it
        has not been initialized.
    ValueError
        If X is not a batch of images, there is not one class for each, or one is out of range.
    """
    body, head = net[:-2], net[-2:]
    maps = body(X)
    maps.attach_grad()
    with autograd.record(train_mode=False):
        score = npx.pick(head(maps), y)
    score.backward()
    weights = maps.grad.mean(axis=(2, 3), keepdims=True)
    return npx.relu((weights * maps).sum(axis=1))
