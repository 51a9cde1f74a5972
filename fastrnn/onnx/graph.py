"""A graph as its readers want it: checked, of one opset, with its attributes and constants."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import checker, defs, helper, numpy_helper, version_converter

OPSET, IR_VERSION = 22, 10
# What Python and NumPy raise where inputs or attributes are not as an operator wants them.
FAULTS = TypeError, ValueError, LookupError, ArithmeticError, AttributeError


def checked(model: str | os.PathLike[str] | Any) -> Any:
    """The model, from a file or a ModelProto, in OPSET.

    Raises OSError where there is no file, ValueError for one that is not valid or does not map,
    TypeError for neither a path nor a model.
    """
    if not isinstance(model, str | os.PathLike | onnx.ModelProto):
        raise TypeError(f"model: expected a path or a ModelProto, got {type(model).__name__}")
    name = "model" if isinstance(model, onnx.ModelProto) else model
    try:
        found = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
        checker.check_model(found)
        versions = {o.domain: o.version for o in found.opset_import}
        if versions.get("", versions.get("ai.onnx")) != OPSET:
            found = version_converter.convert_version(found, OPSET)
    except OSError:
        raise
    except Exception as error:  # protobuf's and ONNX's own, which have no common base
        raise ValueError(
            f"{name}: not a model that ONNX {onnx.__version__} takes ({error})"
        ) from None
    return found


def attributes(node: Any) -> dict[str, Any]:
    """The node's attributes, and the standard's defaults for the others that have one."""
    schema = defs.get_schema(node.op_type, OPSET)
    given = {
        name: helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }
    return given | {a.name: helper.get_attribute_value(a) for a in node.attribute}


def initializers(graph: Any) -> dict[str, NDArray[Any]]:
    """By name; ValueError for a sparse one, and one of no known dtype."""
    if graph.sparse_initializer:
        raise ValueError("model: sparse initializers are not supported")
    try:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except FAULTS as error:
        raise ValueError(f"model: its initializers are damaged ({error})") from None


def declared(value: Any) -> tuple[np.dtype, list[int | str]]:
    """Dtype and shape of a graph's input, a name or "?" for a size that is open."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or tensor.elem_type not in helper.get_all_tensor_dtypes():
        raise ValueError(f"input {value.name!r}: expected a tensor of known dtype and rank")
    shape = [
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    ]
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape


class NodeError(ValueError):
    """What a node is refused for; says which."""


def refuse(node: Any, why: Exception) -> NoReturn:
    """Raises a NodeError, which an error of the node's own is already."""
    if isinstance(why, NodeError):
        raise why
    name = node.name or next(filter(None, node.output), "")
    raise NodeError(f"node {name!r}, operator {node.op_type}: {why}") from None
