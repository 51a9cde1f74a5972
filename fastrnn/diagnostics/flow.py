"""Gradient flow: how strong the gradient is that reaches h, by the distance back in time.

Rows are aligned at their end, the last step that the loss reaches: from there the gradient travels
back, so what vanishes or explodes does it with the distance from that step, whatever the row's
length. Aligned at their start, ragged rows would be at different distances in one column, and their
mean would show neither. A reverse direction travels the other way: its last step is the sequence's
first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import Recurrent

Floats = NDArray[np.float64]

COLUMNS = 200  # at most, of what is kept of an epoch: longer sequences are binned
_PENDING = 2**19  # entries that wait to be taken in together: single small batches cost too much


def gradient_flow(squares: ArrayLike, directions: int = 1) -> list[Floats]:
    """|dL/dh| by the distance back in time, for each of num_layers * D (layer, direction).

    squares: (num_layers * D, batch, time), as `Recurrent.on_gradient` gives them, the sums of
    squares of dL/dh_t, zero past a row's length; directions: D. Entry d is the root mean square,
    over the rows that have it, of |dL/dh| d steps before a row's last step that any gradient
    reaches. Rows that none reaches are left out.
    """
    array = np.asarray(squares, dtype=np.float64)
    if directions not in (1, 2) or array.ndim != 3 or not array.size or len(array) % directions:
        raise ValueError(
            f"squares: expected (num_layers * {directions}, batch, time), got {array.shape}"
        )
    flow = Flow(directions)
    flow.add(array)
    return flow.mean()


def reach(layer: Recurrent, x: ArrayLike, lengths: ArrayLike | None = None) -> list[Floats]:
    """How far back a gradient reaches that enters at the end alone: |dL/dh| by distance, as
    `gradient_flow` has it, where dL/dh of the last layer's final states is random, of norm 1.

    With a loss at every step, each has a gradient of its own, and the flow of training does not
    show what comes from how far; this does. The layer's gradients are left alone.
    """
    copy = layer.to(layer.dtype)
    copy.set_random_state(layer.random_state())
    squares: list[Floats] = []
    copy.on_gradient = squares.append
    inputs = np.asarray(x, dtype=layer.dtype)
    (_, state), pullback = copy.vjp(inputs, lengths=lengths)
    h = state[0] if layer.has_c else state
    start = np.random.default_rng(0).standard_normal(h.shape[1:])
    dh = np.zeros_like(h)
    dh[-layer.directions :] = start / np.linalg.norm(start, axis=-1, keepdims=True)
    pullback(None, (dh, None) if layer.has_c else dh)
    return gradient_flow(squares[0], layer.directions)


class Flow:
    """The mean of `gradient_flow` over batches, of any sizes and lengths."""

    def __init__(self, directions: int = 1) -> None:
        self._directions = directions
        self._pending: list[Floats] = []
        self._size = 0
        self._sums = np.zeros((0, 0))  # (num_layers * D, time), of norms
        self._batches = np.zeros((0, 0))  # likewise: how many had rows there

    def add(self, squares: Floats) -> None:
        """Take in what a pullback gave, (num_layers * D, batch, time); it is kept for a while."""
        self._pending.append(squares)
        self._size += squares.size
        if self._size >= _PENDING:
            self._take_in()

    def mean(self) -> list[Floats]:
        """For each (layer, direction) as many distances as any row had; empty before any batch."""
        self._take_in()
        reached = (self._batches > 0).sum(axis=1)
        return [
            sums[:steps] / batches[:steps]
            for sums, batches, steps in zip(self._sums, self._batches, reached, strict=True)
        ]

    def state(self) -> Any:
        """What `set_state` takes."""
        self._take_in()
        return {"sums": self._sums, "batches": self._batches}

    def set_state(self, state: Any) -> None:
        """Go on from what `state` gave."""
        self._pending, self._size = [], 0
        self._sums, self._batches = state["sums"].copy(), state["batches"].copy()

    def _take_in(self) -> None:
        same: dict[tuple[int, ...], list[Floats]] = {}
        for squares in self._pending:
            same.setdefault(squares.shape, []).append(squares)
        self._pending, self._size = [], 0
        for (strands, _, time), arrays in same.items():
            if time > self._sums.shape[1]:
                wider = (strands, time - self._sums.shape[1])
                whole = self._sums.reshape(strands, -1), self._batches.reshape(strands, -1)
                self._sums, self._batches = (np.hstack([a, np.zeros(wider)]) for a in whole)
            norms, has_rows = _norms(np.stack(arrays), self._directions)
            self._sums[:, :time] += norms.sum(axis=0)
            self._batches[:, :time] += has_rows.sum(axis=0)


def _norms(squares: Floats, directions: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Of batches alike (n, K, B, T) the root mean squares by distance (n, K, T), zero where no row
    has that distance, and where any has."""
    count, strands, _, time = squares.shape
    norms = np.zeros((count, strands, time))
    there = np.zeros(norms.shape, np.bool_)
    last = _last(squares)
    for direction in range(directions):
        of = slice(direction, None, directions)
        own, start = squares[:, of], np.zeros_like(last)
        if direction == 1:
            own, start = own[..., ::-1], time - 1 - last  # its steps in its own order
        sums, rows = _by_distance(own, start)
        there[:, of] = rows[:, None] > 0
        np.divide(sums, rows[:, None], out=norms[:, of], where=there[:, of])
    return np.sqrt(norms, out=norms), there


def _last(squares: Floats) -> NDArray[np.intp]:
    """(n, B): the last step of a row that any gradient reaches, -1 where none does."""
    count, strands, rows, time = squares.shape
    if (squares[..., -1] != 0).any(axis=1).all():  # the usual: nothing is padding
        return np.full((count, rows), time - 1, np.intp)
    reached = squares[:, 0] != 0  # nan too
    for strand in range(1, strands):
        reached |= squares[:, strand] != 0
    return np.where(reached.any(axis=2), time - 1 - reached[..., ::-1].argmax(axis=2), -1)


def _by_distance(squares: Floats, start: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sums over rows (n, K, T) of (n, K, B, T), and the numbers of rows (n, T), by the distance
    back from a row's last step with a gradient; its first step is `start` (n, B)."""
    count, strands, rows, time = squares.shape
    end = _last(squares)
    if (end == time - 1).all() and not start.any():
        return squares.sum(axis=2)[..., ::-1], np.full((count, time), float(rows))
    steps = np.arange(time)
    back = end[..., None] - steps  # (n, B, T)
    back[(back < 0) | (steps < start[..., None])] = time  # no step of the row: after all others
    bins = np.arange(count * strands).reshape(count, strands, 1, 1) * (time + 1) + back[:, None]
    sums = np.bincount(bins.ravel(), squares.ravel(), count * strands * (time + 1))
    has = ((end - start)[..., None] >= steps).sum(axis=1, dtype=np.float64)
    return sums.reshape(count, strands, -1)[..., :time].astype(np.float64, copy=False), has


def in_columns(flow: Floats, at_most: int = COLUMNS) -> Floats:
    """A flow (time,) as the means of up to `at_most` bins of equal width, the last perhaps
    narrower; as it is where it is no longer than that."""
    width = -(-len(flow) // at_most)
    if width <= 1:
        return flow
    starts = np.arange(0, len(flow), width)
    means: Floats = np.add.reduceat(flow, starts) / np.diff([*starts, len(flow)])
    return means


def distances(time: int, at_most: int = COLUMNS) -> Floats:
    """The mean distance back in time of each column that `in_columns` makes of `time` steps."""
    return in_columns(np.arange(float(time)), at_most)


def flow_picture(flows: Sequence[Floats], steps: Sequence[int]) -> Floats:
    """Flows of several epochs, in the columns that `in_columns` makes of `steps` each, as rows of
    one array whose last column is distance 0: (epochs, columns of the longest), nan where an epoch
    had no such distance."""
    at = distances(max(steps))[::-1]
    picture = np.full((len(flows), len(at)), np.nan)
    for row, flow, count in zip(picture, flows, steps, strict=True):
        there = at < count
        if there.any():
            width = -(-count // len(flow))
            row[there] = flow[np.minimum(at[there].astype(int) // width, len(flow) - 1)]
    return picture


@dataclass(frozen=True)
class Trend:
    """How a flow goes on back in time.

    ``ratio`` is |dL/dh| where it differs most from that of the nearest distance, ``steps`` away, as
    a multiple of it: 0 where nothing is left. ``rate`` is the slope of log2 |dL/dh| on the way
    there, per step: below zero it halves every -1 / rate steps, above it doubles every 1 / rate;
    nan where the way has fewer than two steps with a gradient. ``finite``: all of the flow is;
    otherwise rate and ratio are nan.
    """

    rate: float
    ratio: float
    steps: float
    finite: bool = True

    @property
    def every(self) -> float:
        """In how many steps it halves or doubles, inf where it does neither."""
        return math.inf if self.rate == 0 else abs(1.0 / self.rate)


def flow_trend(flow: ArrayLike, at: ArrayLike | None = None) -> Trend:
    """What the line says that fits log2 of `flow` best (least squares) over the distances `at`
    (0, 1, ...), from the nearest to where it differs most: a flow that is fed from both ends, as
    under a bidirectional layer, is weakest in the middle.

    Distance 0 is left out where there are more than three: there the gradient comes from the output
    alone, and the first step back through a gated cell is unlike the others. So are zeros, of which
    there is no logarithm.
    """
    values = np.asarray(flow, dtype=np.float64)
    places = np.arange(float(len(values))) if at is None else np.asarray(at, dtype=np.float64)
    if values.ndim != 1 or values.shape != places.shape:
        raise ValueError(f"at: expected a distance for each of {values.shape}, got {places.shape}")
    if len(values) > 3:
        values, places = values[1:], places[1:]
    if not np.isfinite(values).all():
        return Trend(math.nan, math.nan, float(np.ptp(places)), finite=False)
    first = int((values > 0).argmax()) if len(values) else 0
    values, places = values[first:], places[first:]
    if not values.any():
        return Trend(math.nan, 0.0, 0.0)
    with np.errstate(divide="ignore"):
        logs = np.log2(values)
    change = np.abs(logs - logs[0])
    most = int(change.argmax()) if change.any() else len(logs) - 1
    ratio, steps = float(values[most] / values[0]), float(places[most] - places[0])
    some = np.flatnonzero(values[: most + 1] > 0)
    if some.size < 2:
        return Trend(math.nan, ratio, steps)
    x, y = places[some], logs[some]
    x = x - x.mean()
    return Trend(float((x @ (y - y.mean())) / (x @ x)), ratio, steps)
