"""One layer in one direction: the loop over time, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.reference import masks
from fastrnn.reference.activations import ACTIVATIONS
from fastrnn.reference.cells import Cell, State, find_cell
from fastrnn.reference.checks import checked, checked_lengths, or_zeros
from fastrnn.reference.normalisation import normalise, normalise_back

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Variant:
    """What a layer does beyond its cell's plain equations.

    gate_activation stands in sigmoid's place, state_activation in that of tanh (None: the cell's
    own); `clip` limits what enters them, but for c', to [-clip, clip]. Of h' and of c' each unit
    stays as it was with probability zoneout_h and zoneout_c (Krueger et al. 2016), without
    `training` their mean is taken. In `training`, h enters the product with R times a mask that
    drops with probability recurrent_dropout, for each row one for all steps (Gal and Ghahramani
    2016). `seed` chooses the masks, see `masks`.
    """

    gate_activation: str = "sigmoid"
    state_activation: str | None = None
    clip: float | None = None
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    recurrent_dropout: float = 0.0
    training: bool = True
    seed: int = 0


PLAIN = Variant()


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
    variant: Variant
    steps: Steps
    x_shape: tuple[int, ...]
    x: Array  # (N, I)
    h: Array  # (N, P), as it entered the product with R
    gates: Array  # (N, G*H)
    saved: list[State]
    late: Array | None  # (N, H), r * h, what entered the late gates' product
    product: Array | None  # (N, H), what entered the projection
    normal_x: tuple[Array, Array] | None  # W x normalised, (N, G*H), and the rates
    normal_h: list[tuple[Array, Array]]  # R h likewise, by step
    dropout: Array | None  # (B, P), h's mask
    w_ih: Array
    w_hh: Array
    w_hr: Array | None
    ln_ih: Array | None
    ln_hh: Array | None


Gradients = dict[str, Any]


def forward(
    cell: str | Cell,
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    *,
    w_hr: ArrayLike | None = None,
    w_ch: ArrayLike | None = None,
    ln_ih: ArrayLike | None = None,
    ln_hh: ArrayLike | None = None,
    ln_c: ArrayLike | None = None,
    variant: Variant = PLAIN,
) -> tuple[Array, Array, Array | None, Tape]:
    """One layer in one direction: y (B, T, P), h_n (B, P), c_n (B, H) or None, and the tape.

    x is (B, T, I), h0 (B, P), c0 (B, H), w_ih (G*H, I), w_hh (G*H, P), b_ih and b_hh (G*H,); None
    is zeros, and c0 is ignored by a cell without c. P is H, or with w_hr (P, H) its own: then
    h' = w_hr (o * tanh c'). w_ch (G - 1, H): peepholes. ln_ih and ln_hh (G*H,), and ln_c (2, H) for
    a cell with c: W x, R h and c' are normalised. With `lengths` (B,), integers from 0 to T in any
    order, y is zero past a row's length and the state stops there; `reverse` runs each row from its
    last valid step to its first. Raises TypeError for an x that is neither float32 nor float64 and
    lengths that are not integers, ValueError for wrong shapes and lengths and an unknown cell.
    """
    cell = find_cell(cell)
    x = checked("x", x, (None, None, None))
    (batch, time, inputs), dtype = x.shape, x.dtype
    rows, size = checked("w_hh", w_hh, (None, None), dtype).shape
    hidden = size if w_hr is None else rows // cell.gates
    width = cell.gates * hidden
    w_hh = checked("w_hh", w_hh, (width, size), dtype)
    w_ih = checked("w_ih", w_ih, (width, inputs), dtype)
    b_ih = or_zeros("b_ih", b_ih, (width,), dtype)
    b_hh = or_zeros("b_hh", b_hh, (width,), dtype)
    w_hr = None if w_hr is None else checked("w_hr", w_hr, (size, hidden), dtype)
    ln_ih = None if ln_ih is None else checked("ln_ih", ln_ih, (width,), dtype)
    ln_hh = None if ln_hh is None else checked("ln_hh", ln_hh, (width,), dtype)
    cell = of_variant(
        cell,
        variant,
        None if w_ch is None else checked("w_ch", w_ch, (cell.gates - 1, hidden), dtype),
        None if ln_c is None else checked("ln_c", ln_c, (2, hidden), dtype),
    )
    start = [("h0", h0, size), ("c0", c0, hidden)][: cell.states]
    steps = ragged_steps(checked_lengths(lengths, batch, time), time, reverse)

    xs = x[steps.rows, steps.times]
    gates = xs @ w_ih.T
    normal_x = None
    if ln_ih is not None:
        normal_x = normalise(gates)
        gates = normal_x[0] * ln_ih
    gates += b_ih
    summed = width - cell.apart * hidden
    gates[:, :summed] += b_hh[:summed]

    state = tuple(or_zeros(name, s, (batch, n), dtype)[steps.order] for name, s, n in start)
    dropout = None
    if variant.training and variant.recurrent_dropout:
        dropout = masks.keep_factor(
            variant.recurrent_dropout, variant.seed, masks.RECURRENT_DROPOUT, steps.order, 0, size,
            dtype,
        )  # fmt: skip
    early, late_rows = width - cell.late * hidden, slice(width - cell.late * hidden, width)
    hs, ys = np.empty((2, len(xs), size), dtype)
    late_in = np.empty((len(xs), hidden), dtype) if cell.late else None
    product = None if w_hr is None else np.empty((len(xs), hidden), dtype)
    saved, normal_h = [], []
    for step, span in enumerate(steps.spans):
        n = span.stop - span.start
        before = tuple(s[:n] for s in state)
        entering = before[0] if dropout is None else before[0] * dropout[:n]
        v = entering @ w_hh[:early].T
        if ln_hh is not None:
            normal_h.append(normalise(v))
            v = normal_h[-1][0] * ln_hh
        if cell.apart:
            v[:, summed:] += b_hh[summed:]

        def late(r: Array, span: slice = span, entering: Array = entering) -> Array:
            assert late_in is not None
            np.multiply(r, entering, out=late_in[span])
            return late_in[span] @ w_hh[late_rows].T

        after, kept = cell.forward(gates[span], v, before, late)
        if w_hr is not None and product is not None:
            product[span] = after[0]
            after = (product[span] @ w_hr.T, *after[1:])
        stays = zoneout(variant, steps, step, before)
        if stays:
            after = tuple(a + s * (b - a) for a, b, s in zip(after, before, stays, strict=True))
        hs[span], ys[span] = entering, after[0]
        saved.append(kept)
        if n < batch:  # rows that have ended keep their state
            after = tuple(np.concatenate([a, s[n:]]) for a, s in zip(after, state, strict=True))
        state = after

    y = np.zeros((batch, time, size), dtype)
    y[steps.rows, steps.times] = ys
    h_n, *c_n = (s[steps.back] for s in state)
    tape = Tape(
        cell, variant, steps, x.shape, xs, hs, gates, saved, late_in, product, normal_x, normal_h,
        dropout, w_ih, w_hh, w_hr, ln_ih, ln_hh,
    )  # fmt: skip
    return y, h_n, c_n[0] if c_n else None, tape


def of_variant(cell: Cell, variant: Variant, w_ch: Array | None, ln_c: Array | None) -> Cell:
    """The cell with the variant's activations and weights of its own."""
    gate, state = ACTIVATIONS[variant.gate_activation], cell.state
    if variant.state_activation is not None:
        state = ACTIVATIONS[variant.state_activation]
    output_state = state
    if variant.clip is not None:
        gate, state = gate.clipped(variant.clip), state.clipped(variant.clip)
    return replace(cell, gate=gate, state=state, output_state=output_state, w_ch=w_ch, ln_c=ln_c)


def zoneout(variant: Variant, steps: Steps, step: int, state: State) -> list[Array]:
    """For h, and c: 1 where a unit stays as it is (n, size), without training the part that does.

    Empty where there is no zoneout.
    """
    if not variant.zoneout_h and not variant.zoneout_c:
        return []
    rows = steps.order[: len(state[0])]
    kinds = (variant.zoneout_h, masks.ZONEOUT_H), (variant.zoneout_c, masks.ZONEOUT_C)
    stays = []
    for s, (p, purpose) in zip(state, kinds[: len(state)], strict=True):
        if variant.training:
            drawn = masks.drawn(p, variant.seed, purpose, rows, step, s.shape[1])
            stays.append(drawn.astype(s.dtype))
        else:
            stays.append(np.full((), p, s.dtype))
    return stays


def backward(
    tape: Tape, dy: ArrayLike, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> Gradients:
    """The gradients of sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n); None is zeros.

    By name: dx, dh0, dc0 (None for a cell without c), dw_ih, dw_hh, db_ih, db_hh, and those of the
    other weights that were given. Leaves the tape as it is. Raises ValueError for wrong shapes.
    """
    cell, steps, size = tape.cell, tape.steps, tape.h.shape[1]
    (batch, time, _), dtype = tape.x_shape, tape.x.dtype
    hidden = tape.gates.shape[1] // cell.gates
    dys = checked("dy", dy, (batch, time, size), dtype)[steps.rows, steps.times]
    end = [("dh_n", dh_n, size), ("dc_n", dc_n, hidden)][: cell.states]
    dstate = [or_zeros(name, s, (batch, n), dtype)[steps.order] for name, s, n in end]
    more: Gradients = {}
    own: dict[str, Array] = {}
    for name, value in (("dw_ch", cell.w_ch), ("dln_c", cell.ln_c)):
        if value is not None:
            own[name] = np.zeros_like(value)
    if tape.w_hr is not None:
        dw_hr = more["dw_hr"] = np.zeros_like(tape.w_hr)
    if tape.ln_hh is not None:
        dln_hh = more["dln_hh"] = np.zeros_like(tape.ln_hh)

    du = np.empty_like(tape.gates)
    dv = np.empty_like(du) if cell.apart or tape.ln_hh is not None else du
    # The gradient of R h, and of the sum that it enters: they differ where it is normalised.
    dr = np.empty_like(du) if tape.ln_hh is not None else dv
    early = tape.gates.shape[1] - cell.late * hidden
    for step in reversed(range(len(steps.spans))):
        span = steps.spans[step]
        n = span.stop - span.start
        running = [s[:n] for s in dstate]
        running[0] += dys[span]
        stays = zoneout(tape.variant, steps, step, tuple(running))
        through = [d * s for d, s in zip(running, stays, strict=True)] if stays else []
        for d, part in zip(running, through, strict=False):
            d -= part
        dh = running[0]
        if tape.w_hr is not None and tape.product is not None:
            dw_hr += dh.T @ tape.product[span]
            running[0] = dh @ tape.w_hr
        mask = None if tape.dropout is None else tape.dropout[:n]

        def late(
            d: Array, r: Array, span: slice = span, mask: Array | None = mask
        ) -> tuple[Array, Array]:
            entered = d @ tape.w_hh[early:]
            return entered * tape.h[span], entered * r * (1 if mask is None else mask)

        cell.backward(
            tape.gates[span], tape.saved[step], tuple(running), du[span], dv[span], late, own
        )
        if tape.ln_hh is not None:
            if not cell.apart:
                dv[span] = du[span]
            normal, rate = tape.normal_h[step]
            dln_hh += (dv[span] * normal).sum(axis=0)
            dr[span] = normalise_back(dv[span] * tape.ln_hh, normal, rate)
        if tape.w_hr is not None:
            dh[...] = 0
        dh_in = dr[span][:, :early] @ tape.w_hh[:early]
        dh += dh_in if mask is None else dh_in * mask
        for d, part in zip([dh, *running[1:]], through, strict=False):
            d += part

    db_ih = du.sum(axis=0)
    db_hh = dv.sum(axis=0) if cell.apart else db_ih.copy()
    if tape.ln_ih is not None and tape.normal_x is not None:
        more["dln_ih"] = (du * tape.normal_x[0]).sum(axis=0)
        du = normalise_back(du * tape.ln_ih, *tape.normal_x)
    dx = np.zeros(tape.x_shape, dtype)
    dx[steps.rows, steps.times] = du @ tape.w_ih
    dh0, *dc0 = (s[steps.back] for s in dstate)
    dw_hh = dr.T @ tape.h
    if tape.late is not None:
        dw_hh[early:] = dr[:, early:].T @ tape.late
    return {
        "dx": dx,
        "dh0": dh0,
        "dc0": dc0[0] if dc0 else None,
        "dw_ih": du.T @ tape.x,
        "dw_hh": dw_hh,
        "db_ih": db_ih,
        "db_hh": db_hh,
        **own,
        **more,
    }
