"""Gradients: their norm, and clipping them before a step (optimizers do that too, if asked)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import _core
from fastrnn.checks import check_positive
from fastrnn.parameter import Array, Parameter


def clip_by_global_norm(parameters: Mapping[str, Parameter], limit: float) -> float:
    """Scale all gradients, in place, so that their norm together is `limit` at most.

    Returns the norm before. If that is not finite nothing is scaled, for the caller to decide.
    """
    limit = check_positive(limit, "limit")
    grads = gradients(parameters)
    norm = norm_of(grads)
    scale = scale_to(limit, norm)
    if scale != 1.0:
        for grad in grads.values():
            np.multiply(grad, scale, out=grad)
    return norm


def clip_by_value(parameters: Mapping[str, Parameter], limit: float) -> None:
    """Limit every value of every gradient, in place, to [-limit, limit]."""
    limit = check_positive(limit, "limit")
    for grad in gradients(parameters).values():
        np.clip(grad, -limit, limit, out=grad)


def gradients(parameters: Mapping[str, Parameter]) -> dict[str, Array]:
    """Those there are, by name; ValueError for another shape or dtype than the parameter's."""
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    for name, grad in grads.items():
        want = parameters[name].data
        if grad.shape != want.shape or grad.dtype != want.dtype:
            raise ValueError(
                f"{name}: expected a gradient of {want.dtype} {want.shape}, "
                f"got {grad.dtype} {grad.shape}"
            )
    return grads


def by_dtype(grads: Mapping[str, Array]) -> list[list[str]]:
    """The names, those of one dtype together."""
    kinds: dict[np.dtype, list[str]] = {}
    for name, grad in grads.items():
        kinds.setdefault(grad.dtype, []).append(name)
    return list(kinds.values())


def flat(array: Any) -> Any:
    """All values along one axis, copied where they do not stand in order; None stays None."""
    return None if array is None else array.reshape(-1)


def norm_of(grads: Mapping[str, Array]) -> float:
    """The norm of all of them together."""
    groups = ([flat(grads[name]) for name in names] for names in by_dtype(grads))
    return math.sqrt(sum(sum(_core.squares(arrays)) for arrays in groups))


def scale_to(limit: float, norm: float) -> float:
    """The factor that brings `norm` down to `limit`; 1 where it is less, or not finite."""
    return limit / norm if limit < norm < math.inf else 1.0
