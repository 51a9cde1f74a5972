"""The next exercise from the last days: remedies for vanishing and exploding gradients.

Many to one. A training diary has one of five exercises a day. A block of training begins with a
test, an exercise done at its limit, and ends 20 to 30 days later with the test of the same
exercise, which is the next entry to name; only where that exercise was done yesterday, the one
after it in the list is tested instead. Who knows yesterday alone is right in two of five diaries.
The rest is memory, and to learn it the gradient has to reach back to the day of the first test.

Each row of the table is a network and how it is trained: its accuracy on diaries that it was not
trained on; what is left of |dL/dh_t| 25 days back, before and after training, as a part of what it
is on the last day (truncated BPTT cuts it after ten days); and the largest gradient that a step of
training met, the norm over all weights. RMSprop trains the LSTM and the GRU too, and wherever it
does gradients are clipped.

    python examples/next_exercise.py [--out FOLDER] [--quick]     (ten seconds)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Diaries = tuple[NDArray[np.float32], NDArray[np.int64]]

EXERCISES = ("squat", "bench press", "deadlift", "row", "pull-up")
HIDDEN = 32
WINDOW = 10  # days that truncated BPTT goes back
BACK = 25  # days, in the table
LOSS = fr.SparseCategoricalCrossentropy(from_logits=True)


@dataclass(frozen=True)
class Remedy:
    """A row of the table: a recurrent layer, an optimizer, and truncated BPTT's window, if any."""

    name: str
    color: str
    layer: Callable[..., Any]
    optimizer: Callable[[], fr.optimizers.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)
    window: int | None = None


def sgd(learning_rate: float, **clip: float) -> Callable[[], fr.optimizers.Optimizer]:
    return lambda: fr.SGD(learning_rate, momentum=0.9, **clip)


def rmsprop(learning_rate: float) -> Callable[[], fr.optimizers.Optimizer]:
    return lambda: fr.RMSprop(learning_rate, global_clipnorm=1.0)


IDENTITY = {
    "nonlinearity": "relu",
    "recurrent_initializer": "identity",
    "bias_initializer": "zeros",
}
REMEDIES = (
    Remedy("tanh RNN, SGD", picture.GREY, fr.RNN, sgd(0.05)),
    Remedy("tanh RNN, truncated", "#c9a227", fr.RNN, sgd(0.05), window=WINDOW),
    Remedy("tanh RNN, RMSprop", picture.INK, fr.RNN, rmsprop(0.002)),
    Remedy("ReLU identity, SGD", "#b8394b", fr.RNN, sgd(0.01), IDENTITY),
    Remedy("ReLU identity, clipping", "#d98ca0", fr.RNN, sgd(0.01, global_clipnorm=1.0), IDENTITY),
    Remedy("ReLU identity, RMSprop", picture.ORANGE, fr.RNN, rmsprop(0.002), IDENTITY),
    Remedy("LSTM", picture.BLUE, fr.LSTM, rmsprop(0.005), {"unit_forget_bias": True}),
    Remedy("GRU", picture.GREEN, fr.GRU, rmsprop(0.01)),
)


def diaries(rows: int, days: int, seed: int) -> Diaries:
    """Diaries (rows, days, 6), the exercise one-hot and whether it was a test, and what comes next
    after each day, (rows, days). The test is in the first third."""
    rng = np.random.default_rng(seed)
    exercise = rng.integers(len(EXERCISES), size=(rows, days + 1))
    row, test = np.arange(rows), rng.integers(days // 3 + 1, size=rows)
    tested, yesterday = exercise[row, test], exercise[:, -2]
    exercise[:, -1] = np.where(tested == yesterday, (tested + 1) % len(EXERCISES), tested)
    x = np.zeros((rows, days, len(EXERCISES) + 1), np.float32)
    x[..., :-1] = np.eye(len(EXERCISES))[exercise[:, :-1]]
    x[row, test, -1] = 1
    return x, exercise[:, 1:]


def guess(data: Diaries) -> float:
    """The accuracy of the best guess from yesterday's exercise alone: the one after it."""
    x, y = data
    yesterday = x[:, -1, :-1].argmax(axis=1)
    return float(np.mean(y[:, -1] == (yesterday + 1) % len(EXERCISES)))


class LargestGradient(fr.callbacks.Callback):
    """The largest norm that the gradient of all weights together had in a step, unclipped."""

    norm = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        grads = [parameter.grad for parameter in self.model.parameters().values()]
        squares = sum(np.sum(np.square(grad, dtype=np.float64)) for grad in grads)
        self.norm = max(self.norm, math.sqrt(squares))


def gradient_flow(model: fr.Sequential, data: Diaries, window: int | None) -> NDArray[np.float64]:
    """|dL/dh_t| of the last day's loss for 0, 1, ... days back, as a part of what it is for 0.

    The root of the mean square over all diaries, (days,), or (window,) where there is one.
    """
    x, y = data
    flows: list[NDArray[np.float64]] = []  # (1, rows, days) each, sums of squares
    layer: Any = model.layers[0]
    start = x.shape[1] - window if window else 0
    state = model.run(x[:, :start])[1] if start else None
    layer.on_gradient = flows.append
    (logits, _), pullback = model.vjp(x[:, start:], state)
    gradient = np.zeros_like(logits)
    last = np.s_[:, -1] if window else np.s_[:]  # of an output for every day, or of the last alone
    gradient[last] = LOSS.vjp(y[:, -1], logits[last])[1]
    pullback(gradient)
    layer.on_gradient = None
    norms = np.sqrt(flows[0][0].mean(axis=0))[::-1]
    return norms / norms[0]


def train(remedy: Remedy, data: Diaries, held_out: Diaries, epochs: int) -> dict[str, Any]:
    """Train a network; what the table and the picture say of it."""
    x, y = data
    every_day = remedy.window is not None  # windows want a target for every time step
    layer = remedy.layer(
        x.shape[2], HIDDEN, return_sequences=every_day, seed=0, **remedy.options
    )  # fmt: skip
    model = fr.Sequential([layer, fr.Dense(HIDDEN, len(EXERCISES), seed=0)])
    model.compile(remedy.optimizer(), LOSS)
    largest = LargestGradient()
    before = gradient_flow(model, held_out, remedy.window)
    model.fit(
        x, y if every_day else y[:, -1], epochs=epochs, batch_size=64, seed=0,
        tbptt=remedy.window, callbacks=[largest], verbose=0,
    )  # fmt: skip
    predicted = model.predict(held_out[0]).reshape(len(held_out[0]), -1, len(EXERCISES))
    right = predicted[:, -1].argmax(axis=1) == held_out[1][:, -1]
    after = gradient_flow(model, held_out, remedy.window)
    return {
        "accuracy": float(right.mean()), "before": before, "after": after, "largest": largest.norm
    }  # fmt: skip


def draw(out: Path, found: dict[str, dict[str, Any]], guessed: float) -> None:
    """The gradient over days back, before and after training, and accuracies as bars."""
    figure = picture.figure(11, 4.2)
    before, after, bars = figure.subplots(1, 3, width_ratios=[3, 3, 3.4])
    for axes, when in ((before, "before"), (after, "after")):
        for remedy in REMEDIES:
            flow = found[remedy.name][when]
            axes.semilogy(np.arange(len(flow)), flow, color=remedy.color, linewidth=1.8)
        axes.set(ylim=(1e-9, 30))
        axes.invert_xaxis()
        picture.dress(axes, xlabel="days back", title=f"|dL/dh| {when} training")
    for name, text, dy in (
        ("tanh RNN, RMSprop", "tanh", 40), ("ReLU identity, RMSprop", "ReLU identity", 9),
        ("LSTM", "LSTM", 20), ("GRU", "GRU", 28),
    ):  # fmt: skip
        color = next(remedy.color for remedy in REMEDIES if remedy.name == name)
        flow = found[name]["before"]
        picture.name_line(before, text, len(flow) - 1, flow[-1], color, dy)
    after.set_yticklabels([])
    for place, remedy in enumerate(REMEDIES):
        value = found[remedy.name]["accuracy"]
        bars.barh(place, value, color=remedy.color, height=0.65)
        bars.text(1.03, place, f"{100 * value:.0f} %", va="center", color=picture.INK)
    bars.axvline(guessed, color=picture.INK, linewidth=0.8, linestyle=":")
    bars.set(xlim=(0, 1.15), xticks=[])
    bars.set_yticks(range(len(REMEDIES)), [remedy.name for remedy in REMEDIES])
    bars.invert_yaxis()
    picture.dress(bars, xlabel="dotted: who knows yesterday alone", title="accuracy after training")
    bars.grid(visible=False)
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, Any]:
    """The figures of every row by its name; `quick`: diaries of half the days, and fewer."""
    rows, days, epochs = (3000, 15, 10) if quick else (8000, 30, 19)
    data, held_out = diaries(rows, days, seed=0), diaries(1000, days, seed=1)
    back, guessed = BACK * days // 30, guess(held_out)
    print(f"{'':24}accuracy   |dL/dh| {back} days back:   largest")
    print(f"{'':24}              before       after     gradient")
    found = {}
    for remedy in REMEDIES:
        row = found[remedy.name] = train(remedy, data, held_out, epochs)
        left = [f"{row[k][back]:.0e}" if back < len(row[k]) else "cut" for k in ("before", "after")]
        print(
            f"{remedy.name:24}{100 * row['accuracy']:6.0f} %{left[0]:>12}{left[1]:>12}"
            f"{row['largest']:>13.1e}", flush=True,
        )  # fmt: skip
    print(f"{'yesterday alone':24}{100 * guessed:6.0f} %")
    draw(out, found, guessed)
    return found


if __name__ == "__main__":
    picture.run(main)
