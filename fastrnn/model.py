"""Model: Keras's compile, fit, evaluate and predict, over any model's `run` and `vjp`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import losses, metrics, optimizers, training
from fastrnn.data import Examples
from fastrnn.layers.base import Layer, check_size
from fastrnn.metrics import Metric
from fastrnn.parameter import Array


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
    ) -> tuple[tuple[Array, Any], Callable[[Array], Array | None]]:
        """``((output, state), pullback)``, for training."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: str | optimizers.Optimizer,
        loss: str | losses.Loss,
        metrics: Iterable[str | Metric] = (),
    ) -> None:
        """Choose what `fit` uses: names as Keras has them, or objects.

        A cross-entropy given by name takes logits where the model `gives_logits`, otherwise
        probabilities; metrics given by name follow the loss in this.
        """
        if isinstance(metrics, str):
            raise TypeError(f"metrics: expected a list, got {metrics!r}; write [{metrics!r}]")
        found = losses.get(loss, from_logits=self.gives_logits)
        named = {
            metric if isinstance(metric, str) else getattr(metric, "__name__", repr(metric)): (
                _metric(metric, found)
            )
            for metric in metrics
        }
        self._objective = training.Objective(found, named)
        self._optimizer = optimizers.get(optimizer)

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[ArrayLike, ...] | None = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        seed: int | None = None,
        verbose: training.Verbose = "auto",
        lengths: ArrayLike | None = None,
    ) -> training.History:
        """Train on the rows of `x` and `y`; returns the losses and metrics of every epoch.

        `validation_data` is (x, y) or (x, y, lengths); `validation_split` takes that fraction of
        the rows, the last ones, instead. Rows are shuffled anew in every epoch, as `seed` says.
        With `lengths` and an output per time step, padding counts neither in loss nor in metrics.
        `verbose`: "auto" shows a progress bar on a terminal, 0 never, 1 always.
        """
        objective, optimizer = self._compiled()
        examples, validation = self._examples(x, y, lengths), None
        if not 0.0 <= validation_split < 1.0:
            raise ValueError(
                f"validation_split: expected a number in [0, 1), got {validation_split}"
            )
        if validation_data is not None:
            if not 2 <= len(validation_data) <= 3:
                raise ValueError(
                    f"validation_data: expected (x, y) or (x, y, lengths), got "
                    f"{len(validation_data)} entries"
                )
            validation = self._examples(*validation_data)
        elif validation_split > 0.0:
            split = int(len(examples) * (1.0 - validation_split))
            if not 0 < split < len(examples):
                raise ValueError(
                    f"validation_split: {validation_split} of {len(examples)} rows leaves nothing "
                    "to train on or nothing to validate on"
                )
            examples, validation = examples[:split], examples[split:]
        return training.fit(
            self,
            examples,
            objective,
            optimizer,
            epochs=check_size(epochs, "epochs"),
            batch_size=check_size(batch_size, "batch_size"),
            validation=validation,
            shuffle=np.random.default_rng(seed) if shuffle else None,
            verbose=verbose,
        )

    def evaluate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = 32,
        *,
        lengths: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """The loss over all rows; with metrics, a list of loss and metrics; or all by name."""
        objective, _ = self._compiled()
        size = check_size(batch_size, "batch_size")
        values = training.evaluate(self, self._examples(x, y, lengths), objective, batch_size=size)
        if return_dict:
            return values
        return list(values.values()) if objective.metrics else values["loss"]

    def predict(
        self, x: ArrayLike, batch_size: int = 32, *, lengths: ArrayLike | None = None
    ) -> Array:
        """The outputs for all rows of `x`, computed `batch_size` rows at a time."""
        inputs = self._inputs(x)
        examples = Examples(inputs, inputs, _optional_lengths(lengths))
        size = check_size(batch_size, "batch_size")
        return training.predict(self, examples.x, examples.lengths, batch_size=size)

    def _compiled(self) -> tuple[training.Objective, optimizers.Optimizer]:
        if self._objective is None or self._optimizer is None:
            raise RuntimeError("the model has no loss and optimizer yet: call compile first")
        return self._objective, self._optimizer

    def _examples(self, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None) -> Examples:
        targets = np.asarray(y)
        if targets.dtype.kind == "f":
            targets = targets.astype(self.dtype, copy=False)
        return Examples(self._inputs(x), targets, _optional_lengths(lengths))

    def _inputs(self, x: ArrayLike) -> NDArray[Any]:
        """`x` in the layers' dtype; ids for an Embedding stay as they are."""
        inputs = np.asarray(x)
        if self.takes_ids:
            return inputs
        if inputs.dtype.kind not in "fiub":
            raise TypeError(f"x: expected real numbers, got {inputs.dtype}")
        return inputs.astype(self.dtype, copy=False)

    def save(self, path: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> None:
        """Write a safetensors file, for `fastrnn.load`; `extra` is anything that JSON can hold.

        What `compile` was given is not kept. Raises OSError where the file cannot be written.
        """
        description = {"kind": type(self).__name__, **self.config()}
        from fastrnn import serialization  # not at import: most never need it

        content = serialization.ModelFile(self.state_dict(), description, extra or {})
        serialization.write(path, content)


def _metric(metric: str | Metric, loss: losses.Loss) -> Metric:
    """The metric of that name or the callable itself; a name's takes logits where `loss` does."""
    logits = getattr(loss, "from_logits", False)
    if isinstance(metric, str) and metric in losses.NAMES:
        return losses.get(metric, from_logits=logits)
    found = metrics.get_metric(metric)
    if isinstance(metric, str) and logits and isinstance(loss, losses.BinaryCrossentropy):
        # A threshold of 0.5 is one for probabilities. The greatest of a row needs no such care.
        return lambda y_true, y_pred: found(y_true, losses.sigmoid(np.array(y_pred)))
    return found


def _optional_lengths(lengths: ArrayLike | None) -> NDArray[np.int64] | None:
    return None if lengths is None else np.asarray(lengths)
