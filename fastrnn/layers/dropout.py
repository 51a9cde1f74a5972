"""Dropout: random zeros in training, the identity in inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn.checks import check_probability, check_seed
from fastrnn.layers.base import Layer, single_use
from fastrnn.parameter import Array


class Dropout(Layer):
    """Inverted dropout (Srivastava et al. 2014): `vjp` sets each value to zero with probability
    `p` and divides the rest by 1 - p; calling returns its input.

    Takes float32 and float64 of any shape: TypeError for other arrays, ValueError for empty ones.
    """

    def __init__(self, p: float, *, seed: int | None = None) -> None:
        super().__init__()
        self.p = check_probability(p, "p")
        self.seed = check_seed(seed)
        self._rng = np.random.Generator(np.random.PCG64(self.seed))

    def __call__(self, x: Array) -> Array:
        """`x` itself."""
        return _check(x)

    def vjp(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """`x` with dropout, and the pullback, which drops and scales the same places of dy."""
        x = _check(x)
        # One call is one turn of the generator's own lock, so threads never share draws.
        kept = self._rng.random(x.shape, dtype=np.float32) >= np.float32(self.p)
        factor = np.multiply(kept, 1 / (1 - self.p), dtype=x.dtype)
        return x * factor, single_use(lambda dy: dy * factor, x.shape, x.dtype)

    def random_state(self) -> Any:
        return self._rng.bit_generator.state

    def set_random_state(self, state: Any) -> None:
        self._rng.bit_generator.state = state

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def config(self) -> dict[str, Any]:
        return {"p": self.p, "seed": self.seed}


def _check(x: Array) -> Array:
    array = np.asarray(x)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"x: expected float32 or float64, got {array.dtype}")
    if array.size == 0:
        raise ValueError(f"x: expected at least one value, got shape {array.shape}")
    return array
