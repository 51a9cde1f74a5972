"""Several layers, in one direction or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.reference.cells import Cell, find_cell
from fastrnn.reference.checks import checked, or_zeros
from fastrnn.reference.layer import PLAIN, Gradients, Tape, Variant, backward, forward

Array = NDArray[np.floating]

KINDS = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "w_ch", "ln_ih", "ln_hh", "ln_c")


@dataclass(frozen=True)
class LayerTape:
    """What `layer_backward` needs of a `layer_forward`."""

    tapes: list[Tape]  # index layer * D + direction, as states have it
    directions: int
    names: list[str]


def layer_forward(
    cell: str | Cell,
    x: ArrayLike,
    weights: Mapping[str, ArrayLike],
    num_layers: int = 1,
    bidirectional: bool = False,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    variant: Variant = PLAIN,
) -> tuple[Array, Array, Array | None, LayerTape]:
    """Layer upon layer: y (B, T, D*P), h_n (layers*D, B, P), c_n (layers*D, B, H) or None, tape.

    `weights` has PyTorch's names (weight_ih_l0, weight_ih_l0_reverse, bias_ih_l0, ...): of those
    that `weight_names` gives the first two, and of the others what there is. h0 and c0 are shaped
    as h_n and c_n. State k of all has masks of its own, those of seed variant.seed + k. Otherwise,
    and for errors, see `forward`.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers: expected at least 1, got {num_layers}")
    directions = 2 if bidirectional else 1
    names = [weight_names(k // directions, k % directions) for k in range(num_layers * directions)]
    missing = [name for some in names for name in some[:2] if name not in weights]
    surplus = set(weights).difference(*names)
    if missing or surplus:
        raise ValueError(f"weights: missing {missing}, not expected {sorted(surplus)}")
    y = checked("x", x, (None, None, None))
    rows, size = checked("weight_hh_l0", weights["weight_hh_l0"], (None, None), y.dtype).shape
    hidden = rows // find_cell(cell).gates
    h0 = or_zeros("h0", h0, (len(names), len(y), size), y.dtype)
    c0 = or_zeros("c0", c0, (len(names), len(y), hidden), y.dtype)
    h_n, c_n = np.empty_like(h0), np.empty_like(c0)
    tapes: list[Tape] = []
    for layer in range(num_layers):
        ys = []
        for direction in range(directions):
            k = layer * directions + direction
            w = dict[str, Any](zip(KINDS, map(weights.get, names[k]), strict=True))
            y_k, h_n[k], c, tape = forward(
                cell, y, h0[k], c0[k], lengths=lengths, reverse=direction == 1,
                variant=replace(variant, seed=variant.seed + k), **w,
            )  # fmt: skip
            if c is not None:
                c_n[k] = c
            ys.append(y_k)
            tapes.append(tape)
        y = np.concatenate(ys, axis=2)
    has_c = tapes[0].cell.states == 2
    return y, h_n, c_n if has_c else None, LayerTape(tapes, directions, list(weights))


def layer_backward(
    tape: LayerTape, dy: ArrayLike, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> tuple[Array, Array, Array | None, Gradients]:
    """dx, dh0, dc0 (None for a cell without c), and the weights' gradients; see `backward`."""
    first, directions = tape.tapes[0], tape.directions
    (batch, time, _), size, dtype = first.x_shape, first.h.shape[1], first.x.dtype
    hidden = first.gates.shape[1] // first.cell.gates
    dy = checked("dy", dy, (batch, time, directions * size), dtype)
    dh_n = or_zeros("dh_n", dh_n, (len(tape.tapes), batch, size), dtype)
    dc_n = or_zeros("dc_n", dc_n, (len(tape.tapes), batch, hidden), dtype)
    dh0, dc0 = np.empty_like(dh_n), np.empty_like(dc_n)
    grads: Gradients = {}
    for layer in reversed(range(len(tape.tapes) // directions)):
        dx = np.zeros((), dtype)
        for direction, dy_k in enumerate(np.split(dy, directions, axis=2)):
            k = layer * directions + direction
            g = backward(tape.tapes[k], dy_k, dh_n[k], dc_n[k])
            dx = dx + g["dx"]
            dh0[k] = g["dh0"]
            if g["dc0"] is not None:
                dc0[k] = g["dc0"]
            for name, kind in zip(weight_names(layer, direction), KINDS, strict=True):
                grads[name] = g.get("d" + kind)
        dy = dx
    named = {name: grads[name] for name in tape.names}
    return dy, dh0, dc0 if first.cell.states == 2 else None, named


def weight_names(layer: int, direction: int) -> list[str]:
    """The names of w_ih, w_hh, b_ih, b_hh, w_hr, w_ch, ln_ih, ln_hh and ln_c; PyTorch's, where it
    has them. Direction 1 is the reverse one.
    """
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    longer = {"w": "weight", "b": "bias"}
    return [longer.get(kind[0], "l") + kind[1:] + suffix for kind in KINDS]
