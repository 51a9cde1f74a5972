"""What is to cost little or nothing: numbers below the smallest normal one, and calls made at once
by several threads of Python.

``python -m bench.conditions --help``. Denormals are of all there is (inputs, initial states,
gradients), or what a gradient becomes on its way back through time. Callers share a layer in
inference; in training each has a copy of its own. All of them get the bits that one alone gets.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench import command, measure, report
from bench.problem import Mismatch
from bench.shapes import LAYER_KINDS, Row
from bench.systems.fastrnn import layer_of
from fastrnn import _core
from fastrnn.layers.recurrent import Recurrent

_ROWS = ("rnn-32-100-128-128", "gru-32-100-128-128", "lstm-32-100-128-128", "lstm-1-100-64-128")
_CALLERS = (1, 2, 4, 8)
_DENORMAL = 1e-39  # times a normal number; the smallest normal float32 is 1.2e-38
_FADING = 1e-30  # of the last step's gradient: some steps back it is denormal, then zero

_LEGEND = (
    "A time is that of the fastest call; all take turns, several rounds.",
    "Denormal is the time over that with normal numbers, of denormal inputs, states and gradients;",
    "fading likewise, of a gradient of the last step that becomes denormal on its way back.",
    "Callers are threads of Python: how many calls a second they make in all, over what one makes.",
)


@dataclass(frozen=True)
class Numbers:
    """What a call gets: x (B, T, I), h_0 and perhaps c_0 (1, B, H) each, dy (B, T, H)."""

    x: Any
    state: tuple[Any, ...]
    dy: Any

    def call(self, layer: Recurrent, kind: str) -> tuple[Any, ...]:
        """A forward call's outputs, or a training call's outputs and dx."""
        state = self.state if layer.has_c else self.state[0]
        if kind == "forward":
            return (layer(self.x, state)[0],)
        layer.zero_grad()
        (y, _), pullback = layer.vjp(self.x, state)
        return y, pullback(self.dy)[0]


@dataclass(frozen=True)
class Result:
    """A row's milliseconds with normal numbers, the ratios to it, and callers' calls a second."""

    row: str
    threads: int
    kind: str
    milliseconds: float
    denormal: float
    fading: float | None
    calls: dict[int, float]

    def cells(self) -> list[str]:
        """The row of the table."""
        fading = "-" if self.fading is None else f"{self.fading:.2f}"
        scaling = [f"{self.calls[n] / self.calls[1]:.2f}" for n in _CALLERS[1:]]
        cells = [self.row.replace("-", " "), self.kind, f"{self.milliseconds:.3f}"]
        return [*cells, f"{self.denormal:.2f}", fading, f"{self.calls[1]:,.0f}", *scaling]


def numbers(row: Row) -> dict[str, Numbers]:
    """The same normal, denormal, and with a last step's gradient that fades on its way back."""
    batch, steps, inputs, hidden = row.sizes
    rng = np.random.default_rng(0)
    shapes = (batch, steps, inputs), (1, batch, hidden), (1, batch, hidden), (batch, steps, hidden)
    x, h, c, dy = (rng.standard_normal(shape, np.float32) for shape in shapes)
    small = [(array * np.float64(_DENORMAL)).astype(np.float32) for array in (x, h, c, dy)]
    last = np.zeros_like(dy)
    last[:, -1] = dy[:, -1] * np.float32(_FADING)
    return {
        "normal": Numbers(x, (h, c), dy),
        "denormal": Numbers(small[0], (small[1], small[2]), small[3]),
        "fading": Numbers(x, (h, c), last),
    }


def calls_a_second(run: Callable[[int], object], callers: int, seconds: float) -> float:
    """How often so many threads of Python do ``run(caller)`` in all."""
    together = threading.Barrier(callers)

    def calls(caller: int) -> tuple[int, float, float]:
        together.wait()
        made, start = 0, time.perf_counter()
        while (end := time.perf_counter()) < start + seconds or not made:
            run(caller)
            made += 1
        return made, start, end

    with ThreadPoolExecutor(callers) as pool:
        made, starts, ends = zip(*pool.map(calls, range(callers)), strict=True)
    return sum(made) / (max(ends) - min(starts))


def check(layers: list[Recurrent], given: Numbers, kind: str, row: Row) -> None:
    """That callers at once get the bits of one alone; raises Mismatch."""
    wanted = [array.tobytes() for array in given.call(layers[0], kind)]
    with ThreadPoolExecutor(len(layers)) as pool:
        for got in pool.map(lambda layer: given.call(layer, kind), layers):
            if [array.tobytes() for array in got] != wanted:
                raise Mismatch(f"{row.name}, {kind}: callers at once, or one alone")


def measured(row: Row, threads: int, rounds: int, seconds: float) -> list[Result]:
    """Both kinds of call, in this process."""
    return [_measured(row, kind, threads, rounds, seconds) for kind in LAYER_KINDS]


def _measured(row: Row, kind: str, threads: int, rounds: int, seconds: float) -> Result:
    layer, given = layer_of(row)[0], numbers(row)
    normal = given["normal"]
    if kind == "forward":
        del given["fading"]
    contenders = {
        name: measure.Contender(lambda these=these: these.call(layer, kind))
        for name, these in given.items()
    }
    times = measure.interleaved(contenders, rounds, seconds, threads)
    best = {name: min(each) for name, each in times.items()}
    ratio = {name: time / best["normal"] for name, time in best.items()}

    layers = [layer if kind == "forward" else copy.deepcopy(layer) for _ in range(_CALLERS[-1])]
    check(layers, normal, kind, row)
    calls = dict.fromkeys(_CALLERS, 0.0)
    for _, callers in itertools.product(range(rounds), _CALLERS):
        rate = calls_a_second(lambda n: normal.call(layers[n], kind), callers, seconds)
        calls[callers] = max(calls[callers], rate)
    return Result(
        row.name, threads, kind, 1e3 * best["normal"],
        ratio["denormal"], ratio.get("fading"), calls,
    )  # fmt: skip


def main() -> None:
    options = command.parse_rows("bench.conditions", __doc__, _ROWS)
    results = command.run(measured, options.rows, options)
    legend = (" " if options.markdown else "\n").join(_LEGEND)
    print(report.machine_text(options.markdown), legend, sep="\n\n")
    at_once = [f"{n} callers" for n in _CALLERS[1:]]
    header = ("cell B T I H", "kind", "ms", "denormal", "fading", "calls/s")
    for threads, found in results.items():
        cells = [result.cells() for both in found for result in both]
        cpus = _core.default_num_threads()
        print(f"\n{command.in_threads(threads).capitalize()} a call, {cpus} CPUs.\n")
        print(report.table((*header, *at_once), cells, options.markdown))
    rows = [asdict(each) for found in results.values() for both in found for each in both]
    report.write_json(options.json, rows=rows)


if __name__ == "__main__":
    main()
