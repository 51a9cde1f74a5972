"""Variants as layers: several, both ways, ragged, step by step, and which go together."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrnn as fr
from fastrnn import config, reference
from fastrnn.layers.recurrent import Recurrent

# One of each, and some together.
OPTIONS: list[tuple[type[Recurrent], dict[str, Any]]] = [
    (fr.LSTM, {"proj_size": 3}),
    (fr.LSTM, {"peephole": True}),
    (fr.LSTM, {"coupled": "f=1-i", "peephole": True, "proj_size": 4}),
    (fr.LSTM, {"layer_norm": True, "proj_size": 4, "bias": "single"}),
    (fr.LSTM, {"coupled": "i=1-f", "layer_norm": True, "zoneout_h": 0.1, "zoneout_c": 0.2}),
    (fr.LSTM, {"gate_activation": "hard_sigmoid", "state_activation": "relu", "clip": 2.0}),
    (fr.LSTM, {"zoneout_c": 0.3, "recurrent_dropout": 0.2, "peephole": True}),
    (fr.GRU, {"reset_after": False}),
    (fr.GRU, {"reset_after": False, "zoneout_h": 0.2, "recurrent_dropout": 0.3, "clip": 1.0}),
    (fr.GRU, {"layer_norm": True, "bias": False}),
    (fr.GRU, {"variant": "minimal", "layer_norm": True, "state_activation": "identity"}),
    (fr.RNN, {"layer_norm": True, "nonlinearity": "relu"}),
    (fr.RNN, {"nonlinearity": "hard_sigmoid", "zoneout_h": 0.5, "recurrent_dropout": 0.1}),
]
each = pytest.mark.parametrize("kind, options", OPTIONS)


def variant_of(layer: Recurrent, training: bool, seed: int = 0) -> reference.Variant:
    return reference.Variant(
        getattr(layer, "gate_activation", "sigmoid"),
        getattr(layer, "state_activation", getattr(layer, "nonlinearity", None)),
        layer.clip,
        layer.zoneout_h,
        getattr(layer, "zoneout_c", 0.0),
        layer.recurrent_dropout,
        training,
        seed,
    )


def assert_agrees_with_the_reference(layer: Recurrent, rng: Any, batch: int, time: int) -> None:
    """Forward, and with the masks of the layer's first training call, forward and back."""
    x = rng.standard_normal((batch, time, layer.input_size))
    lengths = rng.integers(0, time + 1, batch)
    cell, layers, both = layer._cell(), layer.num_layers, layer.bidirectional
    weights = layer.state_dict()

    def refer(training: bool, seed: int = 0) -> Any:
        return reference.layer_forward(
            cell, x, weights, layers, both, lengths=lengths,
            variant=variant_of(layer, training, seed),
        )  # fmt: skip

    output, final = layer(x, lengths=lengths)
    y, h_n, c_n, _ = refer(training=False)
    np.testing.assert_allclose(output, y, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(final[0] if layer.has_c else final, h_n, rtol=1e-10, atol=1e-11)
    if layer.has_c:
        np.testing.assert_allclose(final[1], c_n, rtol=1e-10, atol=1e-11)

    seed = int(layer.next_seed().generate_state(1, np.uint64)[0])
    layer.set_random_state({**layer.random_state(), "calls": 0})
    (output, _), pullback = layer.vjp(x, lengths=lengths)
    y, h_n, c_n, tape = refer(training=True, seed=seed)
    np.testing.assert_allclose(output, y, rtol=1e-10, atol=1e-11)
    dy = rng.standard_normal(y.shape)
    dh, dc = rng.standard_normal(h_n.shape), None if c_n is None else rng.standard_normal(c_n.shape)
    dx, dinitial = pullback(dy, dh if dc is None else (dh, dc))
    want_dx, dh0, _, grads = reference.layer_backward(tape, dy, dh, dc)
    scale = 1 + np.abs(want_dx).max(initial=0)
    assert np.abs(dx - want_dx).max(initial=0) <= 1e-9 * scale
    got_dh0 = dinitial[0] if layer.has_c else dinitial
    assert np.abs(got_dh0 - dh0).max() <= 1e-9 * (1 + np.abs(dh0).max())
    for name, parameter in layer.parameters().items():
        assert parameter.grad is not None
        error = np.abs(parameter.grad - grads[name]).max()
        assert error <= 1e-9 * (1 + np.abs(grads[name]).max()), name


@each
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_agree_with_the_reference(
    kind: Any, options: dict[str, Any], bidirectional: bool, rng: Any
) -> None:
    layer = kind(5, 17, 2, bidirectional=bidirectional, dtype="float64", seed=3, **options)
    assert_agrees_with_the_reference(layer, rng, 6, 5)


@st.composite
def layers(draw: st.DrawFn) -> Recurrent:
    """Any layer, of any options that go together."""
    kind = draw(st.sampled_from([fr.LSTM, fr.GRU, fr.RNN]))
    part = st.one_of(st.just(0.0), st.floats(0.05, 0.9))
    hidden = draw(st.integers(1, 40))
    options: dict[str, Any] = {
        "bias": draw(st.sampled_from([True, False, "single"])),
        "bidirectional": draw(st.booleans()),
        "layer_norm": hidden > 4 and draw(st.booleans()),
        "zoneout_h": draw(part),
        "recurrent_dropout": draw(part),
        "clip": draw(st.one_of(st.none(), st.floats(0.5, 10))),
        "seed": draw(st.integers(0, 2**70)),
    }
    bounded = st.sampled_from(["sigmoid", "tanh", "hard_sigmoid"])
    if kind is fr.RNN:
        options["nonlinearity"] = draw(bounded)
    else:
        options |= {"gate_activation": draw(bounded), "state_activation": draw(bounded)}
    if kind is fr.GRU:
        options["variant"] = draw(st.sampled_from(["standard", "minimal"]))
        if options["variant"] == "standard" and not options["layer_norm"]:
            options["reset_after"] = draw(st.booleans())
    if kind is fr.LSTM:
        options["proj_size"] = draw(st.integers(0, hidden))
        options["peephole"] = not options["layer_norm"] and draw(st.booleans())
        options["coupled"] = draw(st.sampled_from([None, "f=1-i", "i=1-f"]))
        options["zoneout_c"] = draw(part)
    inputs, depth = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    return kind(inputs, hidden, depth, dtype="float64", **options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers(), st.integers(1, 8), st.integers(1, 6), st.integers(0, 1000))
def test_any_layer_agrees_with_the_reference(
    layer: Recurrent, batch: int, time: int, seed: int
) -> None:
    assert_agrees_with_the_reference(layer, np.random.default_rng(seed), batch, time)


@each
def test_the_gradient_of_a_list_is_that_of_each_alone(
    kind: Any, options: dict[str, Any], rng: Any
) -> None:
    options = {k: v for k, v in options.items() if "zoneout" not in k and "dropout" not in k}
    layer = kind(3, 20, 2, bidirectional=True, seed=1, **options)
    sequences = [rng.standard_normal((n, 3)).astype("float32") for n in (4, 7, 0, 1)]
    x, lengths = fr.pack(sequences)
    with config.using(gemm="native"):
        (output, _), pullback = layer.vjp(x, lengths=lengths)
        dy = rng.standard_normal(output.shape).astype("float32")
        dx, _ = pullback(dy)
        for k, length in enumerate(lengths):
            if length == 0:
                assert not dx[k].any() and not output[k].any()
                continue
            (alone, _), pullback = layer.vjp(x[k : k + 1, :length])
            assert alone[0].tobytes() == output[k, :length].tobytes()
            assert pullback(dy[k : k + 1, :length])[0].tobytes() == dx[k, :length].tobytes()


@each
def test_steps_and_streams_have_the_bits_of_the_whole_sequence(
    kind: Any, options: dict[str, Any], rng: Any
) -> None:
    layer = kind(5, 33, 2, seed=1, **options)
    x = rng.standard_normal((3, 9, 5)).astype("float32")
    with config.using(gemm="native"):
        whole, final = layer(x)
        state = layer.initial_state(3)
        y = np.empty((3, layer.output_size), "float32")
        for t in range(9):
            layer.step(x[:, t], state, out=(y, state))
            assert y.tobytes() == whole[:, t].tobytes()
        stream = layer.stream()
        pieces = [stream(x[:, a:b]) for a, b in ((0, 1), (1, 5), (5, 9))]
    assert np.concatenate(pieces, axis=1).tobytes() == whole.tobytes()
    for ends in (state, stream.state):
        for a, b in zip(ends, final, strict=True):
            assert a.tobytes() == b.tobytes()


@each
def test_copies_and_configurations_are_the_same_layer(
    kind: Any, options: dict[str, Any], rng: Any
) -> None:
    layer = kind(5, 9, 2, bidirectional=True, seed=1, **options)
    x = rng.standard_normal((3, 4, 5)).astype("float32")
    again = kind(**layer.config())
    for other in (again, pickle.loads(pickle.dumps(layer))):
        assert other(x)[0].tobytes() == layer(x)[0].tobytes()
    assert again.vjp(x)[0][0].tobytes() == kind(**layer.config()).vjp(x)[0][0].tobytes()


@each
@config.using(gemm="native")
def test_a_mask_takes_what_counts(kind: Any, options: dict[str, Any], rng: Any) -> None:
    layer = kind(4, 8, seed=1, **options)
    x = rng.standard_normal((2, 5, 4)).astype("float32")
    mask = np.array([[True, False, True, True, False], [False, True, False, False, False]])
    output, _ = layer(x, mask=mask)
    np.testing.assert_array_equal(output[0, [0, 2, 3]], layer(x[:1, [0, 2, 3]])[0][0])
    np.testing.assert_array_equal(output[1, 1:], np.repeat(layer(x[1:, 1:2])[0][0], 4, axis=0))


@pytest.mark.usefixtures("restore_threads")
@config.using(gemm="native")
def test_masks_are_of_the_seed_and_the_call_alone(rng: Any) -> None:
    options: dict[str, Any] = {"zoneout_h": 0.2, "zoneout_c": 0.1, "recurrent_dropout": 0.3}
    x = rng.standard_normal((4, 6, 64)).astype("float32")
    runs = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        layer = fr.LSTM(64, 128, 2, dropout=0.4, seed=5, **options)
        first, second = layer.vjp(x)[0][0], layer.vjp(x)[0][0]
        assert (first != second).any()
        runs.append((first.tobytes(), second.tobytes()))
    assert runs[0] == runs[1] == runs[2]


def test_a_copy_goes_on_with_the_masks(rng: Any) -> None:
    layer = fr.LSTM(4, 8, 2, dropout=0.4, zoneout_h=0.2, recurrent_dropout=0.3, seed=5)
    x = rng.standard_normal((4, 6, 4)).astype("float32")
    layer.vjp(x)
    copies = [pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)]
    wanted = [layer.vjp(x)[0][0].tobytes() for _ in range(2)]
    for other in copies:
        assert [other.vjp(x)[0][0].tobytes() for _ in range(2)] == wanted


def test_zoneout_keeps_about_as_many_units_as_asked(rng: Any) -> None:
    layer = fr.GRU(4, 256, zoneout_h=0.25, seed=1)
    x = rng.standard_normal((8, 20, 4)).astype("float32")
    y = layer.vjp(x)[0][0]
    assert abs((y[:, 1:] == y[:, :-1]).mean() - 0.25) < 0.01


@pytest.mark.parametrize(
    "kind, options, error, message",
    [
        (fr.GRU, {"proj_size": 3}, ValueError, "proj_size: LSTM has it, GRU has not"),
        (fr.RNN, {"peephole": True}, ValueError, "peephole: LSTM has it, RNN has not"),
        (fr.RNN, {"gate_activation": "tanh"}, ValueError, "gate_activation: GRU and LSTM have it"),
        (fr.LSTM, {"reset_after": False}, ValueError, "reset_after: GRU has it, LSTM has not"),
        (fr.LSTM, {"nonlinearity": "relu"}, ValueError, "nonlinearity: RNN has it, LSTM has not"),
        (fr.LSTM, {"units": 3}, TypeError, "LSTM: unexpected argument 'units'"),
        (fr.LSTM, {"proj_size": 9}, ValueError, "proj_size: expected 0 to 8, got 9"),
        (fr.LSTM, {"proj_size": -1}, ValueError, "proj_size: expected an integer from 1"),
        (
            fr.LSTM,
            {"peephole": True, "layer_norm": True},
            ValueError,
            "peephole: expected False with layer_norm=True",
        ),
        (
            fr.GRU,
            {"reset_after": False, "layer_norm": True},
            ValueError,
            "layer_norm: expected False with reset_after=False",
        ),
        (
            fr.GRU,
            {"reset_after": False, "variant": "minimal"},
            ValueError,
            "reset_after: expected True for the minimal GRU",
        ),
        (fr.LSTM, {"clip": 0}, ValueError, "clip: expected a positive finite number, got 0"),
        (fr.LSTM, {"clip": "1"}, TypeError, "clip: expected a positive finite number, got '1'"),
        (
            fr.LSTM,
            {"proj_size": 4, "recurrent_initializer": "identity"},
            ValueError,
            "recurrent_initializer: expected another than 'identity' where proj_size is less",
        ),
        (fr.GRU, {"zoneout_h": 1.0}, ValueError, r"zoneout_h: expected a number in \[0, 1\)"),
        (fr.GRU, {"zoneout_c": 0.1}, ValueError, "zoneout_c: LSTM has it, GRU has not"),
        (fr.RNN, {"recurrent_dropout": -0.1}, ValueError, "recurrent_dropout: expected a number"),
        (fr.RNN, {"layer_norm": 1}, TypeError, "layer_norm: expected True or False, got 1"),
        (
            fr.LSTM,
            {"state_activation": "gelu"},
            ValueError,
            "state_activation: expected one of sigmoid, tanh, relu, hard_sigmoid, identity, got",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    kind: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind(4, 8, **options)


def test_the_docstring_names_every_option() -> None:
    for kind in (fr.LSTM, fr.GRU, fr.RNN):
        for name in kind(2, 3).config():
            assert name in (kind.__doc__ or ""), name
