"""Records of runs that never were, for what is said and drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.diagnostics import Record, Strand, in_columns

NAUGHTY = ["<b>", "</span>", "&amp;", '"', "'", "a b", " ", "\n", "", "<script>alert(1)</script>"]


def strand(
    name: str = "0.rnn",
    kind: str = "RNN",
    every: float = 30.0,
    time: int = 60,
    epochs: int = 2,
    probe: bool = True,
    **changed: Any,
) -> Strand:
    """One whose gradient halves every so many steps, nothing else being wrong."""
    blocks = {"RNN": ["h"], "LSTM": list("ifgo"), "GRU": list("rzn")}[kind]
    through = ["tanh" if block in "hgn" else "sigmoid" for block in blocks]
    flow = in_columns(0.1 * 2.0 ** (-np.arange(float(time)) / every))
    made = Strand(name, kind, blocks, through, 8, False, [time] * epochs, [flow] * epochs)
    made.radii = [np.full(len(blocks), 0.5)] * epochs
    if probe:
        made.reach_steps, made.reach = [len(NAUGHTY)] * epochs, [flow[: len(NAUGHTY)]] * epochs
        made.low = made.high = [np.full(len(blocks), 0.1)] * epochs
        made.dead, made.moved = [0.0] * epochs, [0.3] * epochs
        states = np.random.default_rng(0).uniform(-1, 1, (len(NAUGHTY), 8)).astype("float32")
        made.states = [states] * min(2, epochs)
    for field, value in changed.items():
        setattr(made, field, value)
    return made


def record(*strands: Strand, every_step: bool = False, **changed: Any) -> Record:
    epochs = len(strands[0].steps) if strands else 2
    logs = [{"loss": 1.0 / (k + 1), "val_loss": 1.5, "accuracy": 0.5} for k in range(epochs)]
    made = Record(["RNN(2, 8)", "Dense(8, 1)"], every_step, list(strands))
    made.epochs, made.logs = list(range(epochs)), logs
    made.seen, made.shown = list(range(epochs)), [0, epochs - 1][:epochs]
    for field, value in changed.items():
        setattr(made, field, value)
    return made
