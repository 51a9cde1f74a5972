"""fastrnn beside PyTorch, ONNX Runtime and JAX, whichever are installed, and beside the roofline.

Groups of rows:
  table          rnn, gru, lstm x 11 sizes, forward and training
  shapes         odd hidden sizes, just past a cache, long sequences of few rows
  drawn          sizes from a seed
  float64        some of the table's sizes in float64
  ragged         lengths uniform in 1..T
  bidirectional  two directions
  streaming      one time step, the state carried on
  models         whole training steps of character models

Without options it is the table on 1 thread, some 6 minutes. --rows with a name in full, such as
lstm-8-50-40-100, measures whatever sizes it has.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from bench import command, report, roofline, shapes, systems
from bench.limit import Limit, Machine, limit
from bench.problem import Mismatch, check
from bench.shapes import GROUPS, AnyRow, Model
from bench.turns import Failure, Player, players

_LEGEND = (
    "A time is that of a system's fastest call: in each round each system has its turn.",
    "Best/ours is the fastest peer's time over fastrnn's: above 1, fastrnn is faster.",
    "Training is outputs, dx and every weight's gradient, fastrnn's weights packed anew.",
    "GFLOP/s counts fastrnn's products; of roof is the least time that this machine's peak and "
    "bandwidths allow over fastrnn's, and limit is what that least time waits for; the FMA peak is "
    "measured anew with each row, since a CPU's clock changes.",
    "Noise is the median round over the fastest, of the most disturbed system.",
)

_BASELINES = {"ragged": "of full length", "bidirectional": "of two calls"}


class Options(command.Options):
    passes: int
    groups: list[str]
    systems: list[str]
    picture: Path | None


@dataclass(frozen=True)
class Time:
    """A system's: of each round the fastest call, in seconds; which variant that was."""

    rounds: list[float]
    variant: str

    @property
    def seconds(self) -> float:
        """The fastest call."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def with_those_of(self, other: Time) -> Time:
        """The rounds of both; the variant is that of the fastest call."""
        faster = min(self, other, key=lambda time: time.seconds)
        return Time(self.rounds + other.rounds, faster.variant)


@dataclass(frozen=True)
class Result:
    """One kind of pass of one row; `times` by system, `baseline` as `systems.fastrnn` has it."""

    group: str
    row: AnyRow
    kind: str
    threads: int
    times: Mapping[str, Time]
    baseline: float | None
    limit: Limit | None

    def with_those_of(self, other: Result) -> Result:
        """The rounds of two passes over the same row."""
        times = {name: time.with_those_of(other.times[name]) for name, time in self.times.items()}
        baselines = [r.baseline for r in (self, other) if r.baseline]
        limits = [r.limit for r in (self, other) if r.limit]
        return replace(
            self,
            times=times,
            baseline=min(baselines, default=None),
            limit=max(limits, key=lambda found: found.peak, default=None),
        )

    @property
    def ours(self) -> float:
        """Seconds of fastrnn's fastest call."""
        return self.times["fastrnn"].seconds

    @property
    def best(self) -> str | None:
        """The fastest peer."""
        peers = [name for name in self.times if name != "fastrnn"]
        return min(peers, key=lambda name: self.times[name].seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest peer's time over ours."""
        return self.times[self.best].seconds / self.ours if self.best else None

    @property
    def gflops(self) -> float:
        return self.row.flops(self.kind) / self.ours / 1e9

    @property
    def of_roof(self) -> float | None:
        return self.limit.seconds / self.ours if self.limit else None

    @property
    def of_baseline(self) -> float | None:
        return self.ours / self.baseline if self.baseline else None

    @property
    def noise(self) -> float:
        return max(time.median / time.seconds for time in self.times.values()) - 1

    def figures(self) -> dict[str, object]:
        """Everything, for JSON."""
        figures: dict[str, object] = {
            "group": self.group,
            "row": self.row.name,
            "kind": self.kind,
            "threads": self.threads,
            "seconds": {name: time.seconds for name, time in self.times.items()},
            "median_seconds": {name: time.median for name, time in self.times.items()},
            "variants": {name: time.variant for name, time in self.times.items() if time.variant},
            "best_peer": self.best,
            "ratio": self.ratio,
            "gflops": self.gflops,
            "of_roof": self.of_roof,
            "peak_gflops": self.limit.peak / 1e9 if self.limit else None,
            "limit": self.limit.term if self.limit else None,
            "of_baseline": self.of_baseline,
        }
        if isinstance(self.row, Model):
            tokens = self.row.tokens
            figures["tokens_per_second"] = {n: tokens / t.seconds for n, t in self.times.items()}
        return figures


def parse() -> tuple[Options, Mapping[str, list[AnyRow]]]:
    """What was asked for, and the rows by group."""
    parser = command.parser("bench.peers", __doc__, rounds=4)
    command.add_rows(parser, [])
    add = parser.add_argument
    add("--groups", nargs="+", choices=[*GROUPS, "all"], default=["table"], metavar="GROUP",
        help="of the list above, or all (default: table)")  # fmt: skip
    names = ", ".join(systems.NAMES)
    add("--systems", nargs="+", choices=systems.NAMES, default=systems.installed(),
        metavar="SYSTEM", help=f"of {names} (default: the installed ones)")  # fmt: skip
    add("--passes", type=int, default=1,
        help="over all rows, so that a row's rounds are minutes apart (default: 1)")  # fmt: skip
    add("--picture", type=Path, metavar="FILE", help="draw the ratios, a PNG")
    options = command.parse(parser, Options())
    assert isinstance(options, Options)
    if options.passes < 1:
        parser.error(f"--passes: expected at least 1, got {options.passes}")
    missing = set(options.systems) - set(systems.installed())
    if missing:
        parser.error(f"--systems: not installed: {', '.join(sorted(missing))}")
    if options.picture:
        command.check_folder(parser, "--picture", options.picture)
    groups = list(GROUPS) if "all" in options.groups else list(dict.fromkeys(options.groups))
    options.systems = [name for name in systems.NAMES if name in {"fastrnn", *options.systems}]
    with command.refusing_rows(parser):
        return options, shapes.select_from_groups(options.patterns, groups)


def measured(
    group: str,
    row: AnyRow,
    playing: list[Player],
    threads: int,
    machine: Machine | None,
    options: Options,
) -> list[Result]:
    """One row, a result for each kind; what systems compute is compared before any timing.

    Raises Mismatch and Failure.
    """
    prepared = {player.name: player.prepare(row, options.seconds) for player in playing}
    for name, theirs in prepared.items():
        for kind, results in theirs.results.items():
            if name != "fastrnn":
                check(name, row, kind, results, prepared["fastrnn"].results[kind])
    rounds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for player in playing:
            if prepared[player.name].variants:
                for kind, seconds in player.turn(options.seconds).items():
                    rounds.setdefault((player.name, kind), []).append(seconds)
    peak = min(rounds.get(("fastrnn", "peak"), []), default=None)
    if machine and peak:
        machine = machine.with_peak(row.dtype, roofline.peak_flops(threads, row.dtype) / peak)
    found = []
    for kind in row.kinds:
        times = {
            name: Time(seconds, prepared[name].variants[kind])
            for (name, of), seconds in rounds.items()
            if of == kind
        }
        baseline = min(rounds.get(("fastrnn", f"baseline {kind}"), []), default=None)
        least = limit(row, kind, machine) if machine else None
        found.append(Result(group, row, kind, threads, times, baseline, least))
    return found


def run(
    options: Options, groups: Mapping[str, list[AnyRow]]
) -> tuple[list[Result], dict[int, Machine], dict[str, str]]:
    """All results; by number of threads what the machine can do; the systems' versions."""
    results: dict[tuple[int, str, str, str], Result] = {}
    machines: dict[int, Machine] = {}
    versions: dict[str, str] = {}
    rows = [(group, row) for group, these in groups.items() for row in these]
    with tqdm(
        total=options.passes * len(rows) * len(options.threads), disable=None, unit="row"
    ) as bar:
        for threads in options.threads * options.passes:
            try:
                if threads not in machines:
                    machines[threads] = roofline.measured(threads)
            except RuntimeError as error:
                tqdm.write(f"The roofline is not measured: {error}", file=sys.stderr)
            with players(options.systems, threads) as company:
                for group, row in rows:
                    bar.set_description(f"{row.name}, {command.in_threads(threads)}")
                    playing = company.of(row)
                    versions |= {player.name: player.version for player in playing}
                    machine = machines.get(threads)
                    for result in measured(group, row, playing, threads, machine, options):
                        key = threads, group, row.name, result.kind
                        before = results.get(key)
                        results[key] = before.with_those_of(result) if before else result
                    bar.update()
    return list(results.values()), machines, versions


def table(results: list[Result], names: list[str], markdown: bool) -> str:
    """One kind of pass of one group on one number of threads."""
    group, kind = results[0].group, results[0].kind
    unit, scale = ("µs", 1e6) if kind == "step" else ("ms", 1e3)
    tokens = kind == "update"
    names = [name for name in names if any(name in result.times for result in results)]
    baseline = [_BASELINES[group]] if results[0].baseline else []
    header = [
        "cell B T I H" if not tokens else "model, B T",
        *(f"{name} {'tokens/s' if tokens else unit}" for name in names),
        *("best", "best/ours", "GFLOP/s", "of roof", "limit", *baseline, "noise"),
    ]
    lines = []
    for result in results:
        cells = [result.row.title]
        for name in names:
            time = result.times.get(name)
            if time is None:
                cells.append("-")
            elif isinstance(result.row, Model):
                cells.append(f"{result.row.tokens / time.seconds:,.0f}")
            else:
                cells.append(f"{time.seconds * scale:.{3 if unit == 'ms' else 2}f}")
        cells += [
            result.best or "-",
            f"{result.ratio:.2f}" if result.ratio else "-",
            f"{result.gflops:.0f}",
            f"{result.of_roof:.0%}" if result.of_roof else "-",
            result.limit.term if result.limit else "-",
            *([f"{result.of_baseline:.2f}"] if result.of_baseline else []),
            f"{result.noise:.0%}",
        ]
        lines.append(cells)
    return report.table(header, lines, markdown)


def summary(results: list[Result], markdown: bool) -> str:
    """For each group, kind and number of threads the geometric mean of best/ours."""
    header = ("threads", "group", "kind", "rows", "best/ours", "least", "of row", "below 1.0")
    lines = []
    for (threads, group, kind), these in grouped(results).items():
        ratios = {result.row.name: result.ratio for result in these if result.ratio}
        if ratios:
            least = min(ratios, key=lambda name: ratios[name])
            lines.append(
                [
                    *(str(threads), group, kind, str(len(ratios))),
                    f"{statistics.geometric_mean(ratios.values()):.2f}",
                    *(f"{ratios[least]:.2f}", least),
                    str(sum(ratio < 1 for ratio in ratios.values())),
                ]
            )
    return report.table(header, lines, markdown)


def grouped(results: list[Result]) -> dict[tuple[int, str, str], list[Result]]:
    """By threads, group and kind, in the order of the run."""
    found: dict[tuple[int, str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.threads, result.group, result.kind), []).append(result)
    return found


def text(
    results: list[Result], machines: Mapping[int, Machine], versions: dict[str, str], markdown: bool
) -> str:
    """The machine, how to read the figures, tables, and means."""
    others = ", ".join(f"{name} {version}" for name, version in versions.items())
    paragraphs = [
        report.machine_text(markdown),
        others + ".",
        "\n".join(roofline.text(machine) for machine in machines.values()),
        (" " if markdown else "\n").join(_LEGEND),
    ]
    for (threads, group, kind), these in grouped(results).items():
        title = f"{group.capitalize()}, {kind}, {command.in_threads(threads)}."
        paragraphs += [title, table(these, list(versions), markdown)]
    means = "Geometric means of best/ours."
    if any(result.ratio for result in results):
        paragraphs += [means, summary(results, markdown)]
    return "\n\n".join(paragraphs)


def main() -> None:
    options, groups = parse()
    try:
        results, machines, versions = run(options, groups)
    except Mismatch as error:
        raise SystemExit(f"not the same results: {error}") from None
    except Failure as error:
        raise SystemExit(f"bench.peers: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(text(results, machines, versions, options.markdown))
    report.write_json(
        options.json,
        systems=versions,
        roofline={threads: asdict(machine) for threads, machine in machines.items()},
        rounds=options.rounds,
        passes=options.passes,
        turn_seconds=options.seconds,
        results=[result.figures() for result in results],
    )
    if options.picture:
        from bench.picture import draw

        draw(options.picture, results)


if __name__ == "__main__":
    main()
