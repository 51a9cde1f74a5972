"""The examples of BPTT, forecasting and long memories: what each says holds in its quick mode."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an example in quick mode: its figures, and that it has written its picture."""
    image = pytest.importorskip("matplotlib.image")
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str) -> dict[str, Any]:
        figures: dict[str, Any] = importlib.import_module(name).main(tmp_path, quick=True)
        pixels = image.imread(tmp_path / f"{name}.png")
        assert pixels[..., :3].min() < 0.5 < pixels[..., :3].max()
        assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
        return figures

    return run


def test_bptt_by_hand_is_what_the_kernel_does(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(difference < 1e-14 for difference in run("bptt_by_hand").values())
    assert "all six" in capsys.readouterr().out


def test_gates_add_what_the_vanilla_rnn_cannot(run: Run) -> None:
    errors = run("adding_problem")
    assert errors["LSTM"] < 0.02 and errors["GRU"] < 0.02
    assert errors["RNN"] > 0.14


def test_gates_copy_what_the_vanilla_rnn_cannot(run: Run) -> None:
    recalled = run("copy_memory")
    assert recalled["LSTM"] > 0.35 and recalled["GRU"] > 0.45
    assert recalled["RNN"] < 0.2


def test_forecasts_beat_the_naive_ones_and_come_near_autoregression(run: Run) -> None:
    pytest.importorskip("statsmodels")
    errors = run("time_series")
    last, year_ago, linear, average, single = errors.values()
    assert average < single < 0.9 * year_ago < last
    assert average < 1.1 * linear


def test_without_statsmodels_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(SystemExit, match="pip install statsmodels"):
        importlib.import_module("time_series").el_nino()
