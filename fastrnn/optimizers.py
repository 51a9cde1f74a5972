"""Optimizers with Keras's names, defaults and update rules, weight decay and gradient clipping."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

import numpy as np

from fastrnn import _core, schedules
from fastrnn.checks import (
    check_flag,
    check_from_zero,
    check_list,
    check_positive,
    check_probability,
)
from fastrnn.clipping import by_dtype, flat, gradients, norm_of, scale_to
from fastrnn.described import Described, rebuild
from fastrnn.parameter import Array, Parameter, writing_all
from fastrnn.schedules import Schedule


class Clip(TypedDict, total=False):
    """The clipping arguments of every optimizer: one of them at most."""

    clipvalue: float | None
    clipnorm: float | None
    global_clipnorm: float | None


class Options(Clip, total=False):
    """The keywords of every optimizer."""

    weight_decay: float | None


class Rule(NamedTuple):
    """One step's rule and its numbers, as `frnn_optimizer` in csrc/fastrnn.h has them."""

    kind: int
    learning_rate: float
    momentum: float = 0.0
    decay: float = 0.0
    epsilon: float = 0.0
    nesterov: bool = False


class Optimizer(Described):
    """Base of the optimizers; a subclass names its state in `_slots` and its rule in `_rule`.

    `learning_rate` is a number or a schedule of `fastrnn.schedules`. With `weight_decay`, weights
    are scaled by 1 - weight_decay * learning_rate before every step, whatever their gradients
    (Loshchilov and Hutter 2019), but for those that `exclude_from_weight_decay` names.

    Gradients are clipped, if at all, on their way into the rule; ``.grad`` stays as it is.
    `clipvalue` limits each value, `clipnorm` the norm of each parameter's gradient,
    `global_clipnorm` the norm of all gradients together. Raises ValueError or TypeError, naming
    the argument, for a hyperparameter that makes no sense.
    """

    _squares: ClassVar[str] = "velocity"  # what the state of squared gradients is called
    _start = 0.0  # what state starts from

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: float | None = None,
        clipvalue: float | None = None,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        self._learning_rate = schedules.check_rate(learning_rate, "learning_rate")
        self.weight_decay = (
            None if weight_decay is None else check_from_zero(weight_decay, "weight_decay")
        )
        self._not_decayed: tuple[str, ...] = ()
        self._excluded: dict[str, bool] = {}  # by parameter, as far as has been asked
        clip = {"clipvalue": clipvalue, "clipnorm": clipnorm, "global_clipnorm": global_clipnorm}
        self._clip = {k: check_positive(v, k) for k, v in clip.items() if v is not None}
        if len(self._clip) > 1:
            raise ValueError(f"{' and '.join(self._clip)}: expected one of them at most")
        self.iterations = 0
        self._slots: tuple[str, ...] = ()
        self._state: dict[str, dict[str, Array]] = {}  # by parameter, by slot

    @property
    def learning_rate(self) -> float:
        """The next step's; may be set between steps, to a positive number or a schedule.

        Setting a number where there is a schedule is a TypeError.
        """
        if isinstance(self._learning_rate, Schedule):
            return check_from_zero(self._learning_rate(self.iterations), "learning_rate")
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        if isinstance(self._learning_rate, Schedule) and not isinstance(value, Schedule):
            raise TypeError(
                f"learning_rate: the schedule {self._learning_rate!r} gives it, so it cannot be "
                "set; an optimizer made with a number can have it set"
            )
        self._learning_rate = schedules.check_rate(value, "learning_rate")

    def exclude_from_weight_decay(self, *, var_names: Sequence[str]) -> None:
        """Exclude the parameters in whose name any of these regular expressions is found.

        ``var_names=["bias"]`` excludes all biases. A call forgets the names of the one before.
        Raises TypeError for anything but a list of strings, ValueError for a wrong expression.
        """
        self._not_decayed = check_list(var_names, "var_names", _expression)
        self._excluded = {}

    def _excludes(self, name: str) -> bool:
        if name not in self._excluded:
            self._excluded[name] = any(re.search(found, name) for found in self._not_decayed)
        return self._excluded[name]

    def step(self, parameters: Mapping[str, Parameter]) -> None:
        """Update, in place, every parameter that has a gradient; state is kept by name.

        Raises ValueError, before anything is changed, if none has a gradient, if a name's shape or
        dtype is not that of the steps before, or if a schedule gives no finite number from 0.
        """
        grads = gradients(parameters)
        if not grads:
            raise ValueError("parameters: expected a gradient, but none has one; call a pullback")
        states = {name: self._state_of(name, grad) for name, grad in grads.items()}
        scales, rate = self._scales(grads), self.learning_rate
        rule, decay = self._rule(rate), (self.weight_decay or 0.0) * rate
        self.iterations += 1
        limit = self._clip.get("clipvalue", math.inf)
        with writing_all([parameters[name] for name in grads]) as written:
            data = dict(zip(grads, written, strict=True))
            for names in by_dtype(grads):
                arrays = [
                    (
                        flat(data[name]),
                        flat(grads[name]),
                        scales[name],
                        0.0 if not decay or self._excludes(name) else decay,
                        flat(states[name].get("momentum")),
                        flat(states[name].get(self._squares)),
                    )
                    for name in names
                ]
                _core.update(*rule, limit, arrays)
        self._state.update(states)

    def _rule(self, rate: float) -> Rule:
        """What the next step does to every parameter."""
        raise NotImplementedError

    def _scales(self, grads: Mapping[str, Array]) -> dict[str, float]:
        """What clipping by a norm makes of each gradient: a factor."""
        if "clipnorm" in self._clip:
            limit = self._clip["clipnorm"]
            return {name: scale_to(limit, norm_of({name: grad})) for name, grad in grads.items()}
        if "global_clipnorm" in self._clip:
            return dict.fromkeys(grads, scale_to(self._clip["global_clipnorm"], norm_of(grads)))
        return dict.fromkeys(grads, 1.0)

    def _state_of(self, name: str, grad: Array) -> dict[str, Array]:
        """The state of a parameter, which has its gradient's shape and dtype."""
        if name not in self._state:
            return {slot: np.full(grad.shape, self._start, grad.dtype) for slot in self._slots}
        state = self._state[name]
        for slot, array in state.items():
            if array.shape != grad.shape or array.dtype != grad.dtype:
                raise ValueError(
                    f"{name}: expected {array.dtype} {array.shape} as the optimizer's {slot} is, "
                    f"got {grad.dtype} {grad.shape}"
                )
        return state

    def _values(self) -> dict[str, Any]:
        values = {"learning_rate": self._learning_rate, **super()._values()}
        if self.weight_decay is not None:
            values["weight_decay"] = self.weight_decay
        if self._not_decayed:  # of no constructor: see from_config
            values["exclude_from_weight_decay"] = self._not_decayed
        return values | self._clip

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that later steps depend on, as arrays.

        Keys are ``iterations``, ``learning_rate`` unless that follows a schedule and, for each
        parameter, ``slot.name``, as in ``momentum.weight_ih_l0``.
        """
        state: dict[str, Any] = {"iterations": np.array(self.iterations, np.int64)}
        if not isinstance(self._learning_rate, Schedule):
            state["learning_rate"] = np.array(self._learning_rate, np.float64)
        for name, arrays in self._state.items():
            state |= {f"{slot}.{name}": array.copy() for slot, array in arrays.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the optimizer that gave `state` stood; all or nothing.

        Raises ValueError for missing or surplus keys and values out of range, TypeError for
        arrays that are neither float32 nor float64.
        """
        names = sorted({key.partition(".")[2] for key in state if "." in key})
        arrays = {name: [f"{slot}.{name}" for slot in self._slots] for name in names}
        scheduled = isinstance(self._learning_rate, Schedule)
        scalars = {"iterations"} if scheduled else {"iterations", "learning_rate"}
        wanted = scalars.union(*arrays.values())
        if wanted != state.keys():
            raise ValueError(
                f"state: missing {sorted(wanted - state.keys()) or 'nothing'}, "
                f"not expected {sorted(state.keys() - wanted) or 'nothing'}"
            )
        iterations = np.asarray(state["iterations"])
        if iterations.shape != () or iterations.dtype.kind not in "iu" or iterations < 0:
            raise ValueError(f"iterations: expected an integer from 0, got {iterations}")
        rate = self._learning_rate
        if not scheduled:
            rate = check_positive(np.asarray(state["learning_rate"])[()], "learning_rate")
        found: dict[str, dict[str, Array]] = {}
        for name, keys in arrays.items():
            found[name] = {
                slot: np.array(state[key], order="C")
                for slot, key in zip(self._slots, keys, strict=True)
            }
            for key, array in zip(keys, found[name].values(), strict=True):
                if array.dtype not in (np.float32, np.float64):
                    raise TypeError(f"{key}: expected float32 or float64, got {array.dtype}")
        self.iterations, self._state, self._learning_rate = int(iterations), found, rate


class SGD(Optimizer):
    """w -= lr g; with momentum, m = momentum m - lr g and w += m, or the Nesterov form
    w += momentum m - lr g."""

    _arguments = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = check_probability(momentum, "momentum")
        self.nesterov = check_flag(nesterov, "nesterov")
        if self.momentum:
            self._slots = ("momentum",)

    def _rule(self, rate: float) -> Rule:
        return Rule(_core.SGD, rate, momentum=self.momentum, nesterov=self.nesterov)


class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g²; d = lr g / sqrt(v + epsilon); w -= d, or with momentum
    m = momentum m + d and w -= m (Tieleman and Hinton 2012, epsilon where Keras has it)."""

    _arguments = ("rho", "momentum", "epsilon")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = check_probability(rho, "rho")
        self.momentum = check_probability(momentum, "momentum")
        self.epsilon = check_positive(epsilon, "epsilon")
        self._slots = ("velocity", "momentum") if self.momentum else ("velocity",)

    def _rule(self, rate: float) -> Rule:
        return Rule(
            _core.RMSPROP, rate, momentum=self.momentum, decay=self.rho, epsilon=self.epsilon
        )


class Adam(Optimizer):
    """Kingma and Ba (2015), Algorithm 1 in the form at the end of its section 2, as Keras has it:
    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; w -= a m / (sqrt(v) + epsilon), with
    a = lr sqrt(1 - b2^t) / (1 - b1^t) at step t."""

    _arguments = ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = check_probability(beta_1, "beta_1")
        self.beta_2 = check_probability(beta_2, "beta_2")
        self.epsilon = check_positive(epsilon, "epsilon")
        self._slots = ("momentum", "velocity")

    def _rule(self, rate: float) -> Rule:
        t = self.iterations + 1
        alpha = rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        return Rule(
            _core.ADAM, alpha, momentum=self.beta_1, decay=self.beta_2, epsilon=self.epsilon
        )


class AdamW(Adam):
    """Adam with a weight decay to begin with (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **clip: Unpack[Clip],
    ) -> None:
        decay = check_from_zero(weight_decay, "weight_decay")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay=decay, **clip)


class Adagrad(Optimizer):
    """a = a + g², from initial_accumulator_value on; w -= lr g / sqrt(a + epsilon)
    (Duchi, Hazan and Singer 2011, epsilon where Keras has it)."""

    _arguments = ("initial_accumulator_value", "epsilon")
    _squares = "accumulator"

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = check_from_zero(
            initial_accumulator_value, "initial_accumulator_value"
        )
        self.epsilon = check_positive(epsilon, "epsilon")
        self._slots = ("accumulator",)
        self._start = self.initial_accumulator_value

    def _rule(self, rate: float) -> Rule:
        return Rule(_core.ADAGRAD, rate, epsilon=self.epsilon)


_KINDS: dict[str, Callable[..., Optimizer]] = {
    kind.__name__: kind for kind in (SGD, RMSprop, Adam, AdamW, Adagrad)
}
_NAMES = {name.lower(): kind for name, kind in _KINDS.items()}


def get(optimizer: str | Optimizer) -> Optimizer:
    """A new optimizer of that name with its defaults, or the object itself.

    Raises ValueError for an unknown name and TypeError for another object.
    """
    if isinstance(optimizer, str):
        if optimizer.lower() not in _NAMES:
            raise ValueError(f"optimizer: expected one of {', '.join(_NAMES)}, got {optimizer!r}")
        return _NAMES[optimizer.lower()]()
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected a name or an optimizer, got {optimizer!r}")
    return optimizer


def from_config(description: Any) -> Optimizer:
    """A new optimizer from the `description` of one, as in {"kind": "Adam", "config": {...}}.

    Arguments that its config does not name have their defaults; what it excludes from weight decay
    it names too. Raises ValueError for unknown kinds, unknown arguments and wrong values.
    """
    kinds = {name: partial(_excluding, kind) for name, kind in _KINDS.items()}
    return rebuild(description, "optimizer", kinds, schedules.from_config)


def _excluding(
    kind: Callable[..., Optimizer],
    *,
    exclude_from_weight_decay: Sequence[str] = (),
    **arguments: Any,
) -> Optimizer:
    optimizer = kind(**arguments)
    optimizer.exclude_from_weight_decay(var_names=exclude_from_weight_decay)
    return optimizer


def _expression(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a regular expression, got {value!r}")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{name}: no regular expression: {value!r}, {error}") from None
    return value
