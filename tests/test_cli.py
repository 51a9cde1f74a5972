"""The command: what it prints and writes, and one line for everything that can be got wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastrnn import charmodel, demo
from fastrnn.charmodel import CharModel
from fastrnn.cli import main
from fastrnn.comparison import Comparison
from fastrnn.data import Vocabulary

Output = pytest.CaptureFixture[str]
SMALL = ["--hidden", "8", "--embedding", "4", "--batch", "4", "--time", "10", "--epochs", "2"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 20, encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    CharModel.new(Vocabulary("\n abc"), hidden=4, embedding=3, seed=0).save(path)
    return path


def refused(capsys: Output, *arguments: object) -> str:
    """The one line with which the command refuses; nothing else is printed."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and err.endswith("\n")
    return err


# train --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_train_writes_a_model_that_sample_reads(
    cell: str, text: Path, tmp_path: Path, capsys: Output
) -> None:
    out = tmp_path / "m.safetensors"
    options = ["--cell", cell, "--layers", "2", "--dropout", "0.1", "--out", str(out)]
    assert main(["train", str(text), *SMALL, *options]) == 0
    printed, err = capsys.readouterr()
    assert err == ""  # no bar where there is no terminal
    lines = printed.splitlines()
    assert lines[0].startswith("text ") and "880 characters, 28 different, 88 held out" in lines[0]
    assert f"2 x {cell.upper()} 8" in lines[1]
    for epoch, line in enumerate(lines[2:4], start=1):
        assert re.fullmatch(
            rf"epoch {epoch}/2 +training \d\.\d+, validation \d\.\d+ nats "
            r"\(\d\.\d+ bits\); \S+ characters/s",
            line,
        )
    assert lines[4] == f"saved     {out}"

    assert main(["sample", str(out), "--prompt", "the ", "--length", "30", "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("the ") and len(first) == 4 + 30 + 1
    main(["sample", str(out), "--prompt", "the ", "--length", "30", "--seed", "1"])
    assert capsys.readouterr().out == first
    main(["sample", str(out), "--prompt", "the ", "--length", "30", "--seed", "2"])
    assert capsys.readouterr().out != first


def test_train_learns(text: Path, tmp_path: Path, capsys: Output) -> None:
    arguments = ["train", text, *SMALL, "--epochs", 20, "--learning-rate", 0.03, "--out"]
    assert main([str(argument) for argument in [*arguments, tmp_path / "m"]]) == 0
    found = re.findall(r"training (\S+), validation (\S+) nats", capsys.readouterr().out)
    first, last = [[float(value) for value in values] for values in (found[0], found[-1])]
    assert first[0] > 2.5
    assert max(last) < 1.0


def test_the_same_seed_trains_the_same_model(text: Path, tmp_path: Path) -> None:
    def trained(seed: int) -> bytes:
        out = tmp_path / "m"
        main(["train", str(text), *SMALL, "--epochs", "1", "--seed", str(seed), "--out", str(out)])
        return out.read_bytes()

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


def test_train_names_the_model_after_the_text(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["train", str(text), *SMALL, "--validation", "0"]) == 0
    assert [path.name for path in folder.iterdir()] == ["text.safetensors"]


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "No such file or directory"),
        (b"", "the file is empty"),
        (b"\xff\xfe" * 500, r"not UTF-8 text \(byte 0xff at 0\)"),
        (b"ab" * 15, "a text of 27 characters is too short for 4 rows of 10 steps.* 41 or more"),
        (b"a", "a text of 0 characters is too short"),
    ],
)
def test_train_refuses_a_bad_text(
    content: bytes | None, reason: str, tmp_path: Path, capsys: Output
) -> None:
    path, out = tmp_path / "t.txt", tmp_path / "m"
    out.write_bytes(b"precious")
    if content is not None:
        path.write_bytes(content)
    err = refused(capsys, "train", path, *SMALL, "--out", out)
    assert re.match(rf"fastrnn: {re.escape(str(path))}: {reason}", err)
    assert out.read_bytes() == b"precious"


def test_train_refuses_a_folder_as_text(tmp_path: Path, capsys: Output) -> None:
    assert str(tmp_path) in refused(capsys, "train", tmp_path, "--out", tmp_path / "m")


def test_train_checks_where_to_write_before_it_trains(
    text: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(CharModel, "train", never)
    missing = tmp_path / "missing" / "m"
    assert f"there is no folder {missing.parent}" in refused(
        capsys, "train", text, *SMALL, "--out", missing
    )
    assert "not an ordinary file" in refused(capsys, "train", text, *SMALL, "--out", tmp_path)
    assert "the text itself" in refused(capsys, "train", text, *SMALL, "--out", text)
    assert text.read_text().startswith("the quick")
    assert not missing.parent.exists()


@pytest.mark.parametrize(
    "option, value, wanted",
    [
        ("--hidden", "0", "a whole number from 1 up, got '0'"),
        ("--layers", "two", "a whole number from 1 up, got 'two'"),
        ("--epochs", "-1", "a whole number from 1 up, got '-1'"),
        ("--batch", "1.5", "a whole number from 1 up, got '1.5'"),
        ("--time", "99999999999", "a whole number from 1 up, got '99999999999'"),
        ("--learning-rate", "nan", "a number above 0, got 'nan'"),
        ("--learning-rate", "0", "a number above 0, got '0'"),
        ("--clip", "inf", "a number above 0, got 'inf'"),
        ("--dropout", "1", "a number from 0 to below 1, got '1'"),
        ("--validation", "-0.1", "a number from 0 to below 1, got '-0.1'"),
        ("--seed", "-1", "a whole number from 0 up, got '-1'"),
        ("--cell", "lstn", "invalid choice: 'lstn'"),
    ],
)
def test_train_refuses_bad_numbers(
    option: str, value: str, wanted: str, text: Path, capsys: Output
) -> None:
    err = refused(capsys, "train", text, option, value)
    assert err.startswith(f"fastrnn train: argument {option}: ") and wanted in err


def test_a_diverging_training_writes_nothing(text: Path, tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "m"
    out.write_bytes(b"precious")
    arguments = ["train", str(text), *SMALL, "--learning-rate", "1e38", "--out", str(out)]
    assert main(arguments) == 2
    assert re.fullmatch(
        r"fastrnn: training diverged, .* learning rate.*\n", capsys.readouterr().err
    )
    assert out.read_bytes() == b"precious"


def test_interrupting_is_one_line_and_writes_nothing(
    text: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(charmodel.training, "train_step", interrupt)
    out = tmp_path / "m"
    assert main(["train", str(text), *SMALL, "--out", str(out)]) == 130
    assert capsys.readouterr().err == "fastrnn: interrupted\n"
    assert not out.exists()


def test_a_full_disk_keeps_the_old_model(
    text: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "m"
    out.write_bytes(b"precious")
    assert main(["train", str(text), *SMALL, "--out", str(out)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"


# sample -------------------------------------------------------------------------------------------


def test_sample_starts_at_a_line_without_a_prompt(model: Path, capsys: Output) -> None:
    assert main(["sample", str(model), "--length", "20", "--temperature", "0"]) == 0
    first = capsys.readouterr().out
    assert len(first) == 21
    expected = CharModel.load(model).sample("\n", 20, temperature=0.0)
    assert first == "".join(expected) + "\n"
    assert main(["sample", str(model), "--length", "0", "--prompt", "ab"]) == 0
    assert capsys.readouterr().out == "ab\n"


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--prompt", "abé"], r"--prompt: character 'é' \(U\+00E9, at 2\) is not one of the 5"),
        (["--length", "-1"], "a whole number from 0 up, got '-1'"),
        (["--temperature", "-0.5"], "a number from 0 up, got '-0.5'"),
        (["--temperature", "nan"], "a number from 0 up, got 'nan'"),
        (["--temperature", "hot"], "a number from 0 up, got 'hot'"),
        (["--seed", "x"], "a whole number from 0 up, got 'x'"),
    ],
)
def test_sample_refuses_bad_options(
    options: list[str], reason: str, model: Path, capsys: Output
) -> None:
    assert re.search(reason, refused(capsys, "sample", model, *options))


def test_sample_refuses_a_bad_model(model: Path, tmp_path: Path, capsys: Output) -> None:
    whole = model.read_bytes()
    bad = tmp_path / "bad"
    for content, reason in [
        (whole[:-1], "not a model file, or a truncated one"),
        (whole[:7], "not a model file, or a truncated one"),
        (b"once upon a time " * 9, "not a model file, or a truncated one"),
        (whole.replace(b'"version":"1"', b'"version":"9"'), "written in version 9"),
        (whole.replace(b"Embedding", b"Entombing"), "'Entombing' is not known"),
        (whole.replace(b'"format":"fastrnn"', b'"format":"fastabc"'), "not one of a fastrnn model"),
    ]:
        assert content != whole
        bad.write_bytes(content)
        assert re.match(
            rf"fastrnn: {re.escape(str(bad))}: .*{reason}", refused(capsys, "sample", bad)
        )
    missing = refused(capsys, "sample", tmp_path / "none")
    assert missing == f"fastrnn: {tmp_path / 'none'}: No such file or directory\n"


# demo ---------------------------------------------------------------------------------------------


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIZE", 120_000)
    comparison = Comparison(fused=0.01, numpy=0.125, difference=1e-6)
    monkeypatch.setattr(demo, "measure", lambda *sizes: comparison)


@pytest.mark.usefixtures("quick_demo")
def test_demo_does_the_main_job(tmp_path: Path, capsys: Output) -> None:
    out = tmp_path / "out"
    assert main(["demo", "--seconds", "0.3", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    labels = [line.split()[0] for line in printed.splitlines() if line.strip()]
    assert labels[:5] == ["text", "model", "training", "held", "speed"]
    bits = re.search(r"held out +(\d\.\d+) bits a character", printed)
    assert bits is not None and 1.0 < float(bits[1]) < 6.6
    assert "a training step takes 10.0 ms, 12.5 times faster than in plain NumPy" in printed
    assert CharModel.load(out / "demo.safetensors").vocabulary.characters.isascii()
    names = sorted(path.name for path in out.iterdir())
    assert names in (["demo.png", "demo.safetensors"], ["demo.safetensors"])


@pytest.mark.usefixtures("quick_demo")
def test_demo_says_when_there_is_no_matplotlib(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError

    monkeypatch.setattr(demo.plots, "training_curve", missing)
    assert main(["demo", "--seconds", "0.1", "--out", str(tmp_path)]) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["demo.safetensors"]


def test_demo_refuses_what_it_cannot_use(
    text: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(text) in refused(capsys, "demo", "--out", text)
    assert "No such file" in refused(capsys, "demo", "--out", tmp_path / "missing" / "out")
    assert "a number above 0, got '0'" in refused(capsys, "demo", "--seconds", "0")
    monkeypatch.setattr(demo.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert "too few sources" in refused(capsys, "demo", "--out", tmp_path / "out")


def test_the_text_of_the_demo_is_the_same_every_time() -> None:
    text, modules = demo.standard_library()
    assert (text, modules) == demo.standard_library()
    assert 500_000 < len(text) <= demo.SIZE
    assert modules > 80
    assert all(text.count(character) >= demo.RARE // 2 for character in set(text))


# The command itself -------------------------------------------------------------------------------


def test_info_names_versions_and_kernels(capsys: Output) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("fastrnn", "instruction set", "threads", "numpy", "python", "safetensors"):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments", [[], ["paint"], ["train"], ["sample"], ["demo", "--what"], ["train", "a", "b"]]
)
def test_a_wrong_command_is_one_line(arguments: list[str], capsys: Output) -> None:
    assert refused(capsys, *arguments).startswith("fastrnn")


@pytest.mark.parametrize("command", [[], ["demo"], ["train"], ["sample"], ["info"]])
def test_help_is_there(command: list[str], capsys: Output) -> None:
    assert main([*command, "--help"]) == 0
    assert "usage: fastrnn" in capsys.readouterr().out


def test_python_m_fastrnn_is_the_command(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "fastrnn", "sample", str(tmp_path / "none")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"fastrnn: {tmp_path / 'none'}: No such file or directory\n"
