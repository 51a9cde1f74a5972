"""Another package's Cython calls the kernels: built, and run beside `fastrnn.LSTM`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn as fr

ROOT = Path(__file__).parents[1]


def test_a_package_cimports_the_kernels(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    folder = tmp_path / "package"
    shutil.copytree(ROOT / "tests" / "cython_package", folder)
    path = os.pathsep.join([str(Path(fr.__file__).parents[1]), str(folder)])
    for command in (["setup.py", "-q", "build_ext", "--inplace"], ["compare.py"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "fastrnn_rows: the bits of fastrnn.LSTM\n"
