"""Losses with their gradients, and the softmax and sigmoid under them.

Names, defaults and meaning are Keras's: a loss is the mean over every entry of the batch (over
every label, for the categorical ones), and without ``from_logits=True`` a cross-entropy takes
probabilities, which it clips to [1e-7, 1 - 1e-7]. NaN among the predictions makes the loss NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.parameter import Array, as_rows

EPSILON = 1e-7
TOLERANCE = 1e-5  # how far rounding may take a probability out of [0, 1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Infinities and NaN show in the loss; NumPy need not warn of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        yield


class Loss:
    """Base of the losses; a subclass says in `_forward` what it computes.

    Calling gives the loss, `vjp` the loss and its gradient. All raise TypeError for a dtype and
    ValueError for a shape or a value that does not fit, naming ``y_true`` or ``y_pred``.
    """

    name: ClassVar[str]

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        return self._forward(y_true, check_predictions(y_pred), None)

    def vjp(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[float, Array]:
        """The loss and its gradient with respect to `y_pred`, of `y_pred`'s shape and dtype."""
        y_pred = check_predictions(y_pred)
        gradient = _core.empty((y_pred.size,), y_pred.dtype == np.float64).reshape(y_pred.shape)
        return self._forward(y_true, y_pred, gradient), gradient

    def _forward(self, y_true: ArrayLike, y_pred: Array, gradient: Array | None) -> float:
        """The loss; its gradient goes to `gradient`, C-contiguous, where it is wanted."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False) -> None:
        if not isinstance(from_logits, bool | np.bool_):
            raise TypeError(f"from_logits: expected True or False, got {from_logits!r}")
        self.from_logits = bool(from_logits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(from_logits={self.from_logits})"


class SparseCategoricalCrossentropy(_Crossentropy):
    """Minus the log-probability of the right class, given as an integer.

    `y_true` holds class numbers, shape (...) or (..., 1); `y_pred` is (..., classes): logits, or
    probabilities, which are divided by their sum.
    """

    name = "sparse_categorical_crossentropy"

    def _forward(self, y_true: ArrayLike, y_pred: Array, gradient: Array | None) -> float:
        labels = check_labels(y_true, y_pred)
        rows = as_rows(y_pred)
        grad = None if gradient is None else gradient.reshape(rows.shape)
        if self.from_logits:
            return _core.cross_entropy(rows, labels, grad)
        count = len(rows)
        # Where in the flattened rows each row's own label stands.
        at = labels + np.arange(0, rows.size, rows.shape[1])
        picked = rows.reshape(-1)[at].astype(np.float64)
        total = _probability_totals(rows)
        clipped, inside = _clip(picked / total)
        if grad is not None:
            grad[...] = _column(inside / (count * total), rows)
            grad.reshape(-1)[at] -= inside / (count * total * clipped)
        return -_mean(np.log(clipped))


class CategoricalCrossentropy(_Crossentropy):
    """Cross-entropy between two distributions over classes, both (..., classes).

    `y_true` is one-hot or a distribution; `y_pred` logits, or probabilities, which are divided by
    their sum.
    """

    name = "categorical_crossentropy"

    @_quiet()
    def _forward(self, y_true: ArrayLike, y_pred: Array, gradient: Array | None) -> float:
        targets = as_rows(_check_unit(check_targets(y_true, y_pred), "y_true"))
        rows = as_rows(y_pred)
        grad = None if gradient is None else gradient.reshape(rows.shape)
        count = len(rows)
        if self.from_logits:
            top, exps, total = _exp_parts(rows)
            weight = targets.sum(axis=1, dtype=np.float64)
            logits = np.einsum("ij,ij->i", targets, rows, dtype=np.float64)
            if grad is not None:
                np.multiply(exps, _column(weight / total, rows), out=grad)
                np.subtract(grad, targets, out=grad)
                np.divide(grad, count, out=grad)
            return _mean(weight * (np.log(total) + top) - logits)
        total = _probability_totals(rows)
        probs = rows / _column(total, rows)
        clipped, inside = _clip(probs)
        if grad is not None:
            np.divide(inside * targets, clipped, out=grad)
            np.subtract(np.einsum("ij,ij->i", grad, probs)[:, None], grad, out=grad)
            np.divide(grad, _column(count * total, rows), out=grad)
        return -float(np.sum(targets * np.log(clipped), dtype=np.float64)) / count


class BinaryCrossentropy(_Crossentropy):
    """Cross-entropy of yes-or-no targets (0 to 1), each entry of `y_pred` on its own.

    The shapes are the same, except that one of them may have a last axis of 1 more.
    """

    name = "binary_crossentropy"

    @_quiet()
    def _forward(self, y_true: ArrayLike, y_pred: Array, gradient: Array | None) -> float:
        targets = _check_unit(check_targets(y_true, y_pred), "y_true")
        if self.from_logits:
            # -t log σ(x) - (1-t) log(1-σ(x)) = max(x, 0) - t x + log(1 + e^-|x|)
            losses = np.maximum(y_pred, 0) - targets * y_pred + np.log1p(np.exp(-np.abs(y_pred)))
            if gradient is not None:
                gradient[...] = y_pred
                np.subtract(sigmoid(gradient), targets, out=gradient)
                np.divide(gradient, y_pred.size, out=gradient)
        else:
            clipped, inside = _clip(_check_unit(y_pred, "y_pred"))
            losses = (targets - 1) * np.log1p(-clipped) - targets * np.log(clipped)
            if gradient is not None:
                slope = inside * (clipped - targets)
                np.divide(slope, clipped * (1 - clipped) * y_pred.size, out=gradient)
        return _mean(losses)


class MeanSquaredError(Loss):
    """The mean of (y_pred - y_true)²; shapes as in `BinaryCrossentropy`."""

    name = "mean_squared_error"

    @_quiet()
    def _forward(self, y_true: ArrayLike, y_pred: Array, gradient: Array | None) -> float:
        difference = y_pred - check_targets(y_true, y_pred)
        if gradient is not None:
            np.multiply(difference, 2.0 / y_pred.size, out=gradient)
        return _mean(np.square(difference))


_LOSSES: dict[str, type[Loss]] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "bce": BinaryCrossentropy,
    "mse": MeanSquaredError,
}


NAMES = tuple(_LOSSES)


def get(loss: str | Loss, *, from_logits: bool = False) -> Loss:
    """The loss of that name (Keras's, "mse" too), or the object itself (callable, with `vjp`).

    `from_logits` is for the cross-entropies among the names. Raises ValueError for an unknown
    name and TypeError for another object.
    """
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(NAMES)}, got {loss!r}")
        kind = _LOSSES[loss]
        return kind(from_logits) if issubclass(kind, _Crossentropy) else kind()
    if isinstance(loss, type) or not callable(loss) or not hasattr(loss, "vjp"):
        raise TypeError(f"loss: expected a name or a loss object with vjp, got {loss!r}")
    return loss


def softmax(x: Array) -> Array:
    """Overwrite `x` (..., classes), C-contiguous, with its softmax over the last axis."""
    _core.softmax(x.reshape(-1, x.shape[-1]))
    return x


def sigmoid(x: Array) -> Array:
    """Overwrite `x` with 1 / (1 + e^-x)."""
    x[...] = _core.sigmoid(x)
    return x


def check_predictions(y_pred: ArrayLike) -> Array:
    """`y_pred` as an array: not empty, of float32 or float64."""
    array = np.asarray(y_pred)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"y_pred: expected float32 or float64, got {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"y_pred: expected at least one row of entries, got shape {array.shape}")
    return cast(Array, array)


def check_labels(y_true: ArrayLike, y_pred: Array) -> NDArray[np.int64]:
    """`y_true`, class numbers for `y_pred` (..., classes), as a new flat array."""
    array = np.asarray(y_true)
    if array.dtype.kind not in "iu":
        raise TypeError(f"y_true: expected integer class numbers, got {array.dtype}")
    leading, classes = y_pred.shape[:-1], y_pred.shape[-1]
    if array.shape not in (leading, (*leading, 1)):
        raise ValueError(
            f"y_true: expected shape {leading}, class numbers for y_pred {y_pred.shape}, "
            f"got {array.shape}"
        )
    labels = _core.ids(array, classes)
    if labels is None:
        bad = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"y_true: expected class numbers from 0 to {classes - 1}, got {bad}")
    return labels.reshape(-1)


def check_targets(y_true: ArrayLike, y_pred: Array) -> Array:
    """`y_true` in `y_pred`'s shape and dtype; a last axis of 1 may be missing or too many."""
    array = np.asarray(y_true)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"y_true: expected real numbers, got {array.dtype}")
    got, want = array.shape, y_pred.shape
    if got != want and (*got, 1) != want and got != (*want, 1):
        raise ValueError(f"y_true: expected shape {want} as y_pred has, got {got}")
    return array.reshape(want).astype(y_pred.dtype, copy=False)


def _check_unit(array: Array, name: str) -> Array:
    low, high = float(array.min()), float(array.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        hint = "; logits need from_logits=True" if name == "y_pred" else ""
        raise ValueError(f"{name}: expected values from 0 to 1, got {low:.6g} to {high:.6g}{hint}")
    return array


def _probability_totals(rows: Array) -> Array:
    totals: Array = _check_unit(rows, "y_pred").sum(axis=1, dtype=np.float64)
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


def _mean(losses: Array) -> float:
    return float(np.mean(losses, dtype=np.float64))
