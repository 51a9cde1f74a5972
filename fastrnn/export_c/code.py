"""The C that is being written for a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fastrnn.export_c.kernels import Kernels
from fastrnn.parameter import Array

_VECTOR = 32  # bytes; rows of weights are whole vectors, filled up with zeros


@dataclass
class Code:
    """The C that is being written for a model called `name`."""

    name: str
    dtype: np.dtype
    kernels: Kernels
    state: list[str] = field(default_factory=list)  # members of the state
    parts: list[str] = field(default_factory=list)  # constants and functions
    calls: list[str] = field(default_factory=list)  # in a step
    cells: set[str] = field(default_factory=set)
    inputs: int = 0  # features, or ids
    outputs: int = 0  # features
    state_size: int = 0  # values
    constants: int = 0  # likewise
    stack: int = 0  # likewise, at most

    @property
    def real(self) -> str:
        return "float" if self.dtype == np.float32 else "double"

    def take(self, inputs: int, outputs: int) -> None:
        """Note the sizes of the next layer."""
        self.inputs, self.outputs = self.inputs or inputs, outputs

    def whole(self, n: int) -> int:
        """`n` values in whole vectors."""
        lanes = _VECTOR // self.dtype.itemsize
        return -(-n // lanes) * lanes

    def array(self, name: str, values: Array, comment: str) -> str:
        """Add a constant array; returns its name."""
        name = f"{self.name}_{name}"
        suffix = "f" if self.real == "float" else ""
        digits = [f"{value}{suffix}" for value in values.reshape(-1).astype(str)]
        lines = [", ".join(digits[i : i + 8]) for i in range(0, len(digits), 8)]
        body = ",\n    ".join(lines)
        self.parts.append(
            f"// {comment}\nstatic const {self.real} {name}[{values.size}] = {{\n    {body},\n}};\n"
        )
        self.constants += values.size
        return name

    def columns(self, weight: Array, gates: int = 1) -> Array:
        """(gates * n, k) as (k, gates, whole n): what one value of the input is multiplied by."""
        k, n = weight.shape[1], len(weight) // gates
        result = np.zeros((k, gates, self.whole(n)), self.dtype)
        result[:, :, :n] = weight.reshape(gates, n, k).transpose(2, 0, 1)
        return result

    def rows(self, values: Array, rows: int) -> Array:
        """(rows * n) as (rows, whole n)."""
        result: Array = self.columns(values.reshape(-1, 1), rows)[0]
        return result

    def function(self, title: str, signature: str, lines: Iterable[str]) -> None:
        """Add one; in `signature` and `lines` # is the type of a number, @ the model's prefix."""
        body = "".join(f"    {line}\n" for line in lines)
        text = f"// {title}.\nstatic void {signature} {{\n{body}}}\n"
        self.parts.append(text.replace("#", self.real).replace("@", f"{self.name}_"))
