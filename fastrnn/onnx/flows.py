"""What becomes of a layer's output on its way to the next: axes change places, join and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.onnx.operators import reshaped

BATCH, TIME, FEATURES = "batch", "time", "features"
DIRECTIONS, STEP = UNITS = "directions", "last step"  # axes that can go where there is but one
Part = tuple[int, int]  # which output in the chain, which direction of it


@dataclass(frozen=True)
class Flow:
    """A tensor that comes of the input: its axes by name and size, and what its features are of.

    Before a recurrent layer says which is which, the input's first axes are "0" and "1".
    """

    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    parts: tuple[Part, ...]
    is_c: bool = False
    is_one_way: bool = True  # the recurrent layer that it comes of: its last step is its final h

    def moved(self, order: list[int]) -> Flow:
        """With these axes alone, in this order."""
        axes = tuple(self.axes[i] for i in order)
        return replace(self, axes=axes, sizes=tuple(self.sizes[i] for i in order))


def _transpose(a: dict[str, Any], flow: Flow) -> Flow:
    return flow.moved(list(a.get("perm", range(len(flow.axes))[::-1])))


def _squeeze(a: dict[str, Any], flow: Flow, axes: NDArray[Any] | None = None) -> Flow:
    ranks = range(len(flow.axes))
    gone = [i for i in ranks if flow.sizes[i] == 1] if axes is None else [ranks[i] for i in axes]
    if any(flow.axes[i] not in UNITS or flow.sizes[i] != 1 for i in gone):
        raise ValueError(f"expected the axis of one direction, of {flow.axes} it is {gone}")
    return flow.moved([i for i in ranks if i not in gone])


def _reshape(a: dict[str, Any], flow: Flow, shape: NDArray[Any]) -> Flow:
    new, at, axes = reshaped(a, shape, flow.sizes), 0, []
    for place, size in enumerate(new):
        start, product = at, 1
        while at < len(flow.sizes) and (product < size or at == start):
            product *= flow.sizes[at]
            at += 1
        if place == len(new) - 1:  # what is left is of size 1
            at, product = len(flow.sizes), product * int(np.prod(flow.sizes[at:]))
        group = [
            axis
            for axis, n in zip(flow.axes[start:at], flow.sizes[start:at], strict=True)
            if axis not in UNITS or n > 1 or at == start + 1
        ]
        joined = (
            FEATURES if group == [DIRECTIONS, FEATURES] else group[0] if len(group) == 1 else ""
        )
        if product != size or not joined:
            break
        axes.append(joined)
    if len(axes) < len(new):
        raise ValueError(
            f"from {flow.axes}, of sizes {flow.sizes}, to {tuple(new)}: only directions and "
            "features may join"
        )
    return replace(flow, axes=tuple(axes), sizes=tuple(new))


def _gather(a: dict[str, Any], flow: Flow, at: NDArray[Any]) -> Flow:
    if at.ndim:
        raise ValueError(f"expected one index, got {at.shape}")
    axis = range(len(flow.axes))[a["axis"]]
    k = range(flow.sizes[axis])[int(at)]
    found = _part(flow, axis, range(k, k + 1))
    return found.moved([i for i in range(len(flow.axes)) if i != axis])


def _slice(
    a: dict[str, Any],
    flow: Flow,
    starts: NDArray[Any],
    ends: NDArray[Any],
    axes: NDArray[Any] | None = None,
    steps: NDArray[Any] | None = None,
) -> Flow:
    if len(starts) != 1 or (steps is not None and steps[0] != 1):
        raise ValueError(f"expected one axis, by steps of 1, got {axes}, {steps}")
    axis = range(len(flow.axes))[0 if axes is None else int(axes[0])]
    return _part(flow, axis, range(flow.sizes[axis])[int(starts[0]) : int(ends[0])])


def _part(flow: Flow, axis: int, kept: range) -> Flow:
    """Some of the final states, or the last step, which of one direction is a final state."""
    axes, sizes, parts = list(flow.axes), list(flow.sizes), flow.parts
    if axes[axis] == DIRECTIONS:
        parts = parts[kept.start : kept.stop]
    elif axes[axis] == TIME and flow.is_one_way and kept == range(sizes[axis])[-1:]:
        axes[axis] = STEP
    else:
        raise ValueError("expected some of the final states, or the last step of one direction")
    sizes[axis] = len(kept)
    return replace(flow, axes=tuple(axes), sizes=tuple(sizes), parts=parts)


def _concat(a: dict[str, Any], *inputs: Flow | NDArray[Any]) -> Flow:
    """Final states of several layers or directions side by side."""
    flows = [flow for flow in inputs if isinstance(flow, Flow)]
    first, size = flows[0], 0
    parts: list[Part] = []
    axis = range(len(first.axes))[a["axis"]]
    for flow in flows:
        if (
            len(flows) < len(inputs)
            or flow.axes != first.axes
            or flow.is_c != first.is_c
            or TIME in flow.axes
            or flow.axes[axis] != (DIRECTIONS if DIRECTIONS in flow.axes else FEATURES)
        ):
            raise ValueError("expected final states alone, along their directions")
        parts += flow.parts
        size += flow.sizes[axis]
    sizes = (*first.sizes[:axis], size, *first.sizes[axis + 1 :])
    return replace(first, sizes=sizes, parts=tuple(parts))


def _where(a: dict[str, Any], chosen: NDArray[Any], x: NDArray[Any], y: Flow) -> Flow:
    if not isinstance(y, Flow) or not isinstance(chosen, np.ndarray) or chosen.any():
        raise ValueError("expected a condition that is False for whole sequences")
    if np.broadcast_shapes(chosen.shape, np.shape(x), y.sizes) != y.sizes:
        raise ValueError(f"expected shapes that broadcast to {y.sizes}")
    return y


def _shape(a: dict[str, Any], flow: Flow) -> NDArray[Any]:
    return np.array(flow.sizes[a["start"] : a.get("end")], np.int64)


# Those that make another flow, or a constant, of flows and constants.
MOVES: dict[str, Callable[..., Any]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Identity": lambda a, flow: flow,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Where": _where,
}
