"""fastrnn.torch under autograd and torch.compile."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

import fastrnn as fr  # noqa: E402
import fastrnn.torch as ft  # noqa: E402
from fastrnn.torch import recurrence, stack  # noqa: E402

KINDS = ["LSTM", "GRU", "RNN"]


def tensors(results: Any) -> list[Any]:
    """Outputs and states in one list."""
    y, state = results
    y = y.data if isinstance(y, PackedSequence) else y
    return [y, *(state if isinstance(state, tuple) else (state,))]


@contextmanager
def counted(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The calls of a function of the core, by their arguments."""
    calls = []
    function = getattr(stack._core, name)

    def count(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stack._core, name, count)
        yield calls


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"bidirectional": True, "proj_size": 2}),
        ("LSTM", {"batch_first": True}),
        ("GRU", {"bidirectional": True}),
        ("RNN", {"bidirectional": True, "bias": False}),
        ("RNN", {"nonlinearity": "relu"}),
    ],
)
def test_gradients_are_those_of_differences(
    kind: str, options: dict[str, Any], packed: bool
) -> None:
    torch.manual_seed(0)
    module = getattr(ft, kind)(2, 3, 2, dtype=torch.float64, **options)
    first = module.batch_first
    count = 2 * (1 + module.bidirectional)
    names, weights = zip(*module.named_parameters(), strict=True)
    h, c = torch.randn(count, 2, module.proj_size or 3), torch.randn(count, 2, 3)
    states = (h, c)[: 1 + (kind == "LSTM")]
    inputs = [each.double().requires_grad_() for each in (torch.randn(2, 2, 2), *states)]

    def call(x: Any, *others: Any) -> tuple[Any, ...]:
        state = others[: len(states)]
        hx = state if kind == "LSTM" else state[0]
        if packed:
            lengths = torch.tensor([1, 2])
            x = pack_padded_sequence(x, lengths, first, enforce_sorted=False)
        named = dict(zip(names, others[len(states) :], strict=True))
        return tuple(tensors(torch.func.functional_call(module, named, (x, hx))))

    assert torch.autograd.gradcheck(call, (*inputs, *weights))


@pytest.mark.parametrize("time", [1, 12])
def test_same_bits_as_fastrnns_own_layer(time: int) -> None:
    module = ft.LSTM(5, 7, 2, batch_first=True, bidirectional=True)
    layer = fr.LSTM(5, 7, 2, bidirectional=True)
    layer.load_state_dict({name: p.detach().numpy() for name, p in module.named_parameters()})
    x = torch.randn(3, time, 5, requires_grad=True)
    y, (h, c) = module(x)
    (y_, (h_, c_)), pullback = layer.vjp(x.detach().numpy())
    dy = torch.randn_like(y)
    y.backward(dy)
    dx, _ = pullback(dy.numpy())
    pairs = [(y, y_), (h, h_), (c, c_), (x.grad, dx)]
    pairs += [(p.grad, layer.parameters()[name].grad) for name, p in module.named_parameters()]
    for got, want in pairs:
        assert np.array_equal(got.detach().numpy(), want)


@pytest.mark.parametrize("time", [2, 9])
@pytest.mark.parametrize("name", ["x", "h", "weight_ih_l0", "weight_hh_l0", "bias_hh_l0"])
def test_a_change_in_place_before_backward_is_found_out(name: str, time: int) -> None:
    module = ft.GRU(4, 6)
    given = {"x": torch.randn(time, 2, 4), "h": torch.randn(1, 2, 6), **module._parameters}
    y, _ = module(given["x"], given["h"])
    with torch.no_grad():
        given[name].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_outputs_may_change_in_place() -> None:
    module = ft.LSTM(4, 6, 2)
    x, found = torch.randn(5, 2, 4), []
    for double in (torch.Tensor.mul_, torch.Tensor.mul):
        y, (h, _) = module(x)
        total = double(y, 2).sum() + double(h, 2).square().sum()
        found.append(torch.autograd.grad(total, list(module.parameters())))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_can_be_kept_for_another_backward(kind: str) -> None:
    module = getattr(ft, kind)(4, 6, 2)
    x = torch.randn(5, 2, 4, requires_grad=True)
    y, _ = module(x)
    dy = torch.randn_like(y)
    inputs = [x, *module.parameters()]
    first = torch.autograd.grad(y, inputs, dy, retain_graph=True)
    for again in (torch.autograd.grad(y, inputs, dy, retain_graph=keep) for keep in (True, False)):
        assert all(map(torch.equal, again, first))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y, inputs, dy)


def test_differentiating_twice_is_an_error() -> None:
    module = ft.LSTM(4, 6)
    x = torch.randn(5, 2, 4, requires_grad=True)
    [dx] = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    [plain] = torch.autograd.grad(module(x)[0].sum(), x)
    assert torch.equal(dx, plain)
    with pytest.raises(RuntimeError, match="gradients of a recurrent layer have no derivatives"):
        dx.sum().backward()


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ft.LSTM(4, 6, 3)
    module.weight_ih_l0.requires_grad_(False)
    x = torch.randn(5, 2, 4)
    with counted("backward", monkeypatch) as calls:
        module(x)[0].sum().backward()
    *_, first = calls
    with_dx, dh_0, dc_0, [wanted] = first[6:10]
    assert not with_dx and dh_0 is None and dc_0 is None
    assert wanted[0] is None and wanted[1] is not None and module.weight_ih_l0.grad is None

    for name, parameter in module.named_parameters():
        parameter.requires_grad_("l2" in name)
    with counted("forward", monkeypatch) as forward, counted("backward", monkeypatch) as backward:
        module(x)[0].sum().backward()
    assert [args[12] for args in forward] == [False, False, True]  # who keeps a tape
    assert len(backward) == 1 and not backward[0][6]

    module.requires_grad_(False)
    state = (torch.zeros(3, 2, 6, requires_grad=True), torch.zeros(3, 2, 6))
    with counted("backward", monkeypatch) as calls:
        module(x, state)[1][0].sum().backward()  # no gradient of y
    assert len(calls) == 3 and calls[0][3] is None and state[0].grad is not None


def test_packs_for_backward_and_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    packs: list[Any] = []
    made = stack._core.Pack
    monkeypatch.setattr(stack._core, "Pack", lambda *args: packs.append(args) or made(*args))
    module = ft.GRU(4, 6)
    module(torch.randn(20, 2, 4))
    module(torch.randn(9, 2, 4))
    with torch.no_grad():
        module(torch.randn(20, 2, 4))
        module(torch.randn(2, 2, 4))
    assert [(args[2], args[4]) for args in packs] == [(True, 0), (True, 1), (False, 0), (False, 2)]


def test_activation_checkpointing() -> None:
    module = ft.LSTM(4, 6, 2, dropout=0.5)
    x = torch.randn(5, 2, 4, requires_grad=True)
    found = []
    for call in (
        module,
        lambda x: torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False),
    ):
        torch.manual_seed(0)
        y, _ = call(x)
        found.append((y, *torch.autograd.grad(y.sum(), [x, *module.parameters()])))
    assert all(map(torch.equal, *found))
    y, _ = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
    gc.collect()
    assert not recurrence._kept  # before the backward pass there are no tapes


def test_saved_tensors_may_be_copies() -> None:
    module, x, found = ft.LSTM(4, 6, 2), torch.randn(5, 2, 4), []
    for change in (torch.clone, torch.Tensor.zero_):
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
            y, _ = module(x)
        change(x)
        found.append(torch.autograd.grad(y.sum(), list(module.parameters())))
    assert all(map(torch.equal, *found))


def test_conjugates_imaginary_parts_are_taken() -> None:
    """Whose signs PyTorch changes as they are read."""
    module = ft.GRU(4, 6)
    lazy, found = [torch._neg_view(torch.randn(5, 2, size)) for size in (4, 6)], []
    for x, dy in (lazy, [each.clone() for each in lazy]):
        y, _ = module(x)
        found.append((y, *torch.autograd.grad(y, list(module.parameters()), dy)))
    assert all(map(torch.equal, *found))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own
def test_forward_mode_is_refused_not_ignored() -> None:
    module = ft.GRU(4, 6).requires_grad_(False)
    x = torch.randn(5, 2, 4)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        module(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("grad", [True, False])
def test_traces_hold_no_result_as_a_constant(grad: bool) -> None:
    module, x = ft.LSTM(4, 6, 2), torch.randn(5, 2, 4)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(module, x)
    assert torch.equal(traced(2 * x)[0], module(2 * x)[0])
    grads = [torch.autograd.grad(f(2 * x)[0].sum(), module.weight_hh_l0) for f in (traced, module)]
    assert torch.equal(*[grad for [grad] in grads])
    module.requires_grad_(False)
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: module(x)[0])(x)
    assert torch.equal(graph(2 * x), module(2 * x)[0])


class Model(torch.nn.Module):
    """A module of ours between others."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.before = torch.nn.Linear(3, 4)
        self.recurrent = getattr(ft, kind)(4, 6, **options)
        self.after = torch.nn.Linear(6 * (1 + self.recurrent.bidirectional), 2)

    def forward(self, x: Any, hx: Any = None) -> Any:
        y, state = self.recurrent(self.before(x).tanh(), hx)
        return self.after(y), state


def gradients(call: Callable[..., Any], model: Any, *args: Any) -> list[Any]:
    torch.manual_seed(0)
    results = tensors(call(*args))
    total = sum(each.square().sum() for each in results)
    return [*results, *torch.autograd.grad(total, list(model.parameters()))]


@pytest.fixture
def dynamo() -> Iterator[Any]:
    torch._dynamo.reset()
    yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_compile_breaks_no_graph(
    kind: str, backend: str, dynamo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"num_layers": 2, "dropout": 0.3, "batch_first": True, "bidirectional": True}
    model = Model(kind, **options)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for batch, time in ((2, 5), (3, 7), (4, 6)):  # then with dynamic shapes
        x = torch.randn(batch, time, 3)
        want = gradients(model, model, x)
        with counted("forward", monkeypatch) as calls:
            got = gradients(compiled, model, x)
        assert len(calls) == 2  # tapes reach the backward pass: no layer runs twice
        assert all(map(torch.equal, got, want))
    frames = dynamo.utils.counters["stats"]["unique_graphs"]
    compiled(torch.randn(5, 9, 3))
    assert dynamo.utils.counters["stats"]["unique_graphs"] == frames
    state = torch.randn(4, 5, 6)
    hx = (state, state.cos()) if kind == "LSTM" else state
    x = torch.randn(5, 9, 3)
    assert all(map(torch.equal, gradients(compiled, model, x, hx), gradients(model, model, x, hx)))
    model.eval()
    with torch.no_grad():
        assert torch.equal(compiled(x)[0], model(x)[0])
    gc.collect()
    assert not recurrence._kept  # nor do tapes outlive their graph


@torch.no_grad()
@pytest.mark.parametrize("time", [2, 9])  # of few steps weights are not copied
@pytest.mark.parametrize("overwritten", [0, 3])
def test_memory_may_be_in_other_use_until_the_backward_pass(overwritten: int, time: int) -> None:
    inputs = [torch.randn(time, 2, 4), None, None, *ft.GRU(4, 6).parameters()]
    spec = ("GRU", 4, 6, 0, 1, True, False, False)

    def call(inputs: Any) -> tuple[Any, ...]:
        return (*spec, 0, None, *inputs[:3], inputs[3:])

    def backward(token: Any, inputs: Any) -> Any:
        needs = [True, False, False] + [True] * 4
        return recurrence._operator_backward(
            *call(inputs), token, torch.ones(time, 2, 6), None, None, needs
        )

    want = backward(recurrence._operator(*call(inputs))[3], inputs)
    token = recurrence._operator(*call(inputs))[3]
    again = [each if each is None else each.clone() for each in inputs]  # as a compiler makes them
    inputs[overwritten].zero_()
    assert all(map(torch.equal, backward(token, again), want))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo looks at it
def test_compile_takes_a_packed_sequence(dynamo: Any) -> None:
    module = ft.LSTM(4, 6, 2, bidirectional=True)
    compiled = torch.compile(module, backend="aot_eager")
    for lengths in ([3, 1, 5], [2, 6, 4]):
        x = torch.randn(6, 3, 4)
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        got, want = gradients(compiled, module, packed), gradients(module, module, packed)
        assert all(map(torch.equal, got, want))


def test_export(dynamo: Any) -> None:
    model = Model("GRU", bidirectional=True)
    sizes = {0: torch.export.Dim("time", min=2), 1: torch.export.Dim("batch", min=2)}
    exported = torch.export.export(model, (torch.randn(4, 3, 3),), dynamic_shapes={"x": sizes})
    x = torch.randn(7, 2, 3)
    assert torch.equal(exported.module()(x)[0], model(x)[0])


@pytest.mark.filterwarnings("ignore")  # its own
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_is_sound(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    module = getattr(ft, kind)(3, 4, 2, bidirectional=True)
    mode = {"RNN": "RNN_TANH"}.get(kind, kind)
    spec = (mode, 3, 4, 0, 2, True, True, False)
    x = torch.randn(*((6,) if packed else (5, 3)), 3, requires_grad=True)
    sizes = torch.tensor([3, 2, 1]) if packed else None
    h = torch.randn(4, 3, 4, requires_grad=True)
    c = torch.randn(4, 3, 4) if kind == "LSTM" else None
    weights = list(module.parameters())
    tests = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        "test_aot_dispatch_dynamic",
    )
    arguments = (*spec, 0, sizes, x, h, c, weights)
    torch.library.opcheck(recurrence._operator, arguments, test_utils=tests)
    with torch.no_grad():
        y, h_n, _, token = recurrence._operator(*arguments)
    needs = [True, True, False] + [True] * len(weights)
    given = (*arguments, token, torch.randn_like(y), torch.randn_like(h_n), None, needs)
    detached = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, given)
    torch.library.opcheck(recurrence._operator_backward, detached, test_utils=tests)


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and ours, with the same weights, for inputs of 3."""
    theirs, ours = (getattr(of, kind)(3, 4, **options) for of in (torch.nn, ft))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_of_torch_func(kind: str) -> None:
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    weights = {name: p.detach() for name, p in ours.named_parameters()}
    x = torch.randn(5, 6, 2, 3)  # a batch of batches

    def loss(module: Any, weights: Any, x: Any) -> Any:
        outputs = tensors(torch.func.functional_call(module, weights, (x,)))
        return sum(each.square().sum() for each in outputs)

    def gradients(module: Any, x: Any) -> list[Any]:
        found = torch.func.grad(loss, argnums=(1, 2))(module, weights, x)
        return [*found[0].values(), found[1]]

    want = [gradients(theirs, each) for each in x]
    one_by_one = [gradients(ours, each) for each in x]
    at_once = torch.vmap(gradients, in_dims=(None, 0))(ours, x)
    for i, each in enumerate(zip(*want, strict=True)):
        want_all = torch.stack(each)
        torch.testing.assert_close(torch.stack([found[i] for found in one_by_one]), want_all)
        torch.testing.assert_close(at_once[i], want_all)
    both = [torch.func.jacrev(lambda x, m=m: m(x)[0])(x[0]) for m in (theirs, ours)]
    torch.testing.assert_close(both[1], both[0])
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda x: ours(x)[0], (x[0],), (x[0],))
    with pytest.raises(RuntimeError, match="have no derivatives"):
        torch.func.jacrev(torch.func.jacrev(lambda x: ours(x)[0]))(x[0])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch.nn's module
def test_gradients_of_a_batch() -> None:
    theirs, ours = pair("LSTM")
    x = torch.randn(5, 2, 3, requires_grad=True)
    batch = torch.randn(6, 5, 2, 4)
    both = []
    for module in (theirs, ours):
        y, _ = module(x)
        both.append(torch.vmap(lambda dy, y=y: torch.autograd.grad(y, x, dy, True)[0])(batch))
    torch.testing.assert_close(both[1], both[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_batch_that_autograd_makes(kind: str) -> None:
    both = []
    for module in pair(kind):
        module.weight_hh_l0.requires_grad_(False)
        x = torch.linspace(-1, 1, 30).view(5, 2, 3).requires_grad_()
        inputs = [x, *(p for p in module.parameters() if p.requires_grad)]
        batch = torch.linspace(0, 2, 6 * 40).view(6, 5, 2, 4).sin()
        y, _ = module(x)
        found = torch.autograd.grad(y, inputs, batch, retain_graph=True, is_grads_batched=True)
        functional = torch.autograd.functional
        jacobian = functional.jacobian(lambda x, m=module: m(x)[0], x, vectorize=True)
        both.append([*found, jacobian, *torch.autograd.grad(y.sum(), inputs)])
    torch.testing.assert_close(both[1], both[0])
