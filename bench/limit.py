"""The least time that a pass can take on a machine: a roofline of its products and its weights.

Williams, Waterman, Patterson: Roofline (2009), for a recurrent layer. With Fx = 2 B T G H I FLOPs
of the input's product, 2 B G H² of a step's, s G H² bytes of the recurrent weights R, P FLOP/s and
BW bytes/s:

    forward   Fx / P + T max(2 B G H² / P, s G H² / BW)
    training  the same, then T max(2 B G H² / P, s G H² / BW) + (2 Fx + Fh) / P

A step cannot begin before the last one ends, so R is read T times, from the level of the memory in
which it stays; W is read once, for all steps together, which counts where there is but one. The
threads read a share of R each. Activations are taken to be free, and so are barriers; near a
cache's edge a part of R stays and the formula can be beaten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.shapes import GATES, AnyRow, Model

# Of a cache: what streams past takes the rest.
_FOR_WEIGHTS = 0.75


@dataclass(frozen=True)
class Level:
    """A cache of `size` bytes that `sharers` of our CPUs have in common; memory has no size.

    `bandwidth`: bytes/s, of all threads together.
    """

    name: str
    size: int | None
    sharers: int
    bandwidth: float


@dataclass(frozen=True)
class Machine:
    """What was measured with so many threads: FLOP/s by dtype, levels from the fastest on."""

    threads: int
    flops: Mapping[str, float]
    levels: Sequence[Level]

    def with_peak(self, dtype: str, flops: float) -> Machine:
        """The same with another FLOP/s for this dtype."""
        return replace(self, flops={**self.flops, dtype: flops})

    def level(self, size: int) -> Level:
        """Where `size` bytes stay, if each thread reads its share of them."""
        for level in self.levels:
            held = size * min(self.threads, level.sharers) / self.threads
            if level.size is None or held <= _FOR_WEIGHTS * level.size:
                return level
        raise ValueError("levels: expected the last one to have no size")


@dataclass(frozen=True)
class Limit:
    """The least time, in seconds, and what most of the loop waits for: FLOPs, or a level's name.

    `peak`: the FLOP/s that it rests on.
    """

    seconds: float
    term: str
    peak: float


def limit(row: AnyRow, kind: str, machine: Machine) -> Limit:
    """Of one pass; `kind` as in ``row.kinds``."""
    if isinstance(row, Model):
        layers = [limit(layer, "training", machine) for layer in row.rows()]
        others = (row.dense_flops() - row.repeated_flops()) / machine.flops[row.dtype]
        return replace(layers[-1], seconds=others + sum(layer.seconds for layer in layers))
    peak = machine.flops[row.dtype]
    inputs, hidden, blocks = row.input_size, row.hidden_size, GATES[row.cell] * row.hidden_size
    lengths = row.lengths()
    running = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)  # rows of each step
    each = hidden + inputs if row.time == 1 else hidden  # what a step multiplies with weights
    weights = np.dtype(row.dtype).itemsize * blocks * each
    level = machine.level(weights)
    compute, read = 2 * running * blocks * each / peak, weights / level.bandwidth
    loop = float(np.maximum(compute, read).sum())
    passes = {"forward": 1, "step": 1, "training": 2}[kind]
    rest = row.flops(kind) / row.directions / peak - passes * float(compute.sum())
    reading = read * np.count_nonzero(read > compute)
    term = level.name if reading > loop / 2 else "FLOPs"
    return Limit(row.directions * (passes * loop + rest), term, peak)
