"""One to one: a fixed-size input to one output, by a Dense network and by a one-step RNN.

The function to learn is the wind chill, the air temperature that would feel as cold without wind:
W = 13.12 + 0.6215 T - 11.37 v^0.16 + 0.3965 T v^0.16, T in °C and v in km/h (Environment Canada,
2001). A recurrent network that is given a single time step has nothing to remember: from h_0 = 0,
h_1 = tanh(W x + R h_0 + b) is a Dense layer with tanh, whatever R is. Both start from the same W
and b, are trained alike, and end alike.

    python examples/one_to_one.py [--out FOLDER] [--quick]     (seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Array = NDArray[np.float32]

HIDDEN = 32
COLDEST, WARMEST, CALM, STORM = -40.0, 10.0, 5.0, 80.0  # °C, km/h: where the formula holds


def wind_chill(temperature: NDArray[np.float64], wind: NDArray[np.float64]) -> NDArray[np.float64]:
    """°C, of °C and km/h."""
    power = wind**0.16
    return 13.12 + 0.6215 * temperature - 11.37 * power + 0.3965 * temperature * power


def scaled(temperature: NDArray[np.float64], wind: NDArray[np.float64]) -> Array:
    """What the networks read, (rows, 2): both numbers from -1 to 1."""
    low, high = np.array([COLDEST, CALM]), np.array([WARMEST, STORM])
    both = np.stack([temperature, wind], axis=1)
    return (2 * (both - low) / (high - low) - 1).astype(np.float32)


def networks() -> dict[str, fr.Sequential]:
    """A Dense network, and an RNN that starts from its weights."""
    dense = fr.Dense(2, HIDDEN, "tanh", seed=0)
    rnn = fr.RNN(2, HIDDEN, bias="single", return_sequences=False, seed=0)
    rnn.parameters()["weight_ih_l0"].assign(dense.weight.data)
    rnn.parameters()["bias_ih_l0"].assign(np.zeros(HIDDEN, np.float32))
    return {
        "Dense": fr.Sequential([dense, fr.Dense(HIDDEN, 1, seed=1)]),
        "one-step RNN": fr.Sequential([rnn, fr.Dense(HIDDEN, 1, seed=1)]),
    }


def shaped(name: str, x: Array) -> Array:
    """(rows, 2) for the Dense network, (rows, 1 time step, 2) for the RNN."""
    return x if name == "Dense" else x[:, None]


def difference(models: dict[str, fr.Sequential], x: Array) -> float:
    """The largest between the two networks' outputs, in °C."""
    dense, rnn = (model(shaped(name, x)) for name, model in models.items())
    return 10 * float(np.abs(dense - rnn).max())


def draw(out: Path, models: dict[str, fr.Sequential]) -> None:
    """The wind chill over the wind, of some temperatures: formula and networks."""
    figure = picture.figure(8, 4.5)
    axes = figure.add_subplot()
    wind = np.linspace(CALM, STORM, 60)
    for temperature in (10.0, 0.0, -10.0, -20.0, -30.0, -40.0):
        fixed = np.full_like(wind, temperature)
        truth = wind_chill(fixed, wind)
        axes.plot(wind, truth, color="#d3d7dc", linewidth=7, solid_capstyle="round")
        for (name, model), color, dashes in zip(
            models.items(), (picture.BLUE, picture.ORANGE), ("-", (0, (4, 4))), strict=True
        ):
            y = model.predict(shaped(name, scaled(fixed, wind)))[:, 0]
            axes.plot(wind, 10 * y, color=color, linewidth=1.6, linestyle=dashes)
        picture.name_line(axes, f"{temperature:.0f} °C", wind[-1], truth[-1], picture.INK)
    picture.dress(
        axes, xlabel="wind, km/h", ylabel="wind chill, °C",
        title="grey: the formula; blue: Dense; orange, dashed: one-step RNN",
    )  # fmt: skip
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """Each network's mean and largest error in °C, and the largest difference between the two."""
    rng = np.random.default_rng(0)
    temperature, wind = rng.uniform((COLDEST, CALM), (WARMEST, STORM), (4000, 2)).T
    x = scaled(temperature, wind)
    y = (wind_chill(temperature, wind) / 10)[:, None]  # tens of degrees: numbers near 1
    train, test = slice(3000), slice(3000, None)
    models = networks()
    figures = {"before": difference(models, x[test])}
    print(f"{'':14}parameters   mean error   largest error")
    for name, model in models.items():
        model.compile(fr.Adam(0.005), "mse")
        model.fit(
            shaped(name, x[train]), y[train], epochs=20 if quick else 150, seed=0, verbose=0
        )  # fmt: skip
        error = 10 * np.abs(model.predict(shaped(name, x[test])) - y[test])
        figures[name], figures[f"{name}, largest"] = float(error.mean()), float(error.max())
        size = sum(parameter.size for parameter in model.parameters().values())
        print(f"{name:14}{size:10,}{error.mean():10.2f} °C{error.max():13.2f} °C")
    figures["after"] = difference(models, x[test])
    print("largest difference between the outputs of the two:")
    print(f"{figures['before']:.1e} °C before training, {figures['after']:.1e} °C after it")
    draw(out, models)
    return figures


if __name__ == "__main__":
    picture.run(main)
