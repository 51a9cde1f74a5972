"""Fixtures shared by the tests: every instruction set of the machine, both dtypes."""

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import fastrnn as fr
from fastrnn import _core, config

# The same examples in every run.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

# Tests send themselves Ctrl-C, which a shell's background jobs ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)

# avx512_bf16 differs from avx512 in nothing but products of bfloat16: see test_bfloat16.py.
PLAIN_ISAS = [name for name in _core.isas() if name != "avx512_bf16"]


@pytest.fixture(params=PLAIN_ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test once for each instruction set that this machine has."""
    with config.using(isa=request.param):
        yield request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = fr.get_num_threads()
    yield
    fr.set_num_threads(before)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imported no earlier than a test wants it: it brings half of matplotlib."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")
