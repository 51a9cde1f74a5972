"""The report's colours: ramps for pictures, in light and in dark."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# By the reader's preference, from weak to strong, and from below zero over zero to above. The
# page's background is at the weak end and at zero.
STRENGTH = {
    "light": ["#f3f1ea", "#f7d9a4", "#f0a04b", "#cf5a3c", "#8a2b52", "#2a1238"],
    "dark": ["#1d2028", "#45205c", "#8f2c5e", "#dc5a41", "#f6aa45", "#fdf4c4"],
}
SIGNED = {
    "light": ["#16437f", "#5a94cf", "#f3f1ea", "#e39062", "#982f14"],
    "dark": ["#9accff", "#3a70ad", "#1d2028", "#a9532a", "#ffb488"],
}
Ramp = dict[str, list[str]]


def table(colours: list[str], size: int = 255) -> NDArray[np.uint8]:
    """(size, 3) red, green and blue from the first of `colours` to the last."""
    anchors = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in colours], np.float64)
    at, places = np.linspace(0, 1, size), np.linspace(0, 1, len(colours))
    columns = [np.interp(at, places, anchors[:, k]) for k in range(3)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


def css_ramp(colours: list[str]) -> str:
    return f"linear-gradient(to right, {', '.join(colours)})"
