"""Sequential: layers one after the other; and models read from files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import config
from fastrnn.encoder_decoder import EncoderDecoder
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Distinct, Embedding
from fastrnn.layers.recurrent import Recurrent
from fastrnn.model import Model
from fastrnn.parameter import Array
from fastrnn.summary import Row, print_summary

if TYPE_CHECKING:
    from fastrnn.serialization import ModelFile

KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Dense, Dropout, Embedding, GRU, LSTM, RNN)
}

State = list[Any]  # an entry per layer: what a recurrent layer takes and gives, None for others
Shape = tuple[int | None, ...]


class Sequential(Model):
    """Layers one after the other.

    Calling the model is inference, `vjp` is training; `run` and `step` are calls that take and
    return the state: a list with an entry per layer, None for layers that have none. Parameters are
    named by the layer's place and kind, and the layer's own name: ``0.embedding.weight``.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Raises ValueError where a layer does not fit the one before it."""
        super().__init__()
        self.layers = tuple(layers)
        _check_layers(self.layers)
        self._parameters = {
            f"{place}.{type(layer).__name__.lower()}.{name}": parameter
            for place, layer in enumerate(self.layers)
            for name, parameter in layer.parameters().items()
        }
        dtypes = {parameter.dtype for parameter in self._parameters.values()}
        if len(dtypes) > 1:
            found = {name: str(p.dtype) for name, p in self._parameters.items()}
            raise ValueError(f"layers: expected one dtype for all, got {found}")
        self.dtype = dtypes.pop() if dtypes else np.dtype(np.float32)
        last = self.layers[-1]
        self.takes_ids = isinstance(self.layers[0], Embedding)
        self.gives_logits = isinstance(last, Dense) and last.activation is None

    def __call__(self, x: NDArray[Any], lengths: ArrayLike | None = None) -> Array:
        """The last layer's output for `x`, (batch, ...); see `run` for the state too."""
        return self.run(x, lengths=lengths)[0]

    def run(
        self, x: NDArray[Any], state: State | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, State]:
        """Output and state after `x`, from `state` on (None: zeros), for inference."""
        states = self._states(state)
        rows = self._distinct(x)
        layer: Any
        if rows is not None:
            layer = self.layers[1]
            (x, states[1]), _ = layer.of_distinct(rows, states[1], lengths, training=False)
        for place in range(0 if rows is None else 2, len(self.layers)):
            layer = self.layers[place]
            if layer.recurrent:
                x, states[place] = layer(x, states[place], lengths)
            else:
                x = layer(x)
        return x, states

    def vjp(
        self, x: NDArray[Any], state: State | None = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Array, State], Callable[..., Array | None]]:
        """``((output, state), pullback)``, for training.

        ``pullback(doutput)`` adds to the parameters' gradients, and with ``with_dx=True`` returns
        the gradient of `x`, which training has no use for; None without, or where `x` is integers.
        It may be called once; no gradient flows into `state`.
        """
        states = self._states(state)
        pullbacks: list[Callable[[Any, bool], Any]] = []  # by (doutput, with_dx)
        rows = self._distinct(x)
        layer: Any
        if rows is not None:
            layer = self.layers[1]
            (x, states[1]), pullback = layer.of_distinct(rows, states[1], lengths, training=True)
            pullbacks.append(_through_rows(rows, pullback))
        for place in range(0 if rows is None else 2, len(self.layers)):
            layer = self.layers[place]
            if layer.recurrent:
                (x, states[place]), pullback = layer.vjp(x, states[place], lengths)
            else:
                x, pullback = layer.vjp(x)
            pullbacks.append(_through(layer, pullback))

        def all_pullbacks(doutput: Array, with_dx: bool = False) -> Array | None:
            gradient: Any = doutput
            for place in reversed(range(len(pullbacks))):
                gradient = pullbacks[place](gradient, place > 0 or with_dx)
            return gradient if with_dx else None

        return (x, states), all_pullbacks

    def _distinct(self, x: NDArray[Any]) -> Distinct | None:
        """Where an Embedding is followed by a recurrent layer, which can take its rows once each:
        these, if few are.
        """
        if len(self.layers) < 2 or np.ndim(x) != 2:
            return None
        first, second = self.layers[:2]
        if config.gemm() == "numpy" or not _is(second, Recurrent) or not _is(first, Embedding):
            return None
        rows: Distinct | None = first.distinct(x)  # type: ignore[attr-defined]
        return rows

    def step(self, x_t: NDArray[Any], state: State | None = None) -> tuple[Array, State]:
        """Output and state after one time step: `x_t` is (batch, features), or (batch,) of ids."""
        states = self._states(state)
        for place, layer in enumerate(self.layers):
            if layer.recurrent:
                x_t, states[place] = layer.step(x_t, states[place])  # type: ignore[attr-defined]
            else:
                x_t = layer(x_t)
        return x_t, states

    def initial_state(self, batch: int) -> State:
        """The state before the first time step, zeros."""
        return [
            layer.initial_state(batch) if layer.recurrent else None  # type: ignore[attr-defined]
            for layer in self.layers
        ]

    def _states(self, state: State | None) -> State:
        """A copy of the list, to be filled with the states after the call."""
        if state is None:
            return [None] * len(self.layers)
        if not isinstance(state, list | tuple) or len(state) != len(self.layers):
            got = f"{len(state)}" if isinstance(state, Sequence) else type(state).__name__
            raise ValueError(f"state: expected a list of {len(self.layers)} entries, got {got}")
        return list(state)

    def to(self, dtype: DTypeLike) -> Sequential:
        """A copy of the model with weights of another dtype; see `Layer.to`."""
        return Sequential([layer.to(dtype) for layer in self.layers])

    def random_state(self) -> list[Any]:
        return [layer.random_state() for layer in self.layers]

    def set_random_state(self, state: Any) -> None:
        for layer, own in zip(self.layers, state, strict=True):
            layer.set_random_state(own)

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def config(self) -> dict[str, Any]:
        """Kind and configuration of every layer; `from_config` makes a model of it."""
        return {
            "layers": [
                {"kind": type(layer).__name__, "config": layer.config()} for layer in self.layers
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        """A model with the layers that `config` describes, freshly initialised.

        Raises ValueError for anything that `config` would not have given.
        """
        described = config.get("layers")
        if not isinstance(described, list):
            raise ValueError("the description has no list of layers")
        layers = []
        for place, entry in enumerate(described):
            try:
                layers.append(KINDS[entry["kind"]](**entry["config"]))
            except KeyError as error:
                raise ValueError(f"layers[{place}]: {error.args[0]!r} is not known") from None
            except (TypeError, ValueError) as error:
                raise ValueError(f"layers[{place}]: {error}") from None
        return cls(layers)

    def summary(self) -> None:
        """Print a table of the layers: output shapes (None: any size) and parameters."""
        rows: list[Row] = []
        shape = input_shape(self.layers)
        for place, layer in enumerate(self.layers):
            shape = layer.output_shape(shape)
            rows.append((str(place), layer, shape))
        print_summary("Sequential", rows, self._parameters)


def _is(layer: Layer, kind: type[Layer]) -> bool:
    """Whether it is of that kind, and runs as that does: a subclass may have ways of its own."""
    own = type(layer)
    return isinstance(layer, kind) and (own.__call__, own.vjp) == (kind.__call__, kind.vjp)


def _through(layer: Layer, pullback: Callable[..., Any]) -> Callable[[Any, bool], Any]:
    if _is(layer, Recurrent):
        return lambda dy, with_dx: pullback(dy, with_dx=with_dx, with_dstate=False)[0]
    return lambda dy, _: pullback(dy)[0] if layer.recurrent else pullback(dy)


def _through_rows(rows: Distinct, pullback: Callable[..., Any]) -> Callable[[Any, bool], Any]:
    return lambda dy, _: rows.pullback(pullback(dy, with_dstate=False)[0])


MODELS: dict[str, type[Sequential | EncoderDecoder]] = {
    kind.__name__: kind for kind in (Sequential, EncoderDecoder)
}


def load(path: str | os.PathLike[str]) -> Sequential | EncoderDecoder:
    """The model in a file that `Model.save` wrote.

    Raises OSError where the file cannot be read, ValueError with its name and the reason where it
    is truncated, of another kind, of a newer version, or describes an unknown layer.
    """
    from fastrnn import serialization  # not at import: most never need it

    return build(path, serialization.read(path))


def build(path: str | os.PathLike[str], content: ModelFile) -> Sequential | EncoderDecoder:
    """The model that `content`, read from `path`, describes; ValueError as `load`."""
    try:
        kind = content.description.get("kind")
        if kind not in MODELS:
            raise ValueError(f"a model of kind {kind!r} is not known")
        model = MODELS[kind].from_config(content.description)
        weights = content.weights
        for name, parameter in model.parameters().items():
            found = weights.get(name, parameter.data).dtype
            if found != parameter.dtype:
                raise ValueError(f"{name}: expected {parameter.dtype}, got {found}")
        model.load_state_dict(weights)
    except (TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None
    return model


def _check_layers(layers: tuple[Layer, ...]) -> None:
    """Raise TypeError or ValueError where `layers` do not make a model."""
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for place, layer in enumerate(layers):
        name = f"layers[{place}], {type(layer).__name__}"
        if not isinstance(layer, Layer) or isinstance(layer, Model):
            raise TypeError(f"{name}: expected a layer such as LSTM or Dense")
        if any(layer is other for other in layers[:place]):
            raise ValueError(f"{name}: the same layer stands in the list before")
        if isinstance(layer, Embedding) and place > 0:
            raise ValueError(f"{name}: takes ids, so it can only be the first layer")
        if not getattr(layer, "batch_first", True):
            raise ValueError(f"{name}: expected batch_first=True, as a model's arrays are")
    shape = input_shape(layers)
    for place, layer in enumerate(layers):
        before = f"layers[{place - 1}], {type(layers[place - 1]).__name__},"
        name = f"layers[{place}], {type(layer).__name__}"
        features = _features(layer)
        if layer.recurrent and len(shape) != 3:
            raise ValueError(
                f"{name}: expected a sequence, but {before} gives {shape}; "
                "return_sequences=True gives every time step"
            )
        if features is not None and features != shape[-1]:
            raise ValueError(
                f"{name}: expected {features} features, but {before} gives {shape[-1]}"
            )
        shape = layer.output_shape(shape)


def input_shape(layers: tuple[Layer, ...]) -> Shape:
    """What the model takes: ids, sequences of features or features; None for any size."""
    if isinstance(layers[0], Embedding):
        return (None, None)
    features = next((size for layer in layers if (size := _features(layer)) is not None), None)
    if any(layer.recurrent for layer in layers):
        return (None, None, features)
    return (None, features)


def _features(layer: Layer) -> int | None:
    """The size of the last axis that `layer` takes, None where it takes any."""
    size: int | None = getattr(layer, "input_size", getattr(layer, "in_features", None))
    return size
