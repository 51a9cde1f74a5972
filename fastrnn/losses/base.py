"""What a loss is: a number and its gradient, over rows that may be weighted or masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.losses.checks import check_mask, check_predictions, check_targets, check_weights
from fastrnn.parameter import Array

Factors = float | NDArray[np.float64]  # what each row's loss counts: one number, or one each


class Loss:
    """Base of the losses.

    A loss is the mean over the rows of a batch: over `y_pred` (rows..., features), of what the last
    axis gives for each. Calling gives the loss, `vjp` the loss and its gradient. As in Keras,
    `sample_weight`, of the rows' shape or of its first axes ((batch,) for all time steps alike),
    multiplies each row's loss before the mean is taken; rows that `mask` (booleans, likewise) has
    False for count in no way, whatever they hold, and not in the mean. Without any row the loss is
    0. Raise TypeError for a dtype and ValueError for a shape or a value that does not fit, naming
    the argument.
    """

    name: ClassVar[str]
    aligned = True  # whether predictions and targets have the same time steps
    over_classes = False  # whether the last axis is one of classes: then one axis is one row

    def __call__(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> float:
        return self._evaluate(y_true, check_predictions(y_pred), sample_weight, mask, None)

    def vjp(
        self,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[float, Array]:
        """The loss and its gradient with respect to `y_pred`, of `y_pred`'s shape and dtype."""
        y_pred = check_predictions(y_pred)
        gradient = _core.empty((y_pred.size,), y_pred.dtype == np.float64).reshape(y_pred.shape)
        return self._evaluate(y_true, y_pred, sample_weight, mask, gradient), gradient

    def _evaluate(
        self,
        y_true: ArrayLike,
        y_pred: Array,
        sample_weight: ArrayLike | None,
        mask: ArrayLike | None,
        gradient: Array | None,
    ) -> float:
        """The loss; `gradient`, of y_pred's shape and C-contiguous, is filled where it is given."""
        by_entry = y_pred.ndim == 1 and not self.over_classes
        leading = y_pred.shape if by_entry else y_pred.shape[:-1]
        features = 1 if by_entry else y_pred.shape[-1]
        rows = np.require(y_pred.reshape(-1, features), requirements=["C", "A"])
        targets = self._targets(y_true, y_pred)
        filled = None if gradient is None else gradient.reshape(rows.shape)
        weights = (
            None if sample_weight is None else check_weights(sample_weight, leading).reshape(-1)
        )
        valid = None if mask is None else check_mask(mask, leading).reshape(-1)
        if valid is None or valid.all():
            return self._forward(targets, rows, _factors(weights, len(rows)), filled)
        if gradient is not None:
            gradient[...] = 0
        if not valid.any():
            return 0.0
        targets, rows = targets[valid], rows[valid]
        if weights is not None:
            weights = weights[valid]
        part = None if filled is None else np.empty_like(rows)
        loss = self._forward(targets, rows, _factors(weights, len(rows)), part)
        if filled is not None:
            filled[valid] = part
        return loss

    def _targets(self, y_true: ArrayLike, y_pred: Array) -> NDArray[Any]:
        """`y_true` with a row for each of y_pred's; their values are checked in `_forward`."""
        targets = check_targets(y_true, y_pred)
        return targets.reshape(-1, 1 if targets.ndim == 1 else targets.shape[-1])

    def _forward(
        self, targets: NDArray[Any], rows: Array, factors: Factors, gradient: Array | None
    ) -> float:
        """The sum of factor times loss over `rows` (n, features), at least one.

        `gradient` (n, features) is filled where it is given.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _factors(weights: NDArray[np.float64] | None, rows: int) -> Factors:
    return 1.0 / rows if weights is None else weights / rows


def each(factors: Factors, dtype: np.dtype) -> Array | float:
    """The factors to multiply rows (n, features) of `dtype` with."""
    return factors if isinstance(factors, float) else factors.astype(dtype)[:, None]


def total(losses: Array, factors: Factors) -> float:
    """The sum of factor times loss; `losses` (n,), or (n, features), of which rows are means."""
    if isinstance(factors, float):
        features = losses.shape[1] if losses.ndim == 2 else 1
        return float(np.sum(losses, dtype=np.float64)) * factors / features
    rows = losses if losses.ndim == 1 else losses.mean(axis=1, dtype=np.float64)
    return float(np.dot(factors, rows))


@contextmanager
def quiet() -> Iterator[None]:
    """Infinities and NaN show in the loss; NumPy need not warn of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        yield
