"""Losses of numbers: squared, absolute, and Huber's between them."""

from __future__ import annotations

import numpy as np

from fastrnn.checks import check_positive
from fastrnn.losses.base import Factors, Loss, each, quiet, total
from fastrnn.parameter import Array


class _OfDifference(Loss):
    """The mean of a function of y_pred - y_true."""

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        losses, slopes = self._function(rows - targets)
        if gradient is not None:
            np.multiply(slopes, each(factors, rows.dtype) / rows.shape[1], out=gradient)
        return total(losses, factors)

    def _function(self, difference: Array) -> tuple[Array, Array]:
        """The function and its derivative."""
        raise NotImplementedError


class MeanSquaredError(_OfDifference):
    """The mean of (y_pred - y_true)².

    The shapes are the same, except that one of them may have a last axis of 1 more.
    """

    name = "mean_squared_error"

    def _function(self, difference: Array) -> tuple[Array, Array]:
        return np.square(difference), 2 * difference


class MeanAbsoluteError(_OfDifference):
    """The mean of |y_pred - y_true|, with a gradient of 0 where they are equal; shapes as in
    `MeanSquaredError`."""

    name = "mean_absolute_error"

    def _function(self, difference: Array) -> tuple[Array, Array]:
        return np.abs(difference), np.sign(difference)


class Huber(_OfDifference):
    """The mean of d²/2 where d = |y_pred - y_true| is at most `delta`, of delta d - delta²/2 where
    it is more (Huber 1964); shapes as in `MeanSquaredError`."""

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_positive(delta, "delta")

    def _function(self, difference: Array) -> tuple[Array, Array]:
        limited = np.clip(difference, -self.delta, self.delta)
        return limited * (difference - limited / 2), limited

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta})"
