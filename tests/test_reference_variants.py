"""The reference's variants: gradients by central differences, masks, normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from variants import NAMED, Config, configs

from fastrnn import reference
from fastrnn.reference.masks import DROPOUT, ZONEOUT_C, ZONEOUT_H

BATCH, TIME, INPUTS, HIDDEN = 3, 4, 3, 7


def assert_gradients_are_differences(config: Config, seed: int = 0, ragged: bool = True) -> None:
    """In float64, along a random direction for each argument."""
    rng = np.random.default_rng(seed)
    size = config.projection or HIDDEN
    args: dict[str, Any] = {
        "x": rng.standard_normal((BATCH, TIME, INPUTS)),
        "h0": rng.standard_normal((BATCH, size)),
        **config.weights(INPUTS, HIDDEN, np.dtype("float64"), rng),
    }
    args["c0"] = rng.standard_normal((BATCH, HIDDEN)) if config.has_c else None
    lengths = [4, 0, 3] if ragged else None
    ends = {k: rng.standard_normal((BATCH, n)) for k, n in (("h_n", size), ("c_n", HIDDEN))}
    dy = rng.standard_normal((BATCH, TIME, size))

    def loss(**changed: Any) -> float:
        y, h_n, c_n, _ = reference.forward(
            config.cell, **{**args, **changed}, lengths=lengths, variant=config.variant
        )
        total = (dy * y).sum() + (ends["h_n"] * h_n).sum()
        return float(total + (0 if c_n is None else (ends["c_n"] * c_n).sum()))

    tape = reference.forward(config.cell, **args, lengths=lengths, variant=config.variant)[-1]
    grads = reference.backward(tape, dy, ends["h_n"], ends["c_n"] if config.has_c else None)
    assert set(grads) == {"d" + name for name in args}
    for name, value in args.items():
        if value is None:
            continue
        direction = rng.standard_normal(value.shape)
        step = 1e-6
        want = loss(**{name: value + step * direction}) - loss(**{name: value - step * direction})
        want /= 2 * step
        got = float(np.vdot(grads["d" + name], direction))
        assert abs(got - want) <= 1e-6 * (1 + abs(want)), name


@pytest.mark.parametrize("name", NAMED)
def test_gradients_are_those_of_central_differences(name: str) -> None:
    assert_gradients_are_differences(NAMED[name])
    assert_gradients_are_differences(NAMED[name], seed=1, ragged=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configs(smooth=True), st.integers(0, 1000))
def test_gradients_of_any_variant(config: Config, seed: int) -> None:
    assert_gradients_are_differences(config, seed)


def test_masks_are_as_probable_as_asked_and_independent() -> None:
    rows = np.arange(64)
    for p in (0.0, 0.1, 0.5, 0.9):
        masks = np.stack([
            reference.drawn(p, seed, purpose, rows, step, 100)
            for seed in (0, 1, 2**64 - 1)
            for purpose in (ZONEOUT_H, ZONEOUT_C, DROPOUT)
            for step in range(5)
        ]).astype(float)  # fmt: skip
        if p == 0:
            assert not masks.any()
            continue
        deviation = np.sqrt(p * (1 - p))
        assert abs(masks.mean() - p) < 5 * deviation / np.sqrt(masks.size)
        for axis in range(3):  # neighbours along calls, rows and units
            pairs = (masks - p) * np.roll(masks - p, 1, axis)
            assert abs(pairs.mean()) < 5 * deviation**2 / np.sqrt(masks.size)
        for axes in ((1, 2), (0, 2), (0, 1)):
            means = masks.mean(axis=axes)
            count = masks.size / len(means)
            assert np.abs(means - p).max() < 5 * deviation / np.sqrt(count)


def test_layer_normalisation_of_rows() -> None:
    x = np.random.default_rng(0).standard_normal((5, 40)) * 3 + 7
    normal, rate = reference.normalise(x)
    np.testing.assert_allclose(normal.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(normal.var(axis=1), 1, rtol=1e-5)
    assert rate.shape == (5, 1)
