"""How fastrnn runs here: threads, instruction set, and who does the products over all steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fastrnn import _core

GEMMS = _core.GEMMS


def default_gemm(isa: str) -> str:
    """Who does X W, dX, dW and dR: our packed kernels or NumPy's BLAS.

    Measured by ``python -m bench.providers``: our vector kernels win wherever they exist; without
    them, or where NumPy has Accelerate and its matrix unit, NumPy's BLAS does.
    """
    if isa == "generic" or sys.platform == "darwin":
        return "numpy"
    return "native"


def _from_environment() -> str | None:
    for name, known in (("FASTRNN_GEMM", GEMMS), ("FASTRNN_ISA", _core.ISAS)):
        value = os.environ.get(name)
        if value is not None and value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    threads = os.environ.get("FASTRNN_NUM_THREADS")
    if threads is not None and not (threads.isdecimal() and 1 <= int(threads) <= 255):
        raise ValueError(f"FASTRNN_NUM_THREADS: expected an integer from 1 to 255, got {threads!r}")
    return os.environ.get("FASTRNN_GEMM")


_core.set_gemm(_from_environment())


def gemm() -> str:
    """The provider of products over all steps in use: "native" or "numpy"."""
    return _core.chosen_gemm() or default_gemm(_core.isa())


@contextmanager
def using(isa: str | None = None, gemm: str | None = None) -> Iterator[None]:
    """Run with another instruction set or provider (for tests and benchmarks; process-wide).

    Raises ValueError for an `isa` that this CPU lacks (see ``_core.isas()``) or an unknown `gemm`.
    """
    if gemm is not None and gemm not in GEMMS:
        raise ValueError(f"gemm: expected one of {', '.join(GEMMS)}, got {gemm!r}")
    before = _core.isa(), _core.chosen_gemm()
    try:
        if isa is not None:
            _core.set_isa(isa)
        if gemm is not None:
            _core.set_gemm(gemm)
        yield
    finally:
        _core.set_isa(before[0])
        _core.set_gemm(before[1])


def set_num_threads(threads: int) -> None:
    """Use up to this many threads (1 to 255). Results of native products do not depend on it."""
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise TypeError(f"threads: expected an integer from 1 to 255, got {threads!r}")
    if not 1 <= threads <= 255:
        raise ValueError(f"threads: expected an integer from 1 to 255, got {threads!r}")
    _core.set_num_threads(int(threads))


def get_num_threads() -> int:
    """The most threads that a call uses; FASTRNN_NUM_THREADS or this process's CPUs at first."""
    return _core.num_threads()


def config() -> dict[str, str]:
    """What `show_config` prints, as a dictionary."""
    import platform

    from fastrnn import __version__

    return {
        "fastrnn": __version__,
        "instruction set": f"{_core.isa()} (of {', '.join(_core.isas())})",
        "products over all steps": "our packed kernels" if gemm() == "native" else "NumPy's BLAS",
        "threads": str(get_num_threads()),
        "numpy": np.__version__,
        "python": f"{platform.python_version()} on {platform.machine()} {platform.system()}",
    }


def show_config() -> None:
    """Print how fastrnn runs here."""
    entries = config()
    width = max(map(len, entries))
    for name, value in entries.items():
        print(f"{name:<{width}}  {value}")
