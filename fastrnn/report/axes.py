"""Where an axis has its marks, and what stands there."""

from __future__ import annotations

import math

from fastrnn.diagnostics.verdict import number


def round_marks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers in [low, high], `most` at most; with `whole` no fractions."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    factors = (1, 2, 5, 10, 20, 50, 100)
    step *= next(factor for factor in factors if span / (factor * step) < most)
    if whole:
        step = max(1.0, round(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def decades(low: int, high: int, most: int = 7) -> list[int]:
    """Exponents of ten in [low, high], evenly spaced, `high` one of them."""
    step = max(1, math.ceil((high - low) / (most - 1)))
    return list(range(high, low - 1, -step))[::-1]


def power(exponent: int) -> str:
    """10 to that power in a few characters."""
    if -3 <= exponent <= 4:
        return f"{10.0**exponent:g}"
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


def mark(value: float) -> str:
    """A mark's number: as `number`, with all digits that round numbers have."""
    return f"{value:g}" if abs(value) >= 1e-3 or value == 0 else number(value)
