"""Monitor: a callback that sees, epoch by epoch, what happens inside a model's recurrent layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.checks import check_size
from fastrnn.diagnostics.flow import Flow, in_columns, reach
from fastrnn.diagnostics.gates import (
    activations,
    blocks,
    dead_units,
    gate_saturation,
    look_inside,
    movement,
    strand_names,
)
from fastrnn.diagnostics.record import FILE, Record, Strand, read
from fastrnn.diagnostics.spectrum import recurrent_radii
from fastrnn.fit import Callback
from fastrnn.layers.base import Layer
from fastrnn.layers.call import OnGradient
from fastrnn.layers.ragged import pack
from fastrnn.layers.recurrent import Recurrent
from fastrnn.serialization import check_writable

GRADIENTS = 100  # steps of an epoch that give theirs, or some more: others hardly change the mean
_FIRST = 32  # all the first steps of a run: it may not have more
STATES = 400  # steps of the probe's first row at most whose states are kept: its last ones


def recurrent_layers(model: Any) -> dict[str, Recurrent]:
    """The recurrent layers of a `model` by name, in order; those of a Sequential as its parameters
    are named: ``1.lstm``. Of another model or layer, all that its attributes hold."""
    layers = getattr(model, "layers", None)
    if isinstance(layers, tuple | list):
        inner = {f"{place}.{type(one).__name__.lower()}": one for place, one in enumerate(layers)}
    else:
        inner = vars(model)
    found: dict[str, Recurrent] = {}
    for name, layer in inner.items():
        if isinstance(layer, Recurrent):
            found[name] = layer
        elif isinstance(layer, Layer):
            found |= {f"{name}.{own}": one for own, one in recurrent_layers(layer).items()}
    once = {id(layer): name for name, layer in reversed(found.items())}
    return {name: layer for name, layer in found.items() if once[id(layer)] == name}


class _Watch:
    """A layer's hook: takes its gradients' flow in, and hands it on to the hook that was there."""

    def __init__(self, layer: Recurrent) -> None:
        before = layer.on_gradient
        # That of a run which broke off is not called any more.
        self._before: OnGradient | None = before._before if isinstance(before, _Watch) else before
        self._layer = layer
        self.flow = Flow(layer.directions)

    def begin(self) -> None:
        self._layer.on_gradient = self

    def __call__(self, squares: NDArray[np.float64]) -> None:
        self.flow.add(squares)
        if self._before is not None:
            self._before(squares)

    def end(self) -> None:
        self._layer.on_gradient = self._before


class Monitor(Callback):
    """Keeps in the folder `path` what ``fastrnn report path`` makes a page of, after every epoch.

    That is the loss and the metrics, and every `every` epochs, in the first and in the last, of
    each recurrent layer: how strong the gradients were that reached h, by the distance back in time
    (see `flow`), and the spectral radii of its recurrent matrices. With a `probe`, an input of the
    model (time, ...) or a few (rows, time, ...), or a list of such of any lengths, also: how many
    activations of its gates are at an end of their range, how far its states move, how many of its
    units never change, how far back a gradient reaches; and the states of the probe's first row,
    whose steps `tokens` names, one string each. Gates are computed by the slow and readable
    `fastrnn.reference`, once in such an epoch. A probe wants a Sequential.

    Where an epoch has hundreds of steps, gradients are those of every second, third, ... of them,
    100 in all or some more, so that they cost training next to nothing. ``record`` is what has been
    seen. What was in the folder is replaced after the first epoch; a run that goes on from a
    checkpoint carries on its own.

    Raises, when training begins, OSError or ValueError where `path` cannot be written to, and
    ValueError or TypeError where the model has no recurrent layer, where probe and tokens do not
    fit, and where what a run is to go on with is another's.
    """

    record: Record

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        probe: Any = None,
        tokens: Sequence[str] | None = None,
        every: int = 1,
    ) -> None:
        self.path = Path(path)
        self.every = check_size(every, "every")
        self._probe: NDArray[Any] | None = None
        self._lengths: NDArray[np.int64] | None = None
        if probe is not None:
            self._probe, self._lengths = _rows(probe)
        self._tokens = None if tokens is None else [str(token) for token in tokens]
        if self._tokens is not None and self._probe is None:
            raise ValueError("tokens: expected with a probe, whose steps they name")
        self._resumed: Any = None
        self._steps = 0  # of the last epoch that was looked into
        self._watches: dict[str, _Watch] = {}

    # --- When what happens -----------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._layers = recurrent_layers(self.model)
        if not self._layers:
            raise ValueError("model: expected at least one recurrent layer to look into, got none")
        self._x = self._check_probe()
        if self._x is not None:
            self.model.run(self._x, None, self._lengths)  # what does not fit is to be known now
        self.path.mkdir(parents=True, exist_ok=True)
        check_writable(self.path / FILE)
        goes_on = self.run.epoch > 0 or self.run.step > 0
        self._strands = {name: _strands(name, layer) for name, layer in self._layers.items()}
        self.record = self._new_record()
        if goes_on and (self.path / FILE).exists():
            self._go_on(read(self.path))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch % self.every and epoch != self.run.epochs - 1:
            return
        self._watches = {name: _Watch(layer) for name, layer in self._layers.items()}
        if self._resumed and self.run.step:
            for name, watch in self._watches.items():
                watch.flow.set_state(self._resumed[name])
        self._resumed = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        for watch in self._watches.values():
            if self._takes(batch):
                watch.begin()
            else:
                watch.end()

    def _takes(self, batch: int) -> bool:
        """Whether a step's gradients are looked at; how many there are, the first epoch shows."""
        if not self._steps:
            return batch < _FIRST or batch % 8 == 0
        return batch % max(1, self._steps // GRADIENTS) == 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for watch in self._watches.values():
            watch.end()
        self.record.add(epoch, logs or {})
        if self._watches:
            self._look(epoch)
            self._steps = self.run.step
        self._watches = {}
        self.record.write(self.path)

    def state(self) -> Any:
        flows = {name: watch.flow.state() for name, watch in self._watches.items()}
        return {"steps": self._steps, "flows": flows}

    def set_state(self, state: Any) -> None:
        self._steps, self._resumed = state["steps"], state["flows"]

    # --- What is seen ----------------------------------------------------------------------------

    def _look(self, epoch: int) -> None:
        flows = [flow for watch in self._watches.values() for flow in watch.flow.mean()]
        if not flows:
            return  # the epoch ended before its first batch
        record = self.record
        record.seen.append(epoch)
        radii = [found for layer in self._layers.values() for found in recurrent_radii(layer)]
        for strand, flow, radius in zip(record.strands, flows, radii, strict=True):
            strand.steps.append(len(flow))
            strand.flow.append(in_columns(flow))
            strand.radii.append(np.array(list(radius.values())))
        if self._x is not None:
            with np.errstate(all="ignore"):  # weights may be anything by now
                self._look_at_probe(epoch, self._x)

    def _look_at_probe(self, epoch: int, x: NDArray[Any]) -> None:
        del self.record.shown[1:]
        self.record.shown.append(epoch)
        names = {id(layer): name for name, layer in self._layers.items()}
        for layer in self.model.layers:
            if not isinstance(layer, Recurrent):
                x = layer(x)
                continue
            strands = self._strands[names[id(layer)]]
            insides, flows = look_inside(layer, x, self._lengths), reach(layer, x, self._lengths)
            for strand, inside, flow in zip(strands, insides, flows, strict=True):
                strand.reach_steps.append(len(flow))
                strand.reach.append(in_columns(flow))
                ends = [
                    gate_saturation(values, inside.activations[block])
                    for block, values in inside.gates.items()
                ]
                strand.low.append(np.array([low for low, _ in ends]))
                strand.high.append(np.array([high for _, high in ends]))
                strand.dead.append(float(dead_units(np.concatenate(inside.states)).mean()))
                moves = [movement(row, inside.reverse) for row in inside.states]
                strand.moved.append(float(np.concatenate(moves).mean() / strand.units**0.5))
                del strand.states[1:]
                strand.states.append(inside.states[0][-STATES:].astype(np.float32))
            x, _ = layer(x, None, self._lengths)

    def _new_record(self) -> Record:
        layers = getattr(self.model, "layers", None) or self._layers.values()
        return Record(
            [_in_words(layer) for layer in layers],
            all(layer.return_sequences for layer in self._layers.values()),
            [strand for strands in self._strands.values() for strand in strands],
            None if self._tokens is None else self._tokens[-STATES:],
            0 if self._x is None else max(0, _steps(self._x, self._lengths) - STATES),
        )

    def _go_on(self, kept: Record) -> None:
        """Carry a record on, which must be one of this model and probe."""
        kept.cut(self.run.epoch)
        new = self.record
        layers, own = ([(s.name, s.blocks, s.units) for s in r.strands] for r in (kept, new))
        for what, alike in (
            ("other layers", layers == own),
            ("another probe", not kept.seen or bool(kept.shown) == (self._x is not None)),
            ("another probe", kept.first_step == new.first_step),
            ("other tokens", kept.tokens == new.tokens),
        ):
            if not alike:
                raise ValueError(
                    f"{self.path / FILE}: of a run with {what}; a run that goes on goes on "
                    "with the same, or in another folder"
                )
        self.record = kept
        strands = iter(kept.strands)
        self._strands = {name: [next(strands) for _ in s] for name, s in self._strands.items()}

    # --- The probe -------------------------------------------------------------------------------

    def _check_probe(self) -> NDArray[Any] | None:
        """The probe as the model takes it, (rows, time, ...)."""
        probe, model = self._probe, self.model
        if probe is None:
            return None
        if not isinstance(getattr(model, "layers", None), tuple | list):
            raise ValueError(f"probe: expected None for a {type(model).__name__}")
        wanted = 2 if model.takes_ids else 3
        if probe.dtype.kind not in ("iu" if model.takes_ids else "fiub"):
            raise TypeError(
                f"probe: expected {'ids' if model.takes_ids else 'numbers'}, got {probe.dtype}"
            )
        if probe.ndim not in (wanted - 1, wanted) or not probe.size:
            one = "(time,)" if model.takes_ids else "(time, features)"
            raise ValueError(f"probe: expected {one} or (rows, {one[1:]}, got {probe.shape}")
        x: NDArray[Any] = probe if probe.ndim == wanted else probe[None]
        steps = _steps(x, self._lengths)
        if steps == 0:
            raise ValueError("probe: expected a first row of one step or more, got none")
        if self._tokens is not None and len(self._tokens) != steps:
            raise ValueError(
                f"tokens: expected {steps}, one for each step of the probe's first row, got "
                f"{len(self._tokens)}"
            )
        return x if model.takes_ids else x.astype(model.dtype, copy=False)


def _strands(name: str, layer: Recurrent) -> list[Strand]:
    """Of a layer, index layer * D + direction, with nothing seen yet."""
    names = strand_names(layer)
    return [
        Strand(
            name if len(names) == 1 else f"{name} {own}",
            type(layer).__name__,
            list(blocks(layer)),
            activations(layer),
            layer.output_size,
            reverse=k % layer.directions == 1,
        )
        for k, own in enumerate(names)
    ]


def _steps(x: NDArray[Any], lengths: NDArray[np.int64] | None) -> int:
    """Of the first row."""
    return x.shape[1] if lengths is None else int(lengths[0])


def _rows(probe: Any) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """A probe as an array, and the lengths of its rows where it is a list of them."""
    if isinstance(probe, list | tuple) and all(isinstance(row, np.ndarray) for row in probe):
        return pack(probe)
    return np.asarray(probe), None


def _in_words(layer: Layer) -> str:
    """A layer and its sizes: LSTM(64, 128)."""
    numbers = [v for v in layer.config().values() if isinstance(v, int | float)][:2]
    return f"{type(layer).__name__}({', '.join(map(str, numbers))})"
