"""One row as a problem: fastrnn's and the reference's passes over the same data, compared first."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn as fr
from bench.measure import Contender
from bench.shapes import Row
from fastrnn import reference
from fastrnn.layers.recurrent import Recurrent
from fastrnn.parameter import Array

_LAYERS: dict[str, type[Recurrent]] = {"rnn": fr.RNN, "gru": fr.GRU, "lstm": fr.LSTM}

# Of the largest value; float32 sums of a few thousand terms in two orders stay well below.
_TOLERANCE = 1e-4


class Mismatch(Exception):
    """fastrnn and the reference do not agree, so a comparison of times means nothing."""


class Problem:
    """The passes over one row's random data: initial states zero, gradients of the output only.

    A training step is outputs, dx, dstate and every weight's gradient. Weights change between the
    steps of a training, so `new_step` has them packed again in each; inference keeps its packs,
    which is why it has a layer of its own.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        batch, time, inputs, hidden = row.sizes
        self.inference = _LAYERS[row.cell](inputs, hidden, seed=0)
        self.trained = _LAYERS[row.cell](inputs, hidden, seed=0)
        self.weights = self.inference.state_dict()
        self.cell = "rnn_tanh" if row.cell == "rnn" else row.cell
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((batch, time, inputs), np.float32)
        self.dy = rng.standard_normal((batch, time, hidden), np.float32)

    def contenders(self) -> dict[str, Contender]:
        """fastrnn's ``forward`` and ``training``, and the reference's."""
        return {
            "forward": Contender(self.forward),
            "training": Contender(self.training, self.new_step),
            "reference forward": Contender(self.reference_forward),
            "reference training": Contender(self.reference_training),
        }

    def forward(self) -> dict[str, Array]:
        y, state = self.inference(self.x)
        return {"output": y, "state": state}

    def new_step(self) -> None:
        """As an optimiser leaves it: no gradients, other weights (the values stay)."""
        self.trained.zero_grad()
        for parameter in self.trained.parameters().values():
            parameter.version += 1

    def training(self) -> dict[str, Array]:
        (y, state), pullback = self.trained.vjp(self.x)
        dx, dstate = pullback(self.dy)
        return {"output": y, "state": state, "dx": dx, "dstate": dstate}

    def reference_forward(self) -> None:
        reference.layer_forward(self.cell, self.x, self.weights)

    def reference_training(self) -> dict[str, Array]:
        y, h_n, c_n, tape = reference.layer_forward(self.cell, self.x, self.weights)
        dx, dh0, dc0, gradients = reference.layer_backward(tape, self.dy)
        state, dstate = _state(h_n, c_n), _state(dh0, dc0)
        return {"output": y, "state": state, "dx": dx, "dstate": dstate, **gradients}

    def check(self) -> None:
        """Compare every result of fastrnn with the reference's; raises Mismatch."""
        wanted = self.reference_training()
        self.new_step()
        trained = self.training()
        for name, parameter in self.trained.parameters().items():
            assert parameter.grad is not None
            trained[name] = parameter.grad
        for kind, results in (("forward", self.forward()), ("training", trained)):
            for name, got in results.items():
                difference = np.abs(np.asarray(got) - np.asarray(wanted[name])).max()
                scale = np.abs(wanted[name]).max()
                if not difference <= _TOLERANCE * scale:  # a NaN is a mismatch too
                    raise Mismatch(
                        f"{self.row.name}, {kind}: {name} is off by up to {difference:.2g}, "
                        f"where the reference's largest value is {scale:.2g}"
                    )


def _state(h: Array, c: Array | None) -> Any:
    return h if c is None else (h, c)
