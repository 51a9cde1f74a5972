"""What this machine can do: its FMA peak, and how fast each level of memory is read.

``python -m bench.roofline`` prints both, from loops of our own that share nothing with the kernels.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, measure
from bench.limit import Level, Machine
from fastrnn import _core

# Compiler flags, bytes of a vector, and chains: enough to hide the latency of an FMA on every
# execution unit, few enough for the registers.
_TARGETS: dict[str, tuple[list[str], int, int]] = {
    "generic": ([], 16, 12),
    "neon": ([], 16, 24),
    "avx2": (["-mavx2", "-mfma"], 32, 12),
    "avx512": (["-mavx512f", "-mprefer-vector-width=512"], 64, 24),
}
_TARGETS["avx512_bf16"] = _TARGETS["avx512"]

_REALS = {"float32": "float", "float64": "double"}

_FUNCTIONS: dict[str, tuple[str, list[Any], Any]] = {
    "fma.c": ("fma_chains", [ctypes.c_long], ctypes.c_double),
    "bandwidth.c": (
        "read_streams",
        [ctypes.c_void_p, ctypes.c_long, ctypes.c_long],
        ctypes.c_longlong,
    ),
}

_FLOPS = 1e9  # a thread's share of one call: milliseconds
_BYTES = 2e8  # likewise

_STREAMS = (1, 4)  # one feeds L1 best, several keep more of the prefetchers busy
_LOADS = 32  # as in bandwidth.c


class Peak:
    """`run` keeps `threads` cores busy with `flops` floating-point operations.

    Raises RuntimeError where there is no C compiler (``CC``, else ``cc``), or it fails.
    """

    def __init__(self, isa: str, threads: int = 1, dtype: str = "float32") -> None:
        flags, size, chains = _TARGETS[isa]
        self._chains = _compiled(
            "fma.c", *flags, "-ffp-contract=fast", f"-DREAL={_REALS[dtype]}",
            f"-DVECTOR_BYTES={size}", f"-DCHAINS={chains}",
        )  # fmt: skip
        each = 2 * size // np.dtype(dtype).itemsize * chains
        self._steps = int(_FLOPS / each)
        self._threads = _Threads(threads)
        self.flops = self._steps * each * threads

    def run(self) -> None:
        self._threads.run(lambda _: self._chains(self._steps))


def peak_flops(threads: int, dtype: str) -> int:
    """`Peak.flops` of the best instruction set."""
    return Peak(_core.isas()[-1], threads, dtype).flops


class Reads:
    """`run` has `threads` cores read `bytes` in all, over and over from `size` bytes for each.

    Raises RuntimeError as `Peak`.
    """

    def __init__(self, isa: str, threads: int, size: int, streams: int) -> None:
        flags, width, _ = _TARGETS[isa]
        self._read = _compiled(
            "bandwidth.c", *flags, f"-DVECTOR_BYTES={width}", f"-DSTREAMS={streams}"
        )
        self._vectors = max(1, size // width // _LOADS) * (_LOADS // streams)
        each = self._vectors * streams * width
        self._passes = max(1, int(_BYTES / each))
        self._threads = _Threads(threads)
        self._buffers = [_aligned(each) for _ in range(threads)]
        self.bytes = each * self._passes * threads

    def run(self) -> None:
        self._threads.run(
            lambda k: self._read(self._buffers[k].ctypes.data, self._vectors, self._passes)
        )


class _Threads:
    """Calls ``function(thread)`` on all at once; foreign functions let go of the GIL."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def run(self, function: Callable[[int], object]) -> None:
        if self._threads == 1:
            function(0)
        else:
            list(self._pool.map(function, range(self._threads)))


def _aligned(size: int) -> Any:
    buffer = np.ones(size + 64, np.uint8)  # written, so that there is memory behind it
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


@functools.cache
def _compiled(source: str, *options: str) -> Callable[..., object]:
    """The function that the file has, compiled with these options."""
    name, arguments, result = _FUNCTIONS[source]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f"no C compiler ({compiler[0]}) to measure the machine with")
    path = Path(__file__).with_name(source)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "library.so")
        shared = ["-O2", "-shared", "-fPIC", *options, str(path), "-o", str(library)]
        command = [*compiler, *shared]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
        function: Any = getattr(ctypes.CDLL(str(library)), name)
    function.argtypes = arguments
    function.restype = result
    return function  # type: ignore[no-any-return]


def caches() -> list[tuple[str, int, int]]:
    """The levels that hold data: name, bytes, and how many of our CPUs share one.

    From sysfs; without it 32 KB, 512 KB and 8 MB, the last one shared by all.
    """
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size, shared = (
                (folder / name).read_text().strip()
                for name in ("type", "level", "size", "shared_cpu_list")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sharers = max(1, len(_cpus(shared) & ours))
            found.append((f"L{level}", int(size.removesuffix("K")) * 1024, sharers))
    cpus = _core.default_num_threads()
    return found or [("L1", 32 << 10, 1), ("L2", 512 << 10, 1), ("L3", 8 << 20, cpus)]


def _cpus(text: str) -> set[int]:
    """As in 0-3,8."""
    ranges = [part.partition("-") for part in text.split(",")]
    return {k for first, _, last in ranges for k in range(int(first), int(last or first) + 1)}


def measured(threads: int, rounds: int = 10, seconds: float = 0.05) -> Machine:
    """The machine as so many threads have it, the best of all rounds; raises RuntimeError."""
    isa = _core.isas()[-1]
    contenders: dict[tuple[str, int], Peak | Reads] = {
        (dtype, 0): Peak(isa, threads, dtype) for dtype in _REALS
    }
    levels = caches()
    memory = 4 * max(size for _, size, _ in levels) // threads
    # Half of what a level has for a thread: the other half is for what else goes on.
    working_sets = {name: size // min(threads, sharers) // 2 for name, size, sharers in levels}
    for name, size in {**working_sets, "memory": memory}.items():
        contenders |= {(name, n): Reads(isa, threads, size, n) for n in _STREAMS}
    times = measure.interleaved(
        {key: measure.Contender(contender.run) for key, contender in contenders.items()},
        rounds,
        seconds,
        threads=1,
    )
    best: dict[str, float] = {}
    for (name, n), contender in contenders.items():
        done = contender.flops if isinstance(contender, Peak) else contender.bytes
        best[name] = max(best.get(name, 0.0), done / min(times[name, n]))
    return Machine(
        threads,
        {dtype: best[dtype] for dtype in _REALS},
        [
            *(Level(name, size, sharers, best[name]) for name, size, sharers in levels),
            Level("memory", None, threads, best["memory"]),
        ],
    )


def text(machine: Machine) -> str:
    """A line."""
    flops = ", ".join(f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in machine.flops.items())
    reads = ", ".join(f"{level.name} {level.bandwidth / 1e9:.0f}" for level in machine.levels)
    return f"{command.in_threads(machine.threads)}: {flops}; GB/s read: {reads}"


def main() -> None:
    try:
        for threads in range(1, _core.default_num_threads() + 1):
            peaks = {isa: Peak(isa, threads) for isa in _core.isas()[:-1]}
            contenders = {isa: measure.Contender(peak.run) for isa, peak in peaks.items()}
            times = measure.interleaved(contenders, rounds=10, seconds=0.05, threads=1)
            lesser = [
                f"{isa} {peak.flops / min(times[isa]) / 1e9:.0f}" for isa, peak in peaks.items()
            ]
            print(text(measured(threads)) + f"; GFLOP/s float32: {', '.join(lesser)}")
    except RuntimeError as error:
        raise SystemExit(f"bench.roofline: {error}") from None


if __name__ == "__main__":
    main()
