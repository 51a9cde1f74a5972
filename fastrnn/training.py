"""Training anything that has vjp and parameters: steps, windows, evaluation, prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastrnn.data import Examples, Ids, Ragged, bucketed_minibatches, minibatches
from fastrnn.data.types import Rows
from fastrnn.layers.ragged import unpack
from fastrnn.losses import Loss
from fastrnn.metrics import Metric
from fastrnn.optimizers import Optimizer
from fastrnn.parameter import Array, Parameter

State = Any  # a model's own affair; here it is only handed on


class Model(Protocol):
    """What the loop asks of a model; `x` has the batch in front, so has the output."""

    def vjp(
        self, x: NDArray[Any], state: State = None, lengths: NDArray[np.int64] | None = None
    ) -> tuple[tuple[Array, State], Callable[[Array], Array | None]]:
        """Output and state, and the pullback that adds to the gradients."""

    def run(
        self, x: NDArray[Any], state: State = None, lengths: NDArray[np.int64] | None = None
    ) -> tuple[Array, State]:
        """Output and state, for inference."""

    def parameters(self) -> Mapping[str, Parameter]: ...

    def zero_grad(self) -> None: ...


@dataclass(frozen=True)
class Objective:
    """What training is to lower, and what else is to be reported: metrics by name."""

    loss: Loss
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a training step leaves: the loss before it, the outputs, the state to carry on."""

    loss: float
    y_pred: Array
    state: State


def train_step(
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    batch: Examples,
    state: State = None,
) -> Step:
    """One step: forward, loss, backward, update. No gradient flows into `state`.

    With lengths and an output per time step, (batch, time, features), padding does not count.
    """
    model.zero_grad()
    (y_pred, state), pullback = model.vjp(batch.x, state, batch.lengths)
    mask = batch.mask(y_pred, getattr(loss, "aligned", True))
    if mask is None and batch.sample_weight is None:
        value, dy_pred = loss.vjp(batch.y, y_pred)  # all that a loss of one's own need take
    else:
        value, dy_pred = loss.vjp(batch.y, y_pred, batch.sample_weight, mask)
    pullback(dy_pred)
    optimizer.step(model.parameters())
    return Step(value, y_pred, state)


class Means:
    """The loss and the metrics over many batches, each weighted with the number of its rows."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.rows = 0
        self.loss = 0.0  # the sum
        self.sums: dict[str, NDArray[np.float64]] = {}

    def add(self, batch: Examples, y_pred: Array, loss: float | None = None) -> None:
        """Take a batch in, with its loss where that is known already."""
        objective, y_true = self._objective, batch.y
        aligned = getattr(objective.loss, "aligned", True)
        mask = batch.mask(y_pred, aligned)
        if loss is None:
            plain = mask is None and batch.sample_weight is None
            loss = objective.loss(y_true, y_pred, *(() if plain else (batch.sample_weight, mask)))
        if not aligned:
            rows = len(y_pred)
        elif mask is None:
            rows = y_pred.size // y_pred.shape[-1] if y_pred.ndim > 1 else y_pred.size
        else:
            rows = int(np.count_nonzero(mask))
        self.rows += rows
        self.loss += rows * loss
        if not objective.metrics or not rows:
            return
        if aligned and mask is not None and not mask.all():
            y_true, y_pred = y_true[mask], y_pred[mask]
        for name, metric in objective.metrics.items():
            sums = metric.sums(y_true, y_pred)
            self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def report(self) -> dict[str, float]:
        """The means so far, by name."""
        values = {"loss": self.loss / self.rows if self.rows else 0.0}
        for name, sums in self.sums.items():
            values[name] = self._objective.metrics[name].result(sums)
        return values


def batches_of(
    examples: Examples, batch_size: int, rng: np.random.Generator | None = None, bucket: bool = True
) -> Iterator[Rows]:
    """Which rows each minibatch takes: shuffled with `rng`; where the examples are ragged and
    `bucket` is set, rows of similar lengths together."""
    lengths = examples.row_lengths
    if bucket and lengths is not None:
        return bucketed_minibatches(lengths, batch_size, rng)
    return minibatches(len(examples), batch_size, rng)


def evaluate(
    model: Model,
    batches: Iterable[Examples],
    objective: Objective,
    *,
    stopped: Callable[[], bool] = bool,
) -> dict[str, float] | None:
    """The loss and the metrics over all `batches`, by name; None once it is `stopped`."""
    means = Means(objective)
    for batch in batches:
        if stopped():
            return None
        y_pred, _ = model.run(batch.x, None, batch.lengths)
        means.add(batch, y_pred)
    return means.report()


def predict(model: Model, examples: Examples, *, batch_size: int) -> Array | list[Array]:
    """The outputs for all rows of x, computed `batch_size` rows at a time.

    An array; for ragged rows and an output per time step a list of arrays, each of its length.
    """
    outputs: list[Array] = []
    apart = False
    order: list[int] = []
    for rows in batches_of(examples, batch_size):
        batch = examples[rows]
        y_pred, _ = model.run(batch.x, None, batch.lengths)
        apart = isinstance(examples.x, Ragged) and y_pred.ndim > 2
        if apart and batch.lengths is not None:
            outputs += [row.copy() for row in unpack(y_pred, batch.lengths)]
        else:
            outputs.append(y_pred)
        order += rows.tolist() if isinstance(rows, np.ndarray) else range(rows.start, rows.stop)
    back = np.argsort(order)
    if apart:
        return [outputs[place] for place in back]
    joined = np.concatenate(outputs)
    return joined if np.all(back[1:] > back[:-1]) else joined[back]


def truncated_bptt(
    model: Model,
    loss: Loss,
    optimizer: Optimizer,
    windows: Iterable[tuple[Ids, Ids]],
    state: State = None,
) -> Iterator[float]:
    """Train on consecutive windows of a stream, yielding the loss of every step.

    The state is carried from window to window; the gradient stops at a window's edge (truncated
    back-propagation through time: Williams and Peng 1990).
    """
    for x, y in windows:
        step = train_step(model, loss, optimizer, Examples(x, y), state)
        state = step.state
        yield step.loss


def evaluate_stream(
    model: Model, loss: Loss, windows: Iterable[tuple[Ids, Ids]], state: State = None
) -> float:
    """The mean loss per entry over consecutive windows, the state carried along."""
    total, count = 0.0, 0
    for x, y in windows:
        y_pred, state = model.run(x, state)
        total += loss(y, y_pred) * y.size
        count += y.size
    return total / count
