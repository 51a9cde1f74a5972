"""csrc/ on its own: builds and runs the C programs of tests/c, plain, under sanitizers and as NEON.

The sweep of the activations takes a stride here; `sweep_activations` alone goes over all values.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = sorted((ROOT / "csrc" / "kernels").glob("*.c"))
SOURCES = [*KERNELS, *sorted((ROOT / "csrc").glob("*.c"))]  # the slow ones first
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-std=c11", "-O0", "-g1", "-ffp-contract=off", "-pthread"]
SANITIZE += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
PROGRAMS = ["test_core", "test_api", "test_training", "test_environment"]

CC = shutil.which("cc") or shutil.which("gcc")
CXX = shutil.which("g++")
ARM_CC = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
# Clang for Windows, from PyPI: GCC does not align the stack there as AVX wants it.
WINDOWS_CC = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu"]
WINE = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine")

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the C programs are written for POSIX"),
    pytest.mark.skipif(not CC, reason="no C compiler (cc or gcc)"),
]


def setup_flags() -> list[str]:
    """The compiler's flags in setup.py, whose build is the one that users get."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "compile_args":
            values = [c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)]
            return [v for v in values if isinstance(v, str) and v.startswith("-")]
    raise AssertionError("setup.py: no compile_args")


def run(command: list[str | Path], expected: int = 0) -> str:
    """What a command prints, once it ended as expected."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
    env["WINEDEBUG"] = "-all"
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == expected, (
        f"exit status {done.returncode}: {command}\n{output[-5000:]}"
    )
    return output


class Flavour:
    """One compiler and its flags: csrc's objects, compiled once, and programs linked with them."""

    def __init__(
        self, folder: Path, compiler: list[str], flags: list[str], emulator: str | None = None
    ):
        self.folder, self.emulator = folder, emulator
        self.compile: list[str | Path] = [*compiler, *flags, *WARNINGS]
        self.objects = [folder / f"{source.stem}.o" for source in SOURCES]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.compile_one, SOURCES, self.objects))

    def compile_one(self, source: Path, target: Path) -> None:
        run([*self.compile, "-c", source, "-o", target])

    def run(
        self, name: str, *arguments: str, flags: tuple[str, ...] = (), expected: int = 0
    ) -> str:
        program = self.folder / "-".join([name, *flags])
        if not program.exists():
            source = ROOT / "tests" / "c" / f"{name}.c"
            run([*self.compile, *flags, source, *self.objects, "-o", program, "-lm"])
        emulator = [self.emulator] if self.emulator else []
        return run([*emulator, program, *arguments], expected)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Flavour:
    assert CC
    return Flavour(tmp_path_factory.mktemp("plain"), [CC], setup_flags())


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Flavour:
    assert CC
    folder = tmp_path_factory.mktemp("sanitized")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    tried: list[str | Path] = [CC, *SANITIZE, folder / "empty.c", "-o", folder / "empty"]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("the C compiler has no AddressSanitizer or UndefinedBehaviorSanitizer")
    return Flavour(folder, [CC], SANITIZE)


@pytest.fixture(scope="module")
def neon(tmp_path_factory: pytest.TempPathFactory) -> Flavour:
    if not ARM_CC or not QEMU:
        pytest.skip("no aarch64-linux-gnu-gcc or no qemu-aarch64")
    return Flavour(tmp_path_factory.mktemp("neon"), [ARM_CC], [*setup_flags(), "-static"], QEMU)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Flavour:
    if not importlib.util.find_spec("ziglang") or not WINE:
        pytest.skip("no ziglang or no wine64")
    flags = [flag for flag in setup_flags() if flag not in ("-pthread", "-fvisibility=hidden")]
    return Flavour(tmp_path_factory.mktemp("windows"), WINDOWS_CC, flags, WINE)


def digests(flavour: Flavour, program: str = "test_core") -> dict[str, str]:
    """A hash of the bits of all outputs, by instruction set."""
    return dict(line.split() for line in flavour.run(program, "--digest").splitlines())


def sweep(flavour: Flavour, stride: int, *arguments: str) -> list[str]:
    """The sums over the bits of both functions' results, float32 and float64."""
    output = flavour.run("sweep_activations", "--stride", str(stride), "--threads", "2", *arguments)
    sums = re.findall(r"bits ([0-9a-f]{16})", output)
    assert len(sums) == 4, output
    return sums


# --- Results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(plain: Flavour, program: str) -> None:
    assert " 0 failures" in plain.run(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_under_sanitizers(sanitized: Flavour, program: str) -> None:
    assert " 0 failures" in sanitized.run(program, "--quick")


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_with_neon(neon: Flavour, program: str) -> None:
    assert " 0 failures" in neon.run(program, "--quick")


@pytest.mark.parametrize("program", ["test_core", "test_training"])
def test_neon_gives_the_bits_of_avx2(plain: Flavour, neon: Flavour, program: str) -> None:
    here, there = digests(plain, program), digests(neon, program)
    if "avx2" not in here:
        pytest.skip("this CPU has no AVX2 to compare with")
    assert there["neon"] == here["avx2"]
    # Beyond the promise, but where it fails a compiler has fused what stands apart.
    assert there["generic"] == here["generic"]
    assert here["generic"] != here["avx2"], "the digest tells nothing apart"


def test_program_on_windows(windows: Flavour) -> None:
    assert " 0 failures" in windows.run("test_api", "--quick")


@pytest.mark.parametrize("program", ["test_core", "test_training"])
def test_windows_gives_the_bits_of_linux(plain: Flavour, windows: Flavour, program: str) -> None:
    here = digests(plain, program)
    there = digests(windows, program)
    assert there.items() <= here.items()
    assert ("avx2" in there) == ("avx2" in here)


def test_neon_gives_the_functions_of_avx2(plain: Flavour, neon: Flavour) -> None:
    if "avx2" not in digests(plain):
        pytest.skip("this CPU has no AVX2 to compare with")
    assert sweep(neon, 1_000_003) == sweep(plain, 1_000_003, "--isa", "avx2")


def test_activations_are_within_their_limits(plain: Flavour) -> None:
    isas = digests(plain)
    sums = {isa: sweep(plain, 211 if isa == "avx2" else 1009, "--isa", isa) for isa in isas}
    if {"avx2", "avx512"} <= sums.keys():
        assert sums["avx512"] == sweep(plain, 1009, "--isa", "avx2")


# --- The compiler ---------------------------------------------------------------------------------


def test_no_multiply_and_add_is_fused(plain: Flavour) -> None:
    assert " 0 failures" in plain.run("test_contract")
    assert not [flag for flag in setup_flags() if "fast-math" in flag or "unsafe" in flag]


def test_fused_multiply_and_add_would_be_seen(plain: Flavour) -> None:
    if not {"avx2", "neon"} & digests(plain).keys():
        pytest.skip("this CPU has no fused multiply-add")
    fast = ("-std=gnu11", "-ffp-contract=fast")
    assert "fused a product and a sum" in plain.run("test_contract", flags=fast, expected=1)


def test_no_multiply_and_add_is_fused_for_neon(neon: Flavour) -> None:
    assert " 0 failures" in neon.run("test_contract")
    fast = ("-std=gnu11", "-ffp-contract=fast")
    assert "fused a product and a sum" in neon.run("test_contract", flags=fast, expected=1)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources_are_plain_c11(source: Path) -> None:
    assert CC
    run([CC, "-std=c11", "-pedantic", *WARNINGS, "-fsyntax-only", source])


@pytest.mark.skipif(not CXX, reason="no g++")
def test_header_is_c_plus_plus(tmp_path: Path) -> None:
    source = tmp_path / "embedder.cpp"
    source.write_text('#include "fastrnn.h"\nint main() { return frnn_num_threads() < 1; }\n')
    assert CXX
    run([CXX, "-pedantic", *WARNINGS, "-I", ROOT / "csrc", "-fsyntax-only", source])
