"""A few rows for pytest-benchmark, one thread: ``pytest bench``. The whole table: bench.rows."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.problem import Problem
from bench.shapes import select

ROWS = select(["lstm-1-1-64-64", "*-32-100-128-128", "lstm-32-100-64-64"])


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def problem(request: pytest.FixtureRequest) -> Problem:
    problem = Problem(request.param)
    problem.check()
    return problem


@pytest.mark.parametrize("who", ["", "reference "], ids=["fastrnn", "reference"])
@pytest.mark.parametrize("kind", ["forward", "training"])
def test_pass(benchmark: BenchmarkFixture, problem: Problem, kind: str, who: str) -> None:
    benchmark.group = f"{problem.row.name} {kind}"
    contender = problem.contenders()[who + kind]
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        contender.run, setup=contender.prepare, rounds=30, warmup_rounds=2
    )
