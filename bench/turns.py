"""Systems in processes of their own, one of which runs while the others stand still.

Threads that have nothing to do may spin for a while and take the cores from who runs next, so a
process that does not have the turn is stopped (SIGSTOP). POSIX only.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench import systems
from bench.measure import fastest_call, limit_threads
from bench.problem import Results
from bench.shapes import AnyRow
from bench.systems import Pass

_SETTLE_SECONDS = 0.01  # for threads that were stopped while they spun

_CALLS = 2  # in a turn at least: the first finds the caches full of the others' data
_TRIALS = 2  # turns that decide between variants


@dataclass(frozen=True)
class Prepared:
    """What a system can do of a row: by kind the variant that is fastest, and its results."""

    variants: Mapping[str, str]
    results: Mapping[str, Results]


class Failure(Exception):
    """A system raised something, or its process ended."""


class Player:
    """One system in its process, which stands still between calls.

    Its threads may use as many CPUs as there are threads, the last ones of ours (the first serve
    interrupts), and NumPy's and other libraries' numbers of threads are set likewise.
    """

    def __init__(self, name: str, threads: int, environment: Mapping[str, str]) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        arguments = (name, threads, os.getpid(), theirs)
        self._process = spawn.Process(target=_play, args=arguments, daemon=True)
        limit_threads(threads)
        with _environment(environment):
            self._process.start()
        theirs.close()
        self.version: str = self._answer()

    def prepare(self, row: AnyRow, seconds: float) -> Prepared:
        """Make the row ready and choose between variants in turns of so many seconds."""
        return self._asked("prepare", row, seconds)  # type: ignore[no-any-return]

    def turn(self, seconds: float) -> dict[str, float]:
        """By kind of pass of the row prepared last, its fastest call, in seconds."""
        return self._asked("turn", seconds)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._process.kill()  # a stopped process would not heed anything milder
        self._process.join()

    def _asked(self, method: str, *arguments: object) -> Any:
        os.kill(self._pid, signal.SIGCONT)
        time.sleep(_SETTLE_SECONDS)
        self._connection.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer, error = self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise Failure(f"{self.name}: its process ended (status {code})") from None
        os.kill(self._pid, signal.SIGSTOP)
        os.waitpid(self._pid, os.WUNTRACED)  # it takes a moment
        if error:
            raise Failure(f"{self.name}: {error}")
        return answer

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid


@contextmanager
def players(names: list[str], threads: int) -> Iterator[_Players]:
    """Systems by name and dtype, started when they are first asked for."""
    all_of_them = _Players(names, threads)
    try:
        yield all_of_them
    finally:
        all_of_them.close()


class _Players:
    def __init__(self, names: list[str], threads: int) -> None:
        self._names, self._threads = names, threads
        self._started: dict[tuple[str, tuple[tuple[str, str], ...]], Player] = {}

    def of(self, row: AnyRow) -> list[Player]:
        """Those for this row; dtypes share a process where their environment is the same."""
        found = []
        for name in self._names:
            environment = systems.module(name).environment(self._threads, row.dtype)
            key = name, tuple(sorted(environment.items()))
            if key not in self._started:
                self._started[key] = Player(name, self._threads, environment)
            found.append(self._started[key])
        return found

    def close(self) -> None:
        for player in self._started.values():
            player.close()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- In the system's process --------------------------------------------------------------------


def _play(name: str, threads: int, parent: int, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent to end us
    _end_with(parent)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    stage: _Stage | None = None
    request: tuple[str, tuple[Any, ...]] | None = None
    while True:
        answer, error = None, ""
        try:
            if stage is None:
                stage = _Stage(name, threads)
                answer = stage.version
            elif request is not None:
                answer = getattr(stage, request[0])(*request[1])
        except Exception:
            error = traceback.format_exc()
        connection.send((answer, error))
        try:
            request = connection.recv()
        except EOFError:
            return


class _Stage:
    """A system and the passes of the row that it has prepared."""

    def __init__(self, name: str, threads: int) -> None:
        self._system = systems.module(name).System(threads)
        self._passes: dict[str, Pass] = {}
        self.version: str = self._system.version

    def prepare(self, row: AnyRow, seconds: float) -> Prepared:
        self._passes = {}  # the last row's data may go first
        variants, results = {}, {}
        for kind, ways in self._system.passes(row).items():
            found = {}
            for variant, way in ways.items():
                with way.within():
                    found[variant] = way.results()
            trials = dict.fromkeys(ways, float("inf"))
            for _ in range(_TRIALS if len(ways) > 1 else 0):
                for variant, way in ways.items():
                    trials[variant] = min(trials[variant], fastest_call(way, seconds, _CALLS))
            best = min(trials, key=lambda variant: trials[variant])
            variants[kind], results[kind], self._passes[kind] = best, found[best], ways[best]
        return Prepared(variants, results)

    def turn(self, seconds: float) -> dict[str, float]:
        return {kind: fastest_call(way, seconds, _CALLS) for kind, way in self._passes.items()}


def _end_with(parent: int) -> None:
    """Have Linux end this process when its parent ends: stopped, it would stay for ever."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
