"""One thread for fastrnn and for NumPy's BLAS, which read their numbers when they are loaded."""

import sys

import pytest

from bench.measure import limit_threads

if "numpy" in sys.modules:
    raise pytest.UsageError(
        "NumPy is loaded already, its threads are set: run `pytest bench` alone"
    )
limit_threads(1)
