"""The page of a run: one HTML file that needs nothing else, and no JavaScript."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray

from fastrnn.diagnostics.flow import Trend, distances, flow_picture
from fastrnn.diagnostics.gates import movement
from fastrnn.diagnostics.record import Record, Strand
from fastrnn.diagnostics.verdict import Finding, findings, in_words, number, strand_trend
from fastrnn.report.axes import round_marks
from fastrnn.report.chart import Line, chart, shares
from fastrnn.report.colours import SIGNED, STRENGTH
from fastrnn.report.picture import (
    Marks,
    axis,
    heat_map,
    image,
    legend,
    log_legend,
    log_range,
    log_shades,
    tokens_below,
)
from fastrnn.report.raster import shades
from fastrnn.report.style import STYLE

Floats = NDArray[np.float64]

BLOCKS = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "g": "candidate",
    "n": "candidate",
    "h": "state",
}
_MOVE = "|h<sub>t</sub> &minus; h<sub>t&minus;1</sub>|"


def page(record: Record, name: str) -> str:
    """The HTML of a run called `name`."""
    sections = [_findings(record), _at_a_glance(record), _curves(record)]
    if record.seen:
        sections += [_flow(record), _gates(record), _matrices(record), _states(record)]
    epochs = len(record.epochs)
    count = f"{epochs} epoch{'s' * (epochs != 1)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: what happened inside</title><style>\n{STYLE}</style></head>\n"
        f'<body><header><h1>{escape(name)}</h1><p class="about">{count} · '
        f"{escape(' → '.join(record.layers))}</p></header>\n<main>"
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n"
    )


def _section(title: str, about: str, *body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="about">{about}</p>{"".join(body)}</section>'


def _charts(parts: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(parts)}</div>'


# --- What there is to say -----------------------------------------------------------------------


def _findings(record: Record) -> str:
    return f'<ul class="findings">{"".join(map(_finding, findings(record)))}</ul>'


def _finding(finding: Finding) -> str:
    helps = f'<p class="soft">{escape(finding.help)}</p>' if finding.help else ""
    return (
        f'<li class="{finding.level}"><span class="level">{finding.level}</span>'
        f"<h3>{escape(finding.title)}</h3><p>{escape(finding.text)}</p>{helps}</li>"
    )


def _at_a_glance(record: Record) -> str:
    if not record.seen:
        return ""
    probe = any(strand.dead for strand in record.strands)
    names = ["layer", "cell", "units", "gradient, going back in time", "where it differs most"]
    names += ["spectral radius"] + ["dead units", "movement"] * probe
    rows = []
    for strand in record.strands:
        trend = strand_trend(record, strand)
        radii = strand.radii[-1]
        cells = [
            strand.name,
            strand.kind,
            str(strand.units),
            in_words(trend) if strand.steps[-1] else "none arrives",
            _most(trend),
            ", ".join(f"{b} {number(r)}" for b, r in zip(strand.blocks, radii, strict=True)),
        ]
        if strand.dead:
            cells += [f"{strand.dead[-1]:.0%}", number(strand.moved[-1])]
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<section><h2>The layers in epoch {record.seen[-1] + 1}</h2>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div></section>"
    )


def _most(trend: Trend) -> str:
    """Where a flow differs most from what it is near the last step, and how much."""
    if not trend.steps or not trend.finite:
        return ""
    left = "gone" if trend.ratio == 0 else f"{number(trend.ratio)} times"
    return f"{left}, {number(trend.steps)} back"


# --- Curves -------------------------------------------------------------------------------------


def _curves(record: Record) -> str:
    names = list(dict.fromkeys(name for logs in record.logs for name in logs))
    charts = []
    for name in names:
        if name.startswith("val_") and name[4:] in names:
            continue
        lines = []
        for key, label, colour in ((name, "training", 0), (f"val_{name}", "validation", 1)):
            if key in names:
                at = [k for k, logs in enumerate(record.logs) if key in logs]
                x = [record.epochs[k] + 1 for k in at]
                lines.append(Line(label, x, [record.logs[k][key] for k in at], colour))
        values = [value for line in lines for value in line.finite]
        far = bool(values) and min(values) > 0 and max(values) > 300 * min(values)
        charts.append(chart(name.replace("_", " "), lines, x_label="epoch", log=far))
    about = "Means over each epoch's steps, before their updates; validation after the epoch."
    return _section("Loss and metrics", about, _charts(charts)) if charts else ""


# --- The flow of gradients ----------------------------------------------------------------------


def _flow(record: Record) -> str:
    about = (
        "How strong the gradient of the loss is that reaches h at each step, |dL/dh<sub>t</sub>|: "
        "the root mean square over the rows of a batch, its mean over an epoch's batches. Rows are "
        "aligned at the last step that the loss reaches, and time runs to the right; what vanishes "
        "gets weaker to the left. A reverse direction's last step is the sequence's first."
    )
    body = _heats(record, reach=False)
    if any(strand.reach for strand in record.strands) and record.every_step:
        body += (
            '<h3>How far back a gradient reaches</h3><p class="about">Every step has an output, '
            "and perhaps a loss, so above the gradients of all later steps add up. Here, on the "
            "probe, a gradient of norm 1 enters at the last step alone.</p>"
        ) + _heats(record, reach=True)
    return _section("Gradient flow", about, body)


def _heats(record: Record, reach: bool) -> str:
    strands = [strand for strand in record.strands if (strand.reach if reach else strand.flow)]
    flows = {s.name: (s.reach, s.reach_steps) if reach else (s.flow, s.steps) for s in strands}
    every = np.concatenate([[], *(flow for one, _ in flows.values() for flow in one)])
    low, high = log_range(every)
    heats, charts = [], []
    for strand in strands:
        one, steps = flows[strand.name]
        if not max(steps):
            continue
        if len(one) > 1:
            pixels = log_shades(flow_picture(one, steps), low, high)
            body = image(
                pixels,
                STRENGTH,
                f"gradient flow of {strand.name}: epochs down, steps across",
                f"{max(90, min(320, 12 * len(one)))}px",
            )
            heats.append(
                heat_map(
                    strand.name,
                    body,
                    axis(_back_marks(max(steps)), "steps before the last"),
                    _epoch_marks(record.seen),
                    "epoch",
                )
            )
        charts.append(_flow_curves(record, strand, one, steps))
    parts = ""
    if heats:
        parts += f'<div class="heats">{"".join(heats)}</div>'
        parts += log_legend(low, high, "|dL/dh|")
        if not np.isfinite(every).all():
            parts += '<p class="about">Blank where it is not a finite number.</p>'
    return parts + _charts(charts)


def _flow_curves(record: Record, strand: Strand, flows: list[Floats], steps: list[int]) -> str:
    places = [0] if len(flows) == 1 else [0, len(flows) - 1]
    lines = []
    for colour, place in zip((1, 0)[-len(places) :], places, strict=True):
        trend = strand_trend(record, strand, place)
        x = distances(steps[place])
        of_flow = not record.every_step or flows is strand.reach
        said = in_words(trend) if of_flow and steps[place] else ""
        lines.append(
            Line(
                f"epoch {record.seen[place] + 1}",
                x.tolist(),
                flows[place].tolist(),
                colour,
                dashed=place == 0 and len(places) > 1,
                value=said,
            )
        )
    return chart(
        strand.name, lines, x_label="steps before the last", y_label="|dL/dh|", log=True, back=True
    )


def _back_marks(steps: int) -> Marks:
    """Of a picture whose last column is distance 0: where the round distances are."""
    return [(1 - (d + 0.5) / steps, f"{d:g}") for d in round_marks(0, steps - 1, 8, whole=True)]


def _epoch_marks(epochs: list[int]) -> Marks:
    """Some of the rows of a picture, by the epochs' numbers from 1."""
    count, numbers = len(epochs), [epoch + 1 for epoch in epochs]
    some = {int(mark) for mark in round_marks(numbers[0], numbers[-1], 7, whole=True)}
    shown = [k for k, epoch in enumerate(numbers) if epoch in some] or [0, count - 1]
    return [((k + 0.5) / count, str(numbers[k])) for k in shown]


# --- Gates, matrices ----------------------------------------------------------------------------


def _gates(record: Record) -> str:
    strands = [strand for strand in record.strands if strand.low]
    if not strands:
        return ""
    about = (
        "Shares of the activations on the probe, over the epochs: from below, in "
        '<span class="key"><i class="low"></i>the lowest tenth</span> of their range (a gate that '
        'is shut), from above, in <span class="key"><i class="high"></i>the highest</span> (open); '
        "of sigmoid that is below 0.1 and above 0.9, of tanh below &minus;0.8 and above 0.8, of "
        "relu the zeros. Between them is the working range, where slopes are large and gates learn."
    )
    x = [epoch + 1 for epoch in record.seen]
    body = []
    for strand in strands:
        figures = []
        for k, block in enumerate(strand.blocks):
            if strand.activations[k] == "identity":
                continue
            lows, highs = ([float(one[k]) for one in ends] for ends in (strand.low, strand.high))
            figures.append(shares(f"{block}, {BLOCKS.get(block, '')}", x, lows, highs))
        if figures:
            body.append(f'<h3>{escape(strand.name)}</h3><div class="blocks">')
            body.append(f"{''.join(figures)}</div>")
    charts = [_over_epochs(record, "movement of h", [(s.name, s.moved) for s in strands])]
    some_dead = any(share > 0 for strand in strands for share in strand.dead)
    if some_dead:
        named = [(strand.name, strand.dead) for strand in strands]
        charts.append(_over_epochs(record, "share of dead units", named, (0.0, 1.0)))
    words = (
        f'<h3>Units</h3><p class="about">Movement: the mean of {_MOVE} over the probe\'s steps, '
        "over the square root of the number of units. A unit is dead if it never changes on the "
        f"probe{'' if some_dead else ': none is'}.</p>"
    )
    return _section("Gates and units", about, *body, words, _charts(charts))


def _matrices(record: Record) -> str:
    about = (
        "The largest |eigenvalue| of each block of weight_hh. For a plain RNN this is the factor "
        "per step that a gradient is multiplied with at most in the long run, times the slope of "
        "the activation: well below 1 it vanishes, well above 1 it may explode. In gated cells the "
        "way through the gates matters more."
    )
    x = [epoch + 1 for epoch in record.seen]
    charts = []
    for strand in record.strands:
        lines = []
        for k, block in enumerate(strand.blocks):
            name = f"{block}, {BLOCKS.get(block, '')}"
            lines.append(Line(name, x, [float(radii[k]) for radii in strand.radii], k))
        charts.append(chart(strand.name, lines, x_label="epoch", rule=1.0))
    return _section("Spectral radius of the recurrent matrices", about, _charts(charts))


def _over_epochs(
    record: Record,
    title: str,
    named: list[tuple[str, list[float]]],
    y_range: tuple[float, float] | None = None,
) -> str:
    x = [epoch + 1 for epoch in record.seen]
    lines = [Line(name, x, y, k % 5, k >= 5) for k, (name, y) in enumerate(named)]
    return chart(title, lines, x_label="epoch", y_range=y_range)


# --- Hidden states ------------------------------------------------------------------------------


def _states(record: Record) -> str:
    strands = [strand for strand in record.strands if strand.states]
    if not strands:
        return ""
    most = max(_largest(states) for strand in strands for states in strand.states)
    marks = [(0.0, f"-{number(most)}"), (0.5, "0"), (1.0, number(most))]
    body = [legend("signed", marks, "h")]
    for strand in strands:
        body.append(f"<h3>{escape(strand.name)}</h3>{_states_of(record, strand, most)}")
    about = (
        "h on the probe's first row, a line for each unit. The strip below each picture is how far "
        f"the state moves at each step, {_MOVE}, on a scale from zero to its largest."
    )
    return _section("Hidden states", about, *body)


def _states_of(record: Record, strand: Strand, most: float) -> str:
    steps, units = strand.states[0].shape
    tokens = record.tokens
    below = tokens_below(tokens) if tokens else axis(_step_marks(record.first_step, steps), "step")
    figures = []
    for epoch, states in zip(record.shown, strand.states, strict=True):
        h = states.astype(np.float64)
        moves = movement(h, strand.reverse)
        if record.first_step and not strand.reverse:
            moves[0] = np.nan  # the state before is not kept
        title = f"epoch {epoch + 1}"
        alt = f"h of {strand.name} in {title}: units down, steps across"
        height = f"{max(110, min(300, 5 * units))}px"
        body = image(shades(h.T, -most, most), SIGNED, alt, height)
        moved = shades(moves[None], 0.0, _largest(moves))
        strip = image(moved, STRENGTH, "how far h moves", "10px")
        marks = [((k + 0.5) / units, f"{k:g}") for k in round_marks(0, units - 1, 5, whole=True)]
        figures.append(
            heat_map(title, body, f'<div class="strip">{strip}</div>{below}', marks, "unit")
        )
    wide = 12 * steps if tokens else 2 * steps
    return f'<div class="scroll" style="--least:{wide}px">{"".join(figures)}</div>'


def _step_marks(first: int, steps: int) -> Marks:
    """Some of the columns of a picture, by the number of the step from 0."""
    some = round_marks(first, first + steps - 1, 10, whole=True)
    return [((step - first + 0.5) / steps, f"{step:g}") for step in some]


def _largest(values: NDArray[np.floating]) -> float:
    """The largest |value| that is a number, or 1 where all are zero."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0)) or 1.0
