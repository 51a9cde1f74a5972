"""Vocabularies: the characters or the words of texts, and their ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.checks import check_size

REPLACEMENT = "\ufffd"  # what an out-of-vocabulary character becomes
# What stands for no word: Keras's TextVectorization has the same two, with the same ids.
PADDING, OOV = "", "[UNK]"
# A word is letters, digits and underscores; anything else but white space stands alone.
WORD = re.compile(r"\w+|[^\w\s]")


class Vocabulary:
    """The different characters of a text, sorted; a character's id is its place among them.

    With `oov` there is one id more, the last, for the characters that are out of vocabulary.
    ``Vocabulary(v.characters, oov=v.oov)`` is `v` again, of a string and a bool, which JSON can
    hold.
    """

    def __init__(self, characters: str, *, oov: bool = False) -> None:
        """`characters`: sorted and different, at least one; ValueError otherwise."""
        if not isinstance(characters, str):
            raise TypeError(f"characters: expected a string, got {type(characters).__name__}")
        if not characters or "".join(sorted(set(characters))) != characters:
            raise ValueError("characters: expected sorted, different characters, at least one")
        self.characters = characters
        self.oov = bool(oov)
        self._codes = _codes(characters)
        self._decoded = characters + REPLACEMENT if oov else characters

    @classmethod
    def of(cls, text: str, *, oov: bool = False) -> Vocabulary:
        """The vocabulary of `text`."""
        if not text:
            raise ValueError("text: expected at least one character, got none")
        return cls("".join(sorted(set(text))), oov=oov)

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the characters of `text`, (characters,).

        Without `oov`, ValueError names the first character that the vocabulary lacks.
        """
        codes = _codes(text)
        size = len(self.characters)
        ids = np.searchsorted(self._codes, codes).clip(max=size - 1).astype(np.int64)
        unknown = np.flatnonzero(self._codes[ids] != codes)
        if self.oov:
            ids[unknown] = size
        elif unknown.size:
            place = int(unknown[0])
            raise ValueError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}, at {place}) is not one of "
                f"the {size} characters of the vocabulary"
            )
        return ids

    def decode(self, ids: ArrayLike) -> str:
        """The text of `ids`, a vector, U+FFFD for the out-of-vocabulary id.

        Raises ValueError for an id outside 0..len-1.
        """
        return "".join(self._decoded[i] for i in _checked(ids, len(self)))

    def __len__(self) -> int:
        """The number of ids."""
        return len(self._decoded)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vocabulary)
            and other.characters == self.characters
            and other.oov == self.oov
        )

    def __hash__(self) -> int:
        return hash((self.characters, self.oov))

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r}{', oov=True' if self.oov else ''})"


class WordVocabulary:
    """The words of texts, the most frequent first; a word's id is its place in ``words``.

    Id 0 is padding (``""``), id 1 stands for the words that are out of vocabulary (``"[UNK]"``),
    as in Keras's TextVectorization. A text, in lower case with `lower`, is split into runs of
    letters, digits and underscores and, each alone, other characters; white space separates:
    "Don't stop!" is don ' t stop !. ``WordVocabulary(v.words, lower=v.lower)`` is `v` again, of a
    list of strings and a bool, which JSON can hold.
    """

    def __init__(self, words: Sequence[str], *, lower: bool = True) -> None:
        """`words`: "", "[UNK]", then different words, at least one, as a text is split into.

        Raises TypeError for what is not a list of strings, ValueError naming a word that no text
        can hold.
        """
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TypeError("words: expected a list of strings")
        if tuple(words[:2]) != (PADDING, OOV) or len(words) < 3:
            raise ValueError(
                f"words: expected {PADDING!r}, {OOV!r} and at least one word, got {list(words[:3])}"
            )
        self.lower = bool(lower)
        self._words = tuple(words)
        self._ids: dict[str, int] = {}
        for i, word in enumerate(words[2:], start=2):
            if _split(word, self.lower) != [word]:
                case = " in lower case" if lower else ""
                raise ValueError(f"words[{i}]: expected one word{case}, got {word!r}")
            if self._ids.setdefault(word, i) != i:
                raise ValueError(f"words[{i}]: expected different words, got {word!r} again")

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        max_size: int | None = None,
        min_count: int = 1,
        lower: bool = True,
    ) -> WordVocabulary:
        """The words that occur `min_count` times or more in `texts`, read once, one by one.

        The most frequent come first, those of one frequency in the order of their characters.
        `max_size` is the greatest len, padding and out of vocabulary with it, so at least 3. Raises
        TypeError where `texts` is a string, ValueError where no word is found.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected several, got a string; write [text]")
        if max_size is not None and check_size(max_size, "max_size") < 3:
            raise ValueError(f"max_size: expected 3 or more, for at least one word, got {max_size}")
        least = check_size(min_count, "min_count")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_split(text, lower))
        found = [word for word, count in counts.items() if count >= least]
        if not found:
            times = "" if least == 1 else f" that occurs {least} times"
            raise ValueError(f"texts: expected at least one word{times}, got none")
        found.sort(key=lambda word: (-counts[word], word))
        return cls([PADDING, OOV, *found][:max_size], lower=lower)

    @property
    def words(self) -> list[str]:
        """The word of every id."""
        return list(self._words)

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the words of `text`, (words,), 1 for one that is out of vocabulary."""
        find = self._ids.get
        return np.array([find(word, 1) for word in _split(text, self.lower)], np.int64)

    def encode_all(self, texts: Iterable[str]) -> list[NDArray[np.int64]]:
        """The ids of each text, for `Ragged` or `fastrnn.pack`."""
        if isinstance(texts, str):
            raise TypeError("texts: expected several, got a string; write [text]")
        return [self.encode(text) for text in texts]

    def decode(self, ids: ArrayLike) -> str:
        """The words of `ids`, a vector, with spaces between them and without padding.

        Raises ValueError for an id outside 0..len-1.
        """
        return " ".join(self._words[i] for i in _checked(ids, len(self)) if i)

    def __len__(self) -> int:
        """The number of ids, padding and out of vocabulary with them."""
        return len(self._words)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, WordVocabulary)
            and other._words == self._words
            and other.lower == self.lower
        )

    def __hash__(self) -> int:
        return hash((self._words, self.lower))

    def __repr__(self) -> str:
        return f"<WordVocabulary of {len(self):,} ids>"


def _codes(text: str) -> NDArray[np.uint32]:
    # A lone surrogate (an undecodable byte of a command line) is a character like another.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _split(text: str, lower: bool) -> list[str]:
    return WORD.findall(text.lower() if lower else text)


def _checked(ids: ArrayLike, size: int) -> list[int]:
    """The numbers of `ids`, a vector; ValueError for others than 0..size-1."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids: expected a vector of integers, got {array.dtype} {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise ValueError(f"ids: expected 0 to {size - 1}, got {array.min()} to {array.max()}")
    numbers: list[int] = array.tolist()
    return numbers
