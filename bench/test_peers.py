"""What bench.peers rests on: the least time by hand, comparing results, stopped processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench.limit import Level, Machine, limit
from bench.problem import Mismatch, check
from bench.shapes import GROUPS, ROWS, Model, Row, row_named, select, select_from_groups
from bench.systems import reference
from bench.turns import Player


def machine(threads: int) -> Machine:
    """1 GFLOP/s and, below, half the bandwidth of the level above."""
    return Machine(
        threads,
        {"float32": 1e9, "float64": 5e8},
        [Level("L1", 1000, 1, 8e9), Level("L2", 100_000, 1, 4e9), Level("memory", None, 1, 2e9)],
    )


def test_many_rows_wait_for_flops() -> None:
    row = Row("gru", 10, 5, 8, 16)
    flops = 2 * 10 * 5 * 3 * 16 * (8 + 16)
    assert limit(row, "forward", machine(1)).seconds == pytest.approx(flops / 1e9)
    found = limit(row, "training", machine(1))
    assert found.term == "FLOPs"
    assert found.seconds == pytest.approx(3 * flops / 1e9)
    half = Row("gru", 10, 5, 8, 16, dtype="float64")
    assert limit(half, "forward", machine(1)).seconds == pytest.approx(flops / 5e8)


def test_one_row_waits_for_the_weights() -> None:
    slow = Machine(1, {"float32": 1e12}, machine(1).levels)
    row = Row("lstm", 1, 7, 10, 64)
    weights, input_flops, loop_flops = 4 * 4 * 64 * 64, 2 * 7 * 4 * 64 * 10, 2 * 7 * 4 * 64 * 64
    found = limit(row, "forward", slow)
    assert found.term == "L2"
    assert found.seconds == pytest.approx(input_flops / 1e12 + 7 * weights / 4e9)
    twice = 2 * 7 * weights / 4e9 + (3 * input_flops + loop_flops) / 1e12
    assert limit(row, "training", slow).seconds == pytest.approx(twice)


def test_threads_hold_a_share_each() -> None:
    assert machine(1).level(140_000).name == "memory"
    assert machine(2).level(140_000).name == "L2"
    shared = Machine(2, {}, [Level("L3", 100_000, 2, 1.0), Level("memory", None, 2, 1.0)])
    assert shared.level(140_000).name == "memory"


def test_a_single_step_reads_the_inputs_weights_too() -> None:
    fast = Machine(1, {"float32": 1e15}, machine(1).levels)
    row = Row("rnn", 1, 1, 200, 100, kinds=("step",))
    assert limit(row, "step", fast).seconds == pytest.approx(4 * 100 * 300 / 2e9)


def test_a_ragged_row_counts_only_what_runs() -> None:
    row = Row("rnn", 10, 20, 8, 16, ragged=True)
    flops = 2 * int(row.lengths().sum()) * 16 * 24
    assert 0 < row.flops("forward") == flops < Row("rnn", 10, 20, 8, 16).flops("forward")
    assert limit(row, "forward", machine(1)).seconds == pytest.approx(flops / 1e9)


def test_a_model_is_its_layers() -> None:
    model = Model("lstm", 2, 128, 50, 50)
    layers = [Row("lstm", 50, 50, 64, 128), Row("lstm", 50, 50, 128, 128)]
    dense = 3 * 2 * 2500 * 128 * 65
    repeated = 3 * 2 * (2500 - 65) * 4 * 128 * 64  # of an embedding of 65 characters
    flops = sum(layer.flops("training") for layer in layers) + dense - repeated
    assert model.flops("update") == flops
    assert limit(model, "update", machine(1)).seconds == pytest.approx(flops / 1e9)


def test_the_peak_of_a_row_replaces_that_of_the_start() -> None:
    row, faster = Row("rnn", 10, 5, 8, 16), machine(1).with_peak("float32", 4e9)
    assert faster.flops == {"float32": 4e9, "float64": 5e8}
    found, slower = limit(row, "forward", faster), limit(row, "forward", machine(1))
    assert (found.peak, slower.peak) == (4e9, 1e9)
    assert found.seconds < slower.seconds


def test_a_mismatch_is_named() -> None:
    row, wanted = Row("rnn", 1, 1, 2, 2), {"dx": np.array([1.0, -2.0])}
    check("them", row, "training", {"dx": np.array([1.0, -2.0001])}, wanted)
    wrong = ({"dx": np.array([1.0, -2.1])}, {"dx": np.array([np.nan, -2.0])}, {"dx": np.ones(3)})
    for got in (*wrong, {}):
        with pytest.raises(Mismatch, match="them, rnn-1-1-2-2, training: dx is"):
            check("them", row, "training", got, wanted)


def test_names_of_rows_are_read_back() -> None:
    rows = [row for group in GROUPS.values() for row in group if isinstance(row, Row)]
    assert [row_named(row.name) for row in rows] == rows
    special = Row("gru", 3, 4, 5, 6, dtype="float64", directions=2, ragged=True)
    assert row_named(special.name) == special
    wrong = (
        "lstm-*",
        "lstm-1-2-3",
        "lstm-0-2-3-4",
        "cnn-1-2-3-4",
        "gru-1-2-3-4-both-both",
        "gru-1-2-3-4-step",
    )
    assert not any(map(row_named, wrong))


def test_rows_of_other_sizes_are_taken() -> None:
    ours = "lstm-8-50-40-100"
    assert select([ours, "rnn-1-1-64-64"], ROWS) == [ROWS[0], Row("lstm", 8, 50, 40, 100)]
    assert select([], ROWS) == list(ROWS)
    chosen = select_from_groups([ours, f"{ours}-ragged"], ["table"])
    assert {group: [row.name for row in rows] for group, rows in chosen.items()} == {
        "shapes": [ours],
        "ragged": [f"{ours}-ragged"],
    }
    with pytest.raises(ValueError, match="no row is named 'lstm-8'"):
        select([ours, "lstm-8"], ROWS)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_system_stands_still_between_its_turns() -> None:
    row = Row("gru", 3, 4, 5, 6, ragged=True)
    player = Player("fastrnn", 1, {})
    try:
        full = Row("gru", 3, 4, 5, 6)
        player.prepare(row, 0.001)
        prepared = player.prepare(full, 0.001)
        for kind, passes in reference.passes(full).items():
            check("fastrnn", full, kind, prepared.results[kind], passes.results())
        assert player.turn(0.001).keys() - {"peak"} == {"forward", "training"}
        pid = player._pid
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    finally:
        player.close()
