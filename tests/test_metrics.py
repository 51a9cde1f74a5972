"""Metrics: values, over batches what they are over all rows, names, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import metrics
from fastrnn.losses import (
    BinaryCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
    softmax,
)
from fastrnn.metrics import BitsPerCharacter, F1Score, Mean, Metric, Perplexity

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 4, (6, 5))
PROBS = softmax(RNG.normal(size=(6, 5, 4)))


def test_metrics_count_the_right() -> None:
    probs = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]])
    labels = np.array([1, 0, 0, 0])
    assert metrics.sparse_categorical_accuracy(labels, probs) == 0.75
    assert metrics.categorical_accuracy(np.eye(3)[labels], probs) == 0.75
    # Keras: above the threshold, and 0.5 is not.
    assert metrics.binary_accuracy([1, 0, 1, 1], np.array([0.6, 0.4, 0.5, 0.9])) == 0.75


def test_accuracy_goes_by_the_shapes() -> None:
    rng = np.random.default_rng(7)
    probs = rng.uniform(0, 1, (4, 3, 5))
    labels = rng.integers(0, 5, (4, 3))
    sparse = metrics.sparse_categorical_accuracy(labels, probs)
    assert sparse == np.mean(probs.argmax(-1) == labels)
    assert metrics.accuracy(labels, probs) == sparse
    assert metrics.accuracy(labels[..., None], probs) == sparse
    assert metrics.accuracy(np.eye(5)[labels], probs) == sparse
    yes = np.array([[0.9], [0.2], [0.7]])
    assert metrics.accuracy([1, 0, 0], yes) == metrics.accuracy([[1], [0], [0]], yes) == 2 / 3
    assert metrics.accuracy([1, 0, 0], yes[:, 0]) == 2 / 3
    with pytest.raises(ValueError, match="y_true: "):
        metrics.accuracy([1, 0], yes)
    with pytest.raises(TypeError, match="y_pred: "):
        metrics.accuracy([1, 0], [1, 0])


def test_perplexity_and_bits_are_of_the_mean() -> None:
    picked = np.take_along_axis(PROBS, LABELS[..., None], axis=-1)
    assert Perplexity()(LABELS, PROBS) == pytest.approx(np.exp(-np.log(picked).mean()))
    assert BitsPerCharacter()(LABELS, PROBS) == pytest.approx(-np.log2(picked).mean())
    logits = np.log(PROBS) + 3.0
    assert Perplexity(from_logits=True)(LABELS, logits) == pytest.approx(
        Perplexity()(LABELS, PROBS)
    )
    uniform = np.full((3, 8), 1 / 8)
    assert Perplexity()([0, 1, 2], uniform) == pytest.approx(8.0)
    assert BitsPerCharacter()([0, 1, 2], uniform) == pytest.approx(3.0)


ALL: list[Metric] = [
    Mean(metrics.accuracy),
    Perplexity(),
    BitsPerCharacter(),
    F1Score(),
    F1Score("micro"),
    F1Score("weighted"),
]


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_batches_add_up_to_all_rows(metric: Metric) -> None:
    whole = metric(LABELS, PROBS)
    parts = [metric.sums(LABELS[rows], PROBS[rows]) for rows in (slice(0, 1), slice(1, 6))]
    assert metric.result(parts[0] + parts[1]) == pytest.approx(whole, rel=1e-12)


def test_f1_of_yes_or_no() -> None:
    yes, said = np.array([1, 1, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.5])
    assert F1Score()(yes, said) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert F1Score()(yes, said[:, None]) == F1Score()(yes, said)
    assert F1Score(threshold=0.4)(yes, said) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert F1Score()(np.zeros(3), np.zeros(3)) == 0.0


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_of_classes(average: str) -> None:
    predicted = PROBS.argmax(-1).ravel()
    true = LABELS.ravel()
    scores, occurs = [], []
    for c in range(4):
        right = np.sum((predicted == c) & (true == c))
        scores.append(2 * right / (np.sum(predicted == c) + np.sum(true == c)))
        occurs.append(np.sum(true == c))
    want = {
        "macro": np.mean(scores),
        "micro": np.mean(predicted == true),
        "weighted": np.average(scores, weights=occurs),
    }
    score = F1Score(average)
    assert score(LABELS, PROBS) == pytest.approx(want[average])
    assert score(np.eye(4)[LABELS], PROBS) == pytest.approx(want[average])


@pytest.mark.torch
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_f1_against_keras(average: str, threshold: float | None, keras: Any) -> None:
    theirs = keras.metrics.F1Score(average=average, threshold=threshold)
    true = np.eye(4)[LABELS.ravel()]
    theirs.update_state(true, PROBS.reshape(-1, 4))
    ours = F1Score(average, threshold)(true, PROBS.reshape(-1, 4))
    assert ours == pytest.approx(float(theirs.result()), rel=1e-5)


def test_names() -> None:
    labels, probs = LABELS[:, 0], PROBS[:, 0]
    for name in ("accuracy", "acc", "sparse_categorical_accuracy"):
        assert metrics.get(name)(labels, probs) == metrics.accuracy(labels, probs)
    assert metrics.get("mse")([0.0, 1.0], np.array([0.0, 3.0])) == 2.0
    assert metrics.get("mae")([0.0, 1.0], np.array([0.0, 3.0])) == 1.0
    assert isinstance(metrics.get("f1"), F1Score) and isinstance(metrics.get("f1_score"), F1Score)
    score = F1Score("micro")
    assert metrics.get(score) is score
    assert metrics.get(metrics.accuracy)(labels, probs) == metrics.accuracy(labels, probs)
    with pytest.raises(ValueError, match=r"metrics: .*got 'f2'"):
        metrics.get("f2")
    for wrong in (None, 3, MeanSquaredError):
        with pytest.raises(TypeError, match="metrics: "):
            metrics.get(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average: expected macro, micro or weighted, got 'none'"):
        F1Score("none")


def test_names_take_logits_where_the_loss_does() -> None:
    yes, logits = np.array([1, 0, 1, 1]), np.array([0.3, 0.2, -0.2, 2.0])
    probs = 1 / (1 + np.exp(-logits))
    loss = BinaryCrossentropy(from_logits=True)
    for name in ("accuracy", "binary_accuracy", "f1", "binary_crossentropy"):
        of_logits, of_probs = metrics.get(name, loss=loss), metrics.get(name)
        assert of_logits(yes, logits) == pytest.approx(of_probs(yes, probs)), name
    sparse = SparseCategoricalCrossentropy(from_logits=True)
    for name in ("perplexity", "bits_per_character", "accuracy", "f1"):
        of_logits, of_probs = metrics.get(name, loss=sparse), metrics.get(name)
        assert of_logits(LABELS, np.log(PROBS)) == pytest.approx(of_probs(LABELS, PROBS)), name
