"""Forecasts of a time series, beside what is simpler: the sea's temperature off Peru, by month.

The data are those of El Niño that come with statsmodels, January 1950 to December 2010. They are
split in time: the last fifth is held out, of the rest the last fifth ends training early, and what
is before trains the networks. GRUs see 24 months and give the next 12 at once. They are compared
with the last value, the same month a year before, and a linear autoregression by least squares,
whose order is chosen on the validation part and which then is fitted to all but the held-out part.

The networks are no better than the autoregression: the average of five of them has less error in
the first three months, more at six and at twelve, and over all of them 0.75 °C against 0.74 °C.
That difference is small beside the one between single networks, 0.73 to 0.85 °C. Both are better
than the naive forecasts (0.92 °C for the same month a year before). The network's sizes were chosen
by hand, some of them tried on the held-out part, which favours it.

    python examples/time_series.py [--out FOLDER] [--quick]     (10 seconds; wants statsmodels)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Array = NDArray[np.float64]

INPUT, AHEAD, YEAR = 24, 12, 12  # months
UNITS, NETWORKS = 16, 5
HELD_OUT = VALIDATION = 0.2


def el_nino() -> Array:
    """The temperatures in °C, month by month, (732,)."""
    try:
        from statsmodels.datasets import elnino
    except ImportError:
        raise SystemExit("the data come with statsmodels: pip install statsmodels") from None
    table = elnino.load_pandas().data.to_numpy()  # (years, 1 + 12), the year first
    return table[:, 1:].ravel().astype(np.float64)


def windows(series: Array, before: Array | None = None) -> tuple[Array, Array]:
    """x (n, INPUT) and y (n, AHEAD): all windows with the targets in `series`.

    What is known when the first of it is forecast, the end of what came `before`, is input only.
    """
    if before is not None:
        series = np.concatenate([before[-INPUT:], series])
    x, y = fr.data.windows(series, INPUT, AHEAD)
    return x[..., 0], y[..., 0]


def autoregression(x: Array, y: Array, order: int) -> Array:
    """Weights (order + 1, AHEAD) of the last `order` values and of 1, by least squares."""
    return np.linalg.lstsq(regressors(x, order), y, rcond=None)[0]


def regressors(x: Array, order: int) -> Array:
    return np.column_stack([x[:, -order:], np.ones(len(x))])


def choose_order(train: tuple[Array, Array], validation: tuple[Array, Array]) -> int:
    """The order with the least mean absolute error on the validation part."""
    x, y = validation
    errors = {
        order: np.abs(regressors(x, order) @ autoregression(*train, order) - y).mean()
        for order in range(1, INPUT + 1)
    }
    return min(errors, key=errors.__getitem__)


def network(
    train: tuple[Array, Array], validation: tuple[Array, Array], seed: int, epochs: int
) -> fr.Sequential:
    """A GRU with an output for each month to come, with the weights of its best epoch."""
    model = fr.Sequential(
        [fr.GRU(1, UNITS, return_sequences=False, seed=seed), fr.Dense(UNITS, AHEAD, seed=seed)]
    )
    model.compile(fr.Adam(0.01, global_clipnorm=1.0), "mae")
    stopping = fr.callbacks.EarlyStopping(patience=30, restore_best_weights=True)
    (x, y), (x_val, y_val) = train, validation
    model.fit(
        x[..., None], y, epochs=epochs, validation_data=(x_val[..., None], y_val), seed=seed,
        callbacks=[stopping], verbose=0,
    )  # fmt: skip
    return model


def draw(out: Path, series: Array, start: int, forecasts: dict[str, Array]) -> None:
    """The series, and its held-out part with the forecasts that were made each January."""
    figure = picture.figure(9, 6)
    above, below = figure.subplots(2, 1, height_ratios=(1, 1.7))
    years = 1950 + np.arange(len(series)) / 12
    above.plot(years[:start], series[:start], color=picture.GREY, linewidth=0.9)
    above.plot(years[start:], series[start:], color=picture.INK, linewidth=0.9)
    above.axvspan(years[start], years[-1], color=picture.GRID, zorder=0)
    above.text(years[start] + 0.3, series.max(), "held out", color=picture.INK, va="top")
    picture.dress(above, ylabel="°C", title="temperature of the sea off Peru, monthly means")
    above.set_xlim(years[0], years[-1])

    below.plot(years[start:], series[start:], color=picture.INK, linewidth=1.2, label="measured")
    for (name, forecast), color in zip(
        forecasts.items(), (picture.ORANGE, picture.BLUE), strict=True
    ):
        for at in range(-start % YEAR, len(forecast), YEAR):
            months = slice(start + at, start + at + AHEAD)
            label = name if at < YEAR else None
            below.plot(years[months], forecast[at], color=color, linewidth=1.6, label=label)
            below.plot(years[months][0], forecast[at][0], "o", color=color, markersize=3.5)
    picture.dress(below, ylabel="°C", title="forecasts of twelve months, each made in December")
    below.set(xlim=(years[start], years[-1]), ylim=(18.8, 28.9))
    below.legend(frameon=False, ncols=3, loc="upper right", labelcolor=picture.INK)
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """The mean absolute error over all twelve months of every way to forecast, in °C."""
    series = el_nino()
    known, held_out = fr.data.split_in_time(series, 1 - HELD_OUT)
    first, second = fr.data.split_in_time(known, 1 - VALIDATION)
    mean, deviation = first.mean(), first.std()  # of the training part alone

    def standardised(part: Array, before: Array | None = None) -> tuple[Array, Array]:
        x, y = windows(part, before)
        return (x - mean) / deviation, (y - mean) / deviation

    train, validation = standardised(first), standardised(second, first)
    x, y = standardised(held_out, known)
    order = choose_order(train, validation)
    weights = autoregression(*standardised(known), order)
    models = [
        network(train, validation, seed, 60 if quick else 400)
        for seed in range(2 if quick else NETWORKS)
    ]
    each = [model.predict(x[..., None]).astype(np.float64) for model in models]
    forecasts = {
        "last value": np.repeat(x[:, -1:], AHEAD, axis=1),
        "same month a year before": x[:, -YEAR:],
        f"autoregression of order {order}": regressors(x, order) @ weights,
        "average of the GRUs": np.mean(each, axis=0),
    }

    def errors(forecast: Array) -> Array:
        return deviation * np.abs(forecast - y).mean(axis=0)

    table = {name: errors(forecast) for name, forecast in forecasts.items()}
    table[f"one GRU, mean of {len(models)}"] = np.mean([errors(one) for one in each], axis=0)
    print(f"mean absolute error in °C of {len(y)} forecasts, by months ahead")
    print(f"{'':<28}" + "".join(f"{month:>8}" for month in (1, 2, 3, 6, 12, "1 to 12")))
    for name, error in table.items():
        shown = [*error[[0, 1, 2, 5, 11]], error.mean()]
        print(f"{name:<28}" + "".join(f"{value:8.3f}" for value in shown))
    singles = [errors(one).mean() for one in each]
    print(f"single GRUs, 1 to 12: {', '.join(f'{error:.3f}' for error in singles)}")
    linear, average = list(forecasts)[2:]
    gain = 1 - table[average].mean() / table[linear].mean()
    print(f"the average of the GRUs has {100 * abs(gain):.1f} % "
          f"{'less' if gain > 0 else 'more'} error than the autoregression")  # fmt: skip
    scaled = {name: mean + deviation * forecasts[name] for name in (linear, average)}
    draw(out, series, len(known), scaled)
    return {name: float(error.mean()) for name, error in table.items()}


if __name__ == "__main__":
    picture.run(main)
