"""What `fit` adds to the steps that it makes: the loop, the batches, the means, the metrics; and
what it adds to them to know how strong the gradient is that reaches every h_t.

``python -m bench.fitting`` trains the same model on the same batches with `fit` and with the bare
calls under it (vjp, loss, pullback, optimizer), these without and with a recurrent layer's
`on_gradient`, in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np

import fastrnn as fr
from bench import command, measure, report
from fastrnn.diagnostics import recurrent_layers
from fastrnn.losses import Loss
from fastrnn.optimizers import Optimizer

BATCHES = 20
_HEADER = ("model", "batch", "steps ms", "fit ms", "fit adds us", "fit adds", "gradient flow adds")


@dataclass(frozen=True)
class Result:
    """Seconds that a batch takes, by the bare calls, by fit, and with the gradient's flow."""

    model: str
    batch: str
    steps: float
    fit: float
    flow: float | None

    def cells(self) -> list[str]:
        added = self.fit - self.steps
        return [
            self.model,
            self.batch,
            f"{1e3 * self.steps:.3f}",
            f"{1e3 * self.fit:.3f}",
            f"{1e6 * added:.1f}",
            f"{100 * added / self.steps:.1f}%",
            "" if self.flow is None else f"{100 * (self.flow / self.steps - 1):.1f}%",
        ]


def character_model(metrics: tuple[str, ...]) -> tuple[fr.Sequential, np.ndarray, np.ndarray]:
    """B = T = 50, LSTM 128, with inputs and targets for all batches."""
    model = fr.Sequential(
        [fr.Embedding(65, 64, seed=0), fr.LSTM(64, 128, seed=0), fr.Dense(128, 65, seed=0)]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics)
    ids = np.random.default_rng(0).integers(0, 65, (2, 50 * BATCHES, 50))
    return model, ids[0], ids[1]


def smallest_model(metrics: tuple[str, ...]) -> tuple[fr.Sequential, np.ndarray, np.ndarray]:
    """A Dense layer of one unit: next to nothing but what is around it."""
    model = fr.Sequential([fr.Dense(1, 1, seed=0)])
    model.compile("sgd", "mse", metrics)
    x = np.zeros((32 * BATCHES, 1), np.float32)
    return model, x, x.copy()


_CASES: dict[tuple[str, str], tuple[Callable[..., tuple[fr.Sequential, ...]], int]] = {
    ("Embedding, LSTM 128, Dense", "50 x 50"): (character_model, 50),
    ("Dense 1", "32"): (smallest_model, 32),
}


def by_hand(
    model: fr.Sequential,
    loss: Loss,
    optimizer: Optimizer,
    batches: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """The training steps alone."""
    for x, y in batches:
        model.zero_grad()
        (y_pred, _), pullback = model.vjp(x)
        pullback(loss.vjp(y, y_pred)[1])
        optimizer.step(model.parameters())


@contextmanager
def watched(model: fr.Sequential) -> Iterator[None]:
    """All recurrent layers say how strong gradients are."""
    layers = recurrent_layers(model).values()
    for layer in layers:
        layer.on_gradient = id
    yield
    for layer in layers:
        layer.on_gradient = None


def measured(threads: int, rounds: int, seconds: float) -> list[Result]:
    """Each case, without and with a metric."""
    results = []
    for (name, batch), (make, size) in _CASES.items():
        for metrics in ((), ("accuracy",)):
            model, x, y = make(metrics)
            loss, optimizer = model._objective.loss, model._optimizer
            slices = [slice(at, at + size) for at in range(0, len(x), size)]
            batches = [(x[rows], y[rows]) for rows in slices]
            contenders = {
                "steps": measure.Contender(
                    lambda m=model, l=loss, o=optimizer, b=batches: by_hand(m, l, o, b)
                ),
                "fit": measure.Contender(
                    lambda m=model, x=x, y=y, n=size: m.fit(x, y, batch_size=n, verbose=0)
                ),
            }
            if recurrent_layers(model):
                contenders["flow"] = replace(contenders["steps"], within=lambda m=model: watched(m))
            times = measure.interleaved(contenders, rounds, seconds, threads)
            best = {kind: min(fastest) / BATCHES for kind, fastest in times.items()}
            label = f"{name}, accuracy" if metrics else name
            results.append(Result(label, batch, best["steps"], best["fit"], best.get("flow")))
    return results


def main() -> None:
    options = command.parse(command.parser("bench.fitting", __doc__))
    print(report.machine_text(options.markdown))
    figures = []
    for threads in options.threads:
        given = threads, options.rounds, options.seconds
        results = measure.with_threads(threads, measured, *given)
        print(f"\n{command.in_threads(threads).capitalize()}, the fastest of the rounds.\n")
        print(report.table(_HEADER, [result.cells() for result in results], options.markdown))
        figures += [{"threads": threads, **asdict(result)} for result in results]
    report.write_json(options.json, rows=figures)


if __name__ == "__main__":
    main()
