"""The masks of dropout and zoneout: a function of a seed and of where a value stands.

Nothing is drawn in turn, so the masks do not depend on who computes them, and need not be kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# What a mask is for.
ZONEOUT_H, ZONEOUT_C, RECURRENT_DROPOUT, DROPOUT = range(4)

_BITS = 2**64 - 1


def _mix(z: int) -> int:
    """64 well mixed bits of 64 (Stafford's variant 13 of MurmurHash3's finaliser)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
    return z ^ (z >> 31)


def _key(seed: int, purpose: int, row: int, step: int) -> int:
    key = seed
    for number in (purpose, row, step):
        key = _mix((key + 0x9E3779B97F4A7C15 * (number + 1)) & _BITS)
    return key


def drawn(
    p: float, seed: int, purpose: int, rows: NDArray[np.intp], step: int, units: int
) -> NDArray[np.bool_]:
    """(len(rows), units), each True with probability p (in steps of 2^-32).

    rows are those of the batch, step counts a row's own steps from 0 on.
    """
    keys = [_key(seed, purpose, int(row), step) for row in rows]
    low, high = (
        np.array([key >> shift & 0xFFFFFFFF for key in keys], np.uint32)[:, None]
        for shift in (0, 32)
    )
    x = np.arange(units, dtype=np.uint32) ^ low
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x21F0AAAD)
    x += high
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x735A2D97)
    x ^= x >> np.uint32(15)
    return x < np.uint32(p * 2**32)


def keep_factor(
    p: float,
    seed: int,
    purpose: int,
    rows: NDArray[np.intp],
    step: int,
    units: int,
    dtype: np.dtype,
) -> Array:
    """Inverted dropout's mask: 0 with probability p, else 1 / (1 - p)."""
    return np.where(drawn(p, seed, purpose, rows, step, units), 0, 1 / (1 - p)).astype(dtype)
