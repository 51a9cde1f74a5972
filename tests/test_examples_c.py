"""The C programs of examples/c: built as they say, and their numbers beside Python's."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.config import config, using

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "c"
CC = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the programs are written for POSIX"),
    pytest.mark.skipif(not CC, reason="no C compiler (cc or gcc)"),
]


def run(command: list[Any], expected: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == expected, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def made_up(*shapes: tuple[int, ...]) -> list[Any]:
    """embed.c's numbers."""
    arrays, seed = [], 1
    for shape in shapes:
        values = []
        for _ in range(int(np.prod(shape))):
            seed = (seed * 1664525 + 1013904223) % 2**32
            values.append(((seed >> 25) - 64) / 256)
        arrays.append(np.array(values, np.float32).reshape(shape))
    return arrays


def test_embed(tmp_path: Path) -> None:
    """With the one line that it says, but for -O0, which takes 12 s of a core and not a minute."""
    source = EXAMPLES / "embed.c"
    line = re.search(r"^//     (cc .*)$", source.read_text(), re.M)
    assert line and line[1].count("-O2") == 1
    said = line[1].replace("embed.c", str(source)).replace("-o embed", f"-o {tmp_path}/embed")
    include = tmp_path / "a folder"
    include.symlink_to(fr.get_include())
    run(["sh", "-c", f"inc='{include}'; {said.replace('-O2', '-O0')}"])

    *weights, x = made_up((80, 3), (80, 20), (80,), (80,), (4, 50, 3))
    lstm = fr.LSTM(3, 20)
    lstm.load_state_dict(dict(zip(lstm.parameters(), weights, strict=True)))
    printed = [line.split(": ")[1].split() for line in run([tmp_path / "embed"]).splitlines()]
    got = np.array([values[:4] for values in printed], np.float32)
    np.testing.assert_array_equal(got, lstm(x)[0][:, -1, :4])


def amp() -> Any:
    spec = importlib.util.spec_from_file_location("amp", EXAMPLES / "amp.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_amp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    example = amp()
    export = example.export_c.export
    monkeypatch.setattr(
        example.export_c, "export", lambda model, path: (models.append(model), export(model, path))
    )
    assert example.main(["--quick", "--out", str(tmp_path)]) < 0.5  # silence: 1
    fused = "generic" not in config()["instruction set"].split()[0]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", *(["-march=native"] * fused)]
    assert CC
    run([CC, *flags, f"-I{tmp_path}", EXAMPLES / "amp.c", "-o", tmp_path / "amp"])
    printed = run([tmp_path / "amp", "0.1", tmp_path / "out"])
    assert re.fullmatch(r"76 frames of 64 samples: mean [^;]*; [\d.]+ % of real time\n", printed)
    y = np.fromfile(tmp_path / "out", np.float32)
    phase = (np.arange(76 * 64, dtype=np.uint64) * 9842633 % 2**32).astype(np.uint32)
    x = phase.view(np.int32).astype(np.float32) / np.float32(2**32)
    with using(gemm="native"):
        expected = models[0](x.reshape(1, -1, 1)).reshape(-1)
    np.testing.assert_allclose(y, expected, rtol=0, atol=0 if fused else 1e-6)
    run([tmp_path / "amp", "-1"], expected=2)
    run([tmp_path / "amp", "1", tmp_path / "no" / "out"], expected=1)


def test_installed_for_c(tmp_path: Path) -> None:
    """What get_include names once installed has every header and source, and nothing else."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    build = ["build_py", "--build-lib", str(tmp_path / "lib")]
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), *build]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    installed = tmp_path / "lib" / "fastrnn" / "csrc"
    files = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    source = ROOT / "csrc"
    wanted = [*source.glob("*.c"), *source.glob("*.h"), *source.glob("kernels/*")]
    assert files == {path.relative_to(source) for path in wanted}
    assert (tmp_path / "lib" / "fastrnn" / "_core.pxd").is_file()


def test_get_include_without_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fr, "__file__", str(tmp_path / "fastrnn" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"fastrnn\.h: not there, install fastrnn again"):
        fr.get_include()
