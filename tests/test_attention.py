"""DotAttention beside its equations, central differences, and rows on their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn import config
from fastrnn.layers.attention import DotAttention

LENGTHS = np.array([4, 1, 3])


def inputs(dtype: Any = "float64", steps: int = 5) -> tuple[DotAttention, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    queries, memory = rng.normal(size=(3, steps, 6)), rng.normal(size=(3, 4, 6))
    return DotAttention(6, dtype=dtype, seed=1), queries.astype(dtype), memory.astype(dtype)


def by_hand(weight: np.ndarray, queries: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """One row, one step at a time."""
    y = []
    for query in queries:
        scores = np.array([np.dot(query, step) for step in memory])
        weights = np.exp(scores) / np.exp(scores).sum()
        context = sum(w * step for w, step in zip(weights, memory, strict=True))
        y.append(np.tanh(weight @ np.concatenate([context, query])))
    return np.array(y)


@pytest.mark.parametrize("gemm", config.GEMMS)
def test_it_is_its_equations(isa: str, dtype: np.dtype, gemm: str) -> None:
    layer, queries, memory = inputs(dtype)
    bound = 1e-5 if dtype == np.float32 else 1e-13
    with config.using(gemm=gemm):
        y = layer(queries, memory, LENGTHS)
        whole = layer(queries, memory)
        (again, _) = layer.vjp(queries, memory, LENGTHS)
    assert y.dtype == dtype and np.array_equal(y, again)
    for row, length in enumerate(LENGTHS):
        wanted = by_hand(layer.parameters()["weight"].data, queries[row], memory[row, :length])
        np.testing.assert_allclose(y[row], wanted, atol=bound)
        wanted = by_hand(layer.parameters()["weight"].data, queries[row], memory[row])
        np.testing.assert_allclose(whole[row], wanted, atol=bound)


def differences(f: Callable[[np.ndarray], float], value: np.ndarray) -> np.ndarray:
    gradient = np.empty_like(value)
    for place in np.ndindex(value.shape):
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * 1e-6
            sides.append(f(moved))
        gradient[place] = (sides[0] - sides[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_are_those_of_central_differences(lengths: Any) -> None:
    layer, queries, memory = inputs()
    y, pullback = layer.vjp(queries, memory, lengths)
    dy = np.random.default_rng(1).normal(size=y.shape)
    dqueries, dmemory = pullback(dy)
    weight = layer.parameters()["weight"]
    grad, start = weight.grad, weight.data.copy()

    def of_weight(value: np.ndarray) -> float:
        weight.assign(value)
        return float(np.sum(dy * layer(queries, memory, lengths)))

    wanted = differences(lambda q: float(np.sum(dy * layer(q, memory, lengths))), queries)
    np.testing.assert_allclose(dqueries, wanted, atol=1e-8)
    wanted = differences(lambda m: float(np.sum(dy * layer(queries, m, lengths))), memory)
    np.testing.assert_allclose(dmemory, wanted, atol=1e-8)
    assert grad is not None
    np.testing.assert_allclose(grad, differences(of_weight, start), atol=1e-8)
    with pytest.raises(RuntimeError, match="second time"):
        pullback(dy)


def test_a_row_has_the_same_bits_alone_and_padded(dtype: np.dtype) -> None:
    rng = np.random.default_rng(2)
    layer = DotAttention(37, dtype=dtype, seed=1)
    lengths = np.array([9, 2, 70, 31])
    queries = rng.normal(size=(4, 8, 37)).astype(dtype)
    memory = rng.normal(size=(4, 70, 37)).astype(dtype)  # what stands past a length, too
    dy = rng.normal(size=queries.shape).astype(dtype)
    with config.using(gemm="native"):
        y, pullback = layer.vjp(queries, memory, lengths)
        dqueries, dmemory = pullback(dy)
        for row, length in enumerate(lengths):
            alone = queries[row : row + 1], memory[row : row + 1, :length]
            wanted, pullback = layer.vjp(*alone)
            assert np.array_equal(y[row], wanted[0])
            dalone, dmemory_alone = pullback(dy[row : row + 1])
            assert np.array_equal(dqueries[row], dalone[0])
            assert np.array_equal(dmemory[row, :length], dmemory_alone[0])
            assert not dmemory[row, length:].any()
            step = layer(alone[0][:, 3:4], alone[1])
            assert np.array_equal(step[0, 0], y[row, 3]), "one step alone"


def test_scores_of_any_size_stay_finite() -> None:
    layer, queries, memory = inputs("float32")
    y = layer(1e4 * queries, 1e4 * memory, LENGTHS)
    assert np.isfinite(y).all()


def test_a_layer_alike_is_made_of_its_config() -> None:
    layer, queries, memory = inputs()
    alike = DotAttention(**layer.config())
    assert np.array_equal(alike(queries, memory), layer(queries, memory))
    assert layer.to("float32").parameters()["weight"].dtype == np.float32
    assert layer.output_shape((None, 5, 6)) == (None, 5, 6)
    with pytest.raises(ValueError, match=r"input_shape: expected \(batch, steps, 6\), got"):
        layer.output_shape((None, 6))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"queries": np.zeros((3, 6))}, ValueError, r"queries: expected \(batch, steps, 6\), got"),
        ({"queries": np.zeros((3, 5, 7))}, ValueError, r"queries: .*6\), got \(3, 5, 7\)"),
        ({"queries": np.zeros((3, 0, 6))}, ValueError, r"queries: .*6\), got \(3, 0, 6\)"),
        ({"queries": np.zeros((3, 5, 6), np.float32)}, TypeError, "queries: expected float64, got"),
        ({"memory": np.zeros((2, 4, 6))}, ValueError, r"memory: expected \(3, time, 6\), got"),
        ({"memory": np.zeros((3, 4, 6), int)}, TypeError, "memory: expected float64, got int64"),
        ({"lengths": [4, 0, 3]}, ValueError, "lengths: expected 1 to 4, got 0"),
        ({"lengths": [4, 5, 3]}, ValueError, "lengths: expected 1 to 4, got 5"),
        ({"lengths": [4, 1]}, ValueError, r"lengths: expected \(3,\), got \(2,\)"),
        ({"lengths": [4.0, 1.0, 3.0]}, TypeError, "lengths: expected integers, got float64"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, error: Any, reason: str) -> None:
    layer, queries, memory = inputs()
    for call in (layer, layer.vjp):
        with pytest.raises(error, match=reason):
            call(**{"queries": queries, "memory": memory, **change})
