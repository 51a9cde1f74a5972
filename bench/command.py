"""The command line that the benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from bench import measure, shapes
from bench.problem import Mismatch
from bench.shapes import Row
from fastrnn import _core

R = TypeVar("R")


class Options(argparse.Namespace):
    """What was asked for."""

    threads: list[int]
    patterns: list[str]
    rows: list[Row]
    rounds: int
    seconds: float
    markdown: bool
    json: Path | None


def parse(program: str, purpose: str | None, patterns: Sequence[str]) -> Options:
    """The command line's options, checked; `patterns` are the rows if none are named."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=purpose)
    add = parser.add_argument
    add("--threads", type=int, nargs="+", default=[1], help="of fastrnn and NumPy (default: 1)")
    add("--rows", dest="patterns", nargs="+", default=patterns, metavar="ROW",
        help="cell-B-T-I-H, or a pattern such as 'lstm-*'")  # fmt: skip
    add("--rounds", type=int, default=7, help="turns that each contender has (default: 7)")
    add("--seconds", type=float, default=0.05, help="length of a turn (default: 0.05)")
    add("--markdown", action="store_true", help="print Markdown, for a README")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    options = parser.parse_args(namespace=Options())
    cpus = _core.default_num_threads()
    if not all(1 <= threads <= cpus for threads in options.threads):
        parser.error(f"--threads: expected 1 to {cpus}, got {options.threads}")
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {options.rounds}")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: no such folder: {options.json.parent}")
    try:
        options.rows = shapes.select(options.patterns)
    except ValueError as error:
        parser.error(f"--rows: {error}")
    return options


def run(function: Callable[[Row, int, int, float], R], options: Options) -> dict[int, list[R]]:
    """By number of threads, ``function(row, threads, rounds, seconds)`` for each row.

    Each in a process of its own: how NumPy's BLAS is threaded and when malloc returns memory to
    the system are settled there, and do not depend on the rows before. Exits with status 1 and one
    line for a Mismatch, 130 for an interrupt.
    """
    results: dict[int, list[R]] = {threads: [] for threads in options.threads}
    runs = [(threads, row) for threads in results for row in options.rows]
    try:
        with tqdm(runs, disable=None, unit="row") as bar:
            for threads, row in bar:
                bar.set_description(f"{row.name}, {in_threads(threads)}")
                given = row, threads, options.rounds, options.seconds
                results[threads].append(measure.with_threads(threads, function, *given))
    except Mismatch as error:
        raise SystemExit(f"not the same results: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    return results


def in_threads(threads: int) -> str:
    """As in 1 thread, 2 threads."""
    return f"{threads} thread{'s' * (threads > 1)}"
