"""Layer normalisation of rows (Ba, Kiros and Hinton 2016) and its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

EPSILON = 1e-5


def normalise(x: Array) -> tuple[Array, Array]:
    """Each row of x (n, k) less its mean, times rate = 1 / sqrt(variance + 1e-5); rate (n, 1)."""
    centred = x - x.mean(axis=1, keepdims=True)
    rate = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + x.dtype.type(EPSILON))
    return centred * rate, rate


def normalise_back(dnormal: Array, normal: Array, rate: Array) -> Array:
    """x's gradient, given that of `normalise`'s result."""
    mean = dnormal.mean(axis=1, keepdims=True)
    along = (dnormal * normal).mean(axis=1, keepdims=True)
    back: Array = rate * (dnormal - mean - normal * along)
    return back
