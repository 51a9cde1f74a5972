"""Pictures: PNGs, whatever the numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastrnn.plots import gradient_flow, hidden_states, running_mean, training_curve


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


def dark_columns(pixels: np.ndarray, top: float, bottom: float) -> np.ndarray:
    """The columns that are dark in a part of a picture, given in shares of its height."""
    part = pixels[int(top * len(pixels)) : int(bottom * len(pixels)), :, :3].mean(axis=(0, 2))
    return np.flatnonzero(part < 0.25)


def test_gradient_flow_runs_to_the_right(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    path = tmp_path / "flow.png"
    flow = 2.0 ** -np.arange(40.0)
    for flows, steps in (
        ([flow, flow, flow], ()),
        ([flow, flow[:10]], ()),
        ([np.repeat(flow, 50)[::10]] * 2, (2000, 2000)),
        ([flow, np.zeros(40), np.full(40, np.nan)], ()),
    ):
        gradient_flow(path, flows, steps, epochs=range(2, 2 + len(flows)), title="a title")
        pixels = matplotlib.imread(path)
        assert pixels.shape[:2] == (600, 1200)
        dark = dark_columns(pixels, 0.15, 0.3)  # the first epoch: strong is dark, and late
        dark = dark[dark < 1050]  # what is right of it is the scale
        assert dark.min() > 650 and dark.max() > 900
    for alone in (flow, np.zeros(3), np.full(3, np.nan), flow[:1]):
        gradient_flow(path, [alone])
        assert matplotlib.imread(path).shape[:2] == (600, 1200)


def test_hidden_states_have_their_signs(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    path = tmp_path / "states.png"
    states = np.ones((30, 12))
    states[:15] = -1
    for tokens in (None, ["$x$"] * 30, "a" * 30):
        hidden_states(path, states, tokens, title="a title")
        pixels = matplotlib.imread(path)
        red, _, blue, _ = pixels[len(pixels) // 2, pixels.shape[1] // 4]
        assert blue > red
        red, _, blue, _ = pixels[len(pixels) // 2, pixels.shape[1] * 6 // 10]
        assert red > blue
    for odd in (np.zeros((1, 1)), np.full((3, 2), np.nan)):
        hidden_states(path, odd)


def test_flows_and_states_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "p.png"
    flow = np.ones(300)
    with pytest.raises(ValueError, match="flows: expected a vector of norms for every epoch"):
        gradient_flow(path, [])
    with pytest.raises(ValueError, match="flows: expected a vector"):
        gradient_flow(path, [np.ones((2, 2))])
    with pytest.raises(ValueError, match="flows: expected 150 columns, got 300"):
        gradient_flow(path, [flow], [300])
    with pytest.raises(ValueError, match="steps: expected 2, as many as flows, got 1"):
        gradient_flow(path, [flow, flow], [300])
    with pytest.raises(ValueError, match="epochs: expected 1, as many as flows, got 2"):
        gradient_flow(path, [flow], epochs=[1, 2])
    with pytest.raises(ValueError, match=r"states: expected \(time, units\), got \(3,\)"):
        hidden_states(path, np.ones(3))
    with pytest.raises(ValueError, match="tokens: expected 3, one for each step, got 2"):
        hidden_states(path, np.ones((3, 2)), ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError):
        training_curve(tmp_path / "curve.png", [1.0])
