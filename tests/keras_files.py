"""Files as Keras 3 writes them, made without Keras: test_keras.py compares them with its own."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

NONE = dict.fromkeys(
    f"{part}_{what}"
    for part in ("kernel", "recurrent", "bias")
    for what in ("regularizer", "constraint")
)
DENSE = {"activation": "linear", "use_bias": True, "quantization_config": None} | {
    name: None for name in NONE if "recurrent" not in name
}
RECURRENT = NONE | {
    "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False,
    "unroll": False, "zero_output_for_mask": False, "activation": "tanh", "use_bias": True,
    "activity_regularizer": None, "dropout": 0.0, "recurrent_dropout": 0.0,
}  # fmt: skip
GATED = RECURRENT | {"recurrent_activation": "sigmoid", "seed": None}
DEFAULTS: dict[str, dict[str, Any]] = {
    "SimpleRNN": RECURRENT,
    "GRU": GATED | {"reset_after": True},
    "LSTM": GATED | {"unit_forget_bias": True},
    "Embedding": {
        "mask_zero": False, "embeddings_regularizer": None, "embeddings_constraint": None,
        "activity_regularizer": None, "quantization_config": None,
    },
    "Dense": DENSE,
    "Dropout": {"seed": None, "noise_shape": None},
    "Bidirectional": {"merge_mode": "concat"},
}  # fmt: skip


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    """The entry of a layer in config.json, all but initializers, with Keras's defaults."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
    plain = {"name": name, "trainable": True, "dtype": policy | {"registered_name": None}}
    if kind == "InputLayer":
        plain = {"name": name, "dtype": "float32", "sparse": False, "ragged": False}
        plain["optional"] = False
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": plain | copy.deepcopy(DEFAULTS.get(kind, {})) | config,
        "registered_name": None,
    }


def example(rng: np.random.Generator) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The layers of a model, and its weights by their places in model.weights.h5."""
    lstm = {"units": 4, "return_sequences": True}
    # Bidirectional sets zero_output_for_mask.
    lstm["zero_output_for_mask"] = True
    layers = [
        layer("InputLayer", "ids", batch_shape=[None, None]),
        layer("Embedding", "embedding", input_dim=20, output_dim=5),
        layer(
            "Bidirectional",
            "both",
            layer=layer("LSTM", "forward_lstm", **lstm),
            backward_layer=layer("LSTM", "backward_lstm", **lstm, go_backwards=True),
        ),
        layer("GRU", "gru", units=3, return_sequences=True),
        layer("Dropout", "dropout", rate=0.25),
        layer("TimeDistributed", "each", layer=layer("Dense", "inner", units=6, activation="relu")),
        layer("SimpleRNN", "rnn", units=2),
        layer("Dense", "hidden", units=4, activation="tanh"),
        layer("Dense", "dense", units=3),
        layer("Activation", "softmax", activation="softmax"),
    ]
    shapes = {
        "embedding/vars": [(20, 5)],
        "bidirectional/forward_layer/cell/vars": [(5, 16), (4, 16), (16,)],
        "bidirectional/backward_layer/cell/vars": [(5, 16), (4, 16), (16,)],
        "gru/cell/vars": [(8, 9), (3, 9), (2, 9)],
        "dropout/vars": [],
        "time_distributed/layer/vars": [(3, 6), (6,)],
        "simple_rnn/cell/vars": [(6, 2), (2, 2), (2,)],
        "dense/vars": [(2, 4), (4,)],
        "dense_1/vars": [(4, 3), (3,)],
        "activation/vars": [],
    }
    weights = {
        f"layers/{place}/{k}": rng.standard_normal(shape).astype("f4")
        for place, several in shapes.items()
        for k, shape in enumerate(several)
    }
    return layers, weights


def model_of(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """What config.json says of a Sequential of these layers."""
    config = {"name": "sequential", "trainable": True, "dtype": "float32", "layers": layers}
    return {"module": "keras", "class_name": "Sequential", "config": config}


def write(path: Path, model: Any, weights: dict[str, Any], version: str = "3.15.1") -> Path:
    """A .keras file; an entry of weights may be a link of h5py's."""
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for place, array in weights.items():
            file[place] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", data.getvalue())
    return path
