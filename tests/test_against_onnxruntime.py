"""Variants beside ONNX Runtime, where it is installed: PyTorch has none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.layers.recurrent import Recurrent

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(operator: str, inputs: dict[str, Any], hidden: int, **attributes: Any) -> list[Any]:
    """Y [T, D, B, H] and the final states of one ONNX operator; an input None is left out."""
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator == "LSTM" else 2]
    names = [name.strip() for name in inputs]
    node = onnx.helper.make_node(operator, names, outputs, hidden_size=hidden, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "variant",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
            if array is not None
        ],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in outputs
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {k: v for k, v in inputs.items() if v is not None}))


def onnx_weights(layer: Recurrent, order: list[int]) -> dict[str, Any]:
    """W, R and B of one layer, by direction, with the gates in that order."""
    values = {name: parameter.data for name, parameter in layer.parameters().items()}

    def by_direction(name: str) -> Any:
        suffixes = ["", "_reverse"][: layer.directions]
        gates = [np.split(values[name + suffix], layer.gates) for suffix in suffixes]
        return np.stack([np.concatenate([blocks[k] for k in order]) for blocks in gates])

    biases = [by_direction("bias_ih_l0"), by_direction("bias_hh_l0")]
    return {
        "W": by_direction("weight_ih_l0"),
        "R": by_direction("weight_hh_l0"),
        "B": np.concatenate(biases, axis=1),
    }


def assert_same(layer: Recurrent, x: Any, results: list[Any], lengths: Any = None) -> None:
    output, final = layer(x, lengths=lengths)
    y = results[0].transpose(2, 0, 1, 3).reshape(output.shape)
    np.testing.assert_allclose(output, y, atol=2e-6)
    for ours, theirs in zip(final if layer.has_c else (final,), results[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_coupled_gates(rng: Any) -> None:
    """`input_forget`: f = 1 - i; ONNX keeps f's weights, which nothing reads, in order i o f c."""
    layer = fr.LSTM(5, 7, coupled="f=1-i", seed=1)
    x = rng.standard_normal((3, 6, 5)).astype("float32")
    weights = onnx_weights(layer, [0, 2, 2, 1])
    results = run_onnx("LSTM", {"X": x.swapaxes(0, 1).copy(), **weights}, 7, input_forget=1)
    assert_same(layer, x, results)


@pytest.mark.parametrize("clip", [None, 0.3, 1.0])
@pytest.mark.parametrize("coupled", [None, "f=1-i"])
def test_peepholes_and_clip(clip: float | None, coupled: str | None, rng: Any) -> None:
    layer = fr.LSTM(5, 7, peephole=True, clip=clip, coupled=coupled, seed=1)
    peepholes = layer.parameters()["weight_ch_l0"]
    peepholes.assign(rng.standard_normal(peepholes.shape))
    x = rng.standard_normal((3, 6, 5)).astype("float32") * 2
    order = [0, 3, 1, 2] if coupled is None else [0, 2, 2, 1]
    inputs = {
        "X": x.swapaxes(0, 1).copy(),
        **onnx_weights(layer, order),
        "": None,
        " ": None,
        "  ": None,
    }
    rows = [0, 2, 1] if coupled is None else [0, 1, 1]  # ONNX's order is i, o, f
    inputs |= {"P": np.concatenate([peepholes.data[k] for k in rows])[None]}
    attributes: dict[str, Any] = {} if clip is None else {"clip": clip}
    if coupled:
        attributes["input_forget"] = 1
    assert_same(layer, x, run_onnx("LSTM", inputs, 7, **attributes))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("reset_after", [False, True])
def test_both_grus(reset_after: bool, clip: float | None, bidirectional: bool, rng: Any) -> None:
    layer = fr.GRU(5, 7, reset_after=reset_after, clip=clip, bidirectional=bidirectional, seed=1)
    x = rng.standard_normal((4, 6, 5)).astype("float32")
    lengths = np.array([6, 3, 1, 4], np.int32)
    weights = onnx_weights(layer, [1, 0, 2])
    inputs = {"X": x.swapaxes(0, 1).copy(), **weights, "lengths": lengths}
    attributes: dict[str, Any] = {} if clip is None else {"clip": clip}
    direction = "bidirectional" if bidirectional else "forward"
    results = run_onnx(
        "GRU", inputs, 7, linear_before_reset=int(reset_after), direction=direction, **attributes
    )
    assert_same(layer, x, results, lengths)


@pytest.mark.parametrize("gate, state", [("hard_sigmoid", "relu"), ("tanh", "identity")])
def test_activations(gate: str, state: str, rng: Any) -> None:
    layer = fr.LSTM(5, 7, gate_activation=gate, state_activation=state, seed=1)
    names = {"hard_sigmoid": "HardSigmoid", "relu": "Relu", "tanh": "Tanh", "identity": "Affine"}
    x = rng.standard_normal((3, 6, 5)).astype("float32")
    inputs = {"X": x.swapaxes(0, 1).copy(), **onnx_weights(layer, [0, 3, 1, 2])}
    alpha = [1 / 6] * (gate == "hard_sigmoid") + [1.0] * (2 * (state == "identity"))
    beta = [0.5] * (gate == "hard_sigmoid") + [0.0] * (2 * (state == "identity"))
    results = run_onnx(
        "LSTM", inputs, 7, activations=[names[gate], names[state], names[state]],
        activation_alpha=alpha, activation_beta=beta,
    )  # fmt: skip
    assert_same(layer, x, results)
