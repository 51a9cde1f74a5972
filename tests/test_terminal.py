"""What the commands print with."""

from __future__ import annotations

import io
import sys

import pytest

from fastrnn.terminal import Progress, count, emphasis, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "number, text",
    [
        *((0, "0"), (812, "812"), (999.6, "1k"), (1000, "1k"), (48_123, "48.1k")),
        *((99_998, "100k"), (999_499, "999k"), (999_600, "1M"), (3_204_000, "3.2M")),
        (123_456_789, "123M"),
    ],
)
def test_counts_have_three_digits(number: float, text: str) -> None:
    assert count(number) == text


def test_labels_are_bold_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    plain, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", plain)
    line("text", "1 2 3")
    assert plain.getvalue() == "text      1 2 3\n"
    monkeypatch.setattr(sys, "stdout", terminal)
    line("text", "1 2 3")
    assert terminal.getvalue() == "\033[1mtext     \033[0m 1 2 3\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert emphasis("text") == "text"


def test_progress_shows_loss_and_rate_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("training") as progress:
        progress.update(0.25, 4.0, 100)
        assert progress.loss == 4.0
        progress.update(2.0, 2.0, 100)
        assert progress.loss == pytest.approx(0.95 * 4.0 + 0.05 * 2.0)
        progress._bar.refresh()
    assert progress.characters == 200
    assert progress.rate > 0
    shown = terminal.getvalue()
    assert "100%" in shown and "loss 3.900, " in shown and "characters/s" in shown
