"""What a user has after installing: run outside the checkout, with fastrnn alone installed."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

import fastrnn as fr

home = Path(fr.__file__).parent
assert home.is_relative_to(sysconfig.get_paths()["platlib"]), home
files = [f for f in home.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
size = sum(f.stat().st_size for f in files)
assert size < 3_000_000, f"installed size: {size:,} bytes"

assert Path(fr.get_include(), "fastrnn.h").is_relative_to(home)

(y, _), pullback = fr.LSTM(3, 4).vjp(np.ones((2, 5, 3), np.float32))
assert pullback(y)[0].shape == (2, 5, 3)
fr.show_config()


def seconds(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(command, text=True)) for _ in range(7))


numpy, ours = seconds("numpy"), seconds("fastrnn")
beyond = 1e3 * (ours - numpy)
print(f"installed {size / 1e6:.2f} MB; import {beyond:.0f} ms beyond numpy's {1e3 * numpy:.0f}")
