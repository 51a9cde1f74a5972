"""Keras 3's models and layers, both ways; `load` reads .keras files with h5py, without Keras.

These map: SimpleRNN, GRU with either reset, LSTM, Bidirectional that concatenates, Embedding,
Dense, TimeDistributed(Dense), Dropout, and Activation after a Dense. Of what does not, a ValueError
names the layer and the thing; that goes for what only training sees, too. Initializers and what
`compile` was given are not looked at: a model here is compiled anew.

``without=["kernel_regularizer", "mask_zero"]`` leaves out by name: regularizers and constraints,
``dropout`` and ``recurrent_dropout`` within a layer, ``trainable``, layers that are active in
training alone (``"SpatialDropout1D"``), and masks (``mask_zero``, ``"Masking"``). Of rows that are
given without their padding, as lists or with lengths, results are those that Keras has with masks.
"""

from fastrnn.keras.convert import from_keras
from fastrnn.keras.export import to_keras
from fastrnn.keras.file import load

__all__ = ["from_keras", "load", "to_keras"]
