"""EncoderDecoder: files, runs that go on, descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import SOURCES, TARGETS, compiled, each_kind, model, same
from stopping import Stopped, stopping

import fastrnn as fr
from fastrnn.callbacks import LambdaCallback
from fastrnn.encoder_decoder import EncoderDecoder
from fastrnn.layers.cells import CELLS


@pytest.mark.parametrize("cell", CELLS)
def test_a_run_goes_on_with_the_same_bits(tmp_path: Path, cell: str) -> None:
    def run(path: Path, stop_at: int | None = None) -> Any:
        made = compiled(cell=cell, dropout=0.3, seed=None)
        made.set_random_state(model(cell, dropout=0.3, seed=7).random_state())
        history = made.fit(
            SOURCES, TARGETS, epochs=3, batch_size=2, seed=5, checkpoint=path, verbose=0,
            checkpoint_every=1, callbacks=[LambdaCallback(on_train_batch_end=stopping(stop_at))],
            validation_data=(SOURCES, TARGETS),
        )  # fmt: skip
        return made.state_dict(), history.history

    weights, history = run(tmp_path / "whole")
    for stop_at in range(1, 7):
        path = tmp_path / str(stop_at)
        with pytest.raises(Stopped):
            run(path, stop_at)
        again, history_again = run(path)
        assert same(again, weights) and history_again == history
    assert isinstance(fr.load(tmp_path / "whole"), EncoderDecoder)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@each_kind
def test_a_file_brings_the_model_back(
    tmp_path: Path, cell: str, attention: bool, dtype: str
) -> None:
    made = model(cell, attention, dtype=dtype, dropout=0.2)
    made.save(tmp_path / "m")
    found = fr.load(tmp_path / "m")
    assert isinstance(found, EncoderDecoder)
    assert found.config() == made.config() and same(found.state_dict(), made.state_dict())
    assert np.array_equal(found(SOURCES, TARGETS), made(SOURCES, TARGETS))


def test_another_dtype() -> None:
    made = model()
    wanted = made(SOURCES, TARGETS)
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 0.05)):
        other = made.to(dtype)
        logits = other(SOURCES, TARGETS)
        assert logits.dtype == np.float32
        difference = np.abs(logits - wanted).max()
        assert 0 < difference < bound
    with pytest.raises(ValueError, match="bfloat16 is for inference"):
        other.vjp(other.pairs(SOURCES, TARGETS))


def test_files_that_describe_no_such_model(tmp_path: Path) -> None:
    made = model()
    for change, reason in (
        ({"cell": "lru"}, "cell: expected one of lstm, gru, rnn, got 'lru'"),
        ({"colour": 3}, "unexpected keyword argument 'colour'"),
        ({"kind": "Encoder"}, "a model of kind 'Encoder' is not known"),
        ({"kind": []}, r"m: "),
        ({"hidden_size": 6}, "expected shape"),
        ({"dtype": "float32"}, "source.weight: expected float32, got float64"),
    ):
        description = {**made.description(), **change}
        made.description = lambda description=description: description  # type: ignore[method-assign, misc]
        made.save(tmp_path / "m")
        del made.description
        with pytest.raises(ValueError, match=reason):
            fr.load(tmp_path / "m")


def test_seeds_decide_what_weights_start_from() -> None:
    def weights(seed: int) -> dict[str, Any]:
        return EncoderDecoder(5, 6, attention=True, seed=seed).state_dict()

    assert same(weights(1), weights(1)) and not same(weights(1), weights(2))
    one = weights(1)
    assert not np.array_equal(one["encoder.weight_hh_l0"], one["decoder.weight_hh_l0"])
    assert one["target.weight"].shape == (7, 64) and one["output.weight"].shape == (7, 128)


def test_summary_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    EncoderDecoder(
        1000, 800, embedding_dim=32, num_layers=2, cell="gru", attention=True, dropout=0.1
    ).summary()
    assert capsys.readouterr().out.splitlines() == [
        "EncoderDecoder",
        "-----------------------------------------------------------",
        "layer                     output shape           parameters",
        "-----------------------------------------------------------",
        "source     Embedding      (None, None, 32)           32,000",
        "encoder    GRU            (None, None, 128)         161,280",
        "target     Embedding      (None, None, 32)           25,632",
        "decoder    GRU            (None, None, 128)         161,280",
        "attention  DotAttention   (None, None, 128)          32,768",
        "dropout    Dropout        (None, None, 128)               0",
        "output     Dense          (None, None, 801)         103,329",
        "-----------------------------------------------------------",
        "516,289 parameters, 2,065,156 bytes",
        "514,753 without the 1,536 of the second bias vectors",
    ]
