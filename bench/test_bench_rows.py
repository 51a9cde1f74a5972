"""A few rows for pytest-benchmark, one thread: ``pytest bench``. The whole table: bench.rows."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.problem import check
from bench.shapes import LAYER_KINDS, ROWS, Row, select
from bench.systems import Pass, fastrnn, reference

_ROWS = select(["lstm-1-1-64-64", "*-32-100-128-128", "lstm-32-100-64-64"], ROWS)


@pytest.fixture(scope="module", params=_ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    row: Row = request.param
    return row


@pytest.fixture(scope="module")
def passes(row: Row) -> dict[str, dict[str, Pass]]:
    systems = {"fastrnn": fastrnn.layer_passes(row), "reference": reference.passes(row)}
    for kind in LAYER_KINDS:
        got, wanted = (passes[kind].results() for passes in systems.values())
        check("fastrnn", row, kind, got, wanted)
    return systems


@pytest.mark.parametrize("who", ["fastrnn", "reference"])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_pass(
    benchmark: BenchmarkFixture,
    row: Row,
    passes: dict[str, dict[str, Pass]],
    kind: str,
    who: str,
) -> None:
    benchmark.group = f"{row.name} {kind}"
    contender = passes[who][kind]
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        contender.run, setup=contender.prepare, rounds=30, warmup_rounds=2
    )
