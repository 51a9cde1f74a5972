"""What weights start from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import initializers

KERAS: dict[str, Any] = {
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
}


@pytest.mark.parametrize("shape", [(5, 5), (12, 4), (3, 8)])
def test_orthogonal_has_orthonormal_vectors(shape: tuple[int, int], rng: Any) -> None:
    a = initializers.orthogonal(shape, np.dtype("float64"), rng)
    assert a.shape == shape
    product = a.T @ a if shape[0] > shape[1] else a @ a.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-12)
    b = initializers.orthogonal(shape, np.dtype("float64"), rng)
    assert np.abs(a - b).max() > 0.1


def test_orthogonal_is_without_a_preferred_direction(rng: Any) -> None:
    many = [initializers.orthogonal((4, 4), np.dtype("float64"), rng) for _ in range(4000)]
    assert np.abs(np.mean(many, axis=0)).max() < 0.04  # 5 standard deviations
    determinants = np.linalg.det(many)
    assert 0.4 < np.mean(determinants > 0) < 0.6


def test_kerass_start() -> None:
    layer = fr.LSTM(30, 20, 2, bidirectional=True, unit_forget_bias=True, seed=3, **KERAS)
    for name, parameter in layer.parameters().items():
        if name.startswith("weight_ih"):
            rows, columns = parameter.shape
            bound = np.sqrt(6 / (rows + columns))
            assert 0.9 * bound < np.abs(parameter.data).max() <= bound
        elif name.startswith("weight_hh"):
            np.testing.assert_allclose(parameter.data.T @ parameter.data, np.eye(20), atol=1e-5)
        else:
            wanted = np.zeros((4, 20))
            wanted[1] = name.startswith("bias_ih")
            np.testing.assert_array_equal(parameter.data, wanted.reshape(-1))
    again = type(layer)(**layer.config())
    for a, b in zip(layer.parameters().values(), again.parameters().values(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_the_identity_keeps_the_state_of_a_relu_network() -> None:
    layer = fr.RNN(
        3, 4, nonlinearity="relu", recurrent_initializer="identity", bias_initializer="zeros"
    )
    h = np.abs(np.random.default_rng(0).standard_normal((1, 2, 4))).astype("float32")
    _, final = layer(np.zeros((2, 9, 3), "float32"), h)
    np.testing.assert_array_equal(final, h)
    gru = fr.GRU(3, 4, recurrent_initializer="identity")
    np.testing.assert_array_equal(
        gru.parameters()["weight_hh_l0"].data.reshape(3, 4, 4), [np.eye(4)] * 3
    )


def test_the_start_is_pytorchs_unless_another_is_named() -> None:
    for parameter in fr.LSTM(5, 16, seed=1).parameters().values():
        assert 0.2 < np.abs(parameter.data).max() <= 0.25


def test_a_single_bias_forgets_too_and_none_cannot() -> None:
    layer = fr.LSTM(2, 3, bias="single", unit_forget_bias=True)
    np.testing.assert_array_equal(layer.parameters()["bias_ih_l0"].data[3:6], 1)
    with pytest.raises(ValueError, match="unit_forget_bias: expected False where there is no bias"):
        fr.LSTM(2, 3, bias=False, unit_forget_bias=True)
    with pytest.raises(TypeError, match="unit_forget_bias: expected True or False, got 1"):
        fr.LSTM(2, 3, unit_forget_bias=1)  # type: ignore[arg-type]


def test_coupled_gates_forget_where_f_is_a_gate() -> None:
    layer = fr.LSTM(2, 3, coupled="i=1-f", unit_forget_bias=True)
    np.testing.assert_array_equal(layer.parameters()["bias_ih_l0"].data[:3], 1)
    assert layer.parameters()["weight_hh_l0"].shape == (9, 3)
    with pytest.raises(
        ValueError, match="unit_forget_bias: expected False where there is no forget"
    ):
        fr.LSTM(2, 3, coupled="f=1-i", unit_forget_bias=True)
    with pytest.raises(ValueError, match="coupled: expected one of f=1-i, i=1-f, got 'cifg'"):
        fr.LSTM(2, 3, coupled="cifg")
    with pytest.raises(ValueError, match="variant: expected one of standard, minimal, got 'mini'"):
        fr.GRU(2, 3, variant="mini")


@pytest.mark.parametrize(
    "argument, value",
    [
        ("kernel_initializer", "identity"),
        ("recurrent_initializer", "he_normal"),
        ("bias_initializer", "orthogonal"),
        ("kernel_initializer", None),
    ],
)
def test_unknown_names_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument}: expected one of .*, got {value!r}"):
        fr.GRU(3, 4, **{argument: value})
