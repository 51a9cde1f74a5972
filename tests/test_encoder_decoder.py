"""EncoderDecoder: what it computes, its gradients, what it learns, and Keras's habits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from pairs import LOSS, SOURCES, TARGETS, compiled, each_kind, model, rows, same

import fastrnn as fr
from fastrnn import config
from fastrnn.data import Pairs, Ragged
from fastrnn.decoding import beam_search
from fastrnn.encoder_decoder import EncoderDecoder

# What it computes ---------------------------------------------------------------------------------


@each_kind
def test_logits_are_those_of_layers_one_after_the_other(cell: str, attention: bool) -> None:
    made = model(cell, attention)
    logits = made(SOURCES, TARGETS)
    assert logits.shape == (4, 7, 4)
    layers: Any = made.layers
    weights: Any = {name: p.data for name, p in made.parameters().items()}
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        memory, state = layers["encoder"](weights["source.weight"][source][None])
        y, _ = layers["decoder"](weights["target.weight"][[3, *target]][None], state)
        if attention:
            y = layers["attention"](y, memory)
        wanted = y[0] @ weights["output.weight"].T + weights["output.bias"]
        np.testing.assert_allclose(logits[row, : len(target) + 1], wanted, atol=1e-12)
    (again, state), _ = made.vjp(made.pairs(SOURCES, TARGETS))
    assert state is None and np.array_equal(again, logits)


@each_kind
def test_a_row_has_the_same_bits_alone_and_step_by_step(cell: str, attention: bool) -> None:
    made = model(cell, attention, hidden_size=33, embedding_dim=20, dtype="float32")
    with config.using(gemm="native"):
        logits = made(SOURCES, TARGETS)
        for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            assert np.array_equal(made([source], [target])[0], logits[row, : len(target) + 1])
        for row, ids in enumerate(made.decode(SOURCES, 6)):
            greedy = made([SOURCES[row]], [ids])[0].argmax(axis=1)
            assert greedy[: len(ids)].tolist() == ids.tolist()
            assert len(ids) == 6 or greedy[-1] == 3


@each_kind
def test_gradients_are_those_of_central_differences(cell: str, attention: bool) -> None:
    made = model(cell, attention)
    (logits, _), pullback = made.vjp(made.pairs(SOURCES, TARGETS))
    dy = np.random.default_rng(1).normal(size=logits.shape)
    assert pullback(dy) is None
    for name, parameter in made.parameters().items():
        start, grad = parameter.data.copy(), parameter.grad
        wanted = np.empty_like(start)
        for place in np.ndindex(start.shape):
            sides = []
            for sign in (1, -1):
                moved = start.copy()
                moved[place] += sign * 1e-6
                parameter.assign(moved)
                sides.append(float(np.sum(dy * made(SOURCES, TARGETS))))
            wanted[place] = (sides[0] - sides[1]) / 2e-6
        parameter.assign(start)
        assert grad is not None and grad.any()
        np.testing.assert_allclose(grad, wanted, atol=2e-8, err_msg=name)
    with pytest.raises(RuntimeError, match="second time"):
        pullback(dy)


@pytest.mark.torch
@pytest.mark.parametrize("gemm", config.GEMMS)
@pytest.mark.parametrize("layers", [1, 2])
@each_kind
def test_loss_and_gradients_are_pytorchs(
    cell: str, attention: bool, layers: int, gemm: str, dtype: np.dtype
) -> None:
    torch = pytest.importorskip("torch")
    made = model(cell, attention, num_layers=layers, hidden_size=17, embedding_dim=9, dtype=dtype)
    kind = torch.float32 if dtype == np.float32 else torch.float64
    weights = {
        name: torch.tensor(p.data.copy(), dtype=kind, requires_grad=True)
        for name, p in made.parameters().items()
    }

    def recurrent(place: str) -> tuple[Any, dict[str, Any]]:
        module = getattr(torch.nn, cell.upper())(9, 17, layers, batch_first=True).to(kind)
        prefix = f"{place}."
        return module, {k.removeprefix(prefix): w for k, w in weights.items() if prefix in k}

    total = torch.zeros((), dtype=kind)
    for source, target in zip(SOURCES, TARGETS, strict=True):  # each row alone: nothing is padded
        x = weights["source.weight"][torch.tensor(source)][None]
        memory, state = torch.func.functional_call(*recurrent("encoder"), (x,))
        x = weights["target.weight"][torch.tensor([3, *target])][None]
        y, _ = torch.func.functional_call(*recurrent("decoder"), (x, state))
        if attention:
            scores = torch.softmax(y @ memory.transpose(1, 2), dim=2)
            both = torch.cat([scores @ memory, y], dim=2)
            y = torch.tanh(torch.nn.functional.linear(both, weights["attention.weight"]))
        logits = torch.nn.functional.linear(y, weights["output.weight"], weights["output.bias"])
        wanted = torch.tensor([*target, 3])
        total = total + torch.nn.functional.cross_entropy(logits[0], wanted, reduction="sum")
    mean = total / sum(len(target) + 1 for target in TARGETS)
    mean.backward()

    made.compile(fr.SGD(1e-30), LOSS)  # a step leaves the gradients, and all but the weights
    with config.using(gemm=gemm):
        history = made.fit(rows(SOURCES), rows(TARGETS), verbose=0)
        value = made.evaluate(rows(SOURCES), rows(TARGETS), batch_size=3)
    bound = 1e-5 if dtype == np.float32 else 1e-12
    assert history.history["loss"] == [pytest.approx(mean.item(), rel=bound)]
    assert value == pytest.approx(mean.item(), rel=bound)
    for name, parameter in made.parameters().items():
        want = weights[name].grad.numpy()
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad, want, atol=bound, err_msg=name)


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attention", "epochs", "rate"), [(False, 8, 0.01), (True, 4, 0.005)])
def test_it_learns_to_reverse(attention: bool, epochs: int, rate: float) -> None:
    """Strings of 1 to 5 digits, of 1 to 8 with attention."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 10, rng.integers(1, 9 if attention else 6)) for _ in range(3300)]
    y = [row[::-1] for row in x]
    made = EncoderDecoder(10, 10, embedding_dim=32, hidden_size=64, attention=attention, seed=1)
    made.compile(fr.Adam(rate), LOSS, ["accuracy"])
    validation = (x[3000:], y[3000:])
    history = made.fit(
        x[:3000], y[:3000], epochs=epochs, seed=0, validation_data=validation, verbose=0
    )
    for beam in (1, 4):
        found = made.decode(x[3000:], 10, beam)
        right = [np.array_equal(a, b) for a, b in zip(found, y[3000:], strict=True)]
        assert np.mean(right) > 0.95
    assert history.history["val_accuracy"][-1] > 0.98
    assert history.history["val_loss"][0] > 0.4 > 0.1 > history.history["val_loss"][-1]


def test_the_end_counts_and_padding_does_not() -> None:
    made = compiled()
    logits = made(SOURCES, TARGETS)
    log_p, right = [], []
    for row, target in enumerate(TARGETS):
        for step, k in enumerate([*target, 3]):
            scores = logits[row, step]
            log_p.append(scores[k] - np.log(np.exp(scores).sum()))
            right.append(scores.argmax() == k)
    for batch_size in (1, 3, 32):
        values = made.evaluate(rows(SOURCES), rows(TARGETS), batch_size, return_dict=True)
        assert values == {
            "loss": pytest.approx(-np.mean(log_p), rel=1e-12),
            "accuracy": pytest.approx(np.mean(right)),
        }


def padded(lists: list[list[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    array = np.full((len(lists), max(map(len, lists)) + 1), padding)
    for row, ids in zip(array, lists, strict=True):
        row[: len(ids)] = ids
    return array, np.array([len(ids) for ids in lists])


def test_lists_and_padded_arrays_train_alike() -> None:
    (x, x_lengths), (y, y_lengths) = padded(SOURCES, 5), padded(TARGETS, 2)
    given: list[tuple[Any, Any, Any]] = [
        (rows(SOURCES), rows(TARGETS), None),
        (SOURCES, TARGETS, None),
        (Ragged(rows(SOURCES)), tuple(TARGETS), None),
        (x, rows(TARGETS), x_lengths),
        (x.astype("uint8"), y.astype("int16"), (x_lengths, y_lengths)),
        (rows(SOURCES), y, (None, y_lengths.tolist())),
    ]
    results = []
    for sources, targets, lengths in given:
        made = compiled()
        history = made.fit(
            sources, targets, epochs=2, batch_size=3, seed=0, lengths=lengths,
            validation_data=(sources, targets), validation_lengths=lengths, verbose=0,
        )  # fmt: skip
        assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
        results.append((history.history, made.state_dict()))
        value = made.evaluate(sources, targets, lengths=lengths)
        assert value[0] == pytest.approx(history.history["val_loss"][-1])  # type: ignore[index]
    for history, weights in results[1:]:
        assert history == results[0][0] and same(weights, results[0][1])
    assert not same(results[0][1], model().state_dict())
    whole = [[*row] for row in x.tolist()]
    assert np.array_equal(model()(x, TARGETS), model()(whole, TARGETS)), "no lengths: all of it"


def test_rows_whose_targets_have_similar_lengths_make_a_batch() -> None:
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 6, rng.integers(1, 30)) for _ in range(64)]
    y = [row % 3 for row in x]
    seen: list[tuple[int, int]] = []

    class Watched(EncoderDecoder):
        def vjp(self, x: Pairs, state: None = None, lengths: None = None) -> Any:
            seen.append((min(map(len, x.inputs)), max(map(len, x.inputs))))
            return super().vjp(x)

    made = Watched(6, 3, embedding_dim=2, hidden_size=2, seed=0)
    made.compile("sgd", LOSS)
    made.fit(x, y, batch_size=8, seed=0, verbose=0)
    spread = [high - low for low, high in seen]
    assert len(seen) == 8 and max(spread) <= 8
    seen.clear()
    made.fit(x, y, batch_size=8, seed=0, bucket=False, verbose=0)
    assert len(seen) == 8 and max(high - low for low, high in seen) > 15


def test_batches_may_come_from_an_iterable() -> None:
    batches = [(SOURCES[:3], TARGETS[:3]), (SOURCES[3:], TARGETS[3:])]
    a, b = compiled(), compiled()
    history = a.fit(batches, epochs=2, verbose=0)
    wanted = b.fit(SOURCES, TARGETS, epochs=2, batch_size=3, shuffle=False, bucket=False, verbose=0)
    assert history.history == wanted.history and same(a.state_dict(), b.state_dict())
    weighted = compiled().evaluate([(*batch, np.ones(len(batch[0]))) for batch in batches])
    assert weighted == compiled().evaluate(batches) == compiled().evaluate(SOURCES, TARGETS, 3)


def test_a_sample_weight_multiplies_the_loss_of_a_row() -> None:
    made = compiled()
    each = [made.evaluate([s], [t])[0] for s, t in zip(SOURCES, TARGETS, strict=True)]  # type: ignore[index]
    weights, counts = np.array([0.0, 2.0, 1.0, 0.5]), np.array([3, 7, 1, 4])
    value = made.evaluate(SOURCES, TARGETS, sample_weight=weights)
    assert value[0] == pytest.approx(np.sum(weights * counts * each) / 15, rel=1e-12)  # type: ignore[index]


def test_validation_split_takes_the_last_rows() -> None:
    history = compiled().fit(SOURCES, TARGETS, validation_split=0.5, batch_size=2, verbose=0)
    made = compiled()
    made.fit(SOURCES[:2], TARGETS[:2], batch_size=2, verbose=0)
    assert history.history["val_loss"] == [made.evaluate(SOURCES[2:], TARGETS[2:])[0]]  # type: ignore[index]


def test_dropout_is_for_training_alone() -> None:
    plain, dropped = model(), model(dropout=0.5)
    assert np.array_equal(plain(SOURCES, TARGETS), dropped(SOURCES, TARGETS))
    pairs = dropped.pairs(SOURCES, TARGETS)
    (a, _), (b, _) = dropped.vjp(pairs)[0], dropped.vjp(pairs)[0]
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, plain(SOURCES, TARGETS))
    state = dropped.random_state()
    (a, _), pullback = dropped.vjp(pairs)
    dropped.set_random_state(state)
    assert np.array_equal(dropped.vjp(pairs)[0][0], a)

    # Central differences under the same masks.
    dy = np.random.default_rng(1).normal(size=a.shape)
    pullback(dy)
    for name in ("source.weight", "target.weight", "attention.weight"):
        parameter = dropped.parameters()[name]
        start, direction = parameter.data.copy(), np.random.default_rng(2).normal(size=(100, 5))
        direction = np.resize(direction, start.shape)
        sides = []
        for sign in (1, -1):
            parameter.assign(start + sign * 1e-6 * direction)
            dropped.set_random_state(state)
            sides.append(float(np.sum(dy * dropped.vjp(pairs)[0][0])))
        parameter.assign(start)
        assert parameter.grad is not None
        slope = (sides[0] - sides[1]) / 2e-6
        assert np.sum(parameter.grad * direction) == pytest.approx(slope, rel=1e-6)


# Decoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@each_kind
def test_a_large_beam_finds_the_best_of_all_sequences(
    cell: str, attention: bool, length_penalty: float
) -> None:
    made, steps = model(cell, attention), 3
    everything = [
        list(ids) for n in range(steps + 1) for ids in itertools.product(range(3), repeat=n)
    ]
    found = made.decode(SOURCES, steps, 100, length_penalty)
    for source, ids in zip(SOURCES, found, strict=True):
        logits = made([source] * len(everything), everything)
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        scores = []
        for row, target in enumerate(everything):
            made_ids = [*target, 3][:steps]
            total = sum(log_p[row, step, k] for step, k in enumerate(made_ids))
            scores.append(total / ((5 + len(made_ids)) / 6) ** length_penalty)
        assert ids.tolist() == everything[int(np.argmax(scores))]


@each_kind
def test_batches_do_not_change_what_is_decoded(cell: str, attention: bool) -> None:
    made = model(cell, attention, 1.0, hidden_size=20, embedding_dim=10, dtype="float32")
    rng = np.random.default_rng(3)
    sources = [rng.integers(0, 6, rng.integers(1, 9)) for _ in range(25)]
    for beam in (1, 4):
        wanted = [made.decode([source], 9, beam)[0].tolist() for source in sources]
        assert len({len(ids) for ids in wanted}) > 1
        for batch_size in (4, 32):
            found = made.decode(sources, 9, beam, batch_size=batch_size)
            assert [ids.tolist() for ids in found] == wanted
            assert all(ids.dtype == np.int64 for ids in found)
    array, lengths = padded([row.tolist() for row in sources], 5)
    found = made.decode(array, 9, lengths=lengths)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in made.decode(sources, 9)]


def test_decoding_reorders_the_state_with_its_hypotheses() -> None:
    """Beside a decoder that computes every prefix anew."""
    made = model(scale=1.0)
    rng = np.random.default_rng(5)
    sources = [rng.integers(0, 6, rng.integers(1, 9)) for _ in range(12)]

    def logits(row: int, ids: list[int]) -> np.ndarray:
        return np.zeros(4) if 3 in ids else made([sources[row]], [ids])[0, -1]

    class Anew:
        def __init__(self) -> None:
            self.rows = list(range(len(sources)))
            self.prefixes: Any = [[[]] for _ in sources]

        def step(self, ids: np.ndarray) -> np.ndarray:
            self.prefixes = [
                [[*old, int(k)] for old, k in zip(beam, given, strict=True)]
                for beam, given in zip(self.prefixes, ids, strict=True)
            ]
            return np.array(
                [
                    [logits(row, ids[1:]) for ids in beam]
                    for row, beam in zip(self.rows, self.prefixes, strict=True)
                ]
            )

        def keep(self, rows: np.ndarray, hypotheses: np.ndarray) -> None:
            self.prefixes = [
                [self.prefixes[row][k] for k in kept]
                for row, kept in zip(rows, hypotheses, strict=True)
            ]
            self.rows = [self.rows[row] for row in rows]

    for beam in (2, 3):
        wanted = beam_search(Anew(), len(sources), 3, 8, beam, 0.5)
        found = made.decode(sources, 8, beam, 0.5)
        assert [ids.tolist() for ids in found] == [ids.tolist() for ids in wanted]
        assert len({len(ids) for ids in found}) > 2
