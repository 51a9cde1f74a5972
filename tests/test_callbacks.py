"""Callbacks: when they are called, and what each of them does."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)

X = np.random.default_rng(0).normal(size=(6, 2))
Y = X.sum(axis=1, keepdims=True)


def linear(learning_rate: float = 0.1) -> fr.Sequential:
    model = fr.Sequential([fr.Dense(2, 1, dtype="float64", seed=0)])
    model.compile(fr.SGD(learning_rate), "mse")
    return model


class Scripted(Callback):
    """Puts `losses` in the logs, one an epoch, for the callbacks after it."""

    def __init__(self, losses: list[float], name: str = "val_loss") -> None:
        self.losses, self.name = losses, name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.losses[epoch]


def test_they_are_called_in_keras_s_order_with_its_arguments() -> None:
    calls: list[tuple[Any, ...]] = []

    def note(name: str) -> Any:
        return lambda *arguments: calls.append((name, *arguments))

    names = [name for name in dir(Callback) if name.startswith("on_")]
    noting = LambdaCallback(**{name: note(name) for name in names})
    linear().fit(X, Y, epochs=2, batch_size=3, callbacks=[noting])
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    epoch = ["on_epoch_begin", *batch, *batch, "on_epoch_end"]
    assert [call[0] for call in calls] == ["on_train_begin", *epoch, *epoch, "on_train_end"]
    assert [call[1] for call in calls if call[0] in batch] == [0, 0, 1, 1] * 2
    assert [call[1] for call in calls if "epoch" in call[0]] == [0, 0, 1, 1]
    logs = next(call[2] for call in calls if call[0] == "on_epoch_end")
    assert list(logs) == ["loss"]


def test_model_and_run_are_there_and_training_can_be_ended() -> None:
    class Ending(Callback):
        def __init__(self, by_model: bool) -> None:
            self.by_model = by_model

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.by_model:
                self.model.stop_training = True
            else:
                self.run.stop = True

    for by_model in (True, False):
        ending = Ending(by_model)
        model = linear()
        history = model.fit(X, Y, epochs=3, batch_size=2, callbacks=[ending])
        assert ending.model is model and history.epoch == [0]
        assert ending.run.optimizer.iterations == 1
    assert len(linear().fit(X, Y, epochs=3).epoch) == 3


@pytest.mark.parametrize(
    ("losses", "patience", "epochs", "best"),
    [
        ([3, 2, 1, 2, 1.5, 1.2, 1.1], 2, 5, 2),
        ([3, 2, 1, 2, 1.5, 0.5, 1.1], 3, 7, 5),
        ([1, 2, 3], 0, 2, 0),
        ([3, math.nan, math.nan, 1], 2, 3, 0),
    ],
)
@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping(
    losses: list[float], patience: int, epochs: int, best: int, restore: bool
) -> None:
    weights: list[Any] = []
    model = linear()
    after = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.state_dict()))
    stopping = EarlyStopping(patience=patience, restore_best_weights=restore)
    history = model.fit(X, Y, epochs=len(losses), callbacks=[Scripted(losses), stopping, after])
    assert len(history.epoch) == epochs
    assert (stopping.best, stopping.best_epoch) == (losses[best], best)
    want = weights[best if restore else -1]["0.dense.weight"]
    np.testing.assert_array_equal(model.state_dict()["0.dense.weight"], want)


def test_what_is_better_follows_from_the_name() -> None:
    for name, values in (("val_accuracy", [0.1, 0.2, 0.15]), ("val_f1", [0.1, 0.2, 0.15])):
        stopping = EarlyStopping(name)
        linear().fit(X, Y, epochs=3, callbacks=[Scripted(values, name), stopping])
        assert stopping.best == 0.2
    stopping = EarlyStopping(mode="max", min_delta=0.3, patience=5)
    linear().fit(X, Y, epochs=3, callbacks=[Scripted([1.0, 1.2, 1.4]), stopping])
    assert stopping.best == 1.4
    linear().fit(X, Y, epochs=2, callbacks=[Scripted([0.5, 0.6]), stopping])
    assert stopping.best == 0.5  # a new run starts anew
    with pytest.raises(ValueError, match="monitor: expected one of loss, got 'val_loss'; it wants"):
        linear().fit(X, Y, callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="mode: expected 'auto', 'min' or 'max', got 'up'"):
        EarlyStopping(mode="up")


def test_the_learning_rate_goes_down_on_a_plateau() -> None:
    model = linear(0.1)
    rates: list[float] = []
    after = LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(model._optimizer.learning_rate)
    )
    reducing = ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.03)
    losses = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    history = model.fit(X, Y, epochs=len(losses), callbacks=[Scripted(losses), reducing, after])
    assert history.history["learning_rate"] == [0.1, *rates[:-1]]
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03]
    with pytest.raises(ValueError, match="factor: expected a number between 0 and 1, got 2"):
        ReduceLROnPlateau(factor=2)


def test_models_are_saved(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "m-{epoch:02d}-{val_loss:.1f}.safetensors")
    best = ModelCheckpoint(tmp_path / "best.safetensors", save_best_only=True)
    weights: list[Any] = []
    model = linear()
    after = LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.state_dict()))
    model.fit(X, Y, epochs=3, callbacks=[Scripted([3.0, 1.0, 2.0]), saving, best, after])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "m-01-3.0.safetensors",
        "m-02-1.0.safetensors",
        "m-03-2.0.safetensors",
    ]
    got = fr.load(tmp_path / "best.safetensors").state_dict()["0.dense.weight"]
    np.testing.assert_array_equal(got, weights[1]["0.dense.weight"])


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    history = linear().fit(X, Y, epochs=3, callbacks=[CSVLogger(path)])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == history.history["loss"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    linear().fit(X, Y, callbacks=[CSVLogger(path, append=True)])
    assert len(path.read_text().splitlines()) == 5
    linear().fit(X, Y, callbacks=[CSVLogger(path)])
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="there is no folder"):
        linear().fit(X, Y, callbacks=[CSVLogger(tmp_path / "none" / "log.csv")])


def test_nan_ends_training(capsys: pytest.CaptureFixture[str]) -> None:
    model = linear()
    model.fit(X, np.full_like(Y, np.nan), epochs=3, batch_size=2, callbacks=[TerminateOnNaN()])
    assert model._optimizer is not None and model._optimizer.iterations == 1
    assert "batch 0: the loss is nan, training ends" in capsys.readouterr().out


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match=r"callbacks\[1\]: expected a Callback, got 'csv'"):
        linear().fit(X, Y, callbacks=[TerminateOnNaN(), "csv"])
