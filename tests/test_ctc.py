"""The CTC loss: as Keras and PyTorch have it, masks and weights, in fit, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import losses, reference
from fastrnn.losses import CTC

RNG = np.random.default_rng(2)
LOGITS = RNG.normal(0, 2, (4, 9, 5))
LABELS = np.array([[1, 2, 2, 4], [3, 0, 0, 0], [0, 0, 0, 0], [4, 1, 4, 0]])
COUNTS = np.array([4, 1, 0, 3])
STEPS = np.array([9, 2, 5, 4])
MASK = np.arange(9) < STEPS[:, None]


def test_it_is_the_mean_over_rows() -> None:
    want, gradients = reference.ctc(LOGITS, LABELS, None, COUNTS)
    value, gradient = CTC().vjp(LABELS, LOGITS)
    assert value == CTC()(LABELS, LOGITS) == pytest.approx(want.mean(), rel=1e-12)
    np.testing.assert_allclose(gradient, gradients / 4, rtol=1e-9, atol=1e-14)
    alone = CTC()(LABELS.astype("int32"), LOGITS.astype("float32"))
    assert alone == pytest.approx(want.mean(), rel=1e-6)


def test_a_mask_and_weights() -> None:
    want, gradients = reference.ctc(LOGITS, LABELS, STEPS, COUNTS)
    weights = np.array([1.0, 0.5, -2.0, 0.0])
    y_pred = LOGITS.copy()
    y_pred[~MASK] = np.nan
    value, gradient = CTC().vjp(LABELS, y_pred, weights, MASK)
    assert value == pytest.approx(np.mean(weights * want), rel=1e-12)
    np.testing.assert_allclose(
        gradient, weights[:, None, None] * gradients / 4, rtol=1e-9, atol=1e-14
    )


def test_rows_without_an_alignment() -> None:
    short = np.arange(9) < np.array([4, 2, 5, 4])[:, None]  # 1 2 2 4 wants 5 steps
    with pytest.raises(
        ValueError, match=r"y_true\[0\]: expected labels that 4 time steps can hold"
    ):
        CTC()(LABELS, LOGITS, mask=short)
    value, gradient = CTC(zero_infinity=True).vjp(LABELS, LOGITS, mask=short)
    want, _ = reference.ctc(LOGITS, LABELS, short.sum(axis=1), COUNTS)
    assert np.isinf(want[0]) and value == pytest.approx(want[1:].sum() / 4)
    assert not gradient[0].any() and gradient[1].any()


@pytest.mark.torch
def test_against_torch_and_keras(keras: Any) -> None:
    torch = pytest.importorskip("torch")
    log_probs = torch.tensor(LOGITS).log_softmax(-1).transpose(0, 1)
    each = torch.nn.functional.ctc_loss(
        log_probs,
        torch.tensor(LABELS),
        torch.tensor(STEPS),
        torch.tensor(COUNTS),
        reduction="none",
    )
    assert CTC()(LABELS, LOGITS, mask=MASK) == pytest.approx(float(each.mean()), rel=1e-10)
    theirs = float(keras.losses.CTC()(LABELS[[0, 1, 3]], LOGITS[[0, 1, 3]].astype("float32")))
    assert CTC()(LABELS[[0, 1, 3]], LOGITS[[0, 1, 3]]) == pytest.approx(theirs, rel=1e-5)


def test_a_model_learns_labels_that_are_not_aligned() -> None:
    """Each label is held for some steps; ragged inputs, ragged labels."""
    rng = np.random.default_rng(0)
    x, y = [], []
    for _ in range(150):
        labels = rng.integers(1, 4, rng.integers(1, 5))
        labels = labels[np.append(True, labels[1:] != labels[:-1])]
        held = np.repeat(labels, rng.integers(2, 5, len(labels)))
        x.append(np.eye(4, dtype=np.float32)[held])
        y.append(labels)
    model = fr.Sequential([fr.GRU(4, 24, seed=0), fr.Dense(24, 4, seed=1)])
    model.compile(fr.Adam(0.02), "ctc")
    history = model.fit(x, y, epochs=12, batch_size=10, seed=0)
    assert history.history["loss"][-1] < 0.05 < 1.0 < history.history["loss"][0]
    logits = model.predict(x[:20])
    for labels, row in zip(y[:20], logits, strict=True):
        best = row.argmax(axis=1)
        merged = best[np.append(True, best[1:] != best[:-1])]
        assert merged[merged != 0].tolist() == labels.tolist()


def test_errors() -> None:
    assert isinstance(losses.get("ctc"), CTC)
    for y_true, y_pred, error, message in (
        (LABELS, LOGITS[0], ValueError, r"y_pred: expected \(batch, time, classes\), got \(9, 5\)"),
        (LABELS[:2], LOGITS, ValueError, r"y_true: expected \(4, labels\), got \(2, 4\)"),
        (LABELS + 1, LOGITS, ValueError, "y_true: expected class numbers from 0 to 4, got 5"),
        (LABELS[:, ::-1], LOGITS, ValueError, r"y_true\[1\]: expected 0 after the last label only"),
        (LABELS * 1.0, LOGITS, TypeError, "y_true: expected integer labels, got float64"),
    ):
        with pytest.raises(error, match=message):
            CTC()(y_true, y_pred)
    with pytest.raises(ValueError, match="mask: expected the valid time steps of each row first"):
        CTC()(LABELS, LOGITS, mask=MASK[:, ::-1])
    with pytest.raises(ValueError, match=r"sample_weight: expected shape \(4,\)"):
        CTC()(LABELS, LOGITS, np.ones(3))
    with pytest.raises(TypeError, match="zero_infinity: expected True or False, got 1"):
        CTC(zero_infinity=1)  # type: ignore[arg-type]
