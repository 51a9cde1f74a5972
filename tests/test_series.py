"""Windows that slide over time series, and splits in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.data import split_in_time, windows


@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(1, 3),
    st.data(),
)
def test_a_window_is_followed_by_its_targets(
    before: int, after: int, stride: int, more: int, features: int, data: st.DataObject
) -> None:
    steps = before + after + more
    series = np.arange(steps * features).reshape(steps, features)
    column = st.integers(-features, features - 1)
    targets = data.draw(st.none() | column | st.lists(column, min_size=1, max_size=4))
    x, y = windows(series, before, after, stride=stride, targets=targets)

    starts = range(0, steps - before - after + 1, stride)
    columns = list(range(features)) if targets is None else np.atleast_1d(targets)
    expected_x = [series[t : t + before] for t in starts]
    expected_y = [series[t + before : t + before + after][:, columns] for t in starts]
    assert np.array_equal(x, np.array(expected_x))
    assert np.array_equal(y, np.array(expected_y))


def test_a_vector_is_a_series_of_one_feature() -> None:
    x, y = windows([1.0, 2.0, 3.0, 4.0, 5.0], 3)
    assert x.tolist() == [[[1], [2], [3]], [[2], [3], [4]]]
    assert y.tolist() == [[[4]], [[5]]]


@pytest.mark.parametrize("targets", [None, 0, -1, [1], [0, 1], [3, 1], [0, 2], [3, 2, 1, 0]])
def test_windows_are_views_that_cannot_be_written(targets: Any) -> None:
    series = np.zeros((20, 4), "float32")
    x, y = windows(series, 5, 2, stride=3, targets=targets)
    assert x.dtype == y.dtype == np.float32
    series[:] = np.arange(20)[:, None]
    assert np.all(x[:, :, 0] == np.arange(0, 14, 3)[:, None] + np.arange(5))
    assert np.all(y[:, :, 0] == np.arange(5, 19, 3)[:, None] + np.arange(2))
    assert not x.flags.writeable and not y.flags.writeable


@pytest.mark.parametrize("targets", [[0, 1, 3], [1, 1]])
def test_only_uneven_columns_are_copied(targets: list[int]) -> None:
    series = np.zeros((20, 4))
    x, y = windows(series, 5, 2, targets=targets)
    assert not np.may_share_memory(y, series) and np.may_share_memory(x, series)
    assert not y.flags.writeable


def test_windows_name_wrong_arguments() -> None:
    series = np.zeros((10, 3))
    assert [len(part) for part in windows(series, 8, 2)] == [1, 1]
    with pytest.raises(ValueError, match=r"series: expected 11 steps or more, 8 of .* 3 of .* 10"):
        windows(series, 8, 3)
    with pytest.raises(ValueError, match=r"series: expected 3 steps or more.* got 0"):
        windows([], 2)
    for shape in ((), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"series: expected \(time, features\) or \(time,\)"):
            windows(np.zeros(shape), 1)
    with pytest.raises(ValueError, match="input_steps: expected an integer from 1"):
        windows(series, 0)
    with pytest.raises(ValueError, match="target_steps: expected an integer from 1"):
        windows(series, 1, 0)
    with pytest.raises(ValueError, match="stride: expected an integer from 1"):
        windows(series, 1, stride=0)
    for columns in (3, -4, [0, 3]):
        with pytest.raises(ValueError, match="targets: expected columns from -3 to 2, got"):
            windows(series, 1, targets=columns)
    for wrong in ("a", [], [0.5], [[0]]):
        with pytest.raises(TypeError, match="targets: expected a column or a list of columns, got"):
            windows(series, 1, targets=wrong)  # type: ignore[arg-type]


def test_a_series_is_split_in_time() -> None:
    series = np.arange(20).reshape(10, 2)
    train, validation = split_in_time(series, 0.8)
    assert np.array_equal(train, series[:8]) and np.array_equal(validation, series[8:])
    assert np.shares_memory(train, series) and np.shares_memory(validation, series)
    assert len(split_in_time(np.zeros(100), 0.29)[0]) == 29  # 100 * 0.29 is a little less


def test_a_part_without_steps_is_refused() -> None:
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1, got"):
            split_in_time(np.zeros(10), fraction)
    with pytest.raises(ValueError, match=r"fraction: 0\.01 of 10 steps leaves one part empty"):
        split_in_time(np.zeros(10), 0.01)
    with pytest.raises(ValueError, match=r"series: expected \(time, ...\), got \(\)"):
        split_in_time(1.0, 0.5)
