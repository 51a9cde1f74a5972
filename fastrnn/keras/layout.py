"""What Keras has for a cell, an activation, the blocks of gates."""

from __future__ import annotations

import numpy as np

from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.parameter import Array

CELLS: dict[str, type[RNN | GRU | LSTM]] = {"SimpleRNN": RNN, "GRU": GRU, "LSTM": LSTM}
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
CELL_ACTIVATIONS = {
    "linear": "identity", "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu",
    "hard_sigmoid": "hard_sigmoid",
}  # fmt: skip
DENSE_ACTIVATIONS = {
    "linear": None, "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "softmax": "softmax",
}  # fmt: skip
BLOCKS = {"SimpleRNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 1, 2, 3]}


def reordered(array: Array, kind: str) -> Array:
    """The gates' blocks along the last axis in the other's order; twice is the way back."""
    blocks = np.split(array, len(BLOCKS[kind]), axis=-1)
    return np.concatenate([blocks[k] for k in BLOCKS[kind]], axis=-1)
