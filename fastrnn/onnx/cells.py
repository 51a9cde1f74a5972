"""RNN, GRU and LSTM: ONNX's nodes and arrays as our layers, and the other way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.layers.cells import CELLS, GRU, LSTM, RNN
from fastrnn.onnx.graph import attributes
from fastrnn.parameter import Array

LAYERS = {kind.__name__: kind for kind in CELLS.values()}

# Blocks of rows by gate. A coupled LSTM has no f, which nothing reads in ONNX; g is ONNX's c, n its
# h. Peepholes are those of the LSTM's gates but g.
_OURS = {"RNN": "n", "GRU": "rzn", "LSTM": "ifgo"}
_THEIRS = {"RNN": "n", "GRU": "zrn", "LSTM": "iofg"}

# Our functions: ONNX's name, alpha and beta (an attribute is of float32), or None.
_FUNCTIONS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "sigmoid": ("Sigmoid", None),
    "tanh": ("Tanh", None),
    "relu": ("Relu", None),
    "hard_sigmoid": ("HardSigmoid", (float(np.float32(1 / 6)), 0.5)),
    "identity": ("Affine", (1.0, 0.0)),
}
_DEFAULTS = {"HardSigmoid": (0.2, 0.5), "Affine": (1.0, 0.0)}  # ONNX's alpha and beta
_ROLES = {  # whose functions a node lists, for each direction
    "RNN": ("nonlinearity",),
    "GRU": ("gate_activation", "state_activation"),
    "LSTM": ("gate_activation", "state_activation", "state_activation"),
}
# Options that ONNX has no words for, and what they are where they do nothing in inference.
_INEXPRESSIBLE: dict[str, tuple[Any, ...]] = {
    "bfloat16": (False,),
    "layer_norm": (False,),
    "zoneout_h": (0,),
    "zoneout_c": (0,),
    "proj_size": (0,),
    "variant": ("standard",),
    "coupled": (None, "f=1-i"),
}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _reorder(rows: Array, have: str, want: str) -> Array:
    """Blocks of rows in another order; zeros for a gate that is not there."""
    blocks = np.split(rows, len(have))
    none = np.zeros_like(blocks[0])
    return np.concatenate([blocks[have.index(g)] if g in have else none for g in want])


def _gates(op: str, coupled: Any) -> tuple[str, str]:
    return _OURS[op].replace("f", "") if coupled else _OURS[op], _THEIRS[op]


# --- Out ------------------------------------------------------------------------------------------


def node_attributes(layer: RNN | GRU | LSTM, name: str) -> dict[str, Any]:
    """The attributes of a layer's nodes; ValueError, with its `name`, for what ONNX has not."""
    for option, expressible in _INEXPRESSIBLE.items():
        value = getattr(layer, option, expressible[0])
        if value not in expressible:
            hint = '; export model.to("float32")' if option == "bfloat16" else ""
            raise ValueError(f"{name}: ONNX cannot express {option}={value!r}{hint}")
    op = type(layer).__name__
    functions = [_FUNCTIONS[getattr(layer, role)] for role in _ROLES[op]] * layer.directions
    parameters = [values for _, values in functions if values is not None]
    found: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if layer.bidirectional else "forward",
        "activations": [function for function, _ in functions],
    }
    if parameters:
        found["activation_alpha"], found["activation_beta"] = map(
            list, zip(*parameters, strict=True)
        )
    if layer.clip is not None:
        if layer.double and float(np.float32(layer.clip)) != layer.clip:
            raise ValueError(
                f"{name}: ONNX cannot express clip={layer.clip!r} in float64: it keeps a float32"
            )
        found["clip"] = layer.clip
    if isinstance(layer, GRU):
        found["linear_before_reset"] = int(layer.reset_after)
    if isinstance(layer, LSTM):
        found["input_forget"] = int(layer.coupled is not None)
    return found


def node_arrays(layer: RNN | GRU | LSTM, k: int) -> dict[str, Array]:
    """W, R and, where there are any, B and P of layer `k`."""
    ours, theirs = _gates(type(layer).__name__, getattr(layer, "coupled", None))
    values = {name: p.data for name, p in layer.parameters().items()}

    def stacked(name: str, have: str = ours, want: str = theirs) -> Array:
        suffixes = (f"_l{k}", f"_l{k}_reverse")[: layer.directions]
        return np.stack([_reorder(values[name + suffix], have, want) for suffix in suffixes])

    found = {"W": stacked("weight_ih"), "R": stacked("weight_hh")}
    if layer.bias:
        b_ih = stacked("bias_ih")
        b_hh = np.zeros_like(b_ih) if layer.bias == "single" else stacked("bias_hh")
        found["B"] = np.concatenate([b_ih, b_hh], axis=1)
    if f"weight_ch_l{k}" in values:
        peepholes = stacked("weight_ch", ours.replace("g", ""), theirs.replace("g", ""))
        found["P"] = peepholes.reshape(layer.directions, -1)
    return found


# --- In -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What a recurrent node says: `options` are our layer's, for each of the directions."""

    op: str
    batch_first: bool
    reverse: tuple[bool, ...]
    options: tuple[dict[str, Any], ...]
    hidden_size: int | None

    @classmethod
    def of(cls, node: Any) -> Cell:
        """Raises ValueError for what our kernels have not."""
        given = attributes(node)
        direction = given["direction"].decode()
        if direction not in _DIRECTIONS:
            raise ValueError(f"direction: expected one of {', '.join(_DIRECTIONS)}: {direction!r}")
        reverse = _DIRECTIONS[direction]
        common: dict[str, Any] = {"clip": given.get("clip")}
        if node.op_type == "GRU":
            common["reset_after"] = bool(given["linear_before_reset"])
        if node.op_type == "LSTM":
            common["coupled"] = "f=1-i" if given["input_forget"] else None
        functions = _functions(node, given, len(reverse))
        options = tuple({**common, **own} for own in functions)
        layout, hidden = given["layout"], given.get("hidden_size")
        if layout not in (0, 1):
            raise ValueError(f"layout: expected 0 or 1, got {layout}")
        return cls(node.op_type, bool(layout), reverse, options, hidden)

    @property
    def directions(self) -> int:
        return len(self.reverse)

    def check(self, arrays: dict[str, Any]) -> None:
        """Refuses W, R, B, P that are not of one dtype, float32 or float64, or do not fit."""
        w, r, gates = arrays["W"], arrays["R"], len(_THEIRS[self.op])
        if w.dtype not in (np.float32, np.float64) or w.ndim != 3 or r.ndim != 3:
            raise ValueError(
                f"W and R: expected three axes of float32 or float64, got {w.dtype} {w.shape} and "
                f"{r.dtype} {r.shape}"
            )
        hidden, d = self.hidden_size or r.shape[2], self.directions
        wanted = {"W": (d, gates * hidden, w.shape[2]), "R": (d, gates * hidden, hidden),
                  "B": (d, 2 * gates * hidden), "P": (d, 3 * hidden)}  # fmt: skip
        for name, array in arrays.items():
            if array.shape != wanted[name] or array.dtype != w.dtype:
                raise ValueError(
                    f"{name}: expected {w.dtype} {wanted[name]}, got {array.dtype} {array.shape}"
                )

    def build(
        self, stack: Sequence[dict[str, Array]], directions: Sequence[int], **more: Any
    ) -> RNN | GRU | LSTM:
        """A layer of these directions, with the arrays of each of its layers."""
        w, options = stack[0]["W"], dict(self.options[directions[0]])
        if "P" in stack[0]:
            options["peephole"] = True
        layer = LAYERS[self.op](
            w.shape[2], stack[0]["R"].shape[2], len(stack), bias="B" in stack[0],
            bidirectional=len(directions) == 2, dtype=w.dtype, **options, **more,
        )  # fmt: skip
        ours, theirs = _gates(self.op, options.get("coupled"))
        state = {}
        for k, arrays in enumerate(stack):
            for d, suffix in zip(directions, (f"_l{k}", f"_l{k}_reverse"), strict=False):
                rows = {"weight_ih": arrays["W"][d], "weight_hh": arrays["R"][d]}
                if "B" in arrays:
                    rows["bias_ih"], rows["bias_hh"] = np.split(arrays["B"][d], 2)
                for name, values in rows.items():
                    state[name + suffix] = _reorder(values, theirs, ours)
                if "P" in arrays:
                    state["weight_ch" + suffix] = _reorder(
                        arrays["P"][d].reshape(3, -1), theirs.replace("g", ""),
                        ours.replace("g", ""),
                    )  # fmt: skip
        layer.load_state_dict(state)
        return layer


def _functions(node: Any, given: dict[str, Any], directions: int) -> list[dict[str, str]]:
    """Our names of the activations, by role, for each direction."""
    roles = _ROLES[node.op_type]
    if any(a.name == "activations" for a in node.attribute):
        names = [name.decode() for name in given["activations"]]
    else:
        names = ["Sigmoid" if role == "gate_activation" else "Tanh" for role in roles] * directions
    if len(names) != len(roles) * directions:
        raise ValueError(f"activations: expected {len(roles) * directions}, got {names}")
    # Those that have an alpha and a beta take the next.
    alpha, beta = (list(given.get(f"activation_{x}", ())) for x in ("alpha", "beta"))
    ours = {theirs: name for name, theirs in _FUNCTIONS.items()}
    found: list[str] = []
    for name in names:
        values = None
        if name in _DEFAULTS:
            a, b = _DEFAULTS[name]
            values = alpha.pop(0) if alpha else a, beta.pop(0) if beta else b
        if (name, values) not in ours:
            with_values = "" if values is None else f" with alpha {values[0]}, beta {values[1]}"
            raise ValueError(f"activations: the kernels have no {name}{with_values}")
        found.append(ours[name, values])
    if alpha or beta:
        raise ValueError(f"activation_alpha, activation_beta: {alpha}, {beta} belong to none")
    by_direction = []
    for d in range(directions):
        own: dict[str, str] = {}
        for role, function in zip(roles, found[d * len(roles) :], strict=False):
            if own.setdefault(role, function) != function:
                raise ValueError(
                    f"activations: the kernels have one function for g and h, got {names}"
                )
        by_direction.append(own)
    return by_direction
