"""Whole training steps of character models in PyTorch, with its recurrent layers and with ours.

``python -m bench.torch_models`` has both models train in turns: forward, cross-entropy, backward,
clipping, PyTorch's Adam. In such a program the kernels' threads meet PyTorch's, so what counts is a
step of the whole turn on average and not the fastest.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench import command, report, shapes
from bench.problem import check
from bench.shapes import GROUPS, Model
from bench.systems import torch as modules

_HEADER = ("layers H, B T", "torch.nn ms", "fastrnn.torch ms", "tokens/s", "ratio", "noise")
_LEGEND = (
    "A time is a step's, on average over a turn; the fastest turn of several, of the faster layout "
    "and Adam (fused, foreach).",
    "All have the same losses. Noise is the median turn over the fastest, of the worse.",
)
_MODELS = [row for row in GROUPS["models"] if isinstance(row, Model)]


@dataclass(frozen=True)
class Result:
    """One model on some number of threads, in milliseconds."""

    model: Model
    threads: int
    peer: float
    module: float
    noise: float

    def cells(self) -> list[str]:
        """The row of the table."""
        tokens = f"{1e3 * self.model.tokens / self.module:,.0f}"
        times = f"{self.peer:.2f}", f"{self.module:.2f}"
        return [
            self.model.title,
            *times,
            tokens,
            f"{self.peer / self.module:.2f}",
            f"{self.noise:.0%}",
        ]


def _turn(step: Callable[[], object], seconds: float) -> float:
    """Milliseconds of a step on average."""
    steps, start = 0, time.perf_counter()
    while True:
        step()
        steps, passed = steps + 1, time.perf_counter() - start
        if passed > seconds:
            return 1e3 * passed / steps


def measured(model: Model, threads: int, rounds: int, seconds: float) -> Result:
    """One model, in this process; raises Mismatch."""
    import torch

    torch.set_num_threads(threads)
    contenders = {
        (accelerated, layout, adam): modules.update(model, batch_first, adam, accelerated)
        for accelerated in (False, True)
        for layout, batch_first in modules.LAYOUTS.items()
        for adam in ("fused", "foreach")
    }
    results = {name: contender.results() for name, contender in contenders.items()}
    for name, found in results.items():
        check(" ".join(map(str, name)), model, "update", found, next(iter(results.values())))
    turns: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for _ in range(rounds):
        for (accelerated, *variant), contender in contenders.items():
            times = turns[accelerated].setdefault(" ".join(variant), [])
            times.append(_turn(contender.run, seconds))
    best = {accelerated: min(times.values(), key=min) for accelerated, times in turns.items()}
    noise = max(statistics.median(times) / min(times) for times in best.values()) - 1
    return Result(model, threads, min(best[False]), min(best[True]), noise)


def text(results: dict[int, list[Result]], markdown: bool) -> str:
    """The machine, how to read the figures, and a table for each number of threads."""
    paragraphs = [report.machine_text(markdown), (" " if markdown else "\n").join(_LEGEND)]
    for threads, these in results.items():
        paragraphs += [
            f"{command.in_threads(threads).capitalize()}.",
            report.table(_HEADER, [result.cells() for result in these], markdown),
        ]
    return "\n\n".join(paragraphs)


def main() -> None:
    parser = command.parser("bench.torch_models", __doc__, rounds=5)
    parser.set_defaults(seconds=0.5)
    command.add_rows(parser, [])
    options = command.parse(parser)
    try:
        models = shapes.select(options.patterns, _MODELS)
    except ValueError as error:
        parser.error(f"--rows: {error}")
    results = command.run(measured, models, options)
    print(text(results, options.markdown))
    if options.json:
        rows = [asdict(result) for these in results.values() for result in these]
        found = {"machine": report.machine(), "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
