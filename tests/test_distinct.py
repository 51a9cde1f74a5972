"""An Embedding before a recurrent layer: each of its rows is multiplied once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import config, set_num_threads
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential

LAYERS: dict[str, tuple[type, dict[str, Any]]] = {
    "rnn": (RNN, {}),
    "gru": (GRU, {}),
    "gru before": (GRU, {"reset_after": False}),
    "lstm": (LSTM, {}),
    "both ways": (LSTM, {"bidirectional": True}),
    "two layers": (GRU, {"num_layers": 2}),
    "projected": (LSTM, {"proj_size": 5}),
    "normalised": (LSTM, {"layer_norm": True}),
    "last": (GRU, {"return_sequences": False}),
}
LENGTHS = np.array([9, 0, 7, 3, 9, 1])


def model_of(name: str, dtype: str, rows: int = 11, hidden: int = 19) -> Sequential:
    cell, options = LAYERS[name]
    return Sequential(
        [Embedding(rows, 6, dtype=dtype, seed=1), cell(6, hidden, dtype=dtype, seed=2, **options)]
    )


def gradients(model: Sequential) -> dict[str, Any]:
    return {name: np.asarray(p.grad) for name, p in model.parameters().items()}


def one_by_one(model: Sequential, ids: Any, lengths: Any, dy: Any) -> tuple[Any, dict[str, Any]]:
    """Output and gradients of the layers, one after the other."""
    first, second = model.layers
    model.zero_grad()
    x, embedding_pullback = first.vjp(ids)
    (y, _), pullback = second.vjp(x, lengths=lengths)  # type: ignore[call-arg]
    embedding_pullback(pullback(dy(y))[0])
    return y, gradients(model)


def ones(y: Any) -> Any:
    return np.linspace(-1, 1, y.size, dtype=y.dtype).reshape(y.shape)


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_model_is_its_layers_one_after_the_other(
    isa: str, dtype: np.dtype, name: str, ragged: bool, rng: Any
) -> None:
    """Outputs to the bit; gradients as near as sums in another order are, and on any threads."""
    model = model_of(name, dtype.name)
    ids = rng.integers(0, 11, (6, 9))
    lengths = LENGTHS if ragged else None
    assert (model._distinct(ids) is None) == (config.gemm() == "numpy")
    wanted, wanted_gradients = one_by_one(model, ids, lengths, ones)
    found = []
    for threads in (1, 3):
        set_num_threads(threads)
        model.zero_grad()
        (y, state), pullback = model.vjp(ids, lengths=lengths)
        assert pullback(ones(y)) is None
        assert y.tobytes() == wanted.tobytes()
        again, state_again = model.run(ids, lengths=lengths)
        assert again.tobytes() == wanted.tobytes()
        assert np.asarray(state[1][0]).tobytes() == np.asarray(state_again[1][0]).tobytes()
        found.append(gradients(model))
    for key, want in wanted_gradients.items():
        assert found[0][key].tobytes() == found[1][key].tobytes(), key
        limit = 200 * np.finfo(dtype).eps * (1 + np.abs(want).max())
        assert np.abs(found[0][key] - want).max() <= limit, key


def test_ids_may_be_few_of_many_rows(rng: Any) -> None:
    model = model_of("lstm", "float64", rows=1000)
    ids = np.array([900, 3, 77])[rng.integers(0, 3, (4, 5))]
    assert model.layers[0].distinct(ids).table.shape == (3, 6)  # type: ignore[attr-defined]
    wanted, wanted_gradients = one_by_one(model, ids, None, ones)
    model.zero_grad()
    (y, _), pullback = model.vjp(ids)
    pullback(ones(y))
    assert y.tobytes() == wanted.tobytes()
    for key, found in gradients(model).items():
        np.testing.assert_allclose(found, wanted_gradients[key], rtol=1e-12, atol=1e-13)


def test_rows_that_come_once_or_go_to_numpy_are_taken_one_by_one(rng: Any) -> None:
    first = Embedding(50, 6, seed=1)
    assert first.distinct(np.arange(12).reshape(3, 4)) is None
    assert first.distinct(np.zeros((3, 4), int)) is not None
    assert Embedding(1000, 6, seed=1).distinct(np.zeros((3, 4), int)) is None
    model, ids = model_of("gru", "float32"), rng.integers(0, 11, (5, 20))
    with config.using(gemm="numpy"):
        wanted, _ = one_by_one(model, ids, None, ones)
        assert model.run(ids)[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("bad", [11, -1])
def test_an_id_out_of_range_is_named(bad: int, rng: Any) -> None:
    ids = rng.integers(0, 11, (5, 20))
    ids[2, 3] = bad
    with pytest.raises(ValueError, match=f"expected ids from 0 to 10, got {bad}"):
        model_of("rnn", "float32").vjp(ids)


def test_lengths_are_checked_and_weights_may_change_before_the_pullback(rng: Any) -> None:
    model, ids = model_of("lstm", "float64"), rng.integers(0, 11, (6, 9))
    with pytest.raises(ValueError, match="lengths: expected 0 to 9, got 10 for row 1"):
        model.vjp(ids, lengths=[1, 10, 2, 3, 4, 5])
    _, wanted = one_by_one(model, ids, None, ones)
    model.zero_grad()
    (y, _), pullback = model.vjp(ids)
    for parameter in model.parameters().values():
        parameter.assign(parameter.data * 0)
    pullback(ones(y))
    for key, found in gradients(model).items():
        np.testing.assert_allclose(found, wanted[key], rtol=1e-12, atol=1e-13)


def test_time_may_come_first(rng: Any) -> None:
    def layers() -> list[Layer]:
        return [Embedding(11, 6, seed=1), GRU(6, 8, batch_first=False, seed=2)]

    ids = rng.integers(0, 11, (9, 6))
    first, second = layers()
    want = second(first(ids), lengths=LENGTHS)[0]  # type: ignore[call-arg]
    rows = first.distinct(ids)  # type: ignore[attr-defined]
    (got, _), _ = second.of_distinct(rows, None, LENGTHS, training=False)  # type: ignore[attr-defined]
    assert got.tobytes() == want.tobytes()
