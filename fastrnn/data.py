"""Data for training: text files, character vocabularies, contiguous streams and minibatches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer]
Rows = NDArray[np.int64] | slice  # which rows of a batch


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file; a byte order mark is dropped, line ends become ``\\n``.

    Raises OSError where the file cannot be read, ValueError where it is empty or not UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ValueError(f"{path}: not UTF-8 text (byte 0x{byte:02x} at {error.start})") from None
    if not text:
        raise ValueError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Vocabulary:
    """The different characters of a text, sorted; a character's id is its place among them.

    ``Vocabulary(v.characters)`` is `v` again, and ``characters`` is a string, which JSON can hold.
    """

    def __init__(self, characters: str) -> None:
        """`characters`: sorted and different, at least one; ValueError otherwise."""
        if not isinstance(characters, str):
            raise TypeError(f"characters: expected a string, got {type(characters).__name__}")
        if not characters or "".join(sorted(set(characters))) != characters:
            raise ValueError("characters: expected sorted, different characters, at least one")
        self.characters = characters
        self._codes = _codes(characters)

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The vocabulary of `text`."""
        if not text:
            raise ValueError("text: expected at least one character, got none")
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the characters of `text`, (characters,).

        Raises ValueError naming the first character that the vocabulary lacks.
        """
        codes = _codes(text)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self) - 1)
        unknown = np.flatnonzero(self._codes[ids] != codes)
        if unknown.size:
            place = int(unknown[0])
            raise ValueError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}, at {place}) is not one of "
                f"the {len(self)} characters of the vocabulary"
            )
        return ids.astype(np.int64)

    def decode(self, ids: Ids) -> str:
        """The text of `ids`, a vector; ValueError for an id outside 0..len-1."""
        array = np.asarray(ids)
        if array.size and not 0 <= array.min() <= array.max() < len(self):
            raise ValueError(
                f"ids: expected 0 to {len(self) - 1}, got {array.min()} to {array.max()}"
            )
        return "".join(self.characters[i] for i in array.tolist())

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and other.characters == self.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"


def _codes(text: str) -> NDArray[np.uint32]:
    # A lone surrogate (an undecodable byte of a command line) is a character like another.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


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


@dataclass(frozen=True)
class Examples:
    """Inputs and targets side by side, a row of each and perhaps a length per example."""

    x: NDArray[Any]
    y: NDArray[Any]
    lengths: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """ValueError where the numbers of rows differ or are zero."""
        if self.x.ndim == 0 or len(self.x) == 0:
            raise ValueError(f"x: expected at least one row, got {self.x.shape}")
        for name, array in (("y", self.y), ("lengths", self.lengths)):
            if array is not None and (array.ndim == 0 or len(array) != len(self.x)):
                raise ValueError(f"{name}: expected {len(self.x)} rows as x has, got {array.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Examples:
        lengths = None if self.lengths is None else self.lengths[rows]
        return Examples(self.x[rows], self.y[rows], lengths)


def minibatches(
    rows: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[Rows]:
    """Which of `rows` rows each minibatch takes: all once, the last batch may be smaller.

    Shuffled with `rng`, else in order (as slices, which copy nothing).
    """
    order = None if rng is None else rng.permutation(rows)
    for start in range(0, rows, batch_size):
        batch = slice(start, min(start + batch_size, rows))
        yield batch if order is None else order[batch]
