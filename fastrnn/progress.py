"""Progress bars on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal

Verbose = Literal["auto", 0, 1]

_POSTFIX_EVERY = 0.1  # seconds: to write the numbers takes longer than to count a step


def progress_bar(total: float | None, label: str, verbose: Verbose = "auto", **options: Any) -> Any:
    """A tqdm bar on stderr; "auto" shows it on a terminal only, 0 never, 1 always."""
    from tqdm import tqdm

    # disable=None is tqdm's way to ask whether its stream is a terminal.
    disable = None if check_verbose(verbose) == "auto" else not verbose
    return tqdm(total=total, desc=label, disable=disable, file=sys.stderr, **options)


def check_verbose(verbose: Any) -> Verbose:
    """`verbose`, which must be "auto", 0 or 1, or a ValueError."""
    if verbose not in ("auto", 0, 1):
        raise ValueError(f"verbose: expected 'auto', 0 or 1, got {verbose!r}")
    found: Verbose = verbose
    return found


class EpochBar:
    """The bar of an epoch: steps done, and the means so far; nothing where it is not shown."""

    def __init__(self, total: int | None, label: str, verbose: Verbose) -> None:
        """`total` steps, None where nobody knows."""
        shown = check_verbose(verbose) == 1 or (verbose == "auto" and sys.stderr.isatty())
        self._bar = progress_bar(total, label, 1) if shown else None
        self._written = 0.0

    def update(self, means: Callable[[], Mapping[str, float]]) -> None:
        """A step more."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._written > _POSTFIX_EVERY:
            self._written = now
            self._bar.set_postfix(means(), refresh=False)
        self._bar.update()

    def finish(self, report: Mapping[str, float]) -> None:
        """Write the epoch's numbers."""
        if self._bar is not None:
            self._bar.set_postfix(report)

    def __enter__(self) -> EpochBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
