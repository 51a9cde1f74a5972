"""The character model: what it learns, how it samples, that its file is its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastrnn.charmodel import BITS, LOSS, CharModel
from fastrnn.data import Stream, Vocabulary
from fastrnn.encoder_decoder import EncoderDecoder
from fastrnn.layers.cells import CELLS, LSTM
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential
from fastrnn.optimizers import Adam

TEXT = "abcabd" * 200  # what follows "ab" depends on what came three characters before


def trained(cell: str = "lstm", passes: int = 6) -> tuple[CharModel, list[float]]:
    vocabulary = Vocabulary.of(TEXT)
    char = CharModel.new(vocabulary, cell=cell, hidden=16, embedding=4, seed=0)
    optimizer = Adam(0.02, global_clipnorm=5.0)
    stream = Stream(vocabulary.encode(TEXT), batch=4, time=12)
    return char, [loss for _ in range(passes) for loss in char.train(stream, optimizer)]


@pytest.mark.parametrize("cell", list(CELLS))
def test_it_learns_and_writes_what_it_has_learnt(cell: str) -> None:
    char, losses = trained(cell, passes=12)
    assert losses[0] == pytest.approx(np.log(4), rel=0.1)
    assert losses[-1] < 0.05
    assert "".join(char.sample("abcab", 13, temperature=0.0)) == "dabcabdabcabd"
    assert char.evaluate(char.vocabulary.encode(TEXT)) < 0.1


def test_evaluate_is_the_mean_loss_with_the_state_carried() -> None:
    char, _ = trained(passes=1)
    ids = char.vocabulary.encode(TEXT[:100])
    logits = char.model(ids[None, :-1])
    assert char.evaluate(ids, batch=1, time=7) == pytest.approx(LOSS(ids[None, 1:], logits), 1e-5)
    logits = char.model(ids[None, :1])
    assert char.evaluate(ids[:2]) == pytest.approx(LOSS(ids[None, 1:2], logits), 1e-5)
    assert pytest.approx(np.log2(np.e)) == BITS


def test_samples_follow_the_seed_and_the_temperature() -> None:
    char, _ = trained(passes=1)

    def sample(temperature: float, seed: int | None = None) -> str:
        return "".join(char.sample("a", 60, temperature=temperature, seed=seed))

    assert len(sample(1.0)) == 60
    assert sample(1.0, seed=1) == sample(1.0, seed=1) != sample(1.0, seed=2)
    assert sample(0.0, seed=1) == sample(0.0, seed=2) == sample(1e-300, seed=3)
    assert set(sample(1e9, seed=1)) == set("abcd")  # all alike


def test_samples_are_drawn_with_the_probabilities_of_the_model() -> None:
    char = CharModel.new(Vocabulary("abc"), hidden=2, embedding=2, seed=0)
    char.model.load_state_dict({n: np.zeros(p.shape) for n, p in char.model.parameters().items()})
    char.model.parameters()["2.dense.bias"].assign(np.log([0.5, 0.3, 0.2]))
    for temperature in (1.0, 0.5):
        p = np.array([0.5, 0.3, 0.2]) ** (1 / temperature)
        text = "".join(char.sample("a", 4000, temperature=temperature, seed=0))
        found = [text.count(character) / 4000 for character in "abc"]
        np.testing.assert_allclose(found, p / p.sum(), atol=0.03)


def test_a_bad_prompt_or_temperature_is_named_before_anything_is_drawn() -> None:
    char = CharModel.new(Vocabulary("ab"), hidden=2, embedding=2)
    with pytest.raises(ValueError, match=r"character 'z' \(U\+007A, at 1\)"):
        char.sample("az", 3)
    with pytest.raises(ValueError, match="prompt: expected at least one character"):
        char.sample("", 3)
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature: expected a number from 0 up"):
            char.sample("a", 3, temperature=temperature)


def test_training_stops_when_it_diverges() -> None:
    char = CharModel.new(Vocabulary("ab"), hidden=2, embedding=2)
    parameter = char.model.parameters()["2.dense.bias"]
    parameter.assign(np.full(parameter.shape, np.nan))
    ids = np.zeros(30, int)
    with pytest.raises(FloatingPointError, match=r"diverged, the loss is nan.*learning rate"):
        next(char.train(Stream(ids, 2, 4), Adam()))


def test_dropout_follows_every_recurrent_layer() -> None:
    layers = CharModel.new(Vocabulary("ab"), layers=2, dropout=0.25).model.layers
    assert isinstance(layers[1], LSTM) and layers[1].dropout == 0.25
    assert isinstance(layers[2], Dropout) and layers[2].p == 0.25
    layers = CharModel.new(Vocabulary("ab"), layers=1, dropout=0.25).model.layers
    assert isinstance(layers[1], LSTM) and layers[1].dropout == 0.0
    assert isinstance(layers[2], Dropout)
    assert len(CharModel.new(Vocabulary("ab")).model.layers) == 3


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        state = CharModel.new(Vocabulary("ab"), seed=seed).model.state_dict()
        return np.concatenate([value.ravel() for value in state.values()])

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_a_file_brings_the_vocabulary_along(tmp_path: Path) -> None:
    char, _ = trained(passes=1)
    char.save(tmp_path / "m")
    found = CharModel.load(tmp_path / "m")
    assert found.vocabulary == char.vocabulary
    assert list(found.sample("ab", 20, seed=3)) == list(char.sample("ab", 20, seed=3))


def test_a_file_says_whether_the_vocabulary_has_an_entry_for_what_it_lacks(tmp_path: Path) -> None:
    char = CharModel.new(Vocabulary.of("ab", oov=True), hidden=2, embedding=2, seed=0)
    char.save(tmp_path / "m")
    found = CharModel.load(tmp_path / "m")
    assert found.vocabulary == char.vocabulary
    text = "".join(found.sample("a?", 100, temperature=1e9, seed=0))
    assert set(text) == set("ab\ufffd")


def test_a_model_of_another_purpose_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    model = CharModel.new(Vocabulary("ab")).model
    for extra in ({}, {"vocabulary": 5}, {"vocabulary": "ba"}):
        model.save(path, extra=extra)
        with pytest.raises(ValueError, match="m: not a character model, it has no vocabulary"):
            CharModel.load(path)
    no_sequence = Sequential([Embedding(3, 2), LSTM(2, 3, return_sequences=False)])
    for other in (model, no_sequence, Sequential([LSTM(3, 3)]), Sequential([Embedding(3, 2)])):
        other.save(path, extra={"vocabulary": "abc"})
        with pytest.raises(ValueError, match="m: not a model of its vocabulary's 3 characters"):
            CharModel.load(path)
    EncoderDecoder(3, 3).save(path, extra={"vocabulary": "abc"})
    with pytest.raises(ValueError, match="m: not a character model, but EncoderDecoder"):
        CharModel.load(path)
