"""What happens inside a recurrent layer on a probe: its gates and its states.

Gates are those of `fastrnn.reference`, the readable forward, which keeps them; it takes every
variant of the layers. It is slow, so the probe is one input or a few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import reference
from fastrnn.layers.recurrent import Recurrent
from fastrnn.parameter import Array
from fastrnn.reference.stack import KINDS

Floats = NDArray[np.float64]

# By the reference's name of the cell, the blocks of its weights; the candidate is the one that is
# not a gate but what gates let through.
BLOCKS = {
    "rnn_tanh": ("h",),
    "rnn_relu": ("h",),
    "gru": ("r", "z", "n"),
    "gru_before": ("r", "z", "n"),
    "gru_minimal": ("z", "n"),
    "lstm": ("i", "f", "g", "o"),
    "lstm_input": ("i", "g", "o"),
    "lstm_forget": ("f", "g", "o"),
}
CANDIDATES = {"h", "n", "g"}
_RANGES = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
_STILL = 1e-3  # of the largest |h|: a unit that moves less than this does not move


@dataclass(frozen=True)
class Inside:
    """One layer in one direction on a probe; N counts the valid steps of all its rows."""

    gates: dict[str, Array]  # by block, (N, H), after their activations
    activations: dict[str, str]  # by block
    states: list[Array]  # h of each row, (its length, P), in the order of time
    reverse: bool


def blocks(layer: Recurrent) -> tuple[str, ...]:
    """The names of the blocks of a layer's weights; ValueError for a cell that is not known."""
    cell = layer._cell()  # as the reference calls it
    if cell not in BLOCKS:
        raise ValueError(f"layer: expected a cell of {', '.join(BLOCKS)}, got {cell!r}")
    return BLOCKS[cell]


def strand_names(layer: Recurrent) -> list[str]:
    """What distinguishes a layer's directions and its layers: l0, l0_reverse, l1, ..."""
    return [
        f"l{k}" + ("_reverse" if direction else "")
        for k in range(layer.num_layers)
        for direction in range(layer.directions)
    ]


def look_inside(layer: Recurrent, x: ArrayLike, lengths: ArrayLike | None = None) -> list[Inside]:
    """Gates and states of a `layer` for `x` (batch, time, input_size) as the layer takes it, index
    layer * D + direction.

    Raises ValueError for a cell that the reference lacks, and what `reference.forward` raises.
    """
    names = blocks(layer)
    inputs = np.asarray(x, dtype=layer.dtype)
    if not layer.batch_first:
        inputs = inputs.swapaxes(0, 1)
    batch, time = inputs.shape[:2]
    ends = np.full(batch, time) if lengths is None else np.asarray(lengths)
    through = dict(zip(names, activations(layer), strict=True))
    weights, found = layer.state_dict(), []
    for k in range(layer.num_layers):
        outputs = []
        for direction in range(layer.directions):
            own = {
                kind: weights[name]
                for kind, name in zip(KINDS, reference.weight_names(k, direction), strict=True)
                if name in weights
            }
            y, _, _, tape = reference.forward(
                layer._cell(), inputs, None, None, lengths=ends, reverse=direction == 1,
                variant=_variant(layer), **own,
            )  # fmt: skip
            outputs.append(y)
            gates = dict(zip(names, np.split(tape.gates, len(names), axis=1), strict=True))
            states = [row[:end] for row, end in zip(y, ends, strict=True)]
            found.append(Inside(gates, through, states, direction == 1))
        inputs = np.concatenate(outputs, axis=2)
    return found


def activations(layer: Recurrent) -> list[str]:
    """What each of a layer's blocks passes through, by name."""
    gate = getattr(layer, "gate_activation", "sigmoid")
    state = getattr(layer, "state_activation", getattr(layer, "nonlinearity", "tanh"))
    return [state if name in CANDIDATES else gate for name in blocks(layer)]


def _variant(layer: Recurrent) -> reference.Variant:
    return reference.Variant(
        getattr(layer, "gate_activation", "sigmoid"),
        getattr(layer, "state_activation", getattr(layer, "nonlinearity", None)),
        layer.clip,
        layer.zoneout_h,
        getattr(layer, "zoneout_c", 0.0),
        training=False,
    )


def gate_saturation(values: ArrayLike, activation: str = "sigmoid") -> tuple[float, float]:
    """The shares of `values` in the lowest and in the highest tenth of the activation's range.

    For "sigmoid" and "hard_sigmoid" that is below 0.1 and above 0.9, for "tanh" below -0.8 and
    above 0.8: there its slope is small and little gradient passes. "relu" has the share of zeros,
    where nothing passes, and nan. Both are nan for "identity", and where a value is or there is
    none.
    """
    array = np.asarray(values)
    if activation == "identity" or not array.size or np.isnan(array).any():
        return np.nan, np.nan
    if activation == "relu":
        return float(np.mean(array <= 0)), np.nan
    if activation not in _RANGES:
        known = ", ".join([*_RANGES, "relu", "identity"])
        raise ValueError(f"activation: expected one of {known}, got {activation!r}")
    low, high = _RANGES[activation]
    tenth = (high - low) / 10
    return float(np.mean(array < low + tenth)), float(np.mean(array > high - tenth))


def dead_units(states: ArrayLike) -> NDArray[np.bool_]:
    """Which units of h never change: (units,) of `states` (steps, units), of all rows of a probe.

    A unit is dead if between its lowest and its highest value lies less than a thousandth of the
    largest |h| of the layer: a relu that is always zero, a tanh that is stuck. None is where there
    are fewer than two steps to tell it from.
    """
    array = np.asarray(states)
    if array.ndim != 2:
        raise ValueError(f"states: expected (steps, units), got {array.shape}")
    if len(array) < 2:
        return np.zeros(array.shape[1], np.bool_)
    dead: NDArray[np.bool_] = np.ptp(array, axis=0) <= _STILL * np.abs(array).max(initial=0)
    return dead


def movement(states: ArrayLike, reverse: bool = False) -> Floats:
    """|h_t - h_{t-1}| (time,) of one row's `states` (time, units), from a state of zeros; of a
    reverse direction |h_t - h_{t+1}|."""
    array = np.asarray(states, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"states: expected (time, units), got {array.shape}")
    if reverse:
        return movement(array[::-1])[::-1]
    moves: Floats = np.sqrt(np.square(np.diff(array, axis=0, prepend=0)).sum(axis=1))
    return moves
