"""How many times faster a training step is than with the LSTM in plain NumPy, on one thread each.

NumPy's BLAS takes its number of threads from the environment when it is loaded, so this runs as a
process of its own: ``python -m fastrnn.comparison CHARACTERS BATCH TIME`` prints a `Comparison`.
Threads of a BLAS would wait for each other in every time step, which on a machine that does other
things besides can be a hundred times slower: nothing to be compared with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import reference
from fastrnn.charmodel import LOSS, CharModel
from fastrnn.data import Examples, Stream, Vocabulary
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import LSTM
from fastrnn.models import Sequential
from fastrnn.optimizers import Adam
from fastrnn.parameter import Array
from fastrnn.training import train_step

# What fastrnn and the BLAS libraries NumPy may have been built with read when they are loaded.
THREADS = (
    "FASTRNN_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
SECONDS = 1.0  # for each of the two


@dataclass(frozen=True)
class Comparison:
    """Seconds that a training step takes with our kernels and with NumPy.

    `difference` is the greatest between their outputs or gradients, relative to the largest value.
    """

    fused: float
    numpy: float
    difference: float

    def __str__(self) -> str:
        return (
            f"on one thread a training step takes {1e3 * self.fused:.1f} ms, "
            f"{self.numpy / self.fused:.1f} times faster than in plain NumPy "
            f"({1e3 * self.numpy:.0f} ms, gradients equal to {self.difference:.0e})"
        )


def measure(characters: int, batch: int, time: int) -> Comparison:
    """Compare the steps of the demo's model, 2 x LSTM 128 over that many characters.

    Raises RuntimeError if outputs or gradients are not the same but for rounding.
    """
    arguments = [str(number) for number in (characters, batch, time)]
    # -P and our own path: the current folder must not lend the child its modules.
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "fastrnn.comparison", *arguments],
        env={**os.environ, **path, **dict.fromkeys(THREADS, "1")},
        capture_output=True,
        text=True,
    )
    if child.returncode != 0:
        raise RuntimeError(f"the comparison with NumPy failed: {child.stderr.strip()}")
    return Comparison(**json.loads(child.stdout))


def compare(model: Sequential, batch: Examples) -> Comparison:
    """Time a training step of `model` against the same step with its LSTMs in plain NumPy.

    Embedding, Dense, loss and optimizer are the same code around both, and both have the same
    parameters; their outputs and gradients are compared first. Raises RuntimeError as `measure`.
    """
    twin = Sequential(
        [ReferenceLayer(layer) if isinstance(layer, LSTM) else layer for layer in model.layers]
    )
    ours, theirs = _outcome(model, batch), _outcome(twin, batch)
    difference = max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)
    )
    if not difference < 1e-3:
        raise RuntimeError(f"kernels and reference disagree: relative difference {difference:.1e}")
    return Comparison(_seconds(model, batch), _seconds(twin, batch), difference)


class ReferenceLayer(Layer):
    """An LSTM layer with the same parameters, computed by the NumPy reference."""

    recurrent = True

    def __init__(self, layer: LSTM) -> None:
        super().__init__()
        self.layer = layer
        self.input_size = layer.input_size
        self._parameters = layer.parameters()

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.layer.output_shape(input_shape)

    def vjp(self, x: Array, state: Any = None, lengths: ArrayLike | None = None) -> Any:
        h0, c0 = (None, None) if state is None else state
        weights: Mapping[str, ArrayLike] = {n: p.data for n, p in self._parameters.items()}
        layers = self.layer.num_layers
        y, h, c, tape = reference.layer_forward("lstm", x, weights, layers, False, h0, c0, lengths)

        def pullback(dy: Array) -> tuple[Array, None]:
            dx, _, _, gradients = reference.layer_backward(tape, dy)
            for name, gradient in gradients.items():
                self._parameters[name].add_grad(gradient)
            return dx, None

        return (y, (h, c)), pullback


def _outcome(model: Sequential, batch: Examples) -> list[NDArray[Any]]:
    """Outputs and all gradients of a batch."""
    model.zero_grad()
    (y_pred, _), pullback = model.vjp(batch.x)
    pullback(LOSS.vjp(batch.y, y_pred)[1])
    gradients = (parameter.grad for parameter in model.parameters().values())
    return [y_pred, *(gradient for gradient in gradients if gradient is not None)]


def _seconds(model: Sequential, batch: Examples) -> float:
    """The least time of a training step: what else runs on the machine can only add to it."""
    optimizer = Adam(global_clipnorm=5.0)
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        start = time.perf_counter()
        train_step(model, LOSS, optimizer, batch)
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: list[str]) -> None:
    """The process that `measure` starts."""
    characters, batch, time = map(int, arguments)
    vocabulary = Vocabulary("".join(map(chr, range(characters))))
    char = CharModel.new(vocabulary, layers=2, hidden=128, embedding=64, seed=0)
    ids = np.random.default_rng(0).integers(0, characters, batch * time + 1)
    comparison = compare(char.model, Examples(*next(iter(Stream(ids, batch, time)))))
    print(json.dumps(asdict(comparison)))


if __name__ == "__main__":
    main(sys.argv[1:])
