"""Pictures of training, made with matplotlib where it is installed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"losses: expected a number for every step, got {values.shape}")
    steps = np.arange(1, values.size + 1)
    smooth = running_mean(values, max(1, values.size // 50))

    figure = _figure(8, 4.5)
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

    _name_lines(axes, labels, digits=2)
    _dress(axes, xlabel="training steps", ylabel=ylabel, title=title)
    _write(figure, path)


def history(
    path: str | os.PathLike[str],
    epochs: Sequence[int],
    values: Mapping[str, Sequence[float]],
    *,
    title: str = "",
) -> None:
    """Write a PNG: a panel for the loss and for each metric over the epochs, validation beside it.

    `values` as `History` has them, ``val_`` before the names of validation's. Raises ImportError
    without matplotlib, ValueError without any epoch, OSError where the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    if not epochs:
        raise ValueError("epochs: expected at least one, got none")
    names = [name for name in values if not name.startswith("val_")]
    figure = _figure(5.5 * len(names), 4)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        labels = []
        for key, label, color in (
            (name, "training", TRAINING),
            (f"val_{name}", "validation", VALIDATION),
        ):
            if key not in values:
                continue
            line = values[key]
            at = [epoch + 1 for epoch in epochs[: len(line)]]
            axes.plot(at, line, color=color, linewidth=1.8, marker="o", markersize=3.5)
            labels.append((label, at[-1], line[-1], color))
        _name_lines(axes, labels, digits=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _dress(axes, xlabel="epoch", title=name.replace("_", " "))
    _write(figure, path)


def gradient_flow(
    path: str | os.PathLike[str],
    flows: Sequence[ArrayLike],
    steps: Sequence[int] = (),
    *,
    epochs: Sequence[int] = (),
    title: str = "",
) -> None:
    """Write a PNG: |dL/dh| by the distance back in time, over the epochs; of one epoch, a curve.

    `flows` has for each epoch the norms by distance, 0 first, as
    `fastrnn.diagnostics.gradient_flow` gives them, or those of a record in columns (``Strand.flow``
    or ``reach``), with the numbers of `steps` that these stand for. Time runs to the right.
    `epochs`: their numbers, from 0, if not 0, 1, ... Raises ImportError without matplotlib,
    ValueError for flows that are none, OSError where the file cannot be written.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    from fastrnn.diagnostics.flow import distances, flow_picture, in_columns

    rows = [np.asarray(flow, dtype=np.float64) for flow in flows]
    if not rows or any(row.ndim != 1 or not row.size for row in rows):
        raise ValueError("flows: expected a vector of norms for every epoch")
    counts = list(steps) or [row.size for row in rows]
    numbers = list(epochs) or list(range(len(rows)))
    for name, given in (("steps", counts), ("epochs", numbers)):
        if len(given) != len(rows):
            raise ValueError(f"{name}: expected {len(rows)}, as many as flows, got {len(given)}")
    rows = [row if steps else in_columns(row) for row in rows]
    for count, row in zip(counts, rows, strict=True):
        if len(distances(count)) != row.size:
            raise ValueError(f"flows: expected {len(distances(count))} columns, got {row.size}")
    picture = flow_picture(rows, counts)
    picture[~np.isfinite(picture)] = np.nan
    some, ends = picture[picture > 0], (max(counts) - 0.5, -0.5)
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    if len(rows) == 1:
        axes.plot(distances(counts[0])[::-1], picture[0], color=TRAINING, linewidth=1.8)
        if some.size:
            axes.set_yscale("log")
        axes.set_xlim(*ends)
        _dress(axes, xlabel="steps before the last", ylabel="|dL/dh|", title=title)
    else:
        high = some.max() if some.size else 1.0
        low = max(some.min(), high * 1e-12) if some.size else 0.1
        drawn = axes.imshow(
            np.clip(picture, low, None), aspect="auto", interpolation="nearest", cmap="magma_r",
            norm=LogNorm(low, max(high, low * 10)), extent=(*ends, len(rows) - 0.5, -0.5),
        )  # fmt: skip
        named = {place: str(number + 1) for place, number in enumerate(numbers)}
        _dress(axes, xlabel="steps before the last", ylabel="epoch", title=title)
        _whole(axes.yaxis)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: named.get(round(y), "")))
        _bar(figure, drawn, axes, "|dL/dh|")
    _whole(axes.xaxis)
    _write(figure, path)


def hidden_states(
    path: str | os.PathLike[str],
    states: ArrayLike,
    tokens: Sequence[str] | None = None,
    *,
    title: str = "",
) -> None:
    """Write a PNG: h of one sequence, steps to the right, a line for each unit.

    `states`: (time, units); `tokens`: a label for each step. Raises ImportError without matplotlib,
    ValueError where these do not fit, OSError where the file cannot be written.
    """
    array = np.asarray(states, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"states: expected (time, units), got {array.shape}")
    steps, units = array.shape
    if tokens is not None and len(tokens) != steps:
        raise ValueError(f"tokens: expected {steps}, one for each step, got {len(tokens)}")
    figure = _figure(min(24, max(6, 0.16 * steps + 2)), min(10, max(3, 0.05 * units + 1.5)))
    axes = figure.add_subplot()
    most = np.abs(array[np.isfinite(array)]).max(initial=0.0) or 1.0
    drawn = axes.imshow(
        array.T, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-most, vmax=most
    )
    _dress(axes, xlabel="" if tokens else "step", ylabel="unit", title=title)
    _whole(axes.yaxis)
    if tokens is None:
        _whole(axes.xaxis)
    else:
        short = max(map(len, tokens)) <= 2
        shown = [token.replace("$", r"\$").replace("\n", "↵").replace(" ", "␣") for token in tokens]
        axes.set_xticks(range(steps), shown, rotation=0 if short else 90, fontsize=8)
    _bar(figure, drawn, axes, "h")
    _write(figure, path)


def _whole(axis: Any) -> None:
    """Marks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _bar(figure: Any, drawn: Any, axes: Any, label: str) -> None:
    """What the colours of a picture mean."""
    axes.grid(False)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, fraction=0.04)
    bar.set_label(label, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, length=0)


def _figure(width: float, height: float) -> Any:
    """A figure of that many inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _name_lines(axes: Any, labels: Sequence[tuple[str, float, float, str]], digits: int) -> None:
    """Lines are named where they end, the upper one above; a legend would have to be looked up."""
    for place, (text, x, y, color) in enumerate(sorted(labels, key=lambda label: label[2])):
        axes.annotate(
            f"{text} {y:.{digits}g}" if abs(y) < 1 else f"{text} {y:.2f}",
            (x, y),
            xytext=(6, 6 * (2 * place - 1) if len(labels) > 1 else 0),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )


def _dress(axes: Any, *, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
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
