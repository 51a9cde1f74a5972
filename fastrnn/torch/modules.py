"""LSTM, GRU and RNN as `torch.nn` has them, over fastrnn's kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from fastrnn.checks import check_choice
from fastrnn.torch.recurrence import Spec, run

DTYPES = (torch.float32, torch.float64)


class _Recurrent(torch.nn.RNNBase):
    """What the three share.

    A subclass of `torch.nn.RNNBase`: constructor, attributes, starting values, state dicts and
    pickles are PyTorch's. Not of `torch.nn.LSTM` and the others: torch.compile refuses those.
    """

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """``(output, state)``, shaped as `torch.nn` has them; of a `PackedSequence` another one.

        All on the CPU, in the weights' dtype, float32 or float64. Under CPU autocast other dtypes
        are converted to it, and it is the output's. Raises TypeError or ValueError, naming the
        argument, for what does not fit.
        """
        names, own = self._flat_weights_names, self._parameters
        if list(own) == names:
            weights = list(own.values())
        else:  # a parametrization makes attributes of them
            weights = [getattr(self, name) for name in names]
        dtype = weights[0].dtype
        if dtype not in DTYPES or not weights[0].is_cpu:
            _check_weights(names, weights)
        packed = isinstance(input, PackedSequence)
        parts: Any = input if packed else (input, None, None, None)
        x, batch_sizes, order, inverse = parts
        x = _checked("input", x, dtype)
        states: Any = None, None
        try:
            shape = x.shape
            axes = len(shape)
            first = self.batch_first and axes == 3
            if packed or axes != 3 or shape[2] != self.input_size or not shape[first]:
                x = self._unusual(x, packed)
            if hx is not None:
                batch = int(batch_sizes[0]) if packed else x.shape[not first]
                states = self._checked_states(hx, batch, axes == 2 and not packed, dtype)
                if order is not None:
                    states = [None if s is None else s.index_select(1, order) for s in states]
            spec = (
                self.mode, self.input_size, self.hidden_size, self.proj_size, self.num_layers,
                self.bias, self.bidirectional, first,
            )  # fmt: skip
            if self.dropout and self.training and self.num_layers > 1:
                outputs = self._with_dropout(spec, x, batch_sizes, states, weights)
            else:
                outputs = run(spec, batch_sizes, (x, *states, *weights))
        except (TypeError, ValueError, RuntimeError):
            _check_weights(names, weights)
            _check_dense(("input", "h_0", "c_0", *names), (x, *states, *weights))
            raise
        if inverse is not None:
            outputs = (outputs[0], *[each.index_select(1, inverse) for each in outputs[1:]])
        if axes == 2 and not packed:
            outputs = tuple([each.squeeze(1) for each in outputs])
        output = PackedSequence(outputs[0], batch_sizes, order, inverse) if packed else outputs[0]
        return output, outputs[1] if len(outputs) == 2 else outputs[1:]

    def _unusual(self, x: Tensor, packed: bool) -> Tensor:
        """A PackedSequence's rows, or an unbatched input with a batch; ValueError for others."""
        axes = "batch, time" if self.batch_first else "time, batch"
        axes = "rows" if packed else "time" if x.dim() == 2 else axes
        if x.dim() != 2 or x.shape[1] != self.input_size or not len(x):
            wanted = f"({axes}, {self.input_size}), one time step at least"
            raise ValueError(f"input: expected {wanted}, got {tuple(x.shape)}")
        return x if packed else x.unsqueeze(1)

    def _with_dropout(
        self, spec: Spec, x: Tensor, batch_sizes: Tensor | None, states: Any, weights: Any
    ) -> tuple[Tensor, ...]:
        """Layer by layer, time first: the masks are those that `torch.nn` would draw."""
        mode, inputs, hidden, projected, layers, bias, bidirectional, first = spec
        directions, each = 1 + bidirectional, len(weights) // layers
        finals = []
        y = x.transpose(0, 1) if first else x
        for k in range(layers):
            if k:
                y, inputs = dropout(y, self.dropout), directions * (projected or hidden)
            own = [None if s is None else s[k * directions : (k + 1) * directions] for s in states]
            own += weights[k * each : (k + 1) * each]
            layer = (mode, inputs, hidden, projected, 1, bias, bidirectional, False)
            y, *ends = run(layer, batch_sizes, (y, *own))
            finals.append(ends)
        y = y.transpose(0, 1) if first else y
        return y, *[torch.cat(ends) for ends in zip(*finals, strict=True)]

    def _checked_states(
        self, hx: Any, batch: int, unbatched: bool, dtype: torch.dtype
    ) -> list[Tensor | None]:
        """h_0 and c_0, with a batch; what the cell has not is None."""
        if self.mode != "LSTM":
            hx = (hx,)
        elif not isinstance(hx, tuple | list) or len(hx) != 2:
            raise TypeError(f"hx: expected (h_0, c_0), got {type(hx).__name__}")
        layers = self.num_layers * (2 if self.bidirectional else 1)
        states: list[Tensor | None] = [None, None]
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        for i, (state, size) in enumerate(zip(hx, sizes, strict=False)):
            name = ("h_0", "c_0")[i]
            state = _checked(name, state, dtype)
            wanted = (layers, size) if unbatched else (layers, batch, size)
            if state.shape != wanted:
                raise ValueError(f"{name}: expected {wanted}, got {tuple(state.shape)}")
            states[i] = state.unsqueeze(1) if unbatched else state
        return states


def _checked(name: str, tensor: Any, dtype: torch.dtype) -> Tensor:
    """`tensor`, under autocast converted; TypeError or ValueError for what is no such tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    if (
        tensor.dtype is not dtype
        and torch.is_autocast_enabled("cpu")
        and tensor.is_floating_point()
    ):
        tensor = tensor.to(dtype)
    if tensor.dtype is not dtype or not tensor.is_cpu:
        _refuse(name, tensor, dtype)
    return tensor


def _check_weights(names: list[str], weights: list[Tensor]) -> None:
    """Says which weight is of another dtype or device, if one is."""
    dtype = weights[0].dtype
    if dtype not in DTYPES:
        raise TypeError(f"{names[0]}: expected torch.float32 or torch.float64, got {dtype}")
    for name, weight in zip(names, weights, strict=True):
        if weight.dtype != dtype or not weight.is_cpu:
            _refuse(name, weight, dtype)


def _check_dense(names: Iterable[str], tensors: Iterable[Tensor | None]) -> None:
    """Says which tensor is sparse, nested or another library's, if one is."""
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None and (tensor.layout is not torch.strided or tensor.is_nested):
            kind = "a nested one" if tensor.is_nested else tensor.layout
            raise TypeError(f"{name}: expected a dense tensor, got {kind}")


def _refuse(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Says what is wrong with its device or dtype."""
    if not tensor.is_cpu:
        raise ValueError(f"{name}: expected a tensor on cpu, got one on {tensor.device}")
    raise TypeError(f"{name}: expected {dtype}, as weights are, got {tensor.dtype}")


class LSTM(_Recurrent):
    """`torch.nn.LSTM` over fastrnn's kernels: its arguments, defaults, weights and results.

    proj_size too. Dropout between layers draws the masks that it would draw.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, proj_size, device, dtype,
        )  # fmt: skip


class GRU(_Recurrent):
    """`torch.nn.GRU` over fastrnn's kernels: its arguments, defaults, weights and results."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype,
        )  # fmt: skip


class RNN(_Recurrent):
    """`torch.nn.RNN` over fastrnn's kernels: its arguments, defaults, weights and results.

    nonlinearity: "tanh" or "relu".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = check_choice(nonlinearity, ("tanh", "relu"), "nonlinearity")
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, 0, device, dtype,
        )  # fmt: skip
