"""RNN, GRU and LSTM beside PyTorch's own modules, padded and packed, over random configurations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import config

pytestmark = pytest.mark.torch

KINDS = ["RNN", "GRU", "LSTM"]
BOUND = {"float32": 2e-5, "float64": 1e-11}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("gemm", config.GEMMS)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients(kind: str, seed: int, gemm: str, dtype: np.dtype) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    inputs, hidden = rng.integers(1, 60, 2).tolist()
    batch, time, layers = rng.integers(1, 30), rng.integers(1, 12), int(rng.integers(1, 4))
    options: dict[str, Any] = {
        "bidirectional": bool(rng.integers(2)),
        "bias": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
    }
    if kind == "LSTM" and hidden > 1 and rng.integers(2):
        options["proj_size"] = int(rng.integers(1, hidden))
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, kind)(inputs, hidden, layers, **options)
    theirs = theirs.to(getattr(torch, dtype.name))
    ours = getattr(fr, kind)(inputs, hidden, layers, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())

    shape = (batch, time, inputs) if options["batch_first"] else (time, batch, inputs)
    x = rng.standard_normal(shape).astype(dtype)
    state = tuple(rng.standard_normal(s).astype(dtype) for s in ours.state_shapes(batch))
    lengths = rng.integers(1, time + 1, batch) if seed % 2 else None

    x_ = torch.tensor(x, requires_grad=True)
    state_ = tuple(torch.tensor(s, requires_grad=True) for s in state)
    first = options["batch_first"]
    given: Any = x_
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x_, torch.tensor(lengths), batch_first=first, enforce_sorted=False
        )
    y_, final_ = theirs(given, state_ if kind == "LSTM" else state_[0])
    if lengths is not None:
        y_, _ = torch.nn.utils.rnn.pad_packed_sequence(y_, batch_first=first, total_length=time)

    with config.using(gemm=gemm):
        (y, final), pullback = ours.vjp(x, state if kind == "LSTM" else state[0], lengths)
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx, dstate = pullback(dy, final)

    finals_ = final_ if kind == "LSTM" else (final_,)
    total = (y_ * torch.tensor(dy)).sum() + sum((f * f.detach()).sum() for f in finals_)
    total.backward()

    def close(got: Any, want: Any) -> None:
        want = want.detach().numpy()
        assert np.abs(got - want).max() <= BOUND[dtype.name] * (1 + np.abs(want).max())

    close(y, y_)
    close(dx, x_.grad)
    for got, want in zip(final if kind == "LSTM" else (final,), finals_, strict=True):
        close(got, want)
    for got, want in zip(dstate if kind == "LSTM" else (dstate,), state_, strict=False):
        close(got, want.grad)
    for name, parameter in theirs.named_parameters():
        close(ours.parameters()[name].grad, parameter.grad)
