"""``fastrnn report``: a page of what a `Monitor` has seen, one HTML file with all it needs."""

from __future__ import annotations

import os
from pathlib import Path

from fastrnn.diagnostics.record import Record, read
from fastrnn.report.page import page
from fastrnn.serialization import replace_file

__all__ = ["page", "write"]


def write(
    run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> tuple[Path, Record]:
    """Write the page of the run in the folder `run`; its path, by default report.html in the
    folder, and the record that it tells of.

    Raises OSError where there is no run or a file cannot be read or written, ValueError where what
    is there is damaged or something else.
    """
    record = read(run)
    path = Path(run) / "report.html" if out is None else Path(out)
    replace_file(path, page(record, Path(run).resolve().name).encode())
    return path, record
