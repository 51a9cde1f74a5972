"""The package's LSTM beside fastrnn.LSTM, a whole sequence and step by step: the same bits."""

import fastrnn_rows
import numpy as np

import fastrnn as fr
from fastrnn import config

layer = fr.LSTM(5, 11, seed=1)
x = np.random.default_rng(2).standard_normal((3, 7, 5), np.float32)
with config.using(gemm="native"):
    expected, (h, c) = layer(x)
weights = [p.data for p in layer.parameters().values()]
for pieces in (1, 7):
    state = np.zeros((2, 3, 11), np.float32)
    rows = fastrnn_rows.LSTM(*weights, *state)
    y = np.empty((7 // (7 // pieces), 3, 7 // pieces, 11), np.float32)
    for piece, out in zip(np.split(x, pieces, axis=1), y, strict=True):
        rows.run(np.ascontiguousarray(piece), out)
    assert np.concatenate(list(y), axis=1).tobytes() == expected.tobytes()
    assert state.tobytes() == h.tobytes() + c.tobytes()
print("fastrnn_rows: the bits of fastrnn.LSTM")
