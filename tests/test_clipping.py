"""Clipping of gradients before a step. (What optimizers clip is in test_optimizers.py.)"""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from fastrnn.clipping import clip_by_global_norm, clip_by_value
from fastrnn.parameter import Parameter


def make(dtype: str = "float64") -> dict[str, Parameter]:
    return {name: Parameter(np.zeros(n), dtype) for name, n in (("weight", 15), ("bias", 3))}


def give_grads(parameters: Mapping[str, Parameter], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for p in parameters.values():
        p.grad = rng.normal(size=p.shape).astype(p.dtype)


def test_clip_by_global_norm() -> None:
    parameters = make("float32")
    give_grads(parameters, 0)
    parameters["unused"] = Parameter(np.zeros(3))
    before = {n: p.grad.astype(np.float64) for n, p in parameters.items() if p.grad is not None}
    norm = math.sqrt(sum(float(np.sum(g**2)) for g in before.values()))
    assert clip_by_global_norm(parameters, 100.0) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_array_equal(parameters["weight"].grad, before["weight"])
    assert clip_by_global_norm(parameters, 1.0) == pytest.approx(norm, rel=1e-12)
    assert parameters["weight"].grad.dtype == np.float32
    np.testing.assert_allclose(parameters["weight"].grad, before["weight"] / norm, rtol=1e-6)
    assert clip_by_global_norm(parameters, 1.0) == pytest.approx(1.0, rel=1e-6)
    assert parameters["unused"].grad is None
    assert clip_by_global_norm({}, 1.0) == 0.0


def test_norms_need_float64() -> None:
    big = Parameter(np.zeros(2), "float32")
    big.add_grad(np.array([3e30, 4e30], np.float32))  # whose squares float32 does not hold
    assert clip_by_global_norm({"big": big}, 5.0) == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(big.grad, [3.0, 4.0], rtol=1e-6)


def test_a_norm_that_is_not_finite_is_returned_and_scales_nothing() -> None:
    parameters = make()
    for bad in (np.nan, np.inf):
        give_grads(parameters, 0)
        parameters["bias"].grad[0] = bad
        kept = parameters["weight"].grad.copy()
        assert not math.isfinite(clip_by_global_norm(parameters, 1.0))
        np.testing.assert_array_equal(parameters["weight"].grad, kept)


def test_clip_by_value() -> None:
    parameters = make()
    give_grads(parameters, 0)
    want = np.clip(parameters["weight"].grad, -0.3, 0.3)
    assert np.any(want != parameters["weight"].grad)
    clip_by_value(parameters, 0.3)
    np.testing.assert_array_equal(parameters["weight"].grad, want)


def test_limits_are_checked() -> None:
    for clip in (clip_by_value, clip_by_global_norm):
        for wrong in (0, -1.0, math.nan):
            with pytest.raises(ValueError, match="limit: "):
                clip(make(), wrong)
