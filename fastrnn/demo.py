"""``fastrnn demo``: a character model of Python's standard library, trained in half a minute."""

from __future__ import annotations

import itertools
import math
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fastrnn import plots
from fastrnn.charmodel import BITS, CharModel
from fastrnn.comparison import measure
from fastrnn.data import Ids, Stream, Vocabulary
from fastrnn.optimizers import Adam
from fastrnn.serialization import check_writable
from fastrnn.terminal import Progress, count, emphasis, line

# Modules of the standard library that are plain Python and have long been there. The last ones are
# held out.
MODULES = """
    argparse ast base64 bdb bisect calendar cmd code codecs codeop collections.__init__ colorsys
    compileall concurrent.futures._base concurrent.futures.thread configparser contextlib copy csv
    dataclasses datetime difflib dis doctest email.message email.parser enum filecmp fileinput
    fnmatch fractions ftplib functools gettext glob gzip hashlib heapq hmac html.parser http.client
    http.cookiejar http.cookies http.server imaplib inspect io ipaddress json.decoder json.encoder
    keyword linecache locale logging.__init__ logging.config logging.handlers lzma mailbox mimetypes
    netrc ntpath numbers opcode operator optparse os pathlib pdb pickle pickletools pkgutil platform
    plistlib poplib posixpath pprint profile pstats pydoc queue quopri random reprlib rlcompleter
    sched selectors shelve shlex shutil smtplib socket socketserver ssl stat statistics string
    stringprep struct subprocess symtable tabnanny tarfile tempfile textwrap threading timeit token
    tokenize trace traceback tracemalloc types typing unittest.case unittest.mock urllib.parse
    urllib.request uuid warnings wave weakref webbrowser xml.dom.minidom xmlrpc.client zipapp
""".split()
SIZE = 2_000_000  # characters at most
HELD_OUT = 0.05
RARE = 50  # a character that occurs less often is dropped

BATCH, TIME = 32, 64
LEARNING_RATE, GLOBAL_NORM = 6e-3, 5.0


def run(out: Path, seconds: float, seed: int | None) -> None:
    """The demo: trains for `seconds`, writes demo.safetensors and demo.png to the folder `out`.

    Raises ValueError where the standard library's sources are missing, OSError or ValueError where
    `out` cannot be used; both before training.
    """
    text, modules = standard_library()
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    split = int(len(ids) * (1.0 - HELD_OUT))
    char = CharModel.new(vocabulary, layers=2, hidden=128, embedding=64, seed=seed)
    out.mkdir(exist_ok=True)
    model_path, picture_path = out / "demo.safetensors", out / "demo.png"
    for path in (model_path, picture_path):
        check_writable(path)

    size = sum(parameter.size for parameter in char.model.parameters().values())
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    line("text", f"{modules} modules of {python}'s library, {count(len(ids))} characters")
    line("model", f"2 x LSTM 128, embedding 64, {len(vocabulary)} characters: {size:,} parameters")

    trained = train(char, Stream(ids[:split], BATCH, TIME), ids[split:], seconds)
    line("training", f"{trained.summary}, loss {trained.losses[0]:.2f} to {trained.final:.2f}")
    bits = BITS * char.evaluate(ids[split:])
    line("held out", f"{bits:.3f} bits a character, on {count(len(ids) - split)} it has never seen")
    line("speed", str(measure(len(vocabulary), BATCH, TIME)))

    char.save(model_path)
    line("saved", f"{model_path}{picture(trained, picture_path)}")
    print(f"\n{emphasis('a sample')}, temperature 0.5\n")
    prompt = "\n    def "
    sample = prompt + "".join(char.sample(prompt, 500, temperature=0.5, seed=seed))
    print("\n".join(f"  {text}".rstrip() for text in sample.strip("\n").split("\n")))
    print(f"\nmore: fastrnn sample {model_path} --prompt 'class '")


def standard_library() -> tuple[str, int]:
    """Sources of the running Python's standard library, without rare characters; how many modules.

    Raises ValueError where this Python came without sources.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [folder.joinpath(*name.split(".")).with_suffix(".py") for name in MODULES]
    sources = [path.read_text("utf-8", "ignore") for path in paths if path.is_file()]
    text = "\n\n".join(sources)
    if len(text) < 100_000:
        raise ValueError(
            f"{folder}: too few sources of the standard library to train on; "
            "fastrnn train takes a text of your own"
        )
    # Every module gives up the same share of its end, so that none is missing.
    if len(text) > SIZE:
        text = "\n\n".join(s[: len(s) * SIZE // len(text)] for s in sources)[:SIZE]
    often = {character for character, times in Counter(text).items() if times >= RARE}
    return "".join(character for character in text if character in often), len(sources)


@dataclass(frozen=True)
class Trained:
    """What is reported of a training: the loss of every step, and some of held-out text."""

    losses: list[float]
    held_out: list[tuple[int, float]]
    final: float
    summary: str


def train(char: CharModel, stream: Stream, held_out: Ids, seconds: float) -> Trained:
    """Train for about `seconds`, the learning rate going down with the time left."""
    optimizer = Adam(LEARNING_RATE, global_clipnorm=GLOBAL_NORM)
    losses: list[float] = []
    checks: list[tuple[int, float]] = []
    characters = BATCH * TIME
    with Progress("training") as progress:
        for loss in itertools.chain.from_iterable(
            char.train(stream, optimizer) for _ in itertools.count()
        ):
            losses.append(loss)
            done = progress.seconds / seconds
            progress.update(done, loss, characters)
            if done >= (len(checks) + 1) / 10:
                checks.append((len(losses), char.evaluate(held_out[:20_000])))
            if done >= 1.0:
                break
            # Half a cosine, down to a fiftieth: the last steps settle what the first ones found.
            optimizer.learning_rate = LEARNING_RATE * (0.51 + 0.49 * math.cos(math.pi * done))
        summary = (
            f"{count(progress.characters)} characters in {progress.seconds:.0f} s, "
            f"{count(progress.rate)} a second"
        )
    return Trained(losses, checks, progress.loss, summary)


def picture(trained: Trained, path: Path) -> str:
    """Draw the training curve; what there is to be said of it."""
    try:
        plots.training_curve(
            path,
            [BITS * loss for loss in trained.losses],
            [(step, BITS * loss) for step, loss in trained.held_out],
            ylabel="bits a character",
            title="A character model learns Python from the standard library",
        )
    except ImportError:
        return " (no picture of the training curve: matplotlib is not installed)"
    return f" and {path}"
