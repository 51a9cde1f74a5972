"""How fastrnn's time grows with T, B and H, beside the roofline, and the memory of a training step.

The others stay at LSTM, T 100, B 32, H 128 unless options say otherwise; I is H.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import command, measure, report, roofline
from bench.limit import limit
from bench.shapes import GATES, LAYER_KINDS, Row
from bench.systems import fastrnn
from fastrnn.layers.recurrent import Recurrent

_RANGES = {
    "T": (1, 4, 16, 64, 256, 1024, 4096),
    "B": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "H": (16, 32, 64, 128, 256, 512, 1024, 2048),
}

_LEGEND = (
    "A time is that of the fastest call; of roof is the least time that this machine's peak and\n"
    "bandwidths allow over it. Memory is what the first training step of a process adds at its\n"
    "most (resident, glibc only), less what it returns: output, dx, gradients. Kept is what BPTT\n"
    "needs of every step and row: the gates, h and an LSTM's c."
)


class Options(command.Options):
    cell: str
    T: int
    B: int
    H: int
    picture: Path | None


@dataclass(frozen=True)
class Point:
    """One row: by kind seconds of the fastest call and the least that is possible; memory."""

    along: str
    value: int
    row: Row
    threads: int
    seconds: dict[str, float]
    least: dict[str, float]
    memory: int | None

    @property
    def kept(self) -> int:
        """Bytes of the gates, h and c of every step and row."""
        entries = GATES[self.row.cell] + (2 if self.row.cell == "lstm" else 1)
        return 4 * self.row.batch * self.row.time * self.row.hidden_size * entries

    def cells(self) -> list[str]:
        """The row of the table."""
        times = [
            text
            for kind in LAYER_KINDS
            for text in (
                f"{self.seconds[kind] * 1e3:.3f}",
                f"{self.least[kind] / self.seconds[kind]:.0%}",
            )
        ]
        memory = "-" if self.memory is None else f"{self.memory / 1e6:.1f}"
        return [f"{self.along} = {self.value}", *times, memory, f"{self.kept / 1e6:.1f}"]


def parse() -> Options:
    parser = command.parser("bench.growth", __doc__, rounds=3)
    add = parser.add_argument
    add("--cell", choices=tuple(GATES), default="lstm", help="(default: lstm)")
    for name, value in (("T", 100), ("B", 32), ("H", 128)):
        add(f"--{name}", type=int, default=value, help=f"where others grow (default: {value})")
    add("--picture", type=Path, metavar="FILE", help="draw the times, a PNG")
    options = command.parse(parser, Options())
    assert isinstance(options, Options)
    for name in _RANGES:
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(options, name)}")
    if options.picture:
        command.check_folder(parser, "--picture", options.picture)
    return options


def times(row: Row, threads: int, rounds: int, seconds: float) -> dict[str, float]:
    """By kind of pass the fastest call, in seconds."""
    found = measure.interleaved(fastrnn.layer_passes(row), rounds, seconds, threads)
    return {kind: min(each) for kind, each in found.items()}


def row_memory(row: Row) -> int | None:
    """`memory` of a row."""
    layer, problem = fastrnn.layer_of(row)
    return memory(layer, problem.x, problem.dy)


def memory(layer: Recurrent, x: Any, dy: Any, **options: Any) -> int | None:
    """Bytes of this process's first training step, at its most, less what it returns.

    `options` are `vjp`'s.
    """
    fastrnn.layer_passes(Row("lstm", 1, 1, 1, 1))["training"].run()  # what is set up only once
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what making the data left free is not for the step
        Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
        before = _status("VmRSS")
    except (AttributeError, OSError):  # another C library, another system
        return None
    (y, _), pullback = layer.vjp(x, **options)
    dx, _ = pullback(dy)
    grown = _status("VmHWM") - before
    grads = sum(np.asarray(parameter.grad).nbytes for parameter in layer.parameters().values())
    return max(0, grown - y.nbytes - dx.nbytes - grads)


def _status(name: str) -> int:
    """An entry of Linux's /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def measured(options: Options) -> list[Point]:
    """All points, each in processes of its own."""
    base = Row(options.cell, options.B, options.T, options.H, options.H)
    sizes = [(along, value) for along, values in _RANGES.items() for value in values]
    points = []
    for threads in options.threads:
        machine = roofline.measured(threads)
        for along, value in tqdm(sizes, disable=None, unit="row"):
            names = {"T": ["time"], "B": ["batch"], "H": ["input_size", "hidden_size"]}[along]
            row = replace(base, **dict.fromkeys(names, value))
            given = row, threads, options.rounds, options.seconds
            seconds = measure.with_threads(threads, times, *given)
            least = {kind: limit(row, kind, machine).seconds for kind in LAYER_KINDS}
            added = measure.with_threads(threads, row_memory, row)
            points.append(Point(along, value, row, threads, seconds, least, added))
    return points


def draw(file: Path, points: Sequence[Point]) -> None:
    """Write a PNG: a panel for each of T, B and H, solid the times, dashed the least possible."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(_RANGES), figsize=(13, 4.6), layout="constrained")
    threads = list(dict.fromkeys(point.threads for point in points))
    for panel, along in zip(panels, _RANGES, strict=True):
        for number, marker in zip(threads, "osD^v", strict=False):
            these = [p for p in points if (p.along, p.threads) == (along, number)]
            values = [point.value for point in these]
            for kind, color in zip(LAYER_KINDS, ("#0072b2", "#d55e00"), strict=True):
                label = f"{kind}, {command.in_threads(number)}"
                seconds = [point.seconds[kind] * 1e3 for point in these]
                least = [point.least[kind] * 1e3 for point in these]
                filled = color if number == threads[0] else "white"
                panel.plot(values, seconds, marker + "-", color=color, label=label,
                           markersize=5, markerfacecolor=filled)  # fmt: skip
                panel.plot(values, least, "--", color=color, linewidth=1,
                           label=f"roofline, {kind}" if number == threads[0] else None)  # fmt: skip
        fixed = these[0].row
        sizes = {"T": fixed.time, "B": fixed.batch, "H": fixed.hidden_size}
        others = ", ".join(f"{name} {size}" for name, size in sizes.items() if name != along)
        panel.set(xscale="log", yscale="log", xlabel=along, title=f"{fixed.cell}, {others}")
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.grid(True, color="0.9")
    panels[0].set_ylabel("milliseconds a call")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    options = parse()
    try:
        points = measured(options)
    except RuntimeError as error:
        raise SystemExit(f"bench.growth: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(f"{report.machine_text(options.markdown)}\n\n{_LEGEND}")
    base = f"{options.cell}, T {options.T}, B {options.B}, H {options.H} but"
    kinds = [column for kind in LAYER_KINDS for column in (f"{kind} ms", "of roof")]
    header = (base, *kinds, "memory MB", "kept MB")
    for threads in options.threads:
        rows = [point.cells() for point in points if point.threads == threads]
        print(f"\n{command.in_threads(threads).capitalize()}, float32.\n")
        print(report.table(header, rows, options.markdown))
    figures = [{**asdict(point), "kept": point.kept} for point in points]
    report.write_json(options.json, points=figures)
    if options.picture:
        draw(options.picture, points)


if __name__ == "__main__":
    main()
