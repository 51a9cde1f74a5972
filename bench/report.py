"""What the benchmarks print: the machine, and tables in plain text or Markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn import config

# Settings that change what is measured: of fastrnn, of NumPy's BLAS, of the C library's malloc, of
# the peers and their OpenMP.
_SETTINGS = (
    "FASTRNN_ISA",
    "FASTRNN_GEMM",
    "OPENBLAS_CORETYPE",
    "MKL_",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "OMP_",
    "KMP_",
    "GOMP_",
    "TORCH_",
    "ONEDNN_",
    "DNNL_",
    "ORT_",
    "XLA_",
    "JAX_",
)
_THREADS = "_NUM_THREADS"  # said elsewhere


def machine() -> dict[str, str]:
    """Processor, versions and settings, for the head of a table."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    ours = config.config()
    facts = {
        "CPU": f"{_cpu()}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "NumPy": f"{np.__version__} with {blas['name']} {blas['version']}",
        "fastrnn": f"{ours['fastrnn']}, {ours['instruction set']}",
        "products over all steps": ours["products over all steps"],
    }
    settings = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_SETTINGS) and not name.endswith(_THREADS)
    ]
    return {**facts, "environment": " ".join(settings)} if settings else facts


def machine_text(markdown: bool) -> str:
    """`machine` as a paragraph or, without `markdown`, as lines."""
    entries = [f"{name}: {value}" for name, value in machine().items()]
    return "; ".join(entries) + "." if markdown else "\n".join(entries)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    entries = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    name = entries.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in entries:  # a virtual machine may hide the name; these still tell the core
        name += f" (family {entries['cpu family']}, model {entries.get('model')})"
    return name


def table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """The cells in columns, the first one to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        [cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(row, widths, strict=True)) for row in (header, *rows))
    ]
    rule = ["-" * width for width in widths]
    if not markdown:
        lines.insert(1, rule)
        return "\n".join("  ".join(line).rstrip() for line in lines)
    lines.insert(1, [rule[0], *(dashes[1:] + ":" for dashes in rule[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(file: Path | None, **figures: Any) -> None:
    """The figures with the machine's description, if a file was asked for."""
    if file:
        file.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
