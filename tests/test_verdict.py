"""What is said of a run: of made-up ones, and of networks whose half-lives are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from runs import record, strand

import fastrnn as fr
from fastrnn.diagnostics import Finding, Monitor, Record, findings, read
from fastrnn.diagnostics.verdict import number


def one(made: Record, level: str) -> Finding:
    found = findings(made)
    assert [finding.level for finding in found] == [level], found
    return found[0]


def test_vanishing_is_said_with_its_half_life_and_what_helps() -> None:
    said = one(record(strand(every=2.0)), "trouble")
    assert said.title == "Vanishing gradient in 0.rnn"
    assert "|dL/dh| halves every 2 steps back" in said.text
    assert f"{number(2.0 ** (-58 / 2))} is left 58 steps before" in said.text
    assert "spectral radius of its recurrent matrix is 0.5" in said.text
    assert "LSTM or a GRU" in said.help and "A loss at more steps than the last" in said.help
    assert "forget" in one(record(strand("0.lstm", "LSTM", 2.0)), "trouble").help
    assert "spectral" not in one(record(strand("0.gru", "GRU", 2.0)), "trouble").text


def test_the_first_epoch_is_compared_with() -> None:
    fast, slow = strand(every=2.0), strand(every=25.0)
    fast.flow[1] = slow.flow[1]
    said = one(record(fast), "good")
    assert "halves every 25 steps back" in said.text
    assert said.text.endswith("In epoch 1 it halves every 2 steps back.")


def test_what_another_layer_carries_is_no_trouble() -> None:
    layers = strand("0.lstm l0", "LSTM", 40.0), strand("0.lstm l1", "LSTM", 3.0)
    note, good = findings(record(*layers))
    assert (note.level, good.level) == ("note", "good")
    assert note.title == "Vanishing gradient in 0.lstm l1"
    assert "It does flow through 0.lstm l0" in note.text


def test_exploding() -> None:
    said = one(record(strand(every=-3.0)), "trouble")
    assert said.title == "Exploding gradient in 0.rnn"
    assert "doubles every 3 steps back" in said.text and "global_clipnorm" in said.help
    bad = strand()
    bad.flow = [np.where(np.arange(60) > 50, math.inf, flow) for flow in bad.flow]
    assert "is not a finite number" in one(record(bad), "trouble").text


def test_no_gradient_at_all() -> None:
    said = one(record(strand(steps=[0, 0], flow=[np.zeros(0)] * 2)), "trouble")
    assert said.title == "No gradient reaches 0.rnn"


def test_with_a_loss_at_every_step_reach_tells() -> None:
    blind = one(record(strand(probe=False, every=1000.0), every_step=True), "note")
    assert "is not to be seen" in blind.title and "Monitor(probe=...)" in blind.help
    seeing = strand(every=1000.0)
    seeing.reach = [2.0 ** (-np.arange(10.0) * 2)] * 2
    said = one(record(seeing, every_step=True), "trouble")
    assert "halves every 0.5 steps" in said.text and "A loss at more steps" not in said.help
    assert one(record(strand(every=1000.0)), "good").text.startswith("|dL/dh| hardly changes")


def test_a_loss_that_is_not_finite() -> None:
    made = record(strand())
    made.logs[1]["val_loss"] = math.inf
    bad, _ = findings(made)
    assert bad.level == "trouble" and bad.title == "val_loss is inf from epoch 2 on"
    assert findings(record(seen=[], shown=[])) == []


def test_dead_units() -> None:
    bad, _ = findings(record(strand("0.rnn", dead=[0.0, 0.25])))
    assert bad.level == "warning" and "2 of 8 in 0.rnn" in bad.text and "relu" not in bad.text
    relu = strand(dead=[0.0, 0.25], activations=["relu"])
    assert "relu" in findings(record(relu))[0].text
    assert one(record(strand(dead=[0.5, 0.09])), "good")


@pytest.mark.parametrize(
    ("block", "low", "high", "said"),
    [
        ("i", 0.95, 0.0, True),  # shut
        ("i", 0.0, 0.95, False),  # open all the time: as if there were none
        ("f", 0.5, 0.45, True),  # a switch
        ("g", 0.0, 0.95, True),
        ("g", 0.5, 0.45, True),
        ("o", 0.5, 0.35, False),
        ("o", math.nan, math.nan, False),
    ],
)
def test_saturated_gates(block: str, low: float, high: float, said: bool) -> None:
    made = strand("0.lstm", "LSTM")
    place = "ifgo".index(block)
    made.low, made.high = ([ends.copy() for ends in made.low] for _ in range(2))
    made.low[1][place], made.high[1][place] = low, high
    found = findings(record(made))
    assert [finding.title for finding in found[:-1]] == ["Saturated gates"] * said
    if said:
        what = "candidate" if block == "g" else "gate"
        assert f"{what} {block} of 0.lstm ({low:.0%} at the low end" in found[0].text


def test_many_layers_are_named_in_short() -> None:
    made = record(*(strand(f"{k}.rnn", every=2.0) for k in range(9)))
    assert one(made, "trouble").title.endswith("0.rnn, 1.rnn, 2.rnn, 3.rnn, 4.rnn and 4 more")


@pytest.mark.parametrize(("radius", "word"), [(0.5, "Vanishing"), (1.5, "Exploding")])
def test_networks_with_known_spectra(radius: float, word: str, tmp_path: Path) -> None:
    """Trained so slowly that nothing changes, in the part where tanh is a line."""
    rng = np.random.default_rng(0)
    layer = fr.RNN(2, 16, bias=False, return_sequences=False, dtype="float64", seed=0)
    layer.parameters()["weight_hh_l0"].assign(
        radius * np.linalg.qr(rng.standard_normal((16, 16)))[0]
    )
    model = fr.Sequential([layer, fr.Dense(16, 1, dtype="float64", seed=0)])
    model.compile(fr.SGD(1e-15), "mse")
    x = 1e-9 * rng.standard_normal((8, 30, 2))
    model.fit(x, np.ones((8, 1)), epochs=2, callbacks=[Monitor(tmp_path, probe=x[:2])])
    said = one(read(tmp_path), "trouble")
    assert said.title == f"{word} gradient in 0.rnn"
    every = number(1 / abs(math.log2(radius)))
    change = "halves" if radius < 1 else "doubles"
    assert f"{change} every {every} step" in said.text
    assert f"spectral radius of its recurrent matrix is {number(radius)}" in said.text


def test_an_lstm_that_remembers_is_healthy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = fr.LSTM(2, 16, return_sequences=False, unit_forget_bias=True, seed=0)
    with layer.parameters()["bias_ih_l0"].writing() as bias:
        bias[16:32] = 4.0
    model = fr.Sequential([layer, fr.Dense(16, 1, seed=0)])
    model.compile(fr.SGD(1e-9), "mse")
    x = rng.standard_normal((8, 50, 2)).astype("float32")
    model.fit(x, np.ones((8, 1)), callbacks=[Monitor(tmp_path, probe=x[:2])])
    assert one(read(tmp_path), "good").title == "Gradients flow through 0.lstm"


def test_numbers_in_words() -> None:
    values = (0.3219, 14.2, 99.4, 512.3, 3.4e-9, 2.1e7, 0.0, 1e5, math.nan)
    assert [number(value) for value in values] == [
        "0.32", "14", "99", "512", "3.4e-9", "2.1e7", "0", "1e5", "nan",
    ]  # fmt: skip
