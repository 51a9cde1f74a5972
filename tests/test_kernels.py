"""The C kernels of one layer and direction against reference.py, and against themselves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conftest import PLAIN_ISAS
from variants import Config

import fastrnn as fr
from fastrnn import _core, reference
from fastrnn.reference.stack import KINDS

# B, T, I, H: one of everything, odd sizes, tails of every vector length, more than one sum block.
SIZES = [
    (1, 1, 1, 1),
    (3, 5, 2, 3),
    (2, 4, 7, 17),
    (13, 3, 5, 100),
    (1, 9, 20, 130),
    (40, 8, 33, 24),
]
PLAIN = [Config(cell) for cell in reference.CELLS]
BOUND = {"float32": 3e-6, "float64": 1e-14}


@dataclass
class Case:
    """Inputs of a layer, and what a run gives, by name."""

    config: Config
    given: dict[str, Any]
    lengths: Any
    reverse: bool


def make_case(
    rng: np.random.Generator,
    config: Config,
    dtype: np.dtype,
    size: tuple[int, int, int, int],
    ragged: bool = False,
    reverse: bool = False,
    bias: bool = True,
    state: bool = True,
) -> Case:
    B, T, I, H = size
    P = config.projection or H

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    given = {
        "x": normal(B, T, I),
        "h0": normal(B, P) if state else None,
        "c0": normal(B, H) if state and config.has_c else None,
        **config.weights(I, H, dtype, rng),
        "dy": normal(B, T, P),
        "dh_n": normal(B, P) if state else None,
        "dc_n": normal(B, H) if state and config.has_c else None,
    }
    if not bias:
        given["b_ih"] = given["b_hh"] = None
    lengths = rng.integers(0, T + 1, B) if ragged else None
    return Case(config, given, lengths, reverse)


def by_reference(case: Case) -> dict[str, Any]:
    g = case.given
    y, h_n, c_n, tape = reference.forward(
        case.config.cell, g["x"], g["h0"], g["c0"], lengths=case.lengths, reverse=case.reverse,
        variant=case.config.variant, **{kind: g.get(kind) for kind in KINDS},
    )  # fmt: skip
    if not case.config.variant.training:
        return {"y": y, "h_n": h_n, "c_n": c_n}
    grads = reference.backward(tape, g["dy"], g["dh_n"], g["dc_n"])
    return {"y": y, "h_n": h_n, "c_n": c_n, **grads}


def pack_of(case: Case, training: bool, gemm: str = "native", bfloat16: bool = False) -> _core.Pack:
    g, config, variant = case.given, case.config, case.config.variant
    layer = _core.Layer(
        config.cell, g["w_ih"].shape[1], len(g["w_ih"]) // reference.CELLS[config.cell].gates,
        g["x"].dtype == np.float64, proj_size=config.projection,
        gate_activation=variant.gate_activation if variant.gate_activation != "sigmoid" else None,
        state_activation=variant.state_activation, clip=variant.clip, peephole=config.peephole,
        layer_norm=config.layer_norm, zoneout_h=variant.zoneout_h, zoneout_c=variant.zoneout_c,
        recurrent_dropout=variant.recurrent_dropout,
    )  # fmt: skip
    weights = tuple(g.get(kind) for kind in KINDS)
    return _core.Pack(layer, weights, training, gemm == "numpy", bfloat16=bfloat16)


def by_kernels(
    case: Case,
    gemm: str = "native",
    training: bool = True,
    forward_only: bool = False,
    checkpoint_every: int = 0,
    bfloat16: bool = False,
    flow: bool = False,
) -> dict[str, Any]:
    """Outputs are filled with NaN before, so that what is not written shows."""
    g, config = case.given, case.config
    B, T, _ = g["x"].shape
    H, dtype = len(g["w_ih"]) // reference.CELLS[config.cell].gates, g["x"].dtype
    P = config.projection or H

    def empty(*shape: int) -> Any:
        return np.full(shape, np.nan, dtype)

    pack = pack_of(case, training, gemm, bfloat16)
    lengths = None if case.lengths is None else case.lengths.astype(np.int64)
    out = {"y": empty(B, T, P), "h_n": empty(B, P), "c_n": empty(B, H) if config.has_c else None}
    tape = _core.forward(
        (pack,), 0, 1, g["x"], lengths, case.reverse, True, one_layer(g["h0"]), one_layer(g["c0"]),
        out["y"], one_layer(out["h_n"]), one_layer(out["c_n"]), training, config.variant.seed,
        checkpoint_every,
    )  # fmt: skip
    if not training or forward_only:
        return out
    assert tape is not None
    grads = {"dh0": empty(B, P), "dc0": empty(B, H) if config.has_c else None}
    if flow:
        grads["flow"] = np.full((B, T), np.nan)
    kinds = tuple(["d" + kind if g.get(kind) is not None else None for kind in KINDS])
    (dx,), weights = _core.backward(
        tape, 0, 1, g["dy"], one_layer(g["dh_n"]), one_layer(g["dc_n"]), True,
        one_layer(grads["dh0"]), one_layer(grads["dc0"]), (kinds,),
        (grads["flow"],) if flow else None,
    )  # fmt: skip
    grads |= {"dx": dx, **dict.fromkeys("d" + kind for kind in KINDS), **dict(weights)}
    return {**out, **grads}


def one_layer(state: Any) -> Any:
    """A (B, H) state as (1, B, H)."""
    return None if state is None else state[None]


def assert_close(got: dict[str, Any], want: dict[str, Any], times: float = 1) -> None:
    for name, value in got.items():
        if value is None:
            continue
        error = np.max(np.abs(value - want[name]), initial=0) / (1 + np.abs(want[name]).max())
        assert error <= times * BOUND[str(value.dtype)], (name, error)


def assert_same_bits(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in a:
        if a[name] is not None:
            assert a[name].tobytes() == b[name].tobytes(), name


def assert_pieces_have_the_bits(
    case: Case, whole: dict[str, Any], pieces: tuple[tuple[int, int], ...]
) -> None:
    """Inference a piece at a time, the state handed on, against all at once."""
    given = dict(case.given)
    for begin, end in pieces:
        given["x"] = case.given["x"][:, begin:end]
        part = by_kernels(Case(case.config, given, None, False), training=False)
        assert part["y"].tobytes() == whole["y"][:, begin:end].tobytes()
        given["h0"], given["c0"] = part["h_n"], part["c_n"]
    assert given["h0"].tobytes() == whole["h_n"].tobytes()


PADDED = (6, 7, 5, 18)


def assert_padding_is_neither_read_nor_left(case: Case) -> dict[str, Any]:
    """Of a case of sizes PADDED, made ragged; returns what it gives."""
    case.lengths = np.array([7, 0, 3, 7, 1, 5])
    clean = by_kernels(case)
    for row, length in enumerate(case.lengths):
        case.given["x"][row, length:] = np.nan
        case.given["dy"][row, length:] = np.nan
        assert not clean["y"][row, length:].any()
        assert not clean["dx"][row, length:].any()
    assert_same_bits(by_kernels(case), clean)
    return clean


@pytest.mark.parametrize("config", PLAIN, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_kernels_agree_with_the_reference(
    isa: str, dtype: np.dtype, config: Config, size: tuple[int, int, int, int], rng: Any
) -> None:
    flags = (False, True)
    for ragged, reverse, gemm in itertools.product(flags, flags, ("native", "numpy")):
        case = make_case(rng, config, dtype, size, ragged, reverse)
        assert_close(by_kernels(case, gemm), by_reference(case))


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_kernels_without_bias_and_state(
    isa: str, dtype: np.dtype, config: Config, rng: Any
) -> None:
    case = make_case(rng, config, dtype, (3, 4, 5, 19), bias=False, state=False)
    g = {k: v for k, v in case.given.items()}
    zeros = np.zeros((3, 19), dtype)
    want = by_reference(
        Case(config, {**g, "h0": zeros, "c0": zeros if g["c0"] is not None else None}, None, False)
    )
    assert_close(by_kernels(case), want)


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_gradients_are_the_differences_of_the_outputs(isa: str, config: Config, rng: Any) -> None:
    """Central differences in float64 of the kernels' own forward pass, along random directions."""
    case = make_case(rng, config, np.dtype("float64"), (3, 5, 4, 17), ragged=True)
    g = case.given
    grads = by_kernels(case)

    def loss(values: dict[str, Any]) -> float:
        out = by_kernels(Case(config, values, case.lengths, False), training=False)
        total = np.vdot(out["y"], g["dy"]) + np.vdot(out["h_n"], g["dh_n"])
        return float(total + (np.vdot(out["c_n"], g["dc_n"]) if out["c_n"] is not None else 0))

    step = 1e-6
    for name in ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"):
        if g[name] is None:
            continue
        direction = rng.standard_normal(g[name].shape)
        up = loss({**g, name: g[name] + step * direction})
        down = loss({**g, name: g[name] - step * direction})
        want = (up - down) / (2 * step)
        got = float(np.vdot(grads["d" + name], direction))
        assert abs(got - want) <= 1e-7 * (1 + abs(want)), name


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_strides_do_not_matter(isa: str, dtype: np.dtype, config: Config, rng: Any) -> None:
    """Time first, every other step of a longer array, backwards, a slice of wider features."""
    case = make_case(rng, config, dtype, (4, 6, 5, 19))
    want = by_kernels(case)
    x, dy = case.given["x"], case.given["dy"]

    def variants(a: Any) -> list[Any]:
        B, T, F = a.shape
        time_first = np.ascontiguousarray(a.transpose(1, 0, 2)).transpose(1, 0, 2)
        wide = np.full((B, 2 * T, F + 3), np.nan, a.dtype)
        wide[:, ::2, 1 : F + 1] = a
        backwards = np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]
        return [time_first, wide[:, ::2, 1 : F + 1], backwards]

    for x_, dy_ in zip(variants(x), variants(dy), strict=True):
        got = by_kernels(Case(config, {**case.given, "x": x_, "dy": dy_}, None, False))
        assert_same_bits(got, want)


# --- The same bits (native products) ------------------------------------------------------------

VECTOR_ISAS = [name for name in PLAIN_ISAS if name != "generic"]
# In the second, threads share out a single row's small step; in the last, rows and columns of dW
# and dR.
BITS_SIZES = [
    (1, 7, 9, 130),
    (1, 30, 9, 72),
    (29, 11, 33, 100),
    (37, 15, 40, 16),
    (14, 5, 140, 260),
]


def assert_threads_and_instruction_sets_agree(case: Case, **options: Any) -> None:
    """To the bit; leaves another number of threads."""
    runs = []
    for isa, threads in itertools.product(VECTOR_ISAS, (1, 2, 3, 4)):
        with fr.config.using(isa=isa):
            fr.set_num_threads(threads)
            runs.append(by_kernels(case, **options))
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("size", BITS_SIZES)
@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_same_bits_on_any_threads_and_instruction_set(
    dtype: np.dtype, config: Config, size: tuple[int, int, int, int], ragged: bool, rng: Any
) -> None:
    assert_threads_and_instruction_sets_agree(make_case(rng, config, dtype, size, ragged))


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_same_bits_for_a_row_alone_or_in_a_batch(
    isa: str, dtype: np.dtype, config: Config, rng: Any
) -> None:
    case = make_case(rng, config, dtype, (15, 6, 33, 50), ragged=True)
    whole = by_kernels(case)
    by_row = {"x", "h0", "c0", "dy", "dh_n", "dc_n"}
    for part in (slice(0, 1), slice(3, 5), slice(4, 15), slice(14, 15)):
        given = {k: v[part] if k in by_row and v is not None else v for k, v in case.given.items()}
        run = by_kernels(Case(config, given, case.lengths[part], False))
        for name in ("y", "h_n", "c_n", "dx", "dh0", "dc0"):
            if run[name] is not None:
                assert run[name].tobytes() == whole[name][part].tobytes(), name


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_same_bits_in_inference_training_and_step_by_step(
    isa: str, dtype: np.dtype, config: Config, rng: Any
) -> None:
    case = make_case(rng, config, dtype, (3, 9, 33, 50))
    whole = by_kernels(case)
    inference = by_kernels(case, training=False)
    assert_same_bits(inference, {k: whole[k] for k in inference})
    assert_pieces_have_the_bits(case, whole, ((0, 1), (1, 2), (2, 7), (7, 9)))


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_padding_is_neither_read_nor_left_unwritten(isa: str, config: Config, rng: Any) -> None:
    assert_padding_is_neither_read_nor_left(make_case(rng, config, np.dtype("float32"), PADDED))


# --- Special values -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", PLAIN, ids=str)
def test_nan_reaches_the_output_of_its_row_alone(
    isa: str, dtype: np.dtype, config: Config, rng: Any
) -> None:
    case = make_case(rng, config, dtype, (4, 5, 3, 17))
    clean = by_kernels(case, training=False)["y"]
    case.given["x"][2, 3, 1] = np.nan
    y = by_kernels(case, training=False)["y"]
    assert np.isnan(y[2, 3:]).all()
    y[2, 3:] = clean[2, 3:]
    assert y.tobytes() == clean.tobytes()


def test_denormals_are_flushed_and_the_callers_mode_kept(isa: str) -> None:
    tiny = np.full((1, 3), 1e-40, np.float32)
    assert (tiny * np.float32(0.5) != 0).all()
    weight, zero = np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32)
    layer = _core.Layer("rnn_relu", 3, 3, False)
    pack = _core.Pack(layer, (weight, zero, *(None,) * 7), False, False)
    y = np.empty((1, 1, 3), np.float32)
    run_forward(pack, tiny[None], y)
    if isa != "generic":
        assert not y.any()
    assert (tiny * np.float32(0.5) != 0).all(), "the caller's floating-point mode was changed"


def run_forward(pack: Any, x: Any, y: Any, **changed: Any) -> Any:
    a = {"lengths": None, "h_0": None, "h_n": None, "training": False, **changed}
    return _core.forward((pack,), 0, 1, x, a["lengths"], False, True, a["h_0"], None, y, a["h_n"],
                         None, a["training"])  # fmt: skip


# --- The seam's checks --------------------------------------------------------------------------


def test_the_seam_refuses_what_does_not_fit(rng: Any) -> None:
    case = make_case(rng, Config("gru"), np.dtype("float32"), (2, 3, 4, 5))
    g = case.given
    pack = pack_of(case, training=True)
    y = np.empty((2, 3, 5), np.float32)

    def run(**changed: Any) -> Any:
        return run_forward(pack, **{"x": g["x"], "y": y, "training": True, **changed})

    with pytest.raises(ValueError, match=r"x: expected \(2, 3, 4\), got \(2, 3, 5\)"):
        run(x=np.zeros((2, 3, 5), np.float32))
    with pytest.raises(TypeError, match="x: expected float32, got float64"):
        run(x=g["x"].astype(np.float64))
    with pytest.raises(
        TypeError, match="x: expected an array with two or three axes, got memoryview"
    ):
        run(x=memoryview(g["x"]))
    with pytest.raises(TypeError, match="x: expected an array with two or three axes, got ndarray"):
        run(x=g["x"].reshape(-1))
    with pytest.raises(TypeError, match="y: expected an array of float32, got list"):
        run(y=[0.0])
    with pytest.raises(ValueError, match="x: expected the last axis to be contiguous"):
        run(x=np.zeros((2, 3, 8), np.float32)[:, :, ::2])
    with pytest.raises(ValueError, match="x: expected aligned values in native byte order"):
        run(x=np.zeros(97, np.uint8)[1:].view(np.float32).reshape(2, 3, 4))
    with pytest.raises(ValueError, match="h_0: expected a C-contiguous array"):
        run(h_0=np.zeros((1, 2, 10), np.float32)[:, :, :5])
    with pytest.raises(
        ValueError, match=r"lengths: expected int64 of shape \(2,\), got int64 \(3,\)"
    ):
        run(lengths=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="bad argument"):
        run(lengths=np.array([1, 4]))
    frozen = y.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="y: expected a writable array"):
        run(y=frozen)
    shared = np.zeros((2, 3, 5), np.float32)
    with pytest.raises(ValueError, match="y: expected memory of its own, got some of x's"):
        run(x=shared[:, :, :4], y=shared)
    with pytest.raises(ValueError, match=r"weight_hh: expected \(15, 5\), got \(4, 5\)"):
        pack_of(Case(case.config, {**g, "w_hh": g["w_hh"][:4].copy()}, None, False), True)
    with pytest.raises(ValueError, match="weight_hr: expected None, the layer has none"):
        pack_of(Case(case.config, {**g, "w_hr": g["w_hh"]}, None, False), True)


def test_a_tape_serves_once(rng: Any) -> None:
    case = make_case(rng, Config("lstm"), np.dtype("float32"), (2, 3, 4, 5))
    g = case.given
    pack = pack_of(case, training=True)
    y = np.empty((2, 3, 5), np.float32)
    tape = run_forward(pack, g["x"], y, training=True)
    nothing: Any = None, None, False, None, None, ((None,) * 9,)
    for wanted, message in (
        ((), "wanted: expected 1, got 0"),
        (((1,) * 8,), "wanted: expected 9 of each direction, got 8"),
        (((None,) * 8 + (1,),), "wanted: expected None for ln_c, the layer has none"),
    ):
        tape = run_forward(pack, g["x"], y, training=True)
        with pytest.raises(ValueError, match=message):
            _core.backward(tape, 0, 1, g["dy"], *nothing[:5], wanted)
    tape = run_forward(pack, g["x"], y, training=True)
    assert _core.backward(tape, 0, 1, g["dy"], *nothing) == ((None,), [])
    with pytest.raises(RuntimeError, match="consumed"):
        _core.backward(tape, 0, 1, g["dy"], *nothing)
    with pytest.raises(ValueError, match="first: expected 0 to 0, got 1"):
        _core.backward(tape, 1, 1, g["dy"], *nothing)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 7, 3), (64, 70, 300), (3, 1030, 40), (100, 1, 17)]
)
def test_matmul(isa: str, dtype: np.dtype, shape: tuple[int, int, int], rng: Any) -> None:
    m, k, n = shape
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    want = a.astype(np.float64) @ b.astype(np.float64)
    for left, right in itertools.product((a, a.T.copy().T), (b, b.T.copy().T)):
        got = _core.matmul(left, right)
        assert np.abs(got - want).max() <= BOUND[dtype.name] * np.sqrt(k) * 3


@pytest.mark.usefixtures("restore_threads")
def test_matmul_has_the_same_bits_on_any_threads(dtype: np.dtype, rng: Any) -> None:
    a = rng.standard_normal((300, 513)).astype(dtype)
    b = rng.standard_normal((513, 65)).astype(dtype)
    for left, right in ((a, b), (a, b.T.copy().T), (a.T.copy().T, b)):
        results = set()
        for isa, threads in itertools.product(VECTOR_ISAS, (1, 2, 3)):
            with fr.config.using(isa=isa):
                fr.set_num_threads(threads)
                results.add(_core.matmul(left, right).tobytes())
        assert len(results) == 1
