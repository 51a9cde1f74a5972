"""The training run: epochs, order, windows, where batches come from, Ctrl-C, the progress bar."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toys import Linear

import fastrnn as fr
from fastrnn.callbacks import LambdaCallback
from fastrnn.data import Examples
from fastrnn.fit import RowBatches, Run, fit
from fastrnn.history import History
from fastrnn.losses import MeanSquaredError
from fastrnn.optimizers import SGD
from fastrnn.progress import progress_bar
from fastrnn.training import Objective

MSE = Objective(MeanSquaredError())


def test_fit_reports_every_epoch_before_its_updates_and_validation_after() -> None:
    examples = Examples(np.array([[1.0]]), np.array([[0.0]]))
    run = Run(Linear(1.0), MSE, SGD(0.25), 3)  # each step halves w
    batches = RowBatches(examples, 4)
    history = fit(run, batches, validation=batches)
    assert history.epoch == [0, 1, 2]
    assert history.history["loss"] == pytest.approx([1.0, 1 / 4, 1 / 16])
    assert history.history["val_loss"] == pytest.approx([1 / 4, 1 / 16, 1 / 64])


def test_fit_takes_every_row_in_every_epoch_shuffled_or_not() -> None:
    x = np.arange(1.0, 8.0)[:, None]
    seen: list[list[float]] = []

    class Watching(Linear):
        def vjp(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
            seen.append(x[:, 0].tolist())
            return super().vjp(x)

    def order(shuffle: np.random.Generator | None) -> list[float]:
        seen.clear()
        fit(Run(Watching(0.0), MSE, SGD(1e-9), 2, rng=shuffle), RowBatches(Examples(x, x), 3))
        assert [len(rows) for rows in seen] == [3, 3, 1] * 2
        return [row for rows in seen for row in rows]

    assert order(None) == x[:, 0].tolist() * 2
    shuffled = order(np.random.default_rng(0))
    assert sorted(shuffled[:7]) == sorted(shuffled[7:]) == x[:, 0].tolist()
    assert shuffled[:7] != shuffled[7:] != x[:, 0].tolist()
    assert shuffled == order(np.random.default_rng(0))


def test_history_collects_by_name() -> None:
    history = History()
    history.add(0, {"loss": 2.0})
    history.add(1, {"loss": 1.0})
    assert (history.epoch, history.history) == ([0, 1], {"loss": [2.0, 1.0]})


@pytest.mark.parametrize("verbose, shown", [("auto", False), (0, False), (1, True)])
def test_the_bar_is_quiet_unless_asked_for(
    verbose: Any, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = Examples(np.ones((4, 1)), np.zeros((4, 1)))
    fit(Run(Linear(1.0), MSE, SGD(), 2), RowBatches(examples, 2), verbose=verbose)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("epoch 2/2" in err and "loss=" in err) if shown else err == ""


def test_verbose_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="verbose: expected 'auto', 0 or 1, got 2"):
        progress_bar(1, "x", 2)  # type: ignore[arg-type]


# What a model's fit takes ------------------------------------------------------------------


def adder(seed: int = 1, dtype: str = "float64", dropout: float = 0.0) -> fr.Sequential:
    """Sequences (batch, time, 2) to a number for every time step."""
    layers: list[Any] = [fr.GRU(2, 5, dtype=dtype, seed=seed)]
    if dropout:
        layers.append(fr.Dropout(dropout, seed=seed))
    model = fr.Sequential([*layers, fr.Dense(5, 1, dtype=dtype, seed=seed)])
    model.compile(SGD(0.1), "mse", ["mae"])
    return model


RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(10, 7, 2)), RNG.normal(size=(10, 7, 1))


def weights(model: fr.Sequential) -> bytes:
    return b"".join(value.tobytes() for value in model.state_dict().values())


def test_an_iterable_of_batches_is_what_its_arrays_are() -> None:
    arrays, listed, drawn = adder(), adder(), adder()
    history = arrays.fit(X, Y, epochs=3, batch_size=4, shuffle=False)
    batches = [(X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8)]
    assert listed.fit(batches, epochs=3).history == history.history

    def forever() -> Iterator[Any]:
        while True:
            yield from batches

    drawn.fit(forever(), epochs=3, steps_per_epoch=3)
    assert weights(arrays) == weights(listed) == weights(drawn)
    assert listed.evaluate(batches) == pytest.approx(arrays.evaluate(X, Y, 4))


def test_an_iterator_that_runs_out_is_told() -> None:
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    with pytest.raises(ValueError, match="x: expected batches, but the iterator gives none"):
        adder().fit(iter(batches), epochs=2)
    with pytest.raises(ValueError, match=r"expected 3 batches an epoch, .* gives no more"):
        adder().fit(iter(batches), steps_per_epoch=3)
    adder().fit(batches, epochs=2, steps_per_epoch=3)  # a list can be had again
    with pytest.raises(TypeError, match=r"x: expected batches \(x, y\) or .*, got ndarray"):
        adder().fit(list(X))
    with pytest.raises(TypeError, match="y: expected targets, got None"):
        adder().fit(X)
    with pytest.raises(ValueError, match="steps_per_epoch: expected with an iterable"):
        adder().fit(X, Y, steps_per_epoch=3)
    with pytest.raises(ValueError, match="lengths: expected within the batches"):
        adder().fit(batches, lengths=[1])
    with pytest.raises(ValueError, match="validation_split: expected rows"):
        adder().fit(batches, validation_split=0.5)


LENGTHS = np.array([3, 7, 1, 0, 5, 5, 2, 6, 4, 7])
ROWS = [x[:n] for x, n in zip(X, LENGTHS, strict=True)]
TARGETS = [y[:n] for y, n in zip(Y, LENGTHS, strict=True)]


def test_a_list_of_arrays_is_what_padding_by_hand_is() -> None:
    padded, listed = adder(), adder()
    by_hand = padded.fit(X, Y, epochs=2, batch_size=4, lengths=LENGTHS, shuffle=False)
    history = listed.fit(ROWS, TARGETS, epochs=2, batch_size=4, shuffle=False, bucket=False)
    assert history.history["loss"] == pytest.approx(by_hand.history["loss"], rel=1e-12)
    for name, value in listed.state_dict().items():
        np.testing.assert_allclose(value, padded.state_dict()[name], rtol=1e-9, atol=1e-12)
    want = padded.evaluate(X, Y, lengths=LENGTHS)
    assert listed.evaluate(ROWS, TARGETS, batch_size=3) == pytest.approx(want, rel=1e-8)
    outputs = listed.predict(ROWS, batch_size=3)
    whole = padded.predict(X, lengths=LENGTHS)
    for row, n in enumerate(LENGTHS):
        np.testing.assert_allclose(outputs[row], whole[row, :n], rtol=1e-8, atol=1e-12)


def test_lists_are_bucketed_and_all_rows_taken() -> None:
    seen: list[int] = []

    class Watching(fr.Sequential):
        def vjp(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
            seen.append(x.shape[0] * x.shape[1] - int(np.sum(lengths)))
            return super().vjp(x, state, lengths)

    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 2)) for n in rng.integers(1, 50, 200)]
    targets = [row[:, :1] for row in rows]
    padding = []
    for bucket in (True, False):
        seen.clear()
        model = Watching([fr.GRU(2, 5, dtype="float64"), fr.Dense(5, 1, dtype="float64")])
        model.compile("sgd", "mse")
        model.fit(rows, targets, batch_size=8, bucket=bucket, seed=0)
        assert len(seen) == 25
        padding.append(sum(seen))
    assert padding[0] < padding[1] / 5


def test_targets_of_a_list_have_its_lengths() -> None:
    with pytest.raises(ValueError, match=r"y\[1\]: expected 7 time steps as x\[1\] has, got 6"):
        adder().fit(ROWS, [TARGETS[0], TARGETS[1][:6], *TARGETS[2:]])
    with pytest.raises(ValueError, match="y: expected 10 rows as x has"):
        adder().fit(ROWS, TARGETS[:9])


def test_sample_weight_is_as_if_rows_came_more_often() -> None:
    weighed, repeated = adder(), adder()
    often = np.array([2.0, 1.0, 0.0, 1.0] + [1.0] * 6)
    rows = np.repeat(np.arange(10), often.astype(int))
    weighed.fit(X, Y, sample_weight=often, shuffle=False)
    repeated.fit(X[rows], Y[rows], shuffle=False)
    for name, value in weighed.state_dict().items():
        np.testing.assert_allclose(value, repeated.state_dict()[name], rtol=1e-9)
    assert weighed.evaluate(X, Y, sample_weight=often)[0] == pytest.approx(
        weighed.evaluate(X[rows], Y[rows])[0]
    )
    history = adder().fit(X, Y, validation_data=(X, Y, 2 * np.ones(10)), shuffle=False)
    plain = adder().fit(X, Y, validation_data=(X, Y), shuffle=False)
    assert history.history["val_loss"][0] == pytest.approx(2 * plain.history["val_loss"][0])


@pytest.mark.parametrize("ragged", [False, True])
def test_truncated_bptt_is_steps_by_hand_with_the_state_carried(ragged: bool) -> None:
    ours, by_hand = adder(), adder()
    lengths = LENGTHS if ragged else None
    ours.fit(X, Y, batch_size=5, tbptt=3, shuffle=False, lengths=lengths, epochs=2)
    optimizer, loss = SGD(0.1), MeanSquaredError()
    for _ in range(2):
        for rows in (slice(0, 5), slice(5, 10)):
            state = None
            longest = 7 if lengths is None else lengths[rows].max()
            for start in range(0, longest, 3):
                part = slice(start, min(start + 3, 7))
                own = None if lengths is None else (lengths[rows] - start).clip(0, 3)
                if own is not None:
                    own = own.clip(max=part.stop - start)
                by_hand.zero_grad()
                (y, state), pullback = by_hand.vjp(X[rows, part], state, own)
                mask = None if own is None else np.arange(y.shape[1]) < own[:, None]
                pullback(loss.vjp(Y[rows, part], y, mask=mask)[1])
                optimizer.step(by_hand.parameters())
    assert weights(ours) == weights(by_hand)


def test_truncated_bptt_wants_a_target_for_every_step() -> None:
    model = fr.Sequential([fr.GRU(2, 5, return_sequences=False), fr.Dense(5, 1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"y: expected \(10, 7\), a target for every time step"):
        model.fit(X, Y[:, 0], tbptt=3)


def test_files_are_read_batch_by_batch(tmp_path: Any) -> None:
    for name, array in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
    x, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("x", "y"))
    mapped, arrays = adder(), adder()
    mapped.fit(x, y, epochs=2, batch_size=4, seed=0)
    arrays.fit(np.array(x), np.array(y), epochs=2, batch_size=4, seed=0)
    assert weights(mapped) == weights(arrays)
    examples = mapped._examples(x, y, None, None)
    assert np.shares_memory(examples.x, x) and examples.x.dtype == np.float32
    assert examples[:3].x.dtype == np.float64


# Ctrl-C --------------------------------------------------------------------------


def interrupt_at(batch: int) -> LambdaCallback:
    def send(number: int, logs: Any) -> None:
        if number == batch:
            os.kill(os.getpid(), signal.SIGINT)

    return LambdaCallback(on_train_batch_begin=send)


def test_ctrl_c_ends_after_the_running_batch(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted, short = adder(), adder()
    history = interrupted.fit(
        X, Y, epochs=5, batch_size=2, shuffle=False, callbacks=[interrupt_at(2)],
        validation_data=(X, Y),
    )  # fmt: skip
    short.fit(X[:6], Y[:6], batch_size=2, shuffle=False)
    assert weights(interrupted) == weights(short)
    assert history.interrupted and history.epoch == [0]
    assert list(history.history) == ["loss", "mae"]
    assert "ending after this batch" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupted.fit(X, Y).interrupted


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    def twice(number: int, logs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        adder().fit(X, Y, callbacks=[LambdaCallback(on_train_batch_end=twice)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_handlers_and_threads_are_left_alone() -> None:
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    try:
        history = adder().fit(X, Y, batch_size=2, callbacks=[interrupt_at(1)])
        assert caught == [1] and not history.interrupted
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=adder().fit, args=(X, Y))
    thread.start()
    thread.join()
