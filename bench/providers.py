"""Our packed kernels or NumPy's BLAS for the products over all steps: what decides the default.

``python -m bench.providers`` times the same pass with each provider, on every instruction set that
this machine has: the evidence for `fastrnn.config.default_gemm`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain

from bench import command, measure, report
from bench.problem import check
from bench.shapes import LAYER_KINDS, Row
from bench.systems import fastrnn, reference
from fastrnn import _core, config

# avx512_bf16 differs from avx512 for weights of bfloat16 alone.
_ISAS = [isa for isa in _core.isas() if isa != "avx512_bf16"]
_ROWS = ("rnn-32-100-256-256", "gru-1-100-256-256", "gru-32-100-256-256", "lstm-1-1-64-64",
         "lstm-1-100-256-256", "lstm-16-100-64-64", "lstm-32-100-128-128", "lstm-32-100-256-256",
         "lstm-64-50-512-512")  # fmt: skip

_HEADER = ("cell B T I H", "isa", *("forward ms native", "numpy", "numpy/native"),
           *("training ms native", "numpy", "numpy/native"), "default")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One row with one instruction set: milliseconds by kind of pass and provider."""

    row: Row
    threads: int
    isa: str
    milliseconds: dict[str, dict[str, float]]

    def cells(self) -> list[str]:
        """The row of the table."""
        cells = [self.row.title, self.isa]
        for times in self.milliseconds.values():
            native, numpy = (times[gemm] for gemm in ("native", "numpy"))
            cells += [f"{native:.3f}", f"{numpy:.3f}", f"{numpy / native:.2f}"]
        return [*cells, config.default_gemm(self.isa)]


def measured(row: Row, threads: int, rounds: int, seconds: float) -> list[Result]:
    """One row with every instruction set, where NumPy has as many threads; raises Mismatch."""
    contenders: dict[tuple[str, str, str], measure.Contender] = {}
    for isa in _ISAS:
        for gemm in config.GEMMS:
            contenders.update(_contenders(row, isa, gemm))
    times = measure.interleaved(contenders, rounds, seconds, threads)
    best = {name: min(fastest) * 1e3 for name, fastest in times.items()}
    return [
        Result(
            row,
            threads,
            isa,
            {kind: {gemm: best[isa, gemm, kind] for gemm in config.GEMMS} for kind in LAYER_KINDS},
        )
        for isa in _ISAS
    ]


def _contenders(row: Row, isa: str, gemm: str) -> dict[tuple[str, str, str], measure.Contender]:
    """The passes by (isa, gemm, kind), checked; each has its layers, to keep their packs."""
    within = partial(config.using, isa=isa, gemm=gemm)
    passes, theirs = fastrnn.layer_passes(row), reference.passes(row)
    with within():
        for kind in LAYER_KINDS:
            check(f"{isa}, {gemm}", row, kind, passes[kind].results(), theirs[kind].results())
    return {(isa, gemm, kind): replace(passes[kind], within=within) for kind in LAYER_KINDS}


def main() -> None:
    options = command.parse_rows("bench.providers", __doc__, _ROWS)
    runs = command.run(measured, options.rows, options)
    results = {threads: list(chain.from_iterable(these)) for threads, these in runs.items()}
    print(report.machine_text(options.markdown))
    for threads, these in results.items():
        print(f"\n{command.in_threads(threads).capitalize()}, float32, the fastest call.\n")
        print(report.table(_HEADER, [result.cells() for result in these], options.markdown))
    rows = [asdict(result) for these in results.values() for result in these]
    report.write_json(options.json, rows=rows)


if __name__ == "__main__":
    main()
