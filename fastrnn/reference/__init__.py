"""Every cell and its gradient in plain NumPy: the equations in code, and the baseline to beat.

B batch, T time, I input size, H hidden size, G gates, D directions, P = H or, with a projection,
its size. Weights, biases and states are laid out and named as PyTorch's; everything is computed in
the dtype of x.

A layer is one product W x over all steps, then one loop over time that serves every cell; its
gradient is the loop backward (BPTT), then one product over all steps for each of dx, dW and dR.
A cell is what happens to the rows of a batch in one step: its equations and, below them, their
gradient. To add a cell, write such a class in `cells` and name it in `CELLS`.
"""

from fastrnn.reference.activations import ACTIVATIONS, sigmoid
from fastrnn.reference.cells import CELLS, Cell
from fastrnn.reference.ctc import ctc
from fastrnn.reference.layer import Gradients, Tape, Variant, backward, forward, ragged_steps
from fastrnn.reference.masks import drawn, keep_factor
from fastrnn.reference.normalisation import normalise
from fastrnn.reference.stack import LayerTape, layer_backward, layer_forward, weight_names

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "Cell",
    "Gradients",
    "LayerTape",
    "Tape",
    "Variant",
    "backward",
    "ctc",
    "drawn",
    "forward",
    "keep_factor",
    "layer_backward",
    "layer_forward",
    "normalise",
    "ragged_steps",
    "sigmoid",
    "weight_names",
]
