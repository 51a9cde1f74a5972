"""What every layer has: named parameters, a state dict, gradients to forget, a configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.checks import is_bfloat16
from fastrnn.parameter import Array, Parameter

Pullback = Callable[[Array], Array | None]


class Layer:
    """Base of the layers.

    A layer is pure in its inputs: calling it returns the output and keeps nothing. Calling is
    inference; `vjp` is the same computation for training (dropout is active there) and returns
    ``(output, pullback)``, where ``pullback(doutput)`` adds to the parameters' gradients and
    returns the gradient of the input (None where the input is integers). Layers with
    ``recurrent = True`` take and return a state as well; see `fastrnn.layers.recurrent`.
    """

    recurrent: ClassVar[bool] = False
    takes_bfloat16: ClassVar[bool] = False

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter] = {}

    def __call__(self, x: Array) -> Any:
        raise NotImplementedError

    def vjp(self, x: Array) -> Any:
        raise NotImplementedError

    def output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the output for an input of `input_shape`; None marks an unknown size."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, for JSON; ``type(layer)(**config)`` makes a layer alike."""
        raise NotImplementedError

    def parameters(self) -> dict[str, Parameter]:
        """The trainable parameters by name."""
        return dict(self._parameters)

    def to(self, dtype: DTypeLike) -> Self:
        """A copy of the layer with weights of "float32", "float64" or, for inference, "bfloat16".

        bfloat16 is for what recurrent layers multiply, half the bytes; the rest of it is float32:
        other weights, inputs and outputs, and all sums. Raises TypeError or ValueError for another.
        """
        config = self.config()
        if "dtype" in config:
            config["dtype"] = dtype if self.takes_bfloat16 or not is_bfloat16(dtype) else "float32"
        layer = type(self)(**config)
        layer.load_state_dict(self.state_dict())
        return layer

    def random_state(self) -> Any:
        """What the masks of later training calls depend on, as JSON can hold it; None: nothing."""
        return None

    def set_random_state(self, state: Any) -> None:
        """Draw from here on what a layer with this `random_state` would draw."""

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters.values():
            parameter.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters' values by name."""
        return {name: p.data.copy() for name, p in self._parameters.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the values of `state`: all names must match, or nothing is changed.

        Values may be arrays or anything `numpy.asarray` takes, PyTorch's CPU tensors included.
        Raises ValueError for missing or surplus names and for other shapes.
        """
        load_parameters(self._parameters, state)


class CallCounter:
    """Numbers calls from `value` on: each another, of several threads too."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            self.value += 1
            return self.value - 1


def load_parameters(parameters: Mapping[str, Parameter], state: Mapping[str, Any]) -> None:
    """Assign `state` to `parameters`, all or nothing."""
    missing = [name for name in parameters if name not in state]
    surplus = [name for name in state if name not in parameters]
    if missing or surplus:
        raise ValueError(
            f"state_dict: missing {missing or 'nothing'}, not expected {surplus or 'nothing'}"
        )
    values = {name: np.asarray(state[name]) for name in parameters}
    for name, value in values.items():
        if value.shape != parameters[name].shape:
            raise ValueError(f"{name}: expected shape {parameters[name].shape}, got {value.shape}")
        if value.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, got an array of {value.dtype}")
    for name, value in values.items():
        parameters[name].assign(value, name)


def single_use(
    pullback: Callable[[Array], Any], shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[Array], Any]:
    """`pullback` with its argument checked, to be called once: that lets go of what it keeps.

    Raises ValueError or TypeError for a dy of another shape or dtype, without counting that as
    the call, and RuntimeError at a second call.
    """
    held = [pullback]

    def checked(dy: Array) -> Any:
        array = np.asarray(dy)
        if array.shape != shape:
            raise ValueError(f"dy: expected shape {shape}, got {array.shape}")
        if array.dtype != dtype:
            raise TypeError(
                f"dy: expected {dtype}, got {array.dtype}; convert with dy.astype({dtype.name!r})"
            )
        try:
            once = held.pop()  # atomic: of several threads one gets it
        except IndexError:
            raise RuntimeError("pullback: called a second time; call vjp again") from None
        return once(array)

    return checked
