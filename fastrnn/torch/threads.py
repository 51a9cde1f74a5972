"""PyTorch's threads for our kernels too: beside them a second set would wait for the same CPUs."""

from ctypes import CDLL, c_void_p, cast

import torch

from fastrnn import _core

_FUNCTIONS = "GOMP_parallel", "omp_get_max_threads", "omp_get_num_threads", "omp_get_thread_num"


def share() -> None:
    """Does nothing where PyTorch has no threads of OpenMP."""
    library = CDLL(torch._C.__file__)
    if all(hasattr(library, name) for name in _FUNCTIONS):
        _core.set_team(*[cast(getattr(library, name), c_void_p).value or 0 for name in _FUNCTIONS])
