"""README's programs in other people's programs, as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## In your program\n")[2].partition("\n## ")[0]
CC = shutil.which("cc") or shutil.which("gcc")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, flags=re.DOTALL)


@pytest.mark.torch
@pytest.mark.filterwarnings("default")  # of Keras and what it imports
def test_the_programs_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "h5py", "sklearn"):
        pytest.importorskip(package)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    ids = np.random.default_rng(0).integers(0, 1000, (2, 100))
    names = {"np": np, "fr": fr, "x": ids}
    programs = blocks("python")
    assert len(programs) == 4
    for program in programs:
        exec(program, names)
    assert {"model.onnx", "model.keras", "best.safetensors"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.skipif(not CC, reason="no C compiler (cc or gcc)")
def test_the_program_in_c(tmp_path: Path) -> None:
    model = fr.Sequential([fr.LSTM(1, 8, seed=0), fr.Dense(8, 1, seed=0)])
    model.save(tmp_path / "amp.safetensors")
    command = re.search(r"`fastrnn (export-c .*?)`", SECTION)
    assert command
    arguments = command[1].replace("amp.", f"{tmp_path}/amp.").split()
    assert main(arguments) == 0
    [program] = blocks("c")
    (tmp_path / "main.c").write_text(program)
    subprocess.run([CC, "-std=c99", "-O1", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.check_output([tmp_path / "main"], text=True).split()
    y, state, wanted = np.full((1, 1), 0.25, np.float32), None, []
    for _ in range(3):
        y, state = model.step(y, state)
        wanted.append(y.item())
    np.testing.assert_allclose([float(y) for y in printed], wanted, rtol=1e-4)
