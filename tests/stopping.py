"""Runs that end like a killed process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Stopped(Exception):
    """As if the process ended here."""


def stopping(stop_at: int | None) -> Callable[[int, Any], None]:
    """What raises Stopped at its call number `stop_at`, for `on_train_batch_end`."""
    steps = 0

    def count(batch: int, logs: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stopped

    return count
