"""fastrnn: layers as they are called, and the training loop's own step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from typing import Any, Protocol

import numpy as np

import fastrnn as fr
from bench.problem import STEPS, ModelProblem, Problem, Results
from bench.roofline import Peak
from bench.shapes import AnyRow, Model, Row
from bench.systems import Pass, Passes, Stream
from fastrnn import _core
from fastrnn.charmodel import LOSS, CharModel
from fastrnn.data import Vocabulary
from fastrnn.layers.recurrent import Recurrent
from fastrnn.optimizers import Adam
from fastrnn.training import truncated_bptt

_LAYERS: dict[str, type[Recurrent]] = {"rnn": fr.RNN, "gru": fr.GRU, "lstm": fr.LSTM}


def environment(threads: int, dtype: str) -> dict[str, str]:
    return {}


class System:
    """Passes as in `bench.systems`, and "baseline forward" and "baseline training" of some rows.

    That is, of a ragged row, the same batch at full length; of a bidirectional one, two layers of a
    single direction one after the other. "peak" is `roofline.Peak`, where there is a C compiler: a
    CPU's clock changes during a run.
    """

    def __init__(self, threads: int) -> None:
        fr.set_num_threads(threads)
        self._threads = threads
        self.version = fr.__version__

    def passes(self, row: AnyRow) -> Passes:
        if isinstance(row, Model):
            passes = {"update": _update(row)}
        elif row.kinds == ("step",):
            passes = {"step": _step(row)}
        else:
            passes = layer_passes(row)
            passes |= {f"baseline {kind}": these for kind, these in _baseline(row).items()}
        with suppress(RuntimeError):
            peak = Peak(_core.isas()[-1], self._threads, row.dtype)
            passes["peak"] = Pass(run=peak.run, results=dict)
        return {kind: {"": these} for kind, these in passes.items()}


def layer_passes(row: Row, with_dstate: bool = False) -> dict[str, Pass]:
    """The row's forward and training pass; the reference gives the initial state's gradient too."""
    layer, problem = layer_of(row)
    lengths = problem.lengths if row.ragged else None
    # Inference keeps its packs, so training has a layer of its own.
    return {
        "forward": forward_pass(layer, problem, lengths),
        "training": training_pass(layer_of(row)[0], problem, lengths, with_dstate),
    }


def _baseline(row: Row) -> dict[str, Pass]:
    if row.ragged:
        return layer_passes(replace(row, ragged=False))
    if row.directions == 2:
        one, other = (layer_passes(replace(row, directions=1)) for _ in range(2))
        return {kind: _both(one[kind], other[kind]) for kind in one}
    return {}


def layer_of(row: Row) -> tuple[Recurrent, Problem]:
    """The row's layer, with the weights of its data."""
    problem = Problem(row)
    layer = _LAYERS[row.cell](
        row.input_size, row.hidden_size, bidirectional=row.directions == 2, dtype=row.dtype
    )
    layer.load_state_dict(problem.weights)
    return layer, problem


class _Data(Protocol):
    """x, and the output's gradient."""

    @property
    def x(self) -> Any: ...
    @property
    def dy(self) -> Any: ...


def forward_pass(layer: Recurrent, problem: _Data, lengths: Any = None) -> Pass:
    """Inference."""

    def results() -> Results:
        y, state = layer(problem.x, lengths=lengths)
        return {"output": y, **_state(state)}

    return Pass(lambda: layer(problem.x, lengths=lengths), results=results)


def training_pass(
    layer: Recurrent,
    problem: _Data,
    lengths: Any = None,
    with_dstate: bool = False,
    **options: Any,
) -> Pass:
    """Outputs, dx and every weight's gradient, and if so dstate.

    Weights change between the steps of a training, so each is given as an optimiser leaves it: no
    gradients, and weights that count as changed and are packed anew (their values stay). `options`
    are `vjp`'s.
    """

    def new_step() -> None:
        layer.zero_grad()
        for parameter in layer.parameters().values():
            parameter.version += 1

    def run() -> Any:
        (y, state), pullback = layer.vjp(problem.x, lengths=lengths, **options)
        return y, state, pullback(problem.dy, with_dstate=with_dstate)

    def results() -> Results:
        new_step()
        y, _, (dx, _) = run()
        gradients = {name: np.asarray(p.grad) for name, p in layer.parameters().items()}
        return {"output": y, "dx": dx, **gradients}

    return Pass(run, new_step, results=results)


def _both(one: Pass, other: Pass) -> Pass:
    """One pass after the other."""

    def in_turn(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
        def both() -> None:
            first()
            second()

        return both

    return Pass(
        in_turn(one.run, other.run), in_turn(one.prepare, other.prepare), results=one.results
    )


def _step(row: Row) -> Pass:
    layer, problem = layer_of(row)
    x = problem.x[:, 0]
    y = np.empty((len(x), row.hidden_size), row.dtype)
    # The state is updated in place.
    stream = Stream(lambda s: layer.step(x, s, out=(y, s)), layer.initial_state(len(x)))

    def results() -> Results:
        y, state = stream.first_steps()
        return {"output": y, **_state(state)}

    return Pass(stream.run, results=results)


def _update(model: Model) -> Pass:
    problem = ModelProblem(model)
    char = CharModel.new(
        Vocabulary("".join(chr(32 + k) for k in range(model.characters))),
        cell=model.cell,
        layers=model.layers,
        hidden=model.hidden_size,
        embedding=model.embedding,
    )
    for name, parameter in char.model.parameters().items():
        parameter.assign(problem.weights[name.partition(".")[2]])
    optimizer = Adam(global_clipnorm=5.0)
    losses = truncated_bptt(char.model, LOSS, optimizer, cycle(problem.windows))

    def results() -> Results:
        return {"losses": np.array([next(losses) for _ in range(STEPS)])}

    return Pass(lambda: next(losses), results=results)


def _state(state: Any) -> dict[str, Any]:
    return dict(zip("hc", state if isinstance(state, tuple) else (state,), strict=False))
