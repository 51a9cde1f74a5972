"""Many to many, of equal length: which bases of a DNA sequence belong to a gene?

The rule, a simple one: read from the left; a gene begins with the start codon ATG and goes on in
threes to the first stop codon, TAA, TAG or TGA, with which it ends; without a stop codon in its
frame it is none. The network is to label every base, from sequences and labels alone. So it has to
keep the frame, one of three, over the whole of a gene; and to label A of ATG it must know what
follows. A bidirectional LSTM reads from both ends; beside it stands one that reads from the left.

    python examples/many_to_many.py [--out FOLDER] [--quick]     (half a minute)
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import picture
from numpy.typing import NDArray

import fastrnn as fr

Array = NDArray[np.float32]

BASES, START, STOPS = "ACGT", "ATG", ("TAA", "TAG", "TGA")
CODONS = [codon for codon in map("".join, product(BASES, repeat=3)) if codon not in STOPS]
LENGTH, HIDDEN = 80, 32
SHOWN = 3  # which of the sequences


def sequence(rng: np.random.Generator) -> str:
    """Genes of 3 to 10 codons between start and stop, with 3 to 15 bases between them."""
    text = ""
    while len(text) < LENGTH:
        between = rng.choice(list(BASES), rng.integers(3, 16))
        inside = rng.choice(CODONS, rng.integers(3, 11))
        text += "".join([*between, START, *inside, rng.choice(STOPS)])
    return text[:LENGTH]


def genes(text: str) -> list[slice]:
    """Where the rule finds genes; those that `sequence` made, but chance makes start codons too."""
    found, place = [], 0
    while (start := text.find(START, place)) >= 0:
        place = start + 1
        for at in range(start + 3, len(text) - 2, 3):
            if text[at : at + 3] in STOPS:
                place = at + 3
                found.append(slice(start, place))
                break
    return found


def data(rows: int, seed: int) -> tuple[list[str], Array, Array]:
    """Sequences; one-hot (rows, bases, 4); and labels (rows, bases, 1), 1 within genes."""
    rng = np.random.default_rng(seed)
    texts = [sequence(rng) for _ in range(rows)]
    ids = np.array([[BASES.index(base) for base in text] for text in texts])
    labels = np.zeros((rows, LENGTH, 1), np.float32)
    for row, text in enumerate(texts):
        for gene in genes(text):
            labels[row, gene] = 1
    return texts, np.eye(4, dtype=np.float32)[ids], labels


def network(bidirectional: bool) -> fr.Sequential:
    """A probability for every base."""
    features = 2 * HIDDEN if bidirectional else HIDDEN
    model = fr.Sequential(
        [
            fr.LSTM(4, HIDDEN, bidirectional=bidirectional, unit_forget_bias=True, seed=0),
            fr.Dense(features, 32, "relu", seed=1),
            fr.Dense(32, 1, "sigmoid", seed=2),
        ]
    )
    optimizer = fr.Adam(0.01, global_clipnorm=1.0)
    model.compile(optimizer, "binary_crossentropy", ["accuracy", "f1"])
    return model


def draw(out: Path, text: str, probabilities: dict[str, Array]) -> None:
    """One sequence: its genes in grey, and what each network says of every base."""
    figure = picture.figure(11, 4)
    places = np.arange(len(text))
    for axes, (name, values), color in zip(
        figure.subplots(2, 1, sharex=True), probabilities.items(), (picture.BLUE, picture.ORANGE),
        strict=True,
    ):  # fmt: skip
        for gene in genes(text):
            axes.axvspan(gene.start - 0.5, gene.stop - 0.5, color="#dfe3e8", linewidth=0)
        axes.bar(places, values, width=0.75, color=color)
        picture.dress(axes, ylabel="probability", title=f"{name}; in grey: the genes")
        axes.set_xticks(places, list(text), fontsize=7, family="monospace")
        axes.set(xlim=(-0.7, len(text) - 0.3), ylim=(0, 1.02), yticks=(0, 0.5, 1))
        axes.grid(visible=False, axis="x")
        axes.tick_params(labelbottom=True)
        for gene in genes(text):
            for place in (*range(gene.start, gene.start + 3), *range(gene.stop - 3, gene.stop)):
                axes.get_xticklabels()[place].set_fontweight("bold")
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """Of both networks, on sequences that were not trained on: accuracy over all bases, and the
    share of genes of which the first base was found."""
    rows, epochs = (2500, 10) if quick else (8000, 20)
    _, x, y = data(rows, seed=0)
    texts, x_val, y_val = data(500, seed=1)
    print(f"{100 * y_val.mean():.0f} % of all bases are in genes")
    print(f"{'':20}accuracy      F1   first bases of genes found")
    figures, probabilities = {}, {}
    for name, bidirectional in (("bidirectional", True), ("from the left", False)):
        model = network(bidirectional)
        model.fit(x, y, epochs=epochs, seed=0, verbose=0)
        _, accuracy, f1 = model.evaluate(x_val, y_val)
        predicted = model.predict(x_val)[..., 0]
        firsts = [
            predicted[row, gene.start] > 0.5
            for row, text in enumerate(texts)
            for gene in genes(text)
        ]
        figures |= {name: accuracy, f"{name}, firsts": float(np.mean(firsts))}
        probabilities[name] = predicted[SHOWN]
        print(f"{name:20}{100 * accuracy:6.1f} %{f1:8.3f}{100 * np.mean(firsts):15.0f} %")
    draw(out, texts[SHOWN], probabilities)
    return figures


if __name__ == "__main__":
    picture.run(main)
