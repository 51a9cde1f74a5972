"""A recurrent layer that is fed a piece at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.parameter import Array

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import Recurrent


class Stream:
    """A layer and the state that it has come to, for inference: see `Recurrent.stream`.

    ``stream(x)`` takes the next steps, any number of them: x and the output are as the layer's. For
    a single step x may be (batch, input_size), and the output is (batch, hidden_size) then. However
    a sequence is cut into pieces, outputs have the same bits.

    ``state`` is the state after all steps so far, as the layer returns it; None stands for zeros,
    and another may be set.
    """

    def __init__(self, layer: Recurrent, state: Any = None) -> None:
        if layer.bidirectional:
            raise ValueError("stream: a bidirectional layer needs the whole sequence")
        self._layer = layer
        self.state = state

    def __call__(self, x: Array) -> Array:
        run = self._layer.step if np.ndim(x) == 2 else self._layer
        output, self.state = run(x, self.state)
        return output
