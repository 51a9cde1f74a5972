"""Model files: all comes back, a bad file is named with its reason, a good one is never lost."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential, load
from fastrnn.serialization import ModelFile, read, replace_file, write


def small_model(dtype: str = "float32") -> Sequential:
    return Sequential(
        [
            Embedding(5, 3, dtype=dtype, seed=1),
            GRU(3, 4, 2, bidirectional=True, dropout=0.25, dtype=dtype, seed=2),
            RNN(8, 3, bias=False, dtype=dtype, seed=3),
            Dropout(0.5),
            LSTM(3, 4, return_sequences=False, dtype=dtype, seed=4),
            Dense(4, 2, "softmax", dtype=dtype, seed=5),
        ]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_as_it_was(tmp_path: Path, dtype: str) -> None:
    model, path = small_model(dtype), tmp_path / "m.safetensors"
    model.save(path)
    found = load(path)
    assert found.config() == model.config()
    assert found.dtype == model.dtype == dtype
    state = found.state_dict()
    assert list(state) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype
        assert np.array_equal(state[name], value), name
    ids = np.array([[0, 4, 2, 1], [3, 3, 1, 0]])
    assert np.array_equal(found(ids), model(ids))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "m.safetensors"
    model.save(path, extra={"vocabulary": "abc\n", "nested": [1, {"a": None}]})
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(model.parameters())
    assert metadata["format"] == "fastrnn"
    assert metadata["version"] == "1"
    description = json.loads(metadata["model"])
    assert [layer["kind"] for layer in description["layers"]] == [
        *("Embedding", "GRU", "RNN", "Dropout", "LSTM", "Dense")
    ]
    assert read(path).extra == {"vocabulary": "abc\n", "nested": [1, {"a": None}]}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    small_model().save(path)
    whole = path.read_bytes()
    for length in [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors: not a model file, or a truncated"):
            load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"def f():\n    return 1\n" * 100,
        pickle.dumps({"weights": [1.0] * 100}),
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        b"\xff" * 100,
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other: not a model file"):
        load(path)


def test_safetensors_of_another_program_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pt.safetensors"
    for metadata in (None, {}, {"format": "pt"}):
        save_file({"weight": np.zeros(3, np.float32)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"pt\.safetensors: .* not one of a fastrnn model"):
            load(path)
    header = b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match=r"pt\.safetensors: not a fastrnn model \(it holds BF16\)"):
        load(path)


def altered(path: Path, **metadata: str | None) -> Path:
    """A model file with other metadata; None takes an entry out."""
    model = small_model()
    entries: dict[str, str | None] = {
        "format": "fastrnn",
        "version": "1",
        "model": json.dumps({"kind": "Sequential", **model.config()}),
        "extra": "{}",
    }
    entries |= metadata
    kept = {key: value for key, value in entries.items() if value is not None}
    path.write_bytes(save(model.state_dict(), kept))
    return path


def one_layer(**entry: Any) -> str:
    return json.dumps({"kind": "Sequential", "layers": [entry]})


@pytest.mark.parametrize(
    "metadata, reason",
    [
        ({"version": "2"}, "written in version 2 of the model format, but .* reads version 1"),
        ({"version": None}, "written in version None"),
        ({"model": None}, "damaged, its 'model' is not a JSON object"),
        ({"model": "{"}, "damaged, its 'model'"),
        ({"model": "[1]"}, "damaged, its 'model'"),
        ({"model": "[" * 100_000}, "damaged, its 'model'"),
        ({"extra": "1"}, "damaged, its 'extra'"),
        ({"model": "{}"}, "a model of kind None is not known"),
        ({"model": '{"kind": "Tree", "layers": []}'}, "a model of kind 'Tree' is not known"),
        ({"model": '{"kind": "Sequential"}'}, "the description has no list of layers"),
        ({"model": '{"kind": "Sequential", "layers": [1]}'}, r"layers\[0\]: "),
        ({"model": '{"kind": "Sequential", "layers": []}'}, "expected at least one"),
        ({"model": one_layer(kind="Conv", config={})}, r"layers\[0\]: 'Conv' is not known"),
        ({"model": one_layer(kind=["LSTM"], config={})}, r"layers\[0\]: "),
        ({"model": one_layer(config={})}, r"layers\[0\]: 'kind' is not known"),
        ({"model": one_layer(kind="Dense", config={"wide": 3})}, r"layers\[0\]: .*wide"),
        ({"model": one_layer(kind="Dropout", config={"p": 2})}, r"layers\[0\]: p: expected"),
        ({"model": one_layer(kind="Dropout", config={"p": 0.5})}, "state_dict: missing nothing"),
        (
            {"model": one_layer(kind="LSTM", config={"input_size": 2**30, "hidden_size": 2**30})},
            "memory|Unable to allocate|too large|too many|layers",
        ),
    ],
)
def test_a_bad_description_is_refused(
    tmp_path: Path, metadata: dict[str, str | None], reason: str
) -> None:
    path = altered(tmp_path / "m.safetensors", **metadata)
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*({reason})"):
        load(path)


def test_tensors_that_do_not_fit_the_description_are_refused(tmp_path: Path) -> None:
    model, path = small_model(), tmp_path / "m.safetensors"
    description = {"kind": "Sequential", **model.config()}
    name = "0.embedding.weight"

    def written(**tensors: Any) -> None:
        write(path, ModelFile({**model.state_dict(), **tensors}, description, {}))

    written(**{name: np.zeros((5, 4), np.float32)})
    with pytest.raises(ValueError, match=r"m\.safetensors: 0\.embedding\.weight: expected shape"):
        load(path)
    written(**{name: np.zeros((5, 3), np.float64)})
    with pytest.raises(ValueError, match=rf"m\.safetensors: {name}: expected float32, got float64"):
        load(path)
    written(surplus=np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"m\.safetensors: .*not expected \['surplus'\]"):
        load(path)
    state = model.state_dict()
    del state[name]
    write(path, ModelFile(state, description, {}))
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*missing \['{name}'\]"):
        load(path)


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.safetensors")
    with pytest.raises(OSError):
        load(tmp_path)


def test_extra_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        small_model().save(tmp_path / "m", extra={"a": object()})
    with pytest.raises(ValueError):
        small_model().save(tmp_path / "m", extra={"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_arrays_in_any_order_are_written(tmp_path: Path) -> None:
    path = tmp_path / "m"
    tensor = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    write(path, ModelFile({"a": tensor, "b": tensor.T[::2]}, {}, {}))
    found = read(path).tensors
    assert np.array_equal(found["a"], tensor)
    assert np.array_equal(found["b"], tensor.T[::2])


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_permissions_and_links(tmp_path: Path) -> None:
    path, link = tmp_path / "m", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == sorted([path, link])


def test_only_ordinary_files_are_replaced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an ordinary file"):
        replace_file(tmp_path, b"new")
    if os.path.exists(os.devnull):
        with pytest.raises(ValueError, match="not an ordinary file"):
            replace_file(os.devnull, b"new")
    with pytest.raises(ValueError, match=r"m: there is no folder .*missing"):
        replace_file(tmp_path / "missing" / "m", b"new")


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    contents = set()
    for place in range(4):
        small_model().save(tmp_path / str(place), extra={"b": 1, "a": 2})
        contents.add((tmp_path / str(place)).read_bytes())
    assert len(contents) == 1
