"""Files larger than memory is to hold: examples and windows over them read their own rows alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fastrnn.data import (
    Examples,
    Ragged,
    bucketed_minibatches,
    minibatches,
    split_in_time,
    windows,
)

SHAPE = 2**20, 32, 32  # 4 GiB of float32: rows, time, features
SMALL = 2**26  # what may come into memory
MARKS = 0, 12_345, 2**20 - 1  # rows that hold their number; all others are zero


@pytest.fixture
def big(tmp_path: Path) -> Iterator[NDArray[np.float32]]:
    """A sparse file of SHAPE, mapped for reading."""
    path = tmp_path / "big.npy"
    try:
        array = open_memmap(path, "w+", np.float32, SHAPE)
        for row in MARKS:
            array[row] = row
        array.flush()
        del array
        if getattr(path.stat(), "st_blocks", 2**40) * 512 > SMALL:
            pytest.skip("the filesystem has no sparse files")
        yield np.load(path, mmap_mode="r")
    except OSError as error:
        pytest.skip(f"no file of 4 GiB: {error}")
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def little_memory() -> Iterator[None]:
    """What runs within allocates little, and where Linux tells, has little of a file mapped."""
    before = resident()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SMALL
    assert resident() - before < SMALL


def resident() -> int:
    """The bytes of this process that are in memory, files with them; 0 where nobody tells."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmRSS:")) * 1024


def test_the_check_sees_what_is_read_and_what_is_copied(big: NDArray[np.float32]) -> None:
    with pytest.raises(AssertionError), little_memory():
        np.zeros(SMALL, np.uint8)
    if resident():
        with pytest.raises(AssertionError), little_memory():
            big[: 2 * SMALL // big[0].nbytes].max()


def test_examples_read_the_rows_of_the_batch(big: NDArray[np.float32]) -> None:
    with little_memory():
        examples = Examples(big, big[:, -1])
        part = examples[:1000]
        assert np.shares_memory(part.x, big) and np.shares_memory(part.y, big)
        batch = examples[np.array(MARKS)]
        assert batch.x[:, 5, 5].tolist() == batch.y[:, 0].tolist() == list(MARKS)
        for rows in islice(minibatches(len(examples), 8, np.random.default_rng(1)), 3):
            assert examples[rows].x.shape == (8, 32, 32)


def test_windows_read_the_rows_of_the_batch(big: NDArray[np.float32]) -> None:
    with little_memory():
        series = big.reshape(-1, 32)  # one series of 2**25 steps
        for part in split_in_time(series, 0.5):
            assert len(part) == 2**24 and np.shares_memory(part, series)
        x, y = windows(series, 32, 4, targets=[3, 1])
        assert x.shape == (2**25 - 35, 32, 32) and y.shape == (2**25 - 35, 4, 2)
        examples = Examples(x, y)
        assert np.shares_memory(examples[5:6].x, big) and np.shares_memory(examples[5:6].y, big)
        mark = MARKS[1]
        start = 32 * mark
        batch = examples[np.array([start, start - 2, start - 34])]
        assert batch.x[:, :, 0].sum(axis=1).tolist() == [32 * mark, 30 * mark, 0]
        assert batch.y[:, :, 0].tolist() == [[0] * 4, [mark, mark, 0, 0], [0, 0, mark, mark]]


def test_ragged_rows_of_a_file_are_read_batch_by_batch(big: NDArray[np.float32]) -> None:
    with little_memory():
        steps = big.reshape(-1, 32)
        ends = np.arange(2**15, len(steps) + 1, 2**15)
        ragged = Ragged([steps[end - end % 777 : end] for end in ends])
        rows = next(bucketed_minibatches(ragged.lengths, 8))
        x, lengths = ragged[rows]
        assert x.shape == (8, lengths.max(), 32)
        last, _ = ragged[-1:]
        assert last[0, -1, 0] == MARKS[-1]
