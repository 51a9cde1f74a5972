"""What a `Monitor` has seen of a run, and the folder that it is kept in.

The folder has one file, ``monitor.safetensors``: arrays, and JSON in its metadata. It is replaced
only once all is written, so a run that is killed leaves all epochs but the running one.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import serialization
from fastrnn.checkpoint import flatten, unflatten
from fastrnn.diagnostics.flow import distances

Floats = NDArray[np.float64]

FILE = "monitor.safetensors"
KIND = "Monitor"
_VECTORS = ("flow", "radii", "reach", "low", "high")  # of a strand: an array for every epoch
_NUMBERS = ("steps", "reach_steps", "dead", "moved")  # likewise, a number
_OF_PROBE = ("reach", "reach_steps", "low", "high", "dead", "moved")


@dataclass
class Strand:
    """One layer in one direction, as it was in every epoch that was looked into.

    ``flow`` is |dL/dh| by columns of distance, see `flow.in_columns`, of ``steps`` distances;
    ``radii`` are spectral radii by block. On the probe, empty without one: ``reach``, of
    ``reach_steps`` distances, likewise (see `flow.reach`); ``low`` and ``high`` the shares of
    `gate_saturation` by block; ``dead`` the share of units that never change; ``moved`` the mean of
    |h_t - h_{t-1}| over steps, over the square root of the number of units; and ``states``: h of
    the first row, (time, units), of the epochs that `Record.shown` names.
    """

    name: str
    kind: str  # the class of the layer
    blocks: list[str]
    activations: list[str]  # by block
    units: int
    reverse: bool
    steps: list[int] = field(default_factory=list)
    flow: list[Floats] = field(default_factory=list)
    radii: list[Floats] = field(default_factory=list)
    reach_steps: list[int] = field(default_factory=list)
    reach: list[Floats] = field(default_factory=list)
    low: list[Floats] = field(default_factory=list)
    high: list[Floats] = field(default_factory=list)
    dead: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    states: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass
class Record:
    """A run: every epoch's loss and metrics, and what its strands were in those looked into."""

    layers: list[str]  # of the model, in words
    every_step: bool  # whether each step's output may be part of the loss, not the last one alone
    strands: list[Strand]
    tokens: list[str] | None = None  # of the steps that `states` have
    first_step: int = 0  # of the probe, that `states` begin with: they have the last ones
    epochs: list[int] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)  # those of `epochs` that were looked into
    shown: list[int] = field(default_factory=list)  # the first and the last of these: of `states`

    def add(self, epoch: int, logs: dict[str, float]) -> None:
        """Take in an epoch's loss and metrics."""
        self.epochs.append(epoch)
        self.logs.append({name: float(value) for name, value in logs.items()})

    def cut(self, epoch: int) -> None:
        """Forget `epoch` and those after it."""
        kept, seen, shown = (
            sum(number < epoch for number in numbers)
            for numbers in (self.epochs, self.seen, self.shown)
        )
        del self.epochs[kept:], self.logs[kept:], self.seen[seen:], self.shown[shown:]
        for strand in self.strands:
            for name in (*_VECTORS, *_NUMBERS):
                del getattr(strand, name)[seen:]
            del strand.states[shown:]

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write it to `folder`, which is there. Raises OSError or ValueError where that fails."""
        tree = asdict(self)
        for strand in tree["strands"]:
            for name in _VECTORS:  # an array of all, for thousands would be slow to write
                sizes = [len(vector) for vector in strand[name]]
                strand[name] = {"sizes": sizes, "values": np.concatenate([[], *strand[name]])}
        tensors: dict[str, NDArray[Any]] = {}
        extra = {"monitor": flatten(tree, "monitor/", tensors)}
        content = serialization.ModelFile(tensors, {"kind": KIND}, extra)
        serialization.write(Path(folder) / FILE, content)


def read(folder: str | os.PathLike[str]) -> Record:
    """The record in `folder`.

    Raises OSError where there is none or it cannot be read, ValueError where it is damaged or
    something else.
    """
    path = Path(folder) / FILE
    content = serialization.read(path)
    if content.description.get("kind") != KIND:
        raise ValueError(f"{path}: not what a Monitor has written")
    try:
        tree = unflatten(content.extra["monitor"], content.tensors)
        for strand in tree["strands"]:
            for name in _VECTORS:
                ends = np.cumsum(strand[name]["sizes"], dtype=np.int64)
                strand[name] = np.split(strand[name]["values"], ends)[:-1]
        record = Record(**{**tree, "strands": [Strand(**strand) for strand in tree["strands"]]})
        _check(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    return record


def _check(record: Record) -> None:
    """Raise ValueError where parts of a record do not fit together."""
    _same("logs", len(record.logs), len(record.epochs))
    _same("epochs", {type(epoch) for epoch in record.epochs + record.seen} <= {int}, True)
    _same("seen", set(record.seen) <= set(record.epochs), True)
    for log in record.logs:
        _same("numbers", all(isinstance(value, float) for value in log.values()), True)
    for strand in record.strands:
        for name in (*_VECTORS, *_NUMBERS):
            values = getattr(strand, name)
            if values or name not in _OF_PROBE:
                _same(f"{strand.name} {name}", len(values), len(record.seen))
        for name in ("radii", "low", "high"):
            for vector in getattr(strand, name):
                _same(f"{strand.name} {name}", len(vector), len(strand.blocks))
        for vectors, steps in ((strand.flow, strand.steps), (strand.reach, strand.reach_steps)):
            for vector, count in zip(vectors, steps, strict=True):
                _same(f"{strand.name} flow", len(vector), len(distances(count)))
        _same(f"{strand.name} activations", len(strand.activations), len(strand.blocks))
        for states in strand.states:
            _same(f"{strand.name} states", states.ndim, 2)
            if record.tokens is not None:
                _same(f"{strand.name} tokens", len(record.tokens), len(states))
        if strand.states:
            _same(f"{strand.name} shown", len(strand.states), len(record.shown))


def _same(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise ValueError(f"{what}: expected {wanted}, got {got}")
