"""Many to one: is a review for or against? Embedding, LSTM, one output with a sigmoid.

The reviews come from a small grammar. A clause praises or blames something, and "not", "never" or
"hardly" turn one into the other; of two clauses with "but" between them the second one counts, of
two with "although" the first. So the words alone do not tell, their order does: beside the network
stands a logistic regression on how often each word occurs, trained on the same reviews.

The network reads reviews of any length, and its state after any word has an opinion already: the
picture follows it, word by word.

    python examples/many_to_one.py [--out FOLDER] [--quick]     (seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Labels = NDArray[np.float32]

THINGS = ("the film", "the plot", "the acting", "the music", "the ending", "the book", "the cast")
GOOD = ("good", "great", "wonderful", "funny", "moving", "clever", "gripping")
BAD = ("bad", "awful", "boring", "dull", "silly", "slow", "tiresome")
PLAIN = ("", "really ", "quite ", "very ")
NEGATED = ("not ", "never ", "hardly ", "not really ", "not very ")
JOINED = ("", "but", "although")  # "": a clause alone
SHOWN = (
    "the plot is very silly but the acting is not bad",
    "the plot is very silly but the acting is not good",
    "the plot is very silly although the acting is not bad",
    "the music was wonderful although the ending seems really slow",
)


def clause(rng: np.random.Generator) -> tuple[str, bool]:
    """A clause, and whether it praises."""
    praise, negated = rng.random() < 0.5, rng.random() < 0.3
    degree = rng.choice(NEGATED if negated else PLAIN)
    word = rng.choice(GOOD if praise else BAD)
    verb = rng.choice(("is", "was", "seems"))
    return f"{rng.choice(THINGS)} {verb} {degree}{word}", praise != negated


def review(rng: np.random.Generator) -> tuple[str, bool]:
    """A review, and whether it is for what it is about."""
    (one, first), (two, second) = clause(rng), clause(rng)
    word = rng.choice(JOINED)
    text = f"{one} {word} {two}" if word else one
    return text, second if word == "but" else first


def reviews(rows: int, seed: int) -> tuple[list[str], Labels]:
    """Texts, and labels (rows, 1), 1 for praise."""
    rng = np.random.default_rng(seed)
    texts, labels = zip(*(review(rng) for _ in range(rows)), strict=True)
    return list(texts), np.array(labels, np.float32)[:, None]


def counts(ids: list[NDArray[np.int64]], words: int) -> NDArray[np.float32]:
    """How often each word occurs in each review, (reviews, words)."""
    return np.array([np.bincount(row, minlength=words) for row in ids], np.float32)


def opinions(model: fr.Sequential, ids: NDArray[np.int64]) -> list[float]:
    """The probability of praise after every word."""
    state, found = model.initial_state(1), []
    for word in ids:
        y, state = model.step(np.array([word]), state)
        found.append(float(y[0, 0]))
    return found


def draw(out: Path, model: fr.Sequential, vocabulary: fr.data.WordVocabulary) -> None:
    """The probability of praise along some reviews, one above the other."""
    figure = picture.figure(9, 6.4)
    for axes, text in zip(figure.subplots(len(SHOWN), 1), SHOWN, strict=True):
        values = opinions(model, vocabulary.encode(text))
        places = np.arange(len(values))
        colors = [picture.BLUE if value > 0.5 else picture.ORANGE for value in values]
        axes.bar(places, np.array(values) - 0.5, bottom=0.5, width=0.8, color=colors)
        axes.axhline(0.5, color=picture.INK, linewidth=0.8)
        picture.dress(axes)
        axes.set_xticks(places, text.split())
        axes.set(xlim=(-0.5, 10.5), ylim=(-0.03, 1.03), yticks=(0, 1))
        axes.grid(visible=False)
    figure.suptitle(
        "probability that the review praises, after every word", x=0.01, ha="left",
        color=picture.INK, fontsize=12,
    )  # fmt: skip
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """Accuracy on reviews that were not trained on, of the network and of the regression."""
    (texts, labels), (held_out, truth) = reviews(4000, seed=0), reviews(1000, seed=1)
    vocabulary = fr.data.WordVocabulary.of(texts)
    x, x_val = vocabulary.encode_all(texts), vocabulary.encode_all(held_out)
    words = len(vocabulary)

    regression = fr.Sequential([fr.Dense(words, 1, "sigmoid", seed=0)])
    model = fr.Sequential(
        [
            fr.Embedding(words, 32, seed=0),
            fr.LSTM(32, 128, return_sequences=False, unit_forget_bias=True, seed=0),
            fr.Dense(128, 1, "sigmoid", seed=0),
        ]
    )
    regression.compile(fr.Adam(0.01), "binary_crossentropy", ["accuracy"])
    model.compile("adam", "binary_crossentropy", ["accuracy"])
    regression.fit(counts(x, words), labels, epochs=20, seed=0, verbose=0)
    history = model.fit(
        x, labels, epochs=6 if quick else 10, seed=0, validation_data=(x_val, truth), verbose=0
    )  # fmt: skip
    print("epoch   loss   accuracy   on other reviews")
    for epoch, *row in zip(history.epoch, *history.history.values(), strict=True):
        loss, accuracy, _, other = row
        print(f"{epoch + 1:4}{loss:9.3f}{100 * accuracy:8.1f} %{100 * other:14.1f} %")
    figures = {
        "regression": regression.evaluate(counts(x_val, words), truth)[1],
        "LSTM": model.evaluate(x_val, truth)[1],
    }
    for name, accuracy in figures.items():
        print(f"{name}: {100 * accuracy:.1f} % of {len(truth)} other reviews")
    for text in SHOWN:
        value = opinions(model, vocabulary.encode(text))[-1]
        print(f"{100 * value:5.1f} %  {text}")
    draw(out, model, vocabulary)
    return figures


if __name__ == "__main__":
    picture.run(main)
