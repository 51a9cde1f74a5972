"""Ragged rows, padded batch by batch, and minibatches of similar lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastrnn as fr
from fastrnn.data import Ragged, bucketed_minibatches

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=40)

# --- Ragged rows --------------------------------------------------------------------------------


@given(LENGTHS, st.data())
def test_a_batch_is_padded_to_its_own_longest_row(lengths: list[int], data: st.DataObject) -> None:
    rng = np.random.default_rng(1)
    sequences = [rng.standard_normal((n, 2)).astype("float32") for n in lengths]
    ragged = Ragged(sequences)
    assert len(ragged) == len(lengths)
    assert ragged.dtype == np.float32 and ragged.lengths.tolist() == lengths
    indices = st.lists(st.integers(-len(lengths), len(lengths) - 1), min_size=1)
    index = data.draw(indices.map(np.array))
    first = data.draw(st.integers(0, len(lengths) - 1))
    for rows in (index, slice(first, None), slice(first, first + 1), slice(None, None, -2)):
        taken = np.arange(len(lengths))[rows]
        x, found = ragged[rows]
        assert found.tolist() == [lengths[row] for row in taken]
        assert x.dtype == np.float32
        assert x.shape == (len(taken), max(1, *found, 1), 2)
        for padded, row in zip(x, taken, strict=True):
            assert np.array_equal(padded[: lengths[row]], sequences[row])
            assert not padded[lengths[row] :].any()


def test_ids_are_ragged_rows_too() -> None:
    ragged = Ragged([[1, 2, 3], [4], [5, 6]])
    x, lengths = ragged[np.array([2, 1])]
    assert x.tolist() == [[5, 6], [4, 0]] and lengths.tolist() == [2, 1]
    assert ragged.dtype.kind == "i"


def test_rows_of_no_steps_pad_to_one() -> None:
    x, lengths = Ragged([np.zeros((0, 3)), np.ones((2, 3))])[:1]
    assert x.shape == (1, 1, 3) and not x.any() and lengths.tolist() == [0]


def test_the_sequences_are_not_copied_but_the_batch_is() -> None:
    sequences = [np.zeros(3), np.zeros(2)]
    ragged = Ragged(sequences)
    sequences[1][0] = 7
    x, _ = ragged[1:]
    assert x.tolist() == [[7, 0]]
    x[:] = 1
    assert sequences[1].tolist() == [7, 0]


def test_a_layer_gives_for_a_batch_what_it_gives_for_each_row(rng: Any) -> None:
    layer = fr.GRU(3, 4, seed=1)
    sequences = [rng.standard_normal((n, 3)).astype("float32") for n in (4, 1, 7)]
    x, lengths = Ragged(sequences)[np.array([2, 0])]
    output, _ = layer(x, lengths=lengths)
    for row, k in enumerate((2, 0)):
        alone = layer(sequences[k][None])[0][0]
        np.testing.assert_array_equal(output[row, : lengths[row]], alone)


def test_the_row_that_differs_is_named() -> None:
    with pytest.raises(ValueError, match="sequences: expected at least one, got none"):
        Ragged([])
    with pytest.raises(ValueError, match=r"sequences\[2\]: expected \(time, 3\), got \(5, 4\)"):
        Ragged([np.zeros((5, 3)), np.zeros((0, 3)), np.zeros((5, 4))])
    with pytest.raises(TypeError, match=r"sequences\[1\]: expected float64, got float32"):
        Ragged([np.zeros(5), np.zeros(5, "float32")])


def test_rows_are_a_slice_or_a_vector_of_indices() -> None:
    ragged = Ragged([[1, 2], [3]])
    for wrong in (0, np.zeros((1, 1), int), np.array([True, False]), [0.0]):
        with pytest.raises(TypeError, match="rows: expected a slice or a vector of integers, got"):
            ragged[wrong]  # type: ignore[index]
    for none in (slice(2, None), np.array([], int)):
        with pytest.raises(ValueError, match="rows: expected at least one, got none"):
            ragged[none]
    with pytest.raises(IndexError):
        ragged[np.array([2])]


# --- Minibatches of similar lengths -------------------------------------------------------------


def batches_of(lengths: Any, size: int, seed: int | None, window: int = 50) -> list[list[int]]:
    rng = None if seed is None else np.random.default_rng(seed)
    batches = bucketed_minibatches(lengths, size, rng, window=window)
    return [batch.tolist() for batch in batches]


@given(LENGTHS, st.integers(1, 9), st.integers(1, 4), st.sampled_from([None, 1, 2]))
def test_bucketed_minibatches_take_every_row_once(
    lengths: list[int], size: int, window: int, seed: int | None
) -> None:
    batches = batches_of(lengths, size, seed, window)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    whole, left = divmod(len(lengths), size)
    assert sorted(map(len, batches)) == sorted([size] * whole + [left] * (left > 0))
    for batch in batches:
        found = [lengths[row] for row in batch]
        assert found == sorted(found)


@given(LENGTHS, st.integers(1, 9))
def test_without_a_generator_rows_are_sorted_stably(lengths: list[int], size: int) -> None:
    rows = [row for batch in batches_of(lengths, size, None, window=1) for row in batch]
    assert rows == sorted(range(len(lengths)), key=lambda row: lengths[row])


def test_the_seed_decides_and_batches_come_in_no_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    assert batches_of(lengths, 10, 1) == batches_of(lengths, 10, 1)
    assert batches_of(lengths, 10, 1) != batches_of(lengths, 10, 2)
    first = [int(lengths[batch[0]]) for batch in batches_of(lengths, 10, 1)]
    assert first != sorted(first)
    # Rows of one length do not always meet in the same batch.
    same = [{frozenset(batch) for batch in batches_of([5] * 100, 10, seed)} for seed in (1, 2)]
    assert same[0] != same[1]


def padding(lengths: NDArray[Any], batches: list[list[int]]) -> int:
    return sum(int(np.sum(lengths[batch].max() - lengths[batch])) for batch in batches)


def test_a_larger_window_pads_less() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 2000)
    shuffled, some, all_rows = (
        padding(lengths, batches_of(lengths, 20, 1, w)) for w in (1, 10, 100)
    )
    assert shuffled > 4 * some > 8 * all_rows
    assert all_rows == padding(lengths, batches_of(lengths, 20, None))


def test_bucketed_minibatches_name_wrong_arguments() -> None:
    assert batches_of([], 3, 1) == batches_of([], 3, None) == []
    for wrong in ([[1, 2]], 3, [1.5, 2.0]):
        with pytest.raises(ValueError, match="lengths: expected a vector of integers, got"):
            bucketed_minibatches(wrong, 2)
    with pytest.raises(ValueError, match="batch_size: expected an integer from 1"):
        bucketed_minibatches([1], 0)
    with pytest.raises(ValueError, match="window: expected an integer from 1"):
        bucketed_minibatches([1], 1, window=0)
