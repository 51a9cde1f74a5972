"""Greedy and beam search beside searches over all sequences, and the same one step at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastrnn.decoding import beam_search, greedy

Prefix = tuple[int, ...]


class Table:
    """A decoder whose logits are drawn for every prefix of every row; it keeps the prefixes."""

    def __init__(self, rows: int, classes: int, seed: int, ends: float = 0.0) -> None:
        self.classes, self.seed, self.ends = classes, seed, ends
        self.rows = list(range(rows))
        self.prefixes: list[list[Prefix]] = [[()] for _ in range(rows)]
        self.steps = 0

    def logits(self, row: int, prefix: Prefix) -> np.ndarray:
        values = np.random.default_rng([self.seed, row, *prefix]).normal(size=self.classes)
        values[-1] += self.ends
        return values

    def step(self, ids: np.ndarray) -> np.ndarray:
        self.steps += 1
        for row, given in enumerate(ids.tolist()):
            prefixes = [(*old, k) for old, k in zip(self.prefixes[row], given, strict=True)]
            self.prefixes[row] = prefixes
        return np.array(
            [
                [self.logits(row, prefix) for prefix in prefixes]
                for row, prefixes in zip(self.rows, self.prefixes, strict=True)
            ]
        )

    def keep(self, rows: np.ndarray, hypotheses: np.ndarray) -> None:
        self.prefixes = [
            [self.prefixes[row][k] for k in kept]
            for row, kept in zip(rows.tolist(), hypotheses.tolist(), strict=True)
        ]
        self.rows = [self.rows[row] for row in rows.tolist()]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum())


def penalty(steps: int, alpha: float) -> float:
    return float(((5 + steps) / 6) ** alpha)


def results(classes: int, max_steps: int) -> list[Prefix]:
    """All that can come out, with the end where there is one."""
    end = classes - 1
    found: list[Prefix] = []
    for n in range(max_steps + 1):
        for ids in itertools.product(range(end), repeat=n):
            found.append(ids if n == max_steps else (*ids, end))
    return found


def score(table: Table, row: int, sequence: Prefix, alpha: float) -> float:
    prefix: Prefix = (table.classes - 1,)
    total = 0.0
    for k in sequence:
        total += log_softmax(table.logits(row, prefix))[k]
        prefix = (*prefix, k)
    return total / penalty(len(sequence), alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize(("classes", "max_steps"), [(2, 1), (2, 6), (3, 4), (5, 3), (4, 1)])
def test_a_beam_as_large_as_the_search_finds_the_best(
    classes: int, max_steps: int, alpha: float
) -> None:
    everything = results(classes, max_steps)
    lengths = set()
    for seed in range(5):
        table = Table(4, classes, seed)
        found = beam_search(table, 4, classes - 1, max_steps, len(everything), alpha)
        for row, ids in enumerate(found):
            best = max(everything, key=lambda s, row=row: score(table, row, s, alpha))  # type: ignore[misc]
            want = [k for k in best if k != classes - 1]
            assert ids.dtype == np.int64 and ids.tolist() == want
            lengths.add(len(ids))
    assert len(lengths) > 1, "the rows end at different steps"


def slow_beam_search(table: Table, row: int, max_steps: int, beam: int, alpha: float) -> list[int]:
    """One row, hypotheses in a list, no early end."""
    end = table.classes - 1
    running: list[tuple[float, Prefix]] = [(0.0, ())]
    over: list[tuple[float, Prefix]] = []
    for step in range(1, max_steps + 1):
        after = [
            (total + log_p, (*ids, k))
            for total, ids in running
            for k, log_p in enumerate(log_softmax(table.logits(row, (end, *ids))))
        ]
        after = sorted(after, key=lambda entry: -entry[0])[:beam]
        running = []
        for total, ids in after:
            if ids[-1] == end or step == max_steps:
                over.append((total / penalty(step, alpha), ids))
            else:
                running.append((total, ids))
    return [k for k in max(over)[1] if k != end]


@pytest.mark.parametrize("ends", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("beam", [1, 2, 3, 7])
def test_rows_side_by_side_are_searched_as_each_alone(beam: int, alpha: float, ends: float) -> None:
    for seed in range(10):
        table = Table(6, 5, seed, ends)
        found = beam_search(table, 6, 4, 7, beam, alpha)
        for row, ids in enumerate(found):
            assert ids.tolist() == slow_beam_search(Table(6, 5, seed, ends), row, 7, beam, alpha)


@pytest.mark.parametrize("ends", [-2.0, 0.0, 2.0])
def test_greedy_takes_the_likeliest_at_every_step(ends: float) -> None:
    for seed in range(10):
        table = Table(6, 5, seed, ends)
        found = greedy(table, 6, 4, 7)
        for row, ids in enumerate(found):
            prefix: Prefix = (4,)
            while len(prefix) < 8 and (k := int(table.logits(row, prefix).argmax())) != 4:
                prefix = (*prefix, k)
            assert ids.dtype == np.int64 and ids.tolist() == list(prefix[1:])
        alone = beam_search(Table(6, 5, seed, ends), 6, 4, 7, 1)
        assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))


class Certain(Table):
    """Ends after as many ids as its row's number, all but surely."""

    def logits(self, row: int, prefix: Prefix) -> np.ndarray:
        values = np.zeros(self.classes)
        values[-1 if len(prefix) > row else 0] = 20.0
        return values


def test_a_search_ends_when_nothing_better_can_come() -> None:
    for search in (greedy, lambda *args: beam_search(*args, 3)):
        table: Any = Certain(4, 3, 0)
        assert [len(ids) for ids in search(table, 4, 2, 1000)] == [0, 1, 2, 3]
        assert table.steps == 4


def test_a_length_penalty_favours_longer_sequences() -> None:
    """The end now (p 0.4), or ids for sure after it (p 0.6 * 0.5)."""

    class Two(Table):
        def logits(self, row: int, prefix: Prefix) -> np.ndarray:
            chances = {1: [0.3, 0.3, 0.4]}.get(len(prefix), [0.0, 0.0, 1.0])
            chances = [1.0, 0.0, 0.0] if 1 < len(prefix) < 6 else chances
            with np.errstate(divide="ignore"):
                return np.log(np.array(chances))

    assert len(beam_search(Two(1, 3, 0), 1, 2, 10, 3, 0.0)[0]) == 0
    assert len(beam_search(Two(1, 3, 0), 1, 2, 10, 3, 1.0)[0]) == 5
