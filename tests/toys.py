"""A model that is one number: the training loop asks for vjp, run and parameters, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.parameter import Parameter


class Linear:
    """y = w x, elementwise; keeps the gradients of y that its pullbacks were given."""

    def __init__(self, w: float) -> None:
        self.w = Parameter(w, "float64")
        self.dys: list[NDArray[Any]] = []

    def run(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        return self.w.data * x, None

    def vjp(
        self, x: Any, state: Any = None, lengths: Any = None
    ) -> tuple[tuple[Any, Any], Callable[[Any], Any]]:
        def pullback(dy: Any) -> Any:
            self.dys.append(dy)
            self.w.add_grad(np.sum(dy * x))
            return self.w.data * dy

        return self.run(x), pullback

    def parameters(self) -> dict[str, Parameter]:
        return {"w": self.w}

    def zero_grad(self) -> None:
        self.w.zero_grad()
