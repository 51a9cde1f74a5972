"""What the variants of a layer cost, beside the plain cell: ``python -m bench.variants --help``.

A variant whose products have other sizes (a projection, fewer gates) is measured per multiply-add.
The last tables are long sequences with checkpoints and without: time, and memory.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

import fastrnn as fr
from bench import command, growth, measure, report
from bench.shapes import LAYER_KINDS
from bench.systems.fastrnn import forward_pass, training_pass
from fastrnn.layers.recurrent import Recurrent

Options = dict[str, Any]

_COMMON: dict[str, Options] = {
    "layer_norm": {"layer_norm": True},
    "zoneout_h": {"zoneout_h": 0.1},
    "recurrent_dropout": {"recurrent_dropout": 0.1},
    "clip": {"clip": 3.0},
}
# By plain cell; the first is that itself.
_VARIANTS: dict[str, dict[str, Options]] = {
    "RNN": {"plain": {}, "relu": {"nonlinearity": "relu"}, **_COMMON},
    "GRU": {
        "plain": {}, "reset before": {"reset_after": False}, "minimal": {"variant": "minimal"},
        "hard_sigmoid, relu": {"gate_activation": "hard_sigmoid", "state_activation": "relu"},
        **_COMMON,
    },
    "LSTM": {
        "plain": {}, "peephole": {"peephole": True}, "projection H/2": {"proj_size": 0.5},
        "coupled f=1-i": {"coupled": "f=1-i"}, "coupled i=1-f": {"coupled": "i=1-f"},
        "hard_sigmoid, relu": {"gate_activation": "hard_sigmoid", "state_activation": "relu"},
        "zoneout_h, zoneout_c": {"zoneout_h": 0.1, "zoneout_c": 0.1}, **_COMMON,
    },
}  # fmt: skip
_KINDS: dict[str, type[Recurrent]] = {"RNN": fr.RNN, "GRU": fr.GRU, "LSTM": fr.LSTM}
_SIZES = ("32-50-128-128", "32-50-256-256", "1-100-64-128")
_LONG = ("4-8000-64-256", "4-100000-64-256")
_EVERY = (None, 200)  # checkpoint_every

_LEGEND = (
    "A time is that of the fastest call; all take turns, several rounds.",
    "Of plain is the time per multiply-add of the products over the plain cell's.",
    "Training is outputs, dx and every weight's gradient, with the weights packed anew.",
)


class Arguments(command.Options):
    sizes: list[str]
    long: list[str]


@dataclass(frozen=True)
class Data:
    """x (B, T, I) and the output's gradient."""

    x: Any
    dy: Any


@dataclass(frozen=True)
class Result:
    """One variant: by kind of pass, milliseconds and the ratio to plain."""

    sizes: str
    threads: int
    cell: str
    name: str
    milliseconds: dict[str, float]
    of_plain: dict[str, float]

    def cells(self) -> list[str]:
        """The row of the table."""
        cells = [self.cell, self.name]
        for kind in LAYER_KINDS:
            time, ratio = self.milliseconds.get(kind), self.of_plain.get(kind)
            cells += [
                "-" if time is None else f"{time:.3f}",
                "-" if ratio is None else f"{ratio:.2f}",
            ]
        return cells


@dataclass(frozen=True)
class Long:
    """A training step of a long sequence: seconds, and bytes it adds beyond what it returns."""

    sizes: str
    threads: int
    checkpoint_every: int | None
    seconds: float
    memory: int | None

    def cells(self, plain: Long) -> list[str]:
        """The row of the table."""
        memory = "-" if self.memory is None else f"{self.memory / 2**20:.0f}"
        every = "-" if self.checkpoint_every is None else str(self.checkpoint_every)
        return [every, f"{self.seconds:.2f}", f"{self.seconds / plain.seconds:.2f}", memory]


def numbers(sizes: str) -> tuple[int, int, int, int]:
    """B, T, I, H of B-T-I-H; raises ValueError."""
    found = [int(part) for part in sizes.split("-")]
    if len(found) != 4 or min(found) < 1:
        raise ValueError(f"expected B-T-I-H, got {sizes!r}")
    return found[0], found[1], found[2], found[3]


def _layer(cell: str, options: Options, inputs: int, hidden: int) -> Recurrent:
    if "proj_size" in options:
        options = {**options, "proj_size": max(1, int(options["proj_size"] * hidden))}
    return _KINDS[cell](inputs, hidden, seed=1, **options)


def _data(layer: Recurrent, batch: int, time: int) -> Data:
    rng = np.random.default_rng(0)
    return Data(
        rng.standard_normal((batch, time, layer.input_size), np.float32),
        rng.standard_normal((batch, time, layer.output_size), np.float32),
    )


def _multiply_adds(layer: Recurrent) -> int:
    """Of one time step of one row."""
    kinds = ("weight_ih", "weight_hh", "weight_hr")
    return sum(p.size for name, p in layer.parameters().items() if name.startswith(kinds))


def times(sizes: str, cell: str, threads: int, rounds: int, seconds: float) -> list[Result]:
    """All variants of a cell, in this process."""
    batch, time, inputs, hidden = numbers(sizes)
    contenders, work = {}, {}
    for name, options in _VARIANTS[cell].items():
        made = [_layer(cell, options, inputs, hidden) for _ in LAYER_KINDS]
        work[name] = _multiply_adds(made[0])
        data = _data(made[0], batch, time)
        contenders["forward", name] = forward_pass(made[0], data)
        contenders["training", name] = training_pass(made[1], data)
    small = _layer(cell, {}, inputs, hidden).to("bfloat16")
    contenders["forward", "bfloat16"] = forward_pass(small, _data(small, batch, time))
    work["bfloat16"] = work["plain"]
    found = measure.interleaved(contenders, rounds, seconds, threads)
    fastest = {key: min(each) for key, each in found.items()}
    results = []
    for name in work:
        kinds = [kind for kind in LAYER_KINDS if (kind, name) in fastest]
        results.append(
            Result(
                sizes, threads, cell, name,
                {kind: fastest[kind, name] * 1e3 for kind in kinds},
                {
                    kind: fastest[kind, name] / work[name] * work["plain"] / fastest[kind, "plain"]
                    for kind in kinds
                },
            )
        )  # fmt: skip
    return results


def long_times(sizes: str, threads: int) -> list[float]:
    """Seconds of a training step without checkpoints and with them, the fastest of three."""
    batch, time, inputs, hidden = numbers(sizes)
    layer = _layer("LSTM", {}, inputs, hidden)
    data = _data(layer, batch, time)
    steps = {every: training_pass(layer, data, checkpoint_every=every) for every in _EVERY}
    found = measure.interleaved(steps, 3, 0.0, threads)
    return [min(found[every]) for every in _EVERY]


def long_memory(sizes: str, every: int | None) -> int | None:
    """Bytes that the first training step adds, at its most, less what it returns."""
    batch, time, inputs, hidden = numbers(sizes)
    layer = _layer("LSTM", {}, inputs, hidden)
    data = _data(layer, batch, time)
    return growth.memory(layer, data.x, data.dy, checkpoint_every=every)


def measured(options: Arguments) -> tuple[list[Result], list[Long]]:
    """Everything, each cell in a process of its own."""
    runs = [(t, s, cell) for t in options.threads for s in options.sizes for cell in _VARIANTS]
    results = []
    for threads, sizes, cell in tqdm(runs, disable=None, unit="cell"):
        given = sizes, cell, threads, options.rounds, options.seconds
        results += measure.with_threads(threads, times, *given)
    long = []
    for threads, sizes in itertools.product(options.threads, options.long):
        took = measure.with_threads(threads, long_times, sizes, threads)
        for every, seconds in zip(_EVERY, took, strict=True):
            added = measure.with_threads(threads, long_memory, sizes, every)
            long.append(Long(sizes, threads, every, seconds, added))
    return results, long


def text(results: list[Result], long: list[Long], markdown: bool) -> str:
    """The machine, how to read the figures, and the tables."""
    paragraphs = [report.machine_text(markdown), (" " if markdown else "\n").join(_LEGEND)]
    header = ("cell", "variant", "forward ms", "of plain", "training ms", "of plain")
    for threads, sizes in dict.fromkeys((each.threads, each.sizes) for each in results):
        these = [each for each in results if (each.threads, each.sizes) == (threads, sizes)]
        title = f"{command.in_threads(threads).capitalize()}, B T I H = {sizes.replace('-', ' ')}."
        paragraphs += [title, report.table(header, [each.cells() for each in these], markdown)]
    header = ("checkpoint_every", "training s", "of plain", "MB added")
    for plain, with_checkpoints in zip(long[::2], long[1::2], strict=True):
        title = f"{command.in_threads(plain.threads).capitalize()}, LSTM, B T I H = "
        rows = [each.cells(plain) for each in (plain, with_checkpoints)]
        paragraphs += [
            title
            + plain.sizes.replace("-", " ")
            + "; memory beyond inputs, outputs and gradients.",
            report.table(header, rows, markdown),
        ]
    return "\n\n".join(paragraphs)


def main() -> None:
    parser = command.parser("bench.variants", __doc__)
    parser.add_argument("--sizes", nargs="+", default=list(_SIZES), metavar="B-T-I-H",
                        help=f"(default: {' '.join(_SIZES)})")  # fmt: skip
    parser.add_argument("--long", nargs="+", default=list(_LONG), metavar="B-T-I-H",
                        help=f"long sequences (default: {' '.join(_LONG)})")  # fmt: skip
    options = command.parse(parser, Arguments())
    assert isinstance(options, Arguments)
    try:
        for sizes in [*options.sizes, *options.long]:
            numbers(sizes)
    except ValueError as error:
        parser.error(f"--sizes, --long: {error}")
    results, long = measured(options)
    print(text(results, long, options.markdown))
    report.write_json(
        options.json,
        variants=[asdict(each) for each in results],
        long=[asdict(each) for each in long],
    )


if __name__ == "__main__":
    main()
