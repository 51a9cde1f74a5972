"""The examples of the five shapes, and of remedies for vanishing gradients, do what they claim."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG = b"\x89PNG\r\n"

Figures = dict[str, Any]


def next_exercise(found: Figures) -> None:
    accuracy = {name: row["accuracy"] for name, row in found.items()}
    assert min(accuracy["LSTM"], accuracy["GRU"]) > 0.9
    assert accuracy["ReLU identity, RMSprop"] > 0.6
    tanh = [name for name in found if name.startswith("tanh")]
    assert len(tanh) == 3 and max(accuracy[name] for name in tanh) < 0.5
    oldest = {name: row["before"][-1] for name, row in found.items()}
    assert oldest["tanh RNN, SGD"] < 0.1 * oldest["LSTM"] < 0.1 * oldest["ReLU identity, SGD"]
    assert len(found["tanh RNN, truncated"]["before"]) == 10  # and no further
    largest = {name: row["largest"] for name, row in found.items()}
    assert largest["ReLU identity, SGD"] > 10 * largest["tanh RNN, SGD"]


def one_to_one(found: Figures) -> None:
    assert found["before"] < 1e-4 and found["after"] < 1e-3  # °C; bits as the products have them
    assert max(found["Dense"], found["one-step RNN"]) < 0.5  # °C of 60


def one_to_many(found: Figures) -> None:
    assert found["accuracy"] > 0.95 and found["tunes played by heart"] == 1
    assert 1.0 == found["0"] > found["1"] > found["1.5"] > found["2"]


def many_to_one(found: Figures) -> None:
    assert found["LSTM"] > 0.95 and found["regression"] < 0.7


def many_to_many(found: Figures) -> None:
    assert found["bidirectional"] > 0.88 > found["from the left"]
    assert found["bidirectional, firsts"] > found["from the left, firsts"] + 0.2


def unequal(found: Figures) -> None:
    assert found["turned round"][-1] > 0.15 > found["as they are"][-1]


CLAIMS: list[Callable[[Figures], None]] = [
    next_exercise, one_to_one, one_to_many, many_to_one, many_to_many, unequal,
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_example(
    claim: Callable[[Figures], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    claim(importlib.import_module(claim.__name__).main(tmp_path, quick=True))
    (written,) = tmp_path.iterdir()
    assert written.name == f"{claim.__name__}.png"
    assert written.read_bytes().startswith(PNG)


def test_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "one_to_one.py", "--quick", "--out", tmp_path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "one-step RNN" in printed
    assert (tmp_path / "one_to_one.png").read_bytes().startswith(PNG)


def test_melodies_have_whole_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("one_to_many")
    for name, tune in example.TUNES.items():
        bars = {sum(map(example.duration, bar.split())) for bar in tune.split("|")}
        assert bars == ({3.0} if name.startswith("Row") else {4.0}), name
