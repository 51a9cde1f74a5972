"""History: what a training run reports, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class History:
    """What fit reports: for every epoch its number and, by name, the loss and the metrics.

    ``interrupted`` tells that Ctrl-C ended it: the last epoch may then be one that was cut short.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    interrupted: bool = False

    def add(self, epoch: int, report: Mapping[str, float]) -> None:
        """An epoch more, with its loss and metrics by name."""
        self.epoch.append(epoch)
        for name, value in report.items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | os.PathLike[str], *, title: str = "") -> None:
        """Write a PNG: a panel for the loss and one for each metric, over the epochs.

        Raises ImportError without matplotlib, ValueError before the first epoch, OSError where the
        file cannot be written.
        """
        from fastrnn import plots  # not at import: matplotlib takes its time

        plots.history(path, self.epoch, self.history, title=title)
