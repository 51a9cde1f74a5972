"""Monitor: what it keeps of a run, how a run goes on, and the folder that it is kept in."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import serialization
from fastrnn.callbacks import Callback
from fastrnn.diagnostics import (
    Monitor,
    Record,
    dead_units,
    gate_saturation,
    gradient_flow,
    look_inside,
    movement,
    reach,
    read,
    recurrent_radii,
)
from fastrnn.diagnostics.monitor import STATES
from fastrnn.diagnostics.record import FILE
from fastrnn.layers.recurrent import Recurrent

X = np.random.default_rng(0).normal(size=(12, 6, 3)).astype("float32")
Y = X.sum(axis=(1, 2), keepdims=True)[:, 0]


def model(seed: int = 0, **options: Any) -> fr.Sequential:
    layers = [
        fr.Dense(3, 4, seed=seed),
        fr.LSTM(4, 5, 2, bidirectional=True, seed=seed),
        fr.GRU(10, 6, return_sequences=False, seed=seed, **options),
        fr.Dense(6, 1, seed=seed),
    ]
    made = fr.Sequential(layers)
    made.compile(fr.SGD(0.01), "mse", metrics=["mse"])
    return made


def fit(made: fr.Sequential, monitor: Monitor, *others: Callback, **options: Any) -> Record:
    options = {"epochs": 3, "batch_size": 5, "seed": 1, **options}
    made.fit(X, Y, callbacks=[*others, monitor], validation_data=(X, Y), **options)
    return read(monitor.path)


class Watching(Callback):
    """Notes each step's flow through each recurrent layer, and the model's weights by epoch."""

    def __init__(self) -> None:
        self.flows: list[list[Any]] = []
        self.weights: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        for layer in self.model.layers:
            if layer.recurrent:
                layer.on_gradient = lambda flow: self.flows[-1].append(flow)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.flows.append([])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.state_dict())


NAMES = ["1.lstm l0", "1.lstm l0_reverse", "1.lstm l1", "1.lstm l1_reverse", "2.gru"]


def assert_same(one: Any, other: Any) -> None:
    """Two records, or parts of them, are equal bit by bit."""
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif hasattr(one, "__dict__"):
        assert vars(one).keys() == vars(other).keys()
        for name, value in vars(one).items():
            assert_same(value, vars(other)[name])
    else:
        assert one == other


# --- What is kept -------------------------------------------------------------------------------


def test_the_loss_and_the_metrics(tmp_path: Path) -> None:
    made = model()
    monitor = Monitor(tmp_path)
    history = made.fit(
        X, Y, epochs=3, batch_size=5, validation_data=(X, Y), callbacks=[monitor], seed=1
    )
    record = read(tmp_path)
    assert record.epochs == record.seen == [0, 1, 2]
    assert record.logs == [
        {name: values[k] for name, values in history.history.items()} for k in range(3)
    ]
    assert list(record.logs[0]) == ["loss", "mse", "val_loss", "val_mse"]
    assert record.layers == ["Dense(3, 4)", "LSTM(4, 5)", "GRU(10, 6)", "Dense(6, 1)"]
    assert not record.every_step
    assert_same(record, monitor.record)


def test_gradients_are_means_over_the_epoch_s_steps(tmp_path: Path) -> None:
    watching = Watching()
    record = fit(model(), Monitor(tmp_path), watching)
    assert [strand.name for strand in record.strands] == NAMES
    assert [strand.kind for strand in record.strands] == ["LSTM"] * 4 + ["GRU"]
    assert [strand.reverse for strand in record.strands] == [False, True, False, True, False]
    assert record.strands[0].blocks == list("ifgo") and record.strands[4].units == 6
    for epoch, flows in enumerate(watching.flows):
        assert len(flows) == 6  # three steps, two layers, the last one first
        lstm = [gradient_flow(flow, 2) for flow in flows[1::2]]
        gru = [gradient_flow(flow) for flow in flows[::2]]
        for k, strand in enumerate(record.strands):
            want = np.mean([one[k] for one in lstm] if k < 4 else [one[0] for one in gru], axis=0)
            np.testing.assert_allclose(strand.flow[epoch], want, rtol=1e-13)
            assert strand.steps[epoch] == 6


def test_what_is_seen_on_the_probe(tmp_path: Path) -> None:
    watching, probe = Watching(), [X[0, :4], X[1]]
    record = fit(model(), Monitor(tmp_path, probe=probe, tokens=list("wxyz")), watching)
    assert record.tokens == list("wxyz") and record.shown == [0, 2] and record.first_step == 0
    for epoch, weights in enumerate(watching.weights):
        made = model(seed=5)
        made.load_state_dict(weights)
        x, lengths = fr.pack(probe)
        x = made.layers[0](x)
        strands = iter(record.strands)
        for layer in made.layers[1:3]:
            assert isinstance(layer, Recurrent)
            inside, reached = look_inside(layer, x, lengths), reach(layer, x, lengths)
            for one, far, radii in zip(inside, reached, recurrent_radii(layer), strict=True):
                strand = next(strands)
                np.testing.assert_array_equal(strand.radii[epoch], list(radii.values()))
                np.testing.assert_allclose(strand.reach[epoch], far, rtol=1e-6)
                for k, block in enumerate(strand.blocks):
                    through = strand.activations[k]
                    assert through == ("tanh" if block in "gn" else "sigmoid")
                    ends = gate_saturation(one.gates[block], through)
                    assert (strand.low[epoch][k], strand.high[epoch][k]) == ends
                states = np.concatenate(one.states)
                assert strand.dead[epoch] == dead_units(states).mean()
                moves = np.concatenate([movement(row, one.reverse) for row in one.states])
                want = moves.mean() / math.sqrt(states.shape[1])
                assert strand.moved[epoch] == pytest.approx(want)
                if epoch in record.shown:
                    kept = strand.states[record.shown.index(epoch)]
                    np.testing.assert_array_equal(kept, one.states[0])
                    assert kept.shape == (4, strand.units)
            x, _ = layer(x, lengths=lengths)


def test_a_probe_of_ids_and_one_row_alone(tmp_path: Path) -> None:
    made = fr.Sequential([fr.Embedding(20, 4, seed=0), fr.RNN(4, 5, seed=0), fr.Dense(5, 2)])
    made.compile("sgd", "mse")
    x = np.random.default_rng(0).integers(0, 20, (6, 8))
    monitor = Monitor(tmp_path, probe=[3, 1, 4, 1, 5], tokens="three")
    made.fit(x, np.zeros((6, 8, 2)), callbacks=[monitor])
    record = read(tmp_path)
    assert record.every_step and record.tokens == list("three")
    (strand,) = record.strands
    assert strand.name == "1.rnn" and strand.states[0].shape == (5, 5)
    assert strand.reach_steps == [5] and strand.steps == [8]


def test_long_rows_keep_their_last_states(tmp_path: Path) -> None:
    steps = STATES + 30
    made = fr.Sequential([fr.RNN(1, 2, return_sequences=False, dtype="float64", seed=0)])
    made.compile("sgd", "mse")
    probe = np.random.default_rng(0).normal(size=(steps, 1))
    tokens = [str(k) for k in range(steps)]
    made.fit(
        probe[None], np.zeros((1, 2)), callbacks=[Monitor(tmp_path, probe=probe, tokens=tokens)]
    )
    record = read(tmp_path)
    (strand,) = record.strands
    assert record.first_step == 30 and record.tokens == tokens[30:]
    assert strand.states[0].shape == (STATES, 2)
    np.testing.assert_allclose(strand.states[0][-1], made(probe[None])[0], rtol=1e-6)
    assert strand.steps == [steps] and len(strand.flow[0]) <= 200


def test_some_epochs_only(tmp_path: Path) -> None:
    watching = Watching()
    record = fit(model(), Monitor(tmp_path, probe=X[0], every=3), watching, epochs=6)
    assert record.epochs == list(range(6)) and len(record.logs) == 6
    assert record.seen == [0, 3, 5] and record.shown == [0, 5]
    for strand in record.strands:
        assert len(strand.flow) == len(strand.radii) == len(strand.dead) == 3
        assert len(strand.states) == 2


def test_of_many_steps_some_give_their_gradients(tmp_path: Path) -> None:
    made = fr.Sequential([fr.RNN(1, 2, return_sequences=False, seed=0)])
    made.compile(fr.SGD(1e-9), "mse")
    x = np.random.default_rng(0).normal(size=(450, 3, 1)).astype("float32")
    seen: list[Any] = []
    monitor = Monitor(tmp_path)

    class Counting(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(made.layers[0].on_gradient is not None)

    made.fit(x, np.ones((450, 2)), batch_size=1, epochs=2, callbacks=[Counting(), monitor])
    assert made.layers[0].on_gradient is None
    first, second = np.flatnonzero(seen[:450]), np.flatnonzero(seen[450:])
    assert first.tolist() == [*range(32), *range(32, 450, 8)]
    assert second.tolist() == list(range(0, 450, 4))


# --- Hooks, training itself ---------------------------------------------------------------------


def test_training_has_the_bits_that_it_has_without(tmp_path: Path) -> None:
    alone, watched = model(dropout=0.0), model()
    history = alone.fit(X, Y, epochs=3, batch_size=5, seed=1, validation_data=(X, Y))
    record = fit(watched, Monitor(tmp_path, probe=X[:2]))
    assert [log["loss"] for log in record.logs] == history.history["loss"]
    for name, value in alone.state_dict().items():
        np.testing.assert_array_equal(watched.state_dict()[name], value)


def test_a_hook_that_was_there_is_called_and_comes_back(tmp_path: Path) -> None:
    made, flows = model(), []
    made.layers[2].on_gradient = hook = flows.append
    fit(made, Monitor(tmp_path))
    assert made.layers[2].on_gradient is hook and made.layers[1].on_gradient is None
    assert len(flows) == 9


def test_a_run_that_broke_off_leaves_nothing_behind(tmp_path: Path) -> None:
    class Breaking(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("broken off")

    made = model()
    with pytest.raises(RuntimeError, match="broken off"):
        fit(made, Monitor(tmp_path), Breaking())
    fit(made, Monitor(tmp_path))
    assert made.layers[1].on_gradient is None


# --- Going on -----------------------------------------------------------------------------------


class Ending(Callback):
    """Ends training once so many steps are done: as a killed process does, or with Ctrl-C."""

    def __init__(self, steps: int | None = None, killed: bool = True) -> None:
        self.steps, self.killed, self.done = steps, killed, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.done == self.steps and self.killed:
            raise InterruptedError
        self.done += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.done == self.steps and not self.killed:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_a_run_goes_on_with_the_same_record(steps: int, killed: bool, tmp_path: Path) -> None:
    """Between epochs and in the middle of one: what was seen of one cut short is replaced."""

    def run(name: str, *arguments: Any, checkpoint: bool = True) -> Record:
        kept = {"checkpoint": tmp_path / "run", "checkpoint_every": 1} if checkpoint else {}
        monitor = Monitor(tmp_path / name, probe=X[0], every=2)
        return fit(model(), monitor, Ending(*arguments), epochs=4, **kept)

    whole = run("whole", checkpoint=False)
    if killed:
        with pytest.raises(InterruptedError):
            run("parts", steps)
    else:
        assert len(run("parts", steps, False).epochs) == (steps + 2) // 3
    assert_same(run("parts"), whole)
    assert_same(run("parts"), whole)  # there is nothing left to do


def test_a_new_run_replaces_the_record(tmp_path: Path) -> None:
    fit(model(), Monitor(tmp_path), epochs=3)
    record = fit(model(), Monitor(tmp_path, probe=X[0]), epochs=1)
    assert record.epochs == [0] and [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_epoch_without_a_step_is_not_looked_into(tmp_path: Path) -> None:
    class Stopped(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.run.stop = epoch == 1

    record = fit(model(), Monitor(tmp_path), Stopped())
    assert record.epochs == [0, 1] and record.seen == [0]


def test_weights_that_are_not_finite_are_seen_too(tmp_path: Path) -> None:
    made = model()
    made.compile(fr.SGD(1e30), "mse")
    record = fit(made, Monitor(tmp_path, probe=X[:2]))
    assert math.isnan(record.logs[-1]["loss"])
    for strand in record.strands:
        assert np.isnan(strand.flow[-1]).all() and np.isnan(strand.radii[-1]).all()
        assert np.isnan(strand.low[-1]).all() and math.isnan(strand.moved[-1])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "a run with another probe"),
        ({"probe": X[0], "tokens": "ghijkl"}, "a run with other tokens"),
    ],
)
def test_a_record_of_another_run_is_not_gone_on_with(
    options: dict[str, Any], what: str, tmp_path: Path
) -> None:
    kept = {"checkpoint": tmp_path / "run"}
    fit(model(), Monitor(tmp_path / "m", probe=X[0], tokens="abcdef"), epochs=1, **kept)
    with pytest.raises(ValueError, match=what):
        fit(model(), Monitor(tmp_path / "m", **options), epochs=2, **kept)
    other = fr.Sequential([fr.RNN(3, 2, return_sequences=False)])
    other.compile("sgd", "mse")
    other.fit(X, Y[:, [0, 0]], callbacks=[Monitor(tmp_path / "other")])
    with pytest.raises(ValueError, match="a run with other layers"):
        fit(model(), Monitor(tmp_path / "other"), epochs=2, **kept)


# --- What does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"every": 0}, ValueError, "every: expected an integer from 1"),
        ({"tokens": ["a"]}, ValueError, "tokens: expected with a probe"),
        (
            {"probe": X[0], "tokens": "abc"},
            ValueError,
            "tokens: expected 6, one for each step .* 3",
        ),
        ({"probe": X[0, 0]}, ValueError, r"probe: expected \(time, features\) or \(rows, time, fe"),
        ({"probe": X[:0]}, ValueError, "probe: expected"),
        (
            {"probe": [X[0, :0], X[1]]},
            ValueError,
            "probe: expected a first row of one step or more",
        ),
        ({"probe": X[..., :2]}, ValueError, r"x: expected .*3"),
        ({"probe": np.array(["a"])}, TypeError, "probe: expected numbers, got <U1"),
    ],
)
def test_what_does_not_fit(
    options: dict[str, Any], error: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        fit(model(), Monitor(tmp_path, **options))


def test_a_probe_is_tried_before_training(tmp_path: Path) -> None:
    """An hour of training is a late time to learn that a probe does not fit."""
    made, before = model(), model().state_dict()
    with pytest.raises(ValueError, match="x: expected"):
        fit(made, Monitor(tmp_path, probe=X[..., :2]))
    for name, value in made.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    ids = fr.Sequential([fr.Embedding(5, 2), fr.GRU(2, 2, return_sequences=False)])
    ids.compile("sgd", "mse")
    for probe, error in (([1.5, 2.0], TypeError), ([4, 5], IndexError)):
        with pytest.raises((error, ValueError)):
            ids.fit(
                np.ones((1, 2), int), np.ones((1, 2)), callbacks=[Monitor(tmp_path, probe=probe)]
            )


def test_a_model_without_recurrent_layers(tmp_path: Path) -> None:
    made = fr.Sequential([fr.Dense(3, 1)])
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match="model: expected at least one recurrent layer"):
        made.fit(X[:, 0], Y, callbacks=[Monitor(tmp_path)])


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        fit(model(), Monitor(tmp_path / "file"))
    record = fit(model(), Monitor(tmp_path / "new" / "folder"))
    assert record.epochs == [0, 1, 2]


# --- Files --------------------------------------------------------------------------------------


def test_files_that_are_no_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=f"{FILE}: not a model file"):
        read(tmp_path)
    model().save(path)
    with pytest.raises(ValueError, match=f"{FILE}: not what a Monitor has written"):
        read(tmp_path)


def test_damaged_records(tmp_path: Path) -> None:
    fit(model(), Monitor(tmp_path, probe=X[0], tokens="abcdef"))
    path = tmp_path / FILE
    whole = serialization.read(path)

    def tree() -> Any:
        return serialization.read(path).extra["monitor"]["dict"]

    def strand(entries: Any) -> Any:
        return entries["strands"]["list"][0]["dict"]

    def drop(key: str) -> Any:
        return lambda entries: entries.pop(key)

    def shorten(key: str) -> Any:
        return lambda entries: strand(entries)[key]["list"].pop()

    for damage in (
        drop("strands"), drop("epochs"), drop("layers"), shorten("steps"), shorten("dead"),
        shorten("blocks"), shorten("activations"), shorten("states"),
        lambda entries: strand(entries).pop("flow"),
        lambda entries: strand(entries)["flow"]["dict"]["sizes"]["list"].pop(),
        lambda entries: strand(entries).update(surplus=1),
        lambda entries: entries["tokens"]["list"].pop(),
        lambda entries: entries["logs"]["list"][0]["dict"].update(loss="low"),
        lambda entries: entries.update(seen={"array": "monitor/none"}),
    ):  # fmt: skip
        entries = tree()
        damage(entries)
        content = serialization.ModelFile(
            whole.tensors, whole.description, {"monitor": {"dict": entries}}
        )
        serialization.write(path, content)
        with pytest.raises(ValueError, match=rf"{FILE}: damaged \("):
            read(tmp_path)
        serialization.write(path, whole)
    assert read(tmp_path).epochs == [0, 1, 2]
