"""What the diagnostics measure: against NumPy by hand, known half-lives, known spectra."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastrnn as fr
from fastrnn.diagnostics import (
    Flow,
    dead_units,
    distances,
    flow_picture,
    flow_trend,
    gate_saturation,
    gradient_flow,
    in_columns,
    look_inside,
    movement,
    reach,
    recurrent_layers,
    recurrent_radii,
    spectral_radius,
    strand_names,
)
from fastrnn.diagnostics.verdict import EXPLODED, VANISHED, in_words, verdict
from fastrnn.layers.recurrent import Recurrent
from fastrnn.reference import sigmoid

Floats = NDArray[np.float64]


def orthogonal(size: int, seed: int = 0) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


# --- Gradient flow ------------------------------------------------------------------------------


def flow_by_hand(squares: Floats, lengths: Any, directions: int) -> list[list[float]]:
    """Row by row and step by step: the root mean square by the distance from a row's last step."""
    found = []
    for strand, of_strand in enumerate(squares):
        by_distance: dict[int, list[float]] = {}
        for row, length in zip(of_strand, lengths, strict=True):
            own = row[:length] if strand % directions else row[:length][::-1]
            for distance, value in enumerate(own):
                by_distance.setdefault(distance, []).append(value)
        found.append([math.sqrt(np.mean(by_distance[d])) for d in sorted(by_distance)])
    return found


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 2, 5], [3, 3, 1], [0, 6, 4]])
def test_rows_are_aligned_at_their_ends(directions: int, lengths: list[int], rng: Any) -> None:
    squares = rng.uniform(0.1, 2, (2 * directions, 3, 7))
    squares *= np.arange(7) < np.array(lengths)[:, None]
    for got, want in zip(
        gradient_flow(squares, directions), flow_by_hand(squares, lengths, directions), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_a_row_ends_where_the_loss_last_reaches_it() -> None:
    """Whatever else it is padded with: a loss that leaves the last two steps out is no distance."""
    squares = np.array([[[1.0, 4.0, 16.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(gradient_flow(squares)[0], [4.0, 2.0, 1.0])
    both = np.concatenate([squares, [[[0.0, 9.0, 1.0, 0.0, 0.0]]]])
    forward, back = gradient_flow(both, 2)
    np.testing.assert_array_equal(forward, [4.0, 2.0, 1.0])
    np.testing.assert_array_equal(back, [3.0, 1.0])  # its last step is the sequence's first


def test_what_vanished_within_a_row_is_zero_and_counts(rng: Any) -> None:
    squares = np.array([[[0.0, 0.0, 4.0], [1.0, 4.0, 0.0]]])
    np.testing.assert_allclose(gradient_flow(squares)[0], [2.0, math.sqrt(0.5), 0.0])


def test_batches_are_averaged_whatever_their_sizes(rng: Any) -> None:
    flow, alone = Flow(2), []
    for rows, time in ((3, 5), (2, 9), (3, 5), (4, 9), (1, 1)):
        squares = rng.uniform(0.1, 2, (2, rows, time))
        squares[:, 0, time - time // 3 :] = 0
        flow.add(squares)
        alone.append(gradient_flow(squares, 2))
    for strand, got in enumerate(flow.mean()):
        for distance, value in enumerate(got):
            have = [one[strand][distance] for one in alone if len(one[strand]) > distance]
            np.testing.assert_allclose(value, np.mean(have), rtol=1e-14)
    assert [len(one) for one in flow.mean()] == [9, 9]
    assert Flow().mean() == []


def test_a_flow_goes_on_from_its_state(rng: Any) -> None:
    arrays = [rng.uniform(size=(2, 3, time)) for time in (4, 9, 4)]
    whole, first, second = Flow(), Flow(), Flow()
    for place, squares in enumerate(arrays):
        whole.add(squares)
        (second if place else first).add(squares)
        if not place:
            second.add(squares)
            second.set_state(first.state())
    for got, want in zip(second.mean(), whole.mean(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-15)


def test_many_batches_do_not_pile_up(rng: Any) -> None:
    flow, squares = Flow(), rng.uniform(size=(1, 100, 1000))
    for _ in range(12):
        flow.add(squares)
    assert len(flow._pending) < 6
    np.testing.assert_allclose(flow.mean()[0], gradient_flow(squares)[0], rtol=1e-14)


def test_nan_is_kept() -> None:
    squares = np.array([[[np.nan, np.inf, 1.0], [np.nan, 1.0, 1.0]]])
    np.testing.assert_array_equal(gradient_flow(squares)[0], [1.0, np.inf, np.nan])
    np.testing.assert_array_equal(
        gradient_flow(np.array([[[np.nan, 1.0, 0.0], [1.0, 1.0, 1.0]]]))[0], [1.0, np.nan, 1.0]
    )


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"squares: expected \(num_layers \* 2, batch, time\)"):
        gradient_flow(np.ones((3, 2, 4)), 2)
    with pytest.raises(ValueError, match="squares: expected"):
        gradient_flow(np.ones((2, 4)))


def test_long_flows_are_binned(rng: Any) -> None:
    flow = rng.uniform(size=50)
    assert in_columns(flow, 50) is flow
    np.testing.assert_allclose(
        in_columns(flow[:7], 3), [flow[:3].mean(), flow[3:6].mean(), flow[6]]
    )
    np.testing.assert_array_equal(distances(7, 3), [1, 4, 6])
    assert len(in_columns(np.ones(10_001))) == len(distances(10_001)) <= 200


def test_a_picture_of_flows_of_several_lengths() -> None:
    flows = [in_columns(np.arange(float(n))) for n in (3, 5, 0)]
    np.testing.assert_array_equal(
        flow_picture(flows, [3, 5, 0]),
        [[np.nan, np.nan, 2, 1, 0], [4, 3, 2, 1, 0], [np.nan] * 5],
    )
    long, short = in_columns(np.arange(1000.0)), np.arange(150.0)
    picture = flow_picture([long, short], [1000, 150])
    assert picture.shape == (2, 200)
    np.testing.assert_array_equal(picture[0, ::-1], long)
    at = distances(1000)[:30].astype(int)
    np.testing.assert_array_equal(picture[1, ::-1][:30], at)
    assert np.isnan(picture[1, ::-1][30:]).all()


# --- Trends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half_life", "time"), [(0.7, 5), (0.7, 80), (3.0, 80), (25.0, 2500), (-4.0, 80), (-30.0, 2500)]
)
def test_a_half_life_is_found(half_life: float, time: int) -> None:
    flow = 3.0 * 2.0 ** (-np.arange(float(time)) / half_life)
    whole, binned = flow_trend(flow), flow_trend(in_columns(flow), distances(time))
    assert whole.rate == pytest.approx(-1 / half_life)
    assert binned.rate == pytest.approx(-1 / half_life, rel=1e-3)
    assert whole.every == pytest.approx(abs(half_life))


def test_noise_does_not_hide_it(rng: Any) -> None:
    flow = 2.0 ** (-np.arange(100) / 9) * rng.lognormal(0, 0.5, 100)
    assert flow_trend(flow).every == pytest.approx(9, rel=0.1)


def test_distance_zero_is_left_out() -> None:
    flow = np.array([100.0, 1.0, 0.5, 0.25, 0.125])
    trend = flow_trend(flow)
    assert (trend.every, trend.ratio, trend.steps) == (pytest.approx(1), 0.125, 3)
    assert flow_trend([4.0, 2.0]).ratio == 0.5  # where there is enough without


def test_the_way_to_where_it_differs_most_counts() -> None:
    """As below a bidirectional layer, which feeds it at both ends."""
    down = 2.0 ** -np.arange(20.0)
    trend = flow_trend(np.concatenate([down, down[::-1]]))
    assert trend.every == pytest.approx(1, rel=0.01)
    assert (trend.ratio, trend.steps) == (2.0**-18, 18)
    up = flow_trend([1.0, 1.0, 1.1, 5.0, 900.0, 20.0])
    assert (up.ratio, up.steps) == (900.0, 3) and up.rate > 0


def test_verdicts() -> None:
    at = np.arange(100.0)
    for every, word in ((3, "vanishing"), (30, "healthy"), (-3, "exploding"), (-30, "healthy")):
        assert verdict(flow_trend(2.0 ** (-at / every))) == word
    assert verdict(flow_trend(np.ones(50))) == "healthy"
    assert in_words(flow_trend(np.ones(50))) == "hardly changes"
    assert in_words(flow_trend(2.0 ** (-at / 3))) == "halves every 3 steps back"
    assert in_words(flow_trend(2.0**at)) == "doubles every 1 step back"
    assert verdict(flow_trend([1.0, 1.0, 0.9 * VANISHED, 0.9 * VANISHED])) == "vanishing"
    assert verdict(flow_trend([1.0, 1.0, 1.1 * VANISHED, 1.1 * VANISHED])) == "healthy"
    assert verdict(flow_trend([1.0, 1.0, 0.9 * EXPLODED, 0.9 * EXPLODED])) == "healthy"
    assert verdict(flow_trend([1.0, 1.0, 1.1 * EXPLODED, 1.1 * EXPLODED])) == "exploding"
    gone = flow_trend([1.0, 0.5, 0.25, 0.0, 0.0])
    assert (verdict(gone), gone.ratio, gone.steps, gone.rate) == ("vanishing", 0.0, 2, -1.0)
    at_once = flow_trend([1.0, 1.0, 0.0, 0.0])
    assert verdict(at_once) == "vanishing" and in_words(at_once) == "is gone at once"
    for bad in (math.nan, math.inf):
        trend = flow_trend([1.0, 2.0, bad])
        assert verdict(trend) == "exploding" and in_words(trend) == "is not a finite number"
    for few in ([], [1.0], [0.0, 0.0, 0.0, 0.0]):
        assert verdict(flow_trend(few)) == "unknown"


def test_where_every_step_has_a_loss_gradients_add_up() -> None:
    """A thousand times after ten thousand steps is what the sums of equal ones give."""
    adding = flow_trend(np.arange(1.0, 10_001.0))
    assert verdict(adding) == "exploding" and verdict(adding, adds_up=True) == "healthy"
    assert verdict(flow_trend(2.0 ** np.arange(40.0)), adds_up=True) == "exploding"


# --- Real networks with known half-lives --------------------------------------------------------


def flow_of(layer: Recurrent, x: NDArray[Any]) -> list[Floats]:
    """The flow of a loss on the last step alone."""
    seen: list[Floats] = []
    layer.on_gradient = seen.append
    (y, _), pullback = layer.vjp(x)
    dy = np.zeros_like(y)
    dy[:, -1] = 1
    pullback(dy)
    layer.on_gradient = None
    return gradient_flow(seen[0], layer.directions)


def linear_rnn(radius: float) -> fr.RNN:
    """A tanh RNN of that spectral radius, in the part where tanh is a line."""
    layer = fr.RNN(3, 32, bias=False, dtype="float64", seed=0)
    layer.parameters()["weight_hh_l0"].assign(radius * orthogonal(32))
    return layer


@pytest.mark.parametrize(
    ("radius", "word"), [(0.5, "vanishing"), (1.0, "healthy"), (1.5, "exploding")]
)
def test_a_plain_rnn_does_as_its_spectral_radius_says(radius: float, word: str, rng: Any) -> None:
    layer = linear_rnn(radius)
    x = 1e-12 * rng.standard_normal((4, 40, 3))
    assert recurrent_radii(layer)[0]["h"] == pytest.approx(radius)
    for flow in (flow_of(layer, x)[0], reach(layer, x)[0]):
        trend = flow_trend(flow)
        assert verdict(trend) == word
        assert trend.rate == pytest.approx(math.log2(radius), abs=1e-6)
    np.testing.assert_allclose(reach(layer, x)[0], radius ** np.arange(40.0), rtol=1e-6)


@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_an_lstm_does_as_its_forget_bias_says(bias: float, rng: Any) -> None:
    """Where R is small, c is multiplied with sigmoid(bias) in each step, and so is the gradient."""
    layer = fr.LSTM(3, 32, dtype="float64", bias="single", bias_initializer="zeros", seed=0)
    parameters = layer.parameters()
    parameters["weight_hh_l0"].assign(0.01 * parameters["weight_hh_l0"].data)
    with parameters["bias_ih_l0"].writing() as values:
        values[32:64] = bias
    trend = flow_trend(flow_of(layer, 1e-3 * rng.standard_normal((4, 60, 3)))[0])
    keeps = float(sigmoid(np.array([bias]))[0])
    assert trend.rate == pytest.approx(math.log2(keeps), rel=0.01)
    assert verdict(trend) == ("healthy" if bias == 3.0 else "vanishing")


def test_reach_leaves_gradients_and_hooks_alone(rng: Any) -> None:
    layer = fr.GRU(3, 8, 2, bidirectional=True, dropout=0.5, seed=1)
    called: list[Any] = []
    layer.on_gradient = called.append
    x = rng.standard_normal((3, 6, 3)).astype("float32")
    before = layer.random_state()
    first, second = reach(layer, x, [6, 2, 4]), reach(layer, x, [6, 2, 4])
    assert not called and layer.random_state() == before
    assert all(parameter.grad is None for parameter in layer.parameters().values())
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [len(one) for one in first] == [6] * 4
    np.testing.assert_allclose([first[2][0], first[3][0]], 1, rtol=1e-6)  # what enters


def test_reach_of_a_reverse_direction_goes_the_other_way(rng: Any) -> None:
    layer = fr.RNN(3, 16, bidirectional=True, bias=False, dtype="float64", seed=0)
    for name, radius in (("weight_hh_l0", 0.5), ("weight_hh_l0_reverse", 0.9)):
        layer.parameters()[name].assign(radius * orthogonal(16))
    found = reach(layer, 1e-12 * rng.standard_normal((2, 9, 3)), [9, 5])
    for flow, radius in zip(found, (0.5, 0.9), strict=True):
        np.testing.assert_allclose(flow, radius ** np.arange(9.0), rtol=1e-6)


# --- Gates and states ---------------------------------------------------------------------------


def test_gates_of_an_lstm_by_hand(rng: Any) -> None:
    layer = fr.LSTM(3, 5, dtype="float64", seed=0)
    x = rng.standard_normal((1, 4, 3))
    (inside,) = look_inside(layer, x)
    w = layer.state_dict()
    h = c = np.zeros(5)
    for t in range(4):
        u = w["weight_ih_l0"] @ x[0, t] + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = u.reshape(4, 5)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, values in zip("ifgo", (i, f, g, o), strict=True):
            np.testing.assert_allclose(inside.gates[name][t], values, rtol=1e-12)
        np.testing.assert_allclose(inside.states[0][t], h, rtol=1e-12)


VARIANTS = [
    (fr.RNN, {}, "h"),
    (fr.RNN, {"nonlinearity": "relu"}, "h"),
    (fr.RNN, {"nonlinearity": "hard_sigmoid", "layer_norm": True}, "h"),
    (fr.GRU, {}, "rzn"),
    (fr.GRU, {"reset_after": False, "zoneout_h": 0.2}, "rzn"),
    (fr.GRU, {"variant": "minimal", "state_activation": "relu"}, "zn"),
    (fr.LSTM, {"proj_size": 3, "peephole": True, "clip": 1.0}, "ifgo"),
    (fr.LSTM, {"coupled": "f=1-i", "gate_activation": "hard_sigmoid"}, "igo"),
    (fr.LSTM, {"coupled": "i=1-f", "zoneout_c": 0.1, "layer_norm": True}, "fgo"),
    (fr.LSTM, {"bias": "single", "dropout": 0.5, "recurrent_dropout": 0.5}, "ifgo"),
]


@pytest.mark.parametrize("kind, options, names", VARIANTS)
def test_every_variant_can_be_looked_into(
    kind: Any, options: dict[str, Any], names: str, rng: Any
) -> None:
    """The states are those that the layer itself gives for inference."""
    layer = kind(4, 6, 2, bidirectional=True, dtype="float64", seed=0, **options)
    x, lengths = rng.standard_normal((3, 7, 4)), [7, 0, 4]
    strands = look_inside(layer, x, lengths)
    output, state = layer(x, lengths=lengths)
    h = state[0] if layer.has_c else state
    assert len(strands) == len(strand_names(layer)) == len(recurrent_radii(layer)) == 4
    for k, strand in enumerate(strands):
        assert "".join(strand.gates) == names and strand.reverse == (k % 2 == 1)
        assert all(values.shape == (11, 6) for values in strand.gates.values())
        assert [len(row) for row in strand.states] == lengths
        for row in (0, 2):
            end = strand.states[row][0 if strand.reverse else -1]
            np.testing.assert_allclose(end, h[k, row], rtol=1e-10, atol=1e-12)
    top = np.concatenate([strand.states[0] for strand in strands[2:]], axis=1)
    np.testing.assert_allclose(top, output[0], rtol=1e-10, atol=1e-12)


def test_time_first_is_looked_into_alike(rng: Any) -> None:
    first, last = (fr.GRU(3, 5, batch_first=flag, seed=0) for flag in (True, False))
    x = rng.standard_normal((2, 4, 3)).astype("float32")
    one, other = look_inside(first, x), look_inside(last, x.swapaxes(0, 1))
    np.testing.assert_array_equal(one[0].states[1], other[0].states[1])


def test_saturation() -> None:
    values = np.array([0.0, 0.05, 0.0999, 0.1001, 0.5, 0.8999, 0.9001, 1.0])
    assert gate_saturation(values) == (3 / 8, 2 / 8)
    assert gate_saturation(2 * values - 1, "tanh") == (3 / 8, 2 / 8)
    low, high = gate_saturation([0.0, 0.0, 1.0, 3.0], "relu")
    assert low == 0.5 and math.isnan(high)
    for values, activation in (([1.0], "identity"), ([0.5, math.nan], "sigmoid"), ([], "tanh")):
        assert all(math.isnan(share) for share in gate_saturation(values, activation))
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'softmax'"):
        gate_saturation([0.5], "softmax")


def test_gates_that_large_biases_shut_and_open(rng: Any) -> None:
    layer = fr.LSTM(3, 8, bias_initializer="zeros", seed=0)
    with layer.parameters()["bias_ih_l0"].writing() as bias:
        bias[:8], bias[8:16] = -20, 20
    (inside,) = look_inside(layer, rng.standard_normal((2, 5, 3)).astype("float32"))
    assert gate_saturation(inside.gates["i"]) == (1.0, 0.0)
    assert gate_saturation(inside.gates["f"]) == (0.0, 1.0)
    assert max(gate_saturation(inside.gates["o"])) < 0.5


def test_dead_units(rng: Any) -> None:
    states = rng.uniform(-1, 1, (20, 6))
    states[:, 1], states[:, 4] = 0, 0.9 + 1e-5 * rng.standard_normal(20)
    states[3, 5] = 1
    assert dead_units(states).tolist() == [False, True, False, False, True, False]
    assert dead_units(1e-9 * states).tolist() == [False, True, False, False, True, False]
    assert dead_units(np.zeros((3, 2))).all()
    assert not dead_units(np.ones((1, 2))).any()
    with pytest.raises(ValueError, match=r"states: expected \(steps, units\), got \(3,\)"):
        dead_units([1.0, 2.0, 3.0])


def test_dead_relus_of_a_network(rng: Any) -> None:
    layer = fr.RNN(3, 10, nonlinearity="relu", bias_initializer="zeros", seed=0)
    with layer.parameters()["bias_ih_l0"].writing() as bias:
        bias[:4] = -100
    (inside,) = look_inside(layer, rng.standard_normal((2, 9, 3)).astype("float32"))
    assert dead_units(np.concatenate(inside.states))[:4].all()
    assert dead_units(np.concatenate(inside.states)).sum() == 4


def test_movement() -> None:
    states = np.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(movement(states), [5, 0, 5])
    np.testing.assert_array_equal(movement(states, reverse=True), [0, 5, 0])
    with pytest.raises(ValueError, match=r"states: expected \(time, units\)"):
        movement([1.0])


# --- Spectra ------------------------------------------------------------------------------------


def test_spectral_radius() -> None:
    assert spectral_radius(0.7 * orthogonal(20)) == pytest.approx(0.7)
    assert spectral_radius([[2.0, 0.0], [5.0, -3.0]]) == pytest.approx(3)
    assert spectral_radius([[0.0, -4.0], [4.0, 0.0]]) == pytest.approx(4)  # a complex pair
    assert spectral_radius(np.triu(np.ones((5, 5)), 1)) == pytest.approx(0, abs=1e-2)
    assert math.isnan(spectral_radius([[1.0, math.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"matrix: expected a square one, got \(2, 3\)"):
        spectral_radius(np.ones((2, 3)))


def test_radii_are_by_block_layer_and_direction() -> None:
    layer = fr.LSTM(3, 6, 2, bidirectional=True, seed=0)
    radii = iter(np.linspace(0.1, 1.6, 16))
    for name in strand_names(layer):
        blocks = [next(radii) * orthogonal(6) for _ in range(4)]
        layer.parameters()[f"weight_hh_{name}"].assign(np.concatenate(blocks))
    found = [one[gate] for one in recurrent_radii(layer) for gate in "ifgo"]
    np.testing.assert_allclose(found, np.linspace(0.1, 1.6, 16), rtol=1e-5)


def test_a_projection_is_part_of_the_way() -> None:
    layer = fr.LSTM(3, 4, proj_size=2, dtype="float64", seed=0)
    weights = layer.state_dict()
    (found,) = recurrent_radii(layer)
    for k, gate in enumerate("ifgo"):
        block = weights["weight_hh_l0"][4 * k : 4 * k + 4]
        both_ways = np.abs(np.linalg.eigvals(block @ weights["weight_hr_l0"])).max()
        assert found[gate] == pytest.approx(both_ways)


def test_recurrent_layers_of_models_and_of_what_holds_them() -> None:
    class Two(fr.Sequential):
        def __init__(self) -> None:
            super().__init__([fr.Dense(2, 2)])
            del self.layers
            self.encoder = fr.Sequential([fr.GRU(2, 3), fr.Dense(3, 2)])
            self.decoder, self.head = fr.LSTM(2, 3), fr.Dense(3, 1)

    model = fr.Sequential([fr.Embedding(9, 4), fr.RNN(4, 4), fr.LSTM(4, 4), fr.Dense(4, 1)])
    assert list(recurrent_layers(model)) == ["1.rnn", "2.lstm"]
    assert recurrent_layers(model)["2.lstm"] is model.layers[2]
    two = Two()
    assert list(recurrent_layers(two)) == ["encoder.0.gru", "decoder"]
    two.also = two.decoder
    assert list(recurrent_layers(two)) == ["encoder.0.gru", "decoder"]
