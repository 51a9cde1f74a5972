"""What each cell does to the rows of a batch in one step, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fastrnn.reference.activations import ACTIVATIONS, Activation
from fastrnn.reference.normalisation import normalise, normalise_back

Array = NDArray[np.floating]
State = tuple[Array, ...]  # (h,), or (h, c) for a cell that carries c
Late = Callable[[Array], Array]
LateBack = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Cell:
    """One time step of n rows.

    ``gates`` is G; ``states`` counts the arrays of the state, each (n, H). Pre-activations come in
    two halves (n, G*H): u = W x + b_ih and v = R h + b_hh. Most gates take the sum, so that their
    b_hh can be, and is, in u instead; only the last ``apart`` gates have it in v. The last ``late``
    gates are not in v: their R acts on r * h, when r is known.

    w_ch (n, H) and ln_c (2, H) are weights of its own, None where it has none.
    """

    gates: ClassVar[int]
    states: ClassVar[int] = 1
    apart: ClassVar[int] = 0
    late: ClassVar[int] = 0

    gate: Activation = ACTIVATIONS["sigmoid"]
    state: Activation = ACTIVATIONS["tanh"]
    output_state: Activation = ACTIVATIONS["tanh"]  # that of c': clip is not for it
    w_ch: Array | None = None
    ln_c: Array | None = None

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        """The next state, and what `backward` needs beyond the gates; `u` becomes the gates.

        ``late(r)`` is R (r * h) for the late gates.
        """
        raise NotImplementedError

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        """Write `du`, and turn `dstate` from the next state's gradient into this state's.

        What reaches h through v = R h + b_hh is for the caller to add. `dv` is to be written too by
        a cell with gates apart; for the others it is `du` itself. ``late(d, r)`` gives, of the
        gradient d of ``late(r)``, those of r and h. `own`'s dw_ch and dln_c are added to.
        """
        raise NotImplementedError


class RNN(Cell):
    gates = 1

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        u += v
        self.state.f(u, out=u)
        return (u,), ()

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        h_new, (dh,) = gates, dstate
        du[...] = dh * self.state.slope(h_new)
        dh[...] = 0


class GRU(Cell):
    """The reset gate acts after the product, as in PyTorch: n = tanh(u_n + r * v_n)."""

    gates = 3
    apart = 1

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        (h,) = state
        r, z, n = blocks(u, 3)
        u_n, v_n = n.copy(), blocks(v, 3)[2].copy()
        u += v
        self.gate.f(u, out=u)  # n's columns too: whole rows are faster than a part of each
        n[...] = self.state.f(u_n + r * v_n)
        h_new = (1 - z) * n + z * h
        return (h_new,), (h, v_n)

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        r, z, n = blocks(gates, 3)
        du_r, du_z, du_n = blocks(du, 3)
        (h, v_n), (dh,) = saved, dstate
        du_n[...] = dh * (1 - z) * self.state.slope(n)
        du_z[...] = dh * (h - n) * self.gate.slope(z)
        du_r[...] = du_n * v_n * self.gate.slope(r)
        dv[...] = du
        blocks(dv, 3)[2][...] *= r
        dh *= z


class GRUBefore(Cell):
    """The reset gate acts before the product: n = tanh(u_n + R_n (r * h))."""

    gates = 3
    late = 1

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        (h,) = state
        r, z, n = blocks(u, 3)
        for gate, v_gate in zip((r, z), blocks(v, 2), strict=True):
            gate[...] = self.gate.f(gate + v_gate)
        n[...] = self.state.f(n + late(r))
        return ((1 - z) * n + z * h,), (h,)

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        r, z, n = blocks(gates, 3)
        du_r, du_z, du_n = blocks(du, 3)
        (h,), (dh,) = saved, dstate
        du_n[...] = dh * (1 - z) * self.state.slope(n)
        du_z[...] = dh * (h - n) * self.gate.slope(z)
        dr, dh_late = late(du_n, r)
        du_r[...] = dr * self.gate.slope(r)
        dh *= z
        dh += dh_late


class GRUMinimal(Cell):
    """One gate and no reset: h' = z * n + (1 - z) * h; mind that z weighs the new."""

    gates = 2

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        (h,) = state
        u += v
        z, n = blocks(u, 2)
        z[...] = self.gate.f(z)
        n[...] = self.state.f(n)
        return (z * n + (1 - z) * h,), (h,)

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        z, n = blocks(gates, 2)
        du_z, du_n = blocks(du, 2)
        (h,), (dh,) = saved, dstate
        du_z[...] = dh * (n - h) * self.gate.slope(z)
        du_n[...] = dh * z * self.state.slope(n)
        dh *= 1 - z


class CarriesC(Cell):
    """What cells with a c share: h' = o * act(c'), or with ln_c o * act(LN(c') * g + b).

    w_ch are the peepholes: diagonals from c to the gates before o, from c' to o.
    """

    states = 2

    def output(self, o: Array, c_new: Array) -> tuple[Array, Array, State]:
        """h', act(...), and what `output_back` needs of a normalisation."""
        if self.ln_c is None:
            s = self.output_state.f(c_new)
            return o * s, s, ()
        scale, shift = self.ln_c
        normal, rate = normalise(c_new)
        s = self.output_state.f(normal * scale + shift)
        return o * s, s, (normal, rate)

    def output_back(
        self, o: Array, s: Array, kept: State, dh: Array, own: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """The gradients of o before its activation, and of c'."""
        du_o = dh * s * self.gate.slope(o)
        dc: Array = dh * o * self.output_state.slope(s)
        if self.ln_c is not None:
            normal, rate = kept
            own["dln_c"][0] += (dc * normal).sum(axis=0)
            own["dln_c"][1] += dc.sum(axis=0)
            dc = normalise_back(dc * self.ln_c[0], normal, rate)
        return du_o, dc

    def peep(self, gate: Array, which: int, c: Array) -> None:
        if self.w_ch is not None:
            gate += self.w_ch[which] * c

    def peep_back(
        self, du: Array, which: int, c: Array, dc: Array, own: Mapping[str, Array]
    ) -> None:
        """Adds what passed a peephole to dc, c's gradient."""
        if self.w_ch is not None:
            own["dw_ch"][which] += (du * c).sum(axis=0)
            dc += self.w_ch[which] * du


class LSTM(CarriesC):
    gates = 4

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        _, c = state
        u += v
        i, f, g, o = blocks(u, 4)
        self.peep(i, 0, c)
        self.peep(f, 1, c)
        act_g, u_o = self.state.f(g), o.copy()
        self.gate.f(u, out=u)  # g's columns too: whole rows are faster than a part of each
        g[...] = act_g
        c_new = f * c + i * g
        if self.w_ch is not None:
            self.peep(u_o, 2, c_new)
            o[...] = self.gate.f(u_o)
        h_new, s, kept = self.output(o, c_new)
        return (h_new, c_new), (c, c_new, s, *kept)

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        i, f, g, o = blocks(gates, 4)
        du_i, du_f, du_g, du_o = blocks(du, 4)
        (c, c_new, s, *kept), (dh, dc) = saved, dstate
        du_o[...], dc_new = self.output_back(o, s, tuple(kept), dh, own)
        dc += dc_new
        self.peep_back(du_o, 2, c_new, dc, own)
        du_i[...] = dc * g * self.gate.slope(i)
        du_f[...] = dc * c * self.gate.slope(f)
        du_g[...] = dc * i * self.state.slope(g)
        dc *= f
        self.peep_back(du_i, 0, c, dc, own)
        self.peep_back(du_f, 1, c, dc, own)
        dh[...] = 0


@dataclass(frozen=True)
class LSTMCoupled(CarriesC):
    """Gates p, g, o: p is i and f = 1 - i, or with `forget` p is f and i = 1 - f."""

    gates: ClassVar[int] = 3
    forget: bool = field(default=False, kw_only=True)

    def forward(self, u: Array, v: Array, state: State, late: Late) -> tuple[State, State]:
        _, c = state
        u += v
        p, g, o = blocks(u, 3)
        self.peep(p, 0, c)
        p[...] = self.gate.f(p)
        g[...] = self.state.f(g)
        i = 1 - p if self.forget else p
        c_new = (1 - i) * c + i * g
        self.peep(o, 1, c_new)
        o[...] = self.gate.f(o)
        h_new, s, kept = self.output(o, c_new)
        return (h_new, c_new), (c, c_new, s, *kept)

    def backward(
        self,
        gates: Array,
        saved: State,
        dstate: State,
        du: Array,
        dv: Array,
        late: LateBack,
        own: Mapping[str, Array],
    ) -> None:
        p, g, o = blocks(gates, 3)
        du_p, du_g, du_o = blocks(du, 3)
        (c, c_new, s, *kept), (dh, dc) = saved, dstate
        du_o[...], dc_new = self.output_back(o, s, tuple(kept), dh, own)
        dc += dc_new
        self.peep_back(du_o, 1, c_new, dc, own)
        i = 1 - p if self.forget else p
        di = dc * (g - c)
        du_p[...] = (-di if self.forget else di) * self.gate.slope(p)
        du_g[...] = dc * i * self.state.slope(g)
        dc *= 1 - i
        self.peep_back(du_p, 0, c, dc, own)
        dh[...] = 0


CELLS: dict[str, Cell] = {
    "rnn_tanh": RNN(),
    "rnn_relu": RNN(state=ACTIVATIONS["relu"]),
    "gru": GRU(),
    "lstm": LSTM(),
    "gru_minimal": GRUMinimal(),
    "lstm_input": LSTMCoupled(),
    "lstm_forget": LSTMCoupled(forget=True),
    "gru_before": GRUBefore(),
}


def find_cell(cell: str | Cell) -> Cell:
    """The cell of that name; a Cell is itself."""
    if isinstance(cell, str) and cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    return CELLS[cell] if isinstance(cell, str) else cell


def blocks(a: Array, gates: int) -> list[Array]:
    """The gates' columns of `a` (n, G*H), as views (n, H)."""
    return list(a.reshape(len(a), gates, -1).swapaxes(0, 1))
