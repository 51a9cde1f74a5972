"""Layers beside Keras 3, on PyTorch, where both are installed: resets, masks, activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.layers.recurrent import Recurrent

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

torch = pytest.importorskip("torch")


B, T, I, H = 5, 7, 4, 6
# Keras's gates in our order.
ORDER = {"SimpleRNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 1, 2, 3]}


def in_our_order(kind: str, blocks: Any) -> Any:
    """(features, G*H) or (G*H,) of Keras as (G*H, features) or (G*H,) of ours."""
    parts = np.split(blocks, len(ORDER[kind]), axis=-1)
    return np.concatenate([parts[k] for k in ORDER[kind]], axis=-1).T


def load(layer: Recurrent, kind: str, weights: list[Any], suffix: str = "") -> dict[str, Any]:
    """What Keras's weights, or gradients, are by our names."""
    kernel, recurrent, bias = weights
    named = {
        f"weight_ih_l0{suffix}": in_our_order(kind, kernel),
        f"weight_hh_l0{suffix}": in_our_order(kind, recurrent),
    }
    if bias.ndim == 2:  # with the reset after the product: one for each side
        named[f"bias_ih_l0{suffix}"], named[f"bias_hh_l0{suffix}"] = (
            in_our_order(kind, side) for side in bias
        )
    else:
        named[f"bias_ih_l0{suffix}"] = in_our_order(kind, bias)
    return named


def random_weights(theirs: Any, rng: Any) -> None:
    theirs.set_weights(
        [rng.standard_normal(w.shape).astype("f4") * 0.4 for w in theirs.get_weights()]
    )


CASES: dict[str, tuple[str, dict[str, Any], Any, dict[str, Any]]] = {
    "SimpleRNN": ("SimpleRNN", {}, fr.RNN, {"bias": "single"}),
    "SimpleRNN relu": (
        "SimpleRNN", {"activation": "relu"}, fr.RNN, {"bias": "single", "nonlinearity": "relu"},
    ),
    "GRU reset after": ("GRU", {"reset_after": True}, fr.GRU, {}),
    "GRU reset before": (
        "GRU", {"reset_after": False}, fr.GRU, {"reset_after": False, "bias": "single"},
    ),
    "LSTM": ("LSTM", {}, fr.LSTM, {"bias": "single"}),
    "LSTM hard_sigmoid": (
        "LSTM", {"recurrent_activation": "hard_sigmoid", "activation": "relu"}, fr.LSTM,
        {"bias": "single", "gate_activation": "hard_sigmoid", "state_activation": "relu"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_outputs_states_and_gradients(name: str, masked: bool, keras: Any, rng: Any) -> None:
    kind, their_options, ours, our_options = CASES[name]
    theirs = getattr(keras.layers, kind)(
        H, return_sequences=True, return_state=True, **their_options
    )
    theirs.build((B, T, I))
    random_weights(theirs, rng)
    layer = ours(I, H, **our_options)
    layer.load_state_dict(load(layer, kind, theirs.get_weights()))
    x = rng.standard_normal((B, T, I)).astype("f4")
    mask = rng.random((B, T)) < 0.6 if masked else None
    if mask is not None:
        mask[0] = False  # a row without any step
        mask[1] = True
    dy = rng.standard_normal((B, T, H)).astype("f4")

    x_theirs = torch.tensor(x, requires_grad=True)
    y_theirs, *states = theirs(x_theirs, mask=None if mask is None else torch.tensor(mask))
    variables = [v.value for v in theirs.trainable_variables]
    grads = torch.autograd.grad(
        (y_theirs * torch.tensor(dy)).sum(), [x_theirs, *variables], allow_unused=True
    )
    (y, state), pullback = layer.vjp(x, mask=mask)
    dx, _ = pullback(dy)
    close = {"rtol": 1e-4, "atol": 2e-5}
    np.testing.assert_allclose(y, y_theirs.detach().numpy(), **close)
    for got, want in zip(state if isinstance(state, tuple) else (state,), states, strict=True):
        np.testing.assert_allclose(got[0], want.detach().numpy(), **close)
    np.testing.assert_allclose(dx, grads[0].numpy(), **close)
    wanted = load(layer, kind, [grad.numpy() for grad in grads[1:]])
    for parameter, want in wanted.items():
        np.testing.assert_allclose(layer.parameters()[parameter].grad, want, **close)


@pytest.mark.parametrize("name", ["GRU reset before", "LSTM"])
def test_both_directions_with_a_mask(name: str, keras: Any, rng: Any) -> None:
    kind, their_options, ours, our_options = CASES[name]
    cell = getattr(keras.layers, kind)(H, return_sequences=True, **their_options)
    theirs = keras.layers.Bidirectional(cell)
    theirs.build((B, T, I))
    random_weights(theirs, rng)
    layer = ours(I, H, bidirectional=True, **our_options)
    weights = theirs.get_weights()
    half = len(weights) // 2
    layer.load_state_dict(
        load(layer, kind, weights[:half]) | load(layer, kind, weights[half:], "_reverse")
    )
    x = rng.standard_normal((B, T, I)).astype("f4")
    mask = rng.random((B, T)) < 0.6
    mask[:, 0] |= ~mask.any(axis=1)
    want = theirs(torch.tensor(x), mask=torch.tensor(mask)).detach().numpy()
    y, _ = layer(x, mask=mask)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=2e-5)
