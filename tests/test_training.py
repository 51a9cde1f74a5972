"""The loop, with models written down here: it asks for vjp, run and parameters, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastrnn.data import Examples, Stream
from fastrnn.losses import MeanSquaredError, SparseCategoricalCrossentropy
from fastrnn.optimizers import SGD
from fastrnn.parameter import Parameter
from fastrnn.training import (
    History,
    Objective,
    evaluate,
    evaluate_stream,
    fit,
    predict,
    progress_bar,
    train_step,
    truncated_bptt,
)


class Linear:
    """y = w x, elementwise; keeps the gradients of y that its pullbacks were given."""

    def __init__(self, w: float) -> None:
        self.w = Parameter(w, "float64")
        self.dys: list[NDArray[Any]] = []

    def run(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        return self.w.data * x, None

    def vjp(
        self, x: Any, state: Any = None, lengths: Any = None
    ) -> tuple[tuple[Any, Any], Callable[[Any], Any]]:
        def pullback(dy: Any) -> Any:
            self.dys.append(dy)
            self.w.add_grad(np.sum(dy * x))
            return self.w.data * dy

        return self.run(x), pullback

    def parameters(self) -> dict[str, Parameter]:
        return {"w": self.w}

    def zero_grad(self) -> None:
        self.w.zero_grad()


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
    with pytest.raises(
        ValueError, match=r"y: expected \(2, 3\), a target for every .*, got \(2,\)"
    ):
        train_step(Linear(1.0), MSE.loss, SGD(), batch)


def test_means_over_batches_weigh_every_row_alike() -> None:
    x = np.arange(1.0, 6.0)[:, None]
    examples = Examples(x, np.zeros_like(x))

    def largest(y_true: Any, y_pred: Any) -> float:
        return float(np.mean(y_pred))

    objective = Objective(MeanSquaredError(), {"mean": largest})
    values = evaluate(Linear(2.0), examples, objective, batch_size=2)
    assert list(values) == ["loss", "mean"]
    assert values["loss"] == pytest.approx(4 * 55 / 5)
    assert values["mean"] == pytest.approx(6.0)


def test_means_weigh_every_valid_time_step_alike() -> None:
    x = np.arange(1.0, 5.0).reshape(2, 2, 1)
    examples = Examples(x, np.zeros_like(x), np.array([2, 1]))
    values = evaluate(Linear(1.0), examples, MSE, batch_size=1)
    assert values["loss"] == pytest.approx((1 + 4 + 9) / 3)


def test_fit_reports_every_epoch_before_its_updates_and_validation_after() -> None:
    examples = Examples(np.array([[1.0]]), np.array([[0.0]]))
    history = fit(
        Linear(1.0),
        examples,
        MSE,
        SGD(0.25),  # halves w in every step
        epochs=3,
        batch_size=4,
        validation=examples,
    )
    assert history.epoch == [0, 1, 2]
    assert history.history["loss"] == pytest.approx([1.0, 1 / 4, 1 / 16])
    assert history.history["val_loss"] == pytest.approx([1 / 4, 1 / 16, 1 / 64])


def test_fit_takes_every_row_in_every_epoch_shuffled_or_not() -> None:
    x = np.arange(1.0, 8.0)[:, None]
    seen: list[list[float]] = []

    class Watching(Linear):
        def vjp(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
            seen.append(x[:, 0].tolist())
            return super().vjp(x)

    def order(shuffle: np.random.Generator | None) -> list[float]:
        seen.clear()
        model, optimizer = Watching(0.0), SGD(1e-9)
        fit(model, Examples(x, x), MSE, optimizer, epochs=2, batch_size=3, shuffle=shuffle)
        assert [len(rows) for rows in seen] == [3, 3, 1] * 2
        return [row for rows in seen for row in rows]

    assert order(None) == x[:, 0].tolist() * 2
    shuffled = order(np.random.default_rng(0))
    assert sorted(shuffled[:7]) == sorted(shuffled[7:]) == x[:, 0].tolist()
    assert shuffled[:7] != shuffled[7:] != x[:, 0].tolist()
    assert shuffled == order(np.random.default_rng(0))


def test_predict_joins_the_batches() -> None:
    x = np.arange(7.0)[:, None]
    assert predict(Linear(2.0), x, batch_size=3).tolist() == (2 * x).tolist()


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


def test_history_collects_by_name() -> None:
    history = History()
    history.add(0, {"loss": 2.0})
    history.add(1, {"loss": 1.0})
    assert (history.epoch, history.history) == ([0, 1], {"loss": [2.0, 1.0]})


@pytest.mark.parametrize("verbose, shown", [("auto", False), (0, False), (1, True)])
def test_the_bar_is_quiet_unless_asked_for(
    verbose: Any, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = Examples(np.ones((4, 1)), np.zeros((4, 1)))
    fit(Linear(1.0), examples, MSE, SGD(), epochs=2, batch_size=2, verbose=verbose)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("epoch 2/2" in err and "loss=" in err) if shown else err == ""


def test_verbose_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="verbose: expected 'auto', 0 or 1, got 2"):
        progress_bar(1, "x", 2)  # type: ignore[arg-type]
