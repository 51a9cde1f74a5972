"""Losses of numbers: squared, absolute, and Huber's between them."""

from __future__ import annotations

import numpy as np

from fastrnn.checks import check_positive
from fastrnn.losses.base import Factors, Loss, each, quiet, total
from fastrnn.parameter import Array


class MeanSquaredError(Loss):
    """The mean of (y_pred - y_true)².

    The shapes are the same, except that one of them may have a last axis of 1 more.
    """

    name = "mean_squared_error"

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        difference = rows - targets
        if gradient is not None:
            np.multiply(difference, 2 / rows.shape[1] * each(factors, rows.dtype), out=gradient)
        return total(np.square(difference), factors)


class MeanAbsoluteError(Loss):
    """The mean of |y_pred - y_true|, with a gradient of 0 where they are equal; shapes as in
    `MeanSquaredError`."""

    name = "mean_absolute_error"

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        difference = rows - targets
        if gradient is not None:
            np.multiply(
                np.sign(difference), 1 / rows.shape[1] * each(factors, rows.dtype), out=gradient
            )
        return total(np.abs(difference), factors)


class Huber(Loss):
    """The mean of d²/2 where d = |y_pred - y_true| is at most `delta`, of delta d - delta²/2 where
    it is more (Huber 1964); shapes as in `MeanSquaredError`."""

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_positive(delta, "delta")

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        difference = rows - targets
        limited = np.clip(difference, -self.delta, self.delta)
        if gradient is not None:
            np.multiply(limited, 1 / rows.shape[1] * each(factors, rows.dtype), out=gradient)
        return total(limited * (difference - limited / 2), factors)

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta})"
