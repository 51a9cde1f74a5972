"""Text files, streams, minibatches and examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.data import Examples, Stream, minibatches, read_text


def test_read_text_drops_the_byte_order_mark_and_unifies_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\xc3\xa9")
    assert read_text(path) == "one\ntwo\nthree\né"


def test_read_text_refuses_what_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(FileNotFoundError):
        read_text(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.txt: the file is empty"):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match=r"a\.txt: the file is empty"):
        read_text(path)
    path.write_bytes(b"caf\xe9s")
    with pytest.raises(ValueError, match=r"a\.txt: not UTF-8 text \(byte 0xe9 at 3\)"):
        read_text(path)


@given(batch=st.integers(1, 5), time=st.integers(1, 6), more=st.integers(0, 30))
def test_windows_of_a_stream_join_into_the_rows_of_the_text(
    batch: int, time: int, more: int
) -> None:
    ids = np.arange(batch * time + 1 + more)
    stream = Stream(ids, batch, time)
    windows = list(stream)
    assert len(windows) == len(stream)
    assert all(x.shape == y.shape == (batch, time) for x, y in windows[:-1])
    assert 1 <= windows[-1][0].shape[1] <= time

    inputs = np.concatenate([x for x, _ in windows], axis=1)
    targets = np.concatenate([y for _, y in windows], axis=1)
    assert inputs.size == stream.size
    # Rows in order make up the text but for fewer than `batch` ids; a target is the next id.
    assert np.array_equal(inputs.reshape(-1), ids[: inputs.size])
    assert np.array_equal(targets, inputs + 1)
    assert len(ids) - 1 - inputs.size < batch


def test_a_stream_wants_one_whole_window() -> None:
    assert len(Stream(np.arange(21), 4, 5)) == 1
    with pytest.raises(ValueError, match=r"20 characters is too short for 4 rows of 5 steps.* 21"):
        Stream(np.arange(20), 4, 5)
    with pytest.raises(ValueError, match="expected 1 or more, got 0 and 5"):
        Stream(np.arange(20), 0, 5)
    with pytest.raises(ValueError, match="ids: expected a vector of integers"):
        Stream(np.zeros((20, 20), int), 4, 5)
    with pytest.raises(ValueError, match="ids: expected a vector of integers, got float64"):
        Stream(np.zeros(100), 4, 5)


@given(rows=st.integers(1, 50), size=st.integers(1, 60), shuffled=st.booleans())
def test_minibatches_take_every_row_once(rows: int, size: int, shuffled: bool) -> None:
    rng = np.random.default_rng(3) if shuffled else None
    batches = [np.arange(rows)[batch] for batch in minibatches(rows, size, rng)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    if not shuffled:
        assert np.array_equal(np.concatenate(batches), np.arange(rows))


def test_minibatches_are_shuffled_as_the_generator_says() -> None:
    def order(seed: int) -> list[int]:
        batches = minibatches(100, 7, np.random.default_rng(seed))
        return [int(row) for batch in batches for row in np.arange(100)[batch]]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_examples_are_rows_side_by_side() -> None:
    examples = Examples(np.arange(6).reshape(3, 2), np.arange(3), np.array([2, 1, 0]))
    part = examples[np.array([2, 0])]
    assert part.x.tolist() == [[4, 5], [0, 1]]
    assert part.y.tolist() == [2, 0]
    assert part.lengths is not None and part.lengths.tolist() == [0, 2]
    assert examples[1:].x.tolist() == [[2, 3], [4, 5]]
    assert Examples(np.zeros(3), np.zeros(3))[:1].lengths is None


def test_examples_want_as_many_of_each() -> None:
    with pytest.raises(ValueError, match=r"y: expected 3 rows as x has, got \(2,\)"):
        Examples(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match=r"lengths: expected 3 rows as x has, got \(\)"):
        Examples(np.zeros((3, 2)), np.zeros(3), np.array(2))
    with pytest.raises(ValueError, match=r"x: expected at least one row, got \(0, 2\)"):
        Examples(np.zeros((0, 2)), np.zeros(0))
