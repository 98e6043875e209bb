"""A network as files that other programs run: MXNet's own two, or one in ONNX."""

import json
import os
from pathlib import Path

import numpy as onp
from mxnet import gluon, npx

from ..compiler.graph import attrs_of, traced
from ..files.whole import writable, written_whole

__all__ = ["export"]

npx.set_np()

# BatchNormalization as it is today came with the first; every onnxruntime since 2022 reads both
_OPSET, _IR_VERSION = 15, 8


def export(net: gluon.HybridBlock, path: str | os.PathLike) -> list[Path]:
    """Write a network, as it computes outside of training, for use without this library.

    With ``path`` ending in ``.onnx`` it is one file for any program that reads ONNX ::

        onnxruntime.InferenceSession(path).run(None, {"data": X})

    With another it is the two files of MXNet, ``path-symbol.json`` and ``path-0000.params``, for ::

        gluon.SymbolBlock.imports(f"{path}-symbol.json", ["data"], f"{path}-0000.params")

    or for MXNet in C++, Java or R. Existing files are replaced; on an error they stay. (MXNet's own
    converter, ``mxnet.onnx``, needs an onnx of 2021 and does not know the operators of
    ``mxnet.np``.)

    Parameters
    ----------
    net : HybridBlock
        A network with weights. Its input is called ``data`` in the files: float32 (batch, channels,
        height, width), of any batch size.
    path : str or Path

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    TypeError, RuntimeError
        If ``net`` is not a HybridBlock, or cannot be traced; if it has parameters without values.
    ValueError, ModuleNotFoundError
        For ONNX, if ``net`` computes something that is not in the table of operators below; if the
        package onnx is not installed.
    OSError
        If the files cannot be written.
    """
    path = writable(path)
    symbol, params = traced(net, training=False), _values(net)
    model = _onnx_model(symbol, params) if path.suffix.lower() == ".onnx" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    if model:
        with written_whole(path) as file:
            file.write(model)
        return [path]
    paths = [path.with_name(path.name + end) for end in ("-symbol.json", "-0000.params")]
    states, inputs = symbol.list_auxiliary_states(), symbol.list_inputs()
    kinds = {name: "aux" if name in states else "arg" for name in inputs if name in params}
    named = {f"{kind}:{name}": params[name] for name, kind in kinds.items()}
    with written_whole(paths[0]) as of_graph, written_whole(paths[1]) as of_params:
        of_graph.write(symbol.tojson().encode())
        npx.save(f"/dev/fd/{of_params.fileno()}", named)  # whatever the name: MXNet knows UTF-8
    return paths


def _values(net):
    try:
        params = net.collect_params().items()
        return {name: param.list_data()[0].as_np_ndarray() for name, param in params}
    except RuntimeError as error:
        raise RuntimeError(
            "the network has parameters without values, and there is nothing to export: call "
            "net.initialize(), train it or load weights, and apply it once, net(X)"
        ) from error


# --- ONNX: each operator as a chain, of which every link takes what the one before gives


def _activation(attrs):
    _only(attrs, act_type=("relu", "sigmoid", "tanh"))
    return [(attrs["act_type"].capitalize(), {})]


def _batch_norm(attrs):
    _only(attrs, axis=(1,))
    return [("BatchNormalization", {"epsilon": attrs["eps"]})]


def _convolution(attrs):
    _only(attrs, layout=("NCHW",))
    return [("Conv", {**_window(attrs), "dilations": attrs["dilate"], "group": attrs["num_group"]})]


def _dense(attrs):
    _only(attrs, flatten=(True,))
    return [("Flatten", {"axis": 1}), ("Gemm", {"transB": 1})]


def _full_like(attrs):
    from onnx.helper import make_tensor

    _only(attrs, dtype=(None, "float32"))
    value = make_tensor("value", 1, [1], [attrs["fill_value"]])  # 1: float32
    return [("Shape", {}), ("ConstantOfShape", {"value": value})]


def _pooling(attrs):
    _only(attrs, layout=("NCHW",), pool_type=("avg", "max"))
    kind = {"avg": "Average", "max": "Max"}[attrs["pool_type"]]
    if attrs["global_pool"]:
        return [(f"Global{kind}Pool", {})]
    _only(attrs, pooling_convention=("valid",))
    padding = {"count_include_pad": int(attrs["count_include_pad"])} if kind == "Average" else {}
    return [(f"{kind}Pool", {**_window(attrs), **padding})]


def _window(attrs):
    pads = {"pads": attrs["pad"] * 2}  # before each axis, and behind
    return {"kernel_shape": attrs["kernel"], "strides": attrs["stride"], **pads}


def _only(attrs, **known):
    """Refuse an option that the chain does not stand for."""
    for name, values in known.items():
        if attrs.get(name, values[0]) not in values:
            raise ValueError(f"{name}={attrs[name]}")


_CHAINS = {
    "Activation": _activation,
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "Dropout": lambda attrs: [("Identity", {})],
    "Flatten": lambda attrs: [("Flatten", {})],
    "FullyConnected": _dense,
    "Pooling": _pooling,
    "_npi_add": lambda attrs: [("Add", {})],
    "_npi_concatenate": lambda attrs: [("Concat", {"axis": attrs["axis"]})],
    "_npi_full_like": _full_like,
    "_npx_relu": lambda attrs: [("Relu", {})],
}


def _onnx_model(symbol, params):
    """Return a graph as the content of an ONNX file."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        message = "to write ONNX, the package onnx is needed: pip install onnx"
        raise ModuleNotFoundError(message) from error
    from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info

    nodes, arrays = _onnx_nodes(json.loads(symbol.tojson()), params)
    images, float32 = ["batch", "channels", "height", "width"], onnx.TensorProto.FLOAT
    graph = make_graph(
        nodes,
        "d2lres",
        [make_tensor_value_info("data", float32, images)],
        [make_tensor_value_info("output", float32, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = make_model(
        graph,
        producer_name="d2lres",
        opset_imports=[make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _onnx_nodes(graph, params):
    """Return the nodes of a graph in ONNX, and the arrays that are among their inputs, by name."""
    from onnx.helper import make_node

    names = [  # a block that is applied twice gives two nodes one name
        node["name"] if node["op"] == "null" else f"{node['name']}_{i}"
        for i, node in enumerate(graph["nodes"])
    ]
    [[output, *_]] = graph["heads"]
    names[output] = "output"
    nodes, arrays = [], {name: params[name].asnumpy() for name in names if name in params}
    for name, node in zip(names, graph["nodes"], strict=True):
        if node["op"] == "null":
            continue
        inputs, attrs = [names[i] for i, *_ in node["inputs"]], attrs_of(node)
        if attrs.get("fix_gamma"):  # then MXNet computes with 1, whatever gamma says
            arrays[inputs[1]] = onp.ones_like(arrays[inputs[1]])
        *first, (op, options) = _chain(node, attrs)
        for i, (link, link_options) in enumerate(first):
            nodes.append(make_node(link, inputs[:1], [f"{name}_{i}"], **link_options))
            inputs[0] = f"{name}_{i}"
        nodes.append(make_node(op, inputs, [name], **options))
    return nodes, arrays


def _chain(node, attrs):
    what = node["op"]
    if what in _CHAINS:
        try:
            return _CHAINS[what](attrs)
        except ValueError as error:
            what += f" with {error}"
    raise ValueError(
        f"{node['name']} cannot be written as ONNX: it is {what}, and what is known here is "
        f"{', '.join(_CHAINS)}. A path that does not end in .onnx writes MXNet's own files."
    )
