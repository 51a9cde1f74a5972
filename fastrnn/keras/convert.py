"""From Keras: a layer's configuration, of which nothing may be left over, and its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastrnn.checks import check_flag, check_size
from fastrnn.keras.layout import (
    BLOCKS,
    CELL_ACTIVATIONS,
    CELLS,
    DENSE_ACTIVATIONS,
    PARTS,
    reordered,
)
from fastrnn.layers.base import Layer
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential
from fastrnn.parameter import Array

Arrays = Sequence[Any]  # NumPy's, or a file's, which are read once they are wanted

_NO_EFFECT = ("seed", "unit_forget_bias", "unroll", "zero_output_for_mask")
_MAY_GO = (
    "mask_zero", "dropout", "recurrent_dropout", "trainable",
    "Masking", "SpatialDropout1D", "GaussianDropout", "GaussianNoise",
)  # fmt: skip


def from_keras(source: Any, *, without: Iterable[str] = ()) -> Any:
    """A fastrnn `Sequential` of a Keras Sequential, or a layer of a layer, its weights copied.

    `without`: see `fastrnn.keras`. Raises ValueError for what does not map or has no weights yet,
    TypeError for what is no layer or model that Keras can describe.
    """
    names, kind = checked(without), type(source)
    try:
        config = source.get_config()
    except (AttributeError, NotImplementedError):
        wanted = "a Sequential of Keras, or a layer"
        raise TypeError(f"source: expected {wanted}, got {kind.__name__}") from None
    for layer in getattr(source, "layers", [source]):
        _check_functions(layer)
    described = {"module": kind.__module__, "class_name": kind.__name__, "config": config}
    if hasattr(source, "layers"):
        return sequential(described, lambda _: [x.get_weights() for x in source.layers], names)
    made = _layers([described], [source.get_weights()], names, alone=True)
    if not made:
        raise ValueError(f"{source.name} ({kind.__name__}): is not a layer by itself here")
    return made[0]


def _check_functions(layer: Any) -> None:
    """Refuses one's own activations, of which Keras's configurations may say the name alone."""
    for inner in ("layer", "forward_layer", "backward_layer"):
        if hasattr(layer, inner):
            _check_functions(getattr(layer, inner))
    for key in ("activation", "recurrent_activation"):
        function = getattr(layer, key, None)
        if isinstance(function, FunctionType) and not function.__module__.startswith("keras."):
            where = f"{layer.name} ({type(layer).__name__})"
            got = f"{function.__name__} of {function.__module__}"
            raise ValueError(f"{where}: {key}: expected one of Keras's own, got {got}")


def sequential(
    model: Any, read: Callable[[list[str]], list[Arrays]], without: list[str]
) -> Sequential:
    """The model of this description; `read` gives the weights of layers of such kinds."""
    if model["class_name"] != "Sequential" or not _is_keras(model):
        where = model["module"]
        raise ValueError(f"expected a Sequential model, got {_shown(model)} of {where}")
    entries = [x for x in model["config"]["layers"] if x["class_name"] != "InputLayer"]
    return Sequential(_layers(entries, read([x["class_name"] for x in entries]), without))


def _is_keras(entry: Any) -> bool:
    """Whether the class is Keras's own."""
    return f"{entry['module']}.".startswith("keras.") and not entry.get("registered_name")


class _Refusal(ValueError):
    """Names the layer already."""


class _Config:
    """A layer's configuration, of which every value is taken, or has no effect: see `finish`."""

    def __init__(self, entry: Any, without: list[str], alone: bool) -> None:
        self.kind = str(entry["class_name"])
        self._values = {"trainable": True, "dtype": "float32", **entry["config"]}
        self._name = self._values.pop("name", "?")
        self._without, self._alone = without, alone
        if not _is_keras(entry):
            self.refuse("a class of one's own does not map")

    def refuse(self, what: str) -> None:
        raise _Refusal(f"{self._name} ({self.kind}): {what}")

    def take(self, key: str) -> Any:
        if key not in self._values:
            self.refuse(f"has no {key!r}")
        return self._values.pop(key)

    def size(self, key: str) -> int:
        return check_size(self.take(key), key)

    def flag(self, key: str) -> bool:
        return check_flag(self.take(key), key)

    def activation(self, known: dict[str, Any], key: str = "activation") -> Any:
        name = self.take(key)
        if not isinstance(name, str) or name not in known:
            self.refuse(f"{key}: expected one of {', '.join(known)}, got {_shown(name)}")
        return known[name]

    def wrapped(self, key: str) -> _Config:
        return _Config(self.take(key), self._without, self._alone)

    def finish(self) -> str:
        """The dtype, once all else was taken. Refuses what is left and would have an effect."""
        dtype = self.take("dtype")
        if isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy":
            dtype = dtype["config"]["name"]
        if dtype not in ("float32", "float64"):
            self.refuse(f"dtype: expected float32 or float64, got {_shown(dtype)}")
        for key, value in self._values.items():
            idle = value if key == "trainable" else not value
            if key == "return_state":  # ours returns it always, but a model its last output alone
                idle = idle or self._alone
            if not (idle or key in (*_NO_EFFECT, *self._without) or key.endswith("_initializer")):
                self.refuse(f"{key}={_shown(value)} does not map{_hint(key)}")
        return str(dtype)

    def arrays(self, weights: Arrays, **shapes: tuple[int | str, ...]) -> Arrays:
        """`weights`, if they have these shapes, where "inputs" stands for any number of them."""
        if len(weights) != len(shapes):
            self.refuse(f"expected {len(shapes)} arrays of weights, got {len(weights)}")
        for array, (name, wanted) in zip(weights, shapes.items(), strict=True):
            shape = tuple(array.shape)
            fits = len(shape) == len(wanted) and all(
                want in ("inputs", got) for got, want in zip(shape, wanted, strict=True)
            )
            if not fits or array.dtype.kind != "f":
                text = ", ".join(map(str, wanted))
                self.refuse(f"{name}: expected floats ({text}), got {array.dtype} {shape}")
        return weights


def _may_go(name: str) -> bool:
    """Whether `without` may name it."""
    return name in _MAY_GO or name.endswith(("_regularizer", "_constraint"))


def _hint(name: str) -> str:
    return f"; without=[{name!r}] leaves it out" if _may_go(name) else ""


def _shown(value: Any) -> str:
    """In short: of objects their class, of functions their name."""
    if not isinstance(value, dict):
        return repr(value)
    name = value.get("config")
    return name if isinstance(name, str) else str(value.get("class_name"))


def checked(without: Iterable[str]) -> list[str]:
    """What is to be left out, by name, if it may be."""
    names = [without] if isinstance(without, str) else list(without)
    for name in names:
        if not isinstance(name, str) or not _may_go(name):
            known = ", ".join(("..._regularizer", "..._constraint", *_MAY_GO))
            raise ValueError(f"without: expected some of {known}; got {name!r}")
    return names


def _layers(
    entries: list[Any], weights: list[Arrays], without: list[str], alone: bool = False
) -> list[Layer]:
    made: list[Layer] = []
    for entry, arrays in zip(entries, weights, strict=True):
        config = _Config(entry, without, alone)
        if config.kind in without:
            continue
        if config.kind not in _KINDS:
            config.refuse(f"this class does not map{_hint(config.kind)}")
        try:
            made += _KINDS[config.kind](config, arrays, made)
        except _Refusal:
            raise
        except (TypeError, ValueError) as error:
            config.refuse(str(error))
    return made


def _recurrent(config: _Config, weights: Arrays, _: Any) -> list[Layer]:
    return _cell([config], [weights])


def _bidirectional(config: _Config, weights: Arrays, _: Any) -> list[Layer]:
    merge, half = config.take("merge_mode"), len(weights) // 2
    if merge != "concat":
        config.refuse(f"merge_mode={merge!r} does not map")
    directions = [config.wrapped("layer"), config.wrapped("backward_layer")]
    config.finish()
    return _cell(directions, [weights[:half], weights[half:]])


def _cell(directions: list[_Config], weights: list[Arrays]) -> list[Layer]:
    """A layer of one direction or both."""
    options, *others = [_options(c, backward=c is not directions[0]) for c in directions]
    for other in others:
        for key in options.keys() | other.keys():
            if options.get(key) != other.get(key):
                theirs, ours = (of.get(key) for of in (options, other))
                directions[1].refuse(f"{key}: expected {theirs!r} as forward, got {ours!r}")
    kind, hidden, bias = options.pop("kind"), options["hidden_size"], options["bias"]
    size = hidden * len(BLOCKS[kind])
    shapes: dict[str, tuple[int | str, ...]]
    shapes = {"kernel": ("inputs", size), "recurrent_kernel": (hidden, size)}
    if bias:
        shapes["bias"] = (2, size) if bias is True else (size,)
    arrays = [c.arrays(of, **shapes) for c, of in zip(directions, weights, strict=True)]
    layer = CELLS[kind](arrays[0][0].shape[0], bidirectional=bool(others), **options)
    state: dict[str, Array] = {}
    for suffix, of in zip(("", "_reverse"), arrays, strict=False):
        kernel, recurrent, *biases = (reordered(np.asarray(array), kind) for array in of)
        ours = [kernel.T, recurrent.T, *(biases[0] if bias is True else biases)]
        state |= {f"{name}_l0{suffix}": array for name, array in zip(PARTS, ours, strict=False)}
    layer.load_state_dict(state)
    return [layer]


def _options(config: _Config, backward: bool) -> dict[str, Any]:
    """What our layer of it takes, and the kind of cell."""
    kind = config.kind
    if kind not in CELLS:
        config.refuse("this class does not map within Bidirectional")
    if config.flag("go_backwards") != backward:
        config.refuse(f"go_backwards={not backward} does not map")
    options = {
        "kind": kind,
        "hidden_size": config.size("units"),
        "return_sequences": config.flag("return_sequences"),
    }
    if kind == "SimpleRNN":
        options["nonlinearity"] = config.activation(CELL_ACTIVATIONS)
        # Of the other cells Keras has a mask for each gate, which is not ours.
        options["recurrent_dropout"] = config.take("recurrent_dropout")
    else:
        options["state_activation"] = config.activation(CELL_ACTIVATIONS)
        options["gate_activation"] = config.activation(CELL_ACTIVATIONS, "recurrent_activation")
    if kind == "GRU":
        options["reset_after"] = config.flag("reset_after")
    # Only the GRU that resets after the product has a bias on both sides.
    options["bias"] = config.flag("use_bias") and (options.get("reset_after") or "single")
    options["dtype"] = config.finish()
    return options


def _dense(config: _Config, weights: Arrays, _: Any) -> list[Layer]:
    units, activation = config.size("units"), config.activation(DENSE_ACTIVATIONS)
    bias, dtype = config.flag("use_bias"), config.finish()
    extra: dict[str, tuple[int | str, ...]] = {"bias": (units,)} if bias else {}
    kernel, *rest = config.arrays(weights, kernel=("inputs", units), **extra)
    layer = Dense(kernel.shape[0], units, activation, bias=bias, dtype=dtype)
    layer.load_state_dict(
        dict(zip(("weight", "bias"), (np.asarray(kernel).T, *rest), strict=False))
    )
    return [layer]


def _time_distributed(config: _Config, weights: Arrays, _: Any) -> list[Layer]:
    inner = config.wrapped("layer")
    config.finish()
    if inner.kind != "Dense":
        inner.refuse("this class does not map within TimeDistributed")
    return _dense(inner, weights, None)


def _embedding(config: _Config, weights: Arrays, _: Any) -> list[Layer]:
    shape = config.size("input_dim"), config.size("output_dim")
    layer = Embedding(*shape, dtype=config.finish())
    layer.load_state_dict({"weight": config.arrays(weights, embeddings=shape)[0]})
    return [layer]


def _dropout(config: _Config, _weights: Arrays, _: Any) -> list[Layer]:
    layer = Dropout(config.take("rate"))
    config.finish()
    return [layer]


def _activation(config: _Config, _weights: Arrays, made: list[Layer]) -> list[Layer]:
    """Becomes that of the Dense before it."""
    activation = config.activation(DENSE_ACTIVATIONS)
    config.finish()
    before = made[-1] if made else None
    if isinstance(before, Dense) and before.activation is None:
        before.activation = activation
    elif activation is not None:
        config.refuse(f"{activation} maps only after a Dense without activation")
    return []


_KINDS: dict[str, Callable[[_Config, Arrays, list[Layer]], list[Layer]]] = {
    **dict.fromkeys(CELLS, _recurrent),
    "Bidirectional": _bidirectional,
    "Embedding": _embedding,
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Dropout": _dropout,
    "Activation": _activation,
}
