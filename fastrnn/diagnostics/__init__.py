"""What happened inside a model in training: gradient flow, gates, states, and a verdict in words.

`Monitor` is the callback that collects it, ``fastrnn report`` the command that makes a page of it;
the functions take arrays and layers, and want neither.
"""

from fastrnn.diagnostics.flow import (
    Flow,
    Trend,
    distances,
    flow_picture,
    flow_trend,
    gradient_flow,
    in_columns,
    reach,
)
from fastrnn.diagnostics.gates import (
    Inside,
    dead_units,
    gate_saturation,
    look_inside,
    movement,
    strand_names,
)
from fastrnn.diagnostics.monitor import Monitor, recurrent_layers
from fastrnn.diagnostics.record import Record, Strand, read
from fastrnn.diagnostics.spectrum import recurrent_radii, spectral_radius
from fastrnn.diagnostics.verdict import Finding, findings, verdict

__all__ = [
    "Finding",
    "Flow",
    "Inside",
    "Monitor",
    "Record",
    "Strand",
    "Trend",
    "dead_units",
    "distances",
    "findings",
    "flow_picture",
    "flow_trend",
    "gate_saturation",
    "gradient_flow",
    "in_columns",
    "look_inside",
    "movement",
    "reach",
    "read",
    "recurrent_layers",
    "recurrent_radii",
    "spectral_radius",
    "strand_names",
    "verdict",
]
