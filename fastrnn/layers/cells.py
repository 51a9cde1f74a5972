"""RNN, GRU and LSTM: which cell, and what each has for itself."""

from __future__ import annotations

import itertools
from typing import Any

from fastrnn.checks import check_choice, check_flag, check_probability, check_size
from fastrnn.layers.recurrent import Recurrent

ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "identity")
_COUPLED = {"f=1-i": "lstm_input", "i=1-f": "lstm_forget"}


class RNN(Recurrent):
    """Vanilla (Elman) RNN: h' = act(W x + b_ih + R h + b_hh).

    Names and shapes are `torch.nn.RNN`'s: ``weight_ih_l{k}`` (H, I; above layer 0 D*H),
    ``weight_hh_l{k}`` (H, H), ``bias_ih_l{k}``, ``bias_hh_l{k}`` (H), with ``_reverse`` appended
    for the other direction. The state is h.

    `nonlinearity`: "tanh", "relu", "sigmoid", "hard_sigmoid" (x / 6 + 1/2 between 0 and 1) or
    "identity".

    The relu network of Le, Jaitly and Hinton (2015) is ``RNN(I, H, nonlinearity="relu",
    recurrent_initializer="identity", bias_initializer="zeros")``.
    """

    gates = 1
    own = ("nonlinearity",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        **options: Any,
    ) -> None:
        self.nonlinearity = check_choice(nonlinearity, ACTIVATIONS, "nonlinearity")
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _cell(self) -> str:
        return "rnn_relu" if self.nonlinearity == "relu" else "rnn_tanh"

    def _core_options(self) -> dict[str, Any]:
        plain = self.nonlinearity in ("tanh", "relu")
        return {"state_activation": None if plain else self.nonlinearity}


class GRU(Recurrent):
    """GRU (Cho et al. 2014) with the reset after the product, as cuDNN, PyTorch and Keras have it.

    r, z = σ(W x + b_ih + R h + b_hh), n = tanh(W_n x + b_in + r ⊙ (R_n h + b_hn)),
    h' = (1 - z) ⊙ n + z ⊙ h. Names and shapes are `torch.nn.GRU`'s: ``weight_ih_l{k}`` (3*H, I;
    above layer 0 D*H; blocks r, z, n), ``weight_hh_l{k}`` (3*H, H), ``bias_ih_l{k}``,
    ``bias_hh_l{k}`` (3*H), with ``_reverse`` appended for the other direction. The state is h.

    - `reset_after=False`: n = tanh(W_n x + b_in + R_n (r ⊙ h) + b_hn), as in the paper and, by
      default, in ONNX. Not with `layer_norm`.
    - ``variant="minimal"`` has one gate and no reset (blocks z, n): z = σ(W x + b_ih + R h + b_hh),
      n = tanh(likewise), h' = z ⊙ n + (1 - z) ⊙ h; mind that z weighs the new.
    - `gate_activation` in the place of σ, `state_activation` in that of tanh, see `LSTM`.
    """

    gates = 3
    own = ("variant", "reset_after", "gate_activation", "state_activation")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        variant: str = "standard",
        reset_after: bool = True,
        gate_activation: str = "sigmoid",
        state_activation: str = "tanh",
        **options: Any,
    ) -> None:
        self.variant = check_choice(variant, ("standard", "minimal"), "variant")
        self.reset_after = check_flag(reset_after, "reset_after")
        self.gate_activation = check_choice(gate_activation, ACTIVATIONS, "gate_activation")
        self.state_activation = check_choice(state_activation, ACTIVATIONS, "state_activation")
        if variant == "minimal":
            self.gates = 2
            if not reset_after:
                raise ValueError("reset_after: expected True for the minimal GRU: it has no reset")
        if not reset_after and options.get("layer_norm"):
            raise ValueError("layer_norm: expected False with reset_after=False")
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _cell(self) -> str:
        if self.variant == "minimal":
            return "gru_minimal"
        return "gru" if self.reset_after else "gru_before"

    def _core_options(self) -> dict[str, Any]:
        return _activations(self.gate_activation, self.state_activation)


class LSTM(Recurrent):
    """LSTM (Hochreiter and Schmidhuber 1997, with forget gates: Gers et al. 2000).

    i, f, o = σ(W x + b_ih + R h + b_hh), g = tanh(likewise), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').
    Names and shapes are `torch.nn.LSTM`'s: ``weight_ih_l{k}`` (4*H, I; above layer 0 D*H; blocks
    i, f, g, o), ``weight_hh_l{k}`` (4*H, H), ``bias_ih_l{k}``, ``bias_hh_l{k}`` (4*H), with
    ``_reverse`` appended for the other direction. The state is (h, c).

    - `proj_size` P, from 1 to H (Sak et al. 2014, and `torch.nn.LSTM`): h' = W_hr (o ⊙ tanh(c')),
      ``weight_hr_l{k}`` (P, H); h and the output have P values where they have H otherwise.
    - `peephole` (Gers and Schmidhuber 2000): i and f see c, o sees c', each through a diagonal:
      rows i, f, o of ``weight_ch_l{k}`` (3, H). Not with `layer_norm`.
    - `coupled` gates (Greff et al. 2017) have one for both i and f, so three blocks: "f=1-i"
      (blocks i, g, o), ONNX's `input_forget`, or "i=1-f" (blocks f, g, o), TensorFlow Lite's CIFG;
      then ``weight_ch_l{k}`` is (2, H).
    - `gate_activation` in the place of σ, `state_activation` in both places of tanh: "sigmoid",
      "tanh", "relu", "hard_sigmoid" (x / 6 + 1/2 between 0 and 1) or "identity".
    - `zoneout_c`: as `zoneout_h`, for c; what h' and the peephole of o see is c' before it.
    - `layer_norm` takes c' too: h' = o ⊙ tanh(LN(c') ⊙ s + b), s and b the rows of ``ln_c_l{k}``
      (2, H), from 1 and 0.
    - `unit_forget_bias`, Keras's default: f's bias_ih starts from 1 and its bias_hh from 0, so that
      c is kept at first (Jozefowicz et al. 2015).
    """

    gates = 4
    has_c = True
    own = (
        "proj_size", "peephole", "coupled", "gate_activation", "state_activation", "zoneout_c",
        "unit_forget_bias",
    )  # fmt: skip

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: str | None = None,
        gate_activation: str = "sigmoid",
        state_activation: str = "tanh",
        zoneout_c: float = 0.0,
        unit_forget_bias: bool = False,
        **options: Any,
    ) -> None:
        if coupled is not None:
            check_choice(coupled, list(_COUPLED), "coupled")
            self.gates = 3
        self.coupled = coupled
        self.proj_size = check_size(proj_size, "proj_size") if proj_size != 0 else 0
        if self.proj_size > check_size(hidden_size, "hidden_size"):
            raise ValueError(f"proj_size: expected 0 to {hidden_size}, got {proj_size}")
        if options.get("recurrent_initializer") == "identity" and 0 < self.proj_size < hidden_size:
            raise ValueError(
                "recurrent_initializer: expected another than 'identity' where proj_size is less "
                "than hidden_size"
            )
        self.peephole = check_flag(peephole, "peephole")
        if peephole and options.get("layer_norm"):
            raise ValueError("peephole: expected False with layer_norm=True")
        self.gate_activation = check_choice(gate_activation, ACTIVATIONS, "gate_activation")
        self.state_activation = check_choice(state_activation, ACTIVATIONS, "state_activation")
        self.zoneout_c = check_probability(zoneout_c, "zoneout_c")
        self.unit_forget_bias = check_flag(unit_forget_bias, "unit_forget_bias")
        super().__init__(input_size, hidden_size, num_layers, **options)
        if unit_forget_bias:
            self._set_forget_biases()

    def _set_forget_biases(self) -> None:
        if not self.bias or self.coupled == "f=1-i":
            lacking = "bias" if not self.bias else "forget gate"
            raise ValueError(f"unit_forget_bias: expected False where there is no {lacking}")
        first = 0 if self.coupled else self.hidden_size
        for _, _, *biases in itertools.chain(*self.weights):
            for value, bias in zip((1, 0), biases, strict=False):
                if bias is None:
                    continue
                with bias.writing() as data:
                    data[first : first + self.hidden_size] = value

    def _cell(self) -> str:
        return _COUPLED[self.coupled] if self.coupled else "lstm"

    def _core_options(self) -> dict[str, Any]:
        return {
            "proj_size": self.proj_size,
            "peephole": self.peephole,
            "zoneout_c": self.zoneout_c,
            **_activations(self.gate_activation, self.state_activation),
        }


def _activations(gate: str, state: str) -> dict[str, str | None]:
    """Named where they are not the cell's own: the plain cell is faster."""
    return {
        "gate_activation": None if gate == "sigmoid" else gate,
        "state_activation": None if state == "tanh" else state,
    }


CELLS: dict[str, type[RNN | GRU | LSTM]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
