"""RNN, GRU and LSTM: parameters, and one call into the core for each layer and direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import _core, config
from fastrnn.layers.base import (
    Layer,
    check_dtype,
    check_entries,
    check_input,
    check_probability,
    check_seed,
    check_size,
)
from fastrnn.parameter import Array, Parameter, uniform

Lengths = NDArray[np.int64]
Output = tuple[Array, Any]  # output and state
RecurrentPullback = Callable[..., tuple[Array, Any]]

_MAX_LAYERS = 1000


class Recurrent(Layer):
    """What RNN, GRU and LSTM share; the constructor's arguments are PyTorch's.

    Raises TypeError or ValueError, naming the argument, for what does not fit.
    """

    recurrent = True
    gates: ClassVar[int]
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
        for name, flag in (
            ("batch_first", batch_first),
            ("bidirectional", bidirectional),
            ("return_sequences", return_sequences),
        ):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: expected True or False, got {flag!r}")
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = check_probability(dropout, "dropout")
        self.bidirectional = bidirectional
        self.return_sequences = return_sequences
        self.dtype = check_dtype(dtype)
        self.seed = check_seed(seed)
        self._directions = 2 if bidirectional else 1
        self._packs: dict[int, tuple[tuple[object, ...], _core.Pack]] = {}
        self._make_parameters()
        self._entropy = np.random.SeedSequence(self.seed).entropy
        self._training_calls = itertools.count()  # a dropout mask of its own for each

    # --- Parameters -----------------------------------------------------------------------------

    def _names(self, index: int) -> list[str]:
        """Parameter names of layer index // D in direction index % D: w_ih, w_hh, b_ih, b_hh."""
        layer, reverse = divmod(index, self._directions)
        suffix = f"l{layer}" + ("_reverse" if reverse else "")
        biases = {True: ["bias_ih", "bias_hh"], "single": ["bias_ih"], False: []}[self.bias]
        return [f"{name}_{suffix}" for name in ["weight_ih", "weight_hh", *biases]]

    def _make_parameters(self) -> None:
        rows, hidden = self.gates * self.hidden_size, self.hidden_size
        widest = max(self.input_size, hidden * self._directions)
        check_entries("input_size" if self.input_size == widest else "hidden_size", (rows, widest))
        rng = np.random.default_rng(self.seed)
        bound = 1 / np.sqrt(hidden)
        for index in range(self.num_layers * self._directions):
            inputs = self.input_size if index < self._directions else hidden * self._directions
            shapes = [(rows, inputs), (rows, hidden), (rows,), (rows,)]
            for name, shape in zip(self._names(index), shapes, strict=False):
                self._parameters[name] = Parameter(uniform(shape, bound, self.dtype, rng))

    def _pack(self, index: int, training: bool) -> _core.Pack:
        """The packed weights of one layer and direction, cached on their versions."""
        parameters = [self._parameters[name] for name in self._names(index)]
        gemm = config.gemm()
        versions = (*(p.version for p in parameters), _core.isa(), gemm)
        cached = self._packs.get(index)
        # A pack with a backward half serves both kinds of calls.
        if cached and cached[0][1:] == versions and cached[0][0] >= training:  # type: ignore[operator]
            return cached[1]
        w_ih, w_hh, *biases = [p.data for p in parameters]
        b_ih, b_hh = [*biases, None, None][:2]
        pack = _core.Pack(self._cell(), w_ih, w_hh, b_ih, b_hh, training, gemm == "numpy")
        self._packs[index] = ((training, *versions), pack)
        return pack

    def _cell(self) -> str:
        raise NotImplementedError

    # Packs are a cache, and a counter cannot be copied everywhere: a copy starts without.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packs": {}, "_training_calls": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._training_calls = itertools.count()

    # --- Calls ----------------------------------------------------------------------------------

    def __call__(
        self, x: Array, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Run over whole sequences, for inference.

        x: (batch, time, input_size), or (time, batch, input_size) without `batch_first`; the
        layer's dtype. state: as returned, (num_layers * D, batch, hidden_size) each, None for
        zeros. lengths: (batch,) integers from 0 to time, in any order: steps past a row's length
        cost nothing and their output is zero.

        Returns ``(output, state)``: output (batch, time, D * hidden_size), or with
        ``return_sequences=False`` (batch, D * hidden_size), the last layer's final h, directions
        side by side; the state is each row's own last. LSTM's state is ``(h, c)``, others' is h.
        """
        return _Call(self, x, state, lengths, training=False).result

    def vjp(
        self, x: Array, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, Any], RecurrentPullback]:
        """The same call for training: ``((output, state), pullback)``; dropout is active.

        ``pullback(doutput, dstate=None)`` returns ``(dx, dstate)``, the gradients of `x` and of the
        initial state, and adds to the parameters' ``.grad``. Each of doutput and dstate's parts may
        be None for zeros. It may be called once, and `x` must not change before.
        """
        call = _Call(self, x, state, lengths, training=True)
        result = call.result
        del call.result  # the pullback must not keep what it does not need
        return result, call.pullback

    def step(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """One time step: x (batch, input_size) to ``(y, state)``, y (batch, hidden_size).

        Has the same bits as a whole sequence. Raises ValueError for a bidirectional layer.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer needs the whole sequence")
        x = check_input(x, (None, self.input_size), self.dtype, f"(batch, {self.input_size})")
        call = _Call(self, x[:, None] if self.batch_first else x[None], state, None, training=False)
        return call.last_output(), call.result[1]

    def initial_state(self, batch: int = 1) -> Any:
        """Zeros: h, for LSTM (h, c), each (num_layers * D, batch, hidden_size)."""
        shape = self._state_shape(check_size(batch, "batch"))
        check_entries("batch", shape)
        h = np.zeros(shape, self.dtype)
        return (h, np.zeros(shape, self.dtype)) if self.has_c else h

    def _state_shape(self, batch: int) -> tuple[int, int, int]:
        return (self.num_layers * self._directions, batch, self.hidden_size)

    def split_state(
        self, state: Any, batch: int, names: tuple[str, str] = ("h_0", "c_0")
    ) -> tuple[Array | None, Array | None]:
        """A state as (h, c), checked; None where there is none."""
        if state is None:
            return None, None
        parts = state if self.has_c else (state,)
        if not isinstance(parts, tuple | list) or len(parts) != 1 + self.has_c:
            raise TypeError(f"state: expected ({names[0]}, {names[1]}), got {type(state).__name__}")
        checked: list[Array | None] = []
        for name, part in zip(names, parts, strict=False):
            if part is None:
                checked.append(None)
                continue
            array = np.asarray(part)
            if array.shape != self._state_shape(batch):
                raise ValueError(f"{name}: expected {self._state_shape(batch)}, got {array.shape}")
            if array.dtype != self.dtype:
                raise TypeError(
                    f"{name}: expected {self.dtype}, got {array.dtype}; "
                    f"convert with {name}.astype({self.dtype.name!r})"
                )
            checked.append(np.require(array, requirements=["C", "A"]))
        return checked[0], checked[1] if self.has_c else None

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if len(input_shape) != 3 or input_shape[2] not in (None, self.input_size):
            raise ValueError(
                f"input_shape: expected (batch, time, {self.input_size}), got {input_shape}"
            )
        features = self.hidden_size * self._directions
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
            "dtype": self.dtype.name,
            "seed": self.seed,
        }


class _Call:
    """One call: its inputs checked, its outputs, and for training what the way back needs."""

    def __init__(
        self, layer: Recurrent, x: Any, state: Any, lengths: ArrayLike | None, training: bool
    ) -> None:
        self.layer = layer
        axes = "(batch, time, {})" if layer.batch_first else "(time, batch, {})"
        size = layer.input_size
        x = check_input(x, (None, None, size), layer.dtype, axes.format(size))
        x = self.batch_time(_usable(x))
        self.batch, self.time = x.shape[:2]
        h_0, c_0 = layer.split_state(state, self.batch)
        self.lengths = _check_lengths(lengths, self.batch, self.time)
        shape = layer._state_shape(self.batch)
        self.h_n = np.empty(shape, layer.dtype)
        self.c_n = np.empty(shape, layer.dtype) if layer.has_c else None
        tapes: list[_core.Tape | None] = []
        masks: list[Array] = []
        output = self._forward(x, h_0, c_0, training, tapes, masks)
        if not layer.return_sequences:
            output = self.last_output()
        self.held = [(tapes, masks)]  # until the pullback takes them
        self.output_shape = output.shape
        self.result = (output, (self.h_n, self.c_n) if layer.has_c else self.h_n)

    def batch_time(self, array: Array) -> Array:
        """An array of the caller's, or for the caller, as (batch, time, features)."""
        return array if self.layer.batch_first else array.transpose(1, 0, 2)

    def empty(self, features: int) -> Array:
        """A new array in the caller's layout, as (batch, time, features)."""
        shape = (self.batch, self.time) if self.layer.batch_first else (self.time, self.batch)
        return self.batch_time(np.empty((*shape, features), self.layer.dtype))

    def last_output(self) -> Array:
        """The last layer's final h, directions side by side: (batch, D * hidden_size)."""
        return np.concatenate(list(self.h_n[-self.layer._directions :]), axis=1)

    def _forward(
        self,
        x: Array,
        h_0: Array | None,
        c_0: Array | None,
        training: bool,
        tapes: list[_core.Tape | None],
        masks: list[Array],
    ) -> Array:
        layer, hidden, directions = self.layer, self.layer.hidden_size, self.layer._directions
        rng = None
        if training and layer.dropout and layer.num_layers > 1:
            seed = np.random.SeedSequence(layer._entropy, spawn_key=(next(layer._training_calls),))
            rng = np.random.Generator(np.random.Philox(seed))
        for k in range(layer.num_layers):
            last = k == layer.num_layers - 1
            y = None if last and not layer.return_sequences else self.empty(hidden * directions)
            for d in range(directions):
                i = k * directions + d
                tape = _core.forward(
                    layer._pack(i, training),
                    x,
                    self.lengths,
                    d == 1,
                    None if h_0 is None else h_0[i],
                    None if c_0 is None else c_0[i],
                    None if y is None else y[:, :, d * hidden : (d + 1) * hidden],
                    self.h_n[i],
                    None if self.c_n is None else self.c_n[i],
                    training,
                )
                tapes.append(tape)
            if rng is not None and y is not None and not last:
                mask = (rng.random(y.shape, np.float32) >= layer.dropout).astype(layer.dtype)
                mask *= layer.dtype.type(1 / (1 - layer.dropout))
                y *= mask
                masks.append(mask)
            if y is not None:
                x = y
        return self.batch_time(x)

    def pullback(self, doutput: Array | None, dstate: Any = None) -> tuple[Array, Any]:
        """See `Recurrent.vjp`."""
        layer, hidden, directions = self.layer, self.layer.hidden_size, self.layer._directions
        dy, dh_n, dc_n = self._check_gradients(doutput, dstate)
        try:
            tapes, masks = self.held.pop()  # atomic: of several threads one gets them
        except IndexError:
            raise RuntimeError("pullback: called a second time; call vjp again") from None
        shape = layer._state_shape(self.batch)
        dh_0 = np.empty(shape, layer.dtype)
        dc_0 = np.empty(shape, layer.dtype) if layer.has_c else None
        added: list[tuple[Parameter, Array]] = []
        dx = dy
        for k in reversed(range(layer.num_layers)):
            dy = dx
            if masks and k < layer.num_layers - 1 and dy is not None:
                dy *= masks[k]
            for d in range(directions):
                i = k * directions + d
                parameters = [layer._parameters[name] for name in layer._names(i)]
                grads = [np.empty(p.shape, p.dtype) for p in parameters]
                part = self.empty(layer.input_size if k == 0 else hidden * directions)
                _core.backward(
                    cast(_core.Tape, tapes[i]),
                    None if dy is None else dy[:, :, d * hidden : (d + 1) * hidden],
                    None if dh_n is None else dh_n[i],
                    None if dc_n is None else dc_n[i],
                    part,
                    dh_0[i],
                    None if dc_0 is None else dc_0[i],
                    *grads,
                    *[None] * (4 - len(grads)),
                )
                added += zip(parameters, grads, strict=True)
                dx = part if d == 0 else np.add(cast(Array, dx), part, out=part)
        for parameter, grad in added:
            parameter.add_grad(grad)
        return self.batch_time(cast(Array, dx)), (dh_0, dc_0) if layer.has_c else dh_0

    def _check_gradients(
        self, doutput: Any, dstate: Any
    ) -> tuple[Array | None, Array | None, Array | None]:
        """dy as (batch, time, features) or None, dh_n, dc_n."""
        layer = self.layer
        dh_n, dc_n = layer.split_state(dstate, self.batch, ("dh_n", "dc_n"))
        if doutput is None:
            return None, dh_n, dc_n
        dy = np.asarray(doutput)
        if dy.shape != self.output_shape:
            raise ValueError(f"doutput: expected {self.output_shape}, got {dy.shape}")
        if dy.dtype != layer.dtype:
            raise TypeError(
                f"doutput: expected {layer.dtype}, got {dy.dtype}; "
                f"convert with doutput.astype({layer.dtype.name!r})"
            )
        if layer.return_sequences:
            return self.batch_time(_usable(dy)), dh_n, dc_n
        # The output is the final h of the last layer: its gradient joins the state's.
        zeros = np.zeros(layer._state_shape(self.batch), layer.dtype)
        dh_n = zeros if dh_n is None else dh_n.copy()
        for d in range(layer._directions):
            at = d * layer.hidden_size
            dh_n[d - layer._directions] += dy[:, at : at + layer.hidden_size]
        return None, dh_n, dc_n


def _usable(array: Array) -> Array:
    """The array, or a copy where the kernels cannot walk it: features must be contiguous."""
    strides, item = array.strides, array.itemsize
    if array.flags.aligned and strides[2] == item and not (strides[0] % item or strides[1] % item):
        return array
    return array.copy()


def _check_lengths(lengths: ArrayLike | None, batch: int, time: int) -> Lengths | None:
    if lengths is None:
        return None
    array = np.array(lengths)  # a copy: the caller's may change
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(f"lengths: expected ({batch},), got {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > time))
    if wrong.size:
        raise ValueError(f"lengths: expected 0 to {time}, got {array[wrong[0]]} for row {wrong[0]}")
    return array.astype(np.int64)


class RNN(Recurrent):
    """Vanilla (Elman) RNN: h' = act(W x + b_ih + R h + b_hh), act tanh or relu.

    Arguments, names and shapes are `torch.nn.RNN`'s, with ``batch_first=True`` the default:
    ``weight_ih_l{k}`` (H, I; above layer 0 D*H), ``weight_hh_l{k}`` (H, H), ``bias_ih_l{k}``,
    ``bias_hh_l{k}`` (H), with ``_reverse`` appended for the other direction; all start from
    U(-1/sqrt(H), 1/sqrt(H)). ``bias="single"`` keeps ``bias_ih`` alone. `dropout` acts between
    layers, in `vjp` only. The state is h.
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
    """

    gates = 3

    def _cell(self) -> str:
        return "gru"


class LSTM(Recurrent):
    """LSTM (Hochreiter and Schmidhuber 1997, with forget gates: Gers et al. 2000).

    i, f, o = σ(W x + b_ih + R h + b_hh), g = tanh(likewise), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').
    Arguments, names and shapes are `torch.nn.LSTM`'s (blocks i, f, g, o), see `RNN`. The state is
    (h, c).
    """

    gates = 4
    has_c = True

    def _cell(self) -> str:
        return "lstm"
