"""A trained model as one C99 header without dependencies: `export`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.export_c.code import Code
from fastrnn.export_c.kernels import Kernels
from fastrnn.export_c.layers import add_dense, add_embedding, add_recurrent, describe
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.recurrent import Recurrent
from fastrnn.models import Sequential
from fastrnn.serialization import replace_file

_COMMENT = """/*
{name}.h: a model exported from fastrnn {version}. It stands alone: C99, or C++.

{layers}

    {name}_state state;    // yours, one for each sequence that runs
    {name}_reset(&state);
    for (...) {usage};

A step takes {takes} and writes y[{outputs}], of {real}; x and y may be the same memory.
{otherwise}Memory: {constants} bytes of constants, {state} of state, up to {stack} of stack.
Nothing is allocated, nothing that is shared changes, so threads may step states of their own at
once; libm is not needed. Everything is static: include it in one file.

Compile with -O2 or -O3, and for the CPU that will run it (-march=native, -mcpu=...). Where that has
a fused multiply-add, GCC and Clang on x86 with SSE2 and on 64-bit Arm make the bits of fastrnn's
own kernels, in any mode of C or C++; elsewhere roundings differ. Numbers below the smallest normal
one count as zero within a step. -ffast-math is refused; give Clang no -ffp-contract=fast, which
makes it pass over what the code asks for.
*/"""


def export(model: Sequential, path: str | os.PathLike[str], name: str | None = None) -> None:
    """Write `model` to `path` as a C header that runs it a time step at a time.

    The header declares ``NAME_state``, ``NAME_reset(state)`` and ``NAME_step(state, x, y)``; its
    comment says more. `name` is the file's own unless given. Layers may be Embedding, RNN, GRU and
    LSTM of any kind in one direction, Dense and Dropout, which does nothing. The results have the
    bits of `Sequential.step` wherever the C compiler's target has a fused multiply-add.

    Raises TypeError where `model` is none of these, ValueError, naming layer and option, for what
    has no such step, for weights that are not finite and for a name that C would not take; OSError
    or ValueError where the file cannot be written. A file that is there is replaced as a whole.
    """
    stem = Path(path).stem if name is None else name
    replace_file(path, source(model, stem).encode())


def source(model: Sequential, name: str) -> str:
    """The text of the header; raises as `export`."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model: expected a Sequential, got {type(model).__name__}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError(f"name: expected letters, digits and _, a letter first, got {name!r}")
    for place, layer in enumerate(model.layers):
        _check(f"layers[{place}], {type(layer).__name__}", layer)
    if all(isinstance(layer, Dropout) for layer in model.layers):
        raise ValueError("layers: expected one that is not Dropout")
    code = Code(name, model.dtype, Kernels(name, model.dtype == np.float64))
    x = "x"
    for place, layer in enumerate(model.layers):
        if isinstance(layer, Embedding):
            x = add_embedding(code, layer)
        elif isinstance(layer, Dense):
            x = add_dense(code, place, layer, x)
        elif isinstance(layer, Recurrent):
            x = add_recurrent(code, place, layer, x)
    return _header(model, code, x)


def _check(name: str, layer: Any) -> None:
    """Raise ValueError for a layer that has no C."""
    if not isinstance(layer, Embedding | Recurrent | Dense | Dropout):
        raise ValueError(f"{name}: expected Embedding, RNN, GRU, LSTM, Dense or Dropout")
    if isinstance(layer, Recurrent):
        if layer.bidirectional:
            raise ValueError(f"{name}: bidirectional: expected False, it has no step")
        if layer.bfloat16:
            raise ValueError(f"{name}: dtype: expected float32 or float64, got bfloat16; see `to`")
    for kind, parameter in layer.parameters().items():
        if not np.isfinite(parameter.data).all():
            raise ValueError(f"{name}: {kind}: expected finite numbers, got NaN or infinities")


def _header(model: Sequential, code: Code, y: str) -> str:
    """All of it; `y` is where the last layer's output is at the end of a step."""
    name, real, upper = code.name, code.real, code.name.upper()
    layers = [layer for layer in model.layers if not isinstance(layer, Dropout)]
    inputs, outputs, ids = code.inputs, code.outputs, model.takes_ids
    item = model.dtype.itemsize
    members = code.state or ["char none;"]
    does = [
        f"{name}_k_fp_mode mode = {name}_k_fp_enter();",
        f"{name}_run(state, {'id' if ids else 'x'}, y);",
        f"{name}_k_fp_leave(mode);",
    ]
    takes = "int32_t id" if ids else f"const {real} *x"
    if ids:
        does = [f"if (id < 0 || id >= {upper}_INPUTS) return -1;", *does, "return 0;"]
    run = [*code.calls, f"memcpy(y, {y}, {outputs} * sizeof({real}));", "(void)s;"]
    comment = _COMMENT.format(
        name=name,
        version=fastrnn.__version__,
        layers="\n".join(f"  {place}  {describe(layer)}" for place, layer in enumerate(layers)),
        usage=f"{name}_step(&state, {'id' if ids else 'x'}, y)",
        takes=f"an id from 0 to {inputs - 1}" if ids else f"x[{inputs}]",
        outputs=outputs,
        real=real,
        otherwise="Of any other id it does nothing but return -1, not 0.\n" if ids else "",
        constants=code.constants * item,
        state=code.state_size * item,
        stack=code.stack * item,
    )
    return "\n".join(
        (
            comment,
            f"#ifndef {upper}_H\n#define {upper}_H\n",
            code.kernels.begin(),
            f"enum {{ {upper}_INPUTS = {inputs}, {upper}_OUTPUTS = {outputs} }};\n",
            "typedef struct {\n" + "".join(f"    {m}\n" for m in members) + f"}} {name}_state;\n",
            "// --- As in fastrnn's kernels ---\n",
            code.kernels.functions(),
            "// --- The model ---\n",
            *code.parts,
            _function(
                f"{upper}_NOINLINE void {name}_run({name}_state *s, {takes}, {real} *y)", run
            ),
            "// Before the first step of a sequence.",
            _function(
                f"static inline void {name}_reset({name}_state *state)",
                ["memset(state, 0, sizeof *state);"],
            ),
            _function(
                f"static inline {'int' if ids else 'void'} {name}_step"
                f"({name}_state *state, {takes}, {real} *y)",
                does,
            ),
            code.kernels.end(),
            f"#endif // {upper}_H\n",
        )
    )


def _function(signature: str, lines: list[str]) -> str:
    return signature + " {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
