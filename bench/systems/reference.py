"""fastrnn's NumPy reference, for the forward and training passes of layers."""

from __future__ import annotations

from typing import Any

from bench.problem import Problem, Results
from bench.shapes import Row
from bench.systems import Pass
from fastrnn import reference


def passes(row: Row) -> dict[str, Pass]:
    """The row's passes by kind."""
    problem = Problem(row)
    cell = "rnn_tanh" if row.cell == "rnn" else row.cell

    def forward() -> Any:
        return reference.layer_forward(cell, problem.x, problem.weights)

    def training() -> Any:
        y, _, _, tape = forward()
        return y, reference.layer_backward(tape, problem.dy)

    def forward_results() -> Results:
        y, h, c, _ = forward()
        return {"output": y, **_state(h, c)}

    def training_results() -> Results:
        y, (dx, _, _, gradients) = training()
        return {"output": y, "dx": dx, **gradients}

    return {
        "forward": Pass(forward, results=forward_results),
        "training": Pass(training, results=training_results),
    }


def _state(h: Any, c: Any) -> dict[str, Any]:
    return {"h": h} if c is None else {"h": h, "c": c}
