"""The C of a model's layers: constants, a function for each, and what `step` says to call them."""

from __future__ import annotations

from typing import Any

from fastrnn import _core
from fastrnn.export_c.cell import add_cell
from fastrnn.export_c.code import Code
from fastrnn.layers.dense import Dense
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.recurrent import Recurrent

_PRODUCT_K = 1024  # csrc/products.c: a longer sum of a Dense is made in blocks


def add_embedding(code: Code, layer: Embedding) -> str:
    code.take(layer.num_embeddings, layer.embedding_dim)
    table = code.array(
        "table", layer.weight.data, f"A row of {layer.embedding_dim} values for each id."
    )
    return f"{table} + (size_t)id * {layer.embedding_dim}"


def add_dense(code: Code, place: int, layer: Dense, x: str) -> str:
    n, k = layer.out_features, layer.in_features
    code.take(k, n)
    whole, function = code.whole(n), f"{code.name}_dense{place}"
    weight = code.array(f"w{place}", code.columns(layer.weight.data), f"[{k}][{whole}]")
    lines = []
    for first in range(0, k, _PRODUCT_K):
        size = min(_PRODUCT_K, k - first)
        to = "some" if first else "y"
        lines.append(f"@k_product({size}, x + {first}, {whole}, {weight} + {first * whole}, {to});")
        if first:
            lines.append(f"for (int j = 0; j < {whole}; j++) y[j] += some[j];")
    if k > _PRODUCT_K:
        lines.insert(0, f"# some[{whole}];")
    if layer.bias is not None:
        bias = code.array(f"b{place}", code.rows(layer.bias.data, 1), "biases")
        lines.append(f"for (int j = 0; j < {whole}; j++) y[j] += {bias}[j];")
    if layer.activation == "softmax":
        lines.append(f"@k_softmax({n}, y);")
    elif layer.activation is not None:
        lines.append(f"for (int j = 0; j < {whole}; j++) y[j] = @k_v_{layer.activation}(y[j]);")
    code.function(f"Dense, {k} to {n}", f"{function}(const # *x, # *y)", lines)
    code.stack += whole * (2 if k > _PRODUCT_K else 1)
    code.calls += [f"{code.real} y{place}[{whole}];", f"{function}({x}, y{place});"]
    return f"y{place}"


def add_recurrent(code: Code, place: int, layer: Recurrent, x: str) -> str:
    code.take(layer.input_size, layer.output_size)
    for k in range(layer.num_layers):
        weights = {
            name: parameter.snapshot()
            for name, parameter in zip(_core.WEIGHTS, layer.weights[k][0], strict=True)
            if parameter is not None
        }
        x = add_cell(code, f"{place}_{k}", layer, weights, x)
    return x


def describe(layer: Any) -> str:
    """A layer in some words, for the header's comment."""
    if isinstance(layer, Embedding):
        return f"Embedding, {layer.num_embeddings} ids to {layer.embedding_dim}"
    if isinstance(layer, Dense):
        return f"Dense, {layer.in_features} to {layer.out_features}, {layer.activation or 'linear'}"
    own = {**layer._core_options(), "layer_norm": layer.layer_norm, "clip": layer.clip}
    own["zoneout_h"] = layer.zoneout_h
    said = "".join(f", {name}={value!r}" for name, value in own.items() if value)
    stacked = f" x {layer.num_layers}" if layer.num_layers > 1 else ""
    return f"{type(layer).__name__}{stacked}, {layer.input_size} to {layer.output_size}{said}"
