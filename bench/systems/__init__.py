"""The systems that are compared, a file each. A framework is imported when its System is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar

from bench.measure import Contender
from bench.problem import STEPS, Results
from bench.shapes import AnyRow

State = TypeVar("State")

NAMES = ("fastrnn", "torch", "onnxruntime", "jax")


@dataclass(frozen=True, kw_only=True)
class Pass(Contender):
    """What is timed, and its `results` as arrays by name, asked for before any timing.

    Of a layer: output (B, T, D * H), for inference h and c (D, B, H), for training dx (B, T, I) and
    every weight's gradient by the weight's name; of steps the last output and state after `STEPS`
    steps; of a model the losses of its first `STEPS` updates.
    """

    results: Callable[[], Results]


# By kind of the row, then by variant: the ways that this system has, the fastest of which counts.
Passes = Mapping[str, Mapping[str, Pass]]


class System(Protocol):
    """Made in a process of its own, for so many threads."""

    version: str

    def __init__(self, threads: int) -> None: ...

    def passes(self, row: AnyRow) -> Passes:
        """What this system can do of the row; a kind that it cannot is not there."""


class Environment(Protocol):
    def __call__(self, threads: int, dtype: str) -> dict[str, str]: ...


class SystemModule(Protocol):
    """A file of this package."""

    System: type[System]
    environment: Environment
    """Variables that the system's process needs besides `measure.limit_threads`'s."""


def module(name: str) -> Any:
    """The file of that system, a `SystemModule`; no framework is imported."""
    return import_module(f"bench.systems.{name}")


def installed() -> list[str]:
    """The systems that this Python has."""
    return [name for name in NAMES if find_spec(name) is not None]


class Stream(Generic[State]):
    """A streaming step: ``step(state)`` to (output, state), from `zero` on."""

    def __init__(self, step: Callable[[State], tuple[Any, State]], zero: State) -> None:
        self._step, self._zero = step, zero
        self.state = zero

    def run(self) -> Any:
        output, self.state = self._step(self.state)
        return output

    def first_steps(self) -> tuple[Any, State]:
        """Output and state after the first `STEPS` steps."""
        self.state = self._zero
        for _ in range(STEPS):
            output = self.run()
        return output, self.state
