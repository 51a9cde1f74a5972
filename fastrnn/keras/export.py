"""To Keras: our layers as Keras's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn.keras.layout import CELL_ACTIVATIONS, CELLS, PARTS, reordered
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential, input_shape
from fastrnn.parameter import Array

# Keras has nothing like what differs from this.
_PLAIN = {
    "layer_norm": False, "zoneout_h": 0, "zoneout_c": 0, "clip": None, "proj_size": 0,
    "peephole": False, "coupled": None, "variant": "standard", "bfloat16": False,
}  # fmt: skip


def to_keras(model: Sequential | Layer) -> Any:
    """A Keras Sequential with copies of the weights, with a layer for each one of `num_layers`.

    Raises ValueError, naming it, for what Keras has not: projections, peepholes, zoneout, ...
    """
    import keras

    if not isinstance(model, Sequential):
        model = Sequential([model])
    dtype = model.dtype.name
    made = [
        pair
        for place, layer in enumerate(model.layers)
        for pair in _layers(keras.layers, layer, f"layers[{place}], {type(layer).__name__}", dtype)
    ]
    shape, ids = input_shape(model.layers)[1:], model.takes_ids
    inputs = keras.Input(shape, dtype="int32" if ids else dtype)
    theirs = keras.Sequential([inputs, *(layer for layer, _ in made)])
    for layer, weights in made:
        layer.set_weights(weights)
    return theirs


def _layers(
    keras_layers: Any, layer: Layer, name: str, dtype: str
) -> Iterator[tuple[Any, list[Array]]]:
    """Keras's layers for one of ours, and their weights."""
    if isinstance(layer, Embedding):
        sizes = layer.num_embeddings, layer.embedding_dim
        yield keras_layers.Embedding(*sizes, dtype=dtype), [layer.weight.data]
    elif isinstance(layer, Dense):
        options = {"activation": layer.activation, "use_bias": layer.bias is not None}
        weights = [array.T for array in layer.state_dict().values()]
        yield keras_layers.Dense(layer.out_features, dtype=dtype, **options), weights
    elif isinstance(layer, Dropout):
        yield keras_layers.Dropout(layer.p, dtype=dtype), []
    elif isinstance(layer, RNN | GRU | LSTM):
        yield from _recurrent(keras_layers, layer, name, dtype)
    else:
        raise ValueError(f"{name}: does not map to Keras")


def _recurrent(
    keras_layers: Any, layer: RNN | GRU | LSTM, name: str, dtype: str
) -> Iterator[tuple[Any, list[Array]]]:
    # Of gates Keras has a mask for each.
    plain = _PLAIN if isinstance(layer, RNN) else {**_PLAIN, "recurrent_dropout": 0}
    for option, wanted in plain.items():
        value = getattr(layer, option, wanted)
        if value != wanted:
            raise ValueError(f"{name}: {option}={value!r} does not map to Keras")
    theirs = {ours: activation for activation, ours in CELL_ACTIVATIONS.items()}
    options = {"use_bias": bool(layer.bias), "dtype": dtype}
    if isinstance(layer, RNN):
        options["activation"] = theirs[layer.nonlinearity]
        options["recurrent_dropout"] = layer.recurrent_dropout
    else:
        options["activation"] = theirs[layer.state_activation]
        options["recurrent_activation"] = theirs[layer.gate_activation]
    if isinstance(layer, GRU):
        options["reset_after"] = layer.reset_after
    kind = next(name for name, cell in CELLS.items() if isinstance(layer, cell))
    state = layer.state_dict()
    for k in range(layer.num_layers):
        above = k < layer.num_layers - 1
        sequences = above or layer.return_sequences
        made = getattr(keras_layers, kind)(layer.hidden_size, return_sequences=sequences, **options)
        weights: list[Array] = []
        for suffix in ("", "_reverse")[: layer.directions]:
            names = [f"{part}_l{k}{suffix}" for part in PARTS]
            kernel, recurrent, *biases = (state[name] for name in names if name in state)
            weights += [kernel.T, recurrent.T]
            if biases and options.get("reset_after"):
                weights.append(np.stack([*biases, np.zeros_like(biases[0])][:2]))
            elif biases:
                weights.append(np.sum(biases, axis=0))
        made = keras_layers.Bidirectional(made, dtype=dtype) if layer.bidirectional else made
        yield made, [reordered(array, kind) for array in weights]
        if above and layer.dropout:
            yield keras_layers.Dropout(layer.dropout, dtype=dtype), []
