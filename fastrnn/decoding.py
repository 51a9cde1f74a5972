"""Decoding: the sequences that a model makes one id at a time, greedily or by beam search."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastrnn.data import Ids
from fastrnn.parameter import Array


class Decoder(Protocol):
    """Rows of hypotheses, at first one each, and the state that each of them has come to."""

    def step(self, ids: NDArray[np.int64]) -> Array:
        """Take the next id of every hypothesis, (rows, width); what may follow, as logits (rows,
        width, classes)."""

    def keep(self, rows: NDArray[np.int64], hypotheses: NDArray[np.int64]) -> None:
        """Go on with these `rows` alone, in each from its `hypotheses`, (rows, new width)."""


def greedy(decoder: Decoder, rows: int, end: int, max_steps: int) -> list[Ids]:
    """For each of `rows` rows the ids that follow `end`, each the likeliest after those before it.

    A row is over before the next `end`, or after `max_steps` ids.
    """
    found: list[list[int]] = [[] for _ in range(rows)]
    running = np.arange(rows)
    ids = np.full(rows, end)
    for _ in range(max_steps):
        ids = decoder.step(ids[:, None])[:, 0].argmax(axis=1)
        on = np.flatnonzero(ids != end)
        if not len(on):
            break
        if len(on) < len(running):
            running, ids = running[on], ids[on]
            decoder.keep(on, np.zeros((len(on), 1), np.int64))
        for row, k in zip(running.tolist(), ids.tolist(), strict=True):
            found[row].append(k)
    return [np.array(row, np.int64) for row in found]


def beam_search(
    decoder: Decoder,
    rows: int,
    end: int,
    max_steps: int,
    beam_size: int,
    length_penalty: float = 0.0,
) -> list[Ids]:
    """As `greedy`, but with `beam_size` hypotheses to a row (Graves 2012; Sutskever et al. 2014).

    At every step all ids are tried after each hypothesis, and the `beam_size` likeliest results are
    kept; those that are over, by `end` or at `max_steps`, leave the beam, and the best of them is
    the row's. Best is the greatest log p / ((5 + n) / 6) ** length_penalty (Wu et al. 2016), where
    n counts the ids and the end, and 0 leaves log p alone. A row ends once nothing in its beam can
    come to more. With a beam as large as all there is to try, the result is the best of all.
    """
    best = np.full(rows, -np.inf)
    found: list[Ids] = [np.empty(0, np.int64)] * rows
    running = np.arange(rows)
    prefixes = np.empty((rows, 1, 0), np.int64)
    ids = np.full((rows, 1), end)
    totals = np.zeros((rows, 1))  # log p of each hypothesis, -inf for one that is over
    largest = _penalty(max_steps, length_penalty)
    for step in range(1, max_steps + 1):
        after = totals[..., None] + _log_softmax(decoder.step(ids))
        classes = after.shape[2]
        totals, places = _greatest(after.reshape(len(running), -1), beam_size)
        origins, ids = np.divmod(places, classes)
        prefixes = np.take_along_axis(prefixes, origins[..., None], axis=1)
        prefixes = np.concatenate([prefixes, ids[..., None]], axis=2)

        over = (ids == end) | (step == max_steps)
        scores = np.where(over, totals / _penalty(step, length_penalty), -np.inf)
        first = scores.argmax(axis=1)
        top = scores.max(axis=1)
        for place in np.flatnonzero(top > best[running]):
            sequence = prefixes[place, first[place]]
            found[running[place]] = sequence[: -1 if sequence[-1] == end else None].copy()
        best[running] = np.maximum(best[running], top)

        totals[over] = -np.inf
        on = np.flatnonzero(totals.max(axis=1) / largest > best[running])
        if not len(on):
            break
        running, totals, ids, prefixes = running[on], totals[on], ids[on], prefixes[on]
        decoder.keep(on, origins[on])
    return found


def _penalty(steps: int, length_penalty: float) -> float:
    """What the log-probability of so many ids is divided by (Wu et al. 2016, equation 14)."""
    return float(((5 + steps) / 6) ** length_penalty)


def _log_softmax(logits: Array) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _greatest(
    values: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The `count` greatest of each row (or all), in falling order, and where they stand."""
    if count < values.shape[1]:
        places = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
    else:
        places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    picked = np.take_along_axis(values, places, axis=1)
    order = np.argsort(-picked, axis=1, kind="stable")
    return np.take_along_axis(picked, order, axis=1), np.take_along_axis(places, order, axis=1)
