"""`checkpoint_every`: the same bits as without, less memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_kernels import PLAIN, Case, assert_same_bits, by_kernels, make_case
from variants import NAMED, Config

import fastrnn as fr
from fastrnn import _core, config

EVERY: dict[str, Config] = {**{c.cell: c for c in PLAIN}, **NAMED}
EVERY = {name: c for name, c in EVERY.items() if c.variant.training}


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_have_the_same_bits(dtype: np.dtype, name: str, ragged: bool, rng: Any) -> None:
    for size, reverse, threads in (((3, 400, 4, 17), False, 1), ((37, 33, 5, 40), True, 2)):
        fr.set_num_threads(threads)
        case: Case = make_case(rng, EVERY[name], dtype, size, ragged, reverse)
        whole = by_kernels(case)
        for every in (1, 7, 16, 150, 1000):
            assert_same_bits(by_kernels(case, checkpoint_every=every), whole)


@pytest.mark.usefixtures("restore_threads")
def test_units_shared_among_threads(rng: Any) -> None:
    """One long row: threads own units and meet after every step."""
    for name in ("lstm", "gru_before", "lstm layer norm", "lstm projection"):
        case = make_case(rng, EVERY[name], np.dtype("float32"), (1, 1300, 9, 130))
        fr.set_num_threads(1)
        whole = by_kernels(case)
        fr.set_num_threads(2)
        assert_same_bits(by_kernels(case, checkpoint_every=20), whole)


def test_batches_of_more_rows_than_a_sum_takes_at_a_time(rng: Any) -> None:
    case = make_case(rng, Config("gru"), np.dtype("float32"), (1100, 7, 3, 5), ragged=True)
    assert_same_bits(by_kernels(case, checkpoint_every=2), by_kernels(case))


def test_rows_without_steps(rng: Any) -> None:
    case = make_case(rng, Config("lstm"), np.dtype("float32"), (3, 9, 4, 5))
    for lengths in ([0, 0, 0], [0, 9, 0]):
        case = replace(case, lengths=np.array(lengths))
        assert_same_bits(by_kernels(case, checkpoint_every=2), by_kernels(case))


@pytest.mark.parametrize("gemm", config.GEMMS)
def test_layers(gemm: str, rng: Any) -> None:
    x = rng.standard_normal((5, 300, 6)).astype("float32")
    runs = []
    for every in (None, 10):
        layer = fr.LSTM(6, 20, 2, bidirectional=True, dropout=0.2, zoneout_c=0.1, seed=1)
        with config.using(gemm=gemm):
            (y, (h_n, c_n)), pullback = layer.vjp(x, checkpoint_every=every)
            dx, (dh_0, dc_0) = pullback(y, (h_n, c_n))
        runs.append([y, h_n, c_n, dx, dh_0, dc_0, *(p.grad for p in layer.parameters().values())])
    for a, b in zip(*runs, strict=True):
        if gemm == "native":
            assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_is_kept_shrinks(rng: Any) -> None:
    layer = fr.LSTM(8, 32, seed=1)
    x = rng.standard_normal((4, 10_000, 8)).astype("float32")
    h_n, c_n = np.empty((2, 1, 4, 32), "float32")
    sizes = {}
    for every in (0, 2000, 200):
        tape = _core.forward(
            layer.packs(0, True), 0, 1, x, None, False, True, None, None, None, h_n, c_n, True, 0,
            every,
        )  # fmt: skip
        assert tape is not None
        sizes[every] = tape.nbytes
    assert sizes[0] > x.shape[0] * x.shape[1] * 6 * 32 * 4
    assert sizes[2000] < sizes[0] / 4.5
    assert sizes[200] < sizes[0] / 35


def test_errors() -> None:
    layer, x = fr.RNN(2, 3), np.zeros((1, 4, 2), "float32")
    with pytest.raises(ValueError, match="checkpoint_every: expected an integer from 1"):
        layer.vjp(x, checkpoint_every=0)
    with pytest.raises(TypeError, match=r"checkpoint_every: expected a positive integer, got 2\.5"):
        layer.vjp(x, checkpoint_every=2.5)  # type: ignore[arg-type]
