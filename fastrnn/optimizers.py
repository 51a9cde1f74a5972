"""SGD, RMSprop and Adam with Keras's names, defaults and update rules, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np

from fastrnn.parameter import Array, Parameter

# Parameters are updated in blocks of this many values, so that the scratch is small and a block
# and its state stay in cache through all passes of a rule.
BLOCK = 32768

# From a block of gradient, and memory for a clipped one, to the block that is to be used.
ClipBlock = Callable[[Array, Array], Array]


class Clip(TypedDict, total=False):
    """The clipping arguments of every optimizer: one of them at most."""

    clipvalue: float | None
    clipnorm: float | None
    global_clipnorm: float | None


class Optimizer:
    """Base of the optimizers; a subclass names its state in `_slots` and its rule in `_update`.

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
        self._state: dict[str, tuple[Array, ...]] = {}
        self._scratch: dict[np.dtype, Array] = {}

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
        clip = self._clipping(grads)
        self.iterations += 1
        for name, grad in grads.items():
            if "clipnorm" in self._clip:
                clip = _scaling(self._clip["clipnorm"], _norm({name: grad}))
            with parameters[name].writing() as data:
                self._update_blocks(data.reshape(-1), grad.reshape(-1), states[name], clip)
        self._state.update(states)

    def _update_blocks(
        self, data: Array, grad: Array, state: tuple[Array, ...], clip: ClipBlock
    ) -> None:
        if data.dtype not in self._scratch:
            self._scratch[data.dtype] = np.empty((2, BLOCK), data.dtype)
        scratch, clipped = self._scratch[data.dtype]
        for start in range(0, data.size, BLOCK):
            part = slice(start, start + BLOCK)
            block = data[part]
            g = clip(grad[part], clipped[: block.size])
            self._update(block, g, scratch[: block.size], *(s.reshape(-1)[part] for s in state))

    def _update(self, w: Array, g: Array, scratch: Array, *state: Array) -> None:
        """Overwrite `w` and `state`, given the gradient `g`, which must not be written."""
        raise NotImplementedError

    def _clipping(self, grads: Mapping[str, Array]) -> ClipBlock:
        if "clipvalue" in self._clip:
            limit = self._clip["clipvalue"]
            return lambda g, out: np.clip(g, -limit, limit, out=out)
        if "global_clipnorm" in self._clip:
            return _scaling(self._clip["global_clipnorm"], _norm(grads))
        return lambda g, out: g

    def _state_of(self, name: str, parameter: Parameter) -> tuple[Array, ...]:
        if name not in self._state:
            return tuple(np.zeros_like(parameter.data) for _ in self._slots)
        state = self._state[name]
        for slot, array in zip(self._slots, state, strict=True):
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
            state |= {
                f"{slot}.{name}": a.copy() for slot, a in zip(self._slots, arrays, strict=True)
            }
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
        found = {}
        for name, keys in arrays.items():
            found[name] = tuple(np.array(state[key], order="C") for key in keys)
            for key, array in zip(keys, found[name], strict=True):
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

    def _update(self, w: Array, g: Array, scratch: Array, *state: Array) -> None:
        s = np.multiply(g, self.learning_rate, out=scratch)
        if not state:
            w -= s
            return
        (m,) = state
        m *= self.momentum
        m -= s
        if self.nesterov:
            w -= s
            w += np.multiply(m, self.momentum, out=s)
        else:
            w += m


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

    def _update(self, w: Array, g: Array, scratch: Array, *state: Array) -> None:
        v = state[0]
        _average_square(v, g, self.rho, scratch)
        s = np.add(v, self.epsilon, out=scratch)
        np.sqrt(s, out=s)
        np.divide(g, s, out=s)
        s *= self.learning_rate
        for m in state[1:]:
            m *= self.momentum
            m += s
            s = m
        w -= s


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

    def _update(self, w: Array, g: Array, scratch: Array, *state: Array) -> None:
        m, v = state
        t = self.iterations
        alpha = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        m *= self.beta_1
        m += np.multiply(g, 1 - self.beta_1, out=scratch)
        _average_square(v, g, self.beta_2, scratch)
        s = np.sqrt(v, out=scratch)
        s += self.epsilon
        np.divide(m, s, out=s)
        s *= alpha
        w -= s


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
    scale = _scaling(limit, norm)
    for grad in grads.values():
        scale(grad, grad)
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


def _norm(grads: Mapping[str, Array]) -> float:
    flat = (grad.reshape(-1) for grad in grads.values())
    return math.sqrt(sum(float(np.einsum("i,i->", g, g, dtype=np.float64)) for g in flat))


def _scaling(limit: float, norm: float) -> ClipBlock:
    if not limit < norm < math.inf:
        return lambda g, out: g
    scale = limit / norm
    return lambda g, out: np.multiply(g, scale, out=out)


def _average_square(v: Array, g: Array, decay: float, scratch: Array) -> None:
    v *= decay
    s = np.multiply(g, g, out=scratch)
    s *= 1 - decay
    v += s


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
