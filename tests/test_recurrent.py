"""RNN, GRU and LSTM as layers: PyTorch's golden numbers, states, lengths, steps, vjp."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import golden
import numpy as np
import pytest

import fastrnn as fr
from fastrnn import config, reference

LAYERS = {
    "rnn_tanh": fr.RNN,
    "rnn_relu": fr.RNN,
    "gru": fr.GRU,
    "gru_minimal": fr.GRU,
    "lstm": fr.LSTM,
    "lstm_input": fr.LSTM,
    "lstm_forget": fr.LSTM,
}
_OPTIONS = {
    "rnn_relu": {"nonlinearity": "relu"},
    "gru_minimal": {"variant": "minimal"},
    "lstm_input": {"coupled": "f=1-i"},
    "lstm_forget": {"coupled": "i=1-f"},
}


def make_layer(cell: str, *sizes: int, **options: Any) -> Any:
    return LAYERS[cell](*sizes, **_OPTIONS.get(cell, {}), **options)


def normal(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> Any:
    return rng.standard_normal(shape).astype(dtype)


# --- Right numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("gemm", config.GEMMS)
@pytest.mark.parametrize("case", golden.cases(), ids=str)
def test_golden_vectors_of_pytorch(isa: str, gemm: str, case: golden.Case) -> None:
    c = case.config
    for batch_first in (True, False):
        layer = make_layer(
            c.cell, c.input_size, c.hidden_size, c.num_layers, bias=c.bias,
            bidirectional=c.bidirectional, batch_first=batch_first, dtype=case.x.dtype,
        )  # fmt: skip
        layer.load_state_dict(case.weights)
        lstm = c.cell == "lstm"
        x, dy = (a if batch_first else a.transpose(1, 0, 2) for a in (case.x, case.dy))
        state = None
        if case.h0 is not None:
            state = (case.h0, case.c0) if lstm else case.h0
        dstate = (case.dh_n, case.dc_n) if lstm else case.dh_n
        with config.using(gemm=gemm):
            (y, final), pullback = layer.vjp(x, state, c.lengths)
            dx, dinitial = pullback(dy, dstate)
        if not batch_first:
            y, dx = y.transpose(1, 0, 2), dx.transpose(1, 0, 2)
        case.check("y", y)
        case.check("dx", dx)
        for names, values in ((("h_n", "c_n"), final), (("dh0", "dc0"), dinitial)):
            for name, value in zip(names, values if lstm else (values,), strict=False):
                case.check(name, value)
        for name, parameter in layer.parameters().items():
            assert parameter.grad is not None
            case.check(name, parameter.grad)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", LAYERS)
def test_layers_agree_with_the_reference(cell: str, bidirectional: bool, rng: Any) -> None:
    layer = make_layer(cell, 5, 19, 3, bidirectional=bidirectional, dtype="float64", seed=1)
    x, lengths = normal(rng, 7, 6, 5, dtype="float64"), rng.integers(0, 7, 7)
    (y, _), pullback = layer.vjp(x, lengths=lengths)
    dy = normal(rng, *y.shape, dtype="float64")
    dx, _ = pullback(dy)
    want = reference.layer_forward(cell, x, layer.state_dict(), 3, bidirectional, lengths=lengths)
    dx_want, _, _, grads = reference.layer_backward(want[-1], dy)
    np.testing.assert_allclose(y, want[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(dx, dx_want, rtol=1e-11, atol=1e-12)
    for name, parameter in layer.parameters().items():
        np.testing.assert_allclose(parameter.grad, grads[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cell", LAYERS)
def test_steps_have_the_bits_of_the_whole_sequence(isa: str, cell: str, rng: Any) -> None:
    layer = make_layer(cell, 5, 33, 2, seed=1)
    x = normal(rng, 3, 6, 5)
    with config.using(gemm="native"):
        y, final = layer(x)
        state = layer.initial_state(3)
        for t in range(6):
            y_t, state = layer.step(x[:, t], state)
            assert y_t.tobytes() == y[:, t].tobytes()
    for a, b in zip(state, final, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_return_sequences_false_is_the_last_valid_h(
    batch_first: bool, bidirectional: bool, rng: Any
) -> None:
    options = {"batch_first": batch_first, "bidirectional": bidirectional, "seed": 3}
    layer = fr.LSTM(4, 6, 2, return_sequences=False, **options)
    full = fr.LSTM(4, 6, 2, **options)
    x = normal(rng, 5, 7, 4)
    lengths = [3, 7, 1, 4, 7]
    x_ = x if batch_first else x.transpose(1, 0, 2)
    (last, _), pullback = layer.vjp(x_, lengths=lengths)
    (y, _), full_pullback = full.vjp(x_, lengths=lengths)
    y_ = y if batch_first else y.transpose(1, 0, 2)
    ends = np.array(lengths) - 1
    forward = y_[np.arange(5), ends, :6]
    want = np.concatenate([forward, y_[:, 0, 6:]], axis=1) if bidirectional else forward
    np.testing.assert_array_equal(last, want)

    dlast = normal(rng, *last.shape)
    dy = np.zeros_like(y_)
    dy[np.arange(5), ends, :6] = dlast[:, :6]
    if bidirectional:
        dy[:, 0, 6:] += dlast[:, 6:]
    dx, _ = pullback(dlast)
    full_dx, _ = full_pullback(dy if batch_first else dy.transpose(1, 0, 2))
    np.testing.assert_allclose(dx, full_dx, rtol=1e-5, atol=1e-6)


def test_single_bias_is_the_input_bias_alone(rng: Any) -> None:
    single, both = fr.GRU(3, 5, bias="single", seed=1), fr.GRU(3, 5, seed=1)
    assert "bias_hh_l0" not in single.parameters()
    weights = single.state_dict()
    both.load_state_dict({**weights, "bias_hh_l0": np.zeros(15, np.float32)})
    x = normal(rng, 2, 4, 3)
    np.testing.assert_array_equal(single(x)[0], both(x)[0])


def test_dropout_acts_between_layers_in_training_alone(rng: Any) -> None:
    plain, layer = fr.LSTM(4, 50, 2, seed=1), fr.LSTM(4, 50, 2, dropout=0.4, seed=1)
    x = normal(rng, 2, 3, 4)
    np.testing.assert_array_equal(plain(x)[0], layer(x)[0])
    (one, _), pullback = layer.vjp(x)
    (two, _), _ = layer.vjp(x)
    assert not np.array_equal(one, two), "each call has a mask of its own"
    again = fr.LSTM(4, 50, 2, dropout=0.4, seed=1)
    np.testing.assert_array_equal(again.vjp(x)[0][0], one)
    # The first layer's h is not dropped, so its state is that of the plain layer.
    np.testing.assert_array_equal(layer.vjp(x)[0][1][0][0], plain(x)[1][0][0])
    dx, _ = pullback(np.ones_like(one))
    assert np.isfinite(dx).all() and dx.any()


def test_dropout_gradient_goes_through_the_same_mask(rng: Any) -> None:
    """Central differences with the generator started anew, so each call has the first mask."""

    def run(x: Any) -> Any:
        return fr.GRU(3, 8, 3, dropout=0.5, dtype="float64", seed=7).vjp(x)

    x = normal(rng, 2, 4, 3, dtype="float64")
    (y, _), pullback = run(x)
    dy, direction = normal(rng, *y.shape, dtype="float64"), normal(rng, *x.shape, dtype="float64")
    dx, _ = pullback(dy)
    step = 1e-6
    difference = np.vdot(run(x + step * direction)[0][0] - run(x - step * direction)[0][0], dy)
    np.testing.assert_allclose(np.vdot(dx, direction), difference / (2 * step), rtol=1e-6)


# --- vjp ----------------------------------------------------------------------------------------


def test_a_pullback_serves_once(rng: Any) -> None:
    layer = fr.LSTM(3, 4)
    (y, _), pullback = layer.vjp(normal(rng, 2, 3, 3))
    pullback(y)
    with pytest.raises(RuntimeError, match="second time"):
        pullback(y)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", LAYERS)
def test_a_pullback_leaves_out_what_is_not_wanted(
    cell: str, bidirectional: bool, masked: bool, rng: Any
) -> None:
    """dx or dstate, of two layers; all else has the same bits."""
    layer = make_layer(cell, 3, 5, num_layers=2, bidirectional=bidirectional, seed=2)
    x, dy = normal(rng, 2, 4, 3), normal(rng, 2, 4, 5 * layer.directions)
    mask = rng.random((2, 4)) < 0.7 if masked else None

    def gradients(**wanted: bool) -> tuple[Any, list[bytes], list[bytes]]:
        layer.zero_grad()
        dx, dstate = layer.vjp(x, mask=mask)[1](dy, **wanted)
        states = [] if dstate is None else [d.tobytes() for d in np.atleast_1d(dstate)]
        return dx, states, [p.grad.tobytes() for p in layer.parameters().values()]

    dx, dstate, weights = gradients()
    got = gradients(with_dstate=False)
    assert (got[0].tobytes(), *got[1:]) == (dx.tobytes(), [], weights)
    assert gradients(with_dx=False) == (None, dstate, weights)
    assert gradients(with_dx=False, with_dstate=False) == (None, [], weights)


def test_gradients_add_up_and_are_forgotten(rng: Any) -> None:
    layer = fr.GRU(3, 4, seed=1)
    x, weight = normal(rng, 2, 3, 3), layer.parameters()["weight_ih_l0"]

    def grad() -> Any:
        (y, _), pullback = layer.vjp(x)
        pullback(np.ones_like(y))
        return weight.grad

    once = grad().copy()
    np.testing.assert_array_equal(grad(), once + once)
    layer.zero_grad()
    assert weight.grad is None


def test_calls_nest_and_interleave_and_weights_may_change_between(rng: Any) -> None:
    """A pullback uses the weights its forward call used."""
    for gemm in config.GEMMS:
        with config.using(gemm=gemm):
            layer = fr.LSTM(3, 17, 2, seed=1)
            a, b = normal(rng, 2, 5, 3), normal(rng, 4, 2, 3)
            (ya, _), pull_a = layer.vjp(a)
            want, _ = pull_a(ya)
            (_, _), pull_a = layer.vjp(a)
            (yb, _), pull_b = layer.vjp(b)
            for parameter in layer.parameters().values():
                with parameter.writing() as data:
                    data *= 2
            pull_b(yb)
            got, _ = pull_a(ya)
            np.testing.assert_array_equal(got, want)
            assert not np.array_equal(layer(a)[0], ya)


def test_none_stands_for_zero_gradients(rng: Any) -> None:
    layer = fr.LSTM(3, 4, seed=1)
    x = normal(rng, 2, 3, 3)
    (y, (h, c)), _ = layer.vjp(x)
    results = []
    for dy, dstate in (
        (np.zeros_like(y), (h, c)),
        (None, (h, c)),
    ):
        results.append(layer.vjp(x)[1](dy, dstate)[0])
    np.testing.assert_array_equal(*results)
    partial = layer.vjp(x)[1](None, (h, None))[0]
    np.testing.assert_array_equal(partial, layer.vjp(x)[1](None, (h, 0 * c))[0])


@pytest.mark.usefixtures("restore_threads")
def test_many_python_threads_at_once_agree(rng: Any) -> None:
    fr.set_num_threads(2)
    layer = fr.LSTM(16, 64, seed=1)
    x = normal(rng, 24, 20, 16)
    (y, _), pullback = layer.vjp(x)
    dx, _ = pullback(y)
    failures: list[str] = []

    def work() -> None:
        for _ in range(10):
            (y_, _), pull = layer.vjp(x)
            if y_.tobytes() != y.tobytes() or pull(y)[0].tobytes() != dx.tobytes():
                failures.append("different bits")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    # All calls added to the gradient: 1 + 6 * 10 of them.
    grad = layer.parameters()["bias_hh_l0"].grad
    layer.zero_grad()
    layer.vjp(x)[1](y)
    single = layer.parameters()["bias_hh_l0"].grad
    np.testing.assert_allclose(grad, 61 * single, rtol=1e-4, atol=1e-4 * np.abs(single).max())


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("sizes", [(1, 30, 20, 130), (40, 7, 9, 100)])
@pytest.mark.parametrize("cell", LAYERS)
def test_directions_at_once_have_the_bits_of_each_alone(
    cell: str, sizes: tuple[int, int, int, int], rng: Any
) -> None:
    batch, time, inputs, hidden = sizes
    layer = make_layer(cell, inputs, hidden, 1, bidirectional=True, seed=1)
    weights = layer.state_dict()
    x, dy = normal(rng, batch, time, inputs), normal(rng, batch, time, 2 * hidden)

    def alone(suffix: str, x: Any, dy: Any) -> tuple[Any, Any, dict[str, Any]]:
        one = make_layer(cell, inputs, hidden, 1)
        one.load_state_dict({n: weights[n + suffix] for n in one.parameters()})
        (y, _), pullback = one.vjp(x)
        dx, _ = pullback(dy)
        return y, dx, {n + suffix: p.grad for n, p in one.parameters().items()}

    fr.set_num_threads(1)
    y, dx, grads = alone("", x, dy[:, :, :hidden])
    back = slice(None, None, -1)
    y_r, dx_r, grads_r = alone("_reverse", x[:, back], dy[:, back, hidden:])
    for threads in (1, 2, 3, 5):
        fr.set_num_threads(threads)
        layer.zero_grad()
        (both, _), pullback = layer.vjp(x)
        np.testing.assert_array_equal(both[:, :, :hidden], y)
        np.testing.assert_array_equal(both[:, :, hidden:], y_r[:, back])
        np.testing.assert_array_equal(pullback(dy)[0], dx + dx_r[:, back])
        for name, grad in (grads | grads_r).items():
            got = layer.parameters()[name].grad
            if name.endswith("_reverse"):  # summed over time the other way round
                np.testing.assert_allclose(got, grad, rtol=1e-3, atol=1e-5 * np.abs(grad).max())
            else:
                np.testing.assert_array_equal(got, grad)


@pytest.mark.parametrize("cell", LAYERS)
def test_layers_are_copied_and_pickled_after_calls_too(cell: str, rng: Any) -> None:
    layer = make_layer(cell, 3, 4, 2, dropout=0.2, seed=1)
    x = normal(rng, 2, 5, 3)
    layer.vjp(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(copied(x)[0], layer(x)[0])
        copied.vjp(x)
        with copied.parameters()["weight_hh_l0"].writing() as data:
            data[:] = 0
        assert layer.parameters()["weight_hh_l0"].data.any()


@pytest.mark.parametrize("gemm", config.GEMMS)
def test_overflow_is_nobodys_error(gemm: str) -> None:
    """A gate that saturates is no floating-point error, whatever NumPy is told to raise."""
    layer = fr.GRU(3, 4, seed=1)
    with np.errstate(all="raise"), config.using(gemm=gemm):
        (y, _), pullback = layer.vjp(np.full((2, 5, 3), 3e38, np.float32))
        pullback(np.ones_like(y))
    assert np.isfinite(y).all()


# --- State dict ---------------------------------------------------------------------------------


def test_state_dict_goes_round_and_is_all_or_nothing(rng: Any) -> None:
    a, b = fr.LSTM(3, 4, 2, bidirectional=True, seed=1), fr.LSTM(3, 4, 2, bidirectional=True)
    b.load_state_dict(a.state_dict())
    x = normal(rng, 2, 3, 3)
    np.testing.assert_array_equal(a(x)[0], b(x)[0])
    before = b.state_dict()
    bad = {**before, "weight_hh_l1": np.zeros((16, 5), np.float32)}
    with pytest.raises(ValueError, match=r"weight_hh_l1: expected shape \(16, 4\), got \(16, 5\)"):
        b.load_state_dict(bad)
    with pytest.raises(ValueError, match="missing \\['bias_hh_l0'\\], not expected \\['extra'\\]"):
        renamed = {"extra" if k == "bias_hh_l0" else k: v for k, v in before.items()}
        b.load_state_dict(renamed)
    for name, value in b.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_parameters_are_read_only_and_writing_shows_in_the_next_call(rng: Any) -> None:
    layer = fr.RNN(3, 4, seed=1)
    weight = layer.parameters()["weight_ih_l0"]
    with pytest.raises(ValueError, match="read-only"):
        weight.data[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        weight.data.flags.writeable = True
    x = normal(rng, 1, 2, 3)
    before = layer(x)[0]
    weight.assign(np.zeros(weight.shape))
    assert not np.array_equal(layer(x)[0], before)


def test_start_is_uniform_and_seeded() -> None:
    a, b = fr.GRU(10, 25, seed=4), fr.GRU(10, 25, seed=4)
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])
        assert np.abs(value).max() <= 0.2 and np.abs(value).max() > 0.15


def test_inputs_may_be_read_only_broadcast_unaligned_or_of_another_byte_stride(rng: Any) -> None:
    layer = fr.GRU(4, 5, seed=1)
    x = normal(rng, 2, 3, 4)
    want = layer(x)[0]
    frozen = x.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    every_other = np.repeat(x, 2, axis=2)[:, :, ::2]
    fields = np.zeros(x.shape, [("a", "u1"), ("x", "f4")])
    fields["x"] = x
    backwards = x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    for same in (frozen, unaligned, every_other, fields["x"], backwards):
        np.testing.assert_array_equal(layer(same)[0], want)
    constant = np.broadcast_to(x[:1, :1], x.shape)
    np.testing.assert_array_equal(layer(constant)[0], layer(constant.copy())[0])


def test_config_makes_the_same_layer(rng: Any) -> None:
    layer = fr.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True, dropout=0.1, seed=5)
    again = fr.RNN(**layer.config())
    x = normal(rng, 2, 3, 3)
    np.testing.assert_array_equal(layer(x)[0], again(x)[0])
    assert layer.output_shape((None, 7, 3)) == (None, 7, 8)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", [fr.RNN, fr.GRU, fr.LSTM])
def test_a_step_into_given_arrays(cell: Any, layers: int, rng: Any) -> None:
    layer = cell(4, 5, layers, seed=0)
    x = rng.standard_normal((6, 2, 4)).astype(np.float32)
    state = given = layer.initial_state(2)
    y = np.full((2, 5), np.nan, np.float32)
    for x_t in x:
        wanted, state = layer.step(x_t, state)
        got, after = layer.step(x_t, given, out=(y, given))  # the state in place
        assert got is y and after is given
        assert y.tobytes() == wanted.tobytes()
        for a, b in zip(np.atleast_1d(given), np.atleast_1d(state), strict=True):
            assert a.tobytes() == b.tobytes()
    new_y, after = layer.step(x[0], given, out=(None, given))
    assert new_y is not y and after is given
    y_again, new = layer.step(x[0], given, out=(y, None))
    assert y_again is y and new is not given


def test_a_step_refuses_what_it_cannot_write(rng: Any) -> None:
    layer = fr.GRU(4, 5, seed=0)
    x, h = np.zeros((2, 4), np.float32), np.zeros((1, 2, 5), np.float32)
    with pytest.raises(ValueError, match=r"y: expected \(2, 5\), got \(2, 4\)"):
        layer.step(x, h, out=(np.zeros((2, 4), np.float32), h))
    with pytest.raises(TypeError, match="h_n: expected float32, got float64"):
        layer.step(x, h, out=(None, np.zeros((1, 2, 5))))
    with pytest.raises(ValueError, match="y: expected memory of its own, got some of h_n's"):
        layer.step(x, h, out=(h[0], h))
    with pytest.raises(ValueError, match="h_n: expected memory of its own, got some of h_0's"):
        wide = np.zeros((1, 3, 5), np.float32)
        layer.step(x, wide[:, :2], out=(None, wide[:, 1:]))
    with pytest.raises(TypeError, match=r"out: expected \(y, state\), got ndarray"):
        layer.step(x, h, out=h)
    lstm, c = fr.LSTM(4, 5, seed=0), np.zeros_like(h)
    for state in (h, (h,), (h, None), (None, None)):
        with pytest.raises(TypeError, match=r"out: expected \(y, \(h_n, c_n\)\)"):
            lstm.step(x, (h, c), out=(None, state))


def test_a_step_that_is_refused_has_written_nothing(rng: Any) -> None:
    layer = fr.LSTM(4, 5, 3, seed=0)
    x = rng.standard_normal((2, 4)).astype(np.float32)
    room = rng.standard_normal((7, 2, 5)).astype(np.float32)
    h, c, y, before = room[:3], room[3:6], room[6], room.copy()
    with pytest.raises(ValueError, match=r"y: expected \(2, 5\), got \(2, 4\)"):
        layer.step(x, (h, c), out=(y[:, :4], (h, c)))
    with pytest.raises(ValueError, match="y: expected memory of its own, got some of c_n's"):
        layer.step(x, (h, c), out=(c[0], (h, c)))
    with pytest.raises(ValueError, match="h_n: expected memory of its own, got some of h_0's"):
        layer.step(x, (h, c.copy()), out=(None, (room[1:4], c.copy())))
    np.testing.assert_array_equal(room, before)
