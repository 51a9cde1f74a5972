"""The machine's FMA peak, from a loop of our own that shares nothing with the kernels.

``python -m bench.roofline`` prints it, for each instruction set and number of threads.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import measure
from fastrnn import _core

# Compiler flags, bytes of a vector, and chains: enough to hide the latency of an FMA on every
# execution unit, few enough for the registers.
_TARGETS: dict[str, tuple[list[str], int, int]] = {
    "generic": ([], 16, 12),
    "neon": ([], 16, 24),
    "avx2": (["-mavx2", "-mfma"], 32, 12),
    "avx512": (["-mavx512f", "-mprefer-vector-width=512"], 64, 24),
}

_FLOPS = 1e9  # a thread's share of one call: milliseconds


class Peak:
    """`run` keeps `threads` cores busy with `flops` floating-point operations of float32.

    Raises RuntimeError where there is no C compiler (``CC``, else ``cc``), or it fails.
    """

    def __init__(self, isa: str, threads: int = 1) -> None:
        _, size, chains = _TARGETS[isa]
        self._chains = _compiled(isa)
        self._steps = int(_FLOPS / (2 * size // 4 * chains))
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self.flops = self._steps * (2 * size // 4 * chains) * threads

    def run(self) -> None:
        if self._threads == 1:
            self._chains(self._steps)
        else:  # a foreign function lets go of the GIL
            list(self._pool.map(self._chains, [self._steps] * self._threads))


def _compiled(isa: str) -> Callable[[int], float]:
    flags, size, chains = _TARGETS[isa]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f"no C compiler ({compiler[0]}) to measure the FMA peak with")
    source = Path(__file__).with_name("fma.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "fma.so")
        options = ["-O2", "-ffp-contract=fast", "-shared", "-fPIC", *flags]
        sizes = [f"-DVECTOR_BYTES={size}", f"-DCHAINS={chains}"]
        command = [*compiler, *options, *sizes, str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
        function = ctypes.CDLL(str(library)).fma_chains
    function.argtypes, function.restype = [ctypes.c_long], ctypes.c_float
    return function


def main() -> None:
    try:
        for threads in range(1, _core.default_num_threads() + 1):
            peaks = {isa: Peak(isa, threads) for isa in _core.isas()}
            contenders = {isa: measure.Contender(peak.run) for isa, peak in peaks.items()}
            times = measure.interleaved(contenders, rounds=10, seconds=0.05, threads=1)
            for isa, peak in peaks.items():
                rate = peak.flops / min(times[isa]) / 1e9
                print(f"{isa:8} {threads} thread{'s' * (threads > 1)}: {rate:6.0f} GFLOP/s float32")
    except RuntimeError as error:
        raise SystemExit(f"bench.roofline: {error}") from None


if __name__ == "__main__":
    main()
