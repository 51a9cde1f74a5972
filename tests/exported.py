"""Models of every kind that can be exported, and a C program that runs their headers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn as fr
from fastrnn import export_c

STEPS = 50
_ALL = dict(layer_norm=True, zoneout_h=0.3, clip=1.5, recurrent_dropout=0.2)
_OWN = dict(gate_activation="hard_sigmoid", state_activation="identity", clip=0.8)

_CELLS: dict[str, tuple[type, dict[str, Any]]] = {
    "rnn": (fr.RNN, {}),
    "rnn_relu": (fr.RNN, dict(nonlinearity="relu")),
    "rnn_sigmoid": (fr.RNN, dict(nonlinearity="sigmoid", clip=0.5)),
    "rnn_all": (fr.RNN, dict(nonlinearity="hard_sigmoid", **_ALL)),
    "gru": (fr.GRU, {}),
    "gru_own": (fr.GRU, _OWN),
    "gru_all": (fr.GRU, _ALL),
    "gru_minimal": (fr.GRU, dict(variant="minimal")),
    "gru_minimal_all": (fr.GRU, dict(variant="minimal", **_ALL)),
    "gru_before": (fr.GRU, dict(reset_after=False)),
    "gru_before_own": (fr.GRU, dict(reset_after=False, zoneout_h=0.2, **_OWN)),
    "lstm": (fr.LSTM, {}),
    "lstm_own": (fr.LSTM, dict(gate_activation="tanh", state_activation="relu", clip=2.0)),
    "lstm_proj": (fr.LSTM, dict(proj_size=5, peephole=True, zoneout_c=0.2, zoneout_h=0.1, clip=3)),
    "lstm_all": (fr.LSTM, dict(zoneout_c=0.1, **_ALL)),
    "lstm_norm_proj": (fr.LSTM, dict(proj_size=9, layer_norm=True)),
    "lstm_input": (fr.LSTM, dict(coupled="f=1-i")),
    "lstm_input_peephole": (fr.LSTM, dict(coupled="f=1-i", peephole=True, zoneout_c=0.3)),
    "lstm_forget": (fr.LSTM, dict(coupled="i=1-f")),
    "lstm_forget_all": (fr.LSTM, dict(coupled="i=1-f", proj_size=11, zoneout_c=0.3, **_ALL)),
}  # fmt: skip


def models(dtype: str) -> dict[str, fr.Sequential]:
    """One for each kind of cell, one of each activation of Dense, and some with several layers."""
    made: dict[str, fr.Sequential] = {}
    for place, (name, (kind, options)) in enumerate(_CELLS.items()):
        layer = kind(
            3 + place % 3, (13, 33, 70)[place % 3], bias=(True, "single", False)[place % 5 % 3],
            dtype=dtype, seed=place, **options,
        )  # fmt: skip
        made[name] = fr.Sequential([layer])
    for activation in (None, "relu", "tanh", "sigmoid", "softmax"):
        name = f"dense_{activation}".lower()
        layers = [
            fr.RNN(2, 4, dtype=dtype, seed=1),
            fr.Dense(4, 37, activation, dtype=dtype, seed=2),
        ]
        made[name] = fr.Sequential(layers)
    made["long"] = fr.Sequential(
        [
            fr.Dense(2, 2500, "tanh", bias=False, dtype=dtype, seed=3),
            fr.Dense(2500, 3, dtype=dtype, seed=4),
        ]
    )
    tiny = fr.RNN(2, 4, nonlinearity="identity", bias=False, dtype=dtype, seed=3)
    for parameter in tiny.parameters().values():
        parameter.assign(parameter.data * np.finfo(dtype).tiny)
    made["tiny"] = fr.Sequential([tiny])
    made["ids"] = fr.Sequential(
        [
            fr.Embedding(7, 6, dtype=dtype, seed=5),
            fr.LSTM(6, 20, 2, dropout=0.3, dtype=dtype, seed=6),
            fr.Dropout(0.5),
            fr.GRU(20, 9, dtype=dtype, seed=7, return_sequences=False),
            fr.Dense(9, 7, "softmax", dtype=dtype, seed=8),
        ]
    )
    for model in made.values():  # biases that are zeros, and scales that are ones, show nothing
        rng = np.random.default_rng(9)
        for name, parameter in model.parameters().items():
            if not parameter.data.any() or "ln_" in name:
                parameter.assign(parameter.data + rng.uniform(-0.5, 0.5, parameter.shape))
    return made


def inputs(model: fr.Sequential) -> Any:
    """(STEPS, 1, features), or ids (STEPS, 1)."""
    rng = np.random.default_rng(11)
    if model.takes_ids:
        return rng.integers(0, model.layers[0].num_embeddings, (STEPS, 1))
    first: Any = model.layers[0]
    features = getattr(first, "input_size", 0) or first.in_features
    return rng.standard_normal((STEPS, 1, features)).astype(model.dtype)


def expected(model: fr.Sequential) -> Any:
    """(STEPS, features): what `Sequential.step` makes of the inputs."""
    outputs, state = [], None
    for x in inputs(model):
        y, state = model.step(x, state)
        outputs.append(y[0].copy())
    return np.array(outputs)


_MAIN = """
#include <stdio.h>
#include <stdlib.h>
static void must(int fine) { if (!fine) exit(1); }
"""
_RUN = """
static void run_{0}(FILE *in, FILE *out) {{
    {0}_state state;
    {1} x[{2}];
    {3} y[{0}_outputs];
    {0}_reset(&state);
    for (int t = 0; t < {4}; t++) {{
        must(fread(x, sizeof x, 1, in) == 1);
        {5}
        must(fwrite(y, sizeof y, 1, out) == 1);
    }}
}}
"""


def program(folder: Path, made: dict[str, fr.Sequential]) -> Path:
    """Headers of all models, their inputs, and main.c, which writes all outputs."""
    text, main = _MAIN, ""
    with open(folder / "in", "wb") as file:
        for name, model in made.items():
            export_c.export(model, folder / f"{name}.h")
            x = inputs(model)
            real = "float" if model.dtype == np.float32 else "double"
            ids = model.takes_ids
            step = (
                f"must({name}_step(&state, x[0], y) == 0);"
                if ids
                else f"{name}_step(&state, x, y);"
            )
            text += f'#include "{name}.h"\n' + _RUN.format(
                name, "int32_t" if ids else real, 1 if ids else x.shape[-1], real, STEPS, step
            ).replace(f"{name}_outputs", f"{name.upper()}_OUTPUTS")
            main += f"    run_{name}(in, out);\n"
            file.write((x.astype(np.int32) if ids else x).tobytes())
    text += f"""
int main(int argc, char **argv) {{
    must(argc == 3);
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    must(in && out);
{main}    return fclose(in) || fclose(out);
}}
"""
    (folder / "main.c").write_text(text)
    return folder / "main.c"


def run(folder: Path, command: list[Any], made: dict[str, fr.Sequential]) -> dict[str, Any]:
    """Outputs by model of a program made of `program`."""
    subprocess.run([*command, folder / "in", folder / "out"], check=True, timeout=120)
    data, at, outputs = (folder / "out").read_bytes(), 0, {}
    for name, model in made.items():
        shape = expected(model).shape
        size = int(np.prod(shape)) * model.dtype.itemsize
        outputs[name] = np.frombuffer(data[at : at + size], model.dtype).reshape(shape)
        at += size
    assert at == len(data)
    return outputs
