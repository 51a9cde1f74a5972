"""Back-propagation through time by hand: three steps, written out line by line in NumPy.

A vanilla RNN, h_t = tanh(W x_t + b + R h_{t-1}), and an LSTM are unrolled over three steps of one
row, with L = sum over t of |h_t - y_t|² / 2. Every quantity stands beside the kernel's, which runs
in float64; the two agree to the last digits. Then the sum over paths: L_t depends on the R of every
step s up to t, so dL/dR is a sum of six terms, one for each pair (t, s). The picture is the
unrolled graph, each edge with the norm of the gradient that flows back along it.

    python examples/bptt_by_hand.py [--out FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Array = NDArray[np.float64]

SIZE, SEED = 2, 7  # input features and units alike, so that each line of the table is short
rng = np.random.default_rng(SEED)
X, Y = rng.normal(size=(2, 3, SIZE))  # inputs and targets of the steps 1, 2, 3
H0, C0 = rng.normal(size=(2, SIZE))


def rnn_by_hand(weights: dict[str, Array]) -> dict[str, Array]:
    """All that happens in three steps of the RNN and on the way back, by name."""
    W, R = weights["weight_ih_l0"], weights["weight_hh_l0"]
    b = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    (x1, x2, x3), (y1, y2, y3), h0 = X, Y, H0

    h1 = np.tanh(W @ x1 + b + R @ h0)
    h2 = np.tanh(W @ x2 + b + R @ h1)
    h3 = np.tanh(W @ x3 + b + R @ h2)

    # a_t is what enters tanh, and tanh' = 1 - h². A state has two gradients: its own loss's,
    # h_t - y_t, and what comes back from the step after it, Rᵀ da_{t+1}.
    da3 = (1 - h3**2) * (h3 - y3)
    back2 = R.T @ da3
    da2 = (1 - h2**2) * (h2 - y2 + back2)
    back1 = R.T @ da2
    da1 = (1 - h1**2) * (h1 - y1 + back1)
    back0 = R.T @ da1

    # All steps share the weights: each adds its own term.
    dW = np.outer(da1, x1) + np.outer(da2, x2) + np.outer(da3, x3)
    dR = np.outer(da1, h0) + np.outer(da2, h1) + np.outer(da3, h2)
    db = da1 + da2 + da3
    dx1, dx2, dx3 = W.T @ da1, W.T @ da2, W.T @ da3
    return {
        "h1": h1, "h2": h2, "h3": h3,
        "back2": back2, "back1": back1, "back0": back0,
        "dx1": dx1, "dx2": dx2, "dx3": dx3,
        "dW": dW, "dR": dR, "db": db,
    }  # fmt: skip


def lstm_by_hand(weights: dict[str, Array]) -> dict[str, Array]:
    """The same for the LSTM; the weights' rows are those of the gates i, f, g, o."""
    W, R = weights["weight_ih_l0"], weights["weight_hh_l0"]
    b = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    h, c = [H0], [C0]
    gates = []
    for x_t in X:
        a_i, a_f, a_g, a_o = np.split(W @ x_t + b + R @ h[-1], 4)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        gates.append((i, f, g, o))
        c.append(f * c[-1] + i * g)
        h.append(o * np.tanh(c[-1]))

    dW, dR, db, dx = np.zeros_like(W), np.zeros_like(R), np.zeros_like(b), np.zeros_like(X)
    back_h, back_c = np.zeros(SIZE), np.zeros(SIZE)
    for t in (3, 2, 1):
        i, f, g, o = gates[t - 1]
        dh = h[t] - Y[t - 1] + back_h
        dc = back_c + dh * o * (1 - np.tanh(c[t]) ** 2)
        da_i = dc * g * i * (1 - i)
        da_f = dc * c[t - 1] * f * (1 - f)
        da_g = dc * i * (1 - g**2)
        da_o = dh * np.tanh(c[t]) * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_g, da_o])
        dW += np.outer(da, X[t - 1])
        dR += np.outer(da, h[t - 1])
        db += da
        dx[t - 1] = W.T @ da
        back_h, back_c = R.T @ da, dc * f  # c's way back: no weight, no tanh, the forget gate alone
    named = {"h1": h[1], "h2": h[2], "h3": h[3], "c3": c[3], "back0": back_h, "back0 of c": back_c}
    return named | {"dx1": dx[0], "dx2": dx[1], "dx3": dx[2], "dW": dW, "dR": dR, "db": db}


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def by_kernel(layer: fr.RNN | fr.LSTM) -> dict[str, Array]:
    """The same quantities from one call of `vjp` and one of its pullback."""
    lstm = isinstance(layer, fr.LSTM)
    x, h_0, c_0 = X[None], H0[None, None], C0[None, None]
    layer.zero_grad()
    (h, state), pullback = layer.vjp(x, (h_0, c_0) if lstm else h_0)
    dx, dstate = pullback(h - Y)
    grad = {name: parameter.grad for name, parameter in layer.parameters().items()}
    found = {f"h{t}": h[0, t - 1] for t in (1, 2, 3)} | {f"dx{t}": dx[0, t - 1] for t in (1, 2, 3)}
    found |= {"dW": grad["weight_ih_l0"], "dR": grad["weight_hh_l0"], "db": grad["bias_ih_l0"]}
    if lstm:
        return found | {"c3": state[1], "back0": dstate[0], "back0 of c": dstate[1]}
    # A sequence may be cut anywhere: the pullback of the steps after t gives what comes back to t.
    for t in (1, 2):
        (after, _), pullback = layer.vjp(x[:, t:], h[None, :, t - 1].copy())
        found[f"back{t}"] = pullback(after - Y[t:])[1]
    return found | {"back0": dstate}


def paths(R: Array, h: list[Array]) -> NDArray[np.object_]:
    """What L_t has of dL/dR through the R of step s, at [t - 1, s - 1]; `h` is of steps 0 to 3.

    (h_t - y_t) goes back from t to s, each step a product with R's and tanh's Jacobians.
    """
    terms = np.zeros((3, 3), object)
    for t in (1, 2, 3):
        dh = h[t] - Y[t - 1]
        for s in range(t, 0, -1):
            da = (1 - h[s] ** 2) * dh
            terms[t - 1, s - 1] = np.outer(da, h[s - 1])
            dh = R.T @ da
    return terms


def draw(out: Path, hand: dict[str, Array]) -> None:
    """The unrolled graph; beside each edge the norm of the gradient that comes back along it."""
    figure = picture.figure(9, 4.6)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(-0.3, 3.55), ylim=(-1.35, 1.25))

    def node(x: float, y: float, text: str, color: str) -> None:
        axes.annotate(
            text, (x, y), ha="center", va="center", color="white", fontsize=14,
            bbox={"boxstyle": "circle,pad=0.4", "facecolor": color, "edgecolor": "none"},
        )  # fmt: skip

    def edge(x0: float, y0: float, x1: float, y1: float, gradient: Array) -> None:
        """Forward in grey, back in orange, as wide as the gradient's norm says."""
        norm = float(np.linalg.norm(gradient))
        dx, dy = (0.0, 0.05) if y0 == y1 else (-0.03, 0.0)
        arrow = {"shrinkA": 22, "shrinkB": 22, "arrowstyle": "-|>", "mutation_scale": 14}
        for start, end, color, width, side in (
            ((x0, y0), (x1, y1), picture.GREY, 1.0, 1),
            ((x1, y1), (x0, y0), picture.ORANGE, 0.8 + 2 * norm, -1),
        ):
            (a, b), (c, d) = start, end
            axes.annotate(
                "", (c + side * dx, d + side * dy), (a + side * dx, b + side * dy),
                arrowprops=arrow | {"color": color, "lw": width},
            )  # fmt: skip
        x, y = ((x0 + x1) / 2, y0 - 0.2) if y0 == y1 else (x0 + 0.09, (y0 + y1) / 2)
        align = "center" if y0 == y1 else "left"
        axes.text(x, y, f"{norm:.2f}", color=picture.ORANGE, ha=align, va="center", fontsize=12)

    for t in range(4):
        node(t, 0, f"$h_{t}$", picture.BLUE)
    for t in (1, 2, 3):
        node(t, -1.15, f"$x_{t}$", picture.GREY)
        node(t, 1.05, f"$L_{t}$", picture.INK)
        edge(t - 1, 0, t, 0, hand[f"back{t - 1}"])
        edge(t, -1.15, t, 0, hand[f"dx{t}"])
        edge(t, 0, t, 1.05, hand[f"h{t}"] - Y[t - 1])
        axes.text(t - 0.5, 0.17, "$R$", color=picture.GREY, ha="center", fontsize=12)
        axes.text(t - 0.09, -0.5, "$W$", color=picture.GREY, ha="right", fontsize=12)
    axes.set_title(
        "A vanilla RNN over three steps: forward in grey, and in orange\n"
        "the norm of the gradient that comes back along each edge",
        loc="left", color=picture.INK, fontsize=12,
    )  # fmt: skip
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, Any]:
    """The largest difference between hand and kernel of the RNN, of the LSTM, of the paths' sum."""
    figures: dict[str, Any] = {}
    for name, kind, by_hand in (("RNN", fr.RNN, rnn_by_hand), ("LSTM", fr.LSTM, lstm_by_hand)):
        layer = kind(SIZE, SIZE, dtype="float64", seed=SEED)
        hand, kernel = by_hand(layer.state_dict()), by_kernel(layer)
        print(f"{name:<12}{'by hand':<36}{'by the kernel':<36}difference")
        for quantity, value in hand.items():
            difference = np.abs(value.ravel() - kernel[quantity].ravel()).max()
            figures[name] = max(figures.get(name, 0.0), difference)
            print(f"{quantity:<12}{show(value):<36}{show(kernel[quantity]):<36}{difference:.0e}")
        print()

    layer = fr.RNN(SIZE, SIZE, dtype="float64", seed=SEED)
    weights = layer.state_dict()
    hand = rnn_by_hand(weights)
    terms = paths(weights["weight_hh_l0"], [H0, hand["h1"], hand["h2"], hand["h3"]])
    print("|dL_t/dR| by the step s whose R it is; their sum, and the kernel's from L_t alone")
    print(f"{'':<12}{'s = 1':>8}{'s = 2':>8}{'s = 3':>8}{'|sum|':>10}{'kernel':>8}")
    for t in (1, 2, 3):
        own = np.zeros((1, 3, SIZE))
        own[0, t - 1] = hand[f"h{t}"] - Y[t - 1]
        layer.zero_grad()
        layer.vjp(X[None], H0[None, None])[1](own)
        norms = [f"{np.linalg.norm(term):8.4f}" for term in terms[t - 1, :t]]
        total = np.linalg.norm(terms[t - 1, :t].sum())
        kernel = np.linalg.norm(layer.parameters()["weight_hh_l0"].grad)
        print(f"t = {t:<8}{''.join(norms):<24}{total:>10.4f}{kernel:>8.4f}")
    everything = sum(terms[t, s] for t in range(3) for s in range(t + 1))
    figures["paths"] = np.abs(everything - hand["dR"]).max()
    print(f"all six, as matrices, less dR: {figures['paths']:.0e}")
    draw(out, hand)
    return figures


def show(value: Array) -> str:
    """Its first numbers, all of a vector of two."""
    numbers = [f"{number:8.5f}" for number in value.ravel()[:3]]
    return " ".join(numbers) + (" ..." if value.size > 3 else "")


if __name__ == "__main__":
    picture.run(main)
