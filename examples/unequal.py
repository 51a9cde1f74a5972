"""Many to many, of unequal lengths: addition, as text in and text out.

An encoder reads "047+985" character by character; from its final state on, a decoder writes "1032"
and the end (Sutskever, Vinyals and Le, 2014). Neither is told what a digit is. The same network is
trained twice: on the sums as they are, and on sums turned round, "589+740", as those authors turn
their sentences. Then the leading digit of a number is what is read last, right before the answer's
is to be written, and the network learns much sooner. An answer is right where every digit is, and
none of the sums asked was trained on.

    python examples/unequal.py [--out FOLDER] [--quick]     (half a minute)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Ids = NDArray[np.int64]

CHARACTERS = fr.data.Vocabulary("+0123456789")
ROWS, ASKED = 20_000, 500  # sums to train on, and others to ask


def sums() -> tuple[list[str], list[str]]:
    """Different sums of two numbers from 0 to 999, as text, and their answers."""
    pairs = np.random.default_rng(0).permutation(1000 * 1000)[: ROWS + ASKED]
    numbers = [divmod(int(pair), 1000) for pair in pairs]
    return [f"{a:03}+{b:03}" for a, b in numbers], [str(a + b) for a, b in numbers]


def encode(texts: list[str], turned: bool) -> list[Ids]:
    return [CHARACTERS.encode(text[::-1] if turned else text) for text in texts]


def answer(model: fr.EncoderDecoder, questions: list[Ids]) -> list[str]:
    """What the decoder writes, digit by digit the likeliest."""
    return [CHARACTERS.decode(ids) for ids in model.decode(questions, max_steps=4, batch_size=250)]


class RightAnswers(fr.callbacks.Callback):
    """The share of questions that are answered right after every epoch."""

    def __init__(self, questions: list[Ids], answers: list[str]) -> None:
        self.questions, self.answers = questions, answers
        self.shares: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        found = answer(self.model, self.questions)
        self.shares.append(
            float(np.mean([a == b for a, b in zip(found, self.answers, strict=True)]))
        )


def draw(out: Path, shares: dict[str, list[float]]) -> None:
    """The shares of right answers over the epochs."""
    figure = picture.figure(8, 4.5)
    axes = figure.add_subplot()
    for (name, values), color in zip(shares.items(), (picture.BLUE, picture.ORANGE), strict=True):
        percent = 100 * np.array(values)
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, percent, color=color, linewidth=1.8, marker="o", markersize=3.5)
        picture.name_line(axes, f"{name} {percent[-1]:.0f} %", epochs[-1], percent[-1], color)
    axes.set(ylim=(-2, 102), xticks=epochs)
    picture.dress(axes, xlabel="epoch", ylabel="%", title="sums answered right, of 500 new ones")
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, list[float]]:
    """The share of right answers after every epoch, by how the sums are read."""
    texts, answers = sums()
    shares, written = {}, []
    for name, turned in (("turned round", True), ("as they are", False)):
        questions = encode(texts, turned)
        targets = [CHARACTERS.encode(text) for text in answers]
        model = fr.EncoderDecoder(
            len(CHARACTERS), len(CHARACTERS), embedding_dim=32, hidden_size=128, seed=0
        )
        optimizer = fr.Adam(0.005, global_clipnorm=1.0)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        right = RightAnswers(questions[-ASKED:], answers[-ASKED:])
        model.fit(
            questions[:-ASKED], targets[:-ASKED], epochs=2 if quick else 12, batch_size=64, seed=0,
            callbacks=[right], verbose=0,
        )  # fmt: skip
        shares[name] = right.shares
        written.append(answer(model, questions[-6:]))
    print("right after epoch" + "".join(f"{epoch:6}" for epoch in range(2, 13, 2)))
    for name, values in shares.items():
        print(f"{name:17}" + "".join(f"{100 * value:4.0f} %" for value in values[1::2]))
    print(f"\n{'sum':>12}{'answer':>9}{'turned round':>15}{'as it is':>12}")
    for text, true, one, other in zip(texts[-6:], answers[-6:], *written, strict=True):
        print(f"{text:>12}{true:>9}{one:>15}{other:>12}")
    draw(out, shares)
    return shares


if __name__ == "__main__":
    picture.run(main)
