"""What losses and metrics ask of targets, predictions, weights and masks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.parameter import Array

TOLERANCE = 1e-5  # how far rounding may take a probability out of [0, 1]


def check_predictions(y_pred: ArrayLike) -> Array:
    """`y_pred` as an array: not empty, of float32 or float64."""
    array = np.asarray(y_pred)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"y_pred: expected float32 or float64, got {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"y_pred: expected at least one row of entries, got shape {array.shape}")
    return cast(Array, array)


def shape_labels(y_true: ArrayLike, y_pred: Array) -> NDArray[np.integer]:
    """`y_true`, integers for `y_pred` (..., classes), as a flat array, whatever their values."""
    array = np.asarray(y_true)
    if array.dtype.kind not in "iu":
        raise TypeError(f"y_true: expected integer class numbers, got {array.dtype}")
    leading = y_pred.shape[:-1]
    if array.shape not in (leading, (*leading, 1)):
        raise ValueError(
            f"y_true: expected shape {leading}, class numbers for y_pred {y_pred.shape}, "
            f"got {array.shape}"
        )
    return array.reshape(-1)


def check_class_numbers(array: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """`array` as a new one of class numbers."""
    labels = _core.ids(array, classes)
    if labels is None:
        bad = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"y_true: expected class numbers from 0 to {classes - 1}, got {bad}")
    return labels


def check_labels(y_true: ArrayLike, y_pred: Array) -> NDArray[np.int64]:
    """`y_true`, class numbers for `y_pred` (..., classes), as a new flat array."""
    return check_class_numbers(shape_labels(y_true, y_pred), y_pred.shape[-1])


def check_targets(y_true: ArrayLike, y_pred: Array) -> Array:
    """`y_true` in `y_pred`'s shape and dtype; a last axis of 1 may be missing or too many."""
    array = np.asarray(y_true)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"y_true: expected real numbers, got {array.dtype}")
    got, want = array.shape, y_pred.shape
    if got != want and (*got, 1) != want and got != (*want, 1):
        raise ValueError(f"y_true: expected shape {want} as y_pred has, got {got}")
    return array.reshape(want).astype(y_pred.dtype, copy=False)


def check_unit(array: Array, name: str) -> Array:
    """`array`, whose values must be probabilities."""
    low, high = float(array.min()), float(array.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        hint = "; logits need from_logits=True" if name == "y_pred" else ""
        raise ValueError(f"{name}: expected values from 0 to 1, got {low:.6g} to {high:.6g}{hint}")
    return array


def check_weights(sample_weight: ArrayLike, leading: tuple[int, ...]) -> NDArray[np.float64]:
    """`sample_weight` for every entry of `leading`: of its shape, or of its first axes alone."""
    array = np.asarray(sample_weight)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight: expected real numbers, got {array.dtype}")
    return _spread(array, leading, "sample_weight").astype(np.float64)


def check_mask(mask: ArrayLike, leading: tuple[int, ...]) -> NDArray[np.bool_]:
    """`mask`, booleans, for every entry of `leading`, as `check_weights`."""
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: expected booleans, got {array.dtype}")
    return _spread(array, leading, "mask")


def _spread(array: NDArray[Any], leading: tuple[int, ...], name: str) -> NDArray[Any]:
    shape = array.shape[:-1] if array.shape == (*leading, 1) else array.shape
    # (batch, 1) beside (batch, time) is one for each row, as Keras takes it.
    if len(shape) == len(leading) > 1 and shape[1:] == (1,) * len(shape[1:]):
        shape = shape[:1]
    if not shape or shape != leading[: len(shape)]:
        raise ValueError(f"{name}: expected shape {leading} or {leading[:1]}, got {array.shape}")
    column = array.reshape(shape + (1,) * (len(leading) - len(shape)))
    return np.broadcast_to(column, leading)
