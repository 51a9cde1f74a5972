"""Threads, fork, the environment, and what a fresh interpreter sees."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import _core


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.usefixtures("restore_threads")
def test_thread_counts() -> None:
    fr.set_num_threads(3)
    assert fr.get_num_threads() == 3
    for wrong in (0, -1, 256, 1.5, True):
        error = TypeError if isinstance(wrong, float | bool) else ValueError
        with pytest.raises(error, match="threads: expected an integer from 1 to 255"):
            fr.set_num_threads(wrong)  # type: ignore[arg-type]
    assert fr.get_num_threads() == 3


def test_the_default_is_this_processs_cpus() -> None:
    run = python("import fastrnn; print(fastrnn.get_num_threads())")
    assert 1 <= int(run.stdout) <= len(os.sched_getaffinity(0))
    run = python(
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "import fastrnn; print(fastrnn.get_num_threads())"
    )
    assert run.stdout == "1\n"


def test_environment() -> None:
    show = "import fastrnn; fastrnn.show_config()"
    run = python(show, FASTRNN_NUM_THREADS="7", FASTRNN_ISA="generic", FASTRNN_GEMM="native")
    assert "threads                  7" in run.stdout
    assert "generic (of" in run.stdout and "our packed kernels" in run.stdout
    assert "NumPy's BLAS" in python(show, FASTRNN_ISA="generic").stdout
    for name, value in (
        ("FASTRNN_NUM_THREADS", "many"),
        ("FASTRNN_NUM_THREADS", "0"),
        ("FASTRNN_ISA", "mmx"),
        ("FASTRNN_GEMM", "cublas"),
    ):
        run = python(show, **{name: value})
        assert run.returncode == 1
        assert run.stderr.splitlines()[-1].startswith(f"ValueError: {name}: expected"), run.stderr


@pytest.mark.parametrize("isa", _core.isas())
def test_the_isa_cap_is_kept(isa: str) -> None:
    run = python("from fastrnn import _core; print(_core.isa())", FASTRNN_ISA=isa)
    assert run.stdout == isa + "\n"


def test_unknown_isa() -> None:
    with pytest.raises(ValueError, match="name: expected one of"):
        _core.set_isa("mmx")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("restore_threads")
def test_calls_work_in_a_forked_child() -> None:
    fr.set_num_threads(2)
    layer = fr.LSTM(32, 64, seed=1)
    x = np.random.default_rng(0).standard_normal((40, 20, 32)).astype(np.float32)
    (y, _), _ = layer.vjp(x)  # the pool is running now
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                (y_, _), pullback = layer.vjp(x)
                pullback(y_)
                code = 0 if y_.tobytes() == y.tobytes() else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    assert layer(x)[0].tobytes() == y.tobytes()


def test_import_brings_in_no_heavy_package() -> None:
    code = (
        "import sys, fastrnn\n"
        "print([m for m in ('matplotlib', 'torch', 'tqdm', 'safetensors') if m in sys.modules])"
    )
    assert python(code).stdout == "[]\n"
