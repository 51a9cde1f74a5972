"""fastrnn against its NumPy reference, row by row: ``python -m bench.rows --help``."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass, replace

from bench import command, measure, report
from bench.problem import check
from bench.roofline import Peak
from bench.shapes import LAYER_KINDS, Row
from bench.systems import fastrnn, reference
from fastrnn import _core

_HEADER = ("cell B T I H", *("forward ms", "GFLOP/s", "of peak", "speed-up"),
           *("training ms", "GFLOP/s", "of peak", "speed-up"), "noise")  # fmt: skip

_LEGEND = (
    "A time is that of the fastest call; the contenders take turns, several rounds.",
    "Training is outputs, dx and every weight's gradient, with the weights packed anew.",
    "GFLOP/s counts the products: of training, three times those of the forward pass.",
    "Speed-up is over fastrnn.reference with as many threads for NumPy's BLAS.",
    "Noise is the median round over the fastest, of the most disturbed contender.",
)


@dataclass(frozen=True)
class Result:
    """One row on some number of threads.

    `milliseconds` has each kind of pass and, as "reference forward", the reference's; `peak` is the
    FMA peak in GFLOP/s of all threads together, None if there is no C compiler.
    """

    row: Row
    threads: int
    milliseconds: dict[str, float]
    noise: float
    peak: float | None

    def gflops(self, kind: str) -> float:
        return self.row.flops(kind) / self.milliseconds[kind] / 1e6

    def of_peak(self, kind: str) -> float | None:
        return self.gflops(kind) / self.peak if self.peak else None

    def speedup(self, kind: str) -> float:
        return self.milliseconds[f"reference {kind}"] / self.milliseconds[kind]

    def cells(self) -> list[str]:
        """The row of the table."""
        cells = [self.row.title]
        for kind in LAYER_KINDS:
            of_peak = self.of_peak(kind)
            cells += [
                f"{self.milliseconds[kind]:.3f}",
                f"{self.gflops(kind):.0f}",
                "-" if of_peak is None else f"{of_peak:.0%}",
                f"{self.speedup(kind):.1f}",
            ]
        return [*cells, f"{self.noise:.0%}"]

    def figures(self) -> dict[str, object]:
        """Everything, for JSON."""
        derived = {
            "gflops": {kind: self.gflops(kind) for kind in LAYER_KINDS},
            "of_peak": {kind: self.of_peak(kind) for kind in LAYER_KINDS},
            "speedup": {kind: self.speedup(kind) for kind in LAYER_KINDS},
        }
        return {**asdict(self), **derived}


def measured(row: Row, threads: int, rounds: int, seconds: float) -> Result:
    """One row, in this process, whose NumPy must have as many threads; raises Mismatch."""
    contenders: dict[str, measure.Contender] = {}
    theirs = reference.passes(row)
    for kind, ours in fastrnn.layer_passes(row, with_dstate=True).items():
        check("fastrnn", row, kind, ours.results(), theirs[kind].results())
        contenders |= {kind: ours, f"reference {kind}": theirs[kind]}
    flops = 0
    try:
        peak = Peak(_core.isas()[-1], threads)
        contenders["peak"], flops = measure.Contender(peak.run), peak.flops
    except RuntimeError as error:
        print(f"The FMA peak is not measured: {error}", file=sys.stderr)
    times = measure.interleaved(contenders, rounds, seconds, threads)
    best = flops / min(times.pop("peak")) / 1e9 if flops else None
    noise = max(statistics.median(fastest) / min(fastest) for fastest in times.values()) - 1
    milliseconds = {name: min(fastest) * 1e3 for name, fastest in times.items()}
    return Result(row, threads, milliseconds, noise, best)


def with_best_peak(results: list[Result]) -> list[Result]:
    """The same with the best of their peaks: a disturbed one would flatter us."""
    best = max((result.peak for result in results if result.peak), default=None)
    return [replace(result, peak=best) for result in results]


def text(results: dict[int, list[Result]], markdown: bool) -> str:
    """The machine, how to read the figures, and a table for each number of threads."""
    paragraphs = [report.machine_text(markdown), (" " if markdown else "\n").join(_LEGEND)]
    for threads, these in results.items():
        peak = these[0].peak
        slowest = min(these, key=lambda result: result.speedup("training"))
        title = f"{command.in_threads(threads).capitalize()}, float32, FMA peak "
        paragraphs += [
            title + ("not measured." if peak is None else f"{peak:.0f} GFLOP/s."),
            report.table(_HEADER, [result.cells() for result in these], markdown),
            f"The smallest speed-up of training is {slowest.speedup('training'):.2f}, "
            f"of {slowest.row.name}.",
        ]
    return "\n\n".join(paragraphs)


def main() -> None:
    options = command.parse_rows("bench.rows", __doc__, [])
    runs = command.run(measured, options.rows, options)
    results = {threads: with_best_peak(these) for threads, these in runs.items()}
    print(text(results, options.markdown))
    rows = [result.figures() for these in results.values() for result in these]
    report.write_json(options.json, rows=rows)


if __name__ == "__main__":
    main()
