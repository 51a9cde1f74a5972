"""The kernels around the layers: against float64 and plain loops, bits, extremes, errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import _core

VECTOR_ISAS = [name for name in _core.isas() if name != "generic"]
# Rows and columns: tails of every vector length, more than one block of a row's sum, many rows.
SIZES = [(1, 1), (7, 2), (3, 15), (4, 16), (300, 17), (2, 65), (3, 1100), (2500, 65)]
COUNTS = [0, 1, 31, 32, 33, 8192, 70001]


def same_bits(run: Callable[[], tuple[Any, ...]]) -> None:
    """All that `run` gives must not depend on threads or instruction set."""
    results = set()
    for isa, threads in itertools.product(VECTOR_ISAS, (1, 2, 3)):
        with fr.config.using(isa=isa):
            fr.set_num_threads(threads)
            results.add(b"".join(np.asarray(value).tobytes() for value in run()))
    assert len(results) == 1


def plain_softmax(x: Any) -> Any:
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rounding(x: Any) -> float:
    """A bound for the relative error of a softmax: x - max x is rounded before exp."""
    return float((6 + np.ptp(x) / 2) * np.finfo(x.dtype).eps)


@pytest.mark.parametrize("size", SIZES)
def test_softmax(isa: str, dtype: np.dtype, size: tuple[int, int], rng: Any) -> None:
    x = rng.normal(0, 5, size).astype(dtype)
    want, bound = plain_softmax(x), rounding(x)
    _core.softmax(x)
    np.testing.assert_allclose(x, want, rtol=bound, atol=np.finfo(dtype).tiny)


@pytest.mark.parametrize("size", SIZES)
def test_cross_entropy(isa: str, dtype: np.dtype, size: tuple[int, int], rng: Any) -> None:
    rows, classes = size
    x, targets = rng.normal(0, 5, size).astype(dtype), rng.integers(0, classes, rows)
    gradient = np.full(size, np.nan, dtype)
    loss = _core.cross_entropy(x, targets, None, gradient)
    assert loss == _core.cross_entropy(x, targets, None, None)
    want = plain_softmax(x)
    at = np.arange(rows), targets
    bound = rounding(x)
    assert loss == pytest.approx(-np.log(want[at]).mean(), rel=bound, abs=bound)
    want[at] -= 1
    np.testing.assert_allclose(gradient * rows, want, rtol=bound, atol=bound)


@pytest.mark.parametrize("size", SIZES)
def test_each_row_of_a_cross_entropy_has_its_weight(
    isa: str, dtype: np.dtype, size: tuple[int, int], rng: Any
) -> None:
    rows, classes = size
    x, targets = rng.normal(0, 5, size).astype(dtype), rng.integers(0, classes, rows)
    weights = rng.normal(size=rows)
    gradient = np.full(size, np.nan, dtype)
    loss = _core.cross_entropy(x, targets, weights, gradient)
    want = plain_softmax(x)
    at = np.arange(rows), targets
    bound = rounding(x) * np.abs(weights).sum()
    assert loss == pytest.approx(np.dot(weights, -np.log(want[at])), abs=bound)
    want[at] -= 1
    np.testing.assert_allclose(
        gradient, weights[:, None] * want, rtol=rounding(x), atol=rounding(x)
    )


@pytest.mark.torch
def test_cross_entropy_against_torch(isa: str, dtype: np.dtype, rng: Any) -> None:
    torch = pytest.importorskip("torch")
    x, targets = rng.normal(0, 5, (2500, 65)).astype(dtype), rng.integers(0, 65, 2500)
    logits, gradient = torch.tensor(x, requires_grad=True), np.empty_like(x)
    want = torch.nn.functional.cross_entropy(logits, torch.tensor(targets))
    want.backward()
    bound = 2 * rounding(x)
    assert _core.cross_entropy(x, targets, None, gradient) == pytest.approx(want.item(), rel=bound)
    np.testing.assert_allclose(2500 * gradient, 2500 * logits.grad.numpy(), rtol=bound, atol=bound)


def test_rows_of_extreme_logits_do_not_touch_each_other(isa: str, dtype: np.dtype) -> None:
    inf, nan = np.inf, np.nan
    x = np.array(
        [[0, 1, 2], [nan, 1, 2], [inf, 1, 2], [-inf, 0, 0], [-inf] * 3, [0, 0, nan]], dtype
    )
    gradient = np.empty_like(x)
    assert math.isnan(_core.cross_entropy(x, np.array([0, 1, 2, 1, 0, 0]), None, gradient))
    assert np.isnan(gradient[[1, 2, 4, 5]]).all()
    want = plain_softmax(x[[0, 3]])
    want[[0, 1], [0, 1]] -= 1
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(6 * gradient[[0, 3]], want, rtol=8 * eps, atol=eps)
    # What would be less than the smallest normal number is zero.
    least = np.log(np.finfo(dtype).tiny)
    far = np.array([[0, least - 0.1, least - 1, -1e30, least + 0.1]], dtype)
    _core.softmax(far)
    np.testing.assert_array_equal(far[0, :4], [1, 0, 0, 0])
    assert far[0, 4] > 0


@pytest.mark.parametrize("size", SIZES)
def test_sums_and_additions_of_rows(
    isa: str, dtype: np.dtype, size: tuple[int, int], rng: Any
) -> None:
    rows, n = size
    x, row = rng.normal(size=size).astype(dtype), rng.normal(size=n).astype(dtype)
    blocks = []  # of 512 rows, each summed in order
    for start in range(0, rows, 512):
        total = np.zeros(n, dtype)
        for r in x[start : start + 512]:
            total = total + r
        blocks.append(total)
    want = blocks[0]
    for block in blocks[1:]:
        want = want + block
    np.testing.assert_array_equal(_core.sum_rows(x), want)
    y = x.copy()
    _core.add_row(y, row)
    np.testing.assert_array_equal(y, x + row)


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_added_in_their_order(
    isa: str, dtype: np.dtype, size: tuple[int, int], rng: Any
) -> None:
    x, at = rng.normal(size=size).astype(dtype), rng.integers(0, 4, size[0])
    y = rng.normal(size=(5, size[1])).astype(dtype)
    want = y.copy()
    for r, row in zip(at, x, strict=True):
        want[r] = want[r] + row
    _core.add_rows_at(x, at, y)
    np.testing.assert_array_equal(y, want)


def test_squares(isa: str, dtype: np.dtype, rng: Any) -> None:
    arrays = [rng.normal(size=n).astype(dtype) for n in COUNTS]
    sums = _core.squares(arrays)
    for got, array in zip(sums, arrays, strict=True):
        assert got == pytest.approx(math.fsum(array.astype(np.float64) ** 2), rel=1e-14)
    assert _core.squares([]) == []
    big = np.array([3e30, np.finfo(dtype).tiny], dtype)  # whose square float32 does not hold
    assert _core.squares([big]) == [pytest.approx(9e60, rel=1e-6)]
    assert _core.squares([np.array([np.inf, 1], dtype)]) == [math.inf]
    assert math.isnan(_core.squares([np.array([np.nan, np.inf], dtype)])[0])


@pytest.mark.usefixtures("restore_threads")
def test_same_bits(dtype: np.dtype, rng: Any) -> None:
    for rows, n in [*SIZES, (7000, 65)]:  # enough for three threads
        logits = rng.normal(0, 5, (rows, n)).astype(dtype)
        targets = rng.integers(0, n, rows)

        def losses(logits: Any = logits, targets: Any = targets) -> tuple[Any, ...]:
            gradient, probabilities = np.empty_like(logits), logits.copy()
            _core.softmax(probabilities)
            return _core.cross_entropy(logits, targets, None, gradient), gradient, probabilities

        same_bits(losses)
    arrays = [rng.normal(size=n).astype(dtype) for n in (*COUNTS, 1_600_003)]
    same_bits(lambda: tuple(_core.squares(arrays)))


@pytest.mark.parametrize("rule", [_core.SGD, _core.RMSPROP, _core.ADAM, _core.ADAGRAD])
def test_what_is_not_finite_stays_where_it_is(isa: str, dtype: np.dtype, rule: int) -> None:
    g = np.array([np.nan, np.inf, -np.inf, 1, 0] * 4, dtype)
    for clip in (np.inf, 0.5):
        w, m, v = (np.ones_like(g) for _ in range(3))
        _core.update(rule, 0.1, 0.9, 0.99, 1e-7, False, clip, [(w, g, 1.0, 0.0, m, v)])
        assert np.isnan(w[::5]).all()
        fine = w.reshape(4, 5)[:, 3 if clip == np.inf else 1 :]
        assert np.isfinite(fine).all() and (fine == fine[0]).all()


def test_a_gradient_counts_as_often_as_its_scale_says(isa: str, dtype: np.dtype) -> None:
    w = [np.zeros(n, dtype) for n in COUNTS]
    g = [np.arange(n, dtype=dtype) for n in COUNTS]
    scales = [2.0**-i for i in range(len(COUNTS))]
    parameters = [(*all_, 0.0, None, None) for all_ in zip(w, g, scales, strict=True)]
    _core.update(_core.SGD, 1.0, 0.0, 0.0, 0.0, False, np.inf, parameters)
    for data, gradient, scale, *_ in parameters:
        np.testing.assert_array_equal(data, -scale * gradient)
    _core.update(_core.SGD, 1.0, 0.0, 0.0, 0.0, False, np.inf, [])


def test_each_parameter_has_its_own_weight_decay(isa: str, dtype: np.dtype, rng: Any) -> None:
    # So small that 1 - it, in float32, would be off by a third.
    decays = [3 * 2.0**-26, 0.0, 0.25]
    for n in COUNTS:
        w = [rng.uniform(1, 2, n).astype(dtype) for _ in decays]
        before = [data.astype(np.float64) for data in w]
        g = np.zeros(n, dtype)
        parameters = [
            (data, g, 1.0, decay, None, None) for data, decay in zip(w, decays, strict=True)
        ]
        _core.update(_core.SGD, 1.0, 0.0, 0.0, 0.0, False, np.inf, parameters)
        for data, old, decay in zip(w, before, decays, strict=True):
            want = (old - decay * old).astype(dtype)  # of float32: exact but for this rounding
            np.testing.assert_allclose(data, want, rtol=0 if dtype == "float32" else 3e-16)


@pytest.mark.parametrize("rule", [_core.SGD, _core.RMSPROP, _core.ADAM, _core.ADAGRAD])
def test_what_does_not_decay_keeps_its_bits(isa: str, dtype: np.dtype, rule: int) -> None:
    w = np.array([-0.0, 0.0, np.inf, -np.inf, 1.5] * 5, dtype)
    before, zeros = w.tobytes(), np.zeros_like(w)
    _core.update(
        rule,
        0.0,
        0.9,
        0.99,
        1e-7,
        False,
        np.inf,
        [(w, zeros, 1.0, 0.0, None if rule == _core.SGD else zeros.copy(), zeros.copy())],
    )
    assert w.tobytes() == before


def test_the_seam_refuses_what_does_not_fit() -> None:
    x, row, ids = np.zeros((2, 3), "f4"), np.zeros(3, "f4"), np.array([0, 1])
    read_only = x.copy()
    read_only.flags.writeable = False
    for call, error, message in (
        (lambda: _core.softmax(row), ValueError, r"x: expected \(rows, n\), got \(3,\)"),
        (lambda: _core.softmax(x.astype("i4")), TypeError, "x: expected float32, got int32"),
        (lambda: _core.softmax(x.T), ValueError, "x: expected a C-contiguous array"),
        (lambda: _core.softmax(read_only), ValueError, "x: expected a writable array"),
        (
            lambda: _core.cross_entropy(x, ids[:1], None, None),
            ValueError,
            r"targets: expected \(2,\), got \(1,\)",
        ),
        (lambda: _core.cross_entropy(x, np.array([0, 3]), None, None), ValueError, "bad argument"),
        (
            lambda: _core.cross_entropy(x, ids, np.ones(3), None),
            ValueError,
            r"weights: expected \(2,\), got \(3,\)",
        ),
        (
            lambda: _core.cross_entropy(x, ids, None, x),
            ValueError,
            "gradient: expected memory of its own",
        ),
        (
            lambda: _core.cross_entropy(x, ids, None, row),
            ValueError,
            r"gradient: expected \(2, 3\)",
        ),
        (lambda: _core.cross_entropy(x[:0], ids[:0], None, None), ValueError, "logits: .* one row"),
        (lambda: _core.add_row(x, ids), TypeError, "row: expected float32, got int64"),
        (lambda: _core.add_row(x, row[:2]), ValueError, r"row: expected \(3,\), got \(2,\)"),
        (
            lambda: _core.add_rows_at(x, ids[:1], x + 1),
            ValueError,
            r"at: expected \(2,\), got \(1,\)",
        ),
        (lambda: _core.add_rows_at(x, ids, np.zeros((2, 4), "f4")), ValueError, "y: .* rows of 3"),
        (lambda: _core.add_rows_at(x, ids, np.zeros((2, 3))), ValueError, "y: .*got 3 float64"),
        (lambda: _core.add_rows_at(x, ids, np.zeros((1, 3), "f4")), ValueError, "bad argument"),
        (lambda: _core.squares([row, ids]), TypeError, "gradient: expected float32, got int64"),
        (lambda: adam(row, row + 1, row + 1, None), ValueError, "bad argument"),
        (lambda: adam(row, row, row + 1, row + 1), ValueError, "data: expected memory of its own"),
        (lambda: adam(row, row[:2], row, row), ValueError, r"gradient: expected \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert not x.any() and not row.any()


def adam(w: Any, g: Any, m: Any, v: Any) -> None:
    _core.update(_core.ADAM, 0.1, 0.9, 0.99, 1e-7, False, np.inf, [(w, g, 1.0, 0.0, m, v)])
