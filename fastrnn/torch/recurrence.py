"""A stack of layers as autograd knows it: a Function, and for torch.compile an operator.

Both run `stack`. Weights belong to PyTorch, where they may change without a trace (``p.data``), so
they are packed in every call.

What a backward pass needs of its forward pass, the tapes, the Function keeps. In the operator, and
where someone has hooks on saved tensors, it goes from one to the other beside the graph: among the
saved tensors is a token, one byte, whose memory holds them. Who saves less (checkpoints) so saves
tapes too. They serve one backward pass, and refer to the memory of x and of weights; where a graph
is kept for a second one (retain_graph), a token was copied, or x is given at another place than
then, its old one perhaps in other use, the layers are run again.

The transforms of torch.func take Functions of another kind, over the operators, without tapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, is_grad_enabled
from torch._C import _are_functorch_transforms_active, _is_tracing, _len_torch_dispatch_stack
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from fastrnn.torch import stack
from fastrnn.torch.exchange import exchange
from fastrnn.torch.stack import Stack

Tensors = Sequence[Any]  # Tensor or None
Spec = tuple[str, int, int, int, int, bool, bool, bool]  # Stack's arguments but `double`
Call = tuple[Stack, int, Any]  # the layers, from which on tapes are kept, batch_sizes
Kept = list[tuple[list[int], Any]]  # addresses of a call's inputs, and its tapes until taken


_kept: dict[int, Kept] = {}  # by a token's address


class _Token(np.ndarray):
    address: int

    def __del__(self, forget: Any = _kept.pop) -> None:
        forget(self.address, None)


def run(spec: Spec, batch_sizes: Tensor | None, inputs: Tensors) -> tuple[Tensor, ...]:
    """``(y, h_n)``, for LSTM ``(y, h_n, c_n)``; see `stack.forward`.

    inputs: x, h_0, c_0 and the weights.
    """
    layers = kept_from = spec[4]
    compiling = is_compiling()
    if not compiling and _are_functorch_transforms_active():
        outputs = _Transformed.apply(spec, batch_sizes, *inputs)
        return outputs[: 2 + (spec[0] == "LSTM")]  # type: ignore[no-any-return]
    tracing = not compiling and _is_tracing()  # what is traced in one mode may run in the other
    if is_grad_enabled() or tracing:
        for i, tensor in enumerate(inputs):
            if tensor is not None and tensor.requires_grad:
                kept_from = (i - 3) * layers // (len(inputs) - 3) if i > 3 else 0
                break
    if compiling or tracing or _len_torch_dispatch_stack():
        outputs = _operator(*spec, kept_from, batch_sizes, *inputs[:3], inputs[3:])
        return outputs[: 2 + (spec[0] == "LSTM")]  # type: ignore[no-any-return]
    call = (stack.stack(*spec, inputs[0].dtype is torch.float64), kept_from, batch_sizes)
    if kept_from == layers and forward_ad._current_level < 0:  # which autograd's Function refuses
        return _forward(call, inputs)[0]
    return _apply(call, *inputs)  # type: ignore[no-any-return]


def _token(kept: Kept) -> Tensor:
    array = np.zeros(1, np.uint8).view(_Token)
    token = torch.from_numpy(array)
    array.address = token.data_ptr()
    _kept[array.address] = kept
    return token


def _kept_of(token: Tensor) -> Kept:
    return _kept.get(token.data_ptr(), [])


def _forward(call: Call, inputs: Tensors) -> tuple[tuple[Tensor, ...], Kept]:
    layers, kept_from, batch_sizes = call
    [x] = exchange.arrays(inputs[:1], False)
    h_0, c_0, *weights = exchange.arrays(inputs[1:], True)
    weights.append(None)
    sizes = None if batch_sizes is None else batch_sizes.numpy()
    *outputs, tapes = stack.forward(layers, kept_from, x, sizes, h_0, c_0, weights)
    kept = [(exchange.addresses(inputs), tapes)] if tapes else []
    return tuple(exchange.tensors(outputs[: 2 + layers.has_c])), kept


def _backward(
    call: Call, kept: Kept, inputs: Tensors, gradients: Tensors, needs: Sequence[bool]
) -> list[Any]:
    """The gradients of `inputs`, None where there is no need."""
    if not inputs[0].numel():
        pairs = zip(inputs, needs, strict=True)
        return [torch.zeros_like(each) if need else None for each, need in pairs]
    try:
        addresses, tapes = kept.pop()  # atomic: of several threads one gets them
    except IndexError:
        addresses = []
    if addresses != exchange.addresses(inputs):
        [(_, tapes)] = _forward(call, inputs)[1]
    layers, kept_from, batch_sizes = call
    sizes = None if batch_sizes is None else batch_sizes.numpy()
    [dy] = exchange.arrays(gradients[:1], False)
    dh_n, dc_n = exchange.arrays(gradients[1:], True)
    found = stack.backward(layers, kept_from, tapes, sizes, dy, dh_n, dc_n, needs)
    return exchange.tensors(found)


class _Recurrence(torch.autograd.Function):
    """Its tensors are x, h_0, c_0 and the weights."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        outputs, kept = _forward(call, inputs)
        token = (_token(kept),) if _top_saved_tensors_default_hooks(True) else ()
        ctx.save_for_backward(*inputs, *token)  # which finds out changes in place
        ctx.call = call, None if token else kept
        return outputs

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None = None
    ) -> tuple[Any, ...]:
        call, kept = ctx.call
        inputs, gradients = ctx.saved_tensors, (dy, dh_n, dc_n)
        if kept is None:
            *inputs, token = inputs
            kept = _kept_of(token)
        if _are_functorch_transforms_active():  # a batch of gradients
            needs = ctx.needs_input_grad[1:]
            return None, *_gradients(call[0].spec, call[2], inputs, gradients, needs)
        given = call, kept, inputs, gradients, ctx.needs_input_grad[1:]
        if is_grad_enabled():
            return (None, *_Gradients.apply(given, *inputs, *gradients))
        try:
            return (None, *_backward(*given))
        except RuntimeError:  # so that all others need not ask
            if not any(each is not None and is_legacy_batchedtensor(each) for each in gradients):
                raise
        return None, *_batched_gradients(call, inputs, gradients, ctx.needs_input_grad[1:])


def _batched_gradients(
    call: Call, inputs: Tensors, gradients: Tensors, needs: Sequence[bool]
) -> list[Any]:
    """Of the batch that `torch.autograd.grad` makes with ``is_grads_batched``: one by one."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    parts = [
        torch._remove_batch_dim(each, level, 0, 0).unbind()
        if each is not None and is_legacy_batchedtensor(each)
        else repeat(each)
        for each in gradients
    ]
    found = [_backward(call, [], inputs, part, needs) for part in zip(*parts, strict=False)]
    pairs = zip(zip(*found, strict=True), needs, strict=True)
    return [torch._add_batch_dim(torch.stack(e), 0, level) if need else None for e, need in pairs]


class _Gradients(torch.autograd.Function):
    """What `_backward` gives, which depends on tensors but has no derivative."""

    @staticmethod
    def forward(ctx: Any, given: Any, *_: Any) -> tuple[Any, ...]:
        return tuple(_backward(*given))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError("fastrnn.torch: the gradients of a recurrent layer have no derivatives")


_apply: Any = super(torch.autograd.Function, _Recurrence).apply  # without what transforms want


# --- The transforms of torch.func -----------------------------------------------------------------


class _OneByOne(torch.autograd.Function):
    """A Function that vmap calls for each of a batch; it has no derivative."""

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *arguments: Any) -> Any:
        pairs = list(zip(arguments, in_dims, strict=True))
        found = [
            cls.apply(*[a.select(dim, i) if isinstance(dim, int) else a for a, dim in pairs])
            for i in range(info.batch_size)
        ]
        outputs = tuple([torch.stack(each) for each in zip(*found, strict=True)])
        return outputs, (0,) * len(outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    backward = _Gradients.backward


class _Transformed(_OneByOne):
    """y, h_n and c_n of ``(spec, batch_sizes, x, h_0, c_0, *weights)``."""

    @staticmethod
    def forward(spec: Spec, batch_sizes: Any, *inputs: Any) -> Any:
        return _operator(*spec, spec[4], batch_sizes, *inputs[:3], inputs[3:])[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.spec, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        batch_sizes, *inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        return None, None, *_gradients(ctx.spec, batch_sizes, inputs, gradients, needs)


class _TransformedGradients(_OneByOne):
    """The gradients that are needed."""

    @staticmethod
    def forward(spec: Spec, needs: Any, batch_sizes: Any, *tensors: Any) -> Any:
        *gradients, x, h_0, c_0 = tensors[:6]
        token = x.new_empty(0, dtype=torch.uint8)  # no tapes: the layers are run again
        inputs = x, h_0, c_0, tensors[6:], token
        return tuple(_operator_backward(*spec, 0, batch_sizes, *inputs, *gradients, list(needs)))


def _gradients(
    spec: Spec, batch_sizes: Any, inputs: Tensors, gradients: Tensors, needs: Sequence[bool]
) -> list[Any]:
    """Of all `inputs`, None where there is no need."""
    dy, dh_n, dc_n = gradients
    dc_n = dc_n if spec[0] == "LSTM" else None
    found = iter(
        _TransformedGradients.apply(spec, tuple(needs), batch_sizes, dy, dh_n, dc_n, *inputs)
    )
    return [next(found) if need else None for need in needs]


# --- The operator ---------------------------------------------------------------------------------

_CALL = (
    "str mode, int input_size, int hidden_size, int proj_size, int num_layers, bool bias, "
    "bool bidirectional, bool batch_first, int kept_from, Tensor? batch_sizes"
)
_SPEC_SIZE = 10
_INPUTS = "Tensor x, Tensor? h_0, Tensor? c_0, Tensor[] weights"


@torch.library.custom_op(
    "fastrnn::recurrence",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_CALL}, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _operator(*arguments: Any) -> tuple[Tensor, ...]:
    """y, h_n, c_n (nothing where there is none), token."""
    call, inputs = _arguments(arguments)
    outputs, kept = _forward(call, inputs)
    c_n = outputs[2] if call[0].has_c else inputs[0].new_empty(0)
    return (*outputs[:2], c_n, _token(kept))


@torch.library.custom_op(
    "fastrnn::recurrence_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_CALL}, {_INPUTS}, Tensor token, Tensor? dy, Tensor? dh_n, Tensor? dc_n, "
    "bool[] needs) -> Tensor[]",
)
def _operator_backward(*arguments: Any) -> list[Tensor]:
    """The gradients that are needed."""
    *given, token, dy, dh_n, dc_n, needs = arguments
    call, inputs = _arguments(given)
    found = _backward(call, _kept_of(token), inputs, (dy, dh_n, dc_n), needs)
    return [each for each in found if each is not None]


def _arguments(given: Sequence[Any]) -> tuple[Call, list[Any]]:
    """The call, and its x, h_0, c_0 and weights in one list."""
    *spec, kept_from, batch_sizes, x, h_0, c_0, weights = given
    layers = stack.stack(*spec, x.dtype is torch.float64)
    return (layers, kept_from, batch_sizes), [x, h_0, c_0, *weights]


@_operator.register_fake
def _shapes(*arguments: Any) -> tuple[Tensor, ...]:
    (layers, _, batch_sizes), (x, *_) = _arguments(arguments)
    if batch_sizes is None:
        batch = x.shape[0 if layers.batch_first else 1]
    else:
        batch = torch.library.get_ctx().new_dynamic_size()
    y = x.new_empty((*x.shape[:-1], layers.output_size))
    h_n = x.new_empty((layers.states, batch, layers.state_size))
    c_n = x.new_empty((layers.states, batch, layers.hidden_size) if layers.has_c else 0)
    return y, h_n, c_n, x.new_empty(1, dtype=torch.uint8)


@_operator_backward.register_fake
def _backward_shapes(*arguments: Any) -> list[Tensor]:
    x, h_0, c_0, weights, *_, needs = arguments[_SPEC_SIZE:]
    pairs = zip((x, h_0, c_0, *weights), needs, strict=True)
    return [each.new_empty(each.shape) for each, need in pairs if need]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *ctx.spec, batch_sizes, x, h_0, c_0, weights = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(batch_sizes, output[3], x, h_0, c_0, *weights)


def _operator_gradients(ctx: Any, dy: Any, dh_n: Any, dc_n: Any, _: Any) -> tuple[Any, ...]:
    batch_sizes, token, x, h_0, c_0, *weights = ctx.saved_tensors
    *needs, of_weights = ctx.needs_input_grad[-4:]
    needs += of_weights
    dc_n = dc_n if ctx.spec[0] == "LSTM" else None
    arguments = (*ctx.spec, batch_sizes, x, h_0, c_0, weights, token, dy, dh_n, dc_n, needs)
    found = iter(_operator_backward(*arguments))
    dx, dh_0, dc_0, *others = [next(found) if need else None for need in needs]
    return (*[None] * _SPEC_SIZE, dx, dh_0, dc_0, others)


_operator.register_autograd(_operator_gradients, setup_context=_keep)
