"""Embedding: from integer ids to rows of a trainable table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import _core
from fastrnn.checks import check_dtype, check_entries, check_seed, check_size
from fastrnn.initializers import uniform
from fastrnn.layers.base import Layer, single_use
from fastrnn.parameter import Array, Parameter, as_rows


class Distinct(NamedTuple):
    """table[ids] is an embedding of many ids; `pullback` takes the table's gradient."""

    table: Array  # (rows, embedding_dim)
    ids: NDArray[np.int64]
    pullback: Callable[[Array], None]


class Embedding(Layer):
    """y[...] = weight[x[...]] for integer ids x of any shape; y is (..., embedding_dim).

    ``weight`` (num_embeddings, embedding_dim) starts as U(-0.05, 0.05). Raises TypeError for ids
    that are not integers, ValueError for an id out of range or no ids at all.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = check_size(num_embeddings, "num_embeddings")
        self.embedding_dim = check_size(embedding_dim, "embedding_dim")
        self.dtype = check_dtype(dtype)
        self.seed = check_seed(seed)
        shape = (self.num_embeddings, self.embedding_dim)
        check_entries("num_embeddings", shape)
        self.weight = Parameter(uniform(shape, 0.05, self.dtype, np.random.default_rng(self.seed)))
        self._parameters["weight"] = self.weight

    def __call__(self, x: ArrayLike) -> Array:
        """The rows of the table, shape (..., embedding_dim)."""
        return self._take(self._check(x))

    def vjp(self, x: ArrayLike) -> tuple[Array, Callable[[Array], None]]:
        """The rows and their pullback: dy (..., embedding_dim) to None, ids having no gradient."""
        ids = self._check(x)  # the caller may reuse the memory of x before the pullback is called
        y = self._take(ids)

        def pullback(dy: Array) -> None:
            grad = np.zeros(self.weight.shape, self.dtype)
            _core.add_rows_at(as_rows(dy), ids.reshape(-1), grad)  # in the order of the ids
            self.weight.add_grad(grad)

        return y, single_use(pullback, y.shape, self.dtype)

    def distinct(self, x: ArrayLike) -> Distinct | None:
        """The rows for which there are ids, once each, so that what follows need do its work once
        for each of them; None where most ids have a row of their own.
        """
        ids = self._check(x)
        if 2 * self.num_embeddings <= ids.size:
            return Distinct(self.weight.snapshot(), ids, self.weight.add_grad)
        if self.num_embeddings > 64 * ids.size:
            return None  # to look at all rows would take longer than it saves
        place = np.zeros(self.num_embeddings, np.int64)
        place[ids] = 1
        used = np.flatnonzero(place)
        if 2 * used.size > ids.size:
            return None
        place[used] = np.arange(used.size)

        def pullback(dtable: Array) -> None:
            grad = np.zeros(self.weight.shape, self.dtype)
            grad[used] = dtable
            self.weight.add_grad(grad)

        return Distinct(self.weight.data[used], place[ids], pullback)

    def _take(self, ids: NDArray[np.int64]) -> Array:
        y = _core.empty((ids.size, self.embedding_dim), self.dtype == np.float64)
        # "clip" copies into y at once, where "raise" takes a copy first; the ids are checked.
        np.take(self.weight.data, ids.reshape(-1), axis=0, out=y, mode="clip")
        return y.reshape(*ids.shape, self.embedding_dim)

    def _check(self, x: ArrayLike) -> NDArray[np.int64]:
        """The ids as a new array."""
        array = np.asarray(x)
        if array.dtype.kind not in "iu":
            raise TypeError(f"x: expected integer ids, got {array.dtype}")
        if array.size == 0:
            raise ValueError(f"x: expected at least one id, got shape {array.shape}")
        ids = _core.ids(array, self.num_embeddings)
        if ids is None:
            bad = array.min() if array.min() < 0 else array.max()
            raise ValueError(f"x: expected ids from 0 to {self.num_embeddings - 1}, got {bad}")
        return ids

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.embedding_dim)

    def config(self) -> dict[str, Any]:
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.dtype.name,
            "seed": self.seed,
        }
