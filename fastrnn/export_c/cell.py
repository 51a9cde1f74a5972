"""The C of one recurrent layer: a time step as csrc/kernels/forward.inc has it, unit by unit."""

from __future__ import annotations

import numpy as np

from fastrnn.export_c.code import Code
from fastrnn.layers.recurrent import Recurrent
from fastrnn.parameter import Array

Weights = dict[str, Array]  # by their kind, see _core.WEIGHTS


def add_cell(code: Code, at: str, layer: Recurrent, weights: Weights, x: str) -> str:
    """Write one layer that is called `at` and takes `x`; returns where its h is."""
    cell = _Cell(code, at, layer, weights)
    if cell.name not in code.cells:
        code.parts.append(code.kernels.cell(cell.name))
        code.cells.add(cell.name)
    lines = cell.step()
    function = f"{code.name}_recurrent{at}"
    title = f"{type(layer).__name__} ({cell.name}), {cell.I} to {cell.P}"
    rooms = ", ".join(f"{name}[{size}]" for name, size in cell.rooms.items())
    code.function(title, f"{function}(@state *s, const # *x)", [f"# {rooms};", *lines])
    code.state += [f"{code.real} {name}[{size}];" for name, size in cell.states.items()]
    code.state_size += sum(cell.states.values())
    code.stack += sum(cell.rooms.values())
    code.calls.append(f"{function}(s, {x});")
    return cell.h


class _Cell:
    """What a layer's function is made of; # and @ as in `Code.function`, j counts units."""

    def __init__(self, code: Code, at: str, layer: Recurrent, weights: Weights) -> None:
        self.code, self.at, self.layer, self.weights = code, at, layer, weights
        self.name, self.options = layer._cell(), layer._core_options()
        size = code.kernels.sizes(self.name)
        self.gates, self.saved = size["GATES"], size["SAVED"]
        self.late = size.get("LATE", self.gates)
        self.has_c, self.direct_h = bool(size["HAS_C"]), bool(size["DIRECT_H"])
        # A block beyond the gates' own: so many, the last, keep both sides' parts to the end.
        self.joined = self.gates - (self.saved - self.gates)
        self.I, self.H, self.P = weights["weight_ih"].shape[1], layer.hidden_size, layer.output_size
        self.units, self.outputs = code.whole(self.H), code.whole(self.P)
        self.projects = bool(layer.proj_size)
        self.h, self.c = f"s->h{at}", f"s->c{at}"
        self.states = {f"h{at}": self.outputs}
        if self.has_c:
            self.states[f"c{at}"] = self.units
        self.rooms = {"x_part": self.gates * self.units, "h_part": self.late * self.units}
        self.equations = self._equations()

    def step(self) -> list[str]:
        """All lines of the function but the arrays that it wants."""
        lines = [*self._products(), *self._loop(*self._unit())]
        if self.layer.layer_norm and self.has_c:
            lines += self._normalised_output()
        if self.projects:
            w_hr = self._array("hr", self.code.columns(self.weights["weight_hr"]))
            lines.append(f"@k_product({self.H}, second, {self.outputs}, {w_hr}, sums);")
            lines += self._loop(self._put_h("sums[j]"), n=self.outputs)
        if self.late < self.gates:
            lines += self._late_gates()
        return lines

    def _array(self, kind: str, values: Array) -> str:
        axes = "".join(f"[{axis}]" for axis in values.shape)
        return self.code.array(f"{kind}{self.at}", values, axes)

    def _rows(self, kind: str, name: str, rows: int) -> str:
        return self._array(kind, self.code.rows(self.weights[name], rows))

    def _loop(self, *lines: str, n: int = 0) -> list[str]:
        body = [f"    {line}" for line in lines]
        return [f"for (int j = 0; j < {n or self.units}; j++) {{", *body, "}"]

    def _block(self, array: str, gate: int) -> str:
        return f"{array}[{gate * self.units} + j]"

    def _equations(self) -> str:
        """What the cell's functions are told."""
        options, clip, prefix = self.options, self.layer.clip, f"{self.code.name.upper()}_FRNN_"
        gate = options.get("gate_activation") or "sigmoid"
        own = "relu" if self.name == "rnn_relu" else "tanh"
        state = options.get("state_activation") or own
        peephole, forget = int(options.get("peephole", False)), int(self.name == "lstm_forget")
        w_ch = ["0"]
        if peephole:
            array = self._rows("p", "weight_ch", self.gates - 1)
            w_ch = [self._block(array, g) for g in range(self.gates - 1)]
        return (
            f"const @k_equations e = {{{prefix}{gate.upper()}, {prefix}{state.upper()}, "
            f"{int(clip is not None)}, {peephole}, {forget}, (#){clip or 0}, "
            f"{{{', '.join(w_ch)}}}}};"
        )

    def _products(self) -> list[str]:
        code, weights, w_hh = self.code, self.weights, self.weights["weight_hh"]
        w = self._array("w", code.columns(weights["weight_ih"], self.gates))
        r = self._array("r", code.columns(w_hh[: self.late * self.H], self.late))
        lines = [
            f"@k_product({self.I}, x, {self.gates * self.units}, {w}, x_part);",
            f"@k_product({self.P}, {self.h}, {self.late * self.units}, {r}, h_part);",
        ]
        if self.layer.layer_norm:
            lines.insert(0, "# mean_x, rate_x, mean_h, rate_h;")
            sizes = f"{self.gates}, {self.H}, {self.units}"
            lines += [
                f"@k_moments({sizes}, {side}_part, &mean_{side}, &rate_{side});" for side in "xh"
            ]
        return lines

    def _unit(self) -> list[str]:
        """A unit, up to its h, or to what a second product or a normalisation takes."""
        c, kept = (
            f"{self.c}[j]",
            [f"{self._block('x_part', g)} = a[{g}];" for g in range(self.saved)],
        )
        h = f"{self.h}[j]" if self.direct_h else "0"
        lines = [self.equations, f"# a[{self.saved}], h = {h}, c = {c if self.has_c else 0};"]
        lines += [*self._sums(), f"@k_{self.name}_forward(&e, a, &h, &c);"]
        waits = self.has_c and self.layer.layer_norm  # h for all of c'
        if waits:
            self.rooms["new_c"] = self.units
            lines += [*kept, "new_c[j] = c;"]
        if self.options.get("zoneout_c"):
            lines.append(f"c = @k_zone_out((#){self.options['zoneout_c']}, {c}, c);")
        if self.has_c:
            lines.append(f"{c} = c;")
        if self.late < self.gates:
            self.rooms |= {"second": self.units, "sums": self.units}
            return [*lines, *kept, f"second[j] = @k_{self.name}_late_in(a, h);"]
        return lines if waits else [*lines, self._put_output("h")]

    def _sums(self) -> list[str]:
        """a, the gates before their activations."""
        b_ih, b_hh = (
            self.weights.get(name, np.zeros(self.gates * self.H, self.code.dtype)).copy()
            for name in ("bias_ih", "bias_hh")
        )
        joined = self.joined * self.H
        b_ih[:joined] += b_hh[:joined]
        b, lines = self._array("b", self.code.rows(b_ih, self.gates)), []
        if self.joined < self.gates:
            apart = self.gates - self.joined
            b_h = self._array("bh", self.code.rows(b_hh[joined:], apart))
        if self.layer.layer_norm:
            ln_x = self._rows("ln_x", "ln_ih", self.gates)
            ln_h = self._rows("ln_h", "ln_hh", self.gates)
        for g in range(self.gates):
            x, h, bias = (self._block(array, g) for array in ("x_part", "h_part", b))
            if self.layer.layer_norm:
                scale_x, scale_h = self._block(ln_x, g), self._block(ln_h, g)
                x = f"@k_v_fma(@k_normal({x}, mean_x, rate_x), {scale_x}, {bias})"
                h = f"@k_normal({h}, mean_h, rate_h) * {scale_h}"
            else:
                x = f"({x} + {bias})"
            if g >= self.late or g >= self.joined:
                lines.append(f"a[{g}] = {x};")
            else:
                lines.append(f"a[{g}] = {x} + {h};")
            if g >= self.joined:
                apart = g - self.joined
                lines.append(f"a[{self.gates + apart}] = {self._block(b_h, apart)} + {h};")
        return lines

    def _put_h(self, value: str) -> str:
        old = f"{self.h}[j]"
        if self.layer.zoneout_h:
            value = f"@k_zone_out((#){self.layer.zoneout_h}, {old}, {value})"
        return f"{old} = {value};"

    def _put_output(self, value: str) -> str:
        """What the cell made of c': h, or what is projected."""
        if not self.projects:
            return self._put_h(value)
        self.rooms |= {"second": self.units, "sums": self.outputs}
        return f"second[j] = {value};"

    def _taken(self) -> str:
        """a, as the first loop has left it."""
        values = ", ".join(self._block("x_part", g) for g in range(self.saved))
        return f"# a[] = {{{values}}};"

    def _normalised_output(self) -> list[str]:
        scale = self._rows("ln_c", "ln_c", 2)
        normal = "@k_normal(new_c[j], mean_c, rate_c)"
        c = f"@k_v_fma({normal}, {self._block(scale, 0)}, {self._block(scale, 1)})"
        output = self._put_output(f"@k_{self.name}_output(&e, a, {c})")
        return [
            "# mean_c, rate_c;",
            f"@k_moments(1, {self.H}, {self.units}, new_c, &mean_c, &rate_c);",
            *self._loop(self.equations, self._taken(), output),
        ]

    def _late_gates(self) -> list[str]:
        w_hh = self.weights["weight_hh"][self.late * self.H :]
        r = self._array("late", self.code.columns(w_hh))
        h = f"@k_{self.name}_forward_late(&e, a, sums[j], {self.h}[j])"
        return [
            f"@k_product({self.H}, second, {self.units}, {r}, sums);",
            *self._loop(self.equations, self._taken(), self._put_h(h)),
        ]
