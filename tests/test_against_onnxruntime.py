"""Variants beside ONNX Runtime, where it is installed: PyTorch has none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(operator: str, inputs: dict[str, Any], hidden: int, **attributes: Any) -> list[Any]:
    """Y [T, D, B, H] and the final states of one ONNX operator."""
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator == "LSTM" else 2]
    node = onnx.helper.make_node(operator, list(inputs), outputs, hidden_size=hidden, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "variant",
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
            for name, array in inputs.items()
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
    return list(session.run(None, inputs))


def test_coupled_gates_as_onnx_has_them(rng: Any) -> None:
    """`input_forget`: f = 1 - i; ONNX keeps f's weights, which nothing reads, in order i o f c."""
    layer = fr.LSTM(5, 7, coupled="f=1-i", seed=1)
    x = rng.standard_normal((3, 6, 5)).astype("float32")
    values = {name: parameter.data for name, parameter in layer.parameters().items()}

    def onnx_order(name: str) -> Any:
        i, g, o = np.split(values[name], 3)
        return np.concatenate([i, o, np.full_like(i, 9), g])

    inputs = {
        "X": x.swapaxes(0, 1).copy(),
        "W": onnx_order("weight_ih_l0")[None],
        "R": onnx_order("weight_hh_l0")[None],
        "B": np.concatenate([onnx_order("bias_ih_l0"), onnx_order("bias_hh_l0")])[None],
    }
    y, y_h, y_c = run_onnx("LSTM", inputs, 7, input_forget=1)
    output, (h_n, c_n) = layer(x)
    np.testing.assert_allclose(output, y[:, 0].swapaxes(0, 1), atol=1e-6)
    np.testing.assert_allclose(h_n, y_h, atol=1e-6)
    np.testing.assert_allclose(c_n, y_c, atol=1e-6)
