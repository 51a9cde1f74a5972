"""Model: Keras's compile, fit, evaluate and predict, over any model's `run` and `vjp`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import losses, optimizers, training
from fastrnn.checks import check_flag, check_size
from fastrnn.data import Examples, Ragged
from fastrnn.fit import Batches, Callback, IteratedBatches, RowBatches, Run, fit
from fastrnn.history import History
from fastrnn.layers.base import Layer
from fastrnn.metrics import Function, Metric
from fastrnn.metrics import get as get_metric
from fastrnn.parameter import Array
from fastrnn.progress import Verbose


class Model(Layer):
    """Base of the models: a subclass has `run`, `vjp` and `config`, and says what it takes.

    ``dtype`` is that of its layers; ``takes_ids`` tells that its input is ids, which are not
    converted to it, and ``gives_logits`` that its output comes from a Dense without activation.
    """

    dtype: np.dtype
    takes_ids: bool
    gives_logits: bool

    def __init__(self) -> None:
        super().__init__()
        self._objective: training.Objective | None = None
        self._optimizer: optimizers.Optimizer | None = None

    def run(
        self, x: NDArray[Any], state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Output and state after `x`, from `state` on (None: zeros), for inference."""
        raise NotImplementedError

    def vjp(
        self, x: NDArray[Any], state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, Any], Callable[..., Array | None]]:
        """``((output, state), pullback)``, for training."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: str | optimizers.Optimizer,
        loss: str | losses.Loss,
        metrics: Iterable[str | Metric | Function] = (),
    ) -> None:
        """Choose what `fit` uses: names as Keras has them, or objects.

        A cross-entropy given by name takes logits where the model `gives_logits`, otherwise
        probabilities; metrics given by name follow the loss in this.
        """
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a list, got {metrics!r}; write [{metrics!r}]")
        found = losses.get(loss, from_logits=self.gives_logits)
        named = {_metric_name(metric): get_metric(metric, loss=found) for metric in metrics}
        self._objective = training.Objective(found, named)
        self._optimizer = optimizers.get(optimizer)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        seed: int | None = None,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        validation_lengths: ArrayLike | None = None,
        bucket: bool = True,
        steps_per_epoch: int | None = None,
        tbptt: int | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        verbose: Verbose = "auto",
    ) -> History:
        """Train on the rows of `x` and `y`; returns the losses and metrics of every epoch.

        `x` and `y` are arrays, (rows, ...), also memory-mapped ones, which are read batch by batch;
        or lists of arrays (time, ...) of any lengths, of which batches are padded when they are
        taken, rows of similar length together (not with ``bucket=False``). Or `x` is an iterable
        of batches, ``(x, y)`` or ``(x, y, sample_weight)`` each, and there is no `y`: an epoch is
        one pass, or the next `steps_per_epoch` of them.

        `validation_data` is as x and y are: (x, y), (x, y, sample_weight) or an iterable;
        `validation_split` takes that fraction of the rows, the last ones, instead. Rows are
        shuffled anew in every epoch, as `seed` says. `sample_weight`, (rows,) or (rows, time),
        multiplies the losses; with lengths and an output per time step, padding counts neither in
        loss nor in metrics.

        ``tbptt=k`` trains on windows of k time steps one after the other, the state carried from
        one to the next and the gradient cut between (truncated BPTT).

        `callbacks`: see `fastrnn.callbacks`. `checkpoint` names a file in which the run is kept,
        after every epoch and every `checkpoint_every` steps; if it is there already the run goes on
        from it, and ends with the bits that it would have had without a stop. Ctrl-C ends training
        after the running batch; the history so far is returned. `verbose`: "auto" shows a progress
        bar on a terminal, 0 never, 1 always.
        """
        objective, optimizer = self._compiled()
        size = check_size(batch_size, "batch_size")
        batches = self._batches(x, y, lengths, sample_weight, size, bucket, steps_per_epoch)
        validation: Batches | None = None
        if not 0.0 <= validation_split < 1.0:
            raise ValueError(
                f"validation_split: expected a number in [0, 1), got {validation_split}"
            )
        if validation_data is not None:
            validation = self._validation(validation_data, validation_lengths, size)
        elif validation_split > 0.0:
            batches, validation = _split(batches, validation_split)
        run = Run(
            self,
            objective,
            optimizer,
            check_size(epochs, "epochs"),
            rng=np.random.Generator(np.random.PCG64(seed))
            if check_flag(shuffle, "shuffle")
            else None,
            tbptt=None if tbptt is None else check_size(tbptt, "tbptt"),
            callbacks=tuple(callbacks),
        )
        for place, callback in enumerate(run.callbacks):
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks[{place}]: expected a Callback, got {callback!r}")
        save = None
        if checkpoint is not None:
            from fastrnn.checkpoint import Checkpoint, settings_of

            kept = Checkpoint(checkpoint, settings_of(run, batches))
            kept.resume(run)
            save = kept.save
        elif checkpoint_every is not None:
            raise ValueError("checkpoint_every: expected with checkpoint, the name of a file")
        return fit(
            run,
            batches,
            validation=validation,
            verbose=verbose,
            save=save,
            save_every=None
            if checkpoint_every is None
            else check_size(checkpoint_every, "checkpoint_every"),
        )

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """The loss over all rows; with metrics, a list of loss and metrics; or all by name.

        Takes what `fit` takes.
        """
        objective, _ = self._compiled()
        size = check_size(batch_size, "batch_size")
        batches = self._batches(x, y, lengths, sample_weight, size)
        values = training.evaluate(self, batches.epoch(None), objective) or {}
        if return_dict:
            return values
        return list(values.values()) if objective.metrics else values["loss"]

    def predict(
        self, x: Any, batch_size: int = 32, *, lengths: ArrayLike | None = None
    ) -> Array | list[Array]:
        """The outputs for all rows of `x`, computed `batch_size` rows at a time.

        Of a list of arrays with an output for every time step: a list, each of its row's length.
        """
        inputs, dtype = self._inputs(x)
        examples = Examples(inputs, None, _optional_lengths(lengths), x_dtype=dtype)
        size = check_size(batch_size, "batch_size")
        return training.predict(self, examples, batch_size=size)

    def _compiled(self) -> tuple[training.Objective, optimizers.Optimizer]:
        if self._objective is None or self._optimizer is None:
            raise RuntimeError("the model has no loss and optimizer yet: call compile first")
        return self._objective, self._optimizer

    def _batches(
        self,
        x: Any,
        y: Any,
        lengths: ArrayLike | None,
        sample_weight: ArrayLike | None,
        batch_size: int,
        bucket: bool = True,
        steps_per_epoch: int | None = None,
    ) -> Batches:
        """Where a run has its batches from, for all that `fit` takes."""
        if y is not None:
            if steps_per_epoch is not None:
                raise ValueError("steps_per_epoch: expected with an iterable of batches only")
            examples = self._examples(x, y, lengths, sample_weight)
            return RowBatches(examples, batch_size, check_flag(bucket, "bucket"))
        if isinstance(x, np.ndarray | Ragged) or not isinstance(x, Iterable):
            raise TypeError("y: expected targets, got None; only an iterable of batches has none")
        for name, value in (("lengths", lengths), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(f"{name}: expected within the batches that x gives")
        steps = None if steps_per_epoch is None else check_size(steps_per_epoch, "steps_per_epoch")
        return IteratedBatches(x, self._batch, steps)

    def _batch(self, batch: Any) -> Examples:
        """A batch that an iterable gave."""
        if isinstance(batch, Examples):
            examples = batch
        else:
            if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 3:
                raise TypeError(
                    "x: expected batches (x, y) or (x, y, sample_weight), got "
                    f"{type(batch).__name__}"
                    + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
                )
            x, y, weight = (*batch, None)[:3]
            examples = self._examples(x, y, None, weight)
        return examples[slice(None)]

    def _validation(self, data: Any, lengths: ArrayLike | None, batch_size: int) -> Batches:
        if not isinstance(data, tuple):
            return self._batches(data, None, lengths, None, batch_size)
        if not 2 <= len(data) <= 3:
            raise ValueError(
                f"validation_data: expected (x, y) or (x, y, sample_weight), got {len(data)} "
                "entries"
            )
        x, y, weight = (*data, None)[:3]
        return RowBatches(self._examples(x, y, lengths, weight), batch_size)

    def _examples(
        self, x: Any, y: Any, lengths: ArrayLike | None, sample_weight: ArrayLike | None
    ) -> Examples:
        inputs, x_dtype = self._inputs(x)
        targets: Any = Ragged(y) if _is_ragged(y) else y
        if not isinstance(targets, Ragged):
            targets = np.asarray(y)
        aligned = self._objective is None or getattr(self._objective.loss, "aligned", True)
        if aligned and isinstance(targets, Ragged) and isinstance(inputs, Ragged):
            _check_aligned(inputs.lengths, targets.lengths)
        return Examples(
            inputs,
            targets,
            _optional_lengths(lengths),
            None if sample_weight is None else np.asarray(sample_weight),
            x_dtype=x_dtype,
            y_dtype=self.dtype if targets.dtype.kind == "f" else None,
        )

    def _inputs(self, x: Any) -> tuple[Any, np.dtype | None]:
        """`x` as rows, and the layers' dtype, which batches are converted to; ids are not."""
        inputs = x if isinstance(x, Ragged) else Ragged(x) if _is_ragged(x) else np.asarray(x)
        if self.takes_ids:
            return inputs, None
        if inputs.dtype.kind not in "fiub":
            raise TypeError(f"x: expected real numbers, got {inputs.dtype}")
        return inputs, self.dtype

    def description(self) -> dict[str, Any]:
        """What a file says of the model: its kind and its `config`."""
        return {"kind": type(self).__name__, **self.config()}

    def save(self, path: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> None:
        """Write a safetensors file, for `fastrnn.load`; `extra` is anything that JSON can hold.

        What `compile` was given is not kept. Raises OSError where the file cannot be written.
        """
        from fastrnn import serialization  # not at import: most never need it

        content = serialization.ModelFile(self.state_dict(), self.description(), extra or {})
        serialization.write(path, content)


def _metric_name(metric: str | Metric | Function) -> str:
    """How it is called in the history; a class's name as Keras writes names."""
    if isinstance(metric, str):
        return metric
    if isinstance(metric, Metric):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
    return getattr(metric, "__name__", repr(metric))


def _is_ragged(rows: Any) -> bool:
    """Whether it is a list of arrays that differ in length, or `Ragged` already."""
    if isinstance(rows, Ragged):
        return True
    if not isinstance(rows, list) or not all(isinstance(row, np.ndarray) for row in rows):
        return False
    return all(row.ndim for row in rows) and len({len(row) for row in rows}) > 1


def _check_aligned(inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
    if len(inputs) != len(targets):
        return  # Examples says it
    wrong = np.flatnonzero(inputs != targets)
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"y[{row}]: expected {inputs[row]} time steps as x[{row}] has, got {targets[row]}"
        )


def _split(batches: Batches, fraction: float) -> tuple[Batches, Batches]:
    """The batches of the first rows, and of the last `fraction` of them."""
    if not isinstance(batches, RowBatches):
        raise ValueError("validation_split: expected rows, but x is an iterable of batches")
    rows = len(batches.examples)
    at = int(rows * (1.0 - fraction))
    if not 0 < at < rows:
        raise ValueError(
            f"validation_split: {fraction} of {rows} rows leaves nothing to train on or nothing "
            "to validate on"
        )
    first, last = batches.examples.split(at)
    size, bucket = batches.batch_size, batches.bucket
    return RowBatches(first, size, bucket), RowBatches(last, size, bucket)


def _optional_lengths(lengths: ArrayLike | None) -> NDArray[np.int64] | None:
    return None if lengths is None else np.asarray(lengths)
