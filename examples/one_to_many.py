"""One to many: a melody from one note.

The corpus is ten tunes of the public domain, written below as notes: a pitch, and after a colon how
long it lasts, in quarter notes, where it is not one. An LSTM learns to name the note that follows
the notes so far. Then it is given a single note, draws the next, is given that in turn, and so on
to the note that ends a tune: `model.step`, from a state to the next. The temperature divides the
logits before the draw: at 0 the likeliest note is taken always, and the network plays a tune that
it knows by heart; the higher the temperature, the more it makes up. Counted for that: how many of
the melodies' runs of four notes are to be found in the corpus.

    python examples/one_to_many.py [--out FOLDER]     (seconds)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import picture

import fastrnn as fr

TUNES = {
    "Ode to Joy": """E4 E4 F4 G4 | G4 F4 E4 D4 | C4 C4 D4 E4 | E4:1.5 D4:.5 D4:2 | E4 E4 F4 G4 |
        G4 F4 E4 D4 | C4 C4 D4 E4 | D4:1.5 C4:.5 C4:2 | D4 D4 E4 C4 | D4 E4:.5 F4:.5 E4 C4 |
        D4 E4:.5 F4:.5 E4 D4 | C4 D4 G3:2 | E4 E4 F4 G4 | G4 F4 E4 D4 | C4 C4 D4 E4 |
        D4:1.5 C4:.5 C4:2""",
    "Frère Jacques": """C4 D4 E4 C4 | C4 D4 E4 C4 | E4 F4 G4:2 | E4 F4 G4:2 |
        G4:.5 A4:.5 G4:.5 F4:.5 E4 C4 | G4:.5 A4:.5 G4:.5 F4:.5 E4 C4 | C4 G3 C4:2 | C4 G3 C4:2""",
    "Twinkle, twinkle": """C4 C4 G4 G4 | A4 A4 G4:2 | F4 F4 E4 E4 | D4 D4 C4:2 | G4 G4 F4 F4 |
        E4 E4 D4:2 | G4 G4 F4 F4 | E4 E4 D4:2 | C4 C4 G4 G4 | A4 A4 G4:2 | F4 F4 E4 E4 |
        D4 D4 C4:2""",
    "Mary had a little lamb": """E4 D4 C4 D4 | E4 E4 E4:2 | D4 D4 D4:2 | E4 G4 G4:2 |
        E4 D4 C4 D4 | E4 E4 E4 E4 | D4 D4 E4 D4 | C4:4""",
    "Au clair de la lune": """C4 C4 C4 D4 | E4:2 D4:2 | C4 E4 D4 D4 | C4:4 | C4 C4 C4 D4 |
        E4:2 D4:2 | C4 E4 D4 D4 | C4:4 | D4 D4 D4 D4 | A3:2 A3:2 | D4 C4 B3 A3 | G3:4 |
        C4 C4 C4 D4 | E4:2 D4:2 | C4 E4 D4 D4 | C4:4""",
    "London Bridge": """G4:1.5 A4:.5 G4 F4 | E4 F4 G4:2 | D4 E4 F4:2 | E4 F4 G4:2 |
        G4:1.5 A4:.5 G4 F4 | E4 F4 G4:2 | D4:2 G4:2 | E4 C4:3""",
    "Row, row, row your boat": """C4:1.5 C4:1.5 | C4 D4:.5 E4:1.5 | E4 D4:.5 E4 F4:.5 | G4:3 |
        C5:.5 C5:.5 C5:.5 G4:.5 G4:.5 G4:.5 | E4:.5 E4:.5 E4:.5 C4:.5 C4:.5 C4:.5 |
        G4 F4:.5 E4 D4:.5 | C4:3""",
    "Jingle Bells": """E4 E4 E4:2 | E4 E4 E4:2 | E4 G4 C4:1.5 D4:.5 | E4:4 | F4 F4 F4:1.5 F4:.5 |
        F4 E4 E4 E4:.5 E4:.5 | E4 D4 D4 E4 | D4:2 G4:2 | E4 E4 E4:2 | E4 E4 E4:2 |
        E4 G4 C4:1.5 D4:.5 | E4:4 | F4 F4 F4:1.5 F4:.5 | F4 E4 E4 E4:.5 E4:.5 | G4 G4 F4 D4 |
        C4:4""",
    "Good King Wenceslas": """C4 C4 C4 D4 | C4 C4 G3:2 | A3 G3 A3 B3 | C4:2 C4:2 | C4 C4 C4 D4 |
        C4 C4 G3:2 | A3 G3 A3 B3 | C4:2 C4:2 | G4 F4 E4 D4 | E4 D4 C4:2 | A3 G3 A3 B3 |
        C4:2 C4:2 | G3 G3 A3 B3 | C4 C4 D4:2 | G4 F4 E4 D4 | C4:2 F4:2 | C4:4""",
    "Hänschen klein": """G4 E4 E4:2 | F4 D4 D4:2 | C4 D4 E4 F4 | G4 G4 G4:2 | G4 E4 E4:2 |
        F4 D4 D4:2 | C4 E4 G4 G4 | C4:4 | D4 D4 D4 D4 | D4 E4 F4:2 | E4 E4 E4 E4 | E4 F4 G4:2 |
        G4 E4 E4:2 | F4 D4 D4:2 | C4 E4 G4 G4 | C4:4""",
}  # fmt: skip
CORPUS = {name: [n for n in tune.split() if n != "|"] for name, tune in TUNES.items()}
END = "end"  # what follows the last note of a tune
NOTES = [*sorted({note for tune in CORPUS.values() for note in tune}), END]
RUN = 4  # notes
EPOCHS = 80
SEED_NOTE = "C4"  # that four of the tunes begin with
TEMPERATURES = (0.0, 1.0, 1.5, 2.0)


def train(epochs: int) -> tuple[fr.Sequential, float]:
    """The network, and how many of the notes of the corpus it names right."""
    ids = [np.array([NOTES.index(note) for note in [*tune, END]]) for tune in CORPUS.values()]
    model = fr.Sequential(
        [
            fr.Embedding(len(NOTES), 32, seed=0),
            fr.LSTM(32, 96, unit_forget_bias=True, seed=0),
            fr.Dense(96, len(NOTES), seed=0),
        ]
    )
    model.compile(fr.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    x, y = [tune[:-1] for tune in ids], [tune[1:] for tune in ids]
    model.fit(x, y, epochs=epochs, batch_size=5, seed=0, verbose=0)
    return model, model.evaluate(x, y, return_dict=True)["accuracy"]


def play(model: fr.Sequential, first: str, temperature: float, seed: int) -> list[str]:
    """A melody from its first note on, of at most 64 notes."""
    rng = np.random.default_rng(seed)
    melody, state = [first], model.initial_state(1)
    while len(melody) < 64:
        logits, state = model.step(np.array([NOTES.index(melody[-1])]), state)
        scores = logits[0].astype(np.float64)
        if temperature == 0.0:
            drawn = scores.argmax()
        else:
            weights = np.exp((scores - scores.max()) / temperature)
            drawn = rng.choice(len(NOTES), p=weights / weights.sum())
        if NOTES[drawn] == END:
            break
        melody.append(NOTES[drawn])
    return melody


def runs(melody: list[str]) -> list[tuple[str, ...]]:
    """All its runs of `RUN` notes."""
    return [tuple(melody[i : i + RUN]) for i in range(len(melody) - RUN + 1)]


KNOWN = {name: set(runs(tune)) for name, tune in CORPUS.items()}


def known(melodies: list[list[str]]) -> float:
    """The share of their runs that some tune has."""
    found = [any(run in tune for tune in KNOWN.values()) for m in melodies for run in runs(m)]
    return float(np.mean(found))


def origins(melody: list[str]) -> list[str | None]:
    """For each note the tune that has a run of the melody with it; the one before's if it may."""
    found: list[str | None] = [None] * len(melody)
    for i, run in enumerate(runs(melody)):
        names = [name for name in KNOWN if run in KNOWN[name]]
        if names:
            name = found[i] if found[i] in names else names[0]
            found[i + RUN - 1] = name
            for j in range(i, i + RUN - 1):
                found[j] = found[j] or name
    return found


def pitch(note: str) -> int:
    """Semitones from C0 up."""
    return {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[note[0]] + 12 * int(note[1])


def duration(note: str) -> float:
    """In quarter notes."""
    return float(note.partition(":")[2] or 1)


def draw(out: Path, melodies: dict[float, list[str]]) -> None:
    """A piano roll for each temperature, coloured by the tune that a note's run is from."""
    figure = picture.figure(10, 5.6)
    palette = (
        picture.BLUE, picture.ORANGE, picture.GREEN, "#7d5ba6", "#c9a227", "#b8394b", "#4aa3a8",
        "#9c6644", "#d98ca0", "#5c7cfa",
    )  # fmt: skip
    colors = dict(zip(CORPUS, palette, strict=True))
    bars = {}  # one of each tune that is heard
    for axes, (temperature, melody) in zip(
        figure.subplots(len(melodies), 1, sharex=True), melodies.items(), strict=True
    ):
        start = 0.0
        for note, origin in zip(melody, origins(melody), strict=True):
            color = colors[origin] if origin else "#c3c8ce"
            long = duration(note)
            bars[origin or "in no tune"] = axes.barh(
                pitch(note), long - 0.08, left=start, height=1.3, color=color
            )
            start += long
        axes.set_yticks(
            [pitch(name) for name in ("G3", "C4", "G4", "C5")], ["G3", "C4", "G4", "C5"]
        )
        axes.set(ylim=(41.5, 61.5))
        picture.dress(axes, title=f"temperature {temperature:g}")
    axes.set_xlabel("quarter notes", color=picture.INK)
    figure.legend(
        bars.values(), bars, loc="outside right upper", frameon=False, labelcolor=picture.INK,
        handlelength=1.0, title="runs of four notes from", alignment="left",
    )  # fmt: skip
    picture.save(figure, out, __file__)


def main(out: Path, quick: bool = False) -> dict[str, float]:
    """The accuracy; by temperature, the share of runs of notes that the corpus has; whether the
    melody of temperature 0 is a tune of the corpus."""
    model, accuracy = train(EPOCHS)
    figures = {"accuracy": accuracy}
    print(f"notes of the corpus named right, from those before: {100 * accuracy:.0f} %")
    print("temperature   runs in the corpus   a melody")
    melodies = {}
    for temperature in TEMPERATURES:
        several = [play(model, SEED_NOTE, temperature, seed) for seed in range(20)]
        share = figures[f"{temperature:g}"] = known(several)
        melodies[temperature] = several[0]
        print(f"{temperature:8g}{100 * share:18.0f} %          {' '.join(several[0][:12])} ...")
    by_heart = [name for name, tune in CORPUS.items() if tune == melodies[0.0]]
    figures["tunes played by heart"] = len(by_heart)
    print(
        f"at temperature 0, from {SEED_NOTE} to the end: {by_heart[0] if by_heart else 'no tune'}"
    )
    draw(out, melodies)
    return figures


if __name__ == "__main__":
    picture.run(main)
