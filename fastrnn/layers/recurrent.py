"""RNN, GRU and LSTM: parameters, and one call into the core for each layer and direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _core, config, initializers
from fastrnn.layers.base import (
    Layer,
    check_choice,
    check_dtype,
    check_entries,
    check_flag,
    check_input,
    check_probability,
    check_seed,
    check_size,
)
from fastrnn.layers.call import forward
from fastrnn.layers.ragged import forward_masked
from fastrnn.layers.stream import Stream
from fastrnn.parameter import Array, Parameter

RecurrentPullback = Callable[..., tuple[Array, Any]]

_MAX_LAYERS = 1000
_COUPLED = {"f=1-i": "lstm_input", "i=1-f": "lstm_forget"}


class _Packed(NamedTuple):
    """A layer's packs by direction, and the versions of the parameters that they were made from."""

    packs: tuple[_core.Pack, ...]
    versions: list[tuple[Parameter, int]]


class Recurrent(Layer):
    """What RNN, GRU and LSTM share; the constructor's arguments are PyTorch's.

    What weights start from has Keras's names: `kernel_initializer` for weight_ih and
    `recurrent_initializer` for weight_hh, "uniform" (U(-1/sqrt(H), 1/sqrt(H)), as PyTorch has it),
    "glorot_uniform", "orthogonal", "identity" (weight_hh only, for each gate) or "zeros", and
    `bias_initializer`, "uniform" or "zeros". Keras's own are "glorot_uniform", "orthogonal" and
    "zeros".

    Raises TypeError or ValueError, naming the argument, for what does not fit.
    """

    recurrent = True
    gates: int
    has_c: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool | str = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        return_sequences: bool = True,
        kernel_initializer: str = "uniform",
        recurrent_initializer: str = "uniform",
        bias_initializer: str = "uniform",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = check_size(input_size, "input_size")
        self.hidden_size = check_size(hidden_size, "hidden_size")
        self.num_layers = check_size(num_layers, "num_layers")
        if self.num_layers > _MAX_LAYERS:
            raise ValueError(f"num_layers: expected at most {_MAX_LAYERS}, got {num_layers}")
        if not (isinstance(bias, bool) or bias == "single"):
            raise ValueError(f"bias: expected True, False or 'single', got {bias!r}")
        self.bias = bias
        self.batch_first = check_flag(batch_first, "batch_first")
        self.dropout = check_probability(dropout, "dropout")
        self.bidirectional = check_flag(bidirectional, "bidirectional")
        self.return_sequences = check_flag(return_sequences, "return_sequences")
        self.initializers = {
            name: check_choice(value, choices, name)
            for name, value, choices in (
                ("kernel_initializer", kernel_initializer, initializers.KERNEL),
                ("recurrent_initializer", recurrent_initializer, initializers.RECURRENT),
                ("bias_initializer", bias_initializer, initializers.BIAS),
            )
        }
        self.dtype = check_dtype(dtype)
        self.seed = check_seed(seed)
        self.directions = 2 if bidirectional else 1
        self.double = self.dtype == np.float64
        axes = "(batch, time, {})" if batch_first else "(time, batch, {})"
        self.input_axes = axes.format(self.input_size)
        self.step_axes = f"(batch, {self.input_size})"
        self._packs: dict[int, _Packed] = {}
        self._make_parameters()
        self._entropy = np.random.SeedSequence(self.seed).entropy
        self._training_calls = itertools.count()  # a dropout mask of its own for each

    # --- Parameters -----------------------------------------------------------------------------

    def names(self, index: int) -> list[str]:
        """Parameter names of layer index // D in direction index % D: w_ih, w_hh, b_ih, b_hh."""
        layer, reverse = divmod(index, self.directions)
        suffix = f"l{layer}" + ("_reverse" if reverse else "")
        biases = {True: ["bias_ih", "bias_hh"], "single": ["bias_ih"], False: []}[self.bias]
        return [f"{name}_{suffix}" for name in ["weight_ih", "weight_hh", *biases]]

    def _make_parameters(self) -> None:
        rows, hidden = self.gates * self.hidden_size, self.hidden_size
        widest = max(self.input_size, hidden * self.directions)
        check_entries("input_size" if self.input_size == widest else "hidden_size", (rows, widest))
        rng = np.random.default_rng(self.seed)
        bound = 1 / np.sqrt(hidden)
        for index in range(self.num_layers * self.directions):
            inputs = self.input_size if index < self.directions else hidden * self.directions
            shapes = [(rows, inputs), (rows, hidden), (rows,), (rows,)]
            kernel, recurrent, bias = self.initializers.values()
            starts = [kernel, recurrent, bias, bias]
            for name, shape, start in zip(self.names(index), shapes, starts, strict=False):
                values = initializers.named(start, shape, bound, self.dtype, rng)
                self._parameters[name] = Parameter(values)
        # By layer and direction: w_ih, w_hh, and what biases there are.
        self.weights = [
            [
                [self._parameters[name] for name in self.names(layer * self.directions + d)]
                for d in range(self.directions)
            ]
            for layer in range(self.num_layers)
        ]

    def packs(self, layer: int, training: bool, few: bool = False) -> tuple[_core.Pack, ...]:
        """One layer's packed weights by direction, cached on the parameters' versions.

        Where those at hand are of another version, training for `few` steps and rows takes the
        weights as they stand.
        """
        cached = self._packs.get(layer)
        if cached is not None and cached.packs[0].serves(training, config.chosen_gemm()):
            for parameter, version in cached.versions:
                if parameter.version != version:
                    break
            else:
                return cached.packs
        weights = self.weights[layer]
        if training and few:
            return tuple([self._pack(direction, True, borrowed=True) for direction in weights])
        # Before the values are read: who writes meanwhile makes this pack an old one.
        versions = [(p, p.version) for direction in weights for p in direction]
        packs = tuple([self._pack(direction, training) for direction in weights])
        self._packs[layer] = _Packed(packs, versions)
        return packs

    def _pack(self, weights: list[Parameter], training: bool, borrowed: bool = False) -> _core.Pack:
        w_ih, w_hh, *biases = weights
        return _core.Pack(
            self._cell(), w_ih.snapshot(), w_hh.snapshot(),
            biases[0].data if biases else None, biases[1].data if len(biases) > 1 else None,
            training, config.gemm() == "numpy", config.chosen_gemm(), borrowed,
        )  # fmt: skip

    def _cell(self) -> str:
        raise NotImplementedError

    # Packs are a cache, and a counter cannot be copied everywhere: a copy starts without.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packs": {}, "_training_calls": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._training_calls = itertools.count()

    def dropout_generator(self) -> np.random.Generator:
        """What draws the masks of the next training call: each has its own."""
        seed = np.random.SeedSequence(self._entropy, spawn_key=(next(self._training_calls),))
        return np.random.Generator(np.random.Philox(seed))

    # --- Calls ----------------------------------------------------------------------------------

    def __call__(
        self,
        x: Array,
        state: Any = None,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[Array, Any]:
        """Run over whole sequences, for inference.

        x: (batch, time, input_size), or (time, batch, input_size) without `batch_first`; the
        layer's dtype. state: as returned, (num_layers * D, batch, hidden_size) each, None for
        zeros. lengths: (batch,) integers from 0 to time, in any order: steps past a row's length
        cost nothing and their output is zero. mask, instead: booleans (batch, time), or as x has
        them; as in Keras, a step that is False carries the state and repeats the last output.

        Returns ``(output, state)``: output (batch, time, D * hidden_size), or with
        ``return_sequences=False`` (batch, D * hidden_size), the last layer's final h, directions
        side by side; the state is each row's own last. LSTM's state is ``(h, c)``, others' is h.
        """
        output, state, _ = self._forward(x, state, lengths, mask, training=False)
        return output, state

    def vjp(
        self,
        x: Array,
        state: Any = None,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> tuple[tuple[Array, Any], RecurrentPullback]:
        """The same call for training: ``((output, state), pullback)``; dropout is active.

        ``pullback(doutput, dstate=None)`` returns ``(dx, dstate)``, the gradients of `x` and of the
        initial state, and adds to the parameters' ``.grad``. Each of doutput and dstate's parts may
        be None for zeros. It may be called once, and `x` must not change before.
        """
        output, state, pullback = self._forward(x, state, lengths, mask, training=True)
        return (output, state), pullback

    def _forward(
        self,
        x: Array,
        state: Any,
        lengths: ArrayLike | None,
        mask: ArrayLike | None,
        training: bool,
    ) -> tuple[Array, Any, Any]:
        if mask is None:
            return forward(self, x, state, lengths, training)
        if lengths is not None:
            raise ValueError("mask: expected None where there are lengths")
        return forward_masked(self, x, state, mask, training)

    def stream(self, state: Any = None) -> Stream:
        """This layer fed a piece at a time: ``stream(x)`` goes on from the state it came to.

        state: as returned, None for zeros. Raises ValueError for a bidirectional layer.
        """
        return Stream(self, state)

    def step(
        self, x: Array, state: Any = None, out: tuple[Array | None, Any] | None = None
    ) -> tuple[Array, Any]:
        """One time step: x (batch, input_size) to ``(y, state)``, y (batch, hidden_size).

        Has the same bits as a whole sequence. With ``out=(y, state)`` results are written there and
        nothing is allocated; either may be None for a new one, and this state may be the one that
        is given, to be updated in place. Raises ValueError for a bidirectional layer.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer needs the whole sequence")
        if not _core.walkable(x, 2, self.input_size, self.double):
            x = check_input(x, (None, self.input_size), self.dtype, self.step_axes).copy()
        batch = len(x)
        h_0, c_0 = self.split_state(state, batch)
        if out is not None and not (isinstance(out, tuple | list) and len(out) == 2):
            raise TypeError(f"out: expected (y, state), got {type(out).__name__}")
        y, new = out or (None, None)
        if new is None:
            shape = self.state_shape(batch)
            h_n = _core.empty(shape, self.double)
            c_n = _core.empty(shape, self.double) if self.has_c else None
            new = (h_n, c_n) if self.has_c else h_n
        else:
            h_n, c_n = new if self.has_c else (new, None)
        if y is None:
            y = _core.empty((batch, self.hidden_size), self.double)
        last = self.num_layers - 1
        for k in range(self.num_layers):
            packs = self.packs(k, False)
            _core.forward(packs, k, self.num_layers, x, None, False, True, h_0, c_0,
                          y if k == last else None, h_n, c_n, False)  # fmt: skip
            if k < last:
                x = h_n[k]
        return y, new

    def initial_state(self, batch: int = 1) -> Any:
        """Zeros: h, for LSTM (h, c), each (num_layers * D, batch, hidden_size)."""
        shape = self.state_shape(check_size(batch, "batch"))
        check_entries("batch", shape)
        h = np.zeros(shape, self.dtype)
        return (h, np.zeros(shape, self.dtype)) if self.has_c else h

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """(num_layers * D, batch, hidden_size)."""
        return (self.num_layers * self.directions, batch, self.hidden_size)

    def split_state(
        self, state: Any, batch: int, names: tuple[str, str] = ("h_0", "c_0")
    ) -> tuple[Array | None, Array | None]:
        """A state as (h, c), checked; None where there is none."""
        if state is None:
            return None, None
        h, c = state, None
        if self.has_c:
            if not isinstance(state, tuple | list) or len(state) != 2:
                got = type(state).__name__
                raise TypeError(f"state: expected ({names[0]}, {names[1]}), got {got}")
            h, c = state
        shape = self.state_shape(batch)
        if not (h is None or _core.matches(h, shape, self.double)):
            h = self._check_state(h, shape, names[0])
        if not (c is None or _core.matches(c, shape, self.double)):
            c = self._check_state(c, shape, names[1])
        return h, c

    def _check_state(self, state: Any, shape: tuple[int, ...], name: str) -> Array:
        array = np.asarray(state)
        if array.shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {array.shape}")
        if array.dtype != self.dtype:
            raise TypeError(
                f"{name}: expected {self.dtype}, got {array.dtype}; "
                f"convert with {name}.astype({self.dtype.name!r})"
            )
        return np.require(array, requirements=["C", "A"])

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if len(input_shape) != 3 or input_shape[2] not in (None, self.input_size):
            raise ValueError(
                f"input_shape: expected (batch, time, {self.input_size}), got {input_shape}"
            )
        features = self.hidden_size * self.directions
        if self.return_sequences:
            return (*input_shape[:2], features)
        return (input_shape[0 if self.batch_first else 1], features)

    def config(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "return_sequences": self.return_sequences,
            **self.initializers,
            "dtype": self.dtype.name,
            "seed": self.seed,
        }


class RNN(Recurrent):
    """Vanilla (Elman) RNN: h' = act(W x + b_ih + R h + b_hh), act tanh or relu.

    Arguments, names and shapes are `torch.nn.RNN`'s, with ``batch_first=True`` the default:
    ``weight_ih_l{k}`` (H, I; above layer 0 D*H), ``weight_hh_l{k}`` (H, H), ``bias_ih_l{k}``,
    ``bias_hh_l{k}`` (H), with ``_reverse`` appended for the other direction; all start from
    U(-1/sqrt(H), 1/sqrt(H)), or as the initializers say (see `Recurrent`). ``bias="single"`` keeps
    ``bias_ih`` alone. `dropout` acts between layers, in `vjp` only. The state is h.

    The relu network of Le, Jaitly and Hinton (2015) is ``RNN(I, H, nonlinearity="relu",
    recurrent_initializer="identity", bias_initializer="zeros")``.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        **options: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _cell(self) -> str:
        return f"rnn_{self.nonlinearity}"

    def config(self) -> dict[str, Any]:
        return {**super().config(), "nonlinearity": self.nonlinearity}


class GRU(Recurrent):
    """GRU (Cho et al. 2014) with the reset after the product, as cuDNN, PyTorch and Keras have it.

    r, z = σ(W x + b_ih + R h + b_hh), n = tanh(W_n x + b_in + r ⊙ (R_n h + b_hn)),
    h' = (1 - z) ⊙ n + z ⊙ h. Arguments, names and shapes are `torch.nn.GRU`'s (blocks r, z, n), see
    `RNN`. The state is h.

    ``variant="minimal"`` has one gate and no reset (blocks z, n): z = σ(W x + b_ih + R h + b_hh),
    n = tanh(likewise), h' = z ⊙ n + (1 - z) ⊙ h; mind that z weighs the new.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        variant: str = "standard",
        **options: Any,
    ) -> None:
        self.variant = check_choice(variant, ("standard", "minimal"), "variant")
        if variant == "minimal":
            self.gates = 2
        super().__init__(input_size, hidden_size, num_layers, **options)

    def _cell(self) -> str:
        return "gru" if self.variant == "standard" else "gru_minimal"

    def config(self) -> dict[str, Any]:
        return {**super().config(), "variant": self.variant}


class LSTM(Recurrent):
    """LSTM (Hochreiter and Schmidhuber 1997, with forget gates: Gers et al. 2000).

    i, f, o = σ(W x + b_ih + R h + b_hh), g = tanh(likewise), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').
    Arguments, names and shapes are `torch.nn.LSTM`'s (blocks i, f, g, o), see `RNN`. The state is
    (h, c). With `unit_forget_bias`, Keras's default, f's bias_ih starts from 1 and its bias_hh from
    0, so that c is kept at first (Jozefowicz et al. 2015).

    `coupled` gates (Greff et al. 2017) have one for both i and f, so three blocks: "f=1-i" (blocks
    i, g, o), ONNX's `input_forget`, or "i=1-f" (blocks f, g, o), TensorFlow Lite's CIFG.
    """

    gates = 4
    has_c = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        coupled: str | None = None,
        unit_forget_bias: bool = False,
        **options: Any,
    ) -> None:
        if coupled is not None:
            check_choice(coupled, list(_COUPLED), "coupled")
            self.gates = 3
        self.coupled = coupled
        self.unit_forget_bias = check_flag(unit_forget_bias, "unit_forget_bias")
        super().__init__(input_size, hidden_size, num_layers, **options)
        if unit_forget_bias and (not self.bias or coupled == "f=1-i"):
            lacking = "bias" if not self.bias else "forget gate"
            raise ValueError(f"unit_forget_bias: expected False where there is no {lacking}")
        first = 0 if coupled else self.hidden_size
        for _, _, *biases in itertools.chain(*self.weights) if unit_forget_bias else ():
            for value, bias in zip((1, 0), biases, strict=False):
                with bias.writing() as data:
                    data[first : first + self.hidden_size] = value

    def _cell(self) -> str:
        return _COUPLED[self.coupled] if self.coupled else "lstm"

    def config(self) -> dict[str, Any]:
        own = {"coupled": self.coupled, "unit_forget_bias": self.unit_forget_bias}
        return {**super().config(), **own}
