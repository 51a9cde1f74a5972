"""Whole training steps of character models in PyTorch, with its recurrent layers and with ours.

``python -m bench.torch_models`` has both models train in turns: forward, cross-entropy, backward,
clipping, PyTorch's Adam. In such a program the kernels' threads meet PyTorch's, so what counts is a
step of the whole turn on average and not the fastest.
"""

from __future__ import annotations

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
        (whose, variant): each
        for whose, accelerated in (("torch.nn", False), ("fastrnn.torch", True))
        for variant, each in modules.updates(model, accelerated).items()
    }
    results = {name: each.results() for name, each in contenders.items()}
    wanted = next(iter(results.values()))
    for name, found in results.items():
        check(", ".join(name), model, "update", found, wanted)
    times: dict[tuple[str, str], list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, each in contenders.items():
            times[name].append(_turn(each.run, seconds))
    peer, module = (
        min((turns for name, turns in times.items() if name[0] == whose), key=min)
        for whose in ("torch.nn", "fastrnn.torch")
    )
    noise = max(statistics.median(turns) / min(turns) for turns in (peer, module)) - 1
    return Result(model, threads, min(peer), min(module), noise)


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
    with command.refusing_rows(parser):
        models = shapes.select_models(options.patterns, _MODELS)
    results = command.run(measured, models, options)
    print(text(results, options.markdown))
    rows = [asdict(result) for these in results.values() for result in these]
    report.write_json(options.json, rows=rows)


if __name__ == "__main__":
    main()
