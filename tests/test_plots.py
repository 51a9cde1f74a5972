"""The training curve: a PNG, whatever the numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastrnn.plots import running_mean, training_curve


def test_running_mean_is_over_the_values_before() -> None:
    values = np.array([4.0, 2.0, 0.0, 6.0, 3.0])
    assert running_mean(values, 3).tolist() == [4.0, 3.0, 2.0, 8 / 3, 3.0]
    assert running_mean(values, 1).tolist() == values.tolist()


@pytest.mark.parametrize(
    "losses, validation",
    [
        ([1.0], []),
        ([2.0, 2.0, 2.0], [(3, 2.0)]),
        (list(np.geomspace(4, 1, 500)), [(100, 2.5), (500, 1.2)]),
        ([3.0, float("nan"), float("inf")], [(3, float("nan"))]),
    ],
)
def test_a_picture_is_written(
    tmp_path: Path, losses: list[float], validation: list[tuple[int, float]]
) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    path = tmp_path / "curve.png"
    training_curve(path, losses, validation, title="a title", ylabel="bits")
    pixels = matplotlib.imread(path)
    assert pixels.shape[:2] == (675, 1200)
    assert pixels[..., :3].min() < 0.5 < pixels[..., :3].max()
    assert "matplotlib.pyplot" not in sys.modules


def test_no_losses_are_no_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="losses: expected a number for every step"):
        training_curve(tmp_path / "curve.png", [])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError):
        training_curve(tmp_path / "curve.png", [1.0])
