"""The operators around recurrent ones, in NumPy, as opset 22 has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fastrnn import _core

A = NDArray[Any]


def _constant(a: dict[str, Any]) -> A:
    ((name, value),) = a.items()
    if name == "value":
        array: A = numpy_helper.to_array(value)
        return array
    dtypes = {"value_int": "i8", "value_ints": "i8", "value_float": "f4", "value_floats": "f4"}
    if name not in dtypes:
        raise ValueError(f"{name} is not supported")
    values: A = np.array(value, dtypes[name])
    return values


def _constant_of_shape(a: dict[str, Any], shape: A) -> A:
    value = numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    full: A = np.broadcast_to(value[0], tuple(shape))
    return full


def _dropout(a: dict[str, Any], x: A, ratio: A | None = None, training: A | None = None) -> Any:
    if training is not None and training:
        raise ValueError("training_mode: this is for inference")
    return x, np.ones(x.shape, np.bool_)


def _gemm(a: dict[str, Any], x: A, y: A, c: A | None = None) -> A:
    product: A = a["alpha"] * ((x.T if a["transA"] else x) @ (y.T if a["transB"] else y))
    return product if c is None else product + a["beta"] * c


def reshaped(a: dict[str, Any], shape: A, old: tuple[int, ...]) -> list[int]:
    """The new shape: 0 stands for the old size there, unless `allowzero`; -1 for the rest."""
    new = [old[i] if n == 0 and not a["allowzero"] else int(n) for i, n in enumerate(shape)]
    return [int(np.prod(old)) // -int(np.prod(new)) if n == -1 else n for n in new]


def _slice(a: dict[str, Any], x: A, starts: A, ends: A, axes: Any = None, steps: Any = None) -> A:
    at = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), int) if steps is None else steps
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        at[axis] = slice(*map(int, bounds))
    return x[tuple(at)]


def _softmax(a: dict[str, Any], x: A) -> A:
    y: A = np.exp(x - x.max(axis=a["axis"], keepdims=True))
    y /= y.sum(axis=a["axis"], keepdims=True)
    return y


# Each takes the attributes and the inputs, None for one that is left out; Dropout gives a tuple.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, x, y: x + y,
    "Cast": lambda a, x: x.astype(helper.tensor_dtype_to_np_dtype(a["to"])),
    "Concat": lambda a, *xs: np.concatenate(xs, axis=a["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "Equal": lambda a, x, y: x == y,
    "Expand": lambda a, x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))),
    "Gather": lambda a, x, at: np.take(x, at, axis=a["axis"]),
    "Gemm": _gemm,
    "Identity": lambda a, x: x,
    "Less": lambda a, x, y: x < y,
    "MatMul": lambda a, x, y: x @ y,
    "Mul": lambda a, x, y: x * y,
    "Relu": lambda a, x: np.maximum(x, 0),
    "Reshape": lambda a, x, shape: x.reshape(reshaped(a, shape, x.shape)),
    "Shape": lambda a, x: np.array(x.shape[a["start"] : a.get("end")], np.int64),
    "Sigmoid": lambda a, x: _core.sigmoid(x),
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": lambda a, x, axes=None: np.squeeze(x, None if axes is None else tuple(axes)),
    "Tanh": lambda a, x: _core.tanh(x),
    "Transpose": lambda a, x: np.transpose(x, a.get("perm")),
    "Unsqueeze": lambda a, x, axes: np.expand_dims(x, tuple(axes)),
    "Where": lambda a, chosen, x, y: np.where(chosen, x, y),
}
