"""What its constructor's arguments describe, as JSON can hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

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
