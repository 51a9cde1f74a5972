"""Parameter: snapshots that later writes leave alone, and the layers that live on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import _core
from fastrnn.parameter import Parameter, writing_all


def test_a_snapshot_keeps_its_values() -> None:
    parameter = Parameter([1.0, 2.0])
    before = parameter.snapshot()
    assert parameter.snapshot() is before and np.shares_memory(before, parameter.data)
    assert not before.flags.writeable
    with parameter.writing() as data:
        data[0] = 5
    np.testing.assert_array_equal(before, [1, 2])
    np.testing.assert_array_equal(parameter.data, [5, 2])
    between = parameter.snapshot()
    parameter.assign([7, 8])
    np.testing.assert_array_equal(before, [1, 2])
    np.testing.assert_array_equal(between, [5, 2])
    np.testing.assert_array_equal(parameter.data, [7, 8])


def test_who_reads_while_another_assigns_has_all_of_the_old_values() -> None:
    parameter = Parameter([1.0, 2.0])
    before, version = parameter.data, parameter.version
    parameter.assign([7, 8])
    np.testing.assert_array_equal(before, [1, 2])
    np.testing.assert_array_equal(parameter.data, [7, 8])
    assert parameter.version == version + 1


def test_writing_copies_only_while_a_snapshot_lives() -> None:
    parameter = Parameter(np.zeros(3))
    data = parameter.data
    view = parameter.snapshot()[:1]  # does not count
    with writing_all([parameter]) as (array,):
        array += 1
    assert np.shares_memory(data, parameter.data)
    np.testing.assert_array_equal(data, np.ones(3))
    assert view[0] == 1
    snapshot = parameter.snapshot()
    with writing_all([parameter]) as (array,):
        array += 1
    assert not np.shares_memory(data, parameter.data)
    np.testing.assert_array_equal(snapshot, np.ones(3))


@pytest.mark.parametrize(
    "layer",
    [fr.RNN(3, 5), fr.GRU(16, 32, bidirectional=True), fr.LSTM(4, 17, 2), fr.LSTM(300, 420)],
)
@pytest.mark.parametrize(
    "rows", [(1, 1), (2, 3), (2, 5), (40, 3), (50, 3), (1, 16), (4, 16), (1, 17)]
)
def test_a_pullback_has_the_weights_of_its_call(
    layer: Any, rows: tuple[int, int], isa: str, rng: Any
) -> None:
    """Few rows have new weights as they stand, and packed the next time: the same bits."""
    x = rng.standard_normal((*rows, layer.input_size)).astype(np.float32)

    def way_back(new: bool, write: bool = False) -> list[Any]:
        layer.zero_grad()
        parameters = layer.parameters().values()
        for parameter in parameters if new else ():
            parameter.assign(parameter.data)
        (y, _), pullback = layer.vjp(x)
        values = [parameter.data.copy() for parameter in parameters]
        for parameter in parameters if write else ():
            parameter.assign(parameter.data * 3)
        dx, _ = pullback(np.ones_like(y))
        for parameter, value in zip(parameters, values if write else (), strict=False):
            parameter.assign(value)
        return [y, dx, *(parameter.grad for parameter in parameters)]

    want = way_back(new=True)
    found = [way_back(new=False), way_back(new=True, write=True)]
    for k in range(layer.num_layers):
        layer.packs(k, True)
    found.append(way_back(new=False))
    for arrays in found:
        for a, b in zip(arrays, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_runs_a_layer_refuses_what_it_cannot_run() -> None:
    layer = fr.LSTM(3, 5)
    with pytest.raises(IndexError, match="layer: expected 0 to 0, got 1"):
        layer.packs(1, False)
    core = _core.Layer("rnn_tanh", 3, 5, False)
    for weights in ([], [()], [((),)], [((None,) * 9,) * 3], [((1.0,) * 9,)]):
        with pytest.raises((TypeError, ValueError), match="weights: expected"):
            _core.Recurrence([core], weights, False, False, None)
    with pytest.raises(TypeError, match="Pullback: expected to be made by a call"):
        _core.Pullback()
