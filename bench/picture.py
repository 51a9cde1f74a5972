"""The picture of ``bench.peers``: by how much fastrnn is ahead of the best peer, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

if TYPE_CHECKING:
    from bench.peers import Result

# Blue, vermilion, green, purple of Okabe and Ito: told apart with any eyes.
_STYLES = {
    "forward": ("o", "#0072b2"),
    "training": ("D", "#d55e00"),
    "step": ("s", "#009e73"),
    "update": ("^", "#cc79a7"),
}
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def draw(file: Path, results: Sequence[Result]) -> None:
    """Write a PNG: rows from above, a panel for each number of threads."""
    rows = list(dict.fromkeys((result.group, result.row) for result in results))
    threads = list(dict.fromkeys(result.threads for result in results))
    size = (3.0 + 3.6 * len(threads), 1.6 + 0.2 * len(rows))
    figure, panels = plt.subplots(
        1, len(threads), sharex=True, sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    for panel, number in zip(panels[0], threads, strict=True):
        panel.axvline(1, color="0.25", linewidth=1)
        for place, (group, _) in enumerate(rows):
            if place and rows[place - 1][0] != group:
                panel.axhline(place - 0.5, color="0.75", linewidth=0.8)
        for kind, (marker, color) in _STYLES.items():
            points = [
                (result.ratio, rows.index((result.group, result.row)))
                for result in results
                if (result.kind, result.threads) == (kind, number) and result.ratio
            ]
            if points:
                ratios, places = zip(*points, strict=True)
                panel.plot(ratios, places, marker, color=color, markersize=5, label=kind)
        panel.set(xscale="log", title=f"{number} thread{'s' * (number > 1)}")
        panel.grid(True, color="0.92")
        panel.set_axisbelow(True)
        panel.set_xticks(_TICKS)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.minorticks_off()
    widest = [0.5, 2.0, *(result.ratio for result in results if result.ratio)]
    panels[0, 0].set_xlim(min(widest) / 1.15, max(widest) * 1.15)
    panels[0, 0].set_yticks(range(len(rows)), [row.title for _, row in rows], fontsize=8)
    panels[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel("time of the best peer / time of fastrnn", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=130)
    plt.close(figure)
