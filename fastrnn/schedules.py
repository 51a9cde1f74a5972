"""Learning rates that depend on the steps done, with Keras's names and arguments.

A schedule is given in the place of a learning rate: ``Adam(CosineDecay(1e-3, 10_000))``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from fastrnn.checks import (
    check_flag,
    check_from_zero,
    check_list,
    check_number,
    check_positive,
    check_whole,
)
from fastrnn.described import Described, rebuild


class Schedule(Described):
    """Base of the schedules: called with the steps done, from 0, it gives the next step's rate.

    The rate is a finite number from 0 and depends on nothing else. Constructors raise ValueError
    or TypeError, naming the argument, for what makes no sense.
    """

    def __call__(self, step: int) -> float:
        """The learning rate of the step after `step` others."""
        raise NotImplementedError


class ExponentialDecay(Schedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    With `staircase` the exponent is rounded down: every `decay_steps` steps the rate falls at once.
    """

    _arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ) -> None:
        self.initial_learning_rate = check_from_zero(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = check_whole(decay_steps, "decay_steps", 1)
        self.decay_rate = check_positive(decay_rate, "decay_rate")
        self.staircase = check_flag(staircase, "staircase")

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        exponent = step // steps if self.staircase else step / steps
        try:
            return self.initial_learning_rate * self.decay_rate**exponent
        except OverflowError:  # of a rate that grows: the optimizer refuses it
            return math.inf


class PiecewiseConstantDecay(Schedule):
    """values[0] up to and at ``step == boundaries[0]``, then values[1] up to boundaries[1], and so
    on; after the last boundary the last value, of which there is one more than of boundaries."""

    _arguments = ("boundaries", "values")

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        self.boundaries = check_list(
            boundaries, "boundaries", lambda b, name: check_whole(b, name, 0)
        )
        self.values = check_list(values, "values", check_from_zero)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values: expected {len(self.boundaries) + 1} for {len(self.boundaries)} "
                f"boundaries, got {len(self.values)}"
            )
        if any(a >= b for a, b in pairwise(self.boundaries)):
            raise ValueError(f"boundaries: expected each above the last, got {boundaries!r}")

    def __call__(self, step: int) -> float:
        return self.values[bisect_left(self.boundaries, step)]


class CosineDecay(Schedule):
    """Half a cosine from `initial_learning_rate` to `alpha` times it in `decay_steps` steps, and on
    at that (Loshchilov and Hutter 2017, without restarts).

    With a `warmup_target` the rate first goes linearly, in `warmup_steps` steps, from
    `initial_learning_rate` to that target, and the cosine then starts there. Without one,
    `warmup_steps` means nothing.
    """

    _arguments = ("initial_learning_rate", "decay_steps", "alpha", "warmup_target", "warmup_steps")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = check_from_zero(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = check_whole(decay_steps, "decay_steps", 1)
        self.alpha = check_from_zero(alpha, "alpha")
        self.warmup_target = (
            None if warmup_target is None else check_from_zero(warmup_target, "warmup_target")
        )
        self.warmup_steps = check_whole(warmup_steps, "warmup_steps", 0)

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return (self.warmup_target - top) * (step / self.warmup_steps) + top
            top, step = self.warmup_target, step - self.warmup_steps
        done = min(step, self.decay_steps) / self.decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return top * ((1 - self.alpha) * cosine + self.alpha)


class LinearWarmup(Schedule):
    """`warmup_steps` steps at 1, 2, ... `warmup_steps` parts of the first rate of another schedule,
    which begins only then; or of a number, which stays.

    The first step takes 1 / `warmup_steps` of that rate, the last warm-up step all of it.
    """

    _arguments = ("schedule_or_rate", "warmup_steps")

    def __init__(self, schedule_or_rate: Schedule | float, warmup_steps: int) -> None:
        self.schedule_or_rate = check_rate(schedule_or_rate, "schedule_or_rate")
        self.warmup_steps = check_whole(warmup_steps, "warmup_steps", 0)

    def __call__(self, step: int) -> float:
        then, steps = self.schedule_or_rate, self.warmup_steps
        rate = then(max(step - steps, 0)) if isinstance(then, Schedule) else then
        return rate * ((step + 1) / steps) if step < steps else rate


_KINDS: dict[str, Callable[..., Schedule]] = {
    kind.__name__: kind
    for kind in (ExponentialDecay, PiecewiseConstantDecay, CosineDecay, LinearWarmup)
}


def from_config(description: Any) -> Schedule:
    """The schedule of a `description`; ValueError for an unknown kind or wrong arguments."""
    return rebuild(description, "schedule", _KINDS, from_config)


def check_rate(value: Any, name: str) -> float | Schedule:
    """`value`, a positive finite number or a schedule, or an error that names it."""
    if isinstance(value, Schedule):
        return value
    return check_number(
        value, name, "a positive finite number or a schedule", lambda x: 0 < x < math.inf
    )
