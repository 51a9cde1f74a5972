"""The training loop, over anything with vjp and parameters: minibatches, streams, history."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fastrnn.data import Examples, Ids, minibatches
from fastrnn.losses import Loss
from fastrnn.metrics import Metric
from fastrnn.optimizers import Optimizer
from fastrnn.parameter import Array, Parameter

State = Any  # a model's own affair; here it is only handed on
Verbose = Literal["auto", 0, 1]


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


@dataclass
class History:
    """What fit reports: for every epoch its number and, by name, the loss and the metrics."""

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, epoch: int, report: Mapping[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in report.items():
            self.history.setdefault(name, []).append(value)


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

    With lengths and an output per time step, (batch, time, features), the loss is the mean over
    the valid time steps alone.
    """
    model.zero_grad()
    (y_pred, state), pullback = model.vjp(batch.x, state, batch.lengths)
    valid = _valid(batch, y_pred)
    if valid is None:
        value, dy_pred = loss.vjp(batch.y, y_pred)
    else:
        value, dy_valid = loss.vjp(batch.y[valid], y_pred[valid])
        dy_pred = np.zeros_like(y_pred)
        dy_pred[valid] = dy_valid
    pullback(dy_pred)
    optimizer.step(model.parameters())
    return Step(value, y_pred, state)


def _valid(batch: Examples, y_pred: Array) -> NDArray[np.bool_] | None:
    """Which (batch, time) entries count, where there are time steps and not all of them do."""
    if batch.lengths is None or y_pred.ndim < 3:
        return None
    if batch.y.shape[:2] != y_pred.shape[:2]:
        raise ValueError(
            f"y: expected {y_pred.shape[:2]}, a target for every time step, got {batch.y.shape}"
        )
    return np.arange(y_pred.shape[1]) < batch.lengths[:, None]


class _Means:
    """Running means over batches, each weighted with the number of its entries."""

    def __init__(self) -> None:
        self.weight = 0
        self.sums: dict[str, float] = {}

    def add(self, weight: int, values: Mapping[str, float]) -> None:
        self.weight += weight
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + weight * float(value)

    def means(self) -> dict[str, float]:
        return {name: total / self.weight for name, total in self.sums.items()}


def _add_batch(
    means: _Means, objective: Objective, batch: Examples, y_pred: Array, loss: float | None = None
) -> None:
    """Take a batch's loss (computed unless given) and metrics into the means."""
    y_true = batch.y
    valid = _valid(batch, y_pred)
    if valid is not None:
        y_true, y_pred = y_true[valid], y_pred[valid]
    values = {"loss": objective.loss(y_true, y_pred) if loss is None else loss}
    for name, metric in objective.metrics.items():
        values[name] = metric(y_true, y_pred)
    means.add(len(y_pred), values)


def fit(
    model: Model,
    examples: Examples,
    objective: Objective,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    validation: Examples | None = None,
    shuffle: np.random.Generator | None = None,
    verbose: Verbose = "auto",
) -> History:
    """Train on `examples` for some epochs, in an order drawn from `shuffle`, in order without it.

    The history has, per epoch, the mean loss and metrics of its steps, each taken before the step's
    update, and of `validation` (``val_loss``, ...) after the epoch.
    """
    history = History()
    steps = -(-len(examples) // batch_size)
    for epoch in range(epochs):
        means = _Means()
        with progress_bar(steps, f"epoch {epoch + 1}/{epochs}", verbose) as bar:
            for rows in minibatches(len(examples), batch_size, shuffle):
                batch = examples[rows]
                step = train_step(model, objective.loss, optimizer, batch)
                _add_batch(means, objective, batch, step.y_pred, step.loss)
                bar.set_postfix(means.means(), refresh=False)
                bar.update()
            report = means.means()
            if validation is not None:
                values = evaluate(model, validation, objective, batch_size=batch_size)
                report |= {f"val_{name}": value for name, value in values.items()}
            bar.set_postfix(report)
        history.add(epoch, report)
    return history


def evaluate(
    model: Model, examples: Examples, objective: Objective, *, batch_size: int
) -> dict[str, float]:
    """The loss and the metrics over all `examples`, by name."""
    means = _Means()
    for rows in minibatches(len(examples), batch_size):
        batch = examples[rows]
        y_pred, _ = model.run(batch.x, None, batch.lengths)
        _add_batch(means, objective, batch, y_pred)
    return means.means()


def predict(
    model: Model, x: NDArray[Any], lengths: NDArray[np.int64] | None = None, *, batch_size: int
) -> Array:
    """The outputs for all rows of `x`, computed `batch_size` rows at a time."""
    outputs = []
    for rows in minibatches(len(x), batch_size):
        y_pred, _ = model.run(x[rows], None, None if lengths is None else lengths[rows])
        outputs.append(y_pred)
    return np.concatenate(outputs)


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


def progress_bar(total: float, label: str, verbose: Verbose = "auto", **options: Any) -> Any:
    """A tqdm bar on stderr; "auto" shows it on a terminal only, 0 never, 1 always."""
    from tqdm import tqdm

    if verbose not in ("auto", 0, 1):
        raise ValueError(f"verbose: expected 'auto', 0 or 1, got {verbose!r}")
    # disable=None is tqdm's way to ask whether its stream is a terminal.
    disable = None if verbose == "auto" else not verbose
    return tqdm(total=total, desc=label, disable=disable, file=sys.stderr, **options)
