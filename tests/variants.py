"""Configurations of a layer in one direction beyond the plain cells, and random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fastrnn.reference import CELLS, Variant

ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "identity")


@dataclass(frozen=True)
class Config:
    """A cell, what it does beyond its equations, and which weights of its own it has."""

    cell: str
    variant: Variant = field(default_factory=Variant)
    projection: int = 0
    peephole: bool = False
    layer_norm: bool = False

    def __str__(self) -> str:
        return self.cell

    @property
    def has_c(self) -> bool:
        return CELLS[self.cell].states == 2

    def shapes(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Of all weights, by the reference's names."""
        gates, size = CELLS[self.cell].gates, self.projection or hidden
        rows = gates * hidden
        shapes: dict[str, tuple[int, ...]] = {
            "w_ih": (rows, inputs), "w_hh": (rows, size), "b_ih": (rows,), "b_hh": (rows,),
        }  # fmt: skip
        if self.projection:
            shapes["w_hr"] = (size, hidden)
        if self.peephole:
            shapes["w_ch"] = (gates - 1, hidden)
        if self.layer_norm:
            shapes |= {"ln_ih": (rows,), "ln_hh": (rows,)}
            if self.has_c:
                shapes["ln_c"] = (2, hidden)
        return shapes

    def weights(self, inputs: int, hidden: int, dtype: np.dtype, rng: Any) -> dict[str, Any]:
        weights = {}
        for name, shape in self.shapes(inputs, hidden).items():
            scale = shape[-1] ** -0.5 if name.startswith("w_") and name != "w_ch" else 1.0
            weights[name] = (rng.standard_normal(shape) * scale).astype(dtype)
        return weights


def _all_named() -> dict[str, Config]:
    """One of each kind, and some together."""
    named = {}
    for cell in CELLS:
        gated = not cell.startswith("rnn")
        zoneout_c = 0.2 if CELLS[cell].states == 2 else 0.0
        named[f"{cell} activations"] = Config(
            cell, Variant("hard_sigmoid" if gated else "sigmoid", "identity", clip=0.8)
        )
        named[f"{cell} zoneout"] = Config(cell, Variant(zoneout_h=0.3, zoneout_c=zoneout_c, seed=5))
        named[f"{cell} mean zoneout"] = Config(
            cell, Variant(zoneout_h=0.3, zoneout_c=zoneout_c, training=False)
        )
        named[f"{cell} dropout"] = Config(cell, Variant(recurrent_dropout=0.4, seed=2**63 + 9))
        if cell != "gru_before":
            named[f"{cell} layer norm"] = Config(cell, layer_norm=True)
        if CELLS[cell].states == 2:
            named[f"{cell} peephole"] = Config(cell, peephole=True)
            named[f"{cell} projection"] = Config(cell, projection=3)
            named[f"{cell} all but layer norm"] = Config(
                cell,
                Variant("sigmoid", "relu", 2.0, 0.1, 0.3, 0.2, seed=77),
                projection=5,
                peephole=True,
            )
            named[f"{cell} all but peepholes"] = Config(
                cell,
                Variant("hard_sigmoid", "tanh", 1.5, 0.1, 0.3, 0.2, seed=78),
                projection=4,
                layer_norm=True,
            )
    return named


NAMED = _all_named()


@st.composite
def configs(draw: st.DrawFn, smooth: bool = False) -> Config:
    """Any combination that makes sense; `smooth`: differentiable everywhere."""
    cell = draw(st.sampled_from(list(CELLS)))
    has_c = CELLS[cell].states == 2
    clip = None if smooth else draw(st.one_of(st.none(), st.floats(0.5, 20)))
    activations = ("sigmoid", "tanh", "identity") if smooth else ACTIVATIONS
    clipped = clip is not None and clip <= 2
    bounded = tuple(a for a in activations if clipped or a in ("sigmoid", "tanh", "hard_sigmoid"))
    probability = st.one_of(st.just(0.0), st.floats(0.05, 0.9))
    variant = Variant(
        draw(st.sampled_from(bounded)),  # what gates multiply must not explode
        draw(st.sampled_from(("tanh", *(activations if has_c else bounded)))),
        clip,
        draw(probability),
        draw(probability) if has_c else 0.0,
        draw(probability),
        draw(st.booleans()),
        draw(st.integers(0, 2**64 - 1)),
    )
    layer_norm = cell != "gru_before" and draw(st.booleans())
    return Config(
        cell,
        variant,
        draw(st.integers(1, 6)) if has_c and draw(st.booleans()) else 0,
        has_c and not layer_norm and draw(st.booleans()),
        layer_norm,
    )
