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
    arrays, skipped, changes = {}, {}, dict[str, str]()
    for name, weight in weights.items():
        kind, shape = weight.data_type, tuple(weight.dims)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind).name if kind in kinds else f"number {kind}"
        if dtype in ITEM_BYTES:
            load = partial(_values, onnx.numpy_helper.to_array, weight, str(Path(path).parent), dtype)
            is_turned, changes[name] = turned.get(name, (False, ""))
            arrays[name] = StoredArray(name, shape, dtype, load, path, is_turned)
        else:
            skipped[name] = f"of the type {dtype}"
    quantised = sum(node.op_type.startswith(("DequantizeLinear", "MatMulInteger", "QLinear")) for node in graph.node)
    notes = (f"{quantised} nodes of the model compute with quantised weights",) if quantised else ()
    return Contents(path, "an ONNX model", arrays, skipped, notes, head if head in arrays else "", biases, changes)


def _values(to_array: Any, weight: Any, folder: str, dtype: str) -> torch.Tensor:
    values, kind = to_array(weight, folder), getattr(torch, dtype)
    if not values.size:
        return torch.empty(values.shape, dtype=kind)
    return torch.frombuffer(bytearray(values.tobytes()), dtype=kind).reshape(values.shape)


def _products(nodes: Any, weights: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, int]], str]:
    """Of each weight whether it is [dim, classes] and what changes it before its product, its bias with a sign, and the
    weight of the last product, "" if that does not enter as it is stored."""
    made = {output: node for node in nodes for output in node.output}
    added = {name: node for node in nodes if node.op_type in ("Add", "Sub") for name in node.input}
    fixed = {*weights, ""}  # what is computed from weights alone; an input that is left out has no name
    # of a node's inputs first a matrix, then what is computed, last its factors
    likely = {name: 2 * (len(weight.dims) == 2 and min(weight.dims) > 1) for name, weight in weights.items()}
    turned: dict[str, tuple[bool, str]] = {}
    biases: dict[str, tuple[str, int]] = {}
    head = ""
    for node in nodes:
        if fixed.issuperset(node.input) and (node.input or node.op_type == "Constant"):
            fixed |= set(node.output)
        if not re.search("MatMul|Gemm|Conv|Einsum", node.op_type):
            continue
        head = ""
        if node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
            continue  # quantised or fused: if it is the last, the head is not known
        name, between = node.input[1], ""
        is_plain = not any(held.name == "transB" and held.i for held in node.attribute)
        is_turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and is_plain)
        for _ in nodes:  # a torn graph may run in circles
            maker = made.get(name)
            if name in weights or name not in fixed or maker is None or not maker.input:
                break
            is_turned ^= maker.op_type == "Transpose"
            name = max(maker.input, key=lambda n: likely.get(n, 1))
            between = between if maker.op_type in PASSING else maker.op_type
        shape = weights[name].dims if name in weights else ()
        if len(shape) == 2 or (node.op_type == "Conv" and set(shape[2:]) == {1}):
            turned[name] = is_turned, between and f"{between} of the model before its product is left out"
            head = "" if between else name
            sums = [added[output] for output in node.output if output in added]
            signs = {n: 1 - 2 * (one.op_type == "Sub") for one in sums for n in one.input}
            beside = dict.fromkeys(node.input[2:], 1) | signs
            biases.update((name, one) for one in beside.items() if one[0] in weights)
    return turned, biases, head
