"""A guitar amplifier's sound learned by an LSTM, and written as a C header for real time: amp.h.

What the amplifier does is made up: its input is filtered, driven into saturation by an amount that
follows the loudness of what went before, and filtered again. The network hears only the two sides.

    python examples/c/amp.py --out DIR
    cc -std=c99 -O2 -march=native -IDIR examples/c/amp.c -o DIR/amp && DIR/amp
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn as fr
from fastrnn import export_c

RATE = 48_000  # samples a second


def guitar(samples: int, rng: np.random.Generator) -> NDArray[Any]:
    """Decaying notes of a few harmonics, now and then a new one."""
    t = np.arange(samples) / RATE
    x = np.zeros(samples)
    for start in rng.uniform(0, t[-1], max(1, samples // 4000)):
        after = np.maximum(t - start, 0)
        pitch = 82.4 * 2 ** (rng.integers(0, 30) / 12)
        note = sum(np.sin(2 * np.pi * k * pitch * after) / k for k in range(1, 6))
        x += rng.uniform(0.1, 0.5) * (t >= start) * np.exp(-6 * after) * note
    return x


def amplifier(x: NDArray[Any]) -> NDArray[Any]:
    y, before, loud, low = np.empty_like(x), 0.0, 0.0, 0.0
    for i, value in enumerate(x):
        loud += 0.002 * (abs(value) - loud)
        driven = np.tanh(4 * (value - 0.6 * before) / (1 + 2 * loud) + 0.2) - np.tanh(0.2)
        low += 0.4 * (driven - low)
        before, y[i] = value, low
    return y


def main(arguments: Sequence[str] | None = None) -> float:
    """Train and export; returns the error's share of the signal's energy on new notes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=Path("."), type=Path, metavar="DIR", help="for amp.h")
    parser.add_argument("--quick", action="store_true", help="train for seconds")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    x = guitar((2 if options.quick else 20) * RATE, rng)
    y = amplifier(x)
    model = fr.Sequential([fr.LSTM(1, 16, seed=1), fr.Dense(16, 1, seed=2)])
    model.compile(optimizer=fr.optimizers.Adam(5e-3, global_clipnorm=1.0), loss="mse")
    rows = [side[: len(side) // 480 * 480].reshape(-1, 480, 1) for side in (x, y)]
    model.fit(*rows, epochs=3 if options.quick else 30, batch_size=20, verbose=0, seed=3)
    x = guitar(RATE // 2, rng)
    y = amplifier(x)
    heard = model.predict(x.reshape(1, -1, 1)).reshape(-1)
    error = float(np.sum((heard - y) ** 2) / np.sum(y**2))
    options.out.mkdir(parents=True, exist_ok=True)
    export_c.export(model, options.out / "amp.h")
    print(f"amp.h: LSTM of 16 units, {100 * error:.2f} % of the energy of half a second is error")
    return error


if __name__ == "__main__":
    main()
