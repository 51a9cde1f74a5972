"""The loop, with models written down here: it asks for vjp, run and parameters, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from toys import Linear

from fastrnn.data import Examples, Ragged, Stream
from fastrnn.fit import RowBatches
from fastrnn.losses import MeanSquaredError, SparseCategoricalCrossentropy
from fastrnn.metrics import Mean
from fastrnn.optimizers import SGD
from fastrnn.parameter import Parameter
from fastrnn.training import (
    Objective,
    evaluate,
    evaluate_stream,
    predict,
    train_step,
    truncated_bptt,
)


class Counter(Linear):
    """Logits that are the bias for the ids 0 and 1; the state counts the steps that were seen."""

    def __init__(self) -> None:
        self.b = Parameter(np.zeros(2))
        self.states: list[Any] = []

    def run(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        self.states.append(state)
        seen = (state or 0) + x.shape[1]
        return np.broadcast_to(self.b.data, (*x.shape, 2)).copy(), seen

    def vjp(
        self, x: Any, state: Any = None, lengths: Any = None
    ) -> tuple[tuple[Any, Any], Callable[[Any], Any]]:
        return self.run(x, state), lambda dy: self.b.add_grad(dy.sum(axis=(0, 1)))

    def parameters(self) -> dict[str, Parameter]:
        return {"b": self.b}

    def zero_grad(self) -> None:
        self.b.zero_grad()


MSE = Objective(MeanSquaredError())


def test_a_step_is_forward_loss_backward_update() -> None:
    model = Linear(3.0)
    batch = Examples(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]))
    model.w.add_grad(np.array(100.0))  # left over from something else, to be forgotten
    step = train_step(model, MSE.loss, SGD(0.1), batch)
    # (3 - 1)² and (6 - 1)², mean 14.5; gradient mean(2 (wx - y) x) = (2·2·1 + 2·5·2)/2 = 12
    assert step.loss == pytest.approx(14.5)
    assert step.y_pred.tolist() == [[3.0], [6.0]]
    assert float(model.w.data) == pytest.approx(3.0 - 0.1 * 12.0)


def test_padding_counts_neither_in_the_loss_nor_in_its_gradient() -> None:
    model = Linear(1.0)
    x = np.array([[[1.0], [7.0]], [[2.0], [3.0]], [[np.nan], [np.nan]]])
    y = np.array([[[0.0], [9.0]], [[0.0], [0.0]], [[5.0], [5.0]]])
    batch = Examples(x, y, np.array([1, 2, 0]))
    step = train_step(model, MSE.loss, SGD(1e-9), batch)
    assert step.loss == pytest.approx((1.0 + 4.0 + 9.0) / 3)
    expected = np.array([[2.0, 0.0], [4.0, 6.0], [0.0, 0.0]]) / 3
    np.testing.assert_allclose(model.dys[0][..., 0], expected)


def test_lengths_want_a_target_for_every_time_step() -> None:
    batch = Examples(np.ones((2, 3, 1)), np.zeros(2), np.array([3, 1]))
    with pytest.raises(ValueError, match=r"y_true: expected shape \(2, 3, 1\) .*, got \(2,\)"):
        train_step(Linear(1.0), MSE.loss, SGD(), batch)


def test_means_over_batches_weigh_every_row_alike() -> None:
    x = np.arange(1.0, 6.0)[:, None]
    examples = Examples(x, np.zeros_like(x))

    def largest(y_true: Any, y_pred: Any) -> float:
        return float(np.mean(y_pred))

    objective = Objective(MeanSquaredError(), {"mean": Mean(largest)})
    values = evaluate(Linear(2.0), RowBatches(examples, 2).epoch(), objective)
    assert list(values) == ["loss", "mean"]
    assert values["loss"] == pytest.approx(4 * 55 / 5)
    assert values["mean"] == pytest.approx(6.0)


def test_means_weigh_every_valid_time_step_alike() -> None:
    x = np.arange(1.0, 5.0).reshape(2, 2, 1)
    examples = Examples(x, np.zeros_like(x), np.array([2, 1]))
    values = evaluate(Linear(1.0), RowBatches(examples, 1).epoch(), MSE)
    assert values["loss"] == pytest.approx((1 + 4 + 9) / 3)


def test_predict_joins_the_batches() -> None:
    x = np.arange(7.0)[:, None]
    assert predict(Linear(2.0), Examples(x), batch_size=3).tolist() == (2 * x).tolist()


def test_predict_gives_ragged_rows_back_in_their_order() -> None:
    rows = [np.full((length, 1), float(length)) for length in (3, 1, 0, 2, 3)]
    for batch_size in (1, 2, 5):
        y = predict(Linear(2.0), Examples(Ragged(rows)), batch_size=batch_size)
        assert isinstance(y, list)
        for got, row in zip(y, rows, strict=True):
            np.testing.assert_array_equal(got, 2 * row)


def test_a_stream_carries_the_state_and_starts_without() -> None:
    model = Counter()
    stream = Stream(np.zeros(2 * 8 + 1, int), batch=2, time=3)  # windows of 3, 3 and 2 steps
    loss = SparseCategoricalCrossentropy(from_logits=True)
    losses = list(truncated_bptt(model, loss, SGD(0.5), stream))
    assert model.states == [None, 3, 6]
    assert len(losses) == 3
    # Every target is 0: logits b, gradient softmax(b) - (1, 0).
    b = np.zeros(2)
    for value in losses:
        p = np.exp(b) / np.exp(b).sum()
        assert value == pytest.approx(-np.log(p[0]))
        b -= 0.5 * (p - np.array([1.0, 0.0]))
    np.testing.assert_allclose(model.b.data, b)


def test_a_stream_goes_on_from_a_state() -> None:
    model = Counter()
    loss = SparseCategoricalCrossentropy(from_logits=True)
    next(truncated_bptt(model, loss, SGD(), Stream(np.zeros(9, int), 1, 4), state=40))
    assert model.states == [40]


def test_the_loss_of_a_stream_weighs_every_step_alike() -> None:
    model = Counter()
    model.b.assign([0.0, 1.0])
    ids = np.array([0, 0, 1, 1, 1, 0, 1, 1])
    value = evaluate_stream(
        model, SparseCategoricalCrossentropy(from_logits=True), Stream(ids, 1, 4)
    )
    assert model.states == [None, 4]
    log_total = np.log(1.0 + np.e)
    assert value == pytest.approx(np.mean(log_total - ids[1:]))
