"""Dense: an affine map of the last axis and an activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastrnn import _core, config
from fastrnn.checks import (
    check_dtype,
    check_entries,
    check_flag,
    check_input,
    check_seed,
    check_size,
)
from fastrnn.initializers import glorot_uniform
from fastrnn.layers.base import Layer, single_use
from fastrnn.losses import softmax
from fastrnn.parameter import Array, Parameter, as_rows

# Each activation may overwrite its argument; each derivative makes dz of y = act(z) and dy.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0, out=z), lambda y, dy: dy * (y > 0)),
    "tanh": (_core.tanh, lambda y, dy: dy * (1 - y * y)),
    "sigmoid": (_core.sigmoid, lambda y, dy: dy * y * (1 - y)),
    "softmax": (softmax, lambda y, dy: y * (dy - np.sum(y * dy, axis=-1, keepdims=True))),
}


class Dense(Layer):
    """y = activation(x Wᵀ + b) for x of shape (..., in_features).

    Of sequences (batch, time, in_features) each time step is mapped alike: what Keras wants
    TimeDistributed for.

    `activation` is None, "relu", "tanh", "sigmoid" or "softmax" (over the last axis). Parameters
    are PyTorch's: ``weight`` (out_features, in_features), Glorot uniform, and ``bias``
    (out_features), zero. What `vjp` was given and returned must not be written before its pullback
    is called. Raises ValueError or TypeError, naming the argument, for what does not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | None = None,
        *,
        bias: bool = True,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size(in_features, "in_features")
        self.out_features = check_size(out_features, "out_features")
        if activation not in (None, *_ACTIVATIONS):
            names = ", ".join(_ACTIVATIONS)
            raise ValueError(f"activation: expected None or one of {names}, got {activation!r}")
        check_flag(bias, "bias")
        self.activation = activation
        self.dtype = check_dtype(dtype)
        self.seed = check_seed(seed)
        shape = (self.out_features, self.in_features)
        check_entries("out_features", shape)
        rng = np.random.default_rng(self.seed)
        self.weight = Parameter(glorot_uniform(shape, self.dtype, rng))
        self.bias = Parameter(np.zeros(self.out_features, self.dtype)) if bias else None
        self._parameters["weight"] = self.weight
        if self.bias is not None:
            self._parameters["bias"] = self.bias

    def __call__(self, x: Array) -> Array:
        """y, shape (..., out_features)."""
        return self._forward(self._check(x), self.weight.data)

    def vjp(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """y and its pullback: dy (..., out_features) to dx (..., in_features)."""
        x = self._check(x)
        weight = self.weight.snapshot()  # an optimizer may step before the pullback is called
        y = self._forward(x, weight)

        def pullback(dy: Array) -> Array:
            dz = dy if self.activation is None else _ACTIVATIONS[self.activation][1](y, dy)
            dz_rows = as_rows(dz)
            self.weight.add_grad(matmul(dz_rows.T, x.reshape(-1, self.in_features)))
            if self.bias is not None:
                self.bias.add_grad(_core.sum_rows(dz_rows))
            return matmul(dz_rows, weight).reshape(x.shape)

        return y, single_use(pullback, y.shape, self.dtype)

    def _check(self, x: Array) -> Array:
        leading = (None,) * max(np.ndim(x) - 1, 0)
        return check_input(
            x, (*leading, self.in_features), self.dtype, f"(..., {self.in_features})"
        )

    def _forward(self, x: Array, weight: Array) -> Array:
        y = matmul(x.reshape(-1, self.in_features), weight.T)
        if self.bias is not None:
            _core.add_row(y, self.bias.data)
        if self.activation is not None:
            y = _ACTIVATIONS[self.activation][0](y)
        return y.reshape(*x.shape[:-1], self.out_features)

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if not input_shape or input_shape[-1] != self.in_features:
            raise ValueError(f"input_shape: expected (..., {self.in_features}), got {input_shape}")
        return (*input_shape[:-1], self.out_features)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": self.activation,
            "bias": self.bias is not None,
            "dtype": self.dtype.name,
            "seed": self.seed,
        }


def matmul(a: Array, b: Array) -> Array:
    """(n, k) by (k, m), either possibly transposed, by the provider of products over all steps."""
    if config.gemm() == "native":
        return _core.matmul(a, b)
    with np.errstate(all="ignore"):  # what is not finite passes without a word, as it does in C
        product: Array = np.matmul(a, b)
    return product
