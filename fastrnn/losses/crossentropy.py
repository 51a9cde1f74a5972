"""Cross-entropies: categorical, sparse, binary; of probabilities or of logits.

Without ``from_logits=True`` they take probabilities, which they clip to [1e-7, 1 - 1e-7], as Keras
does. NaN among the predictions makes the loss NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.checks import check_flag
from fastrnn.losses.base import Factors, Loss, each, quiet, total
from fastrnn.losses.checks import check_class_numbers, check_unit, shape_labels
from fastrnn.parameter import Array

EPSILON = 1e-7


class Crossentropy(Loss):
    """Base of the cross-entropies."""

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = check_flag(from_logits, "from_logits")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(from_logits={self.from_logits})"


class SparseCategoricalCrossentropy(Crossentropy):
    """Minus the log-probability of the right class, given as an integer.

    `y_true` holds class numbers, shape (...) or (..., 1); `y_pred` is (..., classes): logits, or
    probabilities, which are divided by their sum.
    """

    name = "sparse_categorical_crossentropy"
    over_classes = True

    def _targets(self, y_true: ArrayLike, y_pred: Array) -> NDArray[np.integer]:
        return shape_labels(y_true, y_pred)

    def _forward(
        self,
        targets: NDArray[np.integer],
        rows: Array,
        factors: Factors,
        gradient: Array | None,
    ) -> float:
        labels = check_class_numbers(targets, rows.shape[1])
        if self.from_logits:
            weights = None if isinstance(factors, float) else factors
            return _core.cross_entropy(rows, labels, weights, gradient)
        # Where in the flattened rows each row's own label stands.
        at = labels + np.arange(0, rows.size, rows.shape[1])
        picked = rows.reshape(-1)[at].astype(np.float64)
        sums = _probability_totals(rows)
        clipped, inside = _clip(picked / sums)
        if gradient is not None:
            gradient[...] = _column(inside * factors / sums, rows)
            gradient.reshape(-1)[at] -= inside * factors / (sums * clipped)
        return -total(np.log(clipped), factors)


class CategoricalCrossentropy(Crossentropy):
    """Cross-entropy between two distributions over classes, both (..., classes).

    `y_true` is one-hot or a distribution; `y_pred` logits, or probabilities, which are divided by
    their sum.
    """

    name = "categorical_crossentropy"
    over_classes = True

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        check_unit(targets, "y_true")
        if self.from_logits:
            top, exps, sums = _exp_parts(rows)
            mass = targets.sum(axis=1, dtype=np.float64)
            logits = np.einsum("ij,ij->i", targets, rows, dtype=np.float64)
            if gradient is not None:
                np.multiply(exps, _column(mass / sums, rows), out=gradient)
                np.subtract(gradient, targets, out=gradient)
                np.multiply(gradient, each(factors, rows.dtype), out=gradient)
            return total(mass * (np.log(sums) + top) - logits, factors)
        sums = _probability_totals(rows)
        probs = rows / _column(sums, rows)
        clipped, inside = _clip(probs)
        if gradient is not None:
            np.divide(inside * targets, clipped, out=gradient)
            np.subtract(np.einsum("ij,ij->i", gradient, probs)[:, None], gradient, out=gradient)
            np.multiply(gradient, _column(factors / sums, rows), out=gradient)
        return -total(np.sum(targets * np.log(clipped), axis=1, dtype=np.float64), factors)


class BinaryCrossentropy(Crossentropy):
    """Cross-entropy of yes-or-no targets (0 to 1), each entry of `y_pred` on its own.

    The shapes are the same, except that one of them may have a last axis of 1 more.
    """

    name = "binary_crossentropy"

    @quiet()
    def _forward(
        self, targets: Array, rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        check_unit(targets, "y_true")
        scale = 1 / rows.shape[1] * each(factors, rows.dtype)
        if self.from_logits:
            # -t log σ(x) - (1-t) log(1-σ(x)) = max(x, 0) - t x + log(1 + e^-|x|)
            losses = np.maximum(rows, 0) - targets * rows + np.log1p(np.exp(-np.abs(rows)))
            if gradient is not None:
                gradient[...] = rows
                np.subtract(sigmoid(gradient), targets, out=gradient)
                np.multiply(gradient, scale, out=gradient)
        else:
            clipped, inside = _clip(check_unit(rows, "y_pred"))
            losses = (targets - 1) * np.log1p(-clipped) - targets * np.log(clipped)
            if gradient is not None:
                slope = inside * (clipped - targets) * scale
                np.divide(slope, clipped * (1 - clipped), out=gradient)
        return total(losses, factors)


def softmax(x: Array) -> Array:
    """Overwrite `x` (..., classes), C-contiguous, with its softmax over the last axis."""
    _core.softmax(x.reshape(-1, x.shape[-1]))
    return x


def sigmoid(x: Array) -> Array:
    """Overwrite `x` with 1 / (1 + e^-x)."""
    x[...] = _core.sigmoid(x)
    return x


def _probability_totals(rows: Array) -> Array:
    totals: Array = check_unit(rows, "y_pred").sum(axis=1, dtype=np.float64)
    if totals.min() <= 0:
        raise ValueError("y_pred: expected probabilities, got a row that sums to 0")
    return totals


def _column(values: Array, rows: Array) -> Array:
    return values.astype(rows.dtype)[:, None]


def _exp_parts(rows: Array) -> tuple[Array, Array, Array]:
    """Of each row: its maximum, exp(row - maximum), and the sum of those."""
    top = rows.max(axis=1, keepdims=True)
    exps = rows - top
    np.exp(exps, out=exps)
    return top[:, 0].astype(np.float64), exps, exps.sum(axis=1).astype(np.float64)


def _clip(probs: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The values clipped to [EPSILON, 1 - EPSILON], and where clipping left them alone."""
    clipped = np.clip(probs, EPSILON, 1 - EPSILON)
    return clipped, clipped == probs
