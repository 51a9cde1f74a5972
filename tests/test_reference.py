"""The reference against central differences, PyTorch's golden vectors, and what lengths promise."""

from __future__ import annotations

import numpy as np
import pytest
from golden import Array, Case, cases

from fastrnn import reference
from fastrnn.reference import CELLS

BATCH, TIME, INPUTS, HIDDEN = 4, 5, 3, 2
RAGGED = [3, 0, 5, 1]
NAMES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")

each_cell = pytest.mark.parametrize("cell", CELLS)
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def arguments(cell: str, seed: int = 0, dtype: str = "float64") -> dict[str, Array]:
    """Random arguments of `reference.forward`."""
    rng = np.random.default_rng(seed)
    rows = CELLS[cell].gates * HIDDEN
    state = (BATCH, HIDDEN)
    shapes = [(BATCH, TIME, INPUTS), state, state, (rows, INPUTS), (rows, HIDDEN), (rows,), (rows,)]
    return {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in zip(NAMES, shapes, strict=True)
    }


def ends(seed: int = 1) -> tuple[Array, Array, Array]:
    """Random dy, dh_n and dc_n."""
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, TIME, HIDDEN), (BATCH, HIDDEN), (BATCH, HIDDEN)]
    dy, dh_n, dc_n = (rng.standard_normal(shape) for shape in shapes)
    return dy, dh_n, dc_n


# -- Right numbers ---------------------------------------------------------------------------------


@each_cell
@each_direction
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["padded", "ragged"])
def test_gradients_are_those_of_central_differences(
    cell: str, reverse: bool, lengths: list[int] | None
) -> None:
    args, (dy, dh_n, dc_n) = arguments(cell), ends()

    def loss() -> float:
        y, h_n, c_n, _ = reference.forward(cell, **args, lengths=lengths, reverse=reverse)
        return float(
            np.sum(dy * y) + np.sum(dh_n * h_n) + (0 if c_n is None else (dc_n * c_n).sum())
        )

    tape = reference.forward(cell, **args, lengths=lengths, reverse=reverse)[-1]
    grads = reference.backward(tape, dy, dh_n, dc_n)
    assert set(grads) == {"d" + name for name in NAMES}
    for name, value in args.items():
        got = grads["d" + name]
        if name == "c0" and CELLS[cell].states == 1:
            assert got is None
            continue
        want = np.empty_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + 1e-5
            above = loss()
            value[index] = kept - 1e-5
            want[index] = (above - loss()) / 2e-5
            value[index] = kept
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8, err_msg=name, strict=True)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_golden_vectors(case: Case) -> None:
    config = case.config
    y, h_n, c_n, tape = reference.layer_forward(
        config.cell,
        case.x,
        case.weights,
        config.num_layers,
        config.bidirectional,
        case.h0,
        case.c0,
        case.lengths,
    )
    dx, dh0, dc0, grads = reference.layer_backward(tape, case.dy, case.dh_n, case.dc_n)
    got = {"y": y, "h_n": h_n, "dx": dx, "dh0": dh0, **grads}
    if config.cell == "lstm":
        got |= {"c_n": c_n, "dc0": dc0}
    else:
        assert c_n is None
        assert dc0 is None
    assert set(got) == set(case.expected)
    for name, value in got.items():
        case.check(name, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid(dtype: str) -> None:
    x = np.array([-np.inf, -1e4, -50, -1, -0.0, 0, 1, 50, 1e4, np.inf, np.nan], dtype)
    want = [0, 0, 1.928749847963918e-22, 0.2689414213699951, 0.5, 0.5, 0.7310585786300049]
    want += [1, 1, 1, np.nan]
    got = reference.sigmoid(x)
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=0)
    reference.sigmoid(x, out=x)
    np.testing.assert_array_equal(x, got)


# -- Lengths and directions ------------------------------------------------------------------------


@each_cell
@each_direction
def test_a_ragged_row_is_as_if_alone_and_padding_is_never_read(cell: str, reverse: bool) -> None:
    args, (dy, dh_n, dc_n) = arguments(cell), ends()
    for row, length in enumerate(RAGGED):
        args["x"][row, length:] = np.nan
        dy[row, length:] = np.nan
    y, h_n, c_n, tape = reference.forward(cell, **args, lengths=RAGGED, reverse=reverse)
    grads = reference.backward(tape, dy, dh_n, dc_n)
    sums = {name: 0.0 for name in ("dw_ih", "dw_hh", "db_ih", "db_hh")}
    for row, length in enumerate(RAGGED):
        one = slice(row, row + 1)
        alone = {**args, "x": args["x"][one, :length], "h0": args["h0"][one], "c0": args["c0"][one]}
        y1, h1, c1, tape1 = reference.forward(cell, **alone, reverse=reverse)
        grads1 = reference.backward(tape1, dy[one, :length], dh_n[one], dc_n[one])
        close(y[one, :length], y1)
        close(h_n[one], h1)
        close(grads["dx"][one, :length], grads1["dx"])
        close(grads["dh0"][one], grads1["dh0"])
        if CELLS[cell].states == 2:
            close(c_n[one], c1)
            close(grads["dc0"][one], grads1["dc0"])
        assert not y[row, length:].any()
        assert not grads["dx"][row, length:].any()
        for name in sums:
            sums[name] = sums[name] + grads1[name]
    for name, total in sums.items():
        close(grads[name], total)


@each_cell
@each_direction
def test_the_order_of_the_rows_is_irrelevant(cell: str, reverse: bool) -> None:
    args, (dy, dh_n, dc_n) = arguments(cell), ends()
    order = np.array([2, 0, 3, 1])
    moved = {**args, **{name: args[name][order] for name in ("x", "h0", "c0")}}
    lengths = np.array(RAGGED)
    y, h_n, _, tape = reference.forward(cell, **args, lengths=lengths, reverse=reverse)
    grads = reference.backward(tape, dy, dh_n, dc_n)
    y2, h2, _, tape = reference.forward(cell, **moved, lengths=lengths[order], reverse=reverse)
    grads2 = reference.backward(tape, dy[order], dh_n[order], dc_n[order])
    close(y[order], y2)
    close(h_n[order], h2)
    close(grads["dx"][order], grads2["dx"])
    close(grads["dh0"][order], grads2["dh0"])
    close(grads["dw_hh"], grads2["dw_hh"])


@each_cell
def test_reverse_is_forward_on_reversed_time(cell: str) -> None:
    args = arguments(cell)
    y, h_n, _, _ = reference.forward(cell, **args, reverse=True)
    args["x"] = args["x"][:, ::-1]
    y2, h2, _, _ = reference.forward(cell, **args)
    close(y, y2[:, ::-1])
    close(h_n, h2)


@each_cell
def test_the_state_passes_through_where_nothing_runs(cell: str) -> None:
    args, (dy, dh_n, dc_n) = arguments(cell), ends()
    y, h_n, c_n, tape = reference.forward(cell, **args, lengths=[0] * BATCH)
    grads = reference.backward(tape, dy, dh_n, dc_n)
    assert y.shape == dy.shape
    assert not y.any()
    np.testing.assert_array_equal(h_n, args["h0"])
    np.testing.assert_array_equal(grads["dh0"], dh_n)
    if CELLS[cell].states == 2:
        np.testing.assert_array_equal(c_n, args["c0"])
        np.testing.assert_array_equal(grads["dc0"], dc_n)
    for name in ("dx", "dw_ih", "dw_hh", "db_ih", "db_hh"):
        assert grads[name].shape == args[name[1:]].shape
        assert not grads[name].any()


# -- Contracts -------------------------------------------------------------------------------------


@each_cell
def test_none_is_zeros(cell: str) -> None:
    args, (dy, _, _) = arguments(cell), ends()
    none = dict.fromkeys(("h0", "c0", "b_ih", "b_hh"))
    zeros = {name: np.zeros_like(args[name]) for name in none}
    y, h_n, _, tape = reference.forward(cell, **{**args, **none})
    y2, h2, _, tape2 = reference.forward(cell, **{**args, **zeros})
    close(y, y2)
    close(h_n, h2)
    state = np.zeros((BATCH, HIDDEN))
    grads = reference.backward(tape, dy)
    grads2 = reference.backward(tape2, dy, state, state)
    for name in ("dx", "dh0", "dw_ih", "dw_hh", "db_ih", "db_hh"):
        close(grads[name], grads2[name])


@each_cell
def test_arguments_are_left_alone_and_a_tape_can_be_used_again(cell: str) -> None:
    args, (dy, dh_n, dc_n) = arguments(cell), ends()
    before = {name: value.copy() for name, value in args.items()}
    given = dy.copy(), dh_n.copy(), dc_n.copy()
    y, h_n, _, tape = reference.forward(cell, **args, lengths=RAGGED)
    results = y.copy(), h_n.copy()
    first = reference.backward(tape, dy, dh_n, dc_n)
    second = reference.backward(tape, dy, dh_n, dc_n)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    for name, value in args.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for was, now in zip((*given, *results), (dy, dh_n, dc_n, y, h_n), strict=True):
        np.testing.assert_array_equal(was, now)


@each_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_is_in_the_dtype_of_x(cell: str, dtype: str) -> None:
    args = {**arguments(cell), "x": arguments(cell)["x"].astype(dtype)}
    y, h_n, c_n, tape = reference.forward(cell, **args)
    arrays = [y, h_n, c_n, *reference.backward(tape, *ends()).values()]
    assert {str(array.dtype) for array in arrays if array is not None} == {dtype}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"cell": "mgu"}, ValueError, "cell: expected one of rnn_tanh, .*, got 'mgu'"),
        ({"x": np.zeros((4, 5))}, ValueError, r"x: expected shape \(any, any, any\), got \(4, 5\)"),
        ({"x": np.zeros((4, 5, 3), int)}, TypeError, "x: expected float32 or float64, got int64"),
        ({"x": None}, TypeError, "x: expected float32 or float64, got object"),
        ({"h0": np.zeros((1, 2))}, ValueError, r"h0: expected shape \(4, 2\), got \(1, 2\)"),
        ({"c0": np.zeros(2)}, ValueError, r"c0: expected shape \(4, 2\), got \(2,\)"),
        ({"w_ih": np.zeros((8, 4))}, ValueError, r"w_ih: expected shape \(8, 3\), got \(8, 4\)"),
        ({"w_hh": np.zeros((6, 2))}, ValueError, r"w_hh: expected shape \(8, 2\), got \(6, 2\)"),
        ({"b_ih": np.zeros(1)}, ValueError, r"b_ih: expected shape \(8,\), got \(1,\)"),
        ({"b_hh": np.zeros(1)}, ValueError, r"b_hh: expected shape \(8,\), got \(1,\)"),
        (
            {"lengths": [1, 2, 3, 6]},
            ValueError,
            "lengths: expected 4 integers from 0 to 5, got .*6",
        ),
        ({"lengths": [1, 2, 3, -1]}, ValueError, "lengths: expected 4 integers from 0 to 5"),
        ({"lengths": [1, 2, 3]}, ValueError, "lengths: expected 4 integers from 0 to 5"),
        ({"lengths": [1.0, 2, 3, 4]}, TypeError, "lengths: expected integers, got .* float64"),
    ],
)
def test_errors_name_the_argument(
    wrong: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reference.forward(**{"cell": "lstm", **arguments("lstm"), **wrong})


def test_errors_of_layers_and_gradients() -> None:
    x = np.zeros((BATCH, TIME, INPUTS))
    weights = {"weight_ih_l0": np.zeros((2, 3)), "weight_hh_l0": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"weights: missing \['weight_ih_l1', 'weight_hh_l1'\]"):
        reference.layer_forward("rnn_tanh", x, weights, 2)
    with pytest.raises(ValueError, match=r"not expected \['bias_l0'\]"):
        reference.layer_forward("rnn_tanh", x, {**weights, "bias_l0": np.zeros(2)})
    with pytest.raises(ValueError, match="num_layers: expected at least 1, got 0"):
        reference.layer_forward("rnn_tanh", x, weights, 0)
    with pytest.raises(ValueError, match=r"h0: expected shape \(1, 4, 2\), got \(4, 2\)"):
        reference.layer_forward("rnn_tanh", x, weights, h0=np.zeros((4, 2)))
    tape = reference.layer_forward("rnn_tanh", x, weights)[-1]
    with pytest.raises(ValueError, match=r"dy: expected shape \(4, 5, 2\), got \(4, 5, 3\)"):
        reference.layer_backward(tape, x)
    with pytest.raises(ValueError, match=r"dh_n: expected shape \(1, 4, 2\), got \(4, 2\)"):
        reference.layer_backward(tape, np.zeros((4, 5, 2)), np.zeros((4, 2)))


def close(got: Array, want: Array) -> None:
    """Equal to rounding: a product's sum may take another order for another number of rows."""
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13, strict=True)
