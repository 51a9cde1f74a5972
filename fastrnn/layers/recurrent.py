"""What the recurrent layers share: parameters, and one call into the core for each layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastrnn import _core, initializers
from fastrnn.bfloat16 import Bfloat16Parameter
from fastrnn.checks import (
    check_choice,
    check_dtype,
    check_entries,
    check_flag,
    check_positive,
    check_probability,
    check_seed,
    check_size,
    is_bfloat16,
)
from fastrnn.layers import call
from fastrnn.layers.base import CallCounter, Layer
from fastrnn.layers.call import OnGradient, checked_lengths
from fastrnn.layers.embedding import Distinct
from fastrnn.layers.ragged import run_masked
from fastrnn.layers.stream import Stream
from fastrnn.parameter import Array, Parameter

RecurrentPullback = Callable[..., tuple[Array, Any]]

_MAX_LAYERS = 1000
_LARGEST_CLIP = float(np.finfo(np.float32).max)
_MULTIPLIED = ("weight_ih", "weight_hh", "weight_hr")


class Recurrent(Layer):
    """What all recurrent layers take; I is input_size, H hidden_size, G the number of gates, D 2 if
    `bidirectional` and else 1, k the layer.

    As in PyTorch: `num_layers`; `bias`, True, False or "single" for ``bias_ih`` alone;
    `batch_first`, True by default; `bidirectional`; `dropout`: with this probability, in [0, 1), a
    value between two layers is zero, the others are scaled up, in `vjp` only. And
    `return_sequences`: without it the output is the last layer's final h; `dtype`, "float32",
    "float64" or, for inference, "bfloat16" (see `to`); `seed` of what weights start from and of
    masks. These are part of the fused loop, forward and back, and go with any other unless a
    ValueError says so:

    - `layer_norm` (Ba, Kiros and Hinton 2016): LN(W x) ⊙ ``ln_ih_l{k}`` + LN(R h) ⊙ ``ln_hh_l{k}``
      (G*H each, from 1) in the place of W x + R h; LN takes all G*H values of a row, eps 1e-5.
    - `zoneout_h` (Krueger et al. 2016): with this probability, in [0, 1), a unit of h stays as it
      was; in inference its mean is taken.
    - `recurrent_dropout`: with this probability, in [0, 1), a unit of h does not enter R h, the
      others are scaled up; in `vjp` only, with one mask for all steps of a row (Gal and Ghahramani
      2016).
    - `clip`: what enters an activation is limited to [-clip, clip]; not c' on its way to h', as in
      ONNX Runtime.

    Masks are functions of `seed`, of how many calls came before, and of where a value stands: the
    same on any number of threads.

    What weights start from has Keras's names: `kernel_initializer` for weight_ih and weight_hr,
    `recurrent_initializer` for weight_hh, "uniform" (U(-1/sqrt(H), 1/sqrt(H)), as PyTorch has it),
    "glorot_uniform", "orthogonal", "identity" (weight_hh only, for each gate; not where `proj_size`
    is less than H) or "zeros", and `bias_initializer` for biases and weight_ch, "uniform" or
    "zeros". Keras's own are "glorot_uniform", "orthogonal" and "zeros".

    To see how gradients flow, set the attribute `on_gradient`, None by default, to a callable. Each
    pullback ends by calling it with one new float64 array (num_layers * D, batch, time), index
    layer * D + direction as states have it, whatever `batch_first`: of all that reached h_t of a
    row, dL/dh_t, the sum of squares. That is what the output at t, step t + 1 and, at a row's last
    step, the final state sent back; at steps that a row has not it is zero. The sums are taken on
    the way of BPTT, which changes no gradient by a bit. A copy of the layer starts without.

    Raises TypeError or ValueError, naming the argument, for what does not fit.
    """

    recurrent = True
    takes_bfloat16 = True
    gates: int
    has_c: ClassVar[bool] = False
    proj_size = 0
    on_gradient: OnGradient | None = None
    own: ClassVar[tuple[str, ...]] = ()  # the constructor's arguments that others have not

    def __init_subclass__(cls) -> None:
        """Each kind's docstring goes on with what all take."""
        if Recurrent not in cls.__bases__:
            return
        parts = cls.__doc__, Recurrent.__doc__
        cls.__doc__ = "\n\n".join(inspect.cleandoc(part) for part in parts if part)

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
        layer_norm: bool = False,
        zoneout_h: float = 0.0,
        recurrent_dropout: float = 0.0,
        clip: float | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        self._refuse(others)
        self.input_size = check_size(input_size, "input_size")
        self.hidden_size = check_size(hidden_size, "hidden_size")
        self.num_layers = check_size(num_layers, "num_layers")
        if self.num_layers > _MAX_LAYERS:
            raise ValueError(f"num_layers: expected at most {_MAX_LAYERS}, got {num_layers}")
        if not (isinstance(bias, bool | np.bool_) or (isinstance(bias, str) and bias == "single")):
            raise ValueError(f"bias: expected True, False or 'single', got {bias!r}")
        self.bias = bias if isinstance(bias, str) else bool(bias)
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
        self.layer_norm = check_flag(layer_norm, "layer_norm")
        self.zoneout_h = check_probability(zoneout_h, "zoneout_h")
        self.recurrent_dropout = check_probability(recurrent_dropout, "recurrent_dropout")
        self.clip = None if clip is None else check_positive(clip, "clip")
        if self.clip is not None and self.clip > _LARGEST_CLIP:
            raise ValueError(f"clip: expected at most {_LARGEST_CLIP:.8}, got {clip}")
        self.bfloat16 = is_bfloat16(dtype)
        self.dtype = check_dtype("float32" if self.bfloat16 else dtype)
        self.seed = check_seed(seed)
        self.directions = 2 if bidirectional else 1
        self.double = self.dtype == np.float64
        axes = "(batch, time, {})" if batch_first else "(time, batch, {})"
        self.input_axes = axes.format(self.input_size)
        self.output_size = self.proj_size or self.hidden_size
        self._make_parameters()
        self._recurrence = self._make_recurrence()
        self._entropy = np.random.SeedSequence(self.seed).entropy
        self._training_calls = CallCounter()  # a dropout mask of its own for each

    def _refuse(self, others: dict[str, Any]) -> None:
        for name in others:
            owners = [kind.__name__ for kind in Recurrent.__subclasses__() if name in kind.own]
            if owners:
                have = "have" if len(owners) > 1 else "has"
                mine = type(self).__name__
                raise ValueError(f"{name}: {' and '.join(owners)} {have} it, {mine} has not")
            raise TypeError(f"{type(self).__name__}: unexpected argument {name!r}")

    # --- Parameters -----------------------------------------------------------------------------

    def _core_layer(self, layer: int) -> _core.Layer:
        above = self.output_size * self.directions
        return _core.Layer(
            self._cell(), self.input_size if layer == 0 else above, self.hidden_size, self.double,
            layer_norm=self.layer_norm, zoneout_h=self.zoneout_h, clip=self.clip,
            recurrent_dropout=self.recurrent_dropout, **self._core_options(),
        )  # fmt: skip

    def _make_parameters(self) -> None:
        rows, hidden = self.gates * self.hidden_size, self.hidden_size
        widest = max(self.input_size, self.output_size * self.directions)
        check_entries("input_size" if self.input_size == widest else "hidden_size", (rows, widest))
        rng = np.random.default_rng(self.seed)
        kernel, recurrent, bias = self.initializers.values()
        starts = {"weight_hh": recurrent, "bias_ih": bias, "bias_hh": bias, "weight_ch": bias}
        left_out = {True: (), "single": ("bias_hh",), False: ("bias_ih", "bias_hh")}[self.bias]
        # By layer and direction, in the order of _core.WEIGHTS; None for what there is not.
        self.weights: list[tuple[tuple[Parameter | None, ...], ...]] = []
        for layer in range(self.num_layers):
            both, shapes = [], self._core_layer(layer).shapes()
            for reverse in range(self.directions):
                made: dict[str, Parameter] = {}
                for kind, shape in shapes.items():
                    if kind in left_out:
                        continue
                    if kind.startswith("ln"):
                        values = initializers.normalisation(shape, self.dtype)
                    else:
                        start = starts.get(kind, kernel)
                        values = initializers.named(start, shape, hidden**-0.5, self.dtype, rng)
                    rounded = self.bfloat16 and kind in _MULTIPLIED
                    made[kind] = (Bfloat16Parameter if rounded else Parameter)(values)
                    name = f"{kind}_l{layer}" + ("_reverse" if reverse else "")
                    self._parameters[name] = made[kind]
                both.append(tuple([made.get(kind) for kind in _core.WEIGHTS]))
            self.weights.append(tuple(both))

    def _make_recurrence(self) -> _core.Recurrence:
        layers = [self._core_layer(layer) for layer in range(self.num_layers)]
        return _core.Recurrence(layers, self.weights, self.has_c, self.bfloat16, call)

    def packs(self, layer: int, training: bool) -> tuple[_core.Pack, ...]:
        """One layer's packed weights by direction, cached on the parameters' versions."""
        return self._recurrence.packs(layer, training)

    def _cell(self) -> str:
        raise NotImplementedError

    def _core_options(self) -> dict[str, Any]:
        """Those of `_core.Layer` that the kind of layer has for itself."""
        return {}

    # Packs are a cache, and who watches this layer does not watch another: a copy starts without.
    # Its next training call has the masks that this layer's would have.
    def __getstate__(self) -> dict[str, Any]:
        without = dict.fromkeys(("_recurrence", "on_gradient"))
        calls = self._training_calls.value  # its lock can be neither pickled nor copied
        return {**self.__dict__, **without, "_training_calls": calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._training_calls = CallCounter(state["_training_calls"])
        self._recurrence = self._make_recurrence()

    def next_seed(self) -> np.random.SeedSequence:
        """Of the masks of the next training call: each has its own."""
        return np.random.SeedSequence(self._entropy, spawn_key=(next(self._training_calls),))

    def random_state(self) -> dict[str, Any]:
        return {"entropy": self._entropy, "calls": self._training_calls.value}

    def set_random_state(self, state: Any) -> None:
        self._entropy, self._training_calls = state["entropy"], CallCounter(state["calls"])

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
        layer's dtype. state: as returned, (num_layers * D, batch, hidden_size) each, h with a
        projection proj_size; None for zeros. lengths: (batch,) integers from 0 to time, in any
        order: steps past a row's length cost nothing and their output is zero. mask, instead:
        booleans (batch, time), or as x has them; as in Keras, a step that is False carries the
        state and repeats the last output, or of a bidirectional layer has zeros.

        Returns ``(output, state)``: output (batch, time, D * hidden_size), with a projection
        D * proj_size, or with ``return_sequences=False`` (batch, D * hidden_size), the last layer's
        final h, directions side by side; the state is each row's own last. LSTM's state is
        ``(h, c)``, others' is h.
        """
        if mask is not None:
            return self._masked(x, state, lengths, mask, False, 0)[0]
        return self._recurrence.forward(self, x, state, lengths, False, 0)[0]

    def vjp(
        self,
        x: Array,
        state: Any = None,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        checkpoint_every: int | None = None,
    ) -> tuple[tuple[Array, Any], RecurrentPullback]:
        """The same call for training: ``((output, state), pullback)``; dropout is active.

        ``pullback(doutput, dstate=None)`` returns ``(dx, dstate)``, the gradients of `x` and of the
        initial state, and adds to the parameters' ``.grad``. Each of doutput and dstate's parts may
        be None for zeros. ``with_dx=False`` and ``with_dstate=False`` leave out what is not wanted:
        None is returned for it. It may be called once, and `x` must not change before.

        The pullback keeps what BPTT needs of every time step. With ``checkpoint_every=k`` it keeps
        the states every k steps (or some more: what makes up whole blocks of 512 rows of a batch)
        and runs the steps between them again: far less memory for up to a third more time, and the
        gradients have the same bits (NumPy's BLAS: nearly).
        """
        every = 0
        if checkpoint_every is not None:
            every = check_size(checkpoint_every, "checkpoint_every")
        if mask is not None:
            return self._masked(x, state, lengths, mask, True, every)
        return self._recurrence.forward(self, x, state, lengths, True, every)

    def of_distinct(
        self, rows: Distinct, state: Any = None, lengths: ArrayLike | None = None, *, training: bool
    ) -> tuple[tuple[Array, Any], Any]:
        """``((output, state), pullback)`` as `vjp` has them, or not `training` as a call, of the
        input ``rows.table[rows.ids]``. Each of the table's rows is multiplied once; the pullback's
        dx is the table's gradient. Not with NumPy's BLAS.
        """
        axes = rows.ids.shape if self.batch_first else rows.ids.shape[::-1]
        found = None if lengths is None else checked_lengths(lengths, *axes)
        table, ids, _ = rows
        return self._recurrence.forward(self, table, state, found, training, 0, ids)

    def _masked(
        self,
        x: Array,
        state: Any,
        lengths: ArrayLike | None,
        mask: ArrayLike,
        training: bool,
        checkpoint_every: int,
    ) -> tuple[tuple[Array, Any], Any]:
        if lengths is not None:
            raise ValueError("mask: expected None where there are lengths")
        run = self._recurrence.forward
        return run_masked(self, run, x, state, mask, training, checkpoint_every)

    def stream(self, state: Any = None) -> Stream:
        """This layer fed a piece at a time: ``stream(x)`` goes on from the state it came to.

        state: as returned, None for zeros. Raises ValueError for a bidirectional layer.
        """
        return Stream(self, state)

    def step(
        self, x: Array, state: Any = None, out: tuple[Array | None, Any] | None = None
    ) -> tuple[Array, Any]:
        """One time step: x (batch, input_size) to ``(y, state)``, y (batch, hidden_size), or with a
        projection (batch, proj_size).

        Has the same bits as a whole sequence. With ``out=(y, state)`` results are written there and
        nothing is allocated; either may be None for a new one, and this state may be the one that
        is given, to be updated in place. Raises ValueError for a bidirectional layer.
        """
        if self.bidirectional:
            raise ValueError("step: a bidirectional layer needs the whole sequence")
        return self._recurrence.step(self, x, state, out)

    def initial_state(self, batch: int = 1) -> Any:
        """Zeros: h, for LSTM (h, c), each (num_layers * D, batch, hidden_size), h with a projection
        proj_size.
        """
        h_shape, c_shape = self.state_shapes(check_size(batch, "batch"))
        check_entries("batch", c_shape)
        h = np.zeros(h_shape, self.dtype)
        return (h, np.zeros(c_shape, self.dtype)) if self.has_c else h

    def state_shapes(self, batch: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Of h and c: (num_layers * D, batch, features)."""
        layers = self.num_layers * self.directions
        return (layers, batch, self.output_size), (layers, batch, self.hidden_size)

    def split_state(
        self, state: Any, batch: int, names: tuple[str, str, str]
    ) -> tuple[Array | None, Array | None]:
        """A state as (h, c), either may be None, checked. names: of it and of its parts."""
        h, c = state, None
        if self.has_c:
            if not isinstance(state, tuple | list) or len(state) != 2:
                got = type(state).__name__
                raise TypeError(f"{names[0]}: expected ({names[1]}, {names[2]}), got {got}")
            h, c = state
        h_shape, c_shape = self.state_shapes(batch)
        h = None if h is None else self._check_state(h, h_shape, names[1])
        c = None if c is None else self._check_state(c, c_shape, names[2])
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
        features = self.output_size * self.directions
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
            "layer_norm": self.layer_norm,
            "zoneout_h": self.zoneout_h,
            "recurrent_dropout": self.recurrent_dropout,
            "clip": self.clip,
            **{name: getattr(self, name) for name in self.own},
            "dtype": "bfloat16" if self.bfloat16 else self.dtype.name,
            "seed": self.seed,
        }
