"""The page of a run: whole, self-contained, escaped, with the right numbers."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import NAUGHTY, record, strand
from test_cli import Output, refused

import fastrnn as fr
from fastrnn import report
from fastrnn.cli import main
from fastrnn.diagnostics import Monitor, findings, read
from fastrnn.report import page
from fastrnn.report.axes import decades, mark, power, round_marks
from fastrnn.report.chart import Line, chart, shares
from fastrnn.report.colours import SIGNED, STRENGTH, table
from fastrnn.report.picture import log_range, log_shades
from fastrnn.report.raster import png, shades

# --- Axes, lines, pictures ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "most", "whole", "marks"),
    [
        (0, 1, 5, False, [0, 0.5, 1]),
        (0, 10, 6, True, [0, 2, 4, 6, 8, 10]),
        (1, 3, 6, True, [1, 2, 3]),
        (0.61, 0.97, 5, False, [0.7, 0.8, 0.9]),
        (1, 1, 5, True, [1]),
        (-2, 2, 5, False, [-2, -1, 0, 1, 2]),
        (0, math.inf, 5, False, [0]),
    ],
)
def test_marks_are_round(low: float, high: float, most: int, whole: bool, marks: Any) -> None:
    np.testing.assert_allclose(round_marks(low, high, most, whole), marks, atol=1e-12)


def test_marks_of_powers() -> None:
    assert decades(-12, 0, 5) == [-12, -9, -6, -3, 0]
    assert decades(-1, 0) == [-1, 0]
    assert decades(-9, 2, 5) == [-7, -4, -1, 2]
    assert [power(e) for e in (-12, -3, 0, 4, 5)] == ["10⁻¹²", "0.001", "1", "10000", "10⁵"]
    assert [mark(y) for y in (0.0, 0.25, 2000.0, 1e-7)] == ["0", "0.25", "2000", "1e-7"]


def points(svg: str) -> list[list[tuple[float, float]]]:
    """Of each line the points that it goes through, by each pen's pieces together."""
    paths = re.findall(r'class="line[^"]*" d="([^"]*)"', svg)
    return [[(float(a), float(b)) for a, b in re.findall(r"([\d.]+) ([\d.]+)", d)] for d in paths]


def test_lines_are_where_their_numbers_are() -> None:
    drawn = chart("t", [Line("a", [1, 2, 3], [0.0, 1.0, 0.5], 0)], x_label="x", y_range=(0.0, 1.0))
    ((first, second, third),) = points(drawn)
    assert first[0] < second[0] < third[0] and second[0] - first[0] == pytest.approx(
        third[0] - second[0]
    )
    assert first[1] > third[1] > second[1]
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.06)
    back = chart("t", [Line("a", [0, 1, 2], [1.0, 0.1, 0.01], 0)], x_label="x", log=True, back=True)
    ((first, second, third),) = points(back)
    assert first[0] > second[0] > third[0]
    assert second[1] == pytest.approx((first[1] + third[1]) / 2, abs=0.06)


def test_lines_break_where_there_is_no_number() -> None:
    y = [1.0, math.nan, 2.0, math.inf, 3.0, 1e308, -1e308]
    drawn = chart("t", [Line("a", range(7), y, 0), Line("b", [0], [math.nan], 1)], x_label="x")
    assert drawn.count("<circle") == 5 and len(points(drawn)) == 1
    (path,) = re.findall(r'class="line[^"]*" d="([^"]*)"', drawn)
    assert path.count("M") == 3 and path.count("L") == 2
    assert "nan" not in re.sub(r"<figcaption>.*</figcaption>", "", drawn)
    zeros = chart("t", [Line("a", [0, 1, 2], [0.0, 1.0, 0.0], 0)], x_label="x", log=True)
    assert zeros.count("<circle") == 1


def test_nothing_to_draw_is_drawn() -> None:
    for log in (False, True):
        for lines in ([], [Line("a", [], [], 0)], [Line("a", [1], [2.0], 0)]):
            assert chart("t", lines, x_label="x", log=log).endswith("</svg></figure>")


def test_shares_are_areas() -> None:
    drawn = shares("i", [1, 2], [0.0, 0.5], [0.25, 0.0])
    low, high = re.findall(r'<path class="(?:low|high)" d="([^"]*)"', drawn)
    assert low == "M0 80L0.0 80.0L200.0 40.0L200 80Z"
    assert high == "M0 0L0.0 20.0L200.0 0.0L200 0Z"
    assert "<em>50%</em>" in drawn and "<em>0%</em>" in drawn
    single = shares("i", [1], [1.0], [math.nan])
    assert "M0 80L0.0 0.0L200.0 0.0L200 80Z" in single and "none" in single


def decoded(image: bytes) -> tuple[Any, Any, bytes]:
    """Pixels, palette and transparency of a PNG, by its specification."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(image):
        (size,), kind = struct.unpack(">I", image[at : at + 4]), image[at + 4 : at + 8]
        data = image[at + 8 : at + 8 + size]
        (check,) = struct.unpack(">I", image[at + 8 + size : at + 12 + size])
        assert zlib.crc32(kind + data) == check
        chunks[kind], at = data, at + 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 3, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return rows[:, 1:], palette, chunks[b"tRNS"]


def test_pictures_hold_their_numbers(rng: Any) -> None:
    values = rng.uniform(-1, 2, (5, 7))
    values[1, 2] = np.nan
    pixels = shades(values, 0, 1)
    want = 1 + np.rint(254 * np.clip(values, 0, 1))
    np.testing.assert_array_equal(pixels, np.where(np.isnan(values), 0, want))
    colours = table(STRENGTH["light"])
    got, palette, clear = decoded(png(pixels, colours))
    np.testing.assert_array_equal(got, pixels)
    np.testing.assert_array_equal(palette[1:], colours)
    assert clear == b"\0" and len(palette) == 256


def test_pictures_are_what_matplotlib_reads(tmp_path: Path, rng: Any) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    pixels = shades(rng.uniform(size=(4, 3)), 0, 1)
    pixels[0, 0] = 0
    path = tmp_path / "p.png"
    path.write_bytes(png(pixels, table(SIGNED["dark"])))
    read_back = matplotlib.imread(path)
    assert read_back[0, 0, 3] == 0 and (read_back[1:, :, 3] == 1).all()
    want = table(SIGNED["dark"])[pixels[1:].astype(int) - 1] / 255
    np.testing.assert_allclose(read_back[1:, :, :3], want, atol=1e-6)


def test_scales_of_tens() -> None:
    assert log_range(np.array([0.02, 3e-5, 0.0, np.nan, np.inf])) == (-5, -1)
    assert log_range(np.array([1.0, 1e-40])) == (-12, 0)
    assert log_range(np.array([1.0])) == (-1, 0)
    assert log_range(np.array([np.nan, 0.0])) == (-1, 0)
    got = log_shades(np.array([[1.0, 1e-4, 0.01, 0.0, 1e-9, np.nan, np.inf]]), -4, 0)
    assert got.tolist() == [[255, 1, 128, 1, 1, 0, 0]]


# --- The page -----------------------------------------------------------------------------------

VOID = {"meta", "img", "source", "rect", "path", "circle"}  # the last ones close themselves


class Checked(HTMLParser):
    """Reads a page; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def text(self) -> str:
        return "".join(data for tag, data in self.texts if tag != "style")


def assert_self_contained(text: str) -> Checked:
    checked = Checked(text)
    for tag, attributes in checked.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"href", "action", "data"}
            if name in ("src", "srcset"):
                assert value is not None
                image = value.removeprefix("data:image/png;base64,")
                assert image != value
                decoded(base64.b64decode(image, validate=True))
            assert name != "style" or not re.search(r"url|:/", value or "")
    (style,) = (data for tag, data in checked.texts if tag == "style")
    assert not re.search(r"url|@import|:/|expression", style)
    for tag, attributes in checked.tags:
        if tag in ("path", "circle", "rect", "text"):
            assert not re.search("nan|inf", " ".join(str(v) for v in attributes.values()))
    return checked


def test_a_page_has_all_there_is() -> None:
    layers = [strand("0.lstm l0", "LSTM"), strand("0.lstm l1", "LSTM", 3.0), strand("1.gru", "GRU")]
    layers[2].dead[1] = 0.5
    checked = assert_self_contained(page(record(*layers, tokens=NAUGHTY), "my run"))
    text = checked.text()
    for heading in (
        "my run", "Loss and metrics", "Gradient flow", "Gates and units", "Hidden states",
        "Spectral radius of the recurrent matrices", "The layers in epoch 2",
        "Vanishing gradient in 0.lstm l1", "Dead units",
    ):  # fmt: skip
        assert heading in text
    assert "How far back" not in text
    labels = [v for _, a in checked.tags if (v := a.get("aria-label") or a.get("alt"))]
    assert {"loss", "accuracy", "0.lstm l0", "share of dead units"} <= set(labels)
    assert sum("gradient flow of" in label for label in labels) == 3
    assert sum(label.startswith("h of") for label in labels) == 6
    assert sum(label.startswith("f, forget gate") for label in labels) == 2
    assert sum("how far h moves" in label for label in labels) == 6
    both = [a["media"] for tag, a in checked.tags if tag == "source"]
    assert set(both) == {"(prefers-color-scheme: dark)"} and len(both) == 3 + 6 + 6


def test_a_page_of_a_loss_at_every_step_shows_reach() -> None:
    checked = assert_self_contained(page(record(strand(), every_step=True), "r"))
    assert "How far back a gradient reaches" in checked.text()
    assert sum(a.get("aria-label") == "0.rnn" for _, a in checked.tags) == 3


def test_what_users_give_is_escaped() -> None:
    made = record(strand('<i>"0"</i>'), tokens=NAUGHTY, layers=["<u>RNN</u>"])
    for logs in made.logs:
        logs['<img src="http://x">'] = 1.0
    checked = assert_self_contained(page(made, "<h1>run & co</h1>"))
    plain = {tag for tag, attributes in checked.tags if not attributes}
    assert not {"i", "u", "script"} & plain and "img" not in plain
    titles = [a["title"] for tag, a in checked.tags if tag == "span" and "title" in a]
    assert titles == NAUGHTY * 2
    shown = [text for tag, text in checked.texts if text in ("<b>", "␣", "↵", "∅", "a␣b")]
    assert len(shown) == 2 * 5
    assert "<h1>run & co</h1>" in checked.text() and "<u>RNN</u>" in checked.text()
    bold = [text for tag, text in checked.texts if tag == "b"]
    assert '<img src="http://x">' in bold and '<i>"0"</i>' in bold


def test_pages_of_little_and_of_odd_numbers() -> None:
    bad = strand()
    bad.flow = [np.full(60, math.nan)] * 2
    bad.radii = [np.array([math.nan])] * 2
    bad.low = bad.high = [np.array([math.nan])] * 2
    bad.moved = [math.nan] * 2
    bad.states = [np.full((10, 8), math.nan, "float32")] * 2
    made = record(bad)
    made.logs[1] = {"loss": math.nan, "val_loss": math.inf, "accuracy": -math.inf}
    assert "not a finite number" in assert_self_contained(page(made, "r")).text()
    for little in (
        record(seen=[], shown=[]),
        record(seen=[], shown=[], epochs=[], logs=[]),
        record(strand(probe=False)),
        record(strand(epochs=1)),
        record(strand(time=1)),
        record(strand(steps=[0, 0], flow=[np.zeros(0)] * 2)),
        record(strand(steps=[0, 3], flow=[np.zeros(0), np.zeros(3)])),
        record(strand(time=1000), first_step=7),
        record(strand(activations=["identity"])),
        record(strand(activations=["relu"], high=[np.array([math.nan])] * 2)),
        record(*(strand(f"{k}.rnn") for k in range(12))),
    ):
        assert_self_contained(page(little, "r"))


def test_a_page_s_pictures_are_the_record_s_numbers() -> None:
    made = strand(time=4)
    made.flow = [np.array([1.0, 1e-2, 1e-4, 0.0]), np.array([1.0, 1.0, 1.0, 1.0])]
    text = page(record(made), "r")
    first = re.search(r'<img src="data:image/png;base64,([^"]*)"', text)
    assert first is not None
    pixels, palette, _ = decoded(base64.b64decode(first[1]))
    assert pixels.tolist() == [[1, 1, 128, 255], [255] * 4]  # time runs to the right
    np.testing.assert_array_equal(palette[1:], table(STRENGTH["light"]))
    states = [re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="h of', text)][0]
    pixels, _, _ = decoded(base64.b64decode(states[0]))
    h = made.states[0].T.astype(np.float64)
    np.testing.assert_array_equal(pixels, shades(h, -np.abs(h).max(), np.abs(h).max()))


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    model = fr.Sequential(
        [fr.Embedding(9, 4, seed=0), fr.GRU(4, 5, seed=0), fr.Dense(5, 9, seed=0)]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = rng.integers(0, 9, (6, 7))
    folder = tmp_path / "my run"
    monitor = Monitor(folder, probe=x[0], tokens=["<b>", *"cdefgh"])
    model.fit(x, x, epochs=3, callbacks=[monitor], seed=0)
    return folder


def test_the_command_writes_a_page(run: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["report", str(run)]) == 0
    printed, err = capsys.readouterr()
    *said, saved = printed.splitlines()
    assert err == "" and saved == f"saved     {run / 'report.html'}"
    assert [line.split()[0] for line in said] == [one.level for one in findings(read(run))]
    text = (run / "report.html").read_text("utf-8")
    assert "my run" in assert_self_contained(text).text()
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert out.read_text("utf-8") == text  # the same run, the same page


def test_the_function_writes_it_too(run: Path) -> None:
    path, kept = report.write(run)
    assert path == run / "report.html" and kept.epochs == [0, 1, 2]


def test_the_command_s_errors_are_one_line(run: Path, tmp_path: Path, capsys: Output) -> None:
    assert "No such file or directory" in refused(capsys, "report", tmp_path / "none")
    assert "monitor.safetensors: No such file" in refused(capsys, "report", tmp_path)
    assert "there is no folder" in refused(capsys, "report", run, "--out", tmp_path / "no" / "p")
    assert "not an ordinary file" in refused(capsys, "report", run, "--out", tmp_path)
    assert "the following arguments are required: RUN" in refused(capsys, "report")
    kept = (run / "monitor.safetensors").read_bytes()
    (run / "monitor.safetensors").write_bytes(kept[:-50])
    assert "truncated" in refused(capsys, "report", run)
    fr.Sequential([fr.Dense(1, 1)]).save(run / "monitor.safetensors")
    assert "not what a Monitor has written" in refused(capsys, "report", run)
    assert not (run / "report.html").exists()
