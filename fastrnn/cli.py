"""The command ``fastrnn``: demo, train, sample, report, export-c, info.

A user's mistake is one line, status 2.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fastrnn import demo, report
from fastrnn.charmodel import BITS, CharModel
from fastrnn.config import config
from fastrnn.data import Ids, Stream, Vocabulary, read_text
from fastrnn.diagnostics import findings
from fastrnn.layers.cells import CELLS
from fastrnn.models import Sequential, load
from fastrnn.optimizers import Adam
from fastrnn.serialization import check_writable
from fastrnn.terminal import Progress, count, line

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (None: the process's); returns the exit status."""
    parser = _parser()
    if hasattr(sys.stdout, "reconfigure"):  # a character that the terminal lacks must not stop us
        sys.stdout.reconfigure(errors="replace")
    try:
        options = parser.parse_args(arguments)
        # A training that diverges is told by its loss, in one line, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            options.run(options)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse's own: --help, or a bad argument
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # who read us has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError:
        return _fail("not enough memory")
    except (ValueError, FloatingPointError) as error:
        return _fail(str(error))
    return 0


def _fail(reason: str, status: int = 2) -> int:
    print(f"fastrnn: {reason}", file=sys.stderr)
    return status


def _demo(options: argparse.Namespace) -> None:
    demo.run(options.out, options.seconds, options.seed)


def _train(options: argparse.Namespace) -> None:
    out: Path = options.out or Path(options.file.stem + ".safetensors")
    check_writable(out)
    if out.exists() and options.file.exists() and out.samefile(options.file):
        raise ValueError(f"{out}: the text itself; --out names another file for the model")
    text = read_text(options.file)
    vocabulary = Vocabulary.of(text)
    training, held_out = split(vocabulary.encode(text), options.validation)
    try:
        stream = Stream(training, options.batch, options.time)
    except ValueError as error:
        raise ValueError(f"{options.file}: {error}; --batch and --time make them fewer") from None
    optimizer = Adam(options.learning_rate, global_clipnorm=options.clip)
    char = CharModel.new(
        vocabulary,
        cell=options.cell,
        layers=options.layers,
        hidden=options.hidden,
        embedding=options.embedding,
        dropout=options.dropout,
        seed=options.seed,
    )
    size = sum(parameter.size for parameter in char.model.parameters().values())
    line(
        "text", f"{len(text):,} characters, {len(vocabulary)} different, {len(held_out):,} held out"
    )
    line(
        "model",
        f"{options.layers} x {options.cell.upper()} {options.hidden}, "
        f"embedding {options.embedding}: {size:,} parameters",
    )
    for epoch in range(1, options.epochs + 1):
        _epoch(char, stream, optimizer, held_out, f"{epoch}/{options.epochs}")
    char.save(out)
    line("saved", str(out))


def _epoch(char: CharModel, stream: Stream, optimizer: Adam, held_out: Ids, label: str) -> None:
    """Train for an epoch and print how it went."""
    total, done = 0.0, 0
    with Progress(f"epoch {label}") as progress:
        for loss, (inputs, _) in zip(char.train(stream, optimizer), stream, strict=True):
            total += loss * inputs.size
            done += inputs.size
            progress.update(done / stream.size, loss, inputs.size)
        rate = count(progress.rate)
        validation = char.evaluate(held_out) if len(held_out) else None
    report = f"training {total / done:.4f}"
    if validation is not None:
        report += f", validation {validation:.4f} nats ({BITS * validation:.3f} bits)"
    line(f"epoch {label}", f"{report}; {rate} characters/s")


def _sample(options: argparse.Namespace) -> None:
    char = CharModel.load(options.model)
    known = char.vocabulary.characters
    prompt = options.prompt or ("\n" if "\n" in known else known[0])
    try:
        characters = char.sample(
            prompt, options.length, temperature=options.temperature, seed=options.seed
        )
    except ValueError as error:
        raise ValueError(f"--prompt: {error}") from None
    print(options.prompt, end="")
    try:
        for character in characters:
            print(character, end="", flush=True)
    finally:
        print()


def _report(options: argparse.Namespace) -> None:
    path, record = report.write(options.folder, options.out)
    for finding in findings(record):
        line(finding.level, f"{finding.title}. {finding.text}")
    line("saved", str(path))


def _export_c(options: argparse.Namespace) -> None:
    from fastrnn import export_c  # not at start: other commands never need it

    model = load(options.model)
    if not isinstance(model, Sequential):
        kind = type(model).__name__
        raise ValueError(f"{options.model}: expected a Sequential model, got {kind}")
    export_c.export(model, options.out, options.name)
    line("saved", str(options.out))


def _info(options: argparse.Namespace) -> None:
    entries = config()
    for package in ("safetensors", "tqdm", "matplotlib"):
        try:
            entries[package] = version(package)
        except PackageNotFoundError:
            entries[package] = "not installed"
    width = max(map(len, entries)) + 2
    for name, value in entries.items():
        line(name.ljust(width), value)


def split(ids: Ids, validation: float) -> tuple[Ids, Ids]:
    """`ids` without its end, and that end: a fraction of `validation`, none or two ids at least.

    Raises ValueError where the text is too short for that.
    """
    if validation == 0.0:
        return ids, ids[:0]
    held_out = max(2, round(len(ids) * validation))
    return ids[: max(0, len(ids) - held_out)], ids[-held_out:]


def _number(
    kind: type[int] | type[float], wanted: str, accepts: Callable[[float], bool]
) -> Callable[[str], float]:
    """A type for argparse: reads a number, says what was wanted where it is none."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return value

    return parse


COUNT = _number(int, "a whole number from 1 up", lambda n: 1 <= n < 2**31)
FROM_ZERO = _number(int, "a whole number from 0 up", lambda n: 0 <= n < 2**63)
POSITIVE = _number(float, "a number above 0", lambda v: 0.0 < v < math.inf)
TEMPERATURE = _number(float, "a number from 0 up", lambda v: 0.0 <= v < math.inf)
FRACTION = _number(float, "a number from 0 to below 1", lambda v: 0.0 <= v < 1.0)


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description="Character models with LSTM, GRU and RNN.")
    commands = parser.add_subparsers(
        title="commands", metavar="demo | train | sample | report | export-c | info", required=True
    )

    def command(name: str, run: Command, help: str) -> Callable[..., None]:
        """Add a command; returns what adds an argument to it."""
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)

        def argument(name: str, help: str, *, default: object = None, **options: Any) -> None:
            help += "" if default in (None, "") else f" ({default})"
            added.add_argument(name, help=help, default=default, **options)

        return argument

    add = command("demo", _demo, "train on the sources of Python's standard library")
    add("--out", "for model and picture", default=Path("out"), type=Path, metavar="DIR")
    add("--seconds", "time to train", default=30.0, type=POSITIVE, metavar="N")
    add("--seed", "of the weights and the sample", default=0, type=FROM_ZERO, metavar="N")

    add = command("train", _train, "train on a text file")
    add("file", "a text, UTF-8", type=Path, metavar="FILE")
    add("--out", "file to write (FILE's name with .safetensors)", type=Path, metavar="MODEL")
    add("--cell", "kind of recurrent layer", default="lstm", choices=list(CELLS))
    add("--layers", "recurrent layers", default=1, type=COUNT, metavar="N")
    add("--hidden", "units of each", default=128, type=COUNT, metavar="N")
    add("--embedding", "size of a character's vector", default=64, type=COUNT, metavar="N")
    add("--epochs", "times to read the text", default=5, type=COUNT, metavar="N")
    add("--batch", "rows of text read side by side", default=50, type=COUNT, metavar="N")
    add("--time", "time steps that gradients go back", default=50, type=COUNT, metavar="N")
    add("--learning-rate", "Adam's", default=2e-3, type=POSITIVE, metavar="R")
    add("--clip", "limit of the gradient's norm", default=5.0, type=POSITIVE, metavar="NORM")
    add("--dropout", "after every recurrent layer", default=0.0, type=FRACTION, metavar="P")
    add("--validation", "share held out, the end", default=0.1, type=FRACTION, metavar="P")
    add("--seed", "of weights and dropout", default=0, type=FROM_ZERO, metavar="N")

    add = command("sample", _sample, "write text with a trained model")
    add("model", "what train or demo has written", type=Path, metavar="MODEL")
    add("--prompt", "text to go on from", default="", metavar="TEXT")
    add("--length", "characters to write", default=500, type=FROM_ZERO, metavar="N")
    add("--temperature", "0: always the likeliest", default=0.7, type=TEMPERATURE, metavar="T")
    add("--seed", "the same seed writes the same text", type=FROM_ZERO, metavar="N")

    add = command("report", _report, "make a page of what happened inside a run")
    add("folder", "the folder that a Monitor was given", type=Path, metavar="RUN")
    add("--out", "file to write (report.html in RUN)", type=Path, metavar="FILE")

    add = command("export-c", _export_c, "write a trained model as a C header that runs it")
    add("model", "what train, demo or Sequential.save has written", type=Path, metavar="MODEL")
    add("-o", "file to write", dest="out", required=True, type=Path, metavar="FILE")
    add("--name", "what C names begin with (FILE's own name)", metavar="NAME")

    command("info", _info, "what this installation is made of, and which kernels it uses")
    return parser
