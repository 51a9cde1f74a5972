"""SGD, RMSprop and Adam with Keras's names, defaults and update rules, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

import numpy as np

from fastrnn import _core
from fastrnn.parameter import Array, Parameter, writing_all


class Clip(TypedDict, total=False):
    """The clipping arguments of every optimizer: one of them at most."""

    clipvalue: float | None
    clipnorm: float | None
    global_clipnorm: float | None


class Rule(NamedTuple):
    """One step's rule and its numbers, as `frnn_optimizer` in csrc/fastrnn.h has them."""

    kind: int
    learning_rate: float
    momentum: float = 0.0
    decay: float = 0.0
    epsilon: float = 0.0
    nesterov: bool = False


class Optimizer:
    """Base of the optimizers; a subclass names its state in `_slots` and its rule in `_rule`.

    Gradients are clipped, if at all, on their way into the rule; ``.grad`` stays as it is.
    `clipvalue` limits each value, `clipnorm` the norm of each parameter's gradient,
    `global_clipnorm` the norm of all gradients together. Raises ValueError or TypeError, naming
    the argument, for a hyperparameter that makes no sense.
    """

    _hyperparameters: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: float,
        *,
        clipvalue: float | None = None,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        clip = {"clipvalue": clipvalue, "clipnorm": clipnorm, "global_clipnorm": global_clipnorm}
        self._clip = {k: _positive(v, k) for k, v in clip.items() if v is not None}
        if len(self._clip) > 1:
            raise ValueError(f"{' and '.join(self._clip)}: expected one of them at most")
        self.iterations = 0
        self._slots: tuple[str, ...] = ()
        self._state: dict[str, dict[str, Array]] = {}  # by parameter, by slot

    @property
    def learning_rate(self) -> float:
        """The step size; may be set between steps, to a positive number."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = _positive(value, "learning_rate")

    def step(self, parameters: Mapping[str, Parameter]) -> None:
        """Update, in place, every parameter that has a gradient; state is kept by name.

        Raises ValueError, before anything is changed, if none has a gradient or if a name's shape
        or dtype is not that of the steps before.
        """
        grads = _gradients(parameters)
        if not grads:
            raise ValueError("parameters: expected a gradient, but none has one; call a pullback")
        states = {name: self._state_of(name, parameters[name]) for name in grads}
        scales = self._scales(grads)
        self.iterations += 1
        limit = self._clip.get("clipvalue", math.inf)
        with writing_all([parameters[name] for name in grads]) as written:
            data = dict(zip(grads, written, strict=True))
            for names in _by_dtype(grads):
                arrays = [
                    (
                        _flat(data[name]),
                        _flat(grads[name]),
                        scales[name],
                        _flat(states[name].get("momentum")),
                        _flat(states[name].get("velocity")),
                    )
                    for name in names
                ]
                _core.update(*self._rule(), limit, arrays)
        self._state.update(states)

    def _rule(self) -> Rule:
        """What this step does to every parameter."""
        raise NotImplementedError

    def _scales(self, grads: Mapping[str, Array]) -> dict[str, float]:
        """What clipping by a norm makes of each gradient: a factor."""
        if "clipnorm" in self._clip:
            limit = self._clip["clipnorm"]
            return {name: _scale(limit, _norm({name: grad})) for name, grad in grads.items()}
        if "global_clipnorm" in self._clip:
            return dict.fromkeys(grads, _scale(self._clip["global_clipnorm"], _norm(grads)))
        return dict.fromkeys(grads, 1.0)

    def _state_of(self, name: str, parameter: Parameter) -> dict[str, Array]:
        if name not in self._state:
            return {slot: np.zeros_like(parameter.data) for slot in self._slots}
        state = self._state[name]
        for slot, array in state.items():
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                raise ValueError(
                    f"{name}: expected {array.dtype} {array.shape} as the optimizer's {slot} is, "
                    f"got {parameter.dtype} {parameter.shape}"
                )
        return state

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        hyper = {name: getattr(self, name) for name in self._hyperparameters}
        return {"learning_rate": self.learning_rate, **hyper, **self._clip}

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that later steps depend on, as arrays.

        Keys are ``iterations``, ``learning_rate`` and, for each parameter, ``slot.name``, as in
        ``momentum.weight_ih_l0``.
        """
        state: dict[str, Any] = {
            "iterations": np.array(self.iterations, np.int64),
            "learning_rate": np.array(self.learning_rate, np.float64),
        }
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
        wanted = {"iterations", "learning_rate"}.union(*arrays.values())
        if wanted != state.keys():
            raise ValueError(
                f"state: missing {sorted(wanted - state.keys()) or 'nothing'}, "
                f"not expected {sorted(state.keys() - wanted) or 'nothing'}"
            )
        iterations = np.asarray(state["iterations"])
        if iterations.shape != () or iterations.dtype.kind not in "iu" or iterations < 0:
            raise ValueError(f"iterations: expected an integer from 0, got {iterations}")
        learning_rate = _positive(np.asarray(state["learning_rate"])[()], "learning_rate")
        found: dict[str, dict[str, Array]] = {}
        for name, keys in arrays.items():
            found[name] = {
                slot: np.array(state[key], order="C")
                for slot, key in zip(self._slots, keys, strict=True)
            }
            for key, array in zip(keys, found[name].values(), strict=True):
                if array.dtype not in (np.float32, np.float64):
                    raise TypeError(f"{key}: expected float32 or float64, got {array.dtype}")
        self.iterations, self._state = int(iterations), found
        self.learning_rate = learning_rate

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


class SGD(Optimizer):
    """w -= lr g; with momentum, m = momentum m - lr g and w += m, or the Nesterov form
    w += momentum m - lr g."""

    _hyperparameters = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **clip: Unpack[Clip],
    ) -> None:
        super().__init__(learning_rate, **clip)
        self.momentum = _fraction(momentum, "momentum")
        if not isinstance(nesterov, bool):
            raise TypeError(f"nesterov: expected True or False, got {nesterov!r}")
        self.nesterov = nesterov
        if self.momentum:
            self._slots = ("momentum",)

    def _rule(self) -> Rule:
        return Rule(_core.SGD, self.learning_rate, momentum=self.momentum, nesterov=self.nesterov)


class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g²; d = lr g / sqrt(v + epsilon); w -= d, or with momentum
    m = momentum m + d and w -= m (Tieleman and Hinton 2012, epsilon where Keras has it)."""

    _hyperparameters = ("rho", "momentum", "epsilon")

    def __init__(
        self,
        learning_rate: float = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        **clip: Unpack[Clip],
    ) -> None:
        super().__init__(learning_rate, **clip)
        self.rho = _fraction(rho, "rho")
        self.momentum = _fraction(momentum, "momentum")
        self.epsilon = _positive(epsilon, "epsilon")
        self._slots = ("velocity", "momentum") if self.momentum else ("velocity",)

    def _rule(self) -> Rule:
        return Rule(
            _core.RMSPROP,
            self.learning_rate,
            momentum=self.momentum,
            decay=self.rho,
            epsilon=self.epsilon,
        )


class Adam(Optimizer):
    """Kingma and Ba (2015), Algorithm 1 in the form at the end of its section 2, as Keras has it:
    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; w -= a m / (sqrt(v) + epsilon), with
    a = lr sqrt(1 - b2^t) / (1 - b1^t) at step t."""

    _hyperparameters = ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **clip: Unpack[Clip],
    ) -> None:
        super().__init__(learning_rate, **clip)
        self.beta_1 = _fraction(beta_1, "beta_1")
        self.beta_2 = _fraction(beta_2, "beta_2")
        self.epsilon = _positive(epsilon, "epsilon")
        self._slots = ("momentum", "velocity")

    def _rule(self) -> Rule:
        t = self.iterations
        alpha = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        return Rule(
            _core.ADAM, alpha, momentum=self.beta_1, decay=self.beta_2, epsilon=self.epsilon
        )


_OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam}


def get(optimizer: str | Optimizer) -> Optimizer:
    """A new optimizer of that name with its defaults, or the object itself.

    Raises ValueError for an unknown name and TypeError for another object.
    """
    if isinstance(optimizer, str):
        if optimizer.lower() not in _OPTIMIZERS:
            names = ", ".join(_OPTIMIZERS)
            raise ValueError(f"optimizer: expected one of {names}, got {optimizer!r}")
        return _OPTIMIZERS[optimizer.lower()]()
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected a name or an optimizer, got {optimizer!r}")
    return optimizer


def clip_by_global_norm(parameters: Mapping[str, Parameter], limit: float) -> float:
    """Scale all gradients, in place, so that their norm together is `limit` at most.

    Returns the norm before. If that is not finite nothing is scaled, for the caller to decide.
    """
    limit = _positive(limit, "limit")
    grads = _gradients(parameters)
    norm = _norm(grads)
    scale = _scale(limit, norm)
    if scale != 1.0:
        for grad in grads.values():
            np.multiply(grad, scale, out=grad)
    return norm


def clip_by_value(parameters: Mapping[str, Parameter], limit: float) -> None:
    """Limit every value of every gradient, in place, to [-limit, limit]."""
    limit = _positive(limit, "limit")
    for grad in _gradients(parameters).values():
        np.clip(grad, -limit, limit, out=grad)


def _gradients(parameters: Mapping[str, Parameter]) -> dict[str, Array]:
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    for name, grad in grads.items():
        want = parameters[name]
        if grad.shape != want.shape or grad.dtype != want.dtype:
            raise ValueError(
                f"{name}: expected a gradient of {want.dtype} {want.shape}, "
                f"got {grad.dtype} {grad.shape}"
            )
    return grads


def _by_dtype(grads: Mapping[str, Array]) -> list[list[str]]:
    """The names, those of one dtype together."""
    kinds: dict[np.dtype, list[str]] = {}
    for name, grad in grads.items():
        kinds.setdefault(grad.dtype, []).append(name)
    return list(kinds.values())


def _flat(array: Any) -> Any:
    """All values along one axis, copied where they do not stand in order; None stays None."""
    return None if array is None else array.reshape(-1)


def _norm(grads: Mapping[str, Array]) -> float:
    flat = ([_flat(grads[name]) for name in names] for names in _by_dtype(grads))
    return math.sqrt(sum(sum(_core.squares(arrays)) for arrays in flat))


def _scale(limit: float, norm: float) -> float:
    """The factor that brings `norm` down to `limit`; 1 where it is less, or not finite."""
    return limit / norm if limit < norm < math.inf else 1.0


def _number(value: Any, name: str, wanted: str, fits: Callable[[float], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def _positive(value: Any, name: str) -> float:
    return _number(value, name, "a positive finite number", lambda x: 0 < x < math.inf)


def _fraction(value: Any, name: str) -> float:
    return _number(value, name, "a number in [0, 1)", lambda x: 0 <= x < 1)
