"""Losses with their gradients, and the softmax and sigmoid under them.

Names, defaults and meaning are Keras's: a loss is the mean over every entry of the batch (over
every label, for the categorical ones).
"""

from __future__ import annotations

from fastrnn.losses.base import Loss
from fastrnn.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Crossentropy,
    SparseCategoricalCrossentropy,
    sigmoid,
    softmax,
)
from fastrnn.losses.ctc import CTC
from fastrnn.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError

__all__ = [
    "CTC",
    "NAMES",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
    "sigmoid",
    "softmax",
]

_LOSSES: dict[str, type[Loss]] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "huber": Huber,
    "ctc": CTC,
    "bce": BinaryCrossentropy,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
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
        return kind(from_logits) if issubclass(kind, Crossentropy) else kind()
    if isinstance(loss, type) or not callable(loss) or not hasattr(loss, "vjp"):
        raise TypeError(f"loss: expected a name or a loss object with vjp, got {loss!r}")
    return loss
