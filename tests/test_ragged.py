"""Lists of sequences as one array and back, boolean masks, and pieces of a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn as fr
from fastrnn import config

LAYERS = [fr.RNN, fr.GRU, fr.LSTM]


# --- Lists of sequences -------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_list_is_one_array_and_back(batch_first: bool, rng: Any) -> None:
    sequences = [rng.standard_normal((n, 2, 3)) for n in (4, 0, 6, 1)]
    x, lengths = fr.pack(sequences, batch_first=batch_first)
    assert x.shape == ((4, 6, 2, 3) if batch_first else (6, 4, 2, 3))
    assert x.dtype == np.float64 and lengths.tolist() == [4, 0, 6, 1]
    assert not (x if batch_first else x.swapaxes(0, 1))[3, 1:].any()
    back = fr.unpack(x, lengths, batch_first=batch_first)
    for a, b in zip(sequences, back, strict=True):
        np.testing.assert_array_equal(a, b)
    ids, lengths = fr.pack([[1, 2], [3]])
    assert ids.tolist() == [[1, 2], [3, 0]] and ids.dtype.kind == "i"


@config.using(gemm="native")
def test_packed_sequences_give_what_each_gives_alone(rng: Any) -> None:
    layer = fr.LSTM(3, 5, 2, bidirectional=True, seed=1)
    sequences = [rng.standard_normal((n, 3)).astype("float32") for n in (4, 7, 1)]
    x, lengths = fr.pack(sequences)
    outputs = fr.unpack(layer(x, lengths=lengths)[0], lengths)
    for sequence, output in zip(sequences, outputs, strict=True):
        np.testing.assert_array_equal(output, layer(sequence[None])[0][0])


def test_pack_and_unpack_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="sequences: expected at least one, got none"):
        fr.pack([])
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected \(time, 3\), got \(2, 4\)"):
        fr.pack([np.zeros((5, 3)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match=r"sequences\[0\]: expected"):
        fr.pack([np.float64(1)])
    with pytest.raises(TypeError, match=r"sequences\[1\]: expected float64, got float32"):
        fr.pack([np.zeros((5, 3)), np.zeros((2, 3), "float32")])
    with pytest.raises(ValueError, match=r"x: expected \(batch, time, ...\), got \(3,\)"):
        fr.unpack(np.zeros(3), [1])
    for wrong in ([1], [1, 4], [-1, 2]):
        with pytest.raises(ValueError, match=r"lengths: expected \(2,\) integers from 0 to 3"):
            fr.unpack(np.zeros((2, 3)), wrong)
    with pytest.raises(TypeError, match="lengths: expected integers, got float64"):
        fr.unpack(np.zeros((2, 3)), [1.0, 2.0])


# --- Masks --------------------------------------------------------------------------------------


def by_hand(layer: Any, x: Any, mask: Any) -> tuple[Any, Any]:
    """One direction, a row and a step at a time."""
    outputs, finals = [], []
    for row, valid in zip(x, mask, strict=True):
        state, y = layer.initial_state(1), np.zeros(layer.hidden_size, x.dtype)
        ys = []
        for step, counts in zip(row, valid, strict=True):
            if counts:
                (y,), state = layer.step(step[None], state)
            ys.append(y)
        outputs.append(ys)
        finals.append(state[0] if layer.has_c else state)
    return np.array(outputs), np.concatenate(finals, axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(LAYERS), st.booleans())
@config.using(gemm="native")
def test_a_masked_step_carries_the_state_and_repeats_the_output(
    seed: int, cell: Any, batch_first: bool
) -> None:
    rng = np.random.default_rng(seed)
    layer = cell(3, 4, batch_first=batch_first, seed=1)
    x = rng.standard_normal((3, 6, 3)).astype("float32")
    mask = rng.random((3, 6)) < rng.random()
    want, final = by_hand(layer, x, mask)
    given_x, given_mask = (x, mask) if batch_first else (x.swapaxes(0, 1), mask.T)
    output, state = layer(given_x, mask=given_mask)
    np.testing.assert_array_equal(output if batch_first else output.swapaxes(0, 1), want)
    np.testing.assert_array_equal(state[0] if layer.has_c else state, final)


def test_both_directions_have_zeros_at_masked_steps(rng: Any) -> None:
    layer = fr.GRU(3, 4, bidirectional=True, seed=1)
    x = rng.standard_normal((1, 6, 3)).astype("float32")
    mask = np.array([[False, True, False, True, True, False]])
    output, _ = layer(x, mask=mask)
    alone, _ = layer(x[:, mask[0]])
    np.testing.assert_array_equal(output[mask], alone[0])
    assert not output[~mask].any()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("cell", LAYERS)
def test_gradients_under_a_mask_are_the_differences(
    cell: Any, return_sequences: bool, bidirectional: bool, rng: Any
) -> None:
    layer = cell(
        2, 3, 2, bidirectional=bidirectional, dtype="float64", return_sequences=return_sequences,
        seed=1,
    )  # fmt: skip
    x = rng.standard_normal((3, 5, 2))
    mask = np.array([[0, 1, 0, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    (output, _), pullback = layer.vjp(x, mask=mask)
    dy = rng.standard_normal(output.shape)
    dx, _ = pullback(dy)
    assert not dx[~mask].any()
    for index in np.ndindex(*x.shape):
        values = []
        for step in (1e-6, -1e-6):
            moved = x.copy()
            moved[index] += step
            values.append(np.sum(dy * layer(moved, mask=mask)[0]))
        assert abs(dx[index] - (values[0] - values[1]) / 2e-6) < 1e-7


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_way_back_has_the_mask_and_the_lengths_of_the_call(
    bidirectional: bool, rng: Any
) -> None:
    layer = fr.GRU(3, 4, bidirectional=bidirectional, seed=1)
    x = rng.standard_normal((2, 5, 3)).astype("float32")
    given = {"mask": rng.random((2, 5)) < 0.6, "lengths": np.array([4, 2])}
    for name, value in given.items():
        runs = []
        for change in (False, True):
            mine = value.copy()
            (output, _), pullback = layer.vjp(x, **{name: mine})
            if change:
                mine[...] = 0
            runs.append(pullback(np.ones_like(output))[0])
        np.testing.assert_array_equal(*runs)


def test_a_mask_that_does_not_fit_is_refused() -> None:
    layer, x = fr.GRU(3, 4), np.zeros((2, 5, 3), "float32")
    with pytest.raises(
        ValueError, match=r"mask: expected \(2, 5\), x's first two axes, got \(5, 2\)"
    ):
        layer(x, mask=np.ones((5, 2), bool))
    with pytest.raises(TypeError, match="mask: expected booleans, got int64"):
        layer(x, mask=np.ones((2, 5), np.int64))
    with pytest.raises(ValueError, match="mask: expected None where there are lengths"):
        layer(x, lengths=[1, 2], mask=np.ones((2, 5), bool))
    (output, _), pullback = layer.vjp(x, mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match=r"doutput: expected \(2, 5, 4\), got \(2, 5\)"):
        pullback(output[..., 0])


# --- Streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", LAYERS)
@config.using(gemm="native")
def test_a_stream_has_the_bits_of_the_whole(cell: Any, num_layers: int, isa: str, rng: Any) -> None:
    layer = cell(5, 7, num_layers, seed=1)
    x = rng.standard_normal((2, 11, 5)).astype("float32")
    whole, final = layer(x)
    stream = layer.stream()
    pieces = [stream(x[:, :4]), stream(x[:, 4])[:, None], stream(x[:, 5:6]), stream(x[:, 6:])]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    np.testing.assert_array_equal(stream.state, final)
    stream.state = None
    np.testing.assert_array_equal(stream(x[:, 0]), whole[:, 0])


def test_a_stream_wants_one_direction() -> None:
    with pytest.raises(ValueError, match="stream: a bidirectional layer needs the whole sequence"):
        fr.GRU(3, 4, bidirectional=True).stream()
