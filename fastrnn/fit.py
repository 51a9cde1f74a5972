"""The training run: epochs over batches, with callbacks, Ctrl-C, and a place to go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastrnn.data import Examples
from fastrnn.history import History
from fastrnn.interrupt import Interrupt
from fastrnn.optimizers import Optimizer
from fastrnn.progress import EpochBar, Verbose
from fastrnn.training import (
    Means,
    Model,
    Objective,
    State,
    batches_of,
    evaluate,
    train_step,
)


class Batches(Protocol):
    """Where a run has its batches from."""

    def epoch(self, rng: np.random.Generator | None) -> Iterator[Examples]:
        """The batches of the next epoch, their order drawn from `rng` where there is one."""

    def steps(self) -> int | None:
        """How many they are, None where nobody knows."""


@dataclass(frozen=True)
class RowBatches:
    """Minibatches of the rows of examples."""

    examples: Examples
    batch_size: int
    bucket: bool = True

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[Examples]:
        for rows in batches_of(self.examples, self.batch_size, rng, self.bucket):
            yield self.examples[rows]

    def steps(self) -> int:
        return -(-len(self.examples) // self.batch_size)


class IteratedBatches:
    """Batches of an iterable: all of it in every epoch, or the next `steps_per_epoch`."""

    def __init__(
        self,
        batches: Iterable[Any],
        to_examples: Callable[[Any], Examples],
        steps_per_epoch: int | None = None,
    ) -> None:
        self._batches = batches
        self._to_examples = to_examples
        self._steps = steps_per_epoch
        self._running: Iterator[Any] | None = None  # with steps_per_epoch: goes on in the next

    def epoch(self, rng: np.random.Generator | None = None) -> Iterator[Examples]:
        if self._steps is None:
            empty = True
            for batch in self._batches:
                empty = False
                yield self._to_examples(batch)
            if empty:
                raise ValueError(
                    "x: expected batches, but the iterator gives none (any more); give what can be "
                    "iterated anew in every epoch, or steps_per_epoch"
                )
            return
        for _ in range(self._steps):
            yield self._to_examples(self._next())

    def _next(self) -> Any:
        for running in (self._running, iter(self._batches)):
            if running is None:
                continue
            self._running = running
            for batch in running:
                return batch
        raise ValueError(
            f"x: expected {self._steps} batches an epoch, as steps_per_epoch says, but the "
            "iterator gives no more"
        )

    def steps(self) -> int | None:
        if self._steps is not None:
            return self._steps
        try:
            return len(self._batches)  # type: ignore[arg-type]
        except TypeError:
            return None


class Callback:
    """Base of the callbacks: Keras's methods, to be overridden; ``model`` and ``run`` are there.

    `epoch` and `batch` count from 0; `logs` has the epoch's loss, metrics and, with ``val_`` before
    the name, those of validation; a batch's has its loss. ``run.stop = True``, or Keras's
    ``model.stop_training = True``, ends training after the running batch. What ``state`` returns
    (numbers, strings, arrays, lists and dicts of them) is kept in a checkpoint, and given to
    ``set_state`` where a run goes on.
    """

    run: Run

    @property
    def model(self) -> Any:
        return self.run.model

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Before the first step of this call of fit."""

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """After the last one, however training ended."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Before the first step of an epoch, or the first after a checkpoint."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """After an epoch and its validation; what is put into `logs` is in the history."""

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Before a training step."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """After a training step."""

    def state(self) -> Any:
        """What a checkpoint is to keep of the callback."""
        return None

    def set_state(self, state: Any) -> None:
        """Go on from what `state` returned."""


@dataclass
class Run:
    """A training run: what it works on and how far it is."""

    model: Model
    objective: Objective
    optimizer: Optimizer
    epochs: int
    rng: np.random.Generator | None = None  # of the order of rows; None: as they come
    tbptt: int | None = None  # time steps to a window; the state is carried from one to the next
    callbacks: Sequence[Callback] = ()
    history: History = field(default_factory=History)
    epoch: int = 0  # the running one
    step: int = 0  # training steps done in it
    order: dict[str, Any] | None = None  # the state of `rng` when it began
    state: State = None  # of the model, to carry on
    stop: bool = False

    def __post_init__(self) -> None:
        self.means = Means(self.objective)


def fit(
    run: Run,
    batches: Batches,
    *,
    validation: Batches | None = None,
    verbose: Verbose = "auto",
    save: Callable[[Run], None] | None = None,
    save_every: int | None = None,
) -> History:
    """Train to the end of `run.epochs`, from where `run` stands.

    The history has, per epoch, the mean loss and metrics of its steps, each taken before the step's
    update, and of `validation` (``val_loss``, ...) after the epoch. `save` is called after every
    epoch, after every `save_every` steps, and when Ctrl-C ends the run.
    """
    for callback in run.callbacks:
        callback.run = run
    run.model.stop_training = False  # type: ignore[attr-defined]
    with Interrupt() as interrupt:
        for callback in run.callbacks:
            callback.on_train_begin({})
        while run.epoch < run.epochs and not _stopped(run):
            with EpochBar(
                _steps_in(batches, run), f"epoch {run.epoch + 1}/{run.epochs}", verbose
            ) as bar:
                whole = _train(run, batches, bar, interrupt, save, save_every)
                report = run.means.report()
                if whole and validation is not None:
                    values = evaluate(
                        run.model,
                        validation.epoch(None),
                        run.objective,
                        stopped=lambda: interrupt.raised,
                    )
                    whole = values is not None
                    report |= {f"val_{name}": value for name, value in (values or {}).items()}
                bar.finish(report)
            if interrupt.raised and not whole:
                if save is not None:
                    save(run)
                run.history.interrupted = True
            _end_epoch(run, report)
            if save is not None and not run.history.interrupted:
                save(run)
            if interrupt.raised:
                run.history.interrupted = run.stop = True
        for callback in run.callbacks:
            callback.on_train_end({})
    return run.history


def _stopped(run: Run) -> bool:
    return run.stop or bool(getattr(run.model, "stop_training", False))


def _steps_in(batches: Batches, run: Run) -> int | None:
    """How many steps an epoch has, where that is known."""
    return None if run.tbptt else batches.steps()


def _train(
    run: Run,
    batches: Batches,
    bar: EpochBar,
    interrupt: Interrupt,
    save: Callable[[Run], None] | None,
    save_every: int | None,
) -> bool:
    """What is left of an epoch's steps; False where it ended before the last."""
    done = run.step
    if not done:
        run.means = Means(run.objective)
        run.order = None if run.rng is None else dict(run.rng.bit_generator.state)
    for callback in run.callbacks:
        callback.on_epoch_begin(run.epoch, {})
    for place, (batch, first) in enumerate(_steps(batches.epoch(run.rng), run.tbptt)):
        if interrupt.raised or _stopped(run):
            return False
        if place >= done:
            _step(run, batch, first)
            if save is not None and save_every and run.step % save_every == 0:
                save(run)
        bar.update(run.means.report)
    return True


def _step(run: Run, batch: Examples, first: bool) -> None:
    for callback in run.callbacks:
        callback.on_train_batch_begin(run.step, {})
    state = None if first else run.state
    step = train_step(run.model, run.objective.loss, run.optimizer, batch, state)
    run.state = step.state if run.tbptt else None
    run.means.add(batch, step.y_pred, step.loss)
    run.step += 1
    for callback in run.callbacks:
        callback.on_train_batch_end(run.step - 1, {"loss": step.loss})


def _steps(batches: Iterable[Examples], window: int | None) -> Iterator[tuple[Examples, bool]]:
    """What each step trains on, and whether the state starts anew there."""
    for batch in batches:
        if window is None:
            yield batch, True
            continue
        for place, part in enumerate(batch.windows(window)):
            yield part, place == 0


def _end_epoch(run: Run, report: dict[str, float]) -> None:
    for callback in run.callbacks:
        callback.on_epoch_end(run.epoch, report)
    run.history.add(run.epoch, report)
    run.epoch, run.step, run.state = run.epoch + 1, 0, None
