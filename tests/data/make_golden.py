"""Make golden.npz, the golden vectors of tests/golden.py, with PyTorch.

Run as ``python tests/data/make_golden.py``; the same PyTorch makes the same file. This is the only
place among the tests that needs torch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import GATES, PATH, Array, Config, pack

SEED = 20240229

# Each for every cell; sizes are odd, and none is a multiple of a vector's length.
CONFIGS = [
    Config("one", "", input_size=1, hidden_size=1, batch=1, time=1),
    Config("plain", "", 3, 5, batch=4, time=7, initial_state=False),
    Config("wide", "", 9, 17, batch=3, time=5, lengths=[3, 5, 1]),
    Config("nobias-2layer", "", 7, 3, batch=2, time=4, bias=False, num_layers=2),
    Config("bi-ragged", "", 4, 3, 5, 6, bidirectional=True, bias=False, lengths=[2, 6, 1, 6, 3]),
    Config("bi-2layer", "", 2, 3, 3, 5, bidirectional=True, num_layers=2, initial_state=False),
    Config("bi-2layer-ragged", "", 3, 5, 4, 9, 2, True, lengths=[1, 5, 7, 4]),
]


def make_module(config: Config, weights: dict[str, torch.Tensor]) -> torch.nn.RNNBase:
    """PyTorch's layer for `config`, with `weights`."""
    classes = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    more = {"nonlinearity": config.cell[4:]} if config.cell.startswith("rnn") else {}
    module = classes.get(config.cell, torch.nn.RNN)(
        config.input_size,
        config.hidden_size,
        config.num_layers,
        bias=config.bias,
        bidirectional=config.bidirectional,
        batch_first=True,
        dtype=next(iter(weights.values())).dtype,
        **more,
    )
    module.load_state_dict(weights)
    return module


def run(config: Config, given: dict[str, Array], dtype: torch.dtype) -> dict[str, Array]:
    """What PyTorch in `dtype` makes of `given`: outputs, states and gradients."""
    tensors = {name: torch.tensor(value, dtype=dtype) for name, value in given.items()}
    module = make_module(config, {name: tensors[name] for name in config.weight_shapes()})
    # A state that is not given is zeros, and has a gradient all the same.
    h0 = tensors.get("h0", torch.zeros(given["dh_n"].shape, dtype=dtype)).requires_grad_()
    c0 = tensors.get("c0", torch.zeros(given["dh_n"].shape, dtype=dtype)).requires_grad_()
    x = tensors["x"].requires_grad_()
    state = (h0, c0) if config.cell == "lstm" else h0
    if config.lengths is None:
        y, state_n = module(x, state)
    else:
        packed = pack_padded_sequence(x, config.lengths, batch_first=True, enforce_sorted=False)
        packed_y, state_n = module(packed, state)
        y, _ = pad_packed_sequence(packed_y, batch_first=True, total_length=config.time)
    h_n, c_n = state_n if config.cell == "lstm" else (state_n, None)
    loss = (tensors["dy"] * y).sum() + (tensors["dh_n"] * h_n).sum()
    if c_n is not None:
        loss = loss + (tensors["dc_n"] * c_n).sum()
    loss.backward()
    got = {"y": y, "h_n": h_n, "dx": x.grad, "dh0": h0.grad}
    if c_n is not None:
        got |= {"c_n": c_n, "dc0": c0.grad}
    got |= {name: weight.grad for name, weight in module.named_parameters()}
    return {name: value.detach().numpy() for name, value in got.items()}


def main() -> None:
    rng = np.random.default_rng(SEED)
    arrays: dict[str, Array] = {}
    configs = [
        replace(config, cell=cell, name=f"{cell}-{config.name}")
        for cell in GATES
        for config in CONFIGS
    ]
    for config in configs:
        bound = config.hidden_size**-0.5
        given = {
            name: rng.uniform(-bound, bound, shape).astype(np.float32)
            if name in config.weight_shapes()
            else rng.standard_normal(shape).astype(np.float32)
            for name, shape in config.given_shapes().items()
        }
        expected = run(config, given, torch.float64)
        # PyTorch in float32 must agree, or the case is too ill-conditioned to test float32 with.
        for name, value in run(config, given, torch.float32).items():
            np.testing.assert_allclose(value, expected[name], 1e-5, 1e-5, err_msg=config.name)
        arrays[f"{config.name}/given"] = pack(given, config.given_shapes())
        arrays[f"{config.name}/expected"] = pack(expected, config.expected_shapes())
    text = np.array(json.dumps([asdict(config) for config in configs]))
    np.savez_compressed(PATH, configs=text, **arrays)
    print(f"{PATH}: {len(configs)} configurations, {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
