"""Checks of hyperparameters, and what has them as a description that JSON can hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

T = TypeVar("T")


class Described:
    """Base of what its constructor's arguments describe; a subclass names them in `_arguments`."""

    _arguments: ClassVar[tuple[str, ...]] = ()

    def _values(self) -> dict[str, Any]:
        """The constructor's arguments by name, as they are."""
        return {name: getattr(self, name) for name in self._arguments}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON can hold them: of a schedule its `description`."""
        return {name: _plain(value) for name, value in self._values().items()}

    def description(self) -> dict[str, Any]:
        """``{"kind": the class's name, "config": ...}``, which `from_config` makes another of."""
        return {"kind": type(self).__name__, "config": self.config()}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"{type(self).__name__}({arguments})"


def _plain(value: Any) -> Any:
    if isinstance(value, Described):
        return value.description()
    return list(value) if isinstance(value, tuple) else value


def rebuild(
    description: Any,
    name: str,
    kinds: Mapping[str, Callable[..., T]],
    inner: Callable[[Any], Any],
) -> T:
    """What `description` describes, of one of `kinds`; `inner` rebuilds what an argument describes.

    Raises ValueError, with the `name` of what is described, for anything else.
    """
    if not isinstance(description, Mapping) or description.keys() != {"kind", "config"}:
        raise ValueError(f"{name}: expected its kind and config, got {description!r}")
    kind, config = description["kind"], description["config"]
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{name}: expected one of {', '.join(kinds)}, got {kind!r}")
    if not isinstance(config, Mapping):
        raise ValueError(f"{name}: expected a config of names and values, got {config!r}")
    try:
        arguments = {
            key: inner(value) if isinstance(value, Mapping) else value
            for key, value in config.items()
        }
        return kinds[kind](**arguments)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from None


def number(value: Any, name: str, wanted: str, fits: Callable[[float], bool]) -> float:
    """`value` as a float that `fits`, or an error that names it and says what was `wanted`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def positive(value: Any, name: str) -> float:
    return number(value, name, "a positive finite number", lambda x: 0 < x < math.inf)


def from_zero(value: Any, name: str) -> float:
    return number(value, name, "a finite number from 0", lambda x: 0 <= x < math.inf)


def fraction(value: Any, name: str) -> float:
    return number(value, name, "a number in [0, 1)", lambda x: 0 <= x < 1)


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def whole(value: Any, name: str, least: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer from {least}, got {value!r}") from None
    if isinstance(value, bool) or found < least:
        raise ValueError(f"{name}: expected an integer from {least}, got {value!r}")
    return found


def listed(values: Any, name: str, check: Callable[[Any, str], T]) -> tuple[T, ...]:
    """The entries of a list, each of which passes `check`."""
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name}: expected a list, got {values!r}")
    return tuple(check(value, f"{name}[{i}]") for i, value in enumerate(values))
