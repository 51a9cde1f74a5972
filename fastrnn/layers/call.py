"""One call of a recurrent layer: layers and directions in turn, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.layers.base import check_input
from fastrnn.parameter import Array, Parameter

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import Recurrent

Lengths = NDArray[np.int64]


class Call:
    """One call: its inputs checked, its outputs, and for training what the way back needs."""

    def __init__(
        self, layer: Recurrent, x: Any, state: Any, lengths: ArrayLike | None, training: bool
    ) -> None:
        self.layer = layer
        axes = "(batch, time, {})" if layer.batch_first else "(time, batch, {})"
        size = layer.input_size
        x = check_input(x, (None, None, size), layer.dtype, axes.format(size))
        x = self.batch_time(_usable(x))
        self.batch, self.time = x.shape[:2]
        h_0, c_0 = layer.split_state(state, self.batch)
        self.lengths = _check_lengths(lengths, self.batch, self.time)
        shape = layer.state_shape(self.batch)
        self.h_n = np.empty(shape, layer.dtype)
        self.c_n = np.empty(shape, layer.dtype) if layer.has_c else None
        tapes: list[_core.Tape | None] = []
        masks: list[Array] = []
        output = self._forward(x, h_0, c_0, training, tapes, masks)
        if not layer.return_sequences:
            output = self.last_output()
        self.held = [(tapes, masks)]  # until the pullback takes them
        self.output_shape = output.shape
        self.result = (output, (self.h_n, self.c_n) if layer.has_c else self.h_n)

    def batch_time(self, array: Array) -> Array:
        """An array of the caller's, or for the caller, as (batch, time, features)."""
        return array if self.layer.batch_first else array.transpose(1, 0, 2)

    def empty(self, features: int) -> Array:
        """A new array in the caller's layout, as (batch, time, features)."""
        shape = (self.batch, self.time) if self.layer.batch_first else (self.time, self.batch)
        return self.batch_time(np.empty((*shape, features), self.layer.dtype))

    def last_output(self) -> Array:
        """The last layer's final h, directions side by side: (batch, D * hidden_size)."""
        return np.concatenate(list(self.h_n[-self.layer.directions :]), axis=1)

    def _forward(
        self,
        x: Array,
        h_0: Array | None,
        c_0: Array | None,
        training: bool,
        tapes: list[_core.Tape | None],
        masks: list[Array],
    ) -> Array:
        layer, hidden, directions = self.layer, self.layer.hidden_size, self.layer.directions
        rng = None
        if training and layer.dropout and layer.num_layers > 1:
            rng = layer.dropout_generator()
        for k in range(layer.num_layers):
            last = k == layer.num_layers - 1
            y = None if last and not layer.return_sequences else self.empty(hidden * directions)
            for d in range(directions):
                i = k * directions + d
                tape = _core.forward(
                    layer.pack(i, training),
                    x,
                    self.lengths,
                    d == 1,
                    None if h_0 is None else h_0[i],
                    None if c_0 is None else c_0[i],
                    None if y is None else y[:, :, d * hidden : (d + 1) * hidden],
                    self.h_n[i],
                    None if self.c_n is None else self.c_n[i],
                    training,
                )
                tapes.append(tape)
            if rng is not None and y is not None and not last:
                mask = (rng.random(y.shape, np.float32) >= layer.dropout).astype(layer.dtype)
                mask *= layer.dtype.type(1 / (1 - layer.dropout))
                y *= mask
                masks.append(mask)
            if y is not None:
                x = y
        return self.batch_time(x)

    def pullback(self, doutput: Array | None, dstate: Any = None) -> tuple[Array, Any]:
        """See `Recurrent.vjp`."""
        layer, hidden, directions = self.layer, self.layer.hidden_size, self.layer.directions
        dy, dh_n, dc_n = self._check_gradients(doutput, dstate)
        try:
            tapes, masks = self.held.pop()  # atomic: of several threads one gets them
        except IndexError:
            raise RuntimeError("pullback: called a second time; call vjp again") from None
        shape = layer.state_shape(self.batch)
        dh_0 = np.empty(shape, layer.dtype)
        dc_0 = np.empty(shape, layer.dtype) if layer.has_c else None
        added: list[tuple[Parameter, Array]] = []
        dx = dy
        for k in reversed(range(layer.num_layers)):
            dy = dx
            if masks and k < layer.num_layers - 1 and dy is not None:
                dy *= masks[k]
            for d in range(directions):
                i = k * directions + d
                parameters = [layer.parameters()[name] for name in layer.names(i)]
                grads = [np.empty(p.shape, p.dtype) for p in parameters]
                part = self.empty(layer.input_size if k == 0 else hidden * directions)
                _core.backward(
                    cast(_core.Tape, tapes[i]),
                    None if dy is None else dy[:, :, d * hidden : (d + 1) * hidden],
                    None if dh_n is None else dh_n[i],
                    None if dc_n is None else dc_n[i],
                    part,
                    dh_0[i],
                    None if dc_0 is None else dc_0[i],
                    *grads,
                    *[None] * (4 - len(grads)),
                )
                added += zip(parameters, grads, strict=True)
                dx = part if d == 0 else np.add(cast(Array, dx), part, out=part)
        for parameter, grad in added:
            parameter.add_grad(grad)
        return self.batch_time(cast(Array, dx)), (dh_0, dc_0) if layer.has_c else dh_0

    def _check_gradients(
        self, doutput: Any, dstate: Any
    ) -> tuple[Array | None, Array | None, Array | None]:
        """dy as (batch, time, features) or None, dh_n, dc_n."""
        layer = self.layer
        dh_n, dc_n = layer.split_state(dstate, self.batch, ("dh_n", "dc_n"))
        if doutput is None:
            return None, dh_n, dc_n
        dy = np.asarray(doutput)
        if dy.shape != self.output_shape:
            raise ValueError(f"doutput: expected {self.output_shape}, got {dy.shape}")
        if dy.dtype != layer.dtype:
            raise TypeError(
                f"doutput: expected {layer.dtype}, got {dy.dtype}; "
                f"convert with doutput.astype({layer.dtype.name!r})"
            )
        if layer.return_sequences:
            return self.batch_time(_usable(dy)), dh_n, dc_n
        # The output is the final h of the last layer: its gradient joins the state's.
        zeros = np.zeros(layer.state_shape(self.batch), layer.dtype)
        dh_n = zeros if dh_n is None else dh_n.copy()
        for d in range(layer.directions):
            at = d * layer.hidden_size
            dh_n[d - layer.directions] += dy[:, at : at + layer.hidden_size]
        return None, dh_n, dc_n


def _usable(array: Array) -> Array:
    """The array, or a copy where the kernels cannot walk it: features must be contiguous."""
    strides, item = array.strides, array.itemsize
    if array.flags.aligned and strides[2] == item and not (strides[0] % item or strides[1] % item):
        return array
    return array.copy()


def _check_lengths(lengths: ArrayLike | None, batch: int, time: int) -> Lengths | None:
    if lengths is None:
        return None
    array = np.array(lengths)  # a copy: the caller's may change
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(f"lengths: expected ({batch},), got {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > time))
    if wrong.size:
        raise ValueError(f"lengths: expected 0 to {time}, got {array[wrong[0]]} for row {wrong[0]}")
    return array.astype(np.int64)
