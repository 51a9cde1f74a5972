"""A small EncoderDecoder, and pairs of sequences for it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.encoder_decoder import EncoderDecoder
from fastrnn.layers.cells import CELLS

SOURCES = [[3, 0, 5, 2], [1], [4, 4, 1, 0, 5], [2, 3]]
TARGETS = [[0, 2], [1, 1, 0, 2, 2, 1], [], [2, 0, 1]]
LOSS = "sparse_categorical_crossentropy"


def model(
    cell: str = "lstm", attention: bool = True, scale: float = 0.5, **options: Any
) -> EncoderDecoder:
    """Sources of 6 ids, targets of 3; the end is 3. Weights from N(0, scale²)."""
    sizes = {"embedding_dim": 4, "hidden_size": 5, "num_layers": 2, "dtype": "float64", "seed": 1}
    made = EncoderDecoder(6, 3, cell=cell, attention=attention, **{**sizes, **options})
    rng = np.random.default_rng(0)
    for parameter in made.parameters().values():
        parameter.assign(scale * rng.normal(size=parameter.shape))
    return made


def rows(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(ids, np.int64) for ids in lists]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def compiled(**options: Any) -> EncoderDecoder:
    made = model(**{"dropout": 0.0, **options})
    made.compile(fr.Adam(0.01), LOSS, ["accuracy"])
    return made


each_kind = pytest.mark.parametrize(
    ("cell", "attention"), list(itertools.product(CELLS, [False, True]))
)
