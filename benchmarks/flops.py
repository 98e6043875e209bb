"""Multiply-adds, counted from the shapes in a traced graph."""

import json
import math

_WEIGHTED = ("Convolution", "FullyConnected")


def multiply_adds(symbol, input_shape):
    """Count the multiply-adds of the convolutions and dense layers of a network.

    Each number of an output takes as many as a row of the weights has numbers. The backward pass
    takes that twice, for the gradients of the weights and of the input, which the first layer,
    whose input is the images, does not need.

    Parameters
    ----------
    symbol : mxnet.symbol.Symbol
        What a HybridBlock gives for ``mx.sym.var("data")``.
    input_shape : tuple of int

    Returns
    -------
    dict of str to int
        ``"inference"``: the forward pass alone; ``"train"``: forward and backward.
    """
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(data=input_shape)
    names = (name.removesuffix("_output") for name in internals.list_outputs())
    shapes = dict(zip(names, shapes, strict=True))
    nodes = json.loads(symbol.tojson())["nodes"]
    counts = [
        math.prod(shapes[node["name"]]) * math.prod(shapes[nodes[node["inputs"][1][0]]["name"]][1:])
        for node in nodes
        if node["op"] in _WEIGHTED
    ]
    return {"inference": sum(counts), "train": 3 * sum(counts) - counts[0]}
