"""Programs in C and Cython against the installed fastrnn alone: run outside the checkout."""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import fastrnn as fr

root = Path(__file__).parents[1]
include = Path(fr.get_include())
assert include.is_relative_to(sysconfig.get_paths()["platlib"]), include
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    line = f"cc -O0 -ffp-contract=off -pthread -I'{include}' '{root}'/examples/c/embed.c"
    line += f" '{include}'/*.c '{include}'/kernels/*.c -lm -o embed && ./embed"
    print(subprocess.check_output(["sh", "-c", line], cwd=folder, text=True), end="")
    package = shutil.copytree(root / "tests" / "cython_package", folder / "package")
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "cython>=3.1", "setuptools>=77"], check=True)
    subprocess.run([*pip, "--no-build-isolation", package], check=True)
    subprocess.run([sys.executable, package / "compare.py"], cwd=folder, check=True)
