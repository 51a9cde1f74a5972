"""Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber 2006).

A path is one class for each step; merging its repeats and then dropping its blanks leaves the
labels that it stands for. The loss is minus the log of the probability of all paths that stand for
the labels. All is done in the log domain and in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.reference.checks import checked, checked_lengths

Array = NDArray[np.floating]


def ctc(
    logits: ArrayLike,
    labels: ArrayLike,
    input_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    blank: int = 0,
) -> tuple[Array, Array]:
    """The losses (batch,) and each one's gradient with respect to the logits, of their shape.

    logits (batch, time, classes), float32 or float64; labels (batch, most labels), integers, none
    of them the blank. Of each row the first input_lengths steps and label_lengths labels count,
    None is all of them; the gradient of the other steps is zero. Where no path stands for the
    labels the loss is infinite and the gradient zero; where a logit is NaN both are. Raises
    TypeError and ValueError for other dtypes and shapes.
    """
    logits = checked("logits", logits, (None, None, None)).astype(np.float64)
    labels = np.asarray(labels)
    batch, time, _ = logits.shape
    steps = checked_lengths(input_lengths, batch, time)
    counts = checked_lengths(label_lengths, batch, labels.shape[1])
    losses, gradient = np.empty(batch), np.zeros_like(logits)
    for row in range(batch):
        used = slice(0, steps[row])
        losses[row], gradient[row, used] = _of_sequence(
            logits[row, used], labels[row, : counts[row]], blank
        )
    return losses, gradient


@np.errstate(invalid="ignore")  # NaN and infinite logits
def _of_sequence(x: Array, labels: NDArray[np.integer], blank: int) -> tuple[float, Array]:
    """The loss of logits x (T, C), and its gradient."""
    states = np.full(2 * len(labels) + 1, blank)  # l' of the paper: blanks between labels
    states[1::2] = labels
    if len(x) == 0:
        return (np.inf if len(labels) else 0.0), np.zeros_like(x)
    shifted = x - x.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_y = log_softmax[:, states]
    alpha = _log_alpha(log_y, states, blank)
    beta = _log_alpha(log_y[::-1, ::-1], states[::-1], blank)[::-1, ::-1]
    log_p = np.logaddexp.reduce(alpha[-1, -2:])  # the blank is last, or a label
    if not log_p > -np.inf:
        return -log_p, np.full_like(x, np.nan if np.isnan(log_p) else 0.0)
    # What softmax gives a class, less the share of the paths that are in it (section 4.2).
    gradient = np.exp(log_softmax)
    possible = alpha + beta > -np.inf
    shares = np.where(possible, np.exp(alpha + beta - log_y - log_p), 0)
    for state, k in enumerate(states):
        gradient[:, k] -= shares[:, state]
    return -log_p, gradient


def _log_alpha(log_y: Array, states: NDArray[np.integer], blank: int) -> Array:
    """(T, S): the log-probability of all beginnings of paths that are in a state at a step.

    Section 4.1. The ends of paths (beta) are the beginnings of those that run backwards.
    """
    alpha = np.full(log_y.shape, -np.inf)
    alpha[0, :2] = log_y[0, :2]
    # The blank before a label may be left out, unless that repeats the label before.
    may_skip = np.zeros(len(states), np.bool_)
    may_skip[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    for t in range(1, len(log_y)):
        before = np.concatenate([[-np.inf, -np.inf], alpha[t - 1]])
        reached = np.logaddexp(before[2:], before[1:-1])
        reached = np.where(may_skip, np.logaddexp(reached, before[:-2]), reached)
        alpha[t] = reached + log_y[t]
    return alpha
