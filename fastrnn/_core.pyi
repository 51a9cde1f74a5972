from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS: dict[str, int]
ISAS: tuple[str, ...]
_Floats = NDArray[np.floating[Any]]

class Pack:
    def __init__(
        self,
        cell: str,
        w_ih: _Floats,
        w_hh: _Floats,
        b_ih: _Floats | None,
        b_hh: _Floats | None,
        backward: bool,
        numpy_gemm: bool,
    ) -> None: ...

class Tape: ...

def forward(
    pack: Pack,
    x: _Floats,
    lengths: NDArray[np.int64] | None,
    reverse: bool,
    h0: _Floats | None,
    c0: _Floats | None,
    y: _Floats | None,
    h_n: _Floats | None,
    c_n: _Floats | None,
    training: bool,
) -> Tape | None: ...
def backward(
    tape: Tape,
    dy: _Floats | None,
    dh_n: _Floats | None,
    dc_n: _Floats | None,
    dx: _Floats | None,
    dh0: _Floats | None,
    dc0: _Floats | None,
    dw_ih: _Floats | None,
    dw_hh: _Floats | None,
    db_ih: _Floats | None,
    db_hh: _Floats | None,
) -> None: ...
def matmul(a: _Floats, b: _Floats) -> _Floats: ...
def tanh(x: _Floats) -> _Floats: ...
def sigmoid(x: _Floats) -> _Floats: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def default_num_threads() -> int: ...
