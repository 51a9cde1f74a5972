"""The rows of the benchmark table: a cell and its sizes, and the arithmetic each takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Row:
    """One layer in one direction, float32."""

    cell: str
    batch: int
    time: int
    input_size: int
    hidden_size: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """B, T, I, H."""
        return (self.batch, self.time, self.input_size, self.hidden_size)

    @property
    def name(self) -> str:
        """cell-B-T-I-H, as the command line takes it."""
        return "-".join((self.cell, *map(str, self.sizes)))

    @property
    def title(self) -> str:
        """cell B T I H, as tables have it."""
        return self.name.replace("-", " ")

    @property
    def forward_flops(self) -> int:
        """Of the products of one pass, a multiply-add counted as two."""
        batch, time, inputs, hidden = self.sizes
        return 2 * time * batch * GATES[self.cell] * hidden * (inputs + hidden)

    @property
    def training_flops(self) -> int:
        """Of the products of a pass and its gradient, which has two for each of the pass."""
        return 3 * self.forward_flops


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


def select(patterns: Sequence[str]) -> list[Row]:
    """The rows whose names match any of `patterns`, such as ``lstm-*``; all if there are none.

    Raises ValueError for a pattern that matches no row.
    """
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            names = "\n  ".join(row.name for row in ROWS)
            raise ValueError(f"no row is named {pattern!r}; the rows, cell-B-T-I-H, are\n  {names}")
    return [row for row in ROWS if not patterns or any(fnmatchcase(row.name, p) for p in patterns)]
