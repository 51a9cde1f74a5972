"""Checkpoints: all that a training run depends on, so that it goes on with the same bits.

A checkpoint is a model file (`fastrnn.serialization`) that holds more: tensors whose names begin
with ``training/``, and in ``extra`` how far the run was. `fastrnn.load` reads the model from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn import serialization
from fastrnn.fit import Batches, Run
from fastrnn.history import History
from fastrnn.parameter import Array

Settings = Mapping[str, Any]


def settings_of(run: Run, batches: Batches) -> Settings:
    """What a run must have in common with the one that it goes on from."""
    optimizer = run.optimizer.config()
    if isinstance(optimizer["learning_rate"], float):
        del optimizer["learning_rate"]  # a callback may change it: it is state
    return {
        "optimizer": {"kind": type(run.optimizer).__name__, **optimizer},
        "loss": repr(run.objective.loss),
        "metrics": list(run.objective.metrics),
        "shuffle": run.rng is not None,
        "tbptt": run.tbptt,
        "batch_size": getattr(batches, "batch_size", None),
        "steps_per_epoch": batches.steps(),
        "callbacks": [type(callback).__name__ for callback in run.callbacks],
    }


@dataclass(frozen=True)
class Checkpoint:
    """The file in which a run is kept, and the settings that it must have been made with."""

    path: str | os.PathLike[str]
    settings: Settings

    def save(self, run: Run) -> None:
        """Write what `run` depends on; the file that is there is replaced once all is written."""
        model: Any = run.model
        tensors: dict[str, Array] = dict(model.state_dict())
        now = None if run.rng is None else run.rng.bit_generator.state
        tree = {
            "settings": dict(self.settings),
            "epoch": run.epoch,
            "step": run.step,
            "stop": run.stop,
            "rng": run.order if run.step else now,
            "random": model.random_state(),
            "optimizer": run.optimizer.state_dict(),
            "state": run.state,
            "means": {"rows": run.means.rows, "loss": run.means.loss, "sums": run.means.sums},
            "history": {"epoch": run.history.epoch, "history": run.history.history},
            "callbacks": [callback.state() for callback in run.callbacks],
        }
        training = flatten(tree, serialization.TRAINING, tensors)
        content = serialization.ModelFile(tensors, model.description(), {"training": training})
        serialization.write(self.path, content)

    def resume(self, run: Run) -> None:
        """Bring `run` to where the one in the file was, if there is a file.

        Raises OSError where it cannot be read or written; ValueError where it is damaged, where the
        model is another, and where the run was made with other settings.
        """
        serialization.check_writable(self.path)
        serialization.remove_leftovers(self.path)
        if not Path(self.path).exists():
            return
        content = serialization.read(self.path)
        try:
            tree = self._read(content, run)
            run.model.load_state_dict(content.weights)  # type: ignore[attr-defined]
            _restore(run, tree)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{self.path}: a damaged checkpoint ({error!r})") from None

    def _read(self, content: serialization.ModelFile, run: Run) -> dict[str, Any]:
        """What was saved of the run, which must be one of this model and these settings."""
        if "training" not in content.extra:
            raise ValueError(
                f"{self.path}: a model, but not a checkpoint: nothing tells how far a run was"
            )
        if content.description != run.model.description():  # type: ignore[attr-defined]
            raise ValueError(f"{self.path}: a checkpoint of another model")
        tree: dict[str, Any] = unflatten(content.extra["training"], content.tensors)
        for name, value in self.settings.items():
            if tree["settings"][name] != value:
                raise ValueError(
                    f"{self.path}: a checkpoint of a run with {name} {tree['settings'][name]!r}, "
                    f"this one has {value!r}"
                )
        return tree


def _restore(run: Run, tree: dict[str, Any]) -> None:
    model: Any = run.model
    run.optimizer.load_state_dict(tree["optimizer"])
    model.set_random_state(tree["random"])
    run.epoch, run.step, run.stop = tree["epoch"], tree["step"], tree["stop"]
    run.state = tree["state"]
    if run.rng is not None:
        run.rng.bit_generator.state = tree["rng"]
        run.order = tree["rng"]
    run.means.rows, run.means.loss = tree["means"]["rows"], tree["means"]["loss"]
    run.means.sums = tree["means"]["sums"]
    run.history = History(tree["history"]["epoch"], tree["history"]["history"])
    for callback, state in zip(run.callbacks, tree["callbacks"], strict=True):
        if state is not None:
            callback.run = run
            callback.set_state(state)


def flatten(tree: Any, prefix: str, tensors: dict[str, Array]) -> Any:
    """`tree` (None, numbers, strings, arrays; lists, tuples and dicts of them) as JSON can hold it.

    Arrays go to `tensors`, under names that begin with `prefix`. Raises TypeError for what is none
    of these.
    """
    match tree:
        case None | bool() | int() | str():
            return tree
        case float():
            return tree if math.isfinite(tree) else {"float": repr(tree)}
        case np.ndarray() | np.generic():
            tensors[prefix] = np.asarray(tree)
            return {"array": prefix}
        case list() | tuple():
            inner = prefix if prefix.endswith("/") else f"{prefix}/"
            parts = [flatten(part, f"{inner}{k}", tensors) for k, part in enumerate(tree)]
            return {type(tree).__name__: parts}
        case dict():
            inner = prefix if prefix.endswith("/") else f"{prefix}/"
            return {"dict": {k: flatten(v, f"{inner}{k}", tensors) for k, v in tree.items()}}
    raise TypeError(f"{prefix}: a checkpoint cannot hold {type(tree).__name__}")


def unflatten(tree: Any, tensors: Mapping[str, Array]) -> Any:
    """What `flatten` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "float":
        return float(value)
    if kind == "array":
        return tensors[value]
    if kind == "dict":
        return {key: unflatten(part, tensors) for key, part in value.items()}
    parts = [unflatten(part, tensors) for part in value]
    return tuple(parts) if kind == "tuple" else parts
