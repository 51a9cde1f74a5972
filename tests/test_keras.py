"""Models and layers from Keras 3 and to it, where it is installed: outputs and refusals."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras_files
import numpy as np
import pytest

import fastrnn as fr
import fastrnn.keras as fk

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("torch")

B, T, I, H = 5, 7, 4, 6
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def randomized(layer: Any, rng: Any) -> Any:
    """With other biases than zeros."""
    layer.set_weights([rng.normal(0, 0.4, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def built(keras: Any, layers: list[Any], rng: Any, shape: tuple[Any, ...] = (None, I)) -> Any:
    return randomized(keras.Sequential([keras.Input(shape), *layers]), rng)


CELLS: list[tuple[str, dict[str, Any]]] = [
    ("SimpleRNN", {}),
    ("SimpleRNN", {"activation": "relu", "recurrent_dropout": 0.5}),
    ("SimpleRNN", {"activation": "linear", "use_bias": False}),
    ("GRU", {}),
    ("GRU", {"reset_after": False, "recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"use_bias": False, "activation": "relu", "dtype": "float64"}),
    ("LSTM", {}),
    ("LSTM", {"recurrent_activation": "hard_sigmoid", "activation": "sigmoid"}),
    ("LSTM", {"use_bias": False, "unit_forget_bias": False}),
]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_recurrent_layers_both_ways(
    kind: str, options: dict[str, Any], both: bool, sequences: bool, keras: Any, rng: Any
) -> None:
    theirs = getattr(keras.layers, kind)(H, return_sequences=sequences, **options)
    if both:
        theirs = keras.layers.Bidirectional(theirs, dtype=options.get("dtype"))
    theirs.build((None, None, I))
    randomized(theirs, rng)
    ours = fk.from_keras(theirs)
    x = rng.standard_normal((B, T, I)).astype(ours.dtype)
    want = theirs(x).detach().numpy()
    np.testing.assert_allclose(ours(x)[0], want, **CLOSE)
    again = fk.to_keras(ours)
    np.testing.assert_allclose(again(x).detach().numpy(), want, **CLOSE)
    for got, wanted in zip(again.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_model_both_ways_and_by_its_file(keras: Any, rng: Any, tmp_path: Path) -> None:
    k = keras.layers
    layers = [
        k.Embedding(30, I),
        k.Dropout(0.25),
        k.Bidirectional(k.LSTM(H, return_sequences=True)),
        k.TimeDistributed(k.Dense(5, activation="relu")),
        k.GRU(H, return_sequences=True),
        k.GRU(3),
        k.Activation("linear"),
        k.Dense(4, activation="sigmoid", use_bias=False),
        k.Dense(3),
        k.Activation("softmax"),
    ]
    theirs = built(keras, layers, rng, (None,))
    theirs.compile("adam", "sparse_categorical_crossentropy")
    theirs.save(tmp_path / "m.keras")
    x = rng.integers(0, 30, (B, T))
    want = theirs.predict(x, verbose=0)
    ours = fk.load(tmp_path / "m.keras")
    np.testing.assert_allclose(ours(x), want, **CLOSE)
    np.testing.assert_array_equal(fk.from_keras(theirs)(x), ours(x))
    np.testing.assert_allclose(fk.to_keras(ours).predict(x, verbose=0), want, **CLOSE)
    assert ours.layers[1].p == 0.25


def test_ours_to_keras(keras: Any, rng: Any) -> None:
    ours = fr.Sequential(
        [
            fr.LSTM(I, H, 2, bidirectional=True, dropout=0.5, seed=1),
            fr.GRU(2 * H, 3, bias="single", reset_after=True, seed=2),
            fr.GRU(3, 3, reset_after=False, seed=3),
            fr.RNN(3, H, 2, nonlinearity="hard_sigmoid", return_sequences=False, seed=4),
            fr.Dense(H, 2, "tanh", seed=5),
        ]
    )
    theirs = fk.to_keras(ours)
    kinds = [type(layer).__name__ for layer in theirs.layers]
    assert kinds == ["Bidirectional", "Dropout", "Bidirectional", "GRU", "GRU", "SimpleRNN",
                     "SimpleRNN", "Dense"]  # fmt: skip
    x = rng.standard_normal((B, T, I)).astype("f4")
    np.testing.assert_allclose(theirs.predict(x, verbose=0), ours(x), **CLOSE)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (fr.LSTM, {"proj_size": 3}, "proj_size=3"),
        (fr.LSTM, {"peephole": True}, "peephole"),
        (fr.LSTM, {"coupled": "f=1-i"}, "coupled"),
        (fr.LSTM, {"zoneout_c": 0.1}, "zoneout_c"),
        (fr.LSTM, {"recurrent_dropout": 0.1}, "recurrent_dropout"),
        (fr.LSTM, {"dtype": "bfloat16"}, "bfloat16"),
        (fr.GRU, {"variant": "minimal"}, "variant='minimal'"),
        (fr.GRU, {"clip": 1.0}, "clip"),
        (fr.RNN, {"layer_norm": True}, "layer_norm"),
        (fr.RNN, {"zoneout_h": 0.1}, "zoneout_h"),
        (fr.RNN, {"batch_first": False}, "batch_first"),
    ],
)
def test_what_keras_has_not(kind: Any, options: Any, named: str, keras: Any) -> None:
    with pytest.raises(ValueError, match=rf"layers\[0\], {kind.__name__}: .*{named}"):
        fk.to_keras(kind(I, H, **options))


def test_a_mask_is_left_out_by_name_alone(keras: Any, rng: Any) -> None:
    k = keras.layers
    layers = [k.Embedding(30, I, mask_zero=True), k.Bidirectional(k.LSTM(H)), k.Dense(3)]
    theirs = built(keras, layers, rng, (None,))
    with pytest.raises(ValueError, match=r"embedding.* \(Embedding\): mask_zero=True does not map"):
        fk.from_keras(theirs)
    ours = fk.from_keras(theirs, without=["mask_zero"])
    rows = [rng.integers(1, 30, n) for n in (3, 7, 1, 5)]
    for padding in ("pre", "post"):
        padded = keras.utils.pad_sequences(rows, padding=padding)
        np.testing.assert_allclose(ours.predict(rows), theirs.predict(padded, verbose=0), **CLOSE)
    of_floats = built(keras, [k.Masking(-1.0), k.GRU(H)], rng)
    with pytest.raises(ValueError, match=r"\(Masking\): this class does not map; without=\['Mask"):
        fk.from_keras(of_floats)
    ours = fk.from_keras(of_floats, without="Masking")
    sequences = [rng.standard_normal((n, I)).astype("f4") for n in (2, 6, 4)]
    padded = keras.utils.pad_sequences(sequences, dtype="float32", padding="post", value=-1.0)
    want = of_floats.predict(padded, verbose=0)
    np.testing.assert_allclose(ours.predict(sequences), want, **CLOSE)


def custom(keras: Any) -> Any:
    class LSTM(keras.layers.LSTM):
        pass

    return LSTM(H, name="mine")


REFUSED: dict[str, tuple[Any, str]] = {
    "stateful": (lambda k: k.LSTM(H, stateful=True, name="a"), r"a \(LSTM\): stateful=True"),
    "state": (lambda k: k.LSTM(H, return_state=True, name="a"), r"a \(LSTM\): return_state=True"),
    "backwards": (lambda k: k.GRU(H, go_backwards=True, name="a"), r"a \(GRU\): go_backwards=True"),
    "dropout": (lambda k: k.LSTM(H, dropout=0.1, name="a"), r"dropout=0.1 .*without=\['dropout'\]"),
    "recurrent dropout": (lambda k: k.LSTM(H, recurrent_dropout=0.1), "recurrent_dropout=0.1"),
    "activation": (lambda k: k.LSTM(H, activation="elu"), "activation: expected .*got 'elu'"),
    "function": (lambda k: k.Dense(H, activation=doubled), r"\(Dense\): activation: .*got doubled"),
    "regularizer": (lambda k: k.Dense(H, kernel_regularizer="l2"), "kernel_regularizer=L2"),
    "constraint": (lambda k: k.GRU(H, bias_constraint="non_neg"), "bias_constraint=NonNeg"),
    "frozen": (lambda k: k.GRU(H, trainable=False), "trainable=False does not map; without="),
    "merge": (lambda k: k.Bidirectional(k.GRU(H), merge_mode="sum"), "merge_mode='sum'"),
    "not alike": (
        lambda k: k.Bidirectional(
            k.GRU(H), backward_layer=k.GRU(H, reset_after=False, go_backwards=True)
        ),
        r"\(GRU\): (reset_after|bias): expected True as forward, got",
    ),
    "conv": (lambda k: k.Conv1D(H, 3, name="c"), r"c \(Conv1D\): this class does not map$"),
    "lambda": (lambda k: k.Lambda(doubled, name="l"), r"l \(Lambda\): this class does not map$"),
    "spatial": (lambda k: k.SpatialDropout1D(0.2), r"without=\['SpatialDropout1D'\]"),
    "wrapped": (lambda k: k.TimeDistributed(k.Dropout(0.1)), r"\(Dropout\).*TimeDistributed"),
    "policy": (lambda k: k.GRU(H, dtype="mixed_bfloat16"), "float32 .*got 'mixed_bfloat16'"),
    "custom": (custom, r"mine \(LSTM\): a class of one's own"),
    "activation alone": (lambda k: k.Activation("relu"), r"\(Activation\): relu maps only after"),
    "noise shape": (lambda k: k.Dropout(0.1, noise_shape=(1, 1, H)), "noise_shape"),
}


def test_a_layer_alone_may_return_its_state(keras: Any, rng: Any) -> None:
    theirs = keras.layers.GRU(H, return_sequences=True, return_state=True)
    x = rng.standard_normal((B, T, I)).astype("f4")
    want, want_h = (z.detach().numpy() for z in theirs(x))
    y, h = fk.from_keras(theirs)(x)
    np.testing.assert_allclose(y, want, **CLOSE)
    np.testing.assert_allclose(h[0], want_h, **CLOSE)


def doubled(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_map_is_named(name: str, keras: Any, rng: Any, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    theirs = keras.Sequential()
    theirs.add(keras.Input((T, I), batch_size=B))
    theirs.add(make(keras if make is custom else keras.layers))
    with pytest.raises(ValueError, match=message):
        fk.from_keras(theirs)
    theirs.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=f"m.keras: .*{message}"):
        fk.load(tmp_path / "m.keras")


def test_a_function_of_a_known_name_is_still_ones_own(keras: Any) -> None:
    k = keras.layers

    def tanh(x: Any) -> Any:
        return x * 2

    layers = (
        k.LSTM(H, activation=tanh), k.GRU(H, recurrent_activation=tanh), k.Dense(H, tanh),
        k.TimeDistributed(k.Dense(H, tanh)),
        k.Bidirectional(k.SimpleRNN(H), backward_layer=k.SimpleRNN(H, tanh, go_backwards=True)),
    )  # fmt: skip
    for layer in layers:
        model = keras.Sequential([keras.Input((T, I)), layer])
        for source in (layer, model):
            with pytest.raises(ValueError, match=r"activation: .* Keras's own, got tanh of test_"):
                fk.from_keras(source)


def test_other_models_are_named(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((None, I))
    functional = keras.Model(x, keras.layers.GRU(H)(x))
    nested = keras.Sequential([x, keras.Sequential([keras.layers.GRU(H)], name="inner")])
    functional.save(tmp_path / "f.keras")
    with pytest.raises(ValueError, match="expected a Sequential model, got Functional"):
        fk.load(tmp_path / "f.keras")
    with pytest.raises(ValueError, match="expected a Sequential model, got Functional"):
        fk.from_keras(functional)
    with pytest.raises(ValueError, match=r"inner \(Sequential\): this class does not map$"):
        fk.from_keras(nested)
    with pytest.raises(ValueError, match=r"\(GRU\): expected 3 arrays of weights, got 0"):
        fk.from_keras(keras.layers.GRU(H))
    with pytest.raises(ValueError, match=r"\(Activation\): is not a layer by itself here"):
        fk.from_keras(keras.layers.Activation("linear"))


def test_classes_of_ones_own(keras: Any, tmp_path: Path) -> None:
    class Sequential(keras.Sequential):
        def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
            return 2 * super().call(x, training=training)

    class Model(keras.Model):
        def __init__(self, option: Any) -> None:
            super().__init__()

    own = Sequential([keras.Input((None, I)), keras.layers.GRU(H)])
    with pytest.raises(ValueError, match="expected a Sequential model, got Sequential of test_k"):
        fk.from_keras(own)
    own.save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match="expected a Sequential model, got Sequential of test_k"):
        fk.load(tmp_path / "own.keras")
    for other in (Model(object()), fr.GRU(I, H), None):
        kind = type(other).__name__
        with pytest.raises(TypeError, match=f"source: expected a Sequential .*, got {kind}$"):
            fk.from_keras(other)


def test_two_directions_in_float64(keras: Any, rng: Any) -> None:
    ours, x = fr.GRU(I, H, bidirectional=True, dtype="float64"), rng.standard_normal((B, T, I))
    theirs = fk.to_keras(ours)(x).detach().numpy()
    np.testing.assert_allclose(theirs, ours(x)[0], rtol=1e-12, atol=1e-12)


def test_training_alone_is_left_out_by_name(keras: Any, rng: Any) -> None:
    k = keras.layers
    layers = [
        k.SpatialDropout1D(0.2),
        k.LSTM(H, dropout=0.2, recurrent_dropout=0.1, kernel_regularizer="l2", trainable=False),
        k.Dense(2),
    ]
    theirs = built(keras, layers, rng)
    names = ["SpatialDropout1D", "dropout", "recurrent_dropout", "kernel_regularizer", "trainable"]
    x = rng.standard_normal((B, T, I)).astype("f4")
    ours = fk.from_keras(theirs, without=names)
    np.testing.assert_allclose(ours(x), theirs.predict(x, verbose=0), **CLOSE)
    for name in names:
        with pytest.raises(ValueError, match=f"'{name}'"):
            fk.from_keras(theirs, without=[n for n in names if n != name])
    with pytest.raises(ValueError, match=r"without: expected some of .*; got 'activation'"):
        fk.from_keras(theirs, without=["activation"])


def test_files_made_by_hand_are_as_keras_makes_them(keras: Any, rng: Any, tmp_path: Path) -> None:
    import h5py

    def named(config: Any) -> Any:
        """Without what reading never looks at."""
        left_out = ("build_config", "shared_object_id", "compile_config", "build_input_shape")
        if isinstance(config, list):
            return [named(part) for part in config]
        if not isinstance(config, dict):
            return config
        return {
            key: named(value)
            for key, value in config.items()
            if key not in left_out and not key.endswith("_initializer")
        }

    layers, weights = keras_files.example(rng)
    path = keras_files.write(tmp_path / "ours.keras", keras_files.model_of(layers), weights)
    theirs = keras.models.load_model(path)
    x = rng.integers(0, 20, (B, T))
    np.testing.assert_allclose(fk.load(path)(x), theirs.predict(x, verbose=0), **CLOSE)

    theirs.save(tmp_path / "theirs.keras")
    with zipfile.ZipFile(tmp_path / "theirs.keras") as archive:
        config = json.loads(archive.read("config.json"))
        stored: dict[str, Any] = {}
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(lambda n, o: stored.update({n: o[()]} if hasattr(o, "shape") else {}))
    assert named(config["config"]["layers"]) == named(layers)
    assert stored.keys() == weights.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(array, weights[name])
