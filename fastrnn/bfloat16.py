"""bfloat16: a float32 without the lower half of its bits; NumPy has no such dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.parameter import Array, Parameter


def to_bits(values: ArrayLike) -> NDArray[np.uint16]:
    """The nearest bfloat16 of real numbers, ties to even, as its 16 bits; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    rounded = bits + (0x7FFF + (bits >> 16 & 1))
    return (np.where(is_nan, bits | 0x400000, rounded) >> 16).astype(np.uint16)


def from_bits(bits: NDArray[Any]) -> NDArray[np.float32]:
    """Those numbers as float32, which has them all."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Bfloat16Parameter(Parameter):
    """Weights for inference, two bytes each: what is assigned is rounded, `data` is a float32 copy.

    They cannot be trained: `writing` raises ValueError.
    """

    __slots__ = ()

    def __init__(self, value: ArrayLike) -> None:
        super().__init__(to_bits(value))

    def _take(self, data: NDArray[Any]) -> None:
        super()._take(data)
        self._lent = None  # nobody is lent the bits

    @property
    def data(self) -> Array:
        widened = from_bits(self._data)
        widened.setflags(write=False)
        return widened

    def snapshot(self) -> Array:
        return self.data

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def _store(self, values: Array) -> None:
        self._take(to_bits(values))
        self.version += 1

    def _writable(self) -> Array:
        raise ValueError("weights of bfloat16 are for inference: train in float32, then to() them")

    def __reduce__(self) -> tuple[type[Parameter], tuple[Array]]:
        return (Bfloat16Parameter, (self.data,))
