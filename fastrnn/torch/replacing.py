"""`accelerate`: every recurrent module of PyTorch's in a model becomes fastrnn's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastrnn.torch.modules import DTYPES, GRU, LSTM, RNN

_OURS: dict[type, type] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}
_NAMES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")


@dataclass(frozen=True, repr=False)
class Report:
    """What `accelerate` did; printed, it is a line for each module.

    `model` is the model. `replaced` has the modules by their names in it, "" for the model itself,
    with what they are now; `left` has the other recurrent ones with the reason.
    """

    model: nn.Module
    replaced: dict[str, str]
    left: dict[str, str]

    def __repr__(self) -> str:
        total = len(self.replaced) + len(self.left)
        lines = [f"{len(self.replaced)} of {total} recurrent modules run on fastrnn's kernels"]
        lines += [f"  {name or '(the model)'}: {now}" for name, now in self.replaced.items()]
        lines += [f"  {name or '(the model)'}: left, {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> Report:
    """Let every `torch.nn.LSTM`, GRU and RNN in `model`, itself too, run on fastrnn's kernels.

    In place: a module stays the object that it is, with its parameters (ties and optimisers hold),
    its hooks and its mode, and becomes a `fastrnn.torch` one: a `torch.nn.RNNBase` still, but no
    `torch.nn.LSTM`. What is left as it was, and why, is in the `Report`::

        report = accelerate(model)
        print(report)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    found = [each for each in model.named_modules(remove_duplicate=False) if _recurrent(each[1])]
    reasons = {id(module): _reason(module) for _, module in found}
    replaced, left = {}, {}
    for name, module in found:
        reason = reasons[id(module)]
        if reason is None:
            # Of a module in two places this is for the first name that it has.
            module.__class__ = _OURS.get(type(module), type(module))
            replaced[name] = f"{type(module).__name__}({module.extra_repr()})"
        else:
            left[name] = reason
    return Report(model, replaced, left)


def _recurrent(module: nn.Module) -> bool:
    """Whether it is recurrent and not ours."""
    kind = getattr(module, "original_name", type(module).__name__)
    named = kind in _NAMES and type(module).__module__.startswith("torch.")
    known = isinstance(module, nn.RNNBase | nn.RNNCellBase) and type(module) not in _OURS.values()
    return known or named


def _reason(module: Any) -> str | None:
    """Why it has to stay as it is; None where it has not."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return f"{module.original_name} is compiled by TorchScript; accelerate it before"
    if isinstance(module, nn.RNNCellBase):
        return f"{kind.__name__} makes one step a call"
    if not isinstance(module, nn.RNNBase):
        return f"{kind.__module__}.{kind.__name__} is quantised"
    if nn.utils.parametrize.is_parametrized(module):
        return "has parametrizations; accelerate it before"
    if kind not in _OURS:
        return f"{kind.__name__} is a class of its own, not torch.nn's"
    if "forward" in vars(module):
        return "its forward was replaced"
    weights = [getattr(module, name) for name in module._flat_weights_names]
    [dtype, *others] = {weight.dtype for weight in weights}
    away = [weight.device for weight in weights if weight.device.type != "cpu"]
    if away:
        return f"its weights are on {away[0]}; fastrnn runs on the CPU"
    if others:
        return "its weights are of several dtypes"
    if dtype not in DTYPES:
        return f"its weights are {dtype}; fastrnn's are float32 or float64"
    return None
