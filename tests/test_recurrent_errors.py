"""What recurrent layers refuse, and how they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr

X = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[0], ValueError, r"x: expected \(batch, time, 4\), got \(3, 4\)"),
        (X[:, :, :3], ValueError, r"x: expected \(batch, time, 4\), got \(2, 3, 3\)"),
        (X[:0], ValueError, r"x: expected \(batch, time, 4\), got \(0, 3, 4\)"),
        (X[:, :0], ValueError, r"got \(2, 0, 4\)"),
        (X.astype(np.float64), TypeError, r"x: expected float32, got float64; convert with x.asty"),
        (X.astype(np.int64), TypeError, "x: expected float32, got int64"),
        ([X[0], X[1, :2]], ValueError, r"x: expected \(batch, time, 4\), got a list of unequal"),
        ("text", TypeError, "x: expected float32"),
        (None, TypeError, "x: expected float32"),
    ],
)
def test_wrong_inputs(x: Any, error: type[Exception], message: str) -> None:
    layer = fr.LSTM(4, 5)
    for call in (layer, layer.vjp):
        for options in ({}, {"mask": np.ones((2, 3), bool)}):
            with pytest.raises(error, match=message):
                call(x, **options)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([3], ValueError, r"lengths: expected \(2,\), got \(1,\)"),
        ([3, 4], ValueError, "lengths: expected 0 to 3, got 4 for row 1"),
        ([-1, 3], ValueError, "lengths: expected 0 to 3, got -1 for row 0"),
        ([1.0, 2.0], TypeError, "lengths: expected integers, got float64"),
        ([np.nan, 2], TypeError, "lengths: expected integers"),
        ([True, False], TypeError, "lengths: expected integers, got bool"),
        (np.array([2**63, 1], np.uint64), ValueError, "lengths: expected 0 to 3"),
    ],
)
def test_wrong_lengths(lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fr.LSTM(4, 5)(X, lengths=lengths)


def test_wrong_states() -> None:
    layer, h = fr.LSTM(4, 5, 2), np.zeros((2, 2, 5), np.float32)
    with pytest.raises(TypeError, match=r"state: expected \(h_0, c_0\), got ndarray"):
        layer(X, h)
    with pytest.raises(ValueError, match=r"h_0: expected \(2, 2, 5\), got \(1, 2, 5\)"):
        layer(X, (h[:1], h))
    with pytest.raises(TypeError, match="c_0: expected float32, got float64"):
        layer(X, (h, h.astype(np.float64)))
    with pytest.raises(ValueError, match=r"h_0: expected \(1, 2, 5\)"):
        fr.GRU(4, 5)(X, h)
    (y, _), pullback = layer.vjp(X)
    with pytest.raises(ValueError, match=r"doutput: expected \(2, 3, 5\), got \(2, 3, 4\)"):
        pullback(X)
    with pytest.raises(TypeError, match="doutput: expected float32"):
        pullback(y.astype(np.float64))
    with pytest.raises(ValueError, match="dh_n: expected"):
        pullback(y, (h[:1], h))
    with pytest.raises(TypeError, match=r"dstate: expected \(dh_n, dc_n\), got ndarray"):
        pullback(y, h)
    pullback(y, (h, h))  # what was refused did not count as the call
    with pytest.raises(ValueError, match="bidirectional"):
        fr.GRU(4, 5, bidirectional=True).step(X[:, 0])
    with pytest.raises(ValueError, match=r"x: expected \(batch, 4\), got \(2, 3, 4\)"):
        layer.step(X)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "input_size: expected an integer from 1"),
        ({"hidden_size": -3}, ValueError, "hidden_size"),
        ({"hidden_size": 2.5}, TypeError, "hidden_size: expected a positive integer, got 2.5"),
        ({"hidden_size": float("nan")}, TypeError, "hidden_size"),
        ({"hidden_size": True}, ValueError, "hidden_size"),
        ({"hidden_size": 10**6}, ValueError, "hidden_size: expected arrays of at most"),
        ({"input_size": 2**31 - 1}, ValueError, "input_size: expected arrays of at most"),
        ({"num_layers": 2**31 - 1}, ValueError, "num_layers: expected at most 1000"),
        ({"input_size": 10**12}, ValueError, "input_size"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"num_layers": "2"}, TypeError, "num_layers"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"dropout": "0.1"}, TypeError, "dropout"),
        ({"dropout": float("nan")}, ValueError, "dropout"),
        ({"dtype": "float16"}, ValueError, "dtype: expected float32 or float64, got float16"),
        ({"dtype": "nonsense"}, TypeError, "dtype"),
        ({"bias": "both"}, ValueError, "bias: expected True, False or 'single'"),
        ({"bias": np.zeros(2)}, ValueError, "bias: expected True, False or 'single'"),
        ({"clip": 1e39}, ValueError, r"clip: expected at most 3.4028235e\+38, got 1e\+39"),
        ({"batch_first": 1}, TypeError, "batch_first"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fr.LSTM(**{"input_size": 4, "hidden_size": 5, **arguments})


def test_wrong_nonlinearity() -> None:
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        fr.RNN(3, 4, nonlinearity="gelu")
