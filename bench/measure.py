"""Taking times: contenders in turns, the fastest call of each, NumPy's threads held down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from fastrnn.comparison import THREADS

K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")
R = TypeVar("R")

# OpenBLAS's workers spin this long after a product, on cores that the next contender needs.
_SETTLE_SECONDS = 0.15


@dataclass(frozen=True)
class Contender:
    """One thing to time: `run`, after `prepare`, inside `within`; only `run` is timed."""

    run: Callable[[], object]
    prepare: Callable[[], None] = lambda: None
    within: Callable[[], AbstractContextManager[None]] = nullcontext


def interleaved(
    contenders: Mapping[K, Contender], rounds: int, seconds: float, threads: int
) -> dict[K, list[float]]:
    """For each contender the fastest call of each round, in seconds.

    In every round every contender has its turn, so that a disturbance hits all alike: `seconds` of
    calls, at least one. `threads` is how many NumPy's BLAS may use.
    """
    times: dict[K, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            if threads > 1:
                time.sleep(_SETTLE_SECONDS)
            times[name].append(fastest_call(contender, seconds))
    return times


def fastest_call(contender: Contender, seconds: float, calls: int = 1) -> float:
    """The fastest of `seconds` of calls, at least `calls` of them, in seconds."""
    fastest, made = float("inf"), 0
    with contender.within():
        end = time.perf_counter() + seconds
        while True:
            contender.prepare()
            start = time.perf_counter()
            contender.run()
            now = time.perf_counter()
            fastest, made = min(fastest, now - start), made + 1
            if now > end and made >= calls:
                return fastest


def limit_threads(threads: int) -> None:
    """Have fastrnn and NumPy's BLAS use `threads` threads, where they are not loaded yet."""
    os.environ.update(dict.fromkeys(THREADS, str(threads)))


def with_threads(threads: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``function(...)`` in a new process, in which fastrnn and NumPy's BLAS have `threads`."""
    limit_threads(threads)
    spawn = multiprocessing.get_context("spawn")
    on_interrupt = (signal.SIGINT, signal.SIG_DFL)  # the process just ends; it is for us to speak
    with ProcessPoolExecutor(1, spawn, signal.signal, on_interrupt) as process:
        return process.submit(function, *args, **kwargs).result()
