"""The norms of the gradients that reach h, taken on the way of BPTT."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_kernels import (
    PLAIN,
    Case,
    assert_same_bits,
    assert_threads_and_instruction_sets_agree,
    by_kernels,
    make_case,
    pack_of,
    run_forward,
)
from test_layer_variants import OPTIONS
from variants import NAMED, Config

import fastrnn as fr
from fastrnn import _core, config, reference
from fastrnn.layers.recurrent import Recurrent
from fastrnn.reference import layer as reference_layer
from fastrnn.reference.stack import KINDS

EVERY: dict[str, Config] = {**{c.cell: c for c in PLAIN}, **NAMED}
EVERY = {name: c for name, c in EVERY.items() if c.variant.training}
every = pytest.mark.parametrize("name", EVERY)

# As options of layers; with zoneout or dropout of their own, two calls would draw other masks.
PLAIN_LAYERS: list[tuple[type[Recurrent], dict[str, Any]]] = [
    (fr.LSTM, {}),
    (fr.GRU, {}),
    (fr.GRU, {"variant": "minimal"}),
    (fr.RNN, {}),
    (fr.RNN, {"nonlinearity": "relu"}),
]
DRAWS = {"zoneout_h", "zoneout_c", "recurrent_dropout"}
WITHOUT_MASKS = PLAIN_LAYERS + [(kind, o) for kind, o in OPTIONS if not DRAWS & o.keys()]


def flow_by_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(B, T): of the gradients that the reference asks zoneout's masks for, first of all in a step
    of its BPTT: all that reaches h.
    """
    g = case.given
    reaching: dict[int, Any] = {}

    def seen(variant: Any, steps: Any, step: int, state: Any) -> Any:
        reaching[step] = state[0].copy()
        return zoneout(variant, steps, step, state)

    zoneout = reference_layer.zoneout
    *_, tape = reference.forward(
        case.config.cell, g["x"], g["h0"], g["c0"], lengths=case.lengths, reverse=case.reverse,
        variant=case.config.variant, **{kind: g.get(kind) for kind in KINDS},
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(reference_layer, "zoneout", seen)
        reference.backward(tape, g["dy"], g["dh_n"], g["dc_n"])
    flow = np.zeros(g["x"].shape[:2])
    for step, span in enumerate(tape.steps.spans):
        squares = np.square(reaching[step], dtype=np.float64).sum(axis=1)
        flow[tape.steps.rows[span], tape.steps.times[span]] = squares
    return flow


# --- What the core gives ------------------------------------------------------------------------


@every
@pytest.mark.parametrize("size", [(1, 1, 1, 7), (3, 5, 2, 17), (13, 4, 20, 100)])
def test_it_is_that_of_the_reference(
    isa: str, dtype: np.dtype, name: str, size: tuple[int, int, int, int], rng: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if dtype == np.float32 and EVERY[name].variant.clip is not None:
        pytest.skip("a bit more or less turns a gradient on or off where clip is met")
    for ragged, reverse in itertools.product((False, True), repeat=2):
        case = make_case(rng, EVERY[name], dtype, size, ragged, reverse)
        got, want = by_kernels(case, flow=True)["flow"], flow_by_reference(case, monkeypatch)
        bound = 1e-4 if dtype == np.float32 else 1e-11
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound * want.max())


@every
def test_gradients_have_the_bits_that_they_have_without(
    dtype: np.dtype, name: str, rng: Any
) -> None:
    case = make_case(rng, EVERY[name], dtype, (5, 6, 7, 40), ragged=True)
    with_flow = by_kernels(case, flow=True)
    assert np.isfinite(with_flow.pop("flow")).all()
    assert_same_bits(by_kernels(case), with_flow)


@pytest.mark.usefixtures("restore_threads")
@every
def test_same_bits_on_any_threads_and_instruction_set(dtype: np.dtype, name: str, rng: Any) -> None:
    """Threads own units of the one row, of the seven too, and rows of the 29."""
    for size, ragged in (((1, 7, 9, 130), False), ((29, 9, 33, 100), True), ((7, 9, 5, 200), True)):
        case = make_case(rng, EVERY[name], dtype, size, ragged, reverse=ragged)
        assert_threads_and_instruction_sets_agree(case, flow=True)


@every
def test_same_bits_for_a_row_alone(isa: str, dtype: np.dtype, name: str, rng: Any) -> None:
    variant = replace(EVERY[name].variant, zoneout_h=0.0, zoneout_c=0.0, recurrent_dropout=0.0)
    case = make_case(rng, replace(EVERY[name], variant=variant), dtype, (7, 6, 5, 50), ragged=True)
    whole = by_kernels(case, flow=True)["flow"]
    by_row = {"x", "h0", "c0", "dy", "dh_n", "dc_n"}
    for row in range(7):
        part = slice(row, row + 1)
        given = {k: v[part] if k in by_row and v is not None else v for k, v in case.given.items()}
        alone = by_kernels(Case(case.config, given, case.lengths[part], False), flow=True)["flow"]
        assert alone.tobytes() == whole[part].tobytes()


@pytest.mark.usefixtures("restore_threads")
@every
def test_same_bits_with_checkpoints(name: str, rng: Any) -> None:
    for size, reverse, threads in (((3, 400, 4, 17), False, 1), ((37, 33, 5, 40), True, 2)):
        fr.set_num_threads(threads)
        case = make_case(rng, EVERY[name], np.dtype("float32"), size, ragged=True, reverse=reverse)
        whole = by_kernels(case, flow=True)
        for steps in (1, 16, 150):
            assert_same_bits(by_kernels(case, flow=True, checkpoint_every=steps), whole)


@pytest.mark.parametrize("name", ["lstm", "gru_before", "lstm_input all but layer norm"])
def test_it_is_zero_past_a_length(name: str, rng: Any) -> None:
    case = make_case(rng, EVERY[name], np.dtype("float32"), (4, 5, 3, 9))
    for lengths in ([5, 0, 3, 1], [0, 0, 0, 0]):
        case.lengths = np.array(lengths)
        for steps in (0, 2):
            flow = by_kernels(case, flow=True, checkpoint_every=steps)["flow"]
            np.testing.assert_array_equal(flow > 0, np.arange(5) < case.lengths[:, None])
            np.testing.assert_array_equal(flow[flow <= 0], 0)


def test_what_vanishes_in_float32_shows(rng: Any) -> None:
    """The square of 1e-30 is no float32."""
    case = make_case(rng, Config("gru"), np.dtype("float32"), (2, 4, 3, 20))
    whole = by_kernels(case, flow=True)["flow"]
    for name in ("dy", "dh_n"):
        case.given[name] = case.given[name] * np.float32(2.0**-100)
    small = by_kernels(case, flow=True)["flow"]
    np.testing.assert_allclose(small, whole * 2.0**-200, rtol=1e-6)


def test_the_seam_refuses_what_does_not_fit(rng: Any) -> None:
    case = make_case(rng, Config("gru"), np.dtype("float32"), (2, 3, 4, 5))
    pack = pack_of(case, training=True)
    tape = run_forward(pack, case.given["x"], None, training=True)

    def run(*flow: Any) -> None:
        _core.backward(
            tape, 0, 1, case.given["dy"], None, None, False, None, None, ((None,) * 9,), flow
        )

    with pytest.raises(ValueError, match="flow: expected 1, got 2"):
        run(np.empty((2, 3)), np.empty((2, 3)))
    with pytest.raises(ValueError, match=r"flow: expected \(2, 3\), got \(3, 2\)"):
        run(np.empty((3, 2)))
    with pytest.raises(TypeError, match="flow: expected float64, got float32"):
        run(np.empty((2, 3), np.float32))
    with pytest.raises(ValueError, match="flow: expected a C-contiguous array"):
        run(np.empty((3, 2)).T)
    with pytest.raises(ValueError, match="flow: expected memory of its own, got some of dy's"):
        run(case.given["dy"].reshape(-1)[:12].view(np.float64).reshape(2, 3))
    flow = np.full((2, 3), np.nan)
    run(flow)
    assert (flow > 0).all()


# --- What layers give ---------------------------------------------------------------------------


def watched(layer: Recurrent) -> list[Any]:
    """A list that each pullback of the layer adds its flow to."""
    flows: list[Any] = []
    layer.on_gradient = flows.append
    return flows


@pytest.mark.parametrize("kind, options", WITHOUT_MASKS)
def test_it_is_what_two_calls_hand_back_and_forth(
    kind: Any, options: dict[str, Any], rng: Any
) -> None:
    """dL/dh_t is dy_t and what the call for all later steps gives for the state it begins with."""
    layer = kind(5, 17, dtype="float64", seed=3, **options)
    flows = watched(layer)
    x = rng.standard_normal((3, 6, 5))
    (y, _), pullback = layer.vjp(x)
    dy = rng.standard_normal(y.shape)
    dfinal: Any = rng.standard_normal(layer.state_shapes(3)[0])
    if layer.has_c:
        dfinal = dfinal, rng.standard_normal(layer.state_shapes(3)[1])
    pullback(dy, dfinal)
    (flow,) = flows
    assert flow.shape == (1, 3, 6) and flow.dtype == np.float64
    layer.on_gradient = None
    for t in range(6):
        later = dfinal
        if t < 5:
            _, state = layer(x[:, : t + 1])
            _, pullback = layer.vjp(x[:, t + 1 :], state)
            _, later = pullback(dy[:, t + 1 :], dfinal)
        dh = dy[:, t] + (later[0] if layer.has_c else later)[0]
        np.testing.assert_allclose(flow[0, :, t], np.square(dh).sum(axis=1), rtol=1e-11)


@pytest.mark.parametrize("kind, options", [*PLAIN_LAYERS, (fr.LSTM, {"proj_size": 3})])
def test_layers_and_directions_in_the_order_of_states(
    kind: Any, options: dict[str, Any], rng: Any
) -> None:
    """Two layers in both directions have the bits of four alone, turned round by hand."""
    layer = kind(5, 17, 2, bidirectional=True, seed=3, **options)
    flows = watched(layer)
    values = layer.state_dict()
    alone: list[Any] = []
    for k, suffix in itertools.product(range(2), ("", "_reverse")):
        tail = f"_l{k}{suffix}"
        single = kind(5 if k == 0 else 2 * layer.output_size, 17, **options)
        names = {name.removesuffix("_l0"): name for name in single.parameters()}
        single.load_state_dict({name: values[short + tail] for short, name in names.items()})
        alone.append((single, watched(single)))

    def run(k: int, x: Any) -> Any:
        ways = [slice(None), slice(None, None, -1)]
        results = [
            single.vjp(x[:, way]) for (single, _), way in zip(alone[2 * k :], ways, strict=False)
        ]
        outputs = [y[:, way] for ((y, _), _), way in zip(results, ways, strict=True)]

        def back(dy: Any) -> Any:
            parts = np.split(dy, 2, axis=2)
            return sum(
                pullback(part[:, way].copy())[0][:, way]
                for (_, pullback), part, way in zip(results, parts, ways, strict=True)
            )

        return np.concatenate(outputs, axis=2), back

    x = rng.standard_normal((3, 6, 5)).astype("float32")
    with config.using(gemm="native"):
        (y, _), pullback = layer.vjp(x)
        dy = rng.standard_normal(y.shape).astype("float32")
        pullback(dy)
        between, first_back = run(0, x)
        again, second_back = run(1, between)
        first_back(second_back(dy))
    assert again.tobytes() == y.tobytes()
    for k, (_, (flow,)) in enumerate(alone):
        turned = flow[0, :, ::-1] if k % 2 else flow[0]
        np.testing.assert_array_equal(flows[0][k], turned)


def test_dropout_between_layers_is_on_the_way(rng: Any) -> None:
    """With a mask that drops all of them, nothing reaches the first layer."""
    x = rng.standard_normal((2, 5, 3)).astype("float32")
    strengths = []
    for dropout in (0.0, 0.999):
        layer = fr.GRU(3, 8, 2, dropout=dropout, seed=1)
        flows = watched(layer)
        (y, _), pullback = layer.vjp(x)
        pullback(np.ones_like(y))
        strengths.append(flows[0].sum(axis=(1, 2)))
    (first, second), (dropped, kept) = strengths
    assert min(first, second, kept) > 0 and dropped == 0


def test_the_shape_is_the_same_time_first(rng: Any) -> None:
    x = rng.standard_normal((2, 7, 3)).astype("float32")
    got = []
    for first in (True, False):
        layer = fr.LSTM(3, 8, 2, batch_first=first, seed=1)
        flows = watched(layer)
        (y, _), pullback = layer.vjp(x if first else x.swapaxes(0, 1), lengths=[7, 4])
        pullback(np.ones_like(y))
        got += flows
    assert got[0].shape == (2, 2, 7)
    np.testing.assert_array_equal(got[0], got[1])


def test_without_sequences_the_output_is_the_last_step(rng: Any) -> None:
    x = rng.standard_normal((2, 7, 3)).astype("float32")
    dy = rng.standard_normal((2, 16)).astype("float32")
    layer = fr.GRU(3, 8, bidirectional=True, return_sequences=False, seed=1)
    flows = watched(layer)
    layer.vjp(x, lengths=[7, 4])[1](dy)
    last = np.square(dy, dtype=np.float64).reshape(2, 2, 8).sum(axis=2)
    np.testing.assert_allclose(flows[0][0, [0, 1], [6, 3]], last[:, 0], rtol=1e-14)
    np.testing.assert_allclose(flows[0][1, :, 0], last[:, 1], rtol=1e-14)
    assert not flows[0][:, 1, 4:].any() and (flows[0][:, 0] > 0).all()


@pytest.mark.parametrize("batch_first", [True, False])
@config.using(gemm="native")
def test_masked_steps_have_none(batch_first: bool, rng: Any) -> None:
    x = rng.standard_normal((2, 5, 4)).astype("float32")
    mask = np.array([[True, False, True, True, False], [False, True, False, False, False]])
    layer = fr.LSTM(4, 8, 2, batch_first=batch_first, bidirectional=True, seed=1)
    flows = watched(layer)
    turned = (lambda a: a) if batch_first else (lambda a: a.swapaxes(0, 1))
    (y, _), pullback = layer.vjp(turned(x), mask=turned(mask))
    pullback(np.ones_like(y))
    for row, valid in enumerate(mask):
        (y, _), pullback = layer.vjp(turned(x[row : row + 1, valid]))
        pullback(np.ones_like(y))
        np.testing.assert_array_equal(flows[0][:, row, valid], flows[-1][:, 0])
    assert flows[0].shape == (4, 2, 5) and not flows[0][:, ~mask].any()


# --- The hook -----------------------------------------------------------------------------------


def test_each_pullback_calls_once_when_all_is_done(rng: Any) -> None:
    x = rng.standard_normal((2, 4, 3)).astype("float32")
    layer = fr.GRU(3, 8, seed=1)
    assert layer.on_gradient is None
    calls = []

    def on_gradient(flow: Any) -> None:
        gradient = layer.parameters()["weight_hh_l0"].grad
        assert gradient is not None
        calls.append((flow, gradient.copy()))

    pullbacks = [layer.vjp(x)[1] for _ in range(3)]
    pullbacks[0](np.ones((2, 4, 8), "float32"))
    layer.on_gradient = on_gradient
    pullbacks[1](np.ones((2, 4, 8), "float32"))
    with pytest.raises(RuntimeError, match="called a second time"):
        pullbacks[1](np.ones((2, 4, 8), "float32"))
    layer.on_gradient = None
    pullbacks[2](np.ones((2, 4, 8), "float32"))
    ((flow, gradient),) = calls
    assert flow.shape == (1, 2, 4)
    total = layer.parameters()["weight_hh_l0"].grad
    assert total is not None
    np.testing.assert_allclose(gradient * 1.5, total, rtol=1e-5, atol=1e-6)


def test_nothing_is_made_unless_wanted(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    made = []
    empty = np.empty

    def seen(*args: Any, **options: Any) -> Any:
        made.append(args[0])
        return empty(*args, **options)

    layer = fr.RNN(3, 4, 2, bidirectional=True, seed=1)
    x = rng.standard_normal((2, 5, 3)).astype("float32")
    monkeypatch.setattr(np, "empty", seen)
    for hook in (None, [].append):
        assert made == []
        layer.on_gradient = hook
        layer.vjp(x)[1](np.ones((2, 5, 8), "float32"))
    assert made == [(4, 2, 5)]


def test_copies_do_not_watch() -> None:
    layer = fr.LSTM(3, 4, 2, seed=1)
    layer.on_gradient = lambda flow: None  # which no pickle takes
    hook = layer.on_gradient
    others = copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    for other in (*others, layer.to("float64")):
        assert other.on_gradient is None
    assert layer.on_gradient is hook
