"""fastrnn.torch's modules beside torch.nn's: construction, results, layouts, what is refused."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from itertools import chain
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:dropout option adds dropout"),
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
]
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import (  # noqa: E402
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

import fastrnn.torch as ft  # noqa: E402
from fastrnn.torch import stack  # noqa: E402

KINDS = ["LSTM", "GRU", "RNN"]
BOUND = {torch.float32: 2e-5, torch.float64: 1e-11}


def pair(kind: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, each made after the same seed."""
    made = []
    for namespace in (nn, ft):
        torch.manual_seed(7)
        made.append(getattr(namespace, kind)(*args, **options))
    return made[0], made[1]


def flat(results: Any) -> list[Any]:
    """The tensors of what a module returned."""
    if isinstance(results, PackedSequence):
        return [results.data]
    if isinstance(results, tuple):
        return [tensor for part in results for tensor in flat(part)]
    return [results]


def close(got: Any, want: Any) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    assert (got - want).abs().max() <= BOUND[want.dtype] * (1 + want.abs().max())


def assert_alike(modules: tuple[Any, Any], x: Any, hx: Any = None, lengths: Any = None) -> None:
    """Same outputs, states and gradients, with the same seed for dropout."""
    found = []
    for module in modules:
        given = [
            each.clone().requires_grad_() for each in (x, *(flat(hx) if hx is not None else ()))
        ]
        state: Any = tuple(given[1:]) if isinstance(hx, tuple) else (given[1:] or [None])[0]
        first: Any = given[0]
        if lengths is not None:
            first = pack_padded_sequence(first, lengths, module.batch_first, enforce_sorted=False)
        torch.manual_seed(3)
        results = flat(module(first, state))
        sum((each * each.detach().cos()).sum() for each in results).backward()
        gradients = [each.grad for each in (*given, *module.parameters())]
        found.append([*results, *gradients])
        module.zero_grad()
    for want, got in zip(*found, strict=True):
        close(got, want)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_random_configurations(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    inputs, hidden, batch, time = rng.integers(2, 40, 4).tolist()
    dtype = (torch.float32, torch.float64)[seed % 2]
    options: dict[str, Any] = {
        "num_layers": int(rng.integers(1, 4)),
        **{name: bool(rng.integers(2)) for name in ("bias", "batch_first", "bidirectional")},
        "dropout": float(rng.choice([0.0, 0.4])),
        "dtype": dtype,
    }
    if kind == "LSTM" and rng.integers(2):
        options["proj_size"] = int(rng.integers(1, hidden))
    if kind == "RNN":
        options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
    modules = pair(kind, inputs, hidden, **options)
    module = modules[1]
    x = torch.randn(*((batch, time) if module.batch_first else (time, batch)), inputs, dtype=dtype)
    layers = module.num_layers * (1 + module.bidirectional)
    h = torch.randn(layers, batch, module.proj_size or hidden, dtype=dtype)
    c = torch.randn(layers, batch, hidden, dtype=dtype)
    hx = (h, c) if kind == "LSTM" else h
    lengths = torch.tensor(rng.integers(1, time + 1, batch))
    assert_alike(modules, x)
    assert_alike(modules, x, hx)
    assert_alike(modules, x, hx, lengths)
    assert_alike(modules, x, None, lengths)
    if kind != "LSTM":
        assert_alike(modules, x[:, 0] if not module.batch_first else x[0], h[:, 0])
    else:
        assert_alike(modules, x[:, 0] if not module.batch_first else x[0], (h[:, 0], c[:, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constructor_is_torchs(kind: str) -> None:
    for args, options in [
        ((3, 5), {}),
        ((3, 5, 2), {"batch_first": True, "dropout": 0.2, "bidirectional": True}),
        ((3, 5, 2, "relu", False, True, 0.5, True), {}) if kind == "RNN" else
        ((3, 5, 2, False, True, 0.5, True), {"dtype": torch.float64}),
    ]:  # fmt: skip
        theirs, ours = pair(kind, *args, **options)
        assert repr(ours) == repr(theirs)
        for name in (
            "mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
            "bidirectional", "proj_size", "training",
        ):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for got, want in zip(
            *map(chain.from_iterable, (ours.all_weights, theirs.all_weights)), strict=True
        ):
            assert isinstance(got, nn.Parameter) and torch.equal(got, want)
        for module in (theirs, ours):
            torch.manual_seed(1)
            module.reset_parameters()
            module.flatten_parameters()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())


def test_lstm_has_proj_size_by_position() -> None:
    theirs, ours = pair("LSTM", 3, 5, 1, True, False, 0.0, False, 2, None, torch.float64)
    assert ours.proj_size == theirs.proj_size == 2
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    for kind in ("GRU", "RNN"):
        assert "proj_size" not in inspect.signature(getattr(ft, kind)).parameters
    with pytest.raises(ValueError, match="nonlinearity: expected one of tanh, relu, got 'sin'"):
        ft.RNN(3, 5, nonlinearity="sin")
    assert ft.LSTM(3, 5, device="meta").weight_ih_l0.device.type == "meta"


def test_state_dicts_are_checked_by_name() -> None:
    module = ft.GRU(3, 5)
    state = module.state_dict()
    state["surplus"] = state.pop("bias_hh_l0")
    with pytest.raises(RuntimeError, match=r'Missing key.*"bias_hh_l0"(.|\n)*Unexp.*"surplus"'):
        module.load_state_dict(state)


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_a_packed_sequence_comes_back_packed(enforce_sorted: bool) -> None:
    theirs, ours = pair("LSTM", 4, 6)
    lengths = torch.tensor([7, 4, 4, 1] if enforce_sorted else [4, 1, 7, 4])
    packed = pack_padded_sequence(torch.randn(7, 4, 4), lengths, enforce_sorted=enforce_sorted)
    (want, _), (got, (h_n, _)) = theirs(packed), ours(packed)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert getattr(got, name) is getattr(packed, name)
    close(got.data, want.data)
    padded, _ = pad_packed_sequence(got)
    for row, length in enumerate(lengths):
        assert torch.equal(padded[length - 1, row], h_n[0, row])
    wrong = PackedSequence(packed.data[:-1], packed.batch_sizes)
    with pytest.raises(
        ValueError, match="input: expected batch_sizes above 0 that fall and sum up to 15"
    ):
        ours(wrong)


@pytest.mark.parametrize("batch_first", [True, False])
def test_arrays_are_shared_not_copied(batch_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = stack._core.forward

    def spy(*args: Any) -> Any:
        seen.append((args[3], args[9]))
        return forward(*args)

    monkeypatch.setattr(stack._core, "forward", spy)
    module = ft.LSTM(4, 6, batch_first=batch_first)
    x = torch.randn(5, 9, 8)[:, ::2, :4].requires_grad_()  # strides of its own
    for given in (x, x.transpose(0, 1), x[:1].expand(5, 5, 4)):
        y = module(given)[0]
        array, output = seen.pop()
        assert array.ctypes.data == given.data_ptr()
        assert array.strides == tuple(4 * stride for stride in given.stride())
        assert output.ctypes.data == y.data_ptr() and y.is_contiguous()
    crosswise = torch.randn(5, 4, 9).transpose(1, 2)
    straight = crosswise.contiguous()
    assert torch.equal(module(crosswise)[0], module(straight)[0])


def test_an_empty_batch_has_no_output_and_zero_gradients() -> None:
    for kind in KINDS:
        modules = pair(kind, 4, 6, 2, bidirectional=True)
        found = []
        for module in modules:
            y, state = module(torch.zeros(3, 0, 4))
            y.sum().backward()
            found.append([y.shape, [s.shape for s in flat(state)]])
            assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
        assert found[0] == found[1]


def test_inference_needs_no_graph() -> None:
    theirs, ours = pair("GRU", 4, 6, 2)
    x = torch.randn(3, 2, 4)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            (want, _), (got, _) = theirs(x), ours(x)
        close(got, want)
        assert not got.requires_grad and got.is_inference() == want.is_inference()
    ours.requires_grad_(False)
    assert ours(x)[0].grad_fn is None
    few = ft.LSTM(4, 6)
    x = torch.randn(1, 2, 4)
    with torch.no_grad():
        before = few(x)[0]
        few.weight_hh_l0.data.mul_(2)  # no version counter sees this
        few.weight_ih_l0.data.mul_(2)
        assert not torch.equal(few(x)[0], before)


def test_weights_are_read_at_every_call() -> None:
    theirs, ours = pair("LSTM", 4, 6)
    x = torch.randn(20, 2, 4)
    ours(x)
    for module in (theirs, ours):
        for weight in module.parameters():
            weight.data.mul_(0.5)
    close(ours(x)[0], theirs(x)[0])


def test_copies_and_pickles() -> None:
    module = ft.LSTM(4, 6, 2, bidirectional=True, proj_size=3, batch_first=True)
    x = torch.randn(3, 5, 4)
    want = module(x)[0]
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    others = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for other in others:
        assert type(other) is ft.LSTM and torch.equal(other(x)[0], want)
    with torch.no_grad():
        for weight in others[0].parameters():
            weight.zero_()
    assert torch.equal(module(x)[0], want) and not others[0](x)[0].any()


def test_cpu_autocast_keeps_the_weights_dtype() -> None:
    theirs, ours = pair("LSTM", 4, 6)
    x = torch.randn(3, 2, 4, dtype=torch.bfloat16, requires_grad=True)
    state = (torch.randn(1, 2, 6).bfloat16(), torch.randn(1, 2, 6).bfloat16())
    with torch.autocast("cpu"):
        y, (h, c) = ours(x, state)
        y.sum().backward()
    assert y.dtype == h.dtype == c.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    close(y, theirs(x.float(), tuple(each.float() for each in state))[0])
    with pytest.raises(TypeError, match=r"input: expected torch\.float32, as weights are"):
        ours(x)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_made_of_others(kind: str) -> None:
    modules = pair(kind, 4, 6)
    for module in modules:
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    assert_alike(modules, torch.randn(3, 2, 4))
    assert modules[1].parametrizations.weight_hh_l0.original0.shape == (
        len(modules[1].bias_ih_l0),
        1,
    )


def test_functional_call() -> None:
    theirs, ours = pair("GRU", 4, 6)
    weights = {name: torch.randn_like(p) for name, p in ours.named_parameters()}
    x = torch.randn(3, 2, 4)
    want, got = (torch.func.functional_call(m, weights, (x,))[0] for m in (theirs, ours))
    close(got, want)


def zeros(*shape: int, **options: Any) -> Any:
    return torch.zeros(*shape, **options)


@pytest.mark.parametrize(
    ("error", "message", "args"),
    [
        (TypeError, "input: expected a Tensor, got ndarray", (np.zeros((3, 2, 4), "float32"),)),
        (TypeError, "input: expected torch.float32, as weights are, got torch.float64",
         (zeros(3, 2, 4, dtype=torch.float64),)),
        (ValueError, "input: expected a tensor on cpu, got one on meta",
         (zeros(3, 2, 4, device="meta"),)),
        (ValueError, r"input: expected \(time, batch, 4\).*, got \(3, 2, 5\)", (zeros(3, 2, 5),)),
        (ValueError, r"input: expected \(time, 4\).*, got \(3, 5\)", (zeros(3, 5),)),
        (ValueError, r"input: expected \(time, batch, 4\).*, got \(4,\)", (zeros(4),)),
        (ValueError, r"one time step at least, got \(0, 2, 4\)", (zeros(0, 2, 4),)),
        (ValueError, r"input: expected \(rows, 4\).*, got \(2, 5\)",
         (PackedSequence(zeros(2, 5), torch.tensor([2])),)),
        (ValueError, "input: expected batch_sizes above 0",
         (PackedSequence(zeros(5, 4), torch.tensor([3, 2, 0])),)),
        (TypeError, "input: expected a dense tensor, got torch.sparse_coo",
         (zeros(3, 2, 4).to_sparse(),)),
        (TypeError, "input: expected a dense tensor, got a nested one",
         (torch.nested.nested_tensor([zeros(3, 4), zeros(2, 4)], layout=torch.jagged),)),
        (TypeError, "c_0: expected a dense tensor, got torch.sparse_coo",
         (zeros(3, 2, 4), (zeros(1, 2, 6), zeros(1, 2, 6).to_sparse()))),
        (TypeError, r"hx: expected \(h_0, c_0\), got Tensor", (zeros(3, 2, 4), zeros(1, 2, 6))),
        (TypeError, "c_0: expected a Tensor, got NoneType",
         (zeros(3, 2, 4), (zeros(1, 2, 6), None))),
        (ValueError, r"c_0: expected \(1, 2, 6\), got \(1, 3, 6\)",
         (zeros(3, 2, 4), (zeros(1, 2, 6), zeros(1, 3, 6)))),
        (ValueError, r"h_0: expected \(1, 6\), got \(1, 2, 6\)",
         (zeros(3, 4), (zeros(1, 2, 6), zeros(1, 6)))),
        (TypeError, "h_0: expected torch.float32, as weights are, got torch.float64",
         (zeros(3, 2, 4), (zeros(1, 2, 6).double(), zeros(1, 2, 6)))),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(error: Any, message: str, args: Any) -> None:
    with pytest.raises(error, match=message):
        ft.LSTM(4, 6)(*args)


def test_weights_that_do_not_fit_are_named() -> None:
    x = torch.zeros(3, 2, 4)
    with pytest.raises(TypeError, match=r"weight_ih_l0: expected torch\.float32 or torch\.float64"):
        ft.LSTM(4, 6).bfloat16()(x.bfloat16())
    with pytest.raises(ValueError, match="weight_ih_l0: expected a tensor on cpu, got one on meta"):
        ft.LSTM(4, 6, device="meta")(x)
    module = ft.LSTM(4, 6)
    module.bias_hh_l0 = nn.Parameter(module.bias_hh_l0.double())
    with pytest.raises(TypeError, match=r"bias_hh_l0: expected torch\.float32, as weights are"):
        module(x)
    module.bias_hh_l0 = nn.Parameter(torch.zeros(5))
    with pytest.raises(ValueError, match=r"bias_hh: expected \(24,\), got \(5,\)"):
        module(x)
