"""The CTC loss: the reference against all paths one by one; the kernel against the reference and
PyTorch, where paths can be counted, at extremes; bits and errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from conftest import PLAIN_ISAS
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn as fr
from fastrnn import _core, reference

VECTOR_ISAS = [name for name in PLAIN_ISAS if name != "generic"]


@dataclass(frozen=True)
class Case:
    """Arguments of the loss."""

    logits: Any
    labels: Any
    input_lengths: Any
    label_lengths: Any
    blank: int = 0

    def rows(self, index: Any) -> Case:
        return Case(
            self.logits[index].copy(),
            self.labels[index].copy(),
            self.input_lengths[index].copy(),
            self.label_lengths[index].copy(),
            self.blank,
        )


def make_case(
    rng: np.random.Generator,
    size: tuple[int, int, int, int],
    dtype: Any = "float64",
    blank: int = 0,
    scale: float = 2.0,
    ragged: bool = True,
    letters: int | None = None,
) -> Case:
    """size: batch, time, classes, most labels; labels are of few `letters`, so that some repeat."""
    B, T, C, L = size
    usable = np.delete(np.arange(C), blank)[:letters]
    labels = rng.choice(usable, (B, L)) if len(usable) else np.zeros((B, L), np.int64)
    label_lengths = np.full(B, L if len(usable) else 0)
    input_lengths = np.full(B, T)
    if ragged:
        label_lengths = rng.integers(0, label_lengths + 1)
        input_lengths = rng.integers(0, T + 1, B)
    logits = (scale * rng.standard_normal((B, T, C))).astype(dtype)
    return Case(logits, labels, input_lengths, label_lengths, blank)


def one(logits: Any, labels: list[int], blank: int = 0) -> Case:
    """A batch of one sequence, logits (time, classes)."""
    return Case(
        np.asarray(logits)[None],
        np.array([labels], np.int64).reshape(1, -1),
        np.array([len(logits)]),
        np.array([len(labels)]),
        blank,
    )


def by_kernel(case: Case, weights: Any = None) -> tuple[Any, Any]:
    weights = np.ones(len(case.logits)) if weights is None else weights
    gradient = np.full_like(case.logits, 77)
    arguments = (
        case.logits, case.labels, case.input_lengths, case.label_lengths, case.blank, weights,
    )  # fmt: skip
    losses = _core.ctc(*arguments, gradient)
    assert losses.dtype == np.float64
    np.testing.assert_array_equal(_core.ctc(*arguments, None), losses)
    return losses, gradient


def by_reference(case: Case) -> tuple[Any, Any]:
    return reference.ctc(
        case.logits, case.labels, case.input_lengths, case.label_lengths, case.blank
    )


def check(case: Case, rtol: float | None = None, atol: float | None = None) -> None:
    """The kernel against the reference."""
    single = case.logits.dtype == np.float32
    rtol = rtol or (1e-6 if single else 1e-13)
    atol = atol or (2e-6 if single else 1e-11)
    want_losses, want_gradient = by_reference(case)
    losses, gradient = by_kernel(case)
    np.testing.assert_allclose(losses, want_losses, rtol=rtol, atol=atol)
    np.testing.assert_allclose(gradient, want_gradient, rtol=0, atol=atol)


# --- The reference ------------------------------------------------------------------------------


def by_all_paths(x: Any, labels: list[int], blank: int) -> float:
    """The definition: over all paths that, merged and without blanks, are the labels."""
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    p = 0.0
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        merged = [k for k, _ in itertools.groupby(path)]
        if [k for k in merged if k != blank] == labels:
            p += math.prod(y[t, k] for t, k in enumerate(path))
    return -math.log(p) if p else math.inf


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("time", [0, 1, 2, 5])
def test_the_reference_sums_over_all_paths(blank: int, time: int, rng: Any) -> None:
    letters = [k for k in range(3) if k != blank]
    x = rng.standard_normal((time, 3))
    for count in range(4):
        for labels in itertools.product(letters, repeat=count):
            loss, gradient = by_reference(one(x, list(labels), blank))
            want = by_all_paths(x, list(labels), blank)
            assert loss[0] == pytest.approx(want, rel=1e-12, abs=1e-12)
            if math.isinf(want):
                assert not gradient.any()


def test_the_gradient_of_the_reference_is_that_of_central_differences(rng: Any) -> None:
    for labels in ([], [1], [1, 1], [2, 1, 2], [3, 3, 1]):
        case = one(rng.standard_normal((6, 4)), labels)
        _, got = by_reference(case)
        want = np.empty_like(got)
        for index in np.ndindex(got.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = case.logits.copy()
                moved[index] += step
                ends.append(by_reference(replace(case, logits=moved))[0][0])
            want[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


# --- The kernel ---------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    B, T, C = draw(st.integers(1, 4)), draw(st.integers(0, 40)), draw(st.integers(1, 20))
    return make_case(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        (B, T, C, draw(st.integers(0, 20))),
        draw(st.sampled_from(["float32", "float64"])),
        draw(st.integers(0, C - 1)),
        draw(st.sampled_from([0.01, 2.0, 30.0])),
        draw(st.booleans()),
        draw(st.sampled_from([1, 2, None])),
    )


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_kernel_is_the_reference(case: Case) -> None:
    results = {}
    for isa in PLAIN_ISAS:
        with fr.config.using(isa=isa):
            check(case)
            losses, gradient = by_kernel(case)
            results[isa] = losses.tobytes() + gradient.tobytes()
    assert len({results[isa] for isa in VECTOR_ISAS}) <= 1


# Rows and columns: tails of every vector length, many labels of few classes and few of many.
@pytest.mark.parametrize(
    "size", [(32, 50, 30, 20), (3, 300, 100, 100), (2, 90, 5, 64), (2, 30, 2500, 9)]
)
def test_sizes(isa: str, dtype: np.dtype, size: tuple[int, int, int, int], rng: Any) -> None:
    check(make_case(rng, size, dtype))
    check(make_case(rng, size, dtype, blank=size[2] - 1, ragged=False))


@pytest.mark.usefixtures("restore_threads")
def test_same_bits(dtype: np.dtype, rng: Any) -> None:
    for size in ((9, 300, 30, 40), (2, 1000, 60, 100), (5, 20, 9, 7)):
        case = make_case(rng, size, dtype)
        results = set()
        for isa, threads in itertools.product(VECTOR_ISAS, (1, 2, 3)):
            with fr.config.using(isa=isa):
                fr.set_num_threads(threads)
                results.add(b"".join(a.tobytes() for a in by_kernel(case)))
        assert len(results) <= 1
        if not results:
            continue
        # A row alone, without what is past its lengths.
        losses, gradient = by_kernel(case)
        for row in range(size[0]):
            time, count = case.input_lengths[row], case.label_lengths[row]
            alone = case.rows(slice(row, row + 1))
            alone = replace(
                alone,
                logits=np.ascontiguousarray(alone.logits[:, :time]),
                labels=np.ascontiguousarray(alone.labels[:, :count]),
            )
            loss, own = by_kernel(alone)
            assert loss.tobytes() == losses[row : row + 1].tobytes()
            np.testing.assert_array_equal(own[0], gradient[row, :time])
            assert not gradient[row, time:].any()


def test_what_is_past_the_lengths_is_not_read(isa: str, dtype: np.dtype, rng: Any) -> None:
    case = make_case(rng, (6, 12, 7, 5), dtype)
    want = by_kernel(case)
    for row in range(6):
        case.logits[row, case.input_lengths[row] :] = np.nan
        case.labels[row, case.label_lengths[row] :] = -(2**62)
    for got, value in zip(by_kernel(case), want, strict=True):
        np.testing.assert_array_equal(got, value)


def test_a_gradient_counts_as_its_weight_says(isa: str, dtype: np.dtype, rng: Any) -> None:
    case = make_case(rng, (4, 12, 7, 4), dtype, ragged=False)
    losses, gradient = by_kernel(case)
    weights = np.array([0.25, 0.0, -2.0, 1 / 3])
    same, weighted = by_kernel(case, weights)
    np.testing.assert_array_equal(same, losses)
    np.testing.assert_array_equal(weighted[:3], gradient[:3] * weights[:3, None, None])
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(weighted[3] * 3, gradient[3], rtol=0, atol=4 * eps)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(32, 200, 30, 20), (4, 500, 100, 100), (3, 60, 4, 25)])
def test_against_torch(
    isa: str, dtype: np.dtype, size: tuple[int, int, int, int], rng: Any
) -> None:
    torch = pytest.importorskip("torch")
    case = make_case(rng, size, dtype, blank=2)
    case.input_lengths[:] = np.maximum(case.input_lengths, 1)
    case.label_lengths[:] = np.minimum(case.label_lengths, case.input_lengths // 2)
    weights = rng.uniform(0.5, 2, size[0])
    logits = torch.tensor(case.logits, requires_grad=True)
    want = torch.nn.functional.ctc_loss(
        logits.log_softmax(2).transpose(0, 1),
        *(torch.tensor(a) for a in (case.labels, case.input_lengths, case.label_lengths)),
        blank=2,
        reduction="none",
    )
    (want * torch.tensor(weights, dtype=logits.dtype)).sum().backward()
    losses, gradient = by_kernel(case, weights)
    assert np.isfinite(losses).all()
    # PyTorch's logarithms are rounded to float32 at every step.
    rtol, atol = (1e-12, 1e-10) if dtype == np.float64 else (1e-5, 4e-3)
    np.testing.assert_allclose(losses, want.detach().numpy(), rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=0, atol=atol)


# --- Extremes -----------------------------------------------------------------------------------


def ways(time: int, labels: list[int]) -> int:
    """How many paths of so many steps stand for the labels."""
    repeats = sum(a == b for a, b in itertools.pairwise(labels))
    return math.comb(time + len(labels) - repeats, 2 * len(labels))


@pytest.mark.parametrize(
    ("time", "count"), [(1, 1), (2000, 1), (2000, 500), (2000, 1999), (2000, 2000), (700, 300)]
)
def test_equal_logits_count_the_paths(isa: str, dtype: np.dtype, time: int, count: int) -> None:
    for labels in ([1 + i % 8 for i in range(count)], [1 + i % 8 // 2 for i in range(count)]):
        losses, gradient = by_kernel(one(np.full((time, 10), 3, dtype), labels))
        number = ways(time, labels)
        want = time * math.log(10) - math.log(number) if number else math.inf
        assert losses[0] == pytest.approx(want, rel=2e-7 if dtype == np.float32 else 1e-13)
        if number:
            # Each step's shares are one; softmax's as well.
            atol = 20 * np.finfo(dtype).eps + time * np.finfo(np.float64).eps
            np.testing.assert_allclose(gradient.sum(axis=2), 0, atol=atol)
            np.testing.assert_allclose(gradient[0, :, 9], 0.1, rtol=1e-6)
        else:
            assert not gradient.any()


def test_paths_of_least_probability(isa: str, dtype: np.dtype) -> None:
    time = 2000
    # Blanks are nearly sure, so a path has each label for one step alone, anywhere.
    for labels in ([1], [2, 1], [1, 2, 1]):
        logits = np.zeros((time, 3), dtype)
        logits[:, 1:] = -1e4
        losses, gradient = by_kernel(one(logits, labels))
        count = len(labels)
        want = 1e4 * count - math.log(math.comb(time, count))
        assert losses[0] == pytest.approx(want, rel=1e-13)
        shares = [-labels.count(k) for k in (1, 2)]
        tolerance = time * np.finfo(dtype).eps
        np.testing.assert_allclose(gradient[0, :, 1:].sum(axis=0), shares, rtol=0, atol=tolerance)
    # Every step of the only path is against all odds.
    labels = [1 + i % 2 for i in range(time)]
    logits = np.zeros((time, 3), dtype)
    logits[:, 0] = 2e4
    losses, gradient = by_kernel(one(logits, labels))
    assert losses[0] == pytest.approx(2e4 * time, rel=1e-15)
    np.testing.assert_allclose(gradient[0, ::2], [[1, -1, 0]] * 1000, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient[0, 1::2], [[1, 0, -1]] * 1000, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4])
def test_large_logits(isa: str, dtype: np.dtype, scale: float, rng: Any) -> None:
    # The reference's logarithms are of some 1e7, and so less exact.
    atol = {"float32": 1e-5, "float64": 1e-7}[dtype.name]
    for size in ((6, 40, 7, 12), (1, 2000, 20, 300)):
        case = make_case(rng, size, dtype, scale=scale, ragged=size[0] > 1)
        np.clip(case.logits, -1e4, 1e4, out=case.logits)
        check(case, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=atol)
        moved = replace(case, logits=np.round(case.logits) + dtype.type(30000))
        for a, b in zip(
            by_kernel(replace(case, logits=np.round(case.logits))), by_kernel(moved), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_logits_far_below_are_as_one_limit(isa: str, dtype: np.dtype) -> None:
    logits = np.zeros((5, 3), dtype)
    logits[:, 1] = -1e30
    losses, gradient = by_kernel(one(logits, [1]))
    assert losses[0] == pytest.approx(2.0**31)
    np.testing.assert_allclose(gradient[0, :, 1].sum(), -1, rtol=1e-6)
    # A class that no label is may as well be impossible.
    far = by_kernel(one(logits, [2]))
    logits[:, 1] = -np.inf
    for got, want in zip(by_kernel(one(logits, [2])), far, strict=True):
        np.testing.assert_array_equal(got, want)


def test_impossible_labels_have_an_infinite_loss_and_no_gradient(
    isa: str, dtype: np.dtype, rng: Any
) -> None:
    x = rng.standard_normal((4, 3)).astype(dtype)
    for labels, possible in (
        ([1, 2, 1, 2], True),
        ([1, 1, 2], True),
        ([1, 2, 1, 2, 1], False),
        ([1, 1, 1], False),
        ([2, 1, 1, 2], False),
    ):
        losses, gradient = by_kernel(one(x, labels))
        assert math.isfinite(losses[0]) == possible
        assert gradient.any() == possible
    for labels in ([1], [2, 2]):
        losses, gradient = by_kernel(one(x[:0], labels))
        assert losses[0] == math.inf
    losses, gradient = by_kernel(one(x[:0], []))
    assert losses[0] == 0


def test_minus_infinity_makes_a_class_impossible(isa: str, dtype: np.dtype, rng: Any) -> None:
    case = make_case(rng, (3, 9, 5, 3), dtype, ragged=False, letters=3)
    case.logits[:, :, 4] = -np.inf  # which no label is
    case.logits[1, 4:6, 0] = -np.inf
    check(case)
    _, gradient = by_kernel(case)
    assert not gradient[:, :, 4].any()
    case.labels[2, 1] = 4
    case.label_lengths[:] = 3
    losses, gradient = by_kernel(case)
    np.testing.assert_array_equal(np.isfinite(losses), [True, True, False])
    assert losses[2] == math.inf
    assert not gradient[2].any()
    assert gradient[0].any()
    # At one step nothing but the third label is possible, which is too late there.
    case = one(np.zeros((4, 4), dtype), [1, 2, 3])
    case.logits[0, 0, :3] = -np.inf
    losses, gradient = by_kernel(case)
    assert losses[0] == math.inf
    assert not gradient.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_stays_in_its_row(isa: str, dtype: np.dtype, value: float, rng: Any) -> None:
    case = make_case(rng, (4, 9, 5, 3), dtype, ragged=False)
    case.input_lengths[:] = 7
    want = by_kernel(case)
    case.logits[1, 3, 4] = value
    case.logits[2, 8, 0] = value  # past the length
    case.logits[3, 0] = -np.inf
    losses, gradient = by_kernel(case)
    assert np.isnan(losses[[1, 3]]).all()
    assert np.isnan(gradient[[1, 3], :7]).all()
    assert not gradient[:, 7:].any()
    for got, value in zip((losses, gradient), want, strict=True):
        np.testing.assert_array_equal(got[::2], value[::2])
    np.testing.assert_array_equal(np.isnan(by_reference(case)[0]), [False, True, False, True])


def test_no_labels_are_blanks_alone(isa: str, dtype: np.dtype, rng: Any) -> None:
    x = rng.standard_normal((300, 4)).astype(dtype)
    losses, gradient = by_kernel(one(x, [], blank=3))
    wide = x.astype(np.float64)
    y = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    assert losses[0] == pytest.approx(
        -np.log(y[:, 3]).sum(), rel=1e-6 if x.itemsize == 4 else 1e-13
    )
    y[:, 3] -= 1
    np.testing.assert_allclose(gradient[0], y, rtol=0, atol=16 * np.finfo(dtype).eps)
    # A loss is never less than nothing.
    losses, gradient = by_kernel(one(np.zeros((7, 1), dtype), []))
    assert losses[0] == 0
    assert not gradient.any()


# --- Errors -------------------------------------------------------------------------------------


def test_a_batch_of_none() -> None:
    case = Case(np.zeros((0, 5, 4), "f4"), np.zeros((0, 3), "i8"), *np.zeros((2, 0), "i8"))
    losses, _ = by_kernel(case)
    assert losses.shape == (0,)


def test_the_seam_refuses_what_does_not_fit(rng: Any) -> None:
    good = make_case(rng, (2, 6, 4, 3), "float32", ragged=False)
    weights = np.ones(2)
    read_only = np.zeros_like(good.logits)
    read_only.flags.writeable = False

    def call(gradient: Any = None, weights: Any = weights, **other: Any) -> Any:
        case = replace(good, **other)
        return _core.ctc(
            case.logits, case.labels, case.input_lengths, case.label_lengths, case.blank, weights,
            gradient,
        )  # fmt: skip

    x = good.logits
    for arguments, error, message in (
        ({"logits": x[0]}, ValueError, r"logits: expected \(batch, time, classes\), got \(6, 4\)"),
        ({"logits": x.astype("i4")}, TypeError, "logits: expected float32, got int32"),
        ({"logits": x.transpose(1, 0, 2)[:2]}, ValueError, "logits: expected a C-contiguous"),
        ({"gradient": x}, ValueError, "gradient: expected memory of its own"),
        ({"gradient": x[:1]}, ValueError, r"gradient: expected \(2, 6, 4\), got \(1, 6, 4\)"),
        ({"gradient": x.astype("f8")}, TypeError, "gradient: expected float32, got float64"),
        ({"gradient": read_only}, ValueError, "gradient: expected a writable array"),
        ({"weights": weights[:1]}, ValueError, r"weights: expected \(2,\), got \(1,\)"),
        ({"labels": good.labels[:1]}, ValueError, r"^labels: expected \(2, 3\), got \(1, 3\)"),
        ({"labels": good.labels.astype("i4")}, TypeError, "labels: expected int64, got int32"),
        ({"input_lengths": np.array([6])}, ValueError, r"input_lengths: expected \(2,\)"),
        ({"label_lengths": np.array([3])}, ValueError, r"label_lengths: expected \(2,\)"),
        ({"input_lengths": np.array([6, 7])}, ValueError, "bad argument"),
        ({"input_lengths": np.array([-1, 6])}, ValueError, "bad argument"),
        ({"label_lengths": np.array([3, 4])}, ValueError, "bad argument"),
        ({"label_lengths": np.array([-1, 3])}, ValueError, "bad argument"),
        ({"blank": -1}, ValueError, "bad argument"),
        ({"blank": 4}, ValueError, "bad argument"),
        ({"labels": np.array([[1, 2, 3], [1, 2, 4]])}, ValueError, "bad argument"),
        ({"labels": np.array([[1, -1, 3], [1, 2, 3]])}, ValueError, "bad argument"),
        ({"labels": np.array([[1, 0, 3], [1, 2, 3]])}, ValueError, "bad argument"),
    ):
        with pytest.raises(error, match=message):
            call(**arguments)
    assert np.isfinite(call()).all()


def test_the_reference_refuses_what_does_not_fit() -> None:
    x, labels = np.zeros((2, 3, 4)), np.ones((2, 1), np.int64)
    with pytest.raises(ValueError, match=r"logits: expected shape \(any, any, any\), got \(3, 4\)"):
        reference.ctc(x[0], labels)
    with pytest.raises(ValueError, match="lengths: expected 2 integers from 0 to 3"):
        reference.ctc(x, labels, [3, 4])
    with pytest.raises(ValueError, match="lengths: expected 2 integers from 0 to 1"):
        reference.ctc(x, labels, None, [1, 2])
    with pytest.raises(TypeError, match="logits: expected float32 or float64, got int64"):
        reference.ctc(labels[:, :, None], labels)
