"""fastrnn.torch's modules beside fastrnn's own layers and `torch.nn`'s modules, in training.

``python -m bench.torch_module`` makes one training call of each in turns: the layer's `vjp` and
pullback; the module, PyTorch's and ours, with `torch.autograd.grad` for dx and every weight's
gradient. PyTorch's has both layouts, the faster counts. It prints what a call of our module takes
longer than the layer's, what of that is PyTorch's part, and how many times longer PyTorch's module
takes than ours. PyTorch's part is what an `autograd.Function` without any work takes between the
layer's calls.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from bench import command, measure, report
from bench.measure import Contender
from bench.problem import Problem, check
from bench.shapes import Row
from bench.systems import fastrnn as layers
from bench.systems import torch as modules
from fastrnn.layers.recurrent import Recurrent

_HEADER = (
    "cell B T I H",
    "layer ms",
    "module ms",
    "module adds us",
    "of it PyTorch us",
    "torch.nn ms",
    "torch.nn/module",
    "noise",
)
_KIND = "training"

_LEGEND = (
    "A time is that of the fastest call; the contenders take turns, several rounds.",
    "All give outputs, dx and every weight's gradient, with the weights packed anew.",
    "Noise is the median round over the fastest, of the most disturbed contender.",
)


@dataclass(frozen=True)
class Result:
    """One row on some number of threads, in milliseconds."""

    row: Row
    threads: int
    layer: float
    module: float
    nothing: float
    peer: float
    noise: float

    def adds(self) -> float:
        """Microseconds that a call of the module takes longer than the layer's."""
        return 1e3 * (self.module - self.layer)

    def of_pytorch(self) -> float:
        """Microseconds of them that PyTorch takes for a Function without work."""
        return 1e3 * (self.nothing - self.layer)

    def ratio(self) -> float:
        return self.peer / self.module

    def cells(self) -> list[str]:
        """The row of the table."""
        adds = f"{self.adds():.0f}", f"{self.of_pytorch():.0f}"
        times = f"{self.layer:.3f}", f"{self.module:.3f}", *adds, f"{self.peer:.3f}"
        return [self.row.title, *times, f"{self.ratio():.2f}", f"{self.noise:.0%}"]


def _with_nothing(layer: Recurrent, problem: Problem, module: Any) -> Contender:
    """The layer's pass, and between its calls PyTorch's for a Function that does nothing."""
    import torch

    x, y, dy = (torch.from_numpy(each) for each in (problem.x, problem.dy.copy(), problem.dy))
    inputs = [x.requires_grad_(), *module.parameters()]
    gradients = tuple(torch.zeros_like(each) for each in inputs)

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            return y.view_as(y)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            assert ctx.saved_tensors
            return gradients

    own = layers.training_pass(layer, problem)

    def run() -> Any:
        output, pullback = layer.vjp(problem.x)
        y = Nothing.apply(*inputs)
        return output, pullback(problem.dy, with_dstate=False), torch.autograd.grad(y, inputs, dy)

    return Contender(run, own.prepare)


def measured(row: Row, threads: int, rounds: int, seconds: float) -> Result:
    """One row, in this process; raises Mismatch."""
    import torch

    from fastrnn.torch import accelerate

    torch.set_num_threads(threads)
    layer, problem = layers.layer_of(row)
    module = modules.Layer(row, problem, batch_first=True)
    accelerate(module.module)
    contenders = {"layer": layers.training_pass(layer, problem), "module": module.training()}
    for layout, batch_first in modules.LAYOUTS.items():
        contenders[layout] = modules.Layer(row, problem, batch_first).training()
    wanted = contenders["layer"].results()
    for name, contender in contenders.items():
        check(name, row, _KIND, contender.results(), wanted)
    nothing = {"nothing": _with_nothing(layer, problem, module.module)}
    times = measure.interleaved(contenders | nothing, rounds, seconds, threads)
    noise = max(statistics.median(fastest) / min(fastest) for fastest in times.values()) - 1
    best = {name: 1e3 * min(fastest) for name, fastest in times.items()}
    peer = min(best[layout] for layout in modules.LAYOUTS)
    return Result(row, threads, best["layer"], best["module"], best["nothing"], peer, noise)


def text(results: dict[int, list[Result]], markdown: bool) -> str:
    """The machine, how to read the figures, and a table for each number of threads."""
    paragraphs = [report.machine_text(markdown), (" " if markdown else "\n").join(_LEGEND)]
    for threads, these in results.items():
        least = min(these, key=Result.ratio)
        small = [each for each in these if each.row.batch * each.row.time == 1]
        paragraphs += [
            f"{command.in_threads(threads).capitalize()}.",
            report.table(_HEADER, [result.cells() for result in these], markdown),
            f"The least torch.nn/module is {least.ratio():.2f}, of {least.row.name}.",
        ]
        if small:  # elsewhere the difference is of large numbers
            most = max(small, key=Result.adds)
            adds = f"{most.adds():.0f} us at most, {most.of_pytorch():.0f} of them PyTorch's"
            paragraphs[-1] += f" With B = T = 1 a call adds {adds}."
    return "\n\n".join(paragraphs)


def main() -> None:
    options = command.parse_rows("bench.torch_module", __doc__, [])
    results = command.run(measured, options.rows, options)
    print(text(results, options.markdown))
    rows = [asdict(result) for these in results.values() for result in these]
    report.write_json(options.json, rows=rows)


if __name__ == "__main__":
    main()
