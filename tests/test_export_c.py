"""Exported models: the bits of `Sequential.step` where there is a fused multiply-add, whatever the
compiler's mode; clean C99 and C++; refusals.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import exported
import numpy as np
import pytest

import fastrnn as fr
from fastrnn import export_c
from fastrnn.charmodel import CharModel
from fastrnn.cli import main
from fastrnn.config import config
from fastrnn.data import Vocabulary

CC, CXX = shutil.which("cc") or shutil.which("gcc"), shutil.which("g++")
CLANG = shutil.which("clang")
ARM_CC = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
STRICT = ["-Wall", "-Wextra", "-Wunused-function", "-Wdouble-promotion", "-Werror", "-pedantic"]
X86 = platform.machine() == "x86_64"

pytestmark = pytest.mark.skipif(not CC, reason="no C compiler (cc or gcc)")


def build(compiler: str | None, flags: list[str], source: Path, name: str = "a") -> Path:
    assert compiler
    target = source.parent / name
    command = [compiler, *flags, *STRICT, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


class Exported:
    """Models of one dtype, their headers and program, and the outputs that are wanted."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.made = exported.models(dtype)
        self.main = exported.program(folder, self.made)
        self.want = {name: exported.expected(model) for name, model in self.made.items()}

    def outputs(self, command: list[Any]) -> dict[str, Any]:
        return exported.run(self.main.parent, command, self.made)

    def differ(self, outputs: dict[str, Any]) -> list[str]:
        return [name for name, y in outputs.items() if y.tobytes() != self.want[name].tobytes()]


@pytest.fixture(scope="module", params=["float32", "float64"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp(request.param), request.param)


def native() -> list[str]:
    """Flags for a target with a fused multiply-add."""
    if X86 and config()["instruction set"].startswith("generic"):
        pytest.skip("this CPU has no fused multiply-add")
    return ["-march=native"] if X86 else []


def test_the_bits_of_step(models: Exported) -> None:
    program = build(CC, ["-std=c99", "-O2", *native()], models.main)
    assert models.differ(models.outputs([program])) == []


def test_no_mode_of_the_compiler_changes_bits(models: Exported) -> None:
    if models.made["lstm"].dtype == np.float64:
        pytest.skip("float32 shows it")
    fast = ["-std=gnu99", "-O2", *native(), "-ffp-contract=fast"]
    assert models.differ(models.outputs([build(CC, fast, models.main)])) == []
    if CXX:
        flags = ["-xc++", "-std=gnu++11", "-O2", *native()]
        assert models.differ(models.outputs([build(CXX, flags, models.main)])) == []


@pytest.mark.skipif(not CLANG, reason="no clang")
@pytest.mark.parametrize("mode", ["c99", "gnu99"])
def test_the_bits_with_clang(models: Exported, mode: str) -> None:
    program = build(CLANG, [f"-std={mode}", "-O2", *native()], models.main)
    assert models.differ(models.outputs([program])) == []


def test_a_fused_sum_would_be_seen(tmp_path: Path) -> None:
    name = "lstm_all"
    made = {name: exported.models("float32")[name]}
    source = exported.program(tmp_path, made)
    header = tmp_path / f"{name}.h"
    text = header.read_text()
    assert '#pragma GCC optimize("fp-contract=off"' in text
    header.write_text(re.sub("#pragma (GCC optimize|STDC FP_CONTRACT).*", "", text))
    program = build(CC, ["-std=gnu99", "-O2", *native(), "-ffp-contract=fast"], source)
    y = exported.run(tmp_path, [program], made)[name]
    assert y.tobytes() != exported.expected(made[name]).tobytes()


@pytest.mark.skipif(not X86, reason="Arm has a fused multiply-add")
def test_without_a_fused_multiply_add(models: Exported) -> None:
    outputs = models.outputs([build(CC, ["-std=c99", "-O1"], models.main)])
    assert models.differ(outputs)  # or this test tested something else
    small = 1e-6 if models.made["lstm"].dtype == np.float32 else 1e-14
    for name, y in outputs.items():
        normalised = "all" in name or "norm" in name  # a division by a deviation follows
        np.testing.assert_allclose(y, models.want[name], rtol=0, atol=small * (1 + 3 * normalised))


@pytest.mark.skipif(not (ARM_CC and QEMU), reason="no aarch64-linux-gnu-gcc or no qemu-aarch64")
def test_the_bits_on_arm(models: Exported) -> None:
    native()
    program = build(ARM_CC, ["-std=c99", "-O2", "-static"], models.main)
    assert models.differ(models.outputs([QEMU, program])) == []


def test_no_libm_no_allocation_no_globals_that_change(models: Exported) -> None:
    source = models.main.parent / "step.c"
    use = ""
    for name, model in models.made.items():
        x = "const void *" if not model.takes_ids else "int32_t "
        real = "float" if model.dtype == np.float32 else "double"
        argument = "x" if model.takes_ids else f"(const {real} *)x"
        use += f'#include "{name}.h"\nvoid use_{name}({name}_state *s, {x}x, {real} *y);\n'
        use += f"void use_{name}({name}_state *s, {x}x, {real} *y) {{\n"
        use += f"    {name}_step(s, {argument}, y);\n}}\n"
    source.write_text(use)
    program = build(CC, ["-std=c99", "-O0", "-c"], source, "step.o")
    symbols = subprocess.check_output(["nm", program], text=True)
    assert set(re.findall(r" U (\w+)", symbols)) <= {"memcpy", "memset"}
    assert not re.findall(r" [bBdD] \w+", symbols)
    only = models.main.parent / "only.c"
    only.write_text('#include "lstm.h"\nint main(void) { return LSTM_INPUTS == 0; }\n')
    build(CC, ["-std=c99"], only, "only")


def test_an_id_out_of_range_and_the_mode_afterwards(tmp_path: Path) -> None:
    model = fr.Sequential([fr.Embedding(3, 2), fr.GRU(2, 4)])
    export_c.export(model, tmp_path / "m.h")
    (tmp_path / "main.c").write_text(
        '#include "m.h"\n'
        "int main(void) {\n"
        "    m_state s;\n"
        "    float y[4] = {7};\n"
        "    m_reset(&s);\n"
        "    if (m_step(&s, 3, y) != -1 || m_step(&s, -1, y) != -1 || y[0] != 7) return 1;\n"
        "    if (m_step(&s, 2, y) != 0 || y[0] == 7) return 2;\n"
        "    volatile float tiny = 1e-39f;\n"
        "    return tiny / 2 > 0 ? 0 : 3; // flushed in a step alone\n"
        "}\n"
    )
    subprocess.run([build(CC, [], tmp_path / "main.c")], check=True)


# Refusals -----------------------------------------------------------------------------------------


def refusal(tmp_path: Path, model: Any, name: str = "m") -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        export_c.export(model, tmp_path / f"{name}.h")
    assert not list(tmp_path.iterdir())
    return str(caught.value)


def test_refusals(tmp_path: Path) -> None:
    both = fr.Sequential([fr.LSTM(2, 3, bidirectional=True)])
    assert refusal(tmp_path, both) == (
        "layers[0], LSTM: bidirectional: expected False, it has no step"
    )
    halves = fr.Sequential([fr.GRU(2, 3)]).to("bfloat16")
    assert refusal(tmp_path, halves).startswith("layers[0], GRU: dtype: expected float32 or")
    assert refusal(tmp_path, fr.LSTM(2, 3)) == "model: expected a Sequential, got LSTM"
    nothing = fr.Sequential([fr.Dropout(0.5)])
    assert refusal(tmp_path, nothing) == "layers: expected one that is not Dropout"
    good = fr.Sequential([fr.Dense(2, 3)])
    assert "name: expected letters, digits and _" in refusal(tmp_path, good, "2nd model")
    layer = fr.Dense(2, 3)
    layer.weight.assign(np.full((3, 2), np.nan))
    assert refusal(tmp_path, fr.Sequential([layer])) == (
        "layers[0], Dense: weight: expected finite numbers, got NaN or infinities"
    )


# The command --------------------------------------------------------------------------------------


def test_command(tmp_path: Path) -> None:
    char = CharModel.new(Vocabulary("\n abc"), hidden=8, embedding=4, layers=2, seed=0)
    char.save(tmp_path / "c.safetensors")
    assert main(["export-c", str(tmp_path / "c.safetensors"), "-o", str(tmp_path / "c.h")]) == 0
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "c.h"\n'
        "int main(void) {\n"
        "    c_state s;\n"
        "    float y[C_OUTPUTS];\n"
        "    c_reset(&s);\n"
        "    for (int t = 0; t < 5; t++) {\n"
        "        if (c_step(&s, t, y)) return 1;\n"
        '        for (int i = 0; i < C_OUTPUTS; i++) printf("%a\\n", (double)y[i]);\n'
        "    }\n    return 0;\n}\n"
    )
    program = build(CC, ["-std=c99", "-O2", *native()], tmp_path / "main.c")
    lines = subprocess.check_output([program], text=True).split()
    logits = char.model(np.arange(5)[None])
    assert [float.fromhex(line) for line in lines] == logits.reshape(-1).tolist()


def test_command_takes_a_name(tmp_path: Path) -> None:
    fr.Sequential([fr.RNN(1, 2)]).save(tmp_path / "m.safetensors")
    arguments = ["export-c", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "2.h")]
    assert main([*arguments, "--name", "second"]) == 0
    assert "second_step(" in (tmp_path / "2.h").read_text()


@pytest.mark.parametrize("case", ["missing", "pairs", "bidirectional", "folder", "name"])
def test_command_refuses(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "m.safetensors", tmp_path / "m.h"
    if case == "pairs":
        fr.EncoderDecoder(5, 6, embedding_dim=2, hidden_size=3).save(model)
    elif case != "missing":
        fr.Sequential([fr.LSTM(1, 2, bidirectional=case == "bidirectional")]).save(model)
    out = {"folder": tmp_path / "no" / "m.h", "name": tmp_path / "1.h"}.get(case, out)
    before = sorted(tmp_path.iterdir())
    assert main(["export-c", str(model), "-o", str(out)]) == 2
    printed, error = capsys.readouterr()
    assert printed == "" and error.count("\n") == 1 and error.startswith("fastrnn: ")
    wanted = {
        "missing": f"{model}: No such file",
        "pairs": f"{model}: expected a Sequential model, got EncoderDecoder",
        "bidirectional": "layers[0], LSTM: bidirectional",
        "folder": "there is no folder",
        "name": "name: expected letters",
    }
    assert wanted[case] in error
    assert sorted(tmp_path.iterdir()) == before
