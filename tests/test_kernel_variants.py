"""What kernels do beyond the plain cells, against the reference, and against themselves."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_kernels import (
    PADDED,
    Case,
    assert_close,
    assert_padding_is_neither_read_nor_left,
    assert_pieces_have_the_bits,
    assert_same_bits,
    assert_threads_and_instruction_sets_agree,
    by_kernels,
    by_reference,
    make_case,
)
from variants import NAMED, Config, configs

# Where clip or a kink is met, one bit more or less of a pre-activation turns a gradient on or off:
# there float32 is compared forward only.
SIZES = [(1, 1, 1, 7), (3, 5, 2, 17), (5, 6, 7, 40), (13, 4, 20, 100)]


def assert_agrees(case: Case, smooth: bool) -> None:
    training = case.config.variant.training
    forward_only = not smooth and case.given["x"].dtype == np.float32
    got = by_kernels(case, training=training, forward_only=forward_only)
    want = by_reference(case)
    wrong = 30 if case.config.layer_norm else 3  # sizes and activations may be any
    assert_close(got, want, times=wrong)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("size", SIZES)
def test_kernels_agree_with_the_reference(
    isa: str, dtype: np.dtype, name: str, size: tuple[int, int, int, int], rng: Any
) -> None:
    for ragged, reverse in itertools.product((False, True), repeat=2):
        case = make_case(rng, NAMED[name], dtype, size, ragged, reverse)
        assert_agrees(case, smooth=NAMED[name].variant.clip is None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    configs(),
    st.tuples(*(st.integers(1, n) for n in (9, 6, 20))),
    st.integers(6, 70),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 1000),
)
def test_any_variant_of_any_size(
    config: Config, size: tuple[int, int, int], hidden: int, flags: tuple[bool, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    case = make_case(rng, config, np.dtype("float64"), (*size, hidden), *flags)
    assert_agrees(case, smooth=True)


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("name", NAMED)
def test_same_bits_on_any_threads_and_instruction_set(dtype: np.dtype, name: str, rng: Any) -> None:
    for size, ragged in (((1, 7, 9, 130), False), ((29, 9, 33, 100), True)):
        case = make_case(rng, NAMED[name], dtype, size, ragged)
        assert_threads_and_instruction_sets_agree(case)


@pytest.mark.parametrize("name", NAMED)
def test_same_bits_for_a_row_alone_and_step_by_step(
    isa: str, dtype: np.dtype, name: str, rng: Any
) -> None:
    config = replace(NAMED[name], variant=replace(NAMED[name].variant, training=False))
    case = make_case(rng, config, dtype, (7, 6, 5, 50), ragged=True)
    whole = by_kernels(case, training=False)
    by_row = {"x", "h0", "c0"}
    for part in (slice(0, 1), slice(2, 7)):
        given = {k: v[part] if k in by_row and v is not None else v for k, v in case.given.items()}
        run = by_kernels(Case(config, given, case.lengths[part], False), training=False)
        for key, value in run.items():
            if value is not None:
                assert value.tobytes() == whole[key][part].tobytes(), key
    case.lengths = None
    whole = by_kernels(case, training=False)
    assert_pieces_have_the_bits(case, whole, ((0, 1), (1, 4), (4, 6)))


@pytest.mark.parametrize("name", NAMED)
def test_gradients_are_exact_for_ragged_rows_and_padding_is_not_read(
    dtype: np.dtype, name: str, rng: Any
) -> None:
    case = make_case(rng, NAMED[name], dtype, PADDED)
    clean = assert_padding_is_neither_read_nor_left(case)
    for come, gone in (("h0", "h_n"), ("c0", "c_n"), ("dh_n", "dh0"), ("dc_n", "dc0")):
        if case.given[come] is not None:  # of a row without steps
            np.testing.assert_array_equal(clean[gone][1], case.given[come][1])


@pytest.mark.parametrize("name", [n for n in NAMED if "dropout" in n or "zoneout" in n])
def test_masks_follow_the_seed(name: str, rng: Any) -> None:
    config = NAMED[name]
    case = make_case(rng, config, np.dtype("float32"), (3, 5, 4, 20))
    first = by_kernels(case)
    assert_same_bits(by_kernels(case), first)
    other = replace(config, variant=replace(config.variant, seed=config.variant.seed + 1))
    assert by_kernels(replace(case, config=other))["y"].tobytes() != first["y"].tobytes()
