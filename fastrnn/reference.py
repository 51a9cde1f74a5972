"""Every cell and its gradient in plain NumPy: CONVENTIONS.md in code, and the baseline to beat.

B batch, T time, I input size, H hidden size, G gates, D directions. Weights, biases and states
are laid out and named as PyTorch's; everything is computed in the dtype of x.

A layer is one product W x over all steps, then one loop over time that serves every cell; its
gradient is the loop backward (BPTT), then one product over all steps for each of dx, dW and dR.
A cell is what happens to the rows of a batch in one step: its equations and, below them, their
gradient. To add a cell, write such a class and name it in `CELLS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
State = tuple[Array, ...]  # (h,), or (h, c) for a cell that carries c


# -- Cells -----------------------------------------------------------------------------------------


class Cell:
    """One time step of n rows.

    ``gates`` is G; ``states`` counts the arrays of the state, each (n, H). Pre-activations come in
    two halves (n, G*H): u = W x + b_ih and v = R h + b_hh. Most gates take the sum, so that their
    b_hh can be, and is, in u instead; only the last ``apart`` gates have it in v.
    """

    gates: int
    states: int = 1
    apart: int = 0

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        """The next state, and what `backward` needs beyond the gates; `u` becomes the gates."""
        raise NotImplementedError

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        """Write `du`, and turn `dstate` from the next state's gradient into this state's.

        What reaches h through v = R h + b_hh is for the caller to add. `dv` is to be written too by
        a cell with gates apart; for the others it is `du` itself.
        """
        raise NotImplementedError


class RNNTanh(Cell):
    gates = 1

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        u += v
        np.tanh(u, out=u)
        return (u,), ()

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        h_new, (dh,) = gates, dstate
        du[...] = dh * (1 - h_new**2)
        dh[...] = 0


class RNNRelu(Cell):
    gates = 1

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        u += v
        np.maximum(u, 0, out=u)
        return (u,), ()

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        h_new, (dh,) = gates, dstate
        du[...] = dh * (h_new > 0)
        dh[...] = 0


class GRU(Cell):
    """The reset gate acts after the product, as in PyTorch: n = tanh(u_n + r * v_n)."""

    gates = 3
    apart = 1

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        (h,) = state
        r, z, n = blocks(u, 3)
        u_n, v_n = n.copy(), blocks(v, 3)[2].copy()
        u += v
        sigmoid(u, out=u)  # n's columns too: whole rows are faster than a part of each
        np.tanh(u_n + r * v_n, out=n)
        h_new = (1 - z) * n + z * h
        return (h_new,), (h, v_n)

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        r, z, n = blocks(gates, 3)
        du_r, du_z, du_n = blocks(du, 3)
        (h, v_n), (dh,) = saved, dstate
        du_n[...] = dh * (1 - z) * (1 - n**2)
        du_z[...] = dh * (h - n) * z * (1 - z)
        du_r[...] = du_n * v_n * r * (1 - r)
        dv[...] = du
        blocks(dv, 3)[2][...] *= r
        dh *= z


class GRUMinimal(Cell):
    """One gate and no reset: h' = z * n + (1 - z) * h; mind that z weighs the new."""

    gates = 2

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        (h,) = state
        u += v
        z, n = blocks(u, 2)
        z[...] = sigmoid(z)
        n[...] = np.tanh(n)
        return (z * n + (1 - z) * h,), (h,)

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        z, n = blocks(gates, 2)
        du_z, du_n = blocks(du, 2)
        (h,), (dh,) = saved, dstate
        du_z[...] = dh * (n - h) * z * (1 - z)
        du_n[...] = dh * z * (1 - n**2)
        dh *= 1 - z


class LSTM(Cell):
    gates = 4
    states = 2

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        _, c = state
        u += v
        i, f, g, o = blocks(u, 4)
        tanh_g = np.tanh(g)
        sigmoid(u, out=u)  # g's columns too: whole rows are faster than a part of each
        g[...] = tanh_g
        c_new = f * c + i * g
        tanh_c = np.tanh(c_new)
        return (o * tanh_c, c_new), (c, tanh_c)

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        i, f, g, o = blocks(gates, 4)
        du_i, du_f, du_g, du_o = blocks(du, 4)
        (c, tanh_c), (dh, dc) = saved, dstate
        du_o[...] = dh * tanh_c * o * (1 - o)
        dc += dh * o * (1 - tanh_c**2)
        du_i[...] = dc * g * i * (1 - i)
        du_f[...] = dc * c * f * (1 - f)
        du_g[...] = dc * i * (1 - g**2)
        dc *= f
        dh[...] = 0


class LSTMCoupled(Cell):
    """Gates p, g, o: p is i and f = 1 - i, or with `forget` p is f and i = 1 - f."""

    gates = 3
    states = 2

    def __init__(self, forget: bool) -> None:
        self.forget = forget

    def forward(self, u: Array, v: Array, state: State) -> tuple[State, State]:
        _, c = state
        u += v
        p, g, o = blocks(u, 3)
        for gate in (p, o):
            gate[...] = sigmoid(gate)
        g[...] = np.tanh(g)
        i = 1 - p if self.forget else p
        c_new = (1 - i) * c + i * g
        tanh_c = np.tanh(c_new)
        return (o * tanh_c, c_new), (c, tanh_c)

    def backward(self, gates: Array, saved: State, dstate: State, du: Array, dv: Array) -> None:
        p, g, o = blocks(gates, 3)
        du_p, du_g, du_o = blocks(du, 3)
        (c, tanh_c), (dh, dc) = saved, dstate
        i = 1 - p if self.forget else p
        du_o[...] = dh * tanh_c * o * (1 - o)
        dc += dh * o * (1 - tanh_c**2)
        di = dc * (g - c)
        du_p[...] = (-di if self.forget else di) * p * (1 - p)
        du_g[...] = dc * i * (1 - g**2)
        dc *= 1 - i
        dh[...] = 0


CELLS: dict[str, Cell] = {
    "rnn_tanh": RNNTanh(),
    "rnn_relu": RNNRelu(),
    "gru": GRU(),
    "lstm": LSTM(),
    "gru_minimal": GRUMinimal(),
    "lstm_input": LSTMCoupled(forget=False),
    "lstm_forget": LSTMCoupled(forget=True),
}


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)), elementwise; far below 0 exp overflows to inf, and 1/inf is right."""
    out = np.empty_like(x) if out is None else out
    np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


def blocks(a: Array, gates: int) -> list[Array]:
    """The gates' columns of `a` (n, G*H), as views (n, H)."""
    return list(a.reshape(len(a), gates, -1).swapaxes(0, 1))


# -- One layer, one direction ----------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """The N valid steps of a ragged batch, in the order of the loop; padding is not among them.

    Rows are taken longest first, so that those still running are always the first n.
    """

    order: NDArray[np.intp]  # (B,) the rows, longest first; unsorted[order] is sorted
    back: NDArray[np.intp]  # (B,) its inverse
    rows: NDArray[np.intp]  # (N,) and (N,): x[rows, times] is (N, I)
    times: NDArray[np.intp]
    spans: list[slice]  # for each step of the loop, its rows among the N


def ragged_steps(lengths: NDArray[np.intp], time: int, reverse: bool) -> Steps:
    """The valid steps for `lengths` (B,), each row from its last to its first if `reverse`."""
    order = np.argsort(-lengths, kind="stable")
    valid = np.arange(time)[:, None] < lengths[order]
    step, place = np.nonzero(valid)
    rows = order[place]
    counts = valid.sum(axis=1)
    ends = np.cumsum(counts)
    spans = [slice(end - n, end) for n, end in zip(counts, ends, strict=True) if n]
    times = lengths[rows] - 1 - step if reverse else step
    return Steps(order, np.argsort(order), rows, times, spans)


@dataclass(frozen=True)
class Tape:
    """What `backward` needs of a `forward`; x, h and gates have the N valid steps as rows."""

    cell: Cell
    steps: Steps
    x_shape: tuple[int, ...]
    x: Array  # (N, I)
    h: Array  # (N, H), before the step
    gates: Array  # (N, G*H)
    saved: list[State]
    w_ih: Array
    w_hh: Array


class Gradients(TypedDict):
    """The gradients of the arguments of `forward`; dc0 is None for a cell without c."""

    dx: Array
    dh0: Array
    dc0: Array | None
    dw_ih: Array
    dw_hh: Array
    db_ih: Array
    db_hh: Array


def forward(
    cell: str | Cell,
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None,
    b_hh: ArrayLike | None,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array | None, Tape]:
    """One layer in one direction: y (B, T, H), h_n (B, H), c_n (B, H) or None, and the tape.

    x is (B, T, I), h0 and c0 (B, H), w_ih (G*H, I), w_hh (G*H, H), b_ih and b_hh (G*H,); None is
    zeros, and c0 is ignored by a cell without c. With `lengths` (B,), integers from 0 to T in any
    order, y is zero past a row's length and the state stops there; `reverse` runs each row from its
    last valid step to its first. Raises TypeError for an x that is neither float32 nor float64 and
    lengths that are not integers, ValueError for wrong shapes and lengths and an unknown cell.
    """
    cell = find_cell(cell)
    x = checked("x", x, (None, None, None))
    (batch, time, inputs), dtype = x.shape, x.dtype
    hidden = checked("w_hh", w_hh, (None, None), dtype).shape[1]
    width = cell.gates * hidden
    w_hh = checked("w_hh", w_hh, (width, hidden), dtype)
    w_ih = checked("w_ih", w_ih, (width, inputs), dtype)
    b_ih = or_zeros("b_ih", b_ih, (width,), dtype)
    b_hh = or_zeros("b_hh", b_hh, (width,), dtype)
    start = [("h0", h0), ("c0", c0)][: cell.states]
    steps = ragged_steps(checked_lengths(lengths, batch, time), time, reverse)

    xs = x[steps.rows, steps.times]
    gates = xs @ w_ih.T
    gates += b_ih
    summed = width - cell.apart * hidden
    gates[:, :summed] += b_hh[:summed]

    state = tuple(or_zeros(name, s, (batch, hidden), dtype)[steps.order] for name, s in start)
    hs, ys = np.empty((2, len(xs), hidden), dtype)
    saved = []
    for span in steps.spans:
        n = span.stop - span.start
        before = tuple(s[:n] for s in state)
        v = before[0] @ w_hh.T
        if cell.apart:
            v[:, summed:] += b_hh[summed:]
        after, kept = cell.forward(gates[span], v, before)
        hs[span], ys[span] = before[0], after[0]
        saved.append(kept)
        if n < batch:  # rows that have ended keep their state
            after = tuple(np.concatenate([a, s[n:]]) for a, s in zip(after, state, strict=True))
        state = after

    y = np.zeros((batch, time, hidden), dtype)
    y[steps.rows, steps.times] = ys
    h_n, *c_n = (s[steps.back] for s in state)
    tape = Tape(cell, steps, x.shape, xs, hs, gates, saved, w_ih, w_hh)
    return y, h_n, c_n[0] if c_n else None, tape


def backward(
    tape: Tape, dy: ArrayLike, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> Gradients:
    """The gradients of sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n); None is zeros.

    Leaves the tape as it is. Raises ValueError for wrong shapes.
    """
    cell, steps, hidden = tape.cell, tape.steps, tape.h.shape[1]
    (batch, time, _), dtype = tape.x_shape, tape.x.dtype
    dys = checked("dy", dy, (batch, time, hidden), dtype)[steps.rows, steps.times]
    end = [("dh_n", dh_n), ("dc_n", dc_n)][: cell.states]
    dstate = [or_zeros(name, s, (batch, hidden), dtype)[steps.order] for name, s in end]

    du = np.empty_like(tape.gates)
    dv = np.empty_like(du) if cell.apart else du
    for span, saved in zip(reversed(steps.spans), reversed(tape.saved), strict=True):
        running = tuple(s[: span.stop - span.start] for s in dstate)
        dh = running[0]
        dh += dys[span]
        cell.backward(tape.gates[span], saved, running, du[span], dv[span])
        dh += dv[span] @ tape.w_hh

    dx = np.zeros(tape.x_shape, dtype)
    dx[steps.rows, steps.times] = du @ tape.w_ih
    dh0, *dc0 = (s[steps.back] for s in dstate)
    db_ih = du.sum(axis=0)
    return {
        "dx": dx,
        "dh0": dh0,
        "dc0": dc0[0] if dc0 else None,
        "dw_ih": du.T @ tape.x,
        "dw_hh": dv.T @ tape.h,
        "db_ih": db_ih,
        "db_hh": dv.sum(axis=0) if cell.apart else db_ih.copy(),
    }


# -- Several layers and directions -----------------------------------------------------------------


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
) -> tuple[Array, Array, Array | None, LayerTape]:
    """Layer upon layer: y (B, T, D*H), h_n and c_n (num_layers*D, B, H; c_n may be None), the tape.

    `weights` has PyTorch's names (weight_ih_l0, weight_ih_l0_reverse, bias_ih_l0, ...), biases if
    there are any; h0 and c0 are shaped as h_n. Otherwise, and for errors, see `forward`.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers: expected at least 1, got {num_layers}")
    directions = 2 if bidirectional else 1
    names = [weight_names(k // directions, k % directions) for k in range(num_layers * directions)]
    missing = [name for four in names for name in four[:2] if name not in weights]
    surplus = set(weights).difference(*names)
    if missing or surplus:
        raise ValueError(f"weights: missing {missing}, not expected {sorted(surplus)}")
    y = checked("x", x, (None, None, None))
    hidden = checked("weight_hh_l0", weights["weight_hh_l0"], (None, None), y.dtype).shape[1]
    states = (len(names), len(y), hidden)
    h0, c0 = or_zeros("h0", h0, states, y.dtype), or_zeros("c0", c0, states, y.dtype)
    h_n, c_n = np.empty_like(h0), np.empty_like(c0)
    tapes: list[Tape] = []
    for layer in range(num_layers):
        ys = []
        for direction in range(directions):
            k = layer * directions + direction
            w = [weights[name] for name in names[k][:2]]
            b = [weights.get(name) for name in names[k][2:]]
            y_k, h_n[k], c, tape = forward(
                cell, y, h0[k], c0[k], w[0], w[1], b[0], b[1], lengths, direction == 1
            )
            if c is not None:
                c_n[k] = c
            ys.append(y_k)
            tapes.append(tape)
        y = np.concatenate(ys, axis=2)
    has_c = tapes[0].cell.states == 2
    return y, h_n, c_n if has_c else None, LayerTape(tapes, directions, list(weights))


def layer_backward(
    tape: LayerTape, dy: ArrayLike, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> tuple[Array, Array, Array | None, dict[str, Array]]:
    """dx, dh0, dc0 (None for a cell without c), and the weights' gradients; see `backward`."""
    first, directions = tape.tapes[0], tape.directions
    (batch, time, _), hidden, dtype = first.x_shape, first.h.shape[1], first.x.dtype
    states = (len(tape.tapes), batch, hidden)
    dy = checked("dy", dy, (batch, time, directions * hidden), dtype)
    dh_n, dc_n = or_zeros("dh_n", dh_n, states, dtype), or_zeros("dc_n", dc_n, states, dtype)
    dh0, dc0 = np.empty_like(dh_n), np.empty_like(dc_n)
    grads: dict[str, Array] = {}
    for layer in reversed(range(len(tape.tapes) // directions)):
        dx = np.zeros((), dtype)
        for direction, dy_k in enumerate(np.split(dy, directions, axis=2)):
            k = layer * directions + direction
            g = backward(tape.tapes[k], dy_k, dh_n[k], dc_n[k])
            dx = dx + g["dx"]
            dh0[k] = g["dh0"]
            if g["dc0"] is not None:
                dc0[k] = g["dc0"]
            values = g["dw_ih"], g["dw_hh"], g["db_ih"], g["db_hh"]
            grads.update(zip(weight_names(layer, direction), values, strict=True))
        dy = dx
    named = {name: grads[name] for name in tape.names}
    return dy, dh0, dc0 if first.cell.states == 2 else None, named


def weight_names(layer: int, direction: int) -> list[str]:
    """PyTorch's names of w_ih, w_hh, b_ih and b_hh; direction 1 is the reverse one."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    return [kind + suffix for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


# -- Checks ----------------------------------------------------------------------------------------


def find_cell(cell: str | Cell) -> Cell:
    """The cell of that name; a Cell is itself."""
    if isinstance(cell, str) and cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    return CELLS[cell] if isinstance(cell, str) else cell


def checked(
    name: str, value: ArrayLike, shape: tuple[int | None, ...], dtype: np.dtype | None = None
) -> Array:
    """`value` as an array of `dtype`, whose shape must be `shape` (None in it: any size)."""
    array = np.asarray(value, dtype)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    fits = [want in (None, got) for want, got in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or not all(fits):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name}: expected shape {wanted}, got {array.shape}")
    return array


def or_zeros(name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """`checked`, with None for zeros."""
    return np.zeros(shape, dtype) if value is None else checked(name, value, shape, dtype)


def checked_lengths(lengths: ArrayLike | None, batch: int, time: int) -> NDArray[np.intp]:
    """`lengths` as integers (B,); None is T for every row."""
    array = np.full(batch, time) if lengths is None else np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got an array of {array.dtype}")
    if array.shape != (batch,) or not np.all((array >= 0) & (array <= time)):
        raise ValueError(f"lengths: expected {batch} integers from 0 to {time}, got {array}")
    return array.astype(np.intp)
