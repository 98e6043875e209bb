"""A graph, rewritten so that it computes the same in less time.

MXNet runs a network on the CPU through oneDNN, which keeps images in blocked memory layouts. Every
operator that is not oneDNN's forces a copy out of that layout and one back into it. And oneDNN's
convolutions are made for images: where only a pixel or four are left, a matrix product is faster.

A graph is a symbol of MXNet's with one input, ``data``, of the shape ``input_shape``.
"""

import json

import numpy as np
from mxnet.contrib import amp

from .graph import Graph, attrs_of

__all__ = ["for_gradients", "for_inference", "for_training", "in_bfloat16", "narrow_convolutions"]


def for_training(symbol, input_shape, fused=True):
    """Rewrite a graph so that it runs fast forward and backward, for images of one size.

    Another batch size is fine. ``fused`` says whether batch normalization and the ReLU behind it
    become one operator. Also returned is how often each rewriting applied, by its words.
    """
    graph = Graph(symbol, input_shape)
    rewrites = list(_REWRITES.items())[: None if fused else -1]
    counts = {words: rewrite(graph) for words, rewrite in rewrites}
    return graph.symbol(), counts


def for_gradients(symbol, input_shape):
    """Rewrite a graph so that its gradients are right outside of training, too."""
    graph = Graph(symbol, input_shape)
    for rewrite in [*list(_REWRITES.values())[:-1], _find_largest]:
        rewrite(graph)
    return graph.symbol()


def for_inference(symbol, input_shape):
    """Rewrite a graph so that it runs fast forward only, on exactly this shape.

    Batch normalization is folded into the convolution before it, which also takes over the ReLU and
    the sum behind it. Matrices that stand for convolutions become inputs.

    Returns
    -------
    symbol : mxnet.symbol.Symbol
    watched : set of str
        Parameters that the graph, or a matrix, holds a copy of from its first run on: if one of
        them changes, the graph has to be made anew. MXNet itself notices changes of the others.
    matrices : dict of str to (str, function)
        For each new input the parameter it is made from and the function that makes it.
    """
    graph, matrices = Graph(symbol, input_shape), {}
    for rewrite in (_leave_out_copies, _use_activation, _use_sum, _keep_from_folding):
        rewrite(graph)
    _use_matrix_products(graph, matrices)
    symbol = graph.symbol().optimize_for("MKLDNN")
    nodes = json.loads(symbol.tojson())["nodes"]
    folded = [n for n in nodes if n.get("attrs", {}).get("with_bn", "").lower() in ("true", "1")]
    noticed = {nodes[node["inputs"][1][0]]["name"] for node in folded}
    names = set(symbol.list_arguments() + symbol.list_auxiliary_states())
    sources = {weight for weight, _ in matrices.values()}
    return symbol, (names - noticed - {"data", *matrices}) | sources, matrices


def in_bfloat16(symbol, exact):
    """Compute the convolutions and matrix products of a graph, rewritten or not, in 16 bits.

    Parameters and their gradients stay float32, as do the convolutions whose names are in
    ``exact``.
    """
    options = {"target_dtype": "bfloat16", "cast_optional_params": False}
    return amp.convert_symbol(symbol, excluded_sym_names=exact, **options)


def narrow_convolutions(symbol, input_shape, min_channels):
    """Return the names of the convolutions with less than ``min_channels`` input channels.

    In 16 bits, oneDNN's leave the blocked layout if there are few channels, and the batch
    normalization behind them then takes a hundred times as long.
    """
    graph = Graph(symbol, input_shape)
    convolutions = graph.of("Convolution")
    return [n["name"] for n in convolutions if graph.shape(n["inputs"][0])[1] < min_channels]


# --- the rewritings: each returns how often it applied


def _leave_out_copies(graph):
    """Outside of training Dropout copies. MXNet leaves copies out, too, but then folds across.

    A mean over one pixel copies as well, in reference code.
    """
    for node in [*graph.of("Dropout"), *graph.of("_copy")]:
        if attrs_of(node).get("mode") != "always":
            graph.redirect(node, node["inputs"][0])
    for node in graph.of("Pooling"):
        if _takes_mean(graph, node) and {*graph.shape(node["inputs"][0])[2:]} == {1}:
            graph.redirect(node, node["inputs"][0])


def _use_activation(graph):
    """NumPy's relu is not an operator of oneDNN, Activation is."""
    nodes = graph.of("_npx_relu")
    for node in nodes:
        graph.replace(node, "Activation", node["inputs"], act_type="relu")
    return len(nodes)


def _use_sum(graph):
    """NumPy's addition is not an operator of oneDNN, the sum of equal shapes is."""
    nodes = [n for n in graph.of("_npi_add") if len({graph.shape(e) for e in n["inputs"]}) == 1]
    for node in nodes:
        graph.replace(node, "elemwise_add", node["inputs"])
    return len(nodes)


def _keep_from_folding(graph):
    """MXNet folds a chain behind a convolution or dense layer and leaves only its last result.

    It overlooks a sum that takes one from the middle of the chain, as does the first block behind a
    pre-activation network's first convolution: such sums stay NumPy's, which it does not fold. It
    also overlooks what else takes the result of a dense layer, and over which axis a batch norm
    goes: NumPy's copy in between stops it there.
    """
    uses = graph.num_uses()
    for node in graph.of("elemwise_add"):
        sources = map(graph.node, node["inputs"])
        if any(n["op"] in ("Convolution", "BatchNorm") and uses[n["name"]] > 1 for n in sources):
            graph.replace(node, "_npi_add", node["inputs"])
    for node in graph.of("BatchNorm"):
        if attrs_of(node)["axis"] != 1:
            node["inputs"][0] = graph.add("_np_copy", node["inputs"][:1])
    for node in graph.of("FullyConnected"):
        if uses[node["name"]] > 1:
            copy = graph.add("_np_copy", [])
            graph.redirect(node, copy)
            graph.node(copy)["inputs"] = [[graph.number(node), 0, 0]]


def _use_mean(graph):
    """The gradient of a pooling of all pixels leaves the blocked layout, reference code follows."""
    nodes = [n for n in graph.of("Pooling") if _takes_mean(graph, n)]
    for node in nodes:
        axes = tuple(range(2, len(graph.output_shape(node))))
        graph.replace(node, "mean", node["inputs"], axis=axes, keepdims=True)
    return len(nodes)


def _takes_mean(graph, node):
    """Whether a pooling is the mean over all pixels."""
    attrs, size = attrs_of(node), graph.shape(node["inputs"][0])[2:]
    takes_all = attrs["global_pool"] or (attrs["kernel"] == size and not any(attrs["pad"]))
    return attrs["pool_type"] == "avg" and takes_all


def _find_largest(graph):
    """Outside of training, oneDNN does not note which pixel of a window was the largest.

    Its gradient then goes to a random one. MXNet looks itself if the numbers are float64.
    """
    for node in graph.of("Pooling"):
        if attrs_of(node)["pool_type"] == "max":
            exact = graph.add("Cast", node["inputs"], dtype="float64")
            pooled = graph.add("Pooling", [exact], **node.get("attrs", {}))
            graph.replace(node, "Cast", [pooled], dtype="float32")


def _fuse_batch_norm_and_relu(graph):
    """One pass over the images in place of two, in training: it has no other gradient.

    If the images come in plain layout and their gradient in a blocked one, as from a convolution,
    the fused operator computes wrong gradients; if the two come in blocks of other sizes, it fails:
    there it stays two. It knows images only, with the channels in front, and not the gradient of a
    pooling that leaves one pixel.
    """
    uses, count = graph.num_uses(), 0
    if any({*graph.output_shape(node)[2:]} == {1} for node in graph.of("Pooling")):
        return count
    for number, node in enumerate(graph.nodes):
        if node["op"] != "Activation":
            continue
        norm = graph.node(node["inputs"][0])
        if (
            norm["op"] != "BatchNorm"
            or uses[norm["name"]] > 1
            or attrs_of(node)["act_type"] != "relu"
            or attrs_of(norm)["axis"] != 1
            or attrs_of(norm)["use_global_stats"]  # frozen: not worth it, nor right everywhere
            or len(graph.output_shape(norm)) != 4
            or not (_is_blocked(graph, norm["inputs"][0]) or _has_plain_gradient(graph, number))
            or _has_other_gradient(graph, number)
        ):
            continue
        attrs = norm.get("attrs", {})
        graph.replace(node, "_contrib_BatchNormWithReLU", norm["inputs"], **attrs)
        count += 1
    return count


_KEEP_LAYOUT = ("Activation", "BatchNorm", "Pooling", "_contrib_BatchNormWithReLU", "elemwise_add")


def _is_blocked(graph, entry):
    """Whether an array comes from convolutions in blocks, by operators that keep their layout."""
    numbers = [entry[0]]
    for number in numbers:
        node = graph.nodes[number]
        if node["op"] == "Convolution":
            if not _gives_blocks(graph, node):
                return False
        elif node["op"] in _KEEP_LAYOUT:
            sources = node["inputs"] if node["op"] == "elemwise_add" else node["inputs"][:1]
            numbers += [source for source, *_ in sources if source not in numbers]
        else:
            return False
    return True


def _gives_blocks(graph, node):
    """Whether oneDNN computes a convolution in blocks of channels, on whichever processor.

    It does so from blocks of 16 or from images, with a small window. What else it may hand on in
    plain layout, because MXNet has no room for channels that would fill up a block.
    """
    attrs, in_channels = attrs_of(node), graph.shape(node["inputs"][0])[1]
    of_image = in_channels <= 3 and max(attrs["kernel"]) > 1
    return (
        attrs["num_group"] == 1
        and graph.output_shape(node)[1] % 16 == 0
        and (in_channels % 16 == 0 or of_image)
        and all(p <= 3 and 2 * p < k for p, k in zip(attrs["pad"], attrs["kernel"], strict=True))
    )


def _has_plain_gradient(graph, number):
    """Whether nothing takes a node's output but matrix products and means."""
    takers = [graph.nodes[taker] for taker in graph.takers(number)]
    return all(taker["op"] in ("FullyConnected", "mean") for taker in takers)


def _has_other_gradient(graph, number):
    """Whether a gradient may come from a convolution that computes in other blocks than of 16."""
    numbers = [number]
    for number in numbers:
        for taker in graph.takers(number):
            node = graph.nodes[taker]
            if node["op"] == "Convolution" and not _gives_blocks(graph, node):
                return True
            if node["op"] in _KEEP_LAYOUT and taker not in numbers:
                numbers.append(taker)
    return False


def _use_matrix_products(graph, matrices=None):
    """A convolution whose every window covers its whole input is a matrix product.

    So it is on the one or four pixels that are left of a small image in the last stages. As a
    convolution it multiplies mostly padding: eight of nine weights, where one pixel is left. The
    matrix is computed in the graph, or, given a dictionary for it, becomes an input.
    """
    count = 0
    for node in graph.of("Convolution"):
        (data, weight, *bias), out = node["inputs"], graph.output_shape(node)[1:]
        size = graph.shape(data)[1:]
        corners = _windows(size[1:], out[1:], attrs_of(node))
        if not corners:
            continue
        if matrices is None:
            matrix = _matrix(graph, weight, size, out, corners)
        else:
            matrix, name = graph.variable(f"{node['name']}_matrix"), graph.node(weight)["name"]
            matrices[graph.node(matrix)["name"]] = name, _matrix_maker(size[1:], corners)
        if bias:
            bias = [graph.add("repeat", bias, repeats=len(corners))]
        options = {"num_hidden": out[0] * len(corners), "no_bias": not bias, "flatten": True}
        product = graph.add("FullyConnected", [data, matrix, *bias], **options)
        graph.replace(node, "Reshape", [product], shape=(-1, *out))
        count += 1
    return count


def _matrix(graph, weight, size, out, corners):
    """For every output pixel, the weights that meet the input: as nodes of the graph."""
    (c, h, w), o = size, out[0]
    taps = [
        graph.add("slice", [weight], begin=(0, 0, y, x), end=(o, c, y + h, x + w))
        for y, x in corners
    ]
    if len(taps) > 1:
        taps = [graph.add("stack", taps, axis=1, num_args=len(taps))]
    return graph.add("Reshape", taps, shape=(o * len(corners), c * h * w))


def _matrix_maker(size, corners):
    """The same as a function of the weights, a NumPy array."""
    h, w = size

    def matrix(weight):
        taps = np.stack([weight[:, :, y : y + h, x : x + w] for y, x in corners], axis=1)
        return taps.reshape(len(weight) * len(corners), -1)

    return matrix


def _windows(size, out, attrs):
    """Return where in its kernel each output pixel meets the input, if it meets the whole of it."""
    if len(size) != 2 or attrs["num_group"] != 1 or attrs["dilate"] != (1, 1):
        return None
    begins, windows = [], (attrs[name] for name in ("kernel", "stride", "pad"))
    for n, m, k, s, p in zip(size, out, *windows, strict=True):
        begins.append([p - i * s for i in range(m)])
        if min(begins[-1]) < 0 or max(begins[-1]) + n > k:
            return None
    return [(y, x) for y in begins[0] for x in begins[1]]


_REWRITES = {  # in this order
    "ReLUs as oneDNN's": _use_activation,
    "additions as oneDNN's sum": _use_sum,
    "global poolings as means": _use_mean,
    "convolutions as matrix products": _use_matrix_products,
    "batch norms fused with their ReLU": _fuse_batch_norm_and_relu,
}
