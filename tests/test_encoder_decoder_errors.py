"""What EncoderDecoder refuses, and how it says so."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pairs import SOURCES, TARGETS, compiled, model, same

from fastrnn.encoder_decoder import EncoderDecoder


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"source_size": 0}, ValueError, "source_size: expected an integer from 1"),
        ({"target_size": 2.5}, TypeError, "target_size: expected a positive integer, got 2.5"),
        ({"target_size": 2**30}, ValueError, "target_size: expected arrays of at most"),
        ({"embedding_dim": -1}, ValueError, "embedding_dim: expected"),
        ({"hidden_size": True}, ValueError, "hidden_size: expected"),
        ({"num_layers": 0}, ValueError, "num_layers: expected"),
        ({"cell": "LSTM"}, ValueError, "cell: expected one of lstm, gru, rnn, got 'LSTM'"),
        ({"attention": 1}, TypeError, "attention: expected True or False, got 1"),
        ({"dropout": 1.0}, ValueError, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"dtype": "int8"}, ValueError, "dtype: expected float32 or float64, got int8"),
        ({"seed": -1}, ValueError, "seed: expected None or an integer from 0, got -1"),
    ],
)
def test_what_the_constructor_refuses(options: Any, error: Any, reason: str) -> None:
    with pytest.raises(error, match=reason):
        EncoderDecoder(**{"source_size": 3, "target_size": 3, **options})


@pytest.mark.parametrize(
    ("x", "y", "lengths", "error", "reason"),
    [
        ([], [], None, ValueError, "x: expected at least one sequence, got none"),
        (SOURCES, [], None, ValueError, "y: expected at least one sequence, got none"),
        (SOURCES, TARGETS[:3], None, ValueError, "y: expected 4 sequences as x has, got 3"),
        ([[1], []], [[1], [1]], None, ValueError, r"x\[1\]: expected at least 1 id, got 0"),
        ([[1], [6]], [[1], [1]], None, ValueError, r"x\[1\]: expected ids from 0 to 5, got 6"),
        ([[-1, 1]], [[1]], None, ValueError, r"x\[0\]: expected ids from 0 to 5, got -1"),
        ([[1]], [[1, 3]], None, ValueError, r"y\[0\]: expected ids from 0 to 2, got 3"),
        ([[1.0]], [[1]], None, TypeError, r"x\[0\]: expected integer ids, got float64"),
        ([[1]], [[True]], None, TypeError, r"y\[0\]: expected integer ids, got bool"),
        ([1, 2], [[1], [1]], None, ValueError, r"x\[0\]: expected a vector of ids, got shape \(\)"),
        (5, [[1]], None, TypeError, "x: expected a list of vectors of ids, got int"),
        (np.zeros(3, int), TARGETS, None, ValueError, r"x: expected a list .* got \(3,\)"),
        (np.zeros((0, 3), int), TARGETS, None, ValueError, "x: expected at least one sequence"),
        (SOURCES, TARGETS, [1, 1, 1, 1], ValueError, "lengths: expected where x is an array alone"),
        (np.ones((2, 3), int), [[1], [1]], [4, 1], ValueError, "lengths: expected .* 0 to 3, got"),
        (np.ones((2, 3), int), [[1], [1]], [1, 0], ValueError, r"x\[1\]: expected at least 1 id"),
        (np.ones((3, 3), int), [[1]] * 3, (1, 2, 3), ValueError, "got a tuple of 3"),
    ],
)
def test_sequences_that_do_not_fit_are_named(
    x: Any, y: Any, lengths: Any, error: Any, reason: str
) -> None:
    made = compiled()
    before = made.state_dict()
    for call in (made.fit, made.evaluate):
        with pytest.raises(error, match=reason):
            call(x, y, lengths=lengths)
    assert same(made.state_dict(), before)
    named = re.sub(r"\by\b", "targets", re.sub(r"\bx\b", "sources", reason))
    with pytest.raises(error, match=named):
        made.pairs(x, y, lengths)


def test_what_fit_refuses() -> None:
    with pytest.raises(RuntimeError, match="call compile first"):
        model().fit(SOURCES, TARGETS)
    made = compiled()
    with pytest.raises(ValueError, match="tbptt: expected None"):
        made.fit(SOURCES, TARGETS, tbptt=5)
    with pytest.raises(ValueError, match=r"sample_weight: expected \(4,\), got \(4, 7\)"):
        made.fit(SOURCES, TARGETS, sample_weight=np.ones((4, 7)))
    with pytest.raises(ValueError, match=r"y\[0\]: expected ids from 0 to 2, got 3"):
        made.fit(SOURCES, TARGETS, validation_data=([[1]], [[3]]))
    with pytest.raises(TypeError, match="epoch"):
        made.fit(SOURCES, TARGETS, epoch=3)
    with pytest.raises(TypeError, match=r"call decode\(sources, max_steps\)"):
        made.predict(SOURCES)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"sources": []}, ValueError, "sources: expected at least one sequence, got none"),
        ({"sources": [[1], []]}, ValueError, r"sources\[1\]: expected at least 1 id, got 0"),
        ({"sources": [[6]]}, ValueError, r"sources\[0\]: expected ids from 0 to 5, got 6"),
        ({"max_steps": 0}, ValueError, "max_steps: expected an integer from 1"),
        ({"max_steps": 2.0}, TypeError, "max_steps: expected a positive integer"),
        ({"beam_size": 0}, ValueError, "beam_size: expected an integer from 1"),
        ({"beam_size": -3}, ValueError, "beam_size: expected an integer from 1"),
        ({"length_penalty": -0.5}, ValueError, "length_penalty: expected a number from 0 to 30"),
        ({"length_penalty": 1e9}, ValueError, "length_penalty: expected a number from 0 to 30"),
        ({"length_penalty": float("nan")}, ValueError, "length_penalty: expected a number from 0"),
        ({"length_penalty": "1"}, TypeError, "length_penalty: expected a number from 0 to 30"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer from 1"),
    ],
)
def test_what_decode_refuses(options: Any, error: Any, reason: str) -> None:
    with pytest.raises(error, match=reason):
        model().decode(**{"sources": SOURCES, "max_steps": 3, **options})
