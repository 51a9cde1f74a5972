"""CTC: the loss of label sequences that are shorter than the predictions and not aligned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.checks import check_flag
from fastrnn.losses.base import Loss
from fastrnn.losses.checks import check_class_numbers, check_mask, check_weights
from fastrnn.parameter import Array


class CTC(Loss):
    """Connectionist temporal classification (Graves et al. 2006): minus the log-probability of all
    alignments of the labels with the time steps.

    `y_pred` holds logits, (batch, time, classes), of which class 0 is the blank; `y_true` labels,
    (batch, most labels), integers from 1 up, and 0 after a row's last. The loss is the mean over
    the rows of the batch, as in Keras (PyTorch's divides each row's by its number of labels first);
    `sample_weight` is (batch,), and `mask` (batch, time) has the valid steps first. A row with
    labels that its time steps cannot hold, one for each and one between two that are the same, is a
    ValueError, or with `zero_infinity` a loss of 0.
    """

    name = "ctc"
    aligned = False
    over_classes = True

    def __init__(self, zero_infinity: bool = False) -> None:
        self.zero_infinity = check_flag(zero_infinity, "zero_infinity")

    def _evaluate(
        self,
        y_true: ArrayLike,
        y_pred: Array,
        sample_weight: ArrayLike | None,
        mask: ArrayLike | None,
        gradient: Array | None,
    ) -> float:
        if y_pred.ndim != 3:
            raise ValueError(f"y_pred: expected (batch, time, classes), got {y_pred.shape}")
        batch, time, classes = y_pred.shape
        labels = _check_label_rows(y_true, batch, classes)
        label_lengths = np.count_nonzero(labels, axis=1)
        steps = _steps(mask, batch, time)
        impossible = steps < label_lengths + _repeats(labels)
        if impossible.any() and not self.zero_infinity:
            row = int(np.flatnonzero(impossible)[0])
            raise ValueError(
                f"y_true[{row}]: expected labels that {steps[row]} time steps can hold, got "
                f"{label_lengths[row]} of which {_repeats(labels)[row]} follow the same; "
                "zero_infinity=True leaves such rows out"
            )
        weights = np.ones(batch)
        if sample_weight is not None:
            weights = check_weights(sample_weight, (batch,)).copy()
        weights /= batch
        logits = np.require(y_pred, requirements=["C", "A"])
        losses = _core.ctc(logits, labels, steps, label_lengths, 0, weights, gradient)
        if self.zero_infinity:
            losses[impossible] = 0.0
        return float(np.dot(weights, losses))

    def __repr__(self) -> str:
        return f"CTC(zero_infinity={self.zero_infinity})"


def _check_label_rows(y_true: ArrayLike, batch: int, classes: int) -> NDArray[np.int64]:
    array = np.asarray(y_true)
    if array.dtype.kind not in "iu":
        raise TypeError(f"y_true: expected integer labels, got {array.dtype}")
    if array.ndim != 2 or len(array) != batch:
        raise ValueError(f"y_true: expected ({batch}, labels), got {array.shape}")
    labels = check_class_numbers(array, classes)
    gaps = (labels[:, 1:] != 0) & (labels[:, :-1] == 0)
    if gaps.any():
        row = int(np.flatnonzero(gaps.any(axis=1))[0])
        raise ValueError(f"y_true[{row}]: expected 0 after the last label only, got {array[row]}")
    return labels


def _steps(mask: ArrayLike | None, batch: int, time: int) -> NDArray[np.int64]:
    """How many time steps of each row count."""
    if mask is None:
        return np.full(batch, time, np.int64)
    valid = check_mask(mask, (batch, time))
    steps: NDArray[np.int64] = np.count_nonzero(valid, axis=1).astype(np.int64)
    if not np.array_equal(valid, np.arange(time) < steps[:, None]):
        raise ValueError("mask: expected the valid time steps of each row first")
    return steps


def _repeats(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many labels of each row follow the same one: a blank must stand between them."""
    same = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != 0)
    counts: NDArray[np.int64] = np.count_nonzero(same, axis=1)
    return counts
