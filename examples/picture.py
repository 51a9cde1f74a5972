"""What the examples' pictures share: figures that need no display, and how their axes look."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

INK, GRID = "#30343b", "#e6e8eb"
BLUE, ORANGE, GREEN, GREY = "#2f6fb4", "#d9642c", "#3a8f5c", "#8a9099"


def figure(width: float, height: float) -> Any:
    """A figure of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("the examples draw with matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def dress(axes: Any, *, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Name the axes; a light grid in the place of a frame."""
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)


def name_line(axes: Any, text: str, x: float, y: float, color: str, dy: float = 0.0) -> None:
    """Write a line's name where it ends, `dy` points higher."""
    axes.annotate(
        text, (x, y), xytext=(6, dy), textcoords="offset points", va="center", color=color,
        annotation_clip=False,
    )  # fmt: skip


def save(figure: Any, out: Path, example: str) -> Path:
    """Write the picture of the `example` (its file) into the folder `out`; returns where.

    64 colours are plenty for lines and make a file of a third of the size.
    """
    from PIL import Image  # matplotlib brings it

    path = out / f"{Path(example).stem}.png"
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png")
    picture = Image.open(pixels).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def run(main: Callable[[Path, bool], Any]) -> None:
    """Call an example's main with what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="of the picture")
    parser.add_argument("--quick", action="store_true", help="a smaller run, of seconds")
    arguments = parser.parse_args()
    main(arguments.out, arguments.quick)
