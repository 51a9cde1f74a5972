"""Weights of bfloat16, for inference."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import PLAIN, Case, by_kernels, make_case
from variants import NAMED, Config

import fastrnn as fr
from fastrnn import _core, config
from fastrnn.bfloat16 import from_bits, to_bits
from fastrnn.layers.recurrent import _MULTIPLIED

EVERY: dict[str, Config] = {**{c.cell: c for c in PLAIN}, **NAMED}
PAIRED = "avx512_bf16"
WIDENED = [isa for isa in _core.isas() if isa != PAIRED]
needs_pairs = pytest.mark.skipif(PAIRED not in _core.isas(), reason="no AVX-512 BF16")
F32 = np.dtype("float32")


def rounded(values: Any) -> Any:
    return from_bits(to_bits(values))


def with_rounded_weights(case: Case, *others: str) -> Case:
    """The case with what enters products, and `others`, rounded."""
    names = {"w_ih", "w_hh", "w_hr", *others} & case.given.keys()
    new = {n: rounded(case.given[n]) for n in names if case.given[n] is not None}
    return replace(case, given={**case.given, **new})


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name, value in a.items():
        if value is not None:
            assert value.tobytes() == b[name].tobytes(), name


@given(st.floats(width=32))
def test_rounds_to_the_nearest_ties_to_even(value: float) -> None:
    bits = to_bits([value])
    got = float(from_bits(bits)[0])
    if np.isnan(value):
        assert np.isnan(got)
        return
    if np.isinf(got):
        assert abs(value) > 3.38e38
        return
    near = np.array([int(bits[0]) - 1, int(bits[0]), int(bits[0]) + 1]).clip(0, 0xFFFF)
    others = np.array([float(v) for v in from_bits(near.astype(np.uint16))])
    errors = np.abs(others - value)
    best = np.nanmin(errors)
    assert abs(got - value) == best
    if (errors == best).sum() > 1:
        assert bits[0] % 2 == 0 or got == value


@pytest.mark.parametrize("isa", WIDENED)
@pytest.mark.parametrize("name", EVERY)
def test_same_bits_as_rounded_weights(isa: str, name: str, rng: Any) -> None:
    for size, ragged in (((5, 6, 7, 19), True), ((1, 3, 20, 130), False), ((40, 2, 33, 24), False)):
        case = make_case(rng, EVERY[name], F32, size, ragged)
        with config.using(isa=isa):
            want = by_kernels(with_rounded_weights(case), training=False)
            assert_same(by_kernels(case, training=False, bfloat16=True), want)


@needs_pairs
@pytest.mark.parametrize("name", EVERY)
def test_pairs_of_a_step(name: str, rng: Any) -> None:
    """Where x and h are of bfloat16 already, rounding them changes nothing; but a second product's
    input comes from the first one.
    """
    is_late = EVERY[name].projection or EVERY[name].cell == "gru_before"
    bound = 1e-2 if is_late else 2e-5
    for size in ((5, 1, 7, 19), (1, 1, 20, 130), (40, 1, 1100, 24)):
        case = with_rounded_weights(make_case(rng, EVERY[name], F32, size), "x", "h0")
        with config.using(isa=PAIRED):
            got = by_kernels(case, training=False, bfloat16=True)
        want = by_kernels(case, training=False)
        for key, value in got.items():
            if value is not None:
                np.testing.assert_allclose(value, want[key], rtol=bound, atol=bound)


@needs_pairs
@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("name", EVERY)
def test_same_bits_for_a_row_alone_step_by_step_and_on_any_threads(name: str, rng: Any) -> None:
    case = make_case(rng, EVERY[name], F32, (13, 6, 9, 70), ragged=True)
    with config.using(isa=PAIRED):
        fr.set_num_threads(1)
        whole = by_kernels(case, training=False, bfloat16=True)
        fr.set_num_threads(3)
        assert_same(by_kernels(case, training=False, bfloat16=True), whole)
        for row, length in enumerate(case.lengths):
            part = {
                n: v[row : row + 1] if n in ("x", "h0", "c0") and v is not None else v
                for n, v in case.given.items()
            }
            alone = Case(case.config, part, np.array([length]), case.reverse)
            got = by_kernels(alone, training=False, bfloat16=True)
            assert_same(got, {n: None if v is None else v[row] for n, v in whole.items()})


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kind", [fr.RNN, fr.GRU, fr.LSTM])
def test_accuracy(isa: str, kind: Any, rng: Any) -> None:
    """What README says of it."""
    layer = kind(64, 256, 2, seed=1)
    x = rng.standard_normal((3, 100, 64)).astype(F32)
    with config.using(isa=isa):
        want = layer(x)[0]
        got = layer.to("bfloat16")(x)[0]
    error = np.abs(got - want).max()
    assert 1e-5 < error < 0.02


def test_a_layer(rng: Any) -> None:
    layer = fr.LSTM(6, 20, 2, bidirectional=True, proj_size=8, peephole=True, seed=1)
    small = layer.to("bfloat16")
    x = rng.standard_normal((4, 9, 6)).astype(F32)
    for name, parameter in small.parameters().items():
        full = layer.parameters()[name]
        matrix = name.startswith(_MULTIPLIED)
        assert parameter.nbytes == full.nbytes // (2 if matrix else 1)
        np.testing.assert_array_equal(parameter.data, rounded(full.data) if matrix else full.data)
    y, _ = small(x)
    back = small.to("float32")
    np.testing.assert_allclose(y, back(x)[0], atol=5e-3)
    for twin in (pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert twin(x)[0].tobytes() == y.tobytes()
    one = fr.GRU(6, 20, seed=1).to("bfloat16")
    whole, _ = one(x)
    steps, h = [], None
    for t in range(9):
        step, h = one.step(x[:, t], h)
        steps.append(step)
    assert np.stack(steps, 1).tobytes() == whole.tobytes()


def test_numpy_gemm_leaves_it_alone(rng: Any) -> None:
    x = rng.standard_normal((4, 9, 6)).astype(F32)
    layer = fr.GRU(6, 20, seed=1).to("bfloat16")
    with config.using(gemm="numpy"):
        through_numpy = layer(x)[0]
    assert through_numpy.tobytes() == layer(x)[0].tobytes()


def test_a_model_and_its_file(rng: Any, tmp_path: Any) -> None:
    model = fr.Sequential(
        [fr.Embedding(10, 8, seed=1), fr.LSTM(8, 16, seed=2), fr.Dense(16, 3, seed=3)]
    )
    small = model.to("bfloat16")
    ids = rng.integers(0, 10, (2, 7))
    np.testing.assert_allclose(small(ids), model(ids), atol=0.01)
    small.save(tmp_path / "model.safetensors")
    again = fr.load(tmp_path / "model.safetensors")
    assert again(ids).tobytes() == small(ids).tobytes()
    assert again.layers[1].bfloat16


def test_errors() -> None:
    layer = fr.LSTM(3, 4, seed=1)
    small = layer.to("bfloat16")
    x = np.zeros((1, 2, 3), F32)
    with pytest.raises(ValueError, match="vjp: expected weights of float32 or float64"):
        small.vjp(x)
    with pytest.raises(ValueError, match="weights of bfloat16 are for inference"):
        with small.parameters()["weight_ih_l0"].writing():
            pass
    with pytest.raises(ValueError, match=r"weight_ih_l0: expected shape \(16, 3\), got \(2,\)"):
        small.parameters()["weight_ih_l0"].assign(np.zeros(2), "weight_ih_l0")
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got 'float7'"):
        layer.to("float7")
    with pytest.raises(TypeError, match="x: expected float32, got float64"):
        small(x.astype("float64"))
