"""Pictures of training, made with matplotlib where it is installed."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np

from fastrnn.parameter import Array
from fastrnn.serialization import replace_file

INK, GRID = "#30343b", "#e6e8eb"
TRAINING, VALIDATION = "#2f6fb4", "#d9642c"


def training_curve(
    path: str | os.PathLike[str],
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]] = (),
    *,
    ylabel: str = "loss",
    title: str = "",
) -> None:
    """Write a PNG: the loss of every step, faint, its running mean, and the validation loss.

    `losses` has an entry per step, `validation` pairs of (steps done, loss). Raises ImportError
    without matplotlib, OSError where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"losses: expected a number for every step, got {values.shape}")
    steps = np.arange(1, values.size + 1)
    smooth = running_mean(values, max(1, values.size // 50))

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, values, color=TRAINING, alpha=0.2, linewidth=0.7)
    axes.plot(steps, smooth, color=TRAINING, linewidth=1.8)
    labels = [("training", steps[-1], smooth[-1], TRAINING)]
    if validation:
        at, held_out = zip(*validation, strict=True)
        axes.plot(at, held_out, color=VALIDATION, linewidth=1.8, marker="o", markersize=4)
        labels.append(("validation", at[-1], held_out[-1], VALIDATION))

    # The first steps fall from log(classes) within moments; they must not flatten all the rest.
    seen = np.concatenate([smooth, [loss for _, loss in validation]])
    seen = seen[np.isfinite(seen)]
    if seen.size:
        low, high = seen.min(), np.quantile(seen, 0.98)
        margin = 0.08 * max(high - low, 1e-3)
        axes.set_ylim(low - margin, high + 3 * margin)
    axes.set_xlim(0, values.size * 1.005)

    # Lines are named where they end, the upper one above; a legend would have to be looked up.
    labels.sort(key=lambda label: label[2])
    for place, (text, x, y, color) in enumerate(labels):
        axes.annotate(
            f"{text} {y:.2f}",
            (x, y),
            xytext=(6, 6 * (2 * place - 1) if len(labels) > 1 else 0),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )
    axes.set_xlabel("training steps", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)

    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    replace_file(path, picture.getvalue())


def running_mean(values: Array, width: int) -> Array:
    """The mean of each value and up to `width` - 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, values.size + 1)
    start = np.maximum(0, stop - width)
    mean: Array = (sums[stop] - sums[start]) / (stop - start)
    return mean
