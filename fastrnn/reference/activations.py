"""The functions that gates and states pass through, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)), elementwise; far below 0 exp overflows to inf, and 1/inf is right."""
    out = np.empty_like(x) if out is None else out
    np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


def tanh(x: Array, out: Array | None = None) -> Array:
    return np.tanh(x, out=out)


def relu(x: Array, out: Array | None = None) -> Array:
    return np.maximum(x, 0, out=out)


def hard_sigmoid(x: Array, out: Array | None = None) -> Array:
    """x / 6 + 1/2 between 0 and 1, as PyTorch and Keras 3 have it."""
    out = np.divide(x, 6, out=out)
    out += 0.5
    return np.clip(out, 0, 1, out=out)


def identity(x: Array, out: Array | None = None) -> Array:
    return np.positive(x, out=out)


@dataclass(frozen=True)
class Activation:
    """``f(x, out=None)``, and ``slope(y)``, its derivative where f(x) is y."""

    f: Callable[..., Array]
    slope: Callable[[Array], Array]

    def clipped(self, clip: float) -> Activation:
        """f of x limited to [-clip, clip]; where it is limited the derivative is zero."""
        low, high = (self.f(np.array([end])) for end in (-clip, clip))

        def f(x: Array, out: Array | None = None) -> Array:
            return self.f(np.clip(x, -clip, clip, out=out), out=out)

        def slope(y: Array) -> Array:
            return self.slope(y) * ((y > low.astype(y.dtype)) & (y < high.astype(y.dtype)))

        return Activation(f, slope)


ACTIVATIONS = {
    "tanh": Activation(tanh, lambda y: 1 - y**2),
    "sigmoid": Activation(sigmoid, lambda y: y * (1 - y)),
    "relu": Activation(relu, lambda y: (y > 0).astype(y.dtype)),
    "hard_sigmoid": Activation(
        hard_sigmoid, lambda y: ((y > 0) & (y < 1)).astype(y.dtype) / y.dtype.type(6)
    ),
    "identity": Activation(identity, np.ones_like),
}
