"""What weights start from."""

from __future__ import annotations

import numpy as np

from fastrnn.parameter import Array

Shape = tuple[int, ...]

KERNEL = ("uniform", "glorot_uniform", "orthogonal", "zeros")
RECURRENT = (*KERNEL, "identity")
BIAS = ("uniform", "zeros")


def uniform(shape: Shape, bound: float, dtype: np.dtype, rng: np.random.Generator) -> Array:
    """Values from U(-bound, bound)."""
    return rng.uniform(-bound, bound, shape).astype(dtype)


def glorot_uniform(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> Array:
    """U(-a, a) with a = sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    return uniform(shape, float(np.sqrt(6.0 / sum(shape))), dtype, rng)


def orthogonal(shape: Shape, dtype: np.dtype, rng: np.random.Generator) -> Array:
    """A random matrix, orthonormal along its shorter axis (Saxe, McClelland and Ganguli 2014)."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.where(np.diag(r) < 0, -1, 1)  # so that all of them are equally likely
    return (q if rows >= columns else q.T).astype(dtype)


def identity(shape: Shape, dtype: np.dtype) -> Array:
    """The unit matrix (columns, columns), once for each of the gates that the rows are."""
    rows, columns = shape
    return np.tile(np.eye(columns, dtype=dtype), (rows // columns, 1))


def normalisation(shape: Shape, dtype: np.dtype) -> Array:
    """Ones, of (2, columns) with zeros in the second row: what leaves normalised values alone."""
    values = np.ones(shape, dtype)
    if len(shape) == 2:
        values[1] = 0
    return values


def named(
    name: str, shape: Shape, bound: float, dtype: np.dtype, rng: np.random.Generator
) -> Array:
    """One of `RECURRENT`; `bound` is uniform's."""
    if name == "zeros":
        return np.zeros(shape, dtype)
    if name == "identity":
        return identity(shape, dtype)
    if name == "orthogonal":
        return orthogonal(shape, dtype, rng)
    if name == "glorot_uniform":
        return glorot_uniform(shape, dtype, rng)
    return uniform(shape, bound, dtype, rng)
