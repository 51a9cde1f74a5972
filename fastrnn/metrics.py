"""Metrics: numbers that say how good predictions are, by Keras's names and meaning."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastrnn import losses
from fastrnn.losses import check_labels, check_predictions, check_targets


class Metric(Protocol):
    """From targets and predictions to a number, a mean over the rows."""

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike, /) -> float: ...


def binary_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The share of entries where ``y_pred > 0.5`` is `y_true` (0 or 1)."""
    predictions = check_predictions(y_pred)
    return float(np.mean((predictions > 0.5) == check_targets(y_true, predictions)))


def sparse_categorical_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The share of rows whose greatest entry stands at the class number in `y_true`."""
    predictions = check_predictions(y_pred)
    labels = check_labels(y_true, predictions)
    return float(np.mean(predictions.argmax(axis=-1).reshape(-1) == labels))


def categorical_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The share of rows whose greatest entry stands where that of `y_true` (one-hot) does."""
    predictions = check_predictions(y_pred)
    targets = check_targets(y_true, predictions)
    return float(np.mean(predictions.argmax(axis=-1) == targets.argmax(axis=-1)))


def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Keras's "accuracy": which of the three above follows from the shapes.

    One number for each prediction: binary, thresholded at 0.5. Class numbers in `y_true`, which
    has an axis less or a last axis of 1: sparse categorical. Otherwise categorical.
    """
    true, predicted = np.shape(y_true), np.shape(y_pred)
    if len(predicted) < 2 or predicted[-1] == 1:
        return binary_accuracy(y_true, y_pred)
    if len(true) < len(predicted) or true[-1] == 1:
        return sparse_categorical_accuracy(y_true, y_pred)
    return categorical_accuracy(y_true, y_pred)


_METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "binary_accuracy": binary_accuracy,
    "sparse_categorical_accuracy": sparse_categorical_accuracy,
    "categorical_accuracy": categorical_accuracy,
}


def get_metric(metric: str | Metric) -> Metric:
    """The metric of that name, a loss's name too, or the callable itself.

    Raises ValueError for an unknown name and TypeError for another object.
    """
    if isinstance(metric, str):
        if metric in _METRICS:
            return _METRICS[metric]
        if metric in losses.NAMES:
            return losses.get(metric)
        raise ValueError(
            f"metrics: expected among {', '.join([*_METRICS, *losses.NAMES])}, got {metric!r}"
        )
    if isinstance(metric, type) or not callable(metric):
        raise TypeError(f"metrics: expected a name or a function, got {metric!r}")
    return metric
