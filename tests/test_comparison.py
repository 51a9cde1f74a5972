"""The comparison with plain NumPy: the same model, compared before it is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import comparison
from fastrnn.charmodel import CharModel
from fastrnn.comparison import compare, measure
from fastrnn.data import Examples, Vocabulary
from fastrnn.models import Sequential


@pytest.fixture
def model() -> Sequential:
    return CharModel.new(Vocabulary("ab"), hidden=3, embedding=2, layers=2, seed=0).model


BATCH = Examples(np.array([[0, 1, 1, 0], [1, 1, 0, 1]]), np.array([[1, 1, 0, 1], [1, 0, 1, 0]]))


def test_both_steps_do_the_same(model: Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SECONDS", 0.0)
    found = compare(model, BATCH)
    assert found.fused > 0 and found.numpy > 0
    assert 0 <= found.difference < 1e-5


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "bias_hh_l0"])
def test_a_wrong_gradient_is_not_timed(
    name: str, model: Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = comparison.reference.layer_backward

    def wrong(*arguments: Any) -> Any:
        dx, dh, dc, gradients = backward(*arguments)
        gradients[name] = gradients[name] * 1.01
        return dx, dh, dc, gradients

    monkeypatch.setattr(comparison.reference, "layer_backward", wrong)
    with pytest.raises(RuntimeError, match="kernels and reference disagree"):
        compare(model, BATCH)


def test_it_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(characters=5, batch=1, time=2)
    assert found.difference < 1e-5
    assert str(found).startswith("on one thread a training step takes ")
    monkeypatch.setattr(comparison.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="the comparison with NumPy failed"):
        measure(characters=5, batch=1, time=2)
