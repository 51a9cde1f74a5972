"""Lines over an axis, as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fastrnn.diagnostics.verdict import number
from fastrnn.report.axes import decades, mark, power, round_marks

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 38
_DECADES = 16  # at most; what is below is drawn at the lower edge
_POINTS = 30  # up to so many have a dot each
Place = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """What a line is called, its points, and which of the page's colours it has."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dashed: bool = False
    value: str | None = None  # said beside its name; None: its last y

    @property
    def finite(self) -> list[float]:
        return [float(y) for y in self.y if abs(y) < 1e300]  # nan is not


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str = "",
    log: bool = False,
    back: bool = False,
    y_range: tuple[float, float] | None = None,
    rule: float | None = None,
) -> str:
    """A figure: title and names of the lines above, then lines over x, whole numbers.

    `log`: y on a scale of tens, where zero and less have no place. `back`: x goes up to the left,
    steps back in time. A line is broken where y is not finite. `rule`: a line across at that y.
    """
    xs = [float(x) for line in lines for x in line.x]
    x_low, x_high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    low, high, marks = _scale([y for line in lines for y in line.finite], log, y_range, rule)

    def to_x(x: float) -> float:
        share = (x - x_low) / (x_high - x_low)
        return LEFT + (1 - share if back else share) * (WIDTH - LEFT - RIGHT)

    def at(place: float) -> float:
        share = min(1.03, max(-0.03, (place - low) / (high - low)))
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    def to_y(y: float) -> float:
        return at(math.log10(y) if log else y)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
    ]
    for place, text in marks:
        y = at(place)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" class="end">{text}</text>')
    for x in round_marks(x_low, x_high, 6, whole=True):
        parts.append(f'<text x="{to_x(x):.1f}" y="{HEIGHT - BOTTOM + 17}">{x:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" class="label">{escape(x_label)}</text>')
    if rule is not None:
        parts.append(f'<path class="rule" d="M{LEFT} {to_y(rule):.1f}H{WIDTH - RIGHT}"/>')
    for line in lines:
        parts += _drawn(line, log, to_x, to_y)
    parts.append("</svg>")
    names = "".join(_named(line) for line in lines)
    label = f' <span class="unit">{escape(y_label)}</span>' if y_label else ""
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b>{label}'
        f'<span class="keys">{names}</span></figcaption>{"".join(parts)}</figure>'
    )


def _named(line: Line) -> str:
    value = line.value
    if value is None:
        value = number(float(line.y[-1])) if len(line.y) else ""
    dashed = " dashed" if line.dashed else ""
    return (
        f'<span class="key"><i class="c{line.colour}{dashed}"></i>{escape(line.name)} '
        f"<em>{escape(value)}</em></span>"
    )


def _drawn(line: Line, log: bool, to_x: Place, to_y: Place) -> list[str]:
    """Its path, broken where there is nothing to draw, and dots where these are few."""
    path, dots, pen = [], [], "M"
    for x, y in zip(line.x, line.y, strict=True):
        if not math.isfinite(y) or (log and y <= 0):
            pen = "M"
            continue
        path.append(f"{pen}{to_x(x):.1f} {to_y(y):.1f}")
        dots.append(
            f'<circle class="c{line.colour}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2.6"/>'
        )
        pen = "L"
    if not path:
        return []
    dashed = " dashed" if line.dashed else ""
    drawn = [f'<path class="line c{line.colour}{dashed}" d="{"".join(path)}"/>']
    return drawn + (dots if len(dots) <= _POINTS else [])


def _scale(
    values: list[float], log: bool, wanted: tuple[float, float] | None, rule: float | None
) -> tuple[float, float, list[tuple[float, str]]]:
    """The lowest and highest place of the y axis, and its marks with their texts."""
    if log:
        values = [math.log10(value) for value in values if value > 0] or [0.0]
        top = math.ceil(max(values) - 1e-9)
        bottom = max(min(math.floor(min(values) + 1e-9), top - 1), top - _DECADES)
        return bottom, top, [(float(e), power(e)) for e in decades(bottom, top, 6)]
    values = values + ([] if rule is None else [rule])
    low, high = wanted or ((min(values), max(values)) if values else (0.0, 1.0))
    if wanted is None:
        # From zero, where that leaves the lines room enough.
        low = 0.0 if 0 < low < high / 2 or low == high > 0 else low
        high = max(high, low + 1e-12 * max(1.0, abs(low)))
        margin = 0.05 * (high - low)
        low, high = low - (margin if low else 0.0), high + margin
    return low, high, [(y, mark(y)) for y in round_marks(low, high)]


def shares(title: str, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """A small figure: over x, the share at the low end from below, that at the high end from above,
    and between them what is left."""
    width, height = 200, 80
    span = (x[-1] - x[0]) or 1

    def area(values: Sequence[float], edge: int, sign: int) -> str:
        """That between an edge and a share; where this is no number there is none."""
        points = []
        for place, value in zip(x, values, strict=True):
            depth = value * height if math.isfinite(value) else 0.0
            points.append(((place - x[0]) / span * width, edge + sign * depth))
        if len(points) == 1:
            points = [(0, points[0][1]), (width, points[0][1])]
        return f"M0 {edge}{''.join(f'L{a:.1f} {b:.1f}' for a, b in points)}L{width} {edge}Z"

    def percent(value: float) -> str:
        return f"{value:.0%}" if math.isfinite(value) else "none"

    ends = "".join(f"<span>{end:g}</span>" for end in dict.fromkeys((x[0], x[-1])))
    return (
        f'<figure class="shares"><figcaption><b>{escape(title)}</b><span class="keys">'
        f'<span class="key"><i class="low"></i><em>{percent(low[-1])}</em></span>'
        f'<span class="key"><i class="high"></i><em>{percent(high[-1])}</em></span></span>'
        f'</figcaption><svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}: {percent(low[-1])} low, {percent(high[-1])} high">'
        f'<path class="low" d="{area(low, height, -1)}"/>'
        f'<path class="high" d="{area(high, 0, 1)}"/></svg><div class="ends">{ends}</div></figure>'
    )
