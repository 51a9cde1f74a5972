"""A long text as contiguous rows of windows, for truncated back-propagation through time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastrnn.data.types import Ids


class Stream:
    """A text of ids cut into `batch` rows that are read side by side, `time` steps at a time.

    Iterating gives ``(inputs, targets)``, each (batch, steps), the targets one character further on
    than the inputs. A row goes on from window to window where it stopped, so a recurrent state
    carries over; `steps` is `time` but for the last window, which takes what is left. At most
    `batch` ids at the end of the text go unused.
    """

    def __init__(self, ids: Ids, batch: int, time: int) -> None:
        """`ids`: a vector long enough for one whole window, batch·time + 1; else ValueError."""
        if batch < 1 or time < 1:
            raise ValueError(f"batch and time: expected 1 or more, got {batch} and {time}")
        ids = np.asarray(ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids: expected a vector of integers, got {ids.dtype} {ids.shape}")
        if ids.size < batch * time + 1:
            raise ValueError(
                f"a text of {ids.size:,} characters is too short for {batch} rows of {time} steps, "
                f"which want {batch * time + 1:,} or more"
            )
        self.time = time
        length = (ids.size - 1) // batch
        self.inputs = ids[: batch * length].reshape(batch, length)
        self.targets = ids[1 : batch * length + 1].reshape(batch, length)

    def __len__(self) -> int:
        """The number of windows."""
        return -(-self.inputs.shape[1] // self.time)

    @property
    def size(self) -> int:
        """The number of characters that one pass predicts."""
        return self.inputs.size

    def __iter__(self) -> Iterator[tuple[Ids, Ids]]:
        for start in range(0, self.inputs.shape[1], self.time):
            window = slice(start, start + self.time)
            yield self.inputs[:, window], self.targets[:, window]
