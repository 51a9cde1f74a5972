"""Callbacks by Keras's names: what happens between the steps and epochs of `fit`."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastrnn.fit import Callback
from fastrnn.serialization import check_writable, remove_leftovers, replace_file

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Logs = dict[str, float]

_LARGER_IS_BETTER = ("acc", "f1", "auc")  # as they begin, after val_; all else is to go down


class _Watch:
    """Whether a monitored number is better than the best so far."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {mode!r}")
        if mode == "auto":
            name = monitor.removeprefix("val_")
            named = name.startswith(_LARGER_IS_BETTER) or name.endswith("accuracy")
            mode = "max" if named else "min"
        self.monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._min_delta = abs(min_delta)
        self.reset()

    def reset(self) -> None:
        self.best = -self._sign * math.inf

    def value(self, logs: Mapping[str, float]) -> float:
        if self.monitor not in logs:
            raise ValueError(
                f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}"
                + ("; it wants validation data" if self.monitor.startswith("val_") else "")
            )
        return float(logs[self.monitor])

    def better(self, value: float) -> bool:
        """Whether `value` is, which makes it the best."""
        if not self._sign * (value - self.best) > self._min_delta:
            return False
        self.best = value
        return True


class EarlyStopping(Callback):
    """Ends training once `monitor` has not got better, by more than `min_delta`, in `patience`
    epochs.

    `mode`: "min", "max", or "auto", which is "max" for accuracies and F1. With
    `restore_best_weights` the model has the weights of its best epoch again when training ends,
    however it ends. Epochs before `start_from_epoch` do not count.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self._watch = _Watch(monitor, mode, min_delta)
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.on_train_begin()

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._watch.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if hasattr(self, "run") and self.run.epoch:
            return  # it goes on, from what set_state was given
        self._watch.reset()
        self.wait, self.best_epoch, self.stopped_epoch = 0, -1, -1
        self.best_weights: dict[str, Any] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch < self.start_from_epoch or self.run.history.interrupted:
            return
        if self._watch.better(self._watch.value(logs or {})):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.state_dict()
            return
        self.wait += 1
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch, self.run.stop = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)

    def state(self) -> Any:
        return {
            "best": self._watch.best,
            "wait": self.wait,
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "best_weights": self.best_weights,
        }

    def set_state(self, state: Any) -> None:
        self._watch.best = state["best"]
        self.wait, self.best_epoch = state["wait"], state["best_epoch"]
        self.stopped_epoch, self.best_weights = state["stopped_epoch"], state["best_weights"]


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate with `factor` once `monitor` has not got better in `patience`
    epochs, down to `min_lr` at least; `cooldown` epochs after that do not count."""

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if not 0.0 < factor < 1.0:
            raise ValueError(f"factor: expected a number between 0 and 1, got {factor!r}")
        self._watch = _Watch(monitor, mode, min_delta)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if hasattr(self, "run") and self.run.epoch:
            return  # as in EarlyStopping
        self._watch.reset()
        self._wait = self._cooling = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = {} if logs is None else logs
        logs["learning_rate"] = self.run.optimizer.learning_rate  # of the epoch, for the history
        if self.run.history.interrupted:
            return
        if self._cooling:
            self._cooling, self._wait = self._cooling - 1, 0
        if self._watch.better(self._watch.value(logs)):
            self._wait = 0
        elif not self._cooling:
            self._wait += 1
            if self._wait >= self.patience:
                optimizer = self.run.optimizer
                if optimizer.learning_rate > self.min_lr:
                    lower = max(optimizer.learning_rate * self.factor, self.min_lr)
                    optimizer.learning_rate = lower
                    self._cooling, self._wait = self.cooldown, 0

    def state(self) -> Any:
        return {"best": self._watch.best, "wait": self._wait, "cooling": self._cooling}

    def set_state(self, state: Any) -> None:
        self._watch.best, self._wait = state["best"], state["wait"]
        self._cooling = state["cooling"]


class ModelCheckpoint(Callback):
    """Saves the model after every epoch, or with `save_best_only` after those in which `monitor`
    got better than ever.

    `filepath` may hold names of the logs and the epoch, from 1: ``"m-{epoch:02d}-{val_loss:.2f}"``.
    What is there is replaced once all is written. For runs that go on, see the `checkpoint` of fit.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
    ) -> None:
        self.filepath = os.fspath(filepath)
        self.save_best_only = save_best_only
        self._watch = _Watch(monitor, mode, 0.0)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        values = logs or {}
        if self.save_best_only and not self._watch.better(self._watch.value(values)):
            return
        self.model.save(self.filepath.format(epoch=epoch + 1, **values))

    def state(self) -> Any:
        return {"best": self._watch.best}

    def set_state(self, state: Any) -> None:
        self._watch.best = state["best"]


class CSVLogger(Callback):
    """Writes a CSV file: a line for every epoch, its number and its logs.

    A file that is there is replaced, or with `append` carried on; a run that goes on from a
    checkpoint carries its own on from that epoch.
    """

    def __init__(self, filename: str | os.PathLike[str], append: bool = False) -> None:
        self.path = Path(filename)
        self.append = append

    def on_train_begin(self, logs: Logs | None = None) -> None:
        check_writable(self.path)
        remove_leftovers(self.path)
        self._rows: list[dict[str, Any]] = []
        goes_on = self.run.epoch > 0 or self.run.step > 0
        if (self.append or goes_on) and self.path.exists():
            import csv

            with open(self.path, newline="", encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file))
        if goes_on and not self.append:
            self._rows = [row for row in self._rows if int(row["epoch"]) < self.run.epoch]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        import csv  # not at import: most never need it

        self._rows.append({"epoch": epoch, **(logs or {})})
        text = io.StringIO(newline="")
        names = dict.fromkeys(name for row in self._rows for name in row)
        writer = csv.DictWriter(text, list(names))
        writer.writeheader()
        writer.writerows(self._rows)
        replace_file(self.path, text.getvalue().encode())


class LambdaCallback(Callback):
    """Calls functions of your own: each takes what the method of its name takes."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name.startswith("on_")}
        for name, function in given.items():
            if function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends training once a batch's loss is not a finite number."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if logs and not math.isfinite(logs["loss"]):
            print(f"batch {batch}: the loss is {logs['loss']}, training ends")
            self.run.stop = True
