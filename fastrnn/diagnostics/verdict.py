"""What a run's record says, in words: what is wrong, by which numbers, and what usually helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastrnn.diagnostics.flow import Trend, distances, flow_trend
from fastrnn.diagnostics.gates import CANDIDATES
from fastrnn.diagnostics.record import Record, Strand

# A gradient has vanished where less than a thousandth of it is left at the farthest step, and
# explodes where it has become a thousand times as strong: within that, Adam and clipping cope.
# Where every step has a loss of its own, gradients add up on their way back, in proportion to the
# steps.
VANISHED, EXPLODED = 1e-3, 1e3
DEAD = 0.1  # of the units: fewer are usual with relu
# Of a gate's activations, in the lowest or highest tenth of its range. A gate that is open all the
# time is none, which is as good; one that is shut passes nothing, and one that is either learns
# slowly, since where its slope is small so is the gradient.
SATURATED = 0.9

LEVELS = ("trouble", "warning", "note", "good")


@dataclass(frozen=True)
class Finding:
    """One thing to be said: how bad it is (one of `LEVELS`), what it is, by which numbers, and what
    usually helps."""

    level: str
    title: str
    text: str
    help: str = ""


def findings(record: Record) -> list[Finding]:
    """All that there is to say of a run's last epoch, the worst first."""
    found = [*_loss(record)]
    if record.seen:
        found += [*_flows(record), *_dead(record), *_gates(record)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


# --- The loss -----------------------------------------------------------------------------------


def _loss(record: Record) -> list[Finding]:
    for epoch, logs in zip(record.epochs, record.logs, strict=True):
        bad = [name for name, value in logs.items() if not math.isfinite(value)]
        if bad:
            return [
                Finding(
                    "trouble",
                    f"{bad[0]} is {logs[bad[0]]} from epoch {epoch + 1} on",
                    "Once a weight is not a finite number, nothing is learnt any more.",
                    "A lower learning rate, and gradients clipped by their global norm "
                    "(global_clipnorm=1.0); look for NaN and very large numbers in x and y, and "
                    "for logarithms of zero in a loss of your own.",
                )
            ]
    return []


# --- The flow of gradients ----------------------------------------------------------------------


def strand_trend(record: Record, strand: Strand, place: int = -1) -> Trend:
    """How a strand's gradient went on back in time in epoch ``record.seen[place]``.

    Where every step may have a loss, it is that of `reach`, if there was a probe.
    """
    if record.every_step and strand.reach:
        return flow_trend(strand.reach[place], distances(strand.reach_steps[place]))
    return flow_trend(strand.flow[place], distances(strand.steps[place]))


def verdict(trend: Trend, adds_up: bool = False) -> str:
    """What a trend is: "vanishing", "exploding" (or not finite), "healthy", or "unknown" where
    there is no second step.

    `adds_up`: every step has a loss, so that growth in proportion to the steps is no explosion.
    """
    if not trend.finite:
        return "exploding"
    if trend.steps <= 0:
        return "unknown"
    if trend.ratio < VANISHED:
        return "vanishing"
    return "exploding" if trend.ratio > EXPLODED * (trend.steps if adds_up else 1) else "healthy"


def in_words(trend: Trend) -> str:
    """A trend in a few words: "halves every 2.1 steps back"."""
    if not trend.finite:
        return "is not a finite number"
    if math.isnan(trend.rate):
        return "is gone at once" if trend.steps else "has no second step"
    change = "halves" if trend.rate < 0 else "doubles"
    if 0.5 < trend.ratio < 2.0:
        return "hardly changes"
    return f"{change} every {number(trend.every)} step{'s' * (number(trend.every) != '1')} back"


def _flows(record: Record) -> Iterator[Finding]:
    by_verdict: dict[str, list[tuple[Strand, Trend]]] = {}
    for strand in record.strands:
        if not strand.steps[-1]:
            by_verdict.setdefault("none", []).append((strand, Trend(math.nan, 0.0, 0.0)))
            continue
        trend, by_reach = strand_trend(record, strand), record.every_step and bool(strand.reach)
        word = verdict(trend, record.every_step and not by_reach)
        if word == "healthy" and record.every_step and not by_reach:
            word = "unseen"
        by_verdict.setdefault(word, []).append((strand, trend))
    for word, write in _WRITERS.items():
        if word in by_verdict:
            yield write(record, by_verdict[word])


def _vanishing(record: Record, them: list[tuple[Strand, Trend]]) -> Finding:
    strand, trend = min(them, key=lambda one: one[1].ratio)
    left = "nothing" if trend.ratio == 0 else number(trend.ratio)
    text = (
        f"|dL/dh| {in_words(trend)}: of what there is near the last step, {left} is left "
        f"{number(trend.steps)} steps before. Hardly anything is learnt from there."
    )
    others = [one for one in record.strands if all(one is not strand for strand, _ in them)]
    carrying = [one for one in others if verdict(strand_trend(record, one)) == "healthy"]
    if carrying:
        names = _listed([one.name for one in carrying])
        text += f" It does flow through {names}, which may be enough."
    return Finding(
        "note" if carrying else "trouble",
        f"Vanishing gradient in {_names(them)}",
        _of_worst(them, strand) + text + _before(record, strand) + _radius(strand),
        _VANISHING_HELP.get(strand.kind, _VANISHING_HELP["GRU"])
        + ("" if record.every_step else _SHORTEN),
    )


def _exploding(record: Record, them: list[tuple[Strand, Trend]]) -> Finding:
    strand, trend = max(them, key=lambda one: math.inf if not one[1].finite else one[1].ratio)
    text = "|dL/dh| is not a finite number."
    if trend.finite:
        text = (
            f"|dL/dh| {in_words(trend)}: {number(trend.steps)} steps before the last, it is "
            f"{number(trend.ratio)} times as strong as near it."
        )
    return Finding(
        "trouble",
        f"Exploding gradient in {_names(them)}",
        _of_worst(them, strand) + text + _before(record, strand) + _radius(strand),
        "Clip gradients by their global norm (global_clipnorm=1.0), lower the learning rate, start "
        'with recurrent_initializer="orthogonal", or train on windows of the sequence '
        "(truncated BPTT, the tbptt of fit).",
    )


def _none(record: Record, them: list[tuple[Strand, Trend]]) -> Finding:
    return Finding(
        "trouble",
        f"No gradient reaches {_names(them)}",
        "dL/dh is zero at every step, so what is below learns nothing.",
        "Look for relu units that are always zero (a lower learning rate, smaller weights), and "
        "for a loss that does not depend on the output.",
    )


def _unseen(record: Record, them: list[tuple[Strand, Trend]]) -> Finding:
    return Finding(
        "note",
        f"How far gradients reach in {_names(them)} is not to be seen",
        "Every step has an output, and perhaps a loss of its own: the gradient that comes from far "
        "away is hidden under that from near by. It does not explode.",
        "With Monitor(probe=...) the report shows how far a gradient reaches that enters at the "
        "last step alone.",
    )


def _healthy(record: Record, them: list[tuple[Strand, Trend]]) -> Finding:
    strand, trend = max(them, key=lambda one: abs(math.log(one[1].ratio)))
    text = (
        f"|dL/dh| {in_words(trend)}: {number(trend.steps)} steps before the last, where it differs "
        f"most, it is {number(trend.ratio)} times what it is near it."
    )
    return Finding(
        "good",
        f"Gradients flow through {_names(them)}",
        _of_worst(them, strand) + text + _before(record, strand),
    )


_WRITERS: dict[str, Callable[[Record, list[tuple[Strand, Trend]]], Finding]] = {
    "vanishing": _vanishing,
    "exploding": _exploding,
    "none": _none,
    "unseen": _unseen,
    "healthy": _healthy,
}
_VANISHING_HELP = {
    "RNN": "An LSTM or a GRU keeps what it has seen in a state that gradients pass through almost "
    'unchanged. Where it is to be an RNN: recurrent_initializer="orthogonal", or '
    'nonlinearity="relu" with recurrent_initializer="identity" and bias_initializer="zeros".',
    "LSTM": "unit_forget_bias=True starts with forget gates that are open; layer_norm=True keeps "
    "gates in their working range.",
    "GRU": 'recurrent_initializer="orthogonal" and layer_norm=True help, or an LSTM with '
    "unit_forget_bias=True.",
}
_SHORTEN = " A loss at more steps than the last, or shorter sequences, shorten the way."


def _before(record: Record, strand: Strand) -> str:
    """How it was in the first epoch, where that is another."""
    if len(record.seen) < 2 or not strand.steps[0]:
        return ""
    first = strand_trend(record, strand, 0)
    return f" In epoch {record.seen[0] + 1} it {in_words(first)}."


def _radius(strand: Strand) -> str:
    """Of a plain RNN, whose Jacobian is its recurrent matrix but for the slopes of h."""
    if strand.kind != "RNN":
        return ""
    return f" The spectral radius of its recurrent matrix is {number(strand.radii[-1][0])}."


# --- Units and gates ----------------------------------------------------------------------------


def _dead(record: Record) -> Iterator[Finding]:
    them = [(strand, strand.dead[-1]) for strand in record.strands if strand.dead]
    them = [(strand, share) for strand, share in them if share >= DEAD]
    if not them:
        return
    relu = any("relu" in strand.activations for strand, _ in them)
    told = _listed([
        f"{round(share * strand.units)} of {strand.units} in {strand.name}"
        for strand, share in them
    ])  # fmt: skip
    yield Finding(
        "warning",
        "Dead units",
        f"On the probe these never change: {told}. They tell nothing about the input"
        + (", and a relu that is always zero passes no gradient." if relu else "."),
        "A lower learning rate, inputs scaled to a variance of about one, and smaller initial "
        "weights"
        + ("; tanh in the place of relu." if relu else "; layer_norm=True.")
        + " Fewer units may do as well.",
    )


def saturated(strand: Strand, place: int = -1) -> list[tuple[str, float, float]]:
    """Blocks of a strand with too many activations at the ends of their range: the block, and the
    shares at the low and the high end."""
    found = []
    for block, low, high in zip(strand.blocks, strand.low[place], strand.high[place], strict=True):
        open_all_the_time = block not in CANDIDATES and high >= SATURATED
        if low + high >= SATURATED and not open_all_the_time:
            found.append((block, float(low), float(high)))
    return found


def _gates(record: Record) -> Iterator[Finding]:
    told = []
    for strand in record.strands:
        for block, low, high in saturated(strand) if strand.low else ():
            ends = f"{low:.0%} at the low end, {high:.0%} at the high end"
            kind = "gate" if block not in CANDIDATES else "state" if block == "h" else "candidate"
            told.append(f"{kind} {block} of {strand.name} ({ends})")
    if told:
        yield Finding(
            "warning",
            "Saturated gates",
            f"On the probe these are in the first or last tenth of their range nearly always: "
            f"{_listed(told)}. Where the slope of sigmoid or tanh is small, so is the gradient. "
            "A trained gate may well act as a switch; one that does so from the first epoch on "
            "learns slowly.",
            "Inputs scaled to a variance of about one, a lower learning rate, "
            'kernel_initializer="glorot_uniform", or layer_norm=True.',
        )


# --- Words --------------------------------------------------------------------------------------


def number(value: float) -> str:
    """In two digits: 0.32, 14, 3e-9."""
    text = f"{value:.2g}" if abs(value) < 100 or abs(value) >= 1e5 else f"{value:.0f}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def _listed(parts: list[str], most: int = 6) -> str:
    """A few of them in words."""
    if len(parts) > most:
        parts = [*parts[: most - 1], f"{len(parts) - most + 1} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _names(them: list[tuple[Strand, Trend]]) -> str:
    return _listed([strand.name for strand, _ in them])


def _of_worst(them: list[tuple[Strand, Trend]], strand: Strand) -> str:
    return "" if len(them) == 1 else f"Most of all in {strand.name}: "
