"""What a model's `summary` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastrnn.layers.base import Layer
from fastrnn.parameter import Parameter

Row = tuple[str, Layer, tuple[int | None, ...]]  # a layer's name, itself, its output's shape


def print_summary(kind: str, layers: Iterable[Row], parameters: Mapping[str, Parameter]) -> None:
    """Print a table of the layers: output shapes (None: any size) and parameters."""
    rows = [("layer", "output shape", "parameters")]
    named = list(layers)
    width = max(len(name) for name, _, _ in named)
    for name, layer, shape in named:
        size = sum(parameter.size for parameter in layer.parameters().values())
        rows.append((f"{name:<{width}}  {type(layer).__name__}", str(shape), f"{size:,}"))
    widths = [max(len(row[column]) for row in rows) + 3 for column in range(3)]
    lines = [f"{a:<{widths[0]}}{b:<{widths[1]}}{c:>{widths[2]}}" for a, b, c in rows]
    rule = "-" * sum(widths)
    print("\n".join([kind, rule, lines[0], rule, *lines[1:], rule]))
    total = sum(parameter.size for parameter in parameters.values())
    second = sum(p.size for name, p in parameters.items() if ".bias_hh_" in name)
    size = sum(parameter.nbytes for parameter in parameters.values())
    print(f"{total:,} parameters, {size:,} bytes")
    if second:
        print(f"{total - second:,} without the {second:,} of the second bias vectors")
