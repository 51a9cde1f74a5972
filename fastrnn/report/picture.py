"""Heat maps: pictures with axes and a legend in numbers, in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from fastrnn.report.axes import decades, power
from fastrnn.report.colours import Ramp, table
from fastrnn.report.raster import data_uri, png, shades

Floats = NDArray[np.float64]
_SEEN = {" ": "␣", "\n": "↵", "\t": "→", "\r": "␍"}
Marks = Sequence[tuple[float, str]]  # of an axis: a share of its length, and what stands there


def image(pixels: NDArray[np.uint8], ramp: Ramp, alt: str, height: str) -> str:
    """A picture of `pixels`, see `raster.png`, that is as wide as there is room."""
    light, dark = (data_uri(png(pixels, table(ramp[name]))) for name in ("light", "dark"))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}" style="height:{height}"></picture>'
    )


def heat_map(title: str, body: str, below: str, marks: Marks, label: str) -> str:
    """A figure of pictures, with what stands `below`, and the marks and label of its y axis."""
    return (
        f'<figure class="heat"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<div class="frame"><div class="y">{_ticks(marks, "top")}'
        f'<span class="label">{escape(label)}</span></div>'
        f'<div class="image">{body}</div>{below}</div></figure>'
    )


def axis(marks: Marks, label: str) -> str:
    """What stands below a picture: the marks of its x axis."""
    return f'<div class="x">{_ticks(marks, "left")}</div><div class="label">{escape(label)}</div>'


def tokens_below(tokens: Sequence[str]) -> str:
    """Or a token for each column, upright where they are short; white space is made visible."""
    kind = "tokens" if max(map(len, tokens)) <= 2 else "tokens words"
    spans = []
    for token in tokens:
        shown = "".join(_SEEN.get(character, character) for character in token) or "∅"
        blank = ' class="blank"' if not token.strip() else ""
        spans.append(f'<span{blank} title="{escape(token)}">{escape(shown)}</span>')
    columns = f"grid-template-columns:repeat({len(tokens)},minmax(0,1fr))"
    return f'<div class="{kind}" style="{columns}">{"".join(spans)}</div>'


def _ticks(marks: Marks, side: str) -> str:
    return "".join(
        f'<span class="tick" style="{side}:{100 * share:.2f}%">{escape(text)}</span>'
        for share, text in marks
    )


def legend(kind: str, marks: Marks, label: str) -> str:
    """The ramp `kind`, "strength" or "signed", with numbers below it."""
    return (
        f'<div class="legend"><span class="label">{escape(label)}</span>'
        f'<div><div class="ramp {kind}"></div><div class="x">{_ticks(marks, "left")}</div></div>'
        "</div>"
    )


def log_legend(low: int, high: int, label: str) -> str:
    """That of powers of ten from `low` to `high`."""
    marks = [((e - low) / (high - low), power(e)) for e in decades(low, high, 5)]
    return legend("strength", marks, label)


def log_range(values: Floats, most: int = 12) -> tuple[int, int]:
    """The powers of ten that take all that is above zero in, `most` decades at most, from above."""
    some = values[np.isfinite(values) & (values > 0)]
    if not some.size:
        return -1, 0
    low, high = (np.log10(end(some)) for end in (np.min, np.max))
    top = int(np.ceil(high))
    return min(max(int(np.floor(low)), top - most), top - 1), top


def log_shades(values: Floats, low: int, high: int) -> NDArray[np.uint8]:
    """`values` on a scale of tens; zero is at the low end, what is not finite clear."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(values > 0, np.log10(values), np.where(values == 0, low, np.nan))
    return shades(np.where(np.isinf(exponents), np.nan, exponents), low, high)
