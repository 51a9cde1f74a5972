"""PyTorch: nn.RNN, nn.GRU, nn.LSTM, their Cells for steps, autograd, Adam."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from bench.problem import STEPS, ModelProblem, Problem, Results
from bench.shapes import AnyRow, Model, Row
from bench.systems import Pass, Passes, Stream

LAYOUTS = {"time first": False, "batch first": True}


def environment(threads: int, dtype: str) -> dict[str, str]:
    return {}


class System:
    """Ragged rows are packed within the call; of layouts, Cells and Adams the fastest counts."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.version = torch.__version__

    def passes(self, row: AnyRow) -> Passes:
        if isinstance(row, Model):
            return {"update": updates(row)}
        problem = Problem(row)
        if row.kinds == ("step",):
            return {"step": {"layer": _step(row, problem), "Cell": _cell_step(row, problem)}}
        passes: dict[str, dict[str, Pass]] = {"forward": {}, "training": {}}
        for layout, batch_first in LAYOUTS.items():
            layer = Layer(row, problem, batch_first)
            passes["forward"][layout] = layer.forward()
            passes["training"][layout] = layer.training()
        return passes


class Layer:
    """A module with its data, in one layout."""

    def __init__(self, row: Row, problem: Problem, batch_first: bool) -> None:
        import torch

        self.batch_first = batch_first
        self.module = _module(row, batch_first=batch_first, bidirectional=row.directions == 2)
        _load(self.module, problem.weights)
        self.x, self.dy = self._laid_out(problem.x), self._laid_out(problem.dy)
        self.lengths = torch.from_numpy(problem.lengths) if row.ragged else None
        self.time = row.time

    def _laid_out(self, array: Any) -> Any:
        import torch

        return torch.from_numpy(
            array if self.batch_first else np.ascontiguousarray(array.swapaxes(0, 1))
        )

    def call(self, x: Any) -> Any:
        if self.lengths is None:
            return self.module(x)
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        packed = pack_padded_sequence(x, self.lengths, self.batch_first, enforce_sorted=False)
        y, state = self.module(packed)
        return pad_packed_sequence(y, self.batch_first, total_length=self.time)[0], state

    def _batch_first(self, array: Any) -> Any:
        array = array.detach().numpy()
        return array if self.batch_first else array.swapaxes(0, 1)

    def forward(self) -> Pass:
        import torch

        def results() -> Results:
            y, state = self.call(self.x)
            return {"output": self._batch_first(y), **_state(state)}

        return Pass(lambda: self.call(self.x), within=torch.inference_mode, results=results)

    def training(self) -> Pass:
        import torch

        x = self.x.clone().requires_grad_()
        parameters = dict(self.module.named_parameters())
        inputs = [x, *parameters.values()]

        def run() -> Any:
            y, state = self.call(x)
            return y, state, torch.autograd.grad(y, inputs, self.dy)

        def results() -> Results:
            y, _, (dx, *gradients) = run()
            named = zip(parameters, (gradient.numpy() for gradient in gradients), strict=True)
            arrays = {"output": y, "dx": dx}
            return {**{k: self._batch_first(a) for k, a in arrays.items()}, **dict(named)}

        return Pass(run, results=results)


def _module(row: Row, **options: Any) -> Any:
    import torch

    kind = getattr(torch.nn, row.cell.upper())
    return kind(row.input_size, row.hidden_size, dtype=getattr(torch, row.dtype), **options)


def _load(module: Any, weights: Any) -> None:
    import torch

    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})


def _step(row: Row, problem: Problem) -> Pass:
    import torch

    module = _module(row)
    _load(module, problem.weights)
    x = torch.from_numpy(problem.x[:, 0][None])
    zeros = torch.zeros(1, row.batch, row.hidden_size)
    zero: Any = (zeros, zeros) if row.cell == "lstm" else zeros
    stream = Stream(lambda state: module(x, state), zero)

    def results() -> Results:
        y, state = stream.first_steps()
        return {"output": y[0].numpy(), **_state(state)}

    return Pass(stream.run, within=torch.inference_mode, results=results)


def _cell_step(row: Row, problem: Problem) -> Pass:
    import torch

    cell = getattr(torch.nn, f"{row.cell.upper()}Cell")(row.input_size, row.hidden_size)
    _load(cell, {name.removesuffix("_l0"): weight for name, weight in problem.weights.items()})
    x = torch.from_numpy(problem.x[:, 0])
    zeros = torch.zeros(row.batch, row.hidden_size)
    lstm = row.cell == "lstm"

    def step(state: Any) -> tuple[Any, Any]:
        state = cell(x, state)
        return (state[0] if lstm else state), state

    stream = Stream(step, (zeros, zeros) if lstm else zeros)

    def results() -> Results:
        y, state = stream.first_steps()
        return {"output": y.numpy(), **{k: v[None] for k, v in _state(state).items()}}

    return Pass(stream.run, within=torch.inference_mode, results=results)


def updates(model: Model, accelerated: bool = False) -> dict[str, Pass]:
    """Whole training steps, by layout and Adam; accelerated: with fastrnn.torch's layers."""
    return {
        f"{layout}, {adam}": _update(model, batch_first, adam, accelerated)
        for layout, batch_first in LAYOUTS.items()
        for adam in ("fused", "foreach")
    }


def _update(model: Model, batch_first: bool, adam: str, accelerated: bool) -> Pass:
    import torch

    problem = ModelProblem(model)
    recurrent = getattr(torch.nn, model.cell.upper())(
        model.embedding, model.hidden_size, model.layers, batch_first=batch_first
    )
    modules = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(model.characters, model.embedding),
            model.cell: recurrent,
            "dense": torch.nn.Linear(model.hidden_size, model.characters),
        }
    )
    _load(modules, problem.weights)
    if accelerated:
        from fastrnn.torch import accelerate

        accelerate(modules)
    embedding, recurrent, dense = modules["embedding"], modules[model.cell], modules["dense"]
    parameters = list(modules.parameters())
    options: Any = {adam: True}
    optimizer = torch.optim.Adam(parameters, eps=1e-7, **options)
    windows = cycle(
        [
            [torch.from_numpy(ids if batch_first else ids.T.copy()) for ids in window]
            for window in problem.windows
        ]
    )

    def step(state: Any) -> tuple[float, Any]:
        x, y = next(windows)
        optimizer.zero_grad()
        output, state = recurrent(embedding(x), state)
        logits = dense(output)
        loss: Any = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        detach = torch.Tensor.detach
        state = tuple(map(detach, state)) if isinstance(state, tuple) else detach(state)
        return loss.item(), state

    stream = Stream(step, None)

    def results() -> Results:
        return {"losses": np.array([stream.run() for _ in range(STEPS)])}

    return Pass(stream.run, results=results)


def _state(state: Any) -> dict[str, Any]:
    parts = state if isinstance(state, tuple) else (state,)
    return {name: part.detach().numpy() for name, part in zip("hc", parts, strict=False)}
