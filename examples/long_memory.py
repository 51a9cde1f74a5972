"""What adding_problem.py and copy_memory.py share: three cells that remember, or do not.

Both tasks ask for what was seen hundreds of steps ago, and then it matters where the gates' biases
start: a forget gate at σ(1) = 0.73 leaves 0.73^400 of what was stored 400 steps ago, nothing.
Tallec and Ollivier ("Can recurrent neural networks warp time?", 2018) draw the biases so that the
units forget in anything from 2 to T steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr
from fastrnn.plots import running_mean

Batch = tuple[NDArray[np.float32], NDArray[Any]]

CELLS = {"LSTM": fr.LSTM, "GRU": fr.GRU, "RNN": fr.RNN}
COLORS = {"LSTM": picture.BLUE, "GRU": picture.GREEN, "RNN": picture.ORANGE}


def layer(
    cell: str, input_size: int, hidden_size: int, steps: int, **options: Any
) -> fr.LSTM | fr.GRU | fr.RNN:
    """A layer whose gates, where it has some, start so that it remembers for up to `steps` steps.

    The forget gate's bias is log(U(1, steps - 1)) and the LSTM's input gate has minus that, by
    equation 16 of Tallec and Ollivier; the GRU's forget gate is z. All recurrent weights start
    orthogonal.
    """
    made = CELLS[cell](
        input_size, hidden_size, kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal", bias_initializer="zeros", seed=0, **options,
    )  # fmt: skip
    forget = np.log(np.random.default_rng(0).uniform(1, steps - 1, hidden_size))
    with made.parameters()["bias_ih_l0"].writing() as bias:
        if cell == "LSTM":  # blocks i, f, g, o
            bias[:hidden_size] = -forget
        if cell != "RNN":  # the second block of the GRU, r, z, n, too
            bias[hidden_size : 2 * hidden_size] = forget
    return made


def train(name: str, model: fr.Sequential, batches: Iterator[Batch], steps: int) -> list[float]:
    """Train on `steps` new batches, printing the mean loss of each tenth; every step's loss."""
    losses: list[float] = []
    begin = time.perf_counter()

    def show(epoch: int, logs: dict[str, float]) -> None:
        seconds = time.perf_counter() - begin
        print(f"{name:<6}{len(losses):>6} steps{logs['loss']:>11.5f}{seconds:>8.0f} s", flush=True)

    keep = fr.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]), on_epoch_end=show
    )
    model.fit(batches, epochs=10, steps_per_epoch=steps // 10, callbacks=[keep], verbose=0)
    return losses


def draw(
    out: Path,
    example: str,
    losses: dict[str, list[float]],
    baseline: float,
    named: str,
    *,
    ylabel: str,
    title: str,
) -> None:
    """The losses over the steps, their running means, and the `baseline` as a line."""
    figure = picture.figure(8, 4.2)
    axes = figure.add_subplot()
    steps = max(map(len, losses.values()))
    axes.axhline(baseline, color=picture.INK, linestyle="--", linewidth=1, zorder=3)
    axes.text(0.98 * steps, 1.7 * baseline, named, color=picture.INK, ha="right", va="bottom")
    for name, values in losses.items():
        smooth = running_mean(np.array(values), max(1, steps // 50))
        axes.plot(values, color=COLORS[name], alpha=0.15, linewidth=0.5)
        axes.plot(smooth, color=COLORS[name], linewidth=1.8)
        picture.name_line(axes, name, len(values), smooth[-1], COLORS[name])
    axes.set(yscale="log", xlim=(0, steps), ylim=(None, 4 * baseline))
    picture.dress(axes, xlabel="training steps", ylabel=ylabel, title=title)
    picture.save(figure, out, example)
