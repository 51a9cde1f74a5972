"""The rows of the benchmarks in groups: a layer or a model, its sizes, its products."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

LAYER_KINDS = ("forward", "training")


@dataclass(frozen=True)
class Row:
    """One layer.

    `kinds`: what is timed, "forward" and "training", or "step": one time step, the state carried
    on. `directions`: 2 for a bidirectional layer. `ragged`: lengths uniform in 1..T, not T.
    """

    cell: str
    batch: int
    time: int
    input_size: int
    hidden_size: int
    dtype: str = "float32"
    directions: int = 1
    ragged: bool = False
    kinds: tuple[str, ...] = LAYER_KINDS

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """B, T, I, H."""
        return (self.batch, self.time, self.input_size, self.hidden_size)

    @property
    def name(self) -> str:
        """cell-B-T-I-H and what else is special, as the command line takes it."""
        special = (
            *([self.dtype] if self.dtype != "float32" else []),
            *(["both"] if self.directions == 2 else []),
            *(["ragged"] if self.ragged else []),
            *(["step"] if self.kinds == ("step",) else []),
        )
        return "-".join((self.cell, *map(str, self.sizes), *special))

    @property
    def title(self) -> str:
        """The name as tables have it."""
        return self.name.replace("-", " ")

    def lengths(self) -> NDArray[np.int64]:
        """How long each row of the batch is, (B,)."""
        if not self.ragged:
            return np.full(self.batch, self.time)
        return np.random.default_rng(1).integers(1, self.time + 1, self.batch)

    def flops(self, kind: str) -> int:
        """Of the products of one pass, a multiply-add counted as two.

        Training has the pass and its gradient, which has two products for each of the pass.
        """
        inputs, hidden = self.input_size, self.hidden_size
        steps = int(self.lengths().sum()) * self.directions
        forward = 2 * steps * GATES[self.cell] * hidden * (inputs + hidden)
        return 3 * forward if kind == "training" else forward


@dataclass(frozen=True)
class Model:
    """A character model: Embedding, `layers` recurrent layers, Dense, 65 characters.

    What is timed is an "update", a whole training step: forward, cross-entropy, truncated BPTT with
    the state carried on, clipping by the global norm, Adam.
    """

    cell: str
    layers: int
    hidden_size: int
    batch: int
    time: int
    dtype: str = "float32"
    kinds: tuple[str, ...] = ("update",)
    characters: int = 65
    embedding: int = 64

    @property
    def name(self) -> str:
        """model-cell-layers-B-T-H."""
        sizes = (self.layers, self.batch, self.time, self.hidden_size)
        return "-".join(("model", self.cell, *map(str, sizes)))

    @property
    def title(self) -> str:
        """Layers, cell, H, B, T, as in 2x lstm 128, 50 50."""
        return f"{self.layers}x {self.cell} {self.hidden_size}, {self.batch} {self.time}"

    @property
    def tokens(self) -> int:
        """How many characters a training step learns from."""
        return self.batch * self.time

    def rows(self) -> list[Row]:
        """Its recurrent layers."""
        inputs = [self.embedding, *[self.hidden_size] * (self.layers - 1)]
        return [Row(self.cell, self.batch, self.time, i, self.hidden_size) for i in inputs]

    def dense_flops(self) -> int:
        """Of the Dense layer's products, forward and backward."""
        return 6 * self.tokens * self.hidden_size * self.characters

    def repeated_flops(self) -> int:
        """What of the first layer's products need not be done: its inputs are so few different."""
        rows = self.tokens - min(self.tokens, self.characters)
        return 6 * rows * GATES[self.cell] * self.hidden_size * self.embedding

    def flops(self, kind: str) -> int:
        """Of all products that a training step needs, a multiply-add counted as two."""
        layers = sum(row.flops("training") for row in self.rows())
        return layers + self.dense_flops() - self.repeated_flops()


AnyRow = Row | Model

_SIZES = (  # B, T, I, H
    (1, 1, 64, 64),
    (1, 1, 128, 256),
    (1, 100, 64, 128),
    (1, 100, 256, 256),
    (16, 100, 64, 64),
    (128, 28, 28, 128),
    (1, 100, 512, 512),
    (32, 100, 128, 128),
    (32, 100, 256, 256),
    (64, 50, 512, 512),
    (64, 25, 1024, 1024),
)

# The floor for training is set on the last one.
ROWS = (
    *(Row(cell, *sizes) for cell in GATES for sizes in _SIZES),
    Row("lstm", 32, 100, 64, 64),
)

_GATED = ("lstm", "gru")

_MOST_FLOPS = 5e9  # of a forward pass of a row that is drawn


def _drawn(count: int) -> tuple[Row, ...]:
    """Rows from a seed, the cells in turn, each size uniform in its logarithm."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    while len(rows) < count:
        sizes = [int(2 ** rng.uniform(*ends)) for ends in ((0, 7.5), (2, 8.5), (0, 9), (4, 9.5))]
        row = Row([*GATES][len(rows) % len(GATES)], *sizes)
        if row.flops("forward") <= _MOST_FLOPS:
            rows.append(row)
    return tuple(rows)


GROUPS: dict[str, tuple[AnyRow, ...]] = {
    "table": ROWS,
    "shapes": tuple(  # odd H, H just past a cache, long sequences of few rows
        Row(cell, *sizes)
        for cell in _GATED
        for sizes in (
            *((32, 100, hidden, hidden) for hidden in (100, 200, 500)),
            *((32, 100, hidden, hidden) for hidden in (320, 640)),
            (2, 400, 128, 128),
            (4, 1000, 64, 64),
        )
    ),
    "drawn": _drawn(36),
    "float64": tuple(
        Row(cell, *sizes, dtype="float64")
        for cell in GATES
        for sizes in (
            *((32, 100, hidden, hidden) for hidden in (64, 128, 256)),
            (1, 100, 256, 256),
        )
    ),
    "ragged": tuple(
        Row(cell, batch, 100, hidden, hidden, ragged=True)
        for cell in GATES
        for batch in (32, 64)
        for hidden in (128, 256)
    ),
    "bidirectional": tuple(
        Row(cell, *sizes, directions=2)
        for cell in _GATED
        for sizes in ((1, 100, 128, 128), (16, 100, 64, 64), (32, 100, 128, 128))
    ),
    "streaming": tuple(
        Row(cell, 1, 1, hidden, hidden, kinds=("step",))
        for cell in _GATED
        for hidden in (64, 128, 256)
    ),
    "models": (
        Model("lstm", 1, 128, 50, 50),
        Model("lstm", 2, 128, 50, 50),
        Model("lstm", 2, 256, 64, 64),
        Model("lstm", 1, 512, 64, 64),
        Model("gru", 2, 128, 50, 50),
        Model("gru", 2, 256, 64, 64),
    ),
}

R = TypeVar("R", bound=AnyRow)


def row_named(name: str) -> Row | None:
    """The row whose name this is, of whatever sizes; None for what is no row's name."""
    found = re.fullmatch(r"(\w+)((?:-[1-9]\d{0,6}){4})((?:-\w+)*)", name)
    if not found or found[1] not in GATES:
        return None
    sizes = [int(size) for size in found[2].split("-")[1:]]
    special = found[3].split("-")[1:]
    row = Row(
        found[1],
        *sizes,
        dtype="float64" if "float64" in special else "float32",
        directions=2 if "both" in special else 1,
        ragged="ragged" in special,
        kinds=("step",) if "step" in special else LAYER_KINDS,
    )
    a_step = (row.time, row.directions, row.ragged) == (1, 1, False)
    return row if row.name == name and (a_step or "step" not in special) else None


def _group_of(row: Row) -> str:
    """The group of GROUPS that a row of other sizes belongs to."""
    if row.kinds == ("step",):
        return "streaming"
    if row.ragged:
        return "ragged"
    if row.directions == 2:
        return "bidirectional"
    return "shapes" if row.dtype == "float32" else row.dtype


def _matching(patterns: Sequence[str], rows: Sequence[R]) -> list[R]:
    """Those whose names match any of the patterns, such as ``lstm-*``; all without any."""
    return [row for row in rows if not patterns or any(fnmatchcase(row.name, p) for p in patterns)]


def _named(patterns: Sequence[str], rows: Sequence[AnyRow]) -> list[Row]:
    """The rows that those of `patterns` name which match none of `rows`.

    Raises ValueError for a pattern that is no row's name either.
    """
    found = []
    for pattern in patterns:
        if _matching([pattern], rows):
            continue
        row = row_named(pattern)
        if row is None:
            names = "\n  ".join(row.name for row in rows)
            raise ValueError(
                f"no row is named {pattern!r}; a name is cell-B-T-I-H, such as lstm-8-50-40-100, "
                f"and what is special of it, and the rows are\n  {names}"
            )
        found.append(row)
    return found


def select(patterns: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` whose names match any of `patterns`, such as ``lstm-*``, all without any; and
    rows of other sizes that are named in full.

    Raises ValueError for a pattern that is neither.
    """
    return _matching(patterns, rows) + _named(patterns, rows)


def select_models(patterns: Sequence[str], models: Sequence[Model]) -> list[Model]:
    """Those whose names match. Raises ValueError for a pattern that matches none."""
    for pattern in patterns:
        if not _matching([pattern], models):
            names = "\n  ".join(model.name for model in models)
            raise ValueError(f"no model is named {pattern!r}; the models are\n  {names}")
    return _matching(patterns, models)


def select_from_groups(
    patterns: Sequence[str], groups: Sequence[str]
) -> Mapping[str, list[AnyRow]]:
    """By group, as `select` over all of `groups` together; a group without a row is left out."""
    chosen = {group: _matching(patterns, GROUPS[group]) for group in groups}
    for row in _named(patterns, [row for group in groups for row in GROUPS[group]]):
        chosen.setdefault(_group_of(row), []).append(row)
    return {group: rows for group, rows in chosen.items() if rows}
