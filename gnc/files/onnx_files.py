"""The weights of an ONNX model, inside or beside the file, and which matrix product is last; the model is not run. The package
`onnx` opens no file outside the model's folder, and compares stated sizes with files' lengths."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gnc.files.stored import ITEM_BYTES, Contents, StoredArray, Unreadable
from study.design.errors import StudyError

PASSING = ("Identity", "Cast", "Transpose")  # nodes between a weight and its product


def read_onnx(path: str) -> Contents:
    """The weights of a model by name, with those turned that enter a product from the right as [dim, classes].
    StudyError: the package `onnx` is not installed. Unreadable: the file has no graph."""
    try:
        import onnx
    except ImportError:
        rule = f"FILE must be of a kind that can be read here, got the ONNX model {path!r} without the package onnx"
        raise StudyError(f"{rule}. pip install 'gnc-study[onnx]'.") from None
    graph = onnx.ModelProto.FromString(Path(path).read_bytes()).graph
    if not graph.node:
        raise Unreadable("no graph, as an ONNX model has")
    names = [text for node in graph.node for text in (node.op_type, *node.input, *node.output)]
    if not all(isinstance(text, str) for text in (*names, *(weight.name for weight in graph.initializer))):
        raise Unreadable("a name that is no text")  # protobuf gives bytes
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        constants = [held.t for held in node.attribute if node.op_type == "Constant" and held.name == "value"]
        weights |= dict(zip(node.output, constants, strict=False))
    turned, biases, head = _products(graph.node, weights)
    kinds = onnx.helper.get_all_tensor_dtypes()
    arrays, skipped = {}, {}
    for name, weight in weights.items():
        kind, shape = weight.data_type, tuple(weight.dims)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind).name if kind in kinds else f"number {kind}"
        if dtype in ITEM_BYTES:
            load = partial(_values, onnx.numpy_helper.to_array, weight, str(Path(path).parent), dtype)
            arrays[name] = StoredArray(name, shape, dtype, load, path, name in turned)
        else:
            skipped[name] = f"of the type {dtype}"
    quantised = sum(node.op_type.startswith(("DequantizeLinear", "MatMulInteger", "QLinear")) for node in graph.node)
    notes = (f"{quantised} nodes of the model compute with quantised weights",) if quantised else ()
    return Contents(path, "an ONNX model", arrays, skipped, notes, head if head in arrays else None, biases)


def _values(to_array: Any, weight: Any, folder: str, dtype: str) -> torch.Tensor:
    values, kind = to_array(weight, folder), getattr(torch, dtype)
    if not values.size:
        return torch.empty(values.shape, dtype=kind)
    return torch.frombuffer(bytearray(values.tobytes()), dtype=kind).reshape(values.shape)


def _products(nodes: Any, weights: dict[str, Any]) -> tuple[set[str], dict[str, str | None], str]:
    """Weights that are [dim, classes], the bias of each weight, and the weight of the last product, "" if not plain."""
    made = {output: node for node in nodes for output in node.output}
    added = {name: set(node.input) for node in nodes if node.op_type == "Add" for name in node.input}
    turned: set[str] = set()
    biases: dict[str, str | None] = {}
    head = ""
    for node in nodes:
        if not re.search("MatMul|Gemm|Conv", node.op_type):
            continue
        head = ""
        if node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
            continue  # quantised or fused: if it is the last, the head is not known
        name = node.input[1]
        is_plain = not any(held.name == "transB" and held.i for held in node.attribute)
        is_turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and is_plain)
        for _ in PASSING:
            maker = made.get(name)
            if name in weights or maker is None or maker.op_type not in PASSING or not maker.input:
                break
            name, is_turned = maker.input[0], is_turned != (maker.op_type == "Transpose")
        shape = weights[name].dims if name in weights else ()
        if len(shape) == 2 or (node.op_type == "Conv" and set(shape[2:]) == {1}):
            (turned.add if is_turned else turned.discard)(name)
            beside = [*node.input[2:], *(other for output in node.output for other in added.get(output, ()))]
            head = name
            biases[name] = next((other for other in beside if other in weights), None)
    return turned, biases, head
