"""The copy memory problem: ten symbols, 400 blanks, and then the ten symbols again.

Hochreiter and Schmidhuber (1997), as Arjovsky, Shah and Bengio (2016) have it: ten symbols out of
eight, T - 1 blanks, a sign, ten more blanks; wanted are T + 10 blanks and then the ten symbols in
their order. Without a memory nothing is better than blanks and then any of the eight, with a
cross-entropy of 10 ln 8 / (T + 20) a step. LSTM and GRU, their biases drawn for T steps, get far
below it; the vanilla RNN (tanh) stays there. Every step trains on a new batch.

    python examples/copy_memory.py [--out FOLDER] [--quick]     (4 minutes on one core)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import long_memory
import numpy as np
import picture

import fastrnn as fr

SYMBOLS, SHOWN = 8, 10  # how many there are, how many are to be remembered
BLANK, SIGN, KINDS = 0, SYMBOLS + 1, SYMBOLS + 2
UNITS, BATCH = 128, 16
# Gradients are tiny at the baseline and steep on the way down: Adam forgets them sooner than by
# default, and the limit on their norm is tight. The vanilla RNN wants shorter and steadier steps.
GATED = {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "global_clipnorm": 0.01}
ADAM = {"LSTM": GATED, "GRU": GATED, "RNN": {"learning_rate": 0.001, "global_clipnorm": 1.0}}


def batches(delay: int, seed: int) -> Iterator[long_memory.Batch]:
    """Endless ones: x (batch, delay + 20, 10), one-hot, and y (batch, delay + 20), classes."""
    rng = np.random.default_rng(seed)
    while True:
        symbols = rng.integers(1, SYMBOLS + 1, (BATCH, SHOWN))
        x = np.full((BATCH, delay + 2 * SHOWN), BLANK)
        y = np.full_like(x, BLANK)
        x[:, :SHOWN] = y[:, -SHOWN:] = symbols
        x[:, -SHOWN - 1] = SIGN
        yield np.eye(KINDS, dtype=np.float32)[x], y


def recalled(model: fr.Sequential, delay: int) -> float:
    """Of the symbols of new sequences, the share that the model gives back in their places."""
    held_out = batches(delay, seed=1)
    right = []
    for _ in range(32):
        x, y = next(held_out)
        right.append(model(x)[:, -SHOWN:].argmax(axis=2) == y[:, -SHOWN:])
    return float(np.mean(right))


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """The share of symbols that each cell recalls; by chance it is 1/8."""
    delay, units, steps = (40, 64, 1000) if quick else (400, UNITS, 5000)
    losses, figures = {}, {}
    for cell in long_memory.CELLS:
        model = fr.Sequential(
            [long_memory.layer(cell, KINDS, units, delay), fr.Dense(units, KINDS, seed=0)]
        )
        model.compile(fr.Adam(**ADAM[cell]), "sparse_categorical_crossentropy")
        losses[cell] = long_memory.train(cell, model, batches(delay, seed=0), steps)
        figures[cell] = recalled(model, delay)
    print(f"symbols recalled after {delay} steps (by chance {100 / SYMBOLS:.1f} %)")
    for cell, share in figures.items():
        print(f"{cell:<6}{100 * share:.1f} %")
    long_memory.draw(
        out, __file__, losses, SHOWN * math.log(SYMBOLS) / (delay + 2 * SHOWN),
        "without a memory: 10 ln 8 / (T + 20)",
        ylabel="cross-entropy", title=f"copy memory, T = {delay}",
    )  # fmt: skip
    return figures


if __name__ == "__main__":
    picture.run(main)
