"""The command line that the benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from bench import measure, shapes
from bench.problem import Mismatch
from bench.shapes import AnyRow, Row
from fastrnn import _core

R = TypeVar("R")
RowT = TypeVar("RowT", bound=AnyRow)


class Options(argparse.Namespace):
    """What was asked for."""

    threads: list[int]
    rounds: int
    seconds: float
    markdown: bool
    json: Path | None
    patterns: list[str]
    rows: list[Row]


def parser(program: str, purpose: str | None, rounds: int = 7) -> argparse.ArgumentParser:
    """Threads, turns and how to report: what all take."""
    made = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=purpose,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--threads", type=int, nargs="+", default=[1], help="of each contender (default: 1)")
    add("--rounds", type=int, default=rounds, help=f"turns that each has (default: {rounds})")
    add("--seconds", type=float, default=0.05, help="length of a turn (default: 0.05)")
    add("--markdown", action="store_true", help="print Markdown, for a README")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    return made


def add_rows(parser: argparse.ArgumentParser, patterns: Sequence[str]) -> None:
    """The option --rows; `patterns` if none are named."""
    parser.add_argument(
        "--rows", dest="patterns", nargs="+", default=patterns, metavar="ROW",
        help="cell-B-T-I-H of any sizes, or a pattern such as 'lstm-*'",
    )  # fmt: skip


def parse(parser: argparse.ArgumentParser, options: Options | None = None) -> Options:
    """What was asked for, checked."""
    options = parser.parse_args(namespace=options or Options())
    cpus = _core.default_num_threads()
    if not all(1 <= threads <= cpus for threads in options.threads):
        parser.error(f"--threads: expected 1 to {cpus}, got {options.threads}")
    if options.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {options.rounds}")
    if options.json:
        check_folder(parser, "--json", options.json)
    return options


def check_folder(parser: argparse.ArgumentParser, option: str, file: Path) -> None:
    """That `file` can be written, as far as its folder goes."""
    if not file.parent.is_dir():
        parser.error(f"{option}: no such folder: {file.parent}")


def parse_rows(program: str, purpose: str | None, patterns: Sequence[str]) -> Options:
    """As `parse`, with the rows of the table; `patterns` if none are named."""
    made = parser(program, purpose)
    add_rows(made, patterns)
    options = parse(made)
    with refusing_rows(made):
        options.rows = shapes.select(options.patterns, shapes.ROWS)
        for row in options.rows:
            if row != Row(row.cell, *row.sizes):
                raise ValueError(
                    f"{row.name}: expected cell-B-T-I-H alone, the others are bench.peers'"
                )
    return options


@contextmanager
def refusing_rows(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Ends the program where the patterns of --rows match nothing."""
    try:
        yield
    except ValueError as error:
        parser.error(f"--rows: {error}")


def run(
    function: Callable[[RowT, int, int, float], R], rows: Sequence[RowT], options: Options
) -> dict[int, list[R]]:
    """By number of threads, ``function(row, threads, rounds, seconds)`` for each row.

    Each in a process of its own: how NumPy's BLAS is threaded and when malloc returns memory to
    the system are settled there, and do not depend on the rows before. Exits with status 1 and one
    line for a Mismatch, 130 for an interrupt.
    """
    results: dict[int, list[R]] = {threads: [] for threads in options.threads}
    runs = [(threads, row) for threads in results for row in rows]
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
