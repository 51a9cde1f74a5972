from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS: dict[str, int]
ISAS: tuple[str, ...]
GEMMS: tuple[str, ...]
_Floats = NDArray[np.floating[Any]]

WEIGHTS: tuple[str, ...]

class TensorExchange:
    def __init__(self, kind: type) -> None: ...
    def addresses(self, tensors: Sequence[Any]) -> list[int]: ...
    def arrays(self, tensors: Sequence[Any], contiguous: bool) -> list[Any]: ...
    def tensors(self, arrays: Sequence[Any]) -> list[Any]: ...

class Layer:
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        double: bool,
        *,
        proj_size: int = 0,
        gate_activation: str | None = None,
        state_activation: str | None = None,
        clip: float | None = None,
        peephole: bool = False,
        layer_norm: bool = False,
        zoneout_h: float = 0,
        zoneout_c: float = 0,
        recurrent_dropout: float = 0,
    ) -> None: ...
    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    def worth_borrowing(self, batch: int, time: int) -> int: ...

class Pack:
    def __init__(
        self,
        layer: Layer,
        weights: tuple[_Floats | None, ...],
        backward: bool,
        numpy_gemm: bool,
        borrowed: int = 0,
        bfloat16: bool = False,
    ) -> None: ...

class Trainable:
    version: int
    grad: _Floats | None
    _lent: Any
    def _put_grad(self, grad: _Floats) -> bool: ...

class Recurrence:
    def __init__(
        self,
        layers: list[Layer],
        weights: list[Any],
        has_c: bool,
        bfloat16: bool,
        python: object,
    ) -> None: ...
    def packs(self, layer: int, training: bool) -> tuple[Pack, ...]: ...
    def forward(
        self,
        owner: Any,
        x: object,
        state: object,
        lengths: object,
        training: bool,
        checkpoint_every: int,
        ids: NDArray[np.int64] | None = None,
    ) -> tuple[tuple[Any, Any], Any]: ...
    def step(self, owner: Any, x: object, state: object, out: object) -> tuple[Any, Any]: ...

class Pullback:
    mask: Any
    def check_output(self, doutput: object) -> Any: ...
    def __call__(
        self,
        doutput: object,
        dstate: object = None,
        *,
        with_dx: bool = True,
        with_dstate: bool = True,
    ) -> tuple[Any, Any]: ...

class Tape:
    @property
    def nbytes(self) -> int: ...
    def sequence_shape(self) -> tuple[int, ...]: ...

def forward(
    packs: tuple[Pack, ...],
    first: int,
    layers: int,
    x: _Floats,
    lengths: NDArray[np.int64] | None,
    reverse: bool,
    batch_first: bool,
    h_0: _Floats | None,
    c_0: _Floats | None,
    y: _Floats | None,
    h_n: _Floats | None,
    c_n: _Floats | None,
    training: bool,
    seed: int = 0,
    checkpoint_every: int = 0,
    ids: NDArray[np.int64] | None = None,
) -> Tape | None: ...
def backward(
    tape: Tape,
    first: int,
    layers: int,
    dy: _Floats | None,
    dh_n: _Floats | None,
    dc_n: _Floats | None,
    with_dx: bool,
    dh_0: _Floats | None,
    dc_0: _Floats | None,
    wanted: tuple[tuple[object, ...], ...],
    flow: tuple[NDArray[np.float64], ...] | None = None,
) -> tuple[tuple[Any, ...], list[tuple[Any, Any]]]: ...
def empty(shape: tuple[int, ...], double: bool) -> _Floats: ...
def walkable(array: object, ndim: int, features: int, double: bool) -> bool: ...
def matmul(a: _Floats, b: _Floats) -> _Floats: ...
def tanh(x: _Floats) -> _Floats: ...
def sigmoid(x: _Floats) -> _Floats: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def set_gemm(name: str | None) -> None: ...
def chosen_gemm() -> str | None: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def set_team(parallel: int, max_threads: int, num_threads: int, thread_num: int) -> None: ...
def default_num_threads() -> int: ...

SGD: int
RMSPROP: int
ADAM: int
ADAGRAD: int

def ids(array: NDArray[np.integer[Any]], limit: int) -> NDArray[np.int64] | None: ...
def softmax(x: _Floats) -> None: ...
def cross_entropy(
    logits: _Floats,
    targets: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    gradient: _Floats | None,
) -> float: ...
def ctc(
    logits: _Floats,
    labels: NDArray[np.int64],
    input_lengths: NDArray[np.int64],
    label_lengths: NDArray[np.int64],
    blank: int,
    weights: NDArray[np.float64],
    gradient: _Floats | None,
) -> NDArray[np.float64]: ...
def add_row(x: _Floats, row: _Floats) -> None: ...
def sum_rows(x: _Floats) -> _Floats: ...
def add_rows_at(x: _Floats, at: NDArray[np.int64], y: _Floats) -> None: ...
def update(
    rule: int,
    learning_rate: float,
    momentum: float,
    decay: float,
    epsilon: float,
    nesterov: bool,
    clip: float,
    parameters: list[tuple[_Floats, _Floats, float, float, _Floats | None, _Floats | None]],
) -> None: ...
def squares(gradients: list[_Floats]) -> list[float]: ...
