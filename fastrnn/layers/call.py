"""One call of a recurrent layer: its layers in turn, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.checks import check_input
from fastrnn.parameter import Array, Parameter

if TYPE_CHECKING:
    from fastrnn.layers.ragged import Mask
    from fastrnn.layers.recurrent import Recurrent

Lengths = NDArray[np.int64]
OnGradient = Callable[[NDArray[np.float64]], object]

# Up to so many steps of so many rows, packing the weights takes longer than it saves.
FEW_STEPS, FEW_ROWS = 3, 16


def forward(
    layer: Recurrent,
    x: Any,
    state: Any,
    lengths: ArrayLike | None,
    training: bool,
    checkpoint_every: int = 0,
) -> tuple[Array, Any, Pullback | None]:
    """``(output, state, pullback)``; what the pullback wants is kept when `training` only."""
    features, directions, double = layer.output_size, layer.directions, layer.double
    first = layer.batch_first
    if not _core.walkable(x, 3, layer.input_size, double):
        x = check_input(x, (None, None, layer.input_size), layer.dtype, layer.input_axes).copy()
    batch, time = x.shape[:2] if first else x.shape[1::-1]
    h_0, c_0 = layer.split_state(state, batch)
    if lengths is not None:
        lengths = _check_lengths(lengths, batch, time)
    h_shape, c_shape = layer.state_shapes(batch)
    h_n = _core.empty(h_shape, double)
    c_n = _core.empty(c_shape, double) if layer.has_c else None
    few = time <= FEW_STEPS and batch <= FEW_ROWS
    tapes: list[Any] = []  # Tape when training
    masks: list[Array] = []
    rng, seed = None, 0
    if training and layer.draws:
        seeds = layer.next_seed()
        seed = int(seeds.generate_state(1, np.uint64)[0])
        if layer.dropout:
            rng = np.random.Generator(np.random.Philox(seeds))
    y: Array | None = None
    for k in range(layer.num_layers):
        last = k == layer.num_layers - 1
        if not last or layer.return_sequences:
            y = _core.empty((*x.shape[:2], features * directions), double)
        else:
            y = None
        tapes.append(
            _core.forward(
                layer.packs(k, training, few), k * directions, h_shape[0], x, lengths, False,
                first, h_0, c_0, y, h_n, c_n, training, seed and (seed + k * directions) % 2**64,
                checkpoint_every,
            )
        )  # fmt: skip
        if rng is not None and y is not None and not last:
            masks.append(_dropout_mask(layer, y.shape, rng))
            y *= masks[-1]
        if not last:
            x = y
    output = last_output(layer, h_n) if y is None else y
    pullback = Pullback(layer, tapes, masks, output.shape, batch) if training else None
    return output, h_n if c_n is None else (h_n, c_n), pullback


def last_output(layer: Recurrent, h_n: Array) -> Array:
    """The last layer's final h, directions side by side: (batch, D * hidden_size)."""
    return np.concatenate(list(h_n[-layer.directions :]), axis=1)


class Pullback:
    """The way back of one call, to be gone once: see `Recurrent.vjp`."""

    def __init__(
        self,
        layer: Recurrent,
        tapes: list[_core.Tape],
        masks: list[Array],
        output_shape: tuple[int, ...],
        batch: int,
    ) -> None:
        self._layer = layer
        self._kept = [(tapes, masks)]  # until the call takes them
        self._output_shape = output_shape
        self._batch = batch
        self.mask: Mask | None = None  # whose steps these are of all that there are

    def __call__(self, doutput: Array | None, dstate: Any = None) -> tuple[Array, Any]:
        layer, directions = self._layer, self._layer.directions
        dy, dh_n, dc_n = self._check_gradients(doutput, dstate)
        try:
            tapes, masks = self._kept.pop()  # atomic: of several threads one gets them
        except IndexError:
            raise RuntimeError("pullback: called a second time; call vjp again") from None
        (h_shape, c_shape), double = layer.state_shapes(self._batch), layer.double
        dh_0 = _core.empty(h_shape, double)
        dc_0 = _core.empty(c_shape, double) if layer.has_c else None
        added: list[tuple[Parameter, Array]] = []
        flow, own_flow = None, None
        on_gradient = layer.on_gradient
        if on_gradient is not None:
            time = tapes[0].sequence_shape()[1 if layer.batch_first else 0]
            flow = np.empty((h_shape[0], self._batch, time))
        dx = dy
        for k in reversed(range(layer.num_layers)):
            if masks and k < layer.num_layers - 1:
                dx *= masks[k]
            if flow is not None:
                own_flow = tuple(flow[k * directions : (k + 1) * directions])
            parts, gradients = _core.backward(
                tapes.pop(), k * directions, h_shape[0], dx, dh_n, dc_n,
                True, dh_0, dc_0, layer.weights[k], own_flow,
            )  # fmt: skip
            added += gradients
            dx = parts[0] if directions == 1 else np.add(parts[0], parts[1], out=parts[0])
        for parameter, grad in added:
            parameter.add_grad(grad)
        if on_gradient is not None and flow is not None:
            on_gradient(flow if self.mask is None else self.mask.scatter_flow(flow))
        return dx, dh_0 if dc_0 is None else (dh_0, dc_0)

    def check_output(self, doutput: Any) -> Array:
        """`doutput` as an array of the output's shape and dtype; raises ValueError, TypeError."""
        dy, dtype = np.asarray(doutput), self._layer.dtype
        if dy.shape != self._output_shape:
            raise ValueError(f"doutput: expected {self._output_shape}, got {dy.shape}")
        if dy.dtype != dtype:
            raise TypeError(
                f"doutput: expected {dtype}, got {dy.dtype}; "
                f"convert with doutput.astype({dtype.name!r})"
            )
        return dy

    def _check_gradients(self, doutput: Any, dstate: Any) -> tuple[Any, Array | None, Array | None]:
        """dy as the output was, or None where there is none or it is part of dh_n; dh_n, dc_n."""
        layer = self._layer
        dh_n, dc_n = layer.split_state(dstate, self._batch, ("dstate", "dh_n", "dc_n"))
        if doutput is None:
            return None, dh_n, dc_n
        dy = self.check_output(doutput)
        if layer.return_sequences:
            return dy if _core.walkable(dy, 3, dy.shape[2], layer.double) else dy.copy(), dh_n, dc_n
        # The output is the final h of the last layer: its gradient joins the state's.
        zeros = np.zeros(layer.state_shapes(self._batch)[0], layer.dtype)
        dh_n = zeros if dh_n is None else dh_n.copy()
        for d in range(layer.directions):
            at = d * layer.output_size
            dh_n[d - layer.directions] += dy[:, at : at + layer.output_size]
        return None, dh_n, dc_n


def _dropout_mask(layer: Recurrent, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    mask = (rng.random(shape, np.float32) >= layer.dropout).astype(layer.dtype)
    mask *= layer.dtype.type(1 / (1 - layer.dropout))
    return mask


def _check_lengths(lengths: ArrayLike, batch: int, time: int) -> Lengths:
    array = np.array(lengths)  # a copy: the caller's may change
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(f"lengths: expected ({batch},), got {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > time))
    if wrong.size:
        raise ValueError(f"lengths: expected 0 to {time}, got {array[wrong[0]]} for row {wrong[0]}")
    return array.astype(np.int64)
