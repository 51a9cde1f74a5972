"""Losses: values, gradients, extremes, Keras's meaning, and errors that name things."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn import losses
from fastrnn.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

RNG_SEED = 7
NUMBERS = (MeanSquaredError, MeanAbsoluteError, Huber)


def distribution(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.uniform(0.05, 1.0, shape)
    return values / values.sum(axis=-1, keepdims=True)


def case(loss: Loss, shape: tuple[int, ...] = (3, 4, 5)) -> tuple[np.ndarray, np.ndarray]:
    """Targets and float64 predictions that fit `loss`."""
    rng = np.random.default_rng(RNG_SEED)
    y_pred = rng.normal(0.0, 2.0, shape)
    if isinstance(loss, NUMBERS):
        return rng.normal(0.0, 1.0, shape), y_pred
    if isinstance(loss, BinaryCrossentropy):
        y_true = rng.uniform(0.0, 1.0, shape)
        return y_true, y_pred if loss.from_logits else rng.uniform(0.05, 0.95, shape)
    if not loss.from_logits:
        y_pred = distribution(rng, *shape)
    if isinstance(loss, CategoricalCrossentropy):
        return rng.uniform(0.0, 1.0, shape), y_pred  # a row need not sum to 1
    return rng.integers(0, shape[-1], shape[:-1]), y_pred


ALL = [
    SparseCategoricalCrossentropy(from_logits=True),
    SparseCategoricalCrossentropy(),
    CategoricalCrossentropy(from_logits=True),
    CategoricalCrossentropy(),
    BinaryCrossentropy(from_logits=True),
    BinaryCrossentropy(),
    MeanSquaredError(),
    MeanAbsoluteError(),
    Huber(),
    Huber(delta=0.3),
]
every_loss = pytest.mark.parametrize("loss", ALL, ids=repr)


def of_difference(loss: Loss, d: float) -> float:
    if isinstance(loss, MeanSquaredError):
        return d**2
    if isinstance(loss, MeanAbsoluteError):
        return abs(d)
    assert isinstance(loss, Huber)
    near = abs(d) <= loss.delta
    return 0.5 * d**2 if near else loss.delta * abs(d) - 0.5 * loss.delta**2


def plain(loss: Loss, y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The definition, entry by entry."""
    if isinstance(loss, NUMBERS):
        pairs = zip(y_true.flat, y_pred.flat, strict=True)
        return float(np.mean([of_difference(loss, p - t) for t, p in pairs]))
    if isinstance(loss, BinaryCrossentropy):
        p = 1 / (1 + np.exp(-y_pred)) if loss.from_logits else y_pred
        return float(np.mean(-y_true * np.log(p) - (1 - y_true) * np.log(1 - p)))
    values = []
    for index in np.ndindex(y_pred.shape[:-1]):
        row = np.exp(y_pred[index]) if loss.from_logits else y_pred[index]
        log_p = np.log(row / row.sum())
        sparse = isinstance(loss, SparseCategoricalCrossentropy)
        values.append(-log_p[y_true[index]] if sparse else -np.dot(y_true[index], log_p))
    return float(np.mean(values))


def numeric_gradient(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        gradient[index] = (function(up) - function(down)) / 2e-6
    return gradient


@every_loss
@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 2), (1, 3)], ids=str)
def test_value_and_gradient(loss: Loss, shape: tuple[int, ...]) -> None:
    y_true, y_pred = case(loss, shape)
    value, gradient = loss.vjp(y_true, y_pred)
    assert isinstance(value, float)
    assert value == loss(y_true, y_pred) == pytest.approx(plain(loss, y_true, y_pred), rel=1e-12)
    numeric = numeric_gradient(lambda p: loss(y_true, p), y_pred)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-8)


@every_loss
def test_float32_follows_float64(loss: Loss) -> None:
    y_true, y_pred = case(loss)
    want, want_gradient = loss.vjp(y_true, y_pred)
    value, gradient = loss.vjp(y_true, y_pred.astype(np.float32))
    assert gradient.dtype == np.float32 and gradient.shape == y_pred.shape
    assert value == pytest.approx(want, rel=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 5)], ids=str)
def test_inputs_of_any_layout_stay_as_they_are(loss: Loss, shape: tuple[int, ...]) -> None:
    y_true, y_pred = case(loss, shape)
    want, want_gradient = loss.vjp(y_true, y_pred)
    turned = np.asfortranarray(y_pred)
    turned.flags.writeable = False
    kept = y_true.copy()
    value, gradient = loss.vjp(np.asfortranarray(y_true), turned)
    assert value == pytest.approx(want, rel=1e-14)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-13)
    np.testing.assert_array_equal(turned, y_pred)
    np.testing.assert_array_equal(y_true, kept)


@pytest.mark.torch
@every_loss
def test_against_torch(loss: Loss) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    y_true, y_pred = case(loss, (6, 5))
    true, pred = torch.tensor(y_true), torch.tensor(y_pred, requires_grad=True)
    if isinstance(loss, MeanSquaredError):
        want = functional.mse_loss(pred, true)
    elif isinstance(loss, MeanAbsoluteError):
        want = functional.l1_loss(pred, true)
    elif isinstance(loss, Huber):
        want = functional.huber_loss(pred, true, delta=loss.delta)
    elif isinstance(loss, BinaryCrossentropy):
        name = "binary_cross_entropy_with_logits" if loss.from_logits else "binary_cross_entropy"
        want = getattr(functional, name)(pred, true)
    elif loss.from_logits:
        want = functional.cross_entropy(pred, true)
    else:  # the gradient of the normalised probabilities, which Keras normalises again
        want = functional.cross_entropy(torch.log(pred / pred.sum(-1, keepdim=True)), true)
    want.backward()
    value, gradient = loss.vjp(y_true, y_pred)
    assert value == pytest.approx(want.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, pred.grad.numpy(), rtol=1e-10, atol=1e-14)


def alone(loss: Loss, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """The loss of every row, (rows...), taken by itself."""
    values = np.empty(y_pred.shape[:-1])
    for index in np.ndindex(values.shape):
        values[index] = loss(y_true[index][None], y_pred[index][None])
    return values


@every_loss
@pytest.mark.parametrize("shape", [(3, 4), (3,), (3, 1), (3, 4, 1)], ids=str)
def test_weights_multiply_each_row(loss: Loss, shape: tuple[int, ...]) -> None:
    y_true, y_pred = case(loss)
    weights = np.random.default_rng(1).normal(size=shape)
    spread = np.broadcast_to(weights.reshape(shape[:1] + ((4,) if 4 in shape else (1,))), (3, 4))
    want = float(np.mean(spread * alone(loss, y_true, y_pred)))
    value, gradient = loss.vjp(y_true, y_pred, sample_weight=weights)
    assert value == loss(y_true, y_pred, weights) == pytest.approx(want, rel=1e-12)
    numeric = numeric_gradient(lambda p: loss(y_true, p, weights), y_pred)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-8)


@every_loss
def test_what_a_mask_leaves_out_may_be_anything(loss: Loss) -> None:
    y_true, y_pred = case(loss)
    mask = np.array([[True, True, False, False], [False] * 4, [True, False, True, True]])
    weights = np.random.default_rng(1).uniform(size=(3, 4))
    want = float(np.mean(alone(loss, y_true, y_pred)[mask]))
    weighed = float(np.mean((weights * alone(loss, y_true, y_pred))[mask]))
    y_pred[~mask] = np.nan
    y_true[~mask] = -1 if y_true.dtype.kind == "i" else np.nan
    value, gradient = loss.vjp(y_true, y_pred, mask=mask)
    assert value == loss(y_true, y_pred, None, mask) == pytest.approx(want, rel=1e-12)
    assert loss(y_true, y_pred, weights, mask) == pytest.approx(weighed, rel=1e-12)
    assert not gradient[~mask].any()
    only = loss.vjp(y_true[mask], y_pred[mask])[1]
    np.testing.assert_array_equal(gradient[mask], only)
    nothing = loss.vjp(y_true, y_pred, mask=np.zeros(3, bool))
    assert nothing[0] == 0.0 and not nothing[1].any()


@pytest.mark.torch
@every_loss
def test_against_keras(loss: Loss, keras: Any) -> None:
    y_true, y_pred = case(loss)
    weights = np.random.default_rng(1).uniform(size=(3, 4))
    options = {
        name: getattr(loss, name) for name in ("from_logits", "delta") if hasattr(loss, name)
    }
    theirs = getattr(keras.losses, type(loss).__name__)(dtype="float64", **options)
    for arguments in ((), (weights,), (weights[:, :1],)):
        want = float(theirs(y_true, y_pred, *arguments))
        # Keras sums float32 constants in.
        assert loss(y_true, y_pred, *arguments) == pytest.approx(want, rel=1e-6), arguments


def test_weights_and_masks_that_do_not_fit() -> None:
    y_true, y_pred = case(MSE)
    for wrong in (np.ones(4), np.ones((4, 3)), np.ones((3, 4, 5)), 1.0):
        with pytest.raises(ValueError, match=r"sample_weight: expected shape \(3, 4\) or \(3,\)"):
            MSE(y_true, y_pred, wrong)
    with pytest.raises(TypeError, match="sample_weight: expected real numbers"):
        MSE(y_true, y_pred, ["1"] * 3)
    with pytest.raises(TypeError, match="mask: expected booleans, got int64"):
        MSE(y_true, y_pred, mask=np.ones(3, int))
    with pytest.raises(ValueError, match=r"mask: expected shape .*got \(2,\)"):
        MSE(y_true, y_pred, mask=np.ones(2, bool))
    for wrong, error in ((0.0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="delta: "):
            Huber(delta=wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_are_exact(dtype: type) -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]], dtype)
    labels = np.array([0, 1])
    value, gradient = SparseCategoricalCrossentropy(from_logits=True).vjp(labels, logits)
    assert value == 5e3  # rows: 0 and 1e4
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [0, -0.5, 0.5]])
    one_hot = np.eye(3)[labels]
    again, same = CategoricalCrossentropy(from_logits=True).vjp(one_hot, logits)
    assert again == value
    np.testing.assert_array_equal(same, gradient)

    value, gradient = BinaryCrossentropy(from_logits=True).vjp([1, 0, 1], logits[0])
    assert value == pytest.approx((0 + np.log(2) + 1e4) / 3, rel=1e-6)
    np.testing.assert_allclose(gradient, [0, 1 / 6, -1 / 3], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_are_clipped(dtype: type) -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0]], dtype)
    wanted = -np.log(1e-7) / 2  # one row right, one as wrong as can be
    for loss, y_true in (
        (SparseCategoricalCrossentropy(), np.array([0, 1])),
        (CategoricalCrossentropy(), np.eye(2)),
        (BinaryCrossentropy(), np.eye(2)),
    ):
        value, gradient = loss.vjp(y_true, sure)
        assert value == pytest.approx(wanted, rel=1e-2 if dtype == np.float32 else 1e-6)
        np.testing.assert_array_equal(gradient, np.zeros((2, 2)))


def test_probabilities_are_normalised() -> None:
    labels, y_pred = np.array([1, 0]), np.array([[0.2, 0.2], [0.1, 0.3]])
    want = -(np.log(0.5) + np.log(0.25)) / 2
    assert SparseCategoricalCrossentropy()(labels, y_pred) == pytest.approx(want, rel=1e-12)
    assert CategoricalCrossentropy()(np.eye(2)[labels], y_pred) == pytest.approx(want, rel=1e-12)


def test_a_last_axis_of_one_may_differ() -> None:
    labels, logits = case(ALL[0])
    assert ALL[0](labels[..., None], logits) == ALL[0](labels, logits)
    column, flat = np.array([[0.2], [0.9]]), np.array([0, 1])
    value, gradient = BinaryCrossentropy().vjp(flat, column)
    assert gradient.shape == (2, 1)
    assert value == pytest.approx(-(np.log(0.8) + np.log(0.9)) / 2)
    assert BinaryCrossentropy()(flat[:, None].astype(bool), column[:, 0]) == value
    assert MeanSquaredError()(flat, column) == pytest.approx((0.04 + 0.01) / 2)


@every_loss
def test_nan_shows(loss: Loss) -> None:
    y_true, y_pred = case(loss)
    y_pred[...] = np.nan
    assert np.isnan(loss(y_true, y_pred))


def test_infinite_logits_show() -> None:
    logits = np.array([[np.inf, 0.0]])
    assert not np.isfinite(SparseCategoricalCrossentropy(from_logits=True)([0], logits))
    masked = np.array([[-np.inf, 0.0]])  # an impossible class is fine as long as it is not right
    value, gradient = SparseCategoricalCrossentropy(from_logits=True).vjp([1], masked)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, [[0.0, 0.0]])


SPARSE, DENSE, BINARY, MSE = (
    SparseCategoricalCrossentropy(),
    CategoricalCrossentropy(),
    BinaryCrossentropy(),
    MeanSquaredError(),
)
HALF = np.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "error", "message"),
    [
        (SPARSE, [0, 1, 2, 0], HALF, ValueError, "y_true: .* from 0 to 1, got 2"),
        (SPARSE, [0, -1, 0, 0], HALF, ValueError, "y_true: .* from 0 to 1, got -1"),
        (SPARSE, [0, 1, 0], HALF, ValueError, r"y_true: expected shape \(4,\).*got \(3,\)"),
        (SPARSE, np.eye(4, 2, dtype=int), HALF, ValueError, r"y_true: expected shape \(4,\)"),
        (SPARSE, [0.0, 1.0, 0.0, 0.0], HALF, TypeError, "y_true: .*integer.*float64"),
        (SPARSE, [0], [[0, 1]], TypeError, "y_pred: .*float32 or float64, got int64"),
        (SPARSE, [0], np.ones((1, 2), np.float16), TypeError, "y_pred: .*got float16"),
        (SPARSE, [0], [[-1.5, 2.5]], ValueError, "y_pred: .* 0 to 1, got -1.5 to 2.5.*from_logits"),
        (SPARSE, [0], [[0.0, 0.0]], ValueError, "y_pred: .*sums to 0"),
        (SPARSE, np.zeros(0, int), np.zeros((0, 2)), ValueError, r"y_pred: .*\(0, 2\)"),
        (SPARSE, 0, np.float32(0.5), ValueError, r"y_pred: .*\(\)"),
        (DENSE, [0, 1, 0, 0], HALF, ValueError, r"y_true: expected shape \(4, 2\).*got \(4,\)"),
        (DENSE, 2 * HALF + 1, HALF, ValueError, "y_true: expected values from 0 to 1, got 2 to 2"),
        (DENSE, HALF, 4 * HALF, ValueError, "y_pred: expected values from 0 to 1"),
        (BINARY, [0, 1, 0, 3], HALF[:, 0], ValueError, "y_true: .* 0 to 1, got 0 to 3"),
        (BINARY, [0, 1, 0, 1], -HALF[:, 0], ValueError, "y_pred: .*from_logits=True"),
        (BINARY, ["0", "1", "0", "1"], HALF[:, 0], TypeError, "y_true: .*real numbers"),
        (MSE, np.zeros(4), np.zeros((4, 4)), ValueError, r"y_true: .*\(4, 4\).*got \(4,\)"),
        (MSE, np.zeros(2, complex), np.zeros(2), TypeError, "y_true: .*complex128"),
        (MSE, np.zeros(2), np.zeros(2, complex), TypeError, "y_pred: .*complex128"),
    ],
)
def test_errors_name_the_argument(
    loss: Loss, y_true: object, y_pred: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loss(y_true, y_pred)
    with pytest.raises(error, match=message):
        loss.vjp(y_true, y_pred)


def test_get() -> None:
    for name, kind in (
        ("sparse_categorical_crossentropy", SparseCategoricalCrossentropy),
        ("categorical_crossentropy", CategoricalCrossentropy),
        ("binary_crossentropy", BinaryCrossentropy),
    ):
        assert type(losses.get(name)) is kind
        assert losses.get(name).name == name
        assert not losses.get(name).from_logits
        assert losses.get(name, from_logits=True).from_logits
    assert type(losses.get("mae")) is MeanAbsoluteError and type(losses.get("huber")) is Huber
    assert type(losses.get("mse")) is type(losses.get("mean_squared_error")) is MeanSquaredError
    assert losses.get(MSE) is MSE
    with pytest.raises(ValueError, match=r"loss: expected one of sparse_.*, got 'hinge'"):
        losses.get("hinge")
    for wrong in (None, 3, MeanSquaredError, abs):
        with pytest.raises(TypeError, match="loss: "):
            losses.get(wrong)
    with pytest.raises(TypeError, match=r"from_logits: .*'yes'"):
        BinaryCrossentropy(from_logits="yes")


def test_softmax_and_sigmoid_overwrite_stably() -> None:
    x = np.array([[0.0, 1.0, 2.0], [1e4, 1e4, -1e4]])
    assert losses.softmax(x) is x
    weights = np.exp([0.0, 1.0, 2.0])
    np.testing.assert_allclose(x, [weights / weights.sum(), [0.5, 0.5, 0.0]], rtol=1e-14)
    x = np.array([-1e4, -90.0, -2.0, 0.0, 2.0, 1e4], np.float32)
    assert losses.sigmoid(x) is x
    want = 1 / (1 + np.exp(-np.array([-700.0, -90.0, -2.0, 0.0, 2.0, 1e4])))
    np.testing.assert_allclose(x, want, rtol=1e-6, atol=1e-38)
