"""A trainable array with its gradient and version, and arrays as rows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn._core import Trainable

Array = NDArray[np.floating]


class Parameter(Trainable):
    """A trainable array.

    ``data`` is a read-only view, to be asked for anew after a write. Writing goes through `assign`
    or `writing`, which count up ``version``, because packed copies of the weights are cached on it.
    ``grad`` is None until a gradient has been added since the last `zero_grad`, then an array of
    the same shape and dtype.
    """

    __slots__ = ("_data", "_lock", "_view")

    def __init__(self, value: ArrayLike, dtype: np.dtype | type | str | None = None) -> None:
        self._take(np.array(value, dtype=dtype, order="C"))
        self._lock = threading.Lock()

    def _take(self, data: NDArray[Any]) -> None:
        self._data = data
        # Through a read-only buffer: such a view cannot be made writable.
        flat = np.frombuffer(data.data.toreadonly().cast("B"), data.dtype)
        self._view = flat.reshape(data.shape)
        self._lent = self._view.view()  # a snapshot is a reference to it, `data` is not

    @property
    def data(self) -> Array:
        """The values, as a read-only view."""
        return self._view

    def snapshot(self) -> Array:
        """The values as they are now, read-only; whatever is written later does not show in it.

        It costs a copy only if something is written while it lives; views of it do not count. One
        that another thread takes within `writing` has a part of what is written there.
        """
        lent: Array = self._lent
        return lent

    def _writable(self) -> Array:
        with self._lock:
            if sys.getrefcount(self._lent) > 2:  # ours, its argument's, and a snapshot's
                self._take(self._data.copy())
            return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    @contextmanager
    def writing(self) -> Iterator[Array]:
        """The values as a writable array, for in-place updates; counts up the version after."""
        with writing_all([self]) as (data,):
            yield data

    def assign(self, value: ArrayLike, name: str = "value") -> None:
        """Overwrite the values; `value` must have the same shape, and is cast to the dtype. Another
        thread has them all as they were, or all as they are now.

        Raises ValueError for another shape, TypeError for values that are not real numbers.
        """
        new = np.asarray(value)
        if new.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, got an array of {new.dtype}")
        if new.shape != self.shape:
            raise ValueError(f"{name}: expected shape {self.shape}, got {new.shape}")
        self._store(new)

    def _store(self, values: Array) -> None:
        new = np.array(values, self.dtype, order="C")
        with self._lock:
            self._take(new)
            self.version += 1

    def add_grad(self, grad: Array) -> None:
        """Add `grad` (same shape and dtype, not used by the caller afterwards) to ``.grad``."""
        with self._lock:
            if not self._put_grad(grad):
                # Into the new one: the old one may be in someone else's hands.
                room = np.asarray(grad)
                before: Any = self.grad
                self.grad = np.add(before, room, out=room if room.flags.writeable else None)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    # A lock can be neither pickled nor deep-copied, so only the values travel.
    def __reduce__(self) -> tuple[type[Parameter], tuple[Array]]:
        return (Parameter, (self._data,))

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


@contextmanager
def writing_all(parameters: Sequence[Parameter]) -> Iterator[list[Array]]:
    """`Parameter.writing` of several at once."""
    try:
        yield [parameter._writable() for parameter in parameters]
    finally:
        for parameter in parameters:
            parameter.version += 1


def as_rows(array: Array) -> Array:
    """`array` as (rows, size of its last axis), C-contiguous and aligned; copied if need be."""
    return np.require(array.reshape(-1, array.shape[-1]), requirements=["C", "A"])
