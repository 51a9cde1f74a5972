"""One thread for fastrnn and for NumPy's BLAS, which read their numbers when they are loaded."""

import os
import subprocess
import sys

import pytest

if "numpy" in sys.modules:
    raise pytest.UsageError(
        "NumPy is loaded already, its threads are set: run `pytest bench` alone"
    )
# The names of the variables stand in a module that loads NumPy, so another process reads them.
_names = subprocess.check_output(
    [sys.executable, "-c", "from bench import measure; print(*measure.THREADS)"], text=True
)
os.environ.update(dict.fromkeys(_names.split(), "1"))
