"""Reading .keras files without Keras: what they hold, and every kind of file that is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras_files
import numpy as np
import pytest

import fastrnn as fr
import fastrnn.keras as fk

h5py = pytest.importorskip("h5py")


@pytest.fixture
def parts(rng: Any) -> tuple[list[Any], dict[str, Any]]:
    return keras_files.example(rng)


def test_a_file_is_read(parts: Any, tmp_path: Path, rng: Any) -> None:
    layers, weights = parts
    model = fk.load(keras_files.write(tmp_path / "m.keras", keras_files.model_of(layers), weights))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Embedding", "LSTM", "GRU", "Dropout", "Dense", "RNN", "Dense", "Dense"]
    assert model.layers[-1].activation == "softmax"
    rnn = model.layers[5].state_dict()
    h = np.zeros((4, 2))
    x = rng.standard_normal((4, 3, 6)).astype("f4")
    kernel, recurrent, bias = (weights[f"layers/simple_rnn/cell/vars/{k}"] for k in range(3))
    for t in range(3):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
    np.testing.assert_allclose(model.layers[5](x)[0], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rnn["weight_ih_l0"], kernel.T)
    gru = model.layers[2].state_dict()
    z, r, n = np.split(weights["layers/gru/cell/vars/0"], 3, axis=1)
    np.testing.assert_array_equal(gru["weight_ih_l0"], np.concatenate([r, z, n], axis=1).T)
    z, r, n = np.split(weights["layers/gru/cell/vars/2"][1], 3)
    np.testing.assert_array_equal(gru["bias_hh_l0"], np.concatenate([r, z, n]))
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(rng.integers(0, 20, (8, 5)), rng.integers(0, 3, 8), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def change(name: str, **config: Any) -> Any:
    """A change to the configuration of a layer."""

    def apply(layers: list[Any], weights: dict[str, Any]) -> None:
        next(x for x in layers if x["config"]["name"] == name)["config"].update(config)

    return apply


def without_key(layers: list[Any], weights: dict[str, Any]) -> None:
    del layers[3]["config"]["reset_after"]


def drop(place: str) -> Any:
    return lambda layers, weights: weights.pop(place)


def put(place: str, value: Any) -> Any:
    return lambda layers, weights: weights.update({place: value})


def entry(place: int, **values: Any) -> Any:
    return lambda layers, weights: layers[place].update(values)


BIAS = "layers/gru/cell/vars/2"
CHANGES: dict[str, tuple[Any, str]] = {
    "missing weights": (drop(BIAS), r"gru \(GRU\): expected 3 arrays of weights, got 2"),
    "no weights": (drop("layers/embedding/vars/0"), r"embedding \(Embedding\): expected 1 arrays"),
    "surplus": (put("layers/gru/cell/vars/3", np.ones(3)), r"gru \(GRU\): expected 3 arrays.*4"),
    "shape": (
        put("layers/simple_rnn/cell/vars/1", np.ones((2, 3), "f4")),
        r"rnn \(SimpleRNN\): recurrent_kernel: expected floats \(2, 2\), got float32 \(2, 3\)",
    ),
    "integers": (put("layers/dense/vars/1", np.ones(4, "i4")), r"hidden \(Dense\): bias: .*int32"),
    "features": (
        put("layers/dense/vars/0", np.ones((5, 4), "f4")),
        r"layers\[6\], Dense: expected 5 features, but layers\[5\], RNN, gives 2",
    ),
    "soft link": (put(BIAS, h5py.SoftLink("/layers/gru/cell/vars/1")), "got a link"),
    "external link": (put(BIAS, h5py.ExternalLink("other.h5", "bias")), "vars/2: .*got a link"),
    "a group": (put(BIAS, None), "damaged"),
    "units": (change("gru", units="3"), r"gru \(GRU\): units: expected a positive integer"),
    "huge": (change("embedding", input_dim=2**30, output_dim=2**30), "num_embeddings: expected"),
    "flag": (change("gru", return_sequences=1), r"gru \(GRU\): return_sequences: expected True"),
    "missing key": (without_key, r"gru \(GRU\): has no 'reset_after'"),
    "unknown key": (change("gru", lora_rank=4), r"gru \(GRU\): lora_rank=4 does not map$"),
    "stateful": (change("gru", stateful=True), r"gru \(GRU\): stateful=True does not map$"),
    "mask": (change("embedding", mask_zero=True), r"embedding \(Embedding\): mask_zero=True"),
    "no dtype": (change("rnn", dtype="float16"), r"rnn \(SimpleRNN\): dtype: .*got 'float16'"),
    "rate": (change("dropout", rate=1.0), r"dropout \(Dropout\): p: expected a number in"),
    "activation": (change("softmax", activation="gelu"), r"softmax \(Activation\): activation"),
    "twice": (change("dense", activation="relu"), r"softmax \(Activation\): softmax maps only"),
    "merge": (change("both", merge_mode=None), r"both \(Bidirectional\): merge_mode=None"),
    "Lambda": (entry(3, class_name="Lambda"), r"gru \(Lambda\): this class does not map$"),
    "own": (entry(3, module="mine"), r"gru \(GRU\): a class of one's own does not map"),
    "registered": (entry(3, registered_name="mine>GRU"), r"gru \(GRU\): a class of one's own"),
    "not a layer": (lambda layers, weights: layers.append(3), "damaged"),
    "no config": (entry(3, config=None), "damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_map_is_named(name: str, parts: Any, tmp_path: Path) -> None:
    layers, weights = parts
    alter, message = CHANGES[name]
    alter(layers, weights)
    if name == "a group":
        weights[BIAS + "/x"] = np.ones(3)
        del weights[BIAS]
    path = keras_files.write(tmp_path / "m.keras", keras_files.model_of(layers), weights)
    with pytest.raises(ValueError, match=f"m.keras: .*{message}"):
        fk.load(path)


def test_backward_layer_must_be_alike(parts: Any, tmp_path: Path) -> None:
    layers, weights = parts
    layers[2]["config"]["backward_layer"]["config"]["recurrent_activation"] = "hard_sigmoid"
    path = keras_files.write(tmp_path / "m.keras", keras_files.model_of(layers), weights)
    with pytest.raises(ValueError, match=r"backward_lstm \(LSTM\): gate_activation: expected 'sig"):
        fk.load(path)


def test_damaged_files_and_others_are_refused(parts: Any, tmp_path: Path, rng: Any) -> None:
    layers, weights = parts
    model = keras_files.model_of(layers)
    whole = keras_files.write(tmp_path / "m.keras", model, weights).read_bytes()
    path = tmp_path / "bad.keras"
    cuts = [0, 1, 100, *rng.integers(0, len(whole), 20)]
    flips = rng.integers(0, len(whole), 60)
    for data in [whole[:cut] for cut in cuts]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.keras: not a \.keras file, or a damaged one"):
            fk.load(path)
    refused = 0
    for at in flips:  # the archive's checksums tell; a few bytes are of no consequence
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        try:
            fk.load(path)
        except ValueError as error:
            refused += 1
            assert "bad.keras: " in str(error)
    assert refused > len(flips) // 2
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0"}))
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        fk.load(path)
    for version in ("2.15.0", "4.0.0"):
        keras_files.write(path, model, weights, version)
        with pytest.raises(
            ValueError, match=f"expected a file of Keras 3, got one of .* {version}"
        ):
            fk.load(path)
    functional = {"module": "keras", "class_name": "Functional", "config": {}}
    keras_files.write(path, functional, {})
    with pytest.raises(ValueError, match="expected a Sequential model, got Functional"):
        fk.load(path)
    for other in ([], {"class_name": "Sequential"}, None):
        keras_files.write(path, other, {})
        with pytest.raises(ValueError, match="damaged"):
            fk.load(path)
    with pytest.raises(FileNotFoundError):
        fk.load(tmp_path / "none.keras")


def test_damaged_weights_never_crash(parts: Any, tmp_path: Path, rng: Any) -> None:
    layers, weights = parts
    model = keras_files.model_of(layers)
    path = keras_files.write(tmp_path / "m.keras", model, weights)
    with zipfile.ZipFile(path) as archive:
        data = bytearray(archive.read("model.weights.h5"))
    for at in rng.integers(0, min(len(data), 4000), 150):  # mostly HDF5's own structures
        changed = bytes(data[:at]) + bytes([data[at] ^ 255]) + bytes(data[at + 1 :])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0"}))
            archive.writestr("config.json", json.dumps(model))
            archive.writestr("model.weights.h5", changed)
        path.write_bytes(buffer.getvalue())
        try:
            assert isinstance(fk.load(path), fr.Sequential)
        except ValueError as error:
            assert "m.keras: " in str(error)


def run(code: str, *arguments: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)


def test_neither_keras_nor_torch_is_imported(parts: Any, tmp_path: Path) -> None:
    layers, weights = parts
    path = keras_files.write(tmp_path / "m.keras", keras_files.model_of(layers), weights)
    code = "import sys, fastrnn.keras as k; k.load(sys.argv[1]); print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(code, str(path)).split()}
    assert "h5py" in loaded
    assert not loaded & {"keras", "torch", "tensorflow", "jax"}
    code = "import sys, fastrnn.keras; print('h5py' in sys.modules)"
    assert run(code).strip() == "False"


def test_without_h5py_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[keras\]'"):
        fk.load("m.keras")
