"""The spectral radii of what h is multiplied with from step to step."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.diagnostics.gates import blocks, strand_names
from fastrnn.layers.recurrent import Recurrent


def spectral_radius(matrix: ArrayLike) -> float:
    """The largest |eigenvalue| of a square matrix; nan where an entry is not finite."""
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"matrix: expected a square one, got {array.shape}")
    if not np.isfinite(array).all():
        return np.nan
    return float(np.abs(np.linalg.eigvals(array)).max())


def recurrent_radii(layer: Recurrent) -> list[dict[str, float]]:
    """The spectral radius of each block of weight_hh, what h is multiplied with from step to step,
    by the block's name; index layer * D + direction. With a projection: of W_hr R, (P, P)."""
    names, weights, found = blocks(layer), layer.state_dict(), []
    for strand in strand_names(layer):
        project = weights.get(f"weight_hr_{strand}")
        parts = np.split(weights[f"weight_hh_{strand}"], len(names))
        radii = [spectral_radius(part if project is None else project @ part) for part in parts]
        found.append(dict(zip(names, radii, strict=True)))
    return found
