"""What the commands print with: labelled lines, a progress bar, units that people read."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

from fastrnn.progress import progress_bar

LABEL = 9  # columns, and a space


def line(label: str, text: str) -> None:
    """Print a line that begins with a label."""
    print(f"{emphasis(label.ljust(LABEL))} {text}", flush=True)


def emphasis(text: str) -> str:
    """`text` in bold, on a terminal that wants it (https://no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[1m{text}\033[0m"


def count(number: float) -> str:
    """A count in three digits: 812, 48.1k, 3.2M."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:g}{unit}"
    return f"{rounded:g}"


class Progress:
    """A bar on stderr (where that is a terminal) with the loss and the characters a second."""

    def __init__(self, label: str) -> None:
        self.started = time.perf_counter()
        self.characters = 0
        self.loss = float("nan")
        self._bar: Any = progress_bar(
            1.0,
            label.ljust(LABEL),
            bar_format="{desc} {percentage:3.0f}%|{bar:30}| {elapsed}<{remaining}{postfix}",
            leave=False,
        )

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started

    @property
    def rate(self) -> float:
        """Characters a second, so far."""
        return self.characters / self.seconds

    def update(self, done: float, loss: float, characters: int) -> None:
        """A step on `characters` had this loss, and this fraction of all is done by now."""
        self.characters += characters
        # The mean of about the last twenty steps: single ones jump too much to be read.
        self.loss = loss if self.characters == characters else 0.95 * self.loss + 0.05 * loss
        self._bar.set_postfix_str(
            f"loss {self.loss:.3f}, {count(self.rate)} characters/s", refresh=False
        )
        self._bar.update(min(done, 1.0) - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
