"""What `fastrnn.onnx.export` writes: in ONNX Runtime, in our backend, and read again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrnn as fr

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import fastrnn.onnx  # noqa: E402

onnxruntime.set_default_logger_severity(3)  # not what it says of inputs that may be left out


def session(path: Path) -> Any:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def randomise(model: Any, rng: Any) -> None:
    """Biases and peepholes too start from what is not zero."""
    for parameter in model.parameters().values():
        parameter.assign(rng.uniform(-0.5, 0.5, parameter.shape))


@st.composite
def models(draw: st.DrawFn, dtype: str = "float32") -> fr.Sequential:
    """Any that ONNX can express, with values that stay small."""
    features = draw(st.integers(1, 5))
    layers: list[Any] = []
    if draw(st.booleans()):
        layers.append(fr.Embedding(7, features, dtype=dtype))
    count = draw(st.integers(1, 3))
    for k in range(count):
        kind = draw(st.sampled_from([fr.RNN, fr.GRU, fr.LSTM]))
        hidden = draw(st.integers(1, 6))
        options: dict[str, Any] = {
            "num_layers": draw(st.integers(1, 2)),
            "bidirectional": draw(st.booleans()),
            "bias": draw(st.sampled_from([True, False, "single"])),
            "clip": draw(st.one_of(st.none(), st.floats(0.125, 4, width=32))),
            "dropout": 0.5,
            "recurrent_dropout": 0.5,  # neither does anything in inference
            "return_sequences": k < count - 1 or draw(st.booleans()),
        }
        functions = st.sampled_from(["sigmoid", "tanh", "relu", "hard_sigmoid", "identity"])
        gates = st.sampled_from(["sigmoid", "tanh", "hard_sigmoid"])
        if kind is fr.RNN:
            options["nonlinearity"] = draw(functions)
        else:
            options["gate_activation"] = draw(gates)
            options["state_activation"] = draw(functions)
        if kind is fr.GRU:
            options["reset_after"] = draw(st.booleans())
        if kind is fr.LSTM:
            options["peephole"] = draw(st.booleans())
            options["coupled"] = draw(st.sampled_from([None, "f=1-i"]))
        layers.append(kind(features, hidden, dtype=dtype, **options))
        features = hidden * layers[-1].directions
        if draw(st.booleans()):
            layers.append(fr.Dropout(0.25))
    if draw(st.booleans()):
        activation = draw(st.sampled_from([None, "relu", "tanh", "sigmoid", "softmax"]))
        layers.append(fr.Dense(features, 3, activation, bias=draw(st.booleans()), dtype=dtype))
    model = fr.Sequential(layers)
    randomise(model, np.random.default_rng(draw(st.integers(0, 2**32))))
    return model


def make_feed(model: fr.Sequential, rng: Any, *, lengths: bool, states: bool) -> dict[str, Any]:
    """x and the other inputs for 3 rows of up to 6 steps."""
    if model.takes_ids:
        feed = {"x": rng.integers(0, 7, (3, 6))}
    else:
        features = next(layer.input_size for layer in model.layers if layer.recurrent)
        feed = {"x": rng.uniform(-1, 1, (3, 6, features)).astype(model.dtype)}
    if lengths:
        feed["lengths"] = rng.integers(0, 7, 3)
    if states:
        for place, layer in enumerate(model.layers):
            if layer.recurrent:
                name = f"{place}.{type(layer).__name__.lower()}"
                shape = layer.state_shapes(3)[0]
                for state in ("h_0", "c_0")[: 1 + layer.has_c]:
                    feed[f"{name}.{state}"] = rng.uniform(-1, 1, shape).astype(model.dtype)
    return feed


def run_model(model: fr.Sequential, feed: dict[str, Any]) -> list[Any]:
    """Output and states as the graph gives them."""
    state: list[Any] = [None] * len(model.layers)
    for place, layer in enumerate(model.layers):
        given = [feed[name] for name in feed if name.startswith(f"{place}.")]
        if given:
            state[place] = tuple(given) if layer.has_c else given[0]
    y, after = model.run(feed["x"], state, feed.get("lengths"))
    found = [y]
    for final in after:
        found += [] if final is None else final if isinstance(final, tuple) else [final]
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(models(), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_random_models(
    tmp_path: Path, model: fr.Sequential, lengths: bool, states: bool, seed: int
) -> None:
    path = tmp_path / "model.onnx"
    fastrnn.onnx.export(model, path, lengths=lengths, states=states)
    feed = make_feed(model, np.random.default_rng(seed), lengths=lengths, states=states)
    expected = run_model(model, feed)[: None if states else 1]
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    for found, wanted in zip(session(path).run(None, feed), expected, strict=True):
        np.testing.assert_allclose(found, wanted, **tolerance)
    for found, wanted in zip(
        fastrnn.onnx.prepare(onnx.load(path)).run(feed), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, **tolerance)
    again = fastrnn.onnx.load(path)
    np.testing.assert_allclose(again(feed["x"]), model(feed["x"]), **tolerance)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(models("float64"), st.integers(0, 2**32))
def test_float64_in_our_backend(tmp_path: Path, model: fr.Sequential, seed: int) -> None:
    path = tmp_path / "model.onnx"
    fastrnn.onnx.export(model, path, lengths=True, states=True)
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    feed = make_feed(model, np.random.default_rng(seed), lengths=True, states=True)
    for found, wanted in zip(
        fastrnn.onnx.prepare(file).run(feed), run_model(model, feed), strict=True
    ):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    again = fastrnn.onnx.load(file)
    np.testing.assert_allclose(again(feed["x"]), model(feed["x"]), rtol=1e-12, atol=1e-12)


def test_axes_are_open_and_inputs_may_be_left_out(tmp_path: Path, rng: Any) -> None:
    model = fr.Sequential([fr.Embedding(9, 4), fr.LSTM(4, 5, 2), fr.Dense(5, 2)])
    fastrnn.onnx.export(model, tmp_path / "m.onnx", lengths=True, states=True)
    run = session(tmp_path / "m.onnx")
    assert [i.name for i in run.get_inputs()] == ["x"]
    assert [i.name for i in run.get_overridable_initializers()] == [
        "lengths", "1.lstm.h_0", "1.lstm.c_0",
    ]  # fmt: skip
    assert [o.name for o in run.get_outputs()] == ["y", "1.lstm.h_n", "1.lstm.c_n"]
    assert run.get_outputs()[0].shape == ["batch", "time", 2]
    for shape in ((1, 1), (4, 9)):
        x = rng.integers(0, 9, shape)
        np.testing.assert_allclose(run.run(["y"], {"x": x})[0], model(x), atol=1e-6)
    with pytest.raises(Exception, match="sequence_lens"):
        run.run(["y"], {"x": x, "lengths": np.array([10, 1, 1, 1])})


def test_streaming(tmp_path: Path, rng: Any) -> None:
    """A sequence in pieces, the states fed back, is the sequence in one."""
    model = fr.Sequential([fr.GRU(3, 4, 2), fr.LSTM(4, 5)])
    fastrnn.onnx.export(model, tmp_path / "m.onnx", states=True)
    run = session(tmp_path / "m.onnx")
    names = [i.name for i in run.get_overridable_initializers()]
    x = rng.standard_normal((2, 7, 3)).astype("float32")
    states: dict[str, Any] = {}
    pieces = []
    for piece in (x[:, :1], x[:, 1:4], x[:, 4:]):
        y, *new = run.run(None, {"x": piece, **states})
        pieces.append(y)
        states = dict(zip(names, new, strict=True))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), model(x), atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_a_layer_alone(batch_first: bool, return_sequences: bool, tmp_path: Path, rng: Any) -> None:
    layer = fr.LSTM(
        3, 4, 2, bidirectional=True, batch_first=batch_first, return_sequences=return_sequences
    )
    fastrnn.onnx.export(layer, tmp_path / "m.onnx", lengths=True, states=True)
    x = rng.standard_normal((5, 2, 3)).astype("float32")
    h, c = rng.standard_normal((2, 4, 5 if batch_first else 2, 4)).astype("float32")
    lengths = np.minimum(np.arange(h.shape[1]), 2)
    feed = {"x": x, "lstm.h_0": h, "lstm.c_0": c, "lengths": lengths}
    y, (h_n, c_n) = layer(x, (h, c), lengths)
    for found, wanted in zip(
        session(tmp_path / "m.onnx").run(None, feed), (y, h_n, c_n), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "layer, x",
    [
        (fr.Dense(3, 2, "relu"), np.ones((4, 3), "f4")),
        (fr.Embedding(5, 2), np.array([[1, 2, 4]])),
        (fr.Dropout(0.5), np.ones((4, 3), "f4")),
    ],
)
def test_other_layers_alone(layer: Any, x: Any, tmp_path: Path) -> None:
    fastrnn.onnx.export(layer, tmp_path / "m.onnx")
    np.testing.assert_allclose(session(tmp_path / "m.onnx").run(None, {"x": x})[0], layer(x))


@pytest.mark.parametrize(
    "layer, message",
    [
        (fr.LSTM(3, 4, layer_norm=True), "layer_norm=True"),
        (fr.LSTM(3, 4, proj_size=2), "proj_size=2"),
        (fr.LSTM(3, 4, zoneout_c=0.5), "zoneout_c=0.5"),
        (fr.LSTM(3, 4, coupled="i=1-f"), "coupled='i=1-f'"),
        (fr.GRU(3, 4, zoneout_h=0.1), "zoneout_h=0.1"),
        (fr.GRU(3, 4, variant="minimal"), "variant='minimal'"),
        (fr.RNN(3, 4, dtype="bfloat16"), r'bfloat16=True; export model.to\("float32"\)'),
        (fr.RNN(3, 4, clip=0.3, dtype="float64"), "clip=0.3 in float64"),
    ],
)
def test_what_onnx_cannot_express(layer: Any, message: str, tmp_path: Path) -> None:
    kind = type(layer).__name__.lower()
    with pytest.raises(ValueError, match=f"^{kind}: ONNX cannot express {message}"):
        fastrnn.onnx.export(layer, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=f"^1.{kind}: ONNX cannot express"):
        drop = fr.Dropout(0.1)
        fastrnn.onnx.export(fr.Sequential([drop, layer]), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_other_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, path = fr.Sequential([fr.Dense(2, 2)]), tmp_path / "m.onnx"
    for option in ("lengths", "states"):
        with pytest.raises(ValueError, match=f"{option}: expected False"):
            fastrnn.onnx.export(dense, path, **{option: True})
    with pytest.raises(TypeError, match="expected a Sequential or a layer, got EncoderDecoder"):
        fastrnn.onnx.export(object.__new__(fr.EncoderDecoder), path)
    with pytest.raises(ValueError, match="there is no folder"):
        fastrnn.onnx.export(dense, tmp_path / "none" / "m.onnx")
    monkeypatch.setattr("fastrnn.onnx.writer._LARGEST", 23)
    with pytest.raises(ValueError, match="less than 2 GB"):
        fastrnn.onnx.export(dense, path)


def test_without_onnx() -> None:
    code = "import sys; sys.modules['onnx'] = None; import fastrnn; import fastrnn.onnx"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "ImportError: fastrnn.onnx needs the package onnx: pip install 'fastrnn[onnx]'"
        in run.stderr
    )
