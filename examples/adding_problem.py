"""The adding problem: two of 400 numbers are marked, and their sum is wanted at the end.

Hochreiter and Schmidhuber (1997), in the form of Le, Jaitly and Hinton (2015): each step has a
number from U(0, 1) and a mark, which is 1 at one step of the first half and one of the second. To
predict 1 always has a mean squared error of 1/6 = 0.167, the variance of a sum of two such numbers.
LSTM and GRU learn to store a marked number for hundreds of steps; in as many training steps the
vanilla RNN (tanh), whose gradient vanishes on its way back, stays at the baseline. Every step
trains on a new batch.

    python examples/adding_problem.py [--out FOLDER] [--quick]     (15 seconds on one core)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import long_memory
import numpy as np
import picture

import fastrnn as fr

UNITS, BATCH = 32, 32
LEARNING_RATE = {"LSTM": 0.01, "GRU": 0.01, "RNN": 0.001}
BASELINE = 1 / 6


def batches(length: int, seed: int) -> Iterator[long_memory.Batch]:
    """Endless ones: x (batch, length, 2), numbers and marks, and y (batch, 1), the sums."""
    rng = np.random.default_rng(seed)
    rows = np.arange(BATCH)
    while True:
        x = np.zeros((BATCH, length, 2), np.float32)
        x[..., 0] = rng.random((BATCH, length))
        first = rng.integers(0, length // 2, BATCH)
        second = rng.integers(length // 2, length, BATCH)
        x[rows, first, 1] = x[rows, second, 1] = 1
        yield x, (x[rows, first, 0] + x[rows, second, 0])[:, None]


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """The mean squared error of each cell over 1000 sums that it was not trained on."""
    length, steps = (60, 600) if quick else (400, 1200)
    losses, figures = {}, {}
    for cell in long_memory.CELLS:
        model = fr.Sequential(
            [
                long_memory.layer(cell, 2, UNITS, length, return_sequences=False),
                fr.Dense(UNITS, 1, seed=0),
            ]
        )
        model.compile(fr.Adam(LEARNING_RATE[cell], global_clipnorm=0.1), "mse")
        losses[cell] = long_memory.train(cell, model, batches(length, seed=0), steps)
        held_out = batches(length, seed=1)
        figures[cell] = float(np.mean([model.evaluate(*next(held_out)) for _ in range(32)]))
    print(f"mean squared error on new sequences of {length} (to predict 1: {BASELINE:.4f})")
    for cell, error in figures.items():
        print(f"{cell:<6}{error:.5f}")
    long_memory.draw(
        out, __file__, losses, BASELINE, "to predict 1: 1/6",
        ylabel="mean squared error", title=f"the adding problem, {length} steps",
    )  # fmt: skip
    return figures


if __name__ == "__main__":
    picture.run(main)
