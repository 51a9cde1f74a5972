"""Metrics: numbers that say how good predictions are, by Keras's names and meaning.

A metric is over many batches what it would be over all their rows at once: batches add up the sums
that it is made of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import losses
from fastrnn.losses import Loss, SparseCategoricalCrossentropy
from fastrnn.losses.checks import check_labels, check_predictions, check_targets

Function = Callable[[ArrayLike, ArrayLike], float]


class Metric:
    """Base of the metrics: what to sum up over the rows, and what number the sums make."""

    def sums(self, y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
        """The sums over the rows of these arrays; those of several batches may be added."""
        raise NotImplementedError

    def result(self, sums: NDArray[np.float64]) -> float:
        """The metric of all the rows that are in the `sums`."""
        raise NotImplementedError

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        return self.result(self.sums(y_true, y_pred))


class Mean(Metric):
    """The mean over the rows of what `function`, from targets and predictions to a number, gives
    as the mean of a batch."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def sums(self, y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
        shape = np.shape(y_pred)
        rows = math.prod(shape[:-1]) if len(shape) > 1 else math.prod(shape)
        return np.array([rows * float(self.function(y_true, y_pred)), rows])

    def result(self, sums: NDArray[np.float64]) -> float:
        return float(sums[0] / sums[1])

    def __repr__(self) -> str:
        return f"Mean({getattr(self.function, '__name__', self.function)})"


class _CrossEntropyOfLabels(Mean):
    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = from_logits
        super().__init__(SparseCategoricalCrossentropy(from_logits))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(from_logits={self.from_logits})"


class Perplexity(_CrossEntropyOfLabels):
    """e to the mean cross-entropy of class numbers: among how many equally likely classes the
    model would be as undecided. `from_logits` as in `SparseCategoricalCrossentropy`."""

    def result(self, sums: NDArray[np.float64]) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(super().result(sums)))


class BitsPerCharacter(_CrossEntropyOfLabels):
    """The mean cross-entropy of class numbers, in bits. `from_logits` as in `Perplexity`."""

    def result(self, sums: NDArray[np.float64]) -> float:
        return super().result(sums) / math.log(2)


class F1Score(Metric):
    """The harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn), 0 for none of all three.

    Shapes tell as in `accuracy` what is predicted. For yes or no it is that of yes, which is a
    prediction above `threshold`, 0.5 unless given. For classes each row's greatest entry counts,
    with a `threshold` and targets of predictions' shape every entry above it (several labels to a
    row); the classes' scores are joined by `average`: "macro", their mean; "weighted", that
    weighted with how often each occurs in `y_true`; or "micro", the score of all counts together.
    """

    def __init__(self, average: str = "macro", threshold: float | None = None) -> None:
        if average not in ("macro", "micro", "weighted"):
            raise ValueError(f"average: expected macro, micro or weighted, got {average!r}")
        self.average = average
        self.threshold = threshold

    def sums(self, y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
        """True positives, false positives and false negatives of every class, (3, classes)."""
        predictions = check_predictions(y_pred)
        if _is_binary(predictions.shape):
            threshold = 0.5 if self.threshold is None else self.threshold
            predicted = (predictions > threshold).reshape(-1, 1)
            true = check_targets(y_true, predictions).reshape(-1, 1) > 0.5
        else:
            classes = predictions.shape[-1]
            if _is_sparse(np.shape(y_true), predictions.shape):
                true = _one_hot(check_labels(y_true, predictions), classes)
            else:
                true = check_targets(y_true, predictions).reshape(-1, classes) > 0.5
            rows = predictions.reshape(-1, classes)
            if self.threshold is None:
                predicted = _one_hot(rows.argmax(axis=1), classes)
            else:
                predicted = rows > self.threshold
        counts = (true & predicted, ~true & predicted, true & ~predicted)
        return np.array([np.sum(count, axis=0, dtype=np.float64) for count in counts])

    def result(self, sums: NDArray[np.float64]) -> float:
        if self.average == "micro":
            return float(_f1(sums.sum(axis=1)))
        occurs = sums[0] + sums[2] if self.average == "weighted" else np.ones(sums.shape[1])
        return float(np.dot(_f1(sums), occurs) / max(occurs.sum(), 1.0))

    def __repr__(self) -> str:
        return f"F1Score(average={self.average!r}, threshold={self.threshold})"


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    right, surplus, missed = counts
    score: NDArray[np.float64] = 2 * right / np.maximum(2 * right + surplus + missed, 1.0)
    return score


def _one_hot(labels: NDArray[np.integer], classes: int) -> NDArray[np.bool_]:
    hot: NDArray[np.bool_] = labels[:, None] == np.arange(classes)
    return hot


def _is_binary(predicted: tuple[int, ...]) -> bool:
    return len(predicted) < 2 or predicted[-1] == 1


def _is_sparse(true: tuple[int, ...], predicted: tuple[int, ...]) -> bool:
    return len(true) < len(predicted) or true[-1] == 1


def binary_accuracy(y_true: ArrayLike, y_pred: ArrayLike, threshold: float = 0.5) -> float:
    """The share of entries where ``y_pred > threshold`` is `y_true` (0 or 1)."""
    predictions = check_predictions(y_pred)
    return float(np.mean((predictions > threshold) == check_targets(y_true, predictions)))


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


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, threshold: float = 0.5) -> float:
    """Keras's "accuracy": which of the three above follows from the shapes.

    One number for each prediction: binary, by `threshold`. Class numbers in `y_true`, which
    has an axis less or a last axis of 1: sparse categorical. Otherwise categorical.
    """
    if _is_binary(np.shape(y_pred)):
        return binary_accuracy(y_true, y_pred, threshold)
    if _is_sparse(np.shape(y_true), np.shape(y_pred)):
        return sparse_categorical_accuracy(y_true, y_pred)
    return categorical_accuracy(y_true, y_pred)


_THRESHOLDED: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "binary_accuracy": binary_accuracy,
}
_FUNCTIONS: dict[str, Function] = {
    "sparse_categorical_accuracy": sparse_categorical_accuracy,
    "categorical_accuracy": categorical_accuracy,
}

NAMES = (
    *_THRESHOLDED,
    *_FUNCTIONS,
    "perplexity",
    "bits_per_character",
    "f1_score",
    "f1",
    *losses.NAMES,
)


def get(metric: str | Metric | Function, *, loss: Loss | None = None) -> Metric:
    """The metric of that name, a loss's name too, or the metric or function itself.

    With the `loss` of a model, names take logits where it does. Raises ValueError for an unknown
    name and TypeError for another object.
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str):
        if isinstance(metric, type) or not callable(metric):
            raise TypeError(f"metrics: expected a name or a function, got {metric!r}")
        return Mean(metric)
    from_logits = bool(getattr(loss, "from_logits", False))
    binary = isinstance(loss, losses.BinaryCrossentropy)
    yes = 0.0 if binary and from_logits else 0.5  # what lies above is taken for yes
    if metric in _THRESHOLDED:
        return Mean(functools.partial(_THRESHOLDED[metric], threshold=yes))
    if metric in _FUNCTIONS:
        return Mean(_FUNCTIONS[metric])
    if metric == "perplexity":
        return Perplexity(from_logits)
    if metric == "bits_per_character":
        return BitsPerCharacter(from_logits)
    if metric in ("f1", "f1_score"):
        return F1Score(threshold=yes if binary else None)
    if metric in losses.NAMES:
        return Mean(losses.get(metric, from_logits=from_logits))
    raise ValueError(f"metrics: expected among {', '.join(NAMES)}, got {metric!r}")
