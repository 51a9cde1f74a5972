"""DotAttention: every step of one sequence looks at all steps of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn.checks import check_dtype, check_size
from fastrnn.layers.base import Layer, single_use
from fastrnn.layers.dense import Dense, matmul
from fastrnn.losses import softmax
from fastrnn.parameter import Array

Pullback = Callable[[Array], tuple[Array, Array]]


class DotAttention(Layer):
    """Global attention with the dot score (Luong, Pham and Manning 2015, equations 5 to 8).

    For each step q of `queries`, over the steps m_s of `memory` that are within the row's length:
    a_s = softmax_s(q · m_s), context c = Σ_s a_s m_s, and y = tanh(W [c; q]). ``weight`` is W
    (hidden_size, 2 * hidden_size), Glorot uniform. A row's results do not depend on padding or on
    what else is in the batch.
    """

    def __init__(
        self, hidden_size: int, *, dtype: DTypeLike = "float32", seed: int | None = None
    ) -> None:
        super().__init__()
        self.hidden_size = check_size(hidden_size, "hidden_size")
        self.dtype = check_dtype(dtype)
        self._dense = Dense(
            2 * self.hidden_size, self.hidden_size, "tanh", bias=False, dtype=dtype, seed=seed
        )
        self.seed = self._dense.seed
        self._parameters = self._dense.parameters()

    def __call__(  # type: ignore[override]
        self, queries: Array, memory: Array, lengths: ArrayLike | None = None
    ) -> Array:
        """y (batch, steps, hidden_size).

        queries: (batch, steps, hidden_size); memory: (batch, time, hidden_size); lengths: of
        memory's rows, (batch,) integers from 1 to time, None for all of it. Raises ValueError or
        TypeError, naming the argument, for what does not fit.
        """
        queries, memory, valid = self._check(queries, memory, lengths)
        weights = _weights(queries, memory, valid)
        return self._dense(np.concatenate([_products(weights, memory), queries], axis=2))

    def vjp(  # type: ignore[override]
        self, queries: Array, memory: Array, lengths: ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """y and its pullback: dy (batch, steps, hidden_size) to dqueries and dmemory."""
        queries, memory, valid = self._check(queries, memory, lengths)
        weights = _weights(queries, memory, valid)
        context = _products(weights, memory)
        y, dense_pullback = self._dense.vjp(np.concatenate([context, queries], axis=2))

        def pullback(dy: Array) -> tuple[Array, Array]:
            dboth = dense_pullback(dy)
            dcontext = np.ascontiguousarray(dboth[..., : self.hidden_size])
            # Of the softmax: a_s (da_s - Σ a da), where da_s = dc · m_s, so Σ a da = dc · c: a sum
            # over units, which does not depend on how far the memory is padded.
            dscores = _products(dcontext, memory.swapaxes(1, 2))
            dscores -= np.sum(dcontext * context, axis=2, keepdims=True)
            dscores *= weights
            dmemory = _products(weights.swapaxes(1, 2), dcontext)
            dmemory += _products(dscores.swapaxes(1, 2), queries)
            return dboth[..., self.hidden_size :] + _products(dscores, memory), dmemory

        return y, single_use(pullback, y.shape, self.dtype)

    def _check(
        self, queries: Any, memory: Any, lengths: ArrayLike | None
    ) -> tuple[Array, Array, NDArray[np.bool_] | None]:
        """The arrays, and which steps of the memory count, (batch, time)."""
        queries = self._check_array(queries, "queries", "batch", "steps")
        memory = self._check_array(memory, "memory", len(queries), "time")
        if lengths is None:
            return queries, memory, None
        ends, (batch, time) = np.asarray(lengths), memory.shape[:2]
        if ends.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected integers, got {ends.dtype}")
        if ends.shape != (batch,):
            raise ValueError(f"lengths: expected ({batch},), got {ends.shape}")
        if ends.min() < 1 or ends.max() > time:
            bad = ends.min() if ends.min() < 1 else ends.max()
            raise ValueError(f"lengths: expected 1 to {time}, got {bad}")
        return queries, memory, np.arange(time) < ends[:, None]

    def _check_array(self, value: Any, name: str, batch: int | str, axis: str) -> Array:
        array: Array = np.asarray(value)
        fits = array.ndim == 3 and array.shape[2] == self.hidden_size and array.size
        if not fits or (isinstance(batch, int) and len(array) != batch):
            raise ValueError(
                f"{name}: expected ({batch}, {axis}, {self.hidden_size}), got {array.shape}"
            )
        if array.dtype != self.dtype:
            raise TypeError(
                f"{name}: expected {self.dtype}, got {array.dtype}; "
                f"convert with {name}.astype({self.dtype.name!r})"
            )
        return array

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if len(input_shape) != 3 or input_shape[2] != self.hidden_size:
            raise ValueError(
                f"input_shape: expected (batch, steps, {self.hidden_size}), got {input_shape}"
            )
        return input_shape

    def config(self) -> dict[str, Any]:
        return {"hidden_size": self.hidden_size, "dtype": self.dtype.name, "seed": self.seed}


def _weights(queries: Array, memory: Array, valid: NDArray[np.bool_] | None) -> Array:
    """What each step of the queries takes of each step of the memory, (batch, steps, time)."""
    scores = _products(queries, memory.swapaxes(1, 2))
    if valid is not None:
        np.copyto(scores, -np.inf, where=~valid[:, None])
    return softmax(scores)


def _products(a: Array, b: Array) -> Array:
    """Each row's product: a (batch, n, k), b (batch, k, m), either possibly transposed."""
    products = np.empty((len(a), a.shape[1], b.shape[2]), a.dtype)
    for to, left, right in zip(products, a, b, strict=True):
        to[...] = matmul(left, right)
    return products
