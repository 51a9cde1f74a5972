"""Arguments of the reference, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def checked(
    name: str, value: ArrayLike, shape: tuple[int | None, ...], dtype: np.dtype | None = None
) -> Array:
    """`value` as an array of `dtype`, whose shape must be `shape` (None in it: any size)."""
    array = np.asarray(value, dtype)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    fits = [want in (None, got) for want, got in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or not all(fits):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name}: expected shape {wanted}, got {array.shape}")
    return array


def or_zeros(name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """`checked`, with None for zeros."""
    return np.zeros(shape, dtype) if value is None else checked(name, value, shape, dtype)


def checked_lengths(lengths: ArrayLike | None, batch: int, time: int) -> NDArray[np.intp]:
    """`lengths` as integers (B,); None is T for every row."""
    array = np.full(batch, time) if lengths is None else np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got an array of {array.dtype}")
    if array.shape != (batch,) or not np.all((array >= 0) & (array <= time)):
        raise ValueError(f"lengths: expected {batch} integers from 0 to {time}, got {array}")
    return array.astype(np.intp)
