"""Sequential: composition, gradients, state, names, and Keras's habits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import losses
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential
from fastrnn.optimizers import SGD, Adam


def tagger(dtype: str = "float64") -> Sequential:
    """Ids (batch, time) to logits (batch, time, 3)."""
    return Sequential(
        [
            Embedding(6, 4, dtype=dtype, seed=1),
            LSTM(4, 5, dtype=dtype, seed=2),
            GRU(5, 3, dtype=dtype, seed=3),
            Dense(3, 3, dtype=dtype, seed=4),
        ]
    )


def classifier(dtype: str = "float64") -> Sequential:
    """Vectors (batch, time, 4) to probabilities (batch, 3)."""
    return Sequential(
        [
            Dense(4, 5, "tanh", dtype=dtype, seed=1),
            LSTM(5, 4, bidirectional=True, dtype=dtype, seed=2),
            RNN(8, 4, return_sequences=False, dtype=dtype, seed=3),
            Dense(4, 3, "softmax", dtype=dtype, seed=4),
        ]
    )


IDS = np.array([[0, 5, 2, 1, 3, 3], [4, 4, 1, 0, 5, 2]])
VECTORS = np.random.default_rng(0).normal(size=(3, 5, 4))


# Composition --------------------------------------------------------------------------------------


def test_a_call_is_one_layer_after_the_other() -> None:
    model = tagger()
    embedding, lstm, gru, dense = model.layers
    x, lstm_state = lstm(embedding(IDS))
    x, gru_state = gru(x)
    y, state = model.run(IDS)
    assert np.array_equal(y, dense(x))
    assert np.array_equal(model(IDS), y)
    assert state[0] is state[3] is None
    assert np.array_equal(state[1][0], lstm_state[0])
    assert np.array_equal(state[1][1], lstm_state[1])
    assert np.array_equal(state[2], gru_state)


def test_a_sequence_may_be_cut_and_stepped_through() -> None:
    model = tagger()
    whole, end = model.run(IDS)
    first, state = model.run(IDS[:, :2])
    second, cut_end = model.run(IDS[:, 2:], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-12)

    steps, state = [], model.initial_state(2)
    for t in range(IDS.shape[1]):
        y_t, state = model.step(IDS[:, t], state)
        steps.append(y_t)
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, rtol=1e-12)
    for other in (cut_end, state):
        np.testing.assert_allclose(other[1], end[1], rtol=1e-12)
        np.testing.assert_allclose(other[2], end[2], rtol=1e-12)


def test_a_state_given_is_not_changed() -> None:
    model = tagger()
    state = model.initial_state(2)
    held = list(state)
    model.run(IDS, state)
    model.step(IDS[:, 0], state)
    model.vjp(IDS, state)
    assert all(a is b for a, b in zip(state, held, strict=True))
    assert not np.any(state[2]) and not np.any(state[1][0])


def test_lengths_reach_every_recurrent_layer() -> None:
    model = classifier()
    ragged = VECTORS.copy()
    ragged[0, 2:] = 7.0
    y = model(ragged, lengths=[2, 5, 4])
    np.testing.assert_allclose(y[0], model(VECTORS[:1, :2])[0], rtol=1e-12)
    np.testing.assert_allclose(y[1], model(VECTORS[1:2])[0], rtol=1e-12)
    (again, _), _ = model.vjp(ragged, lengths=[2, 5, 4])
    np.testing.assert_allclose(again, y, rtol=1e-12)


def differences(f: Any, value: np.ndarray) -> np.ndarray:
    """Central differences of f(value), float64; 1e-6 is about the cube root of its precision."""
    gradient = np.empty_like(value)
    for place in np.ndindex(value.shape):
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * 1e-6
            sides.append(f(moved))
        gradient[place] = (sides[0] - sides[1]) / 2e-6
    return gradient


@pytest.mark.parametrize("first", [LSTM(4, 3, dtype="float64"), Dense(4, 3, dtype="float64")])
def test_dx_is_left_out_unless_wanted(first: Layer) -> None:
    model = Sequential([first, GRU(3, 2, dtype="float64")])

    def gradients(**wanted: bool) -> tuple[Any, list[bytes]]:
        model.zero_grad()
        (y, _), pullback = model.vjp(VECTORS)
        dx = pullback(np.ones_like(y), **wanted)
        return dx, [np.asarray(p.grad).tobytes() for p in model.parameters().values()]

    without, weights = gradients()
    dx, same_weights = gradients(with_dx=True)
    assert without is None
    assert dx.shape == VECTORS.shape
    assert weights == same_weights


def test_layers_may_be_subclasses_with_ways_of_their_own() -> None:
    """Whose pullbacks take one argument, and whose calls are not passed by."""

    class Twice(Embedding):
        def __call__(self, x: Any) -> Any:
            return 2 * super().__call__(x)

        def vjp(self, x: Any) -> Any:
            y, pullback = super().vjp(x)
            return 2 * y, lambda dy: pullback(2 * dy)

    class Counted(GRU):
        calls = 0

        def vjp(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
            self.calls += 1
            output, pullback = super().vjp(*arguments, **options)
            return output, lambda dy: pullback(dy)

    ids, layer = np.random.default_rng(0).integers(0, 3, (4, 5)), Counted(4, 2, seed=2)
    model = Sequential([Twice(3, 4, seed=1), layer])
    plain = Embedding(3, 4, seed=1)
    (y, _), pullback = model.vjp(ids)
    pullback(np.ones_like(y))
    assert layer.calls == 1
    assert np.array_equal(y, layer(2 * plain(ids))[0])
    assert np.array_equal(model(ids), y)


def test_gradients_are_those_of_central_differences() -> None:
    model = classifier()
    dy = np.random.default_rng(1).normal(size=(3, 3))
    (y, _), pullback = model.vjp(VECTORS, lengths=[5, 1, 3])
    assert np.array_equal(y, model(VECTORS, lengths=[5, 1, 3]))
    dx = pullback(dy, with_dx=True)
    assert dx is not None

    def value(x: np.ndarray) -> float:
        return float(np.sum(dy * model(x, lengths=[5, 1, 3])))

    np.testing.assert_allclose(dx, differences(value, VECTORS), atol=1e-8)
    for name, parameter in model.parameters().items():
        start = parameter.data.copy()

        def with_value(new: np.ndarray, parameter: Any = parameter) -> float:
            parameter.assign(new)
            return value(VECTORS)

        wanted = differences(with_value, start)
        parameter.assign(start)
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad, wanted, atol=1e-8, err_msg=name)


def test_gradients_add_up_until_they_are_forgotten() -> None:
    model = tagger()
    dy = np.ones((2, 6, 3))
    assert model.vjp(IDS)[1](dy) is None  # ids have no gradient
    once = {name: parameter.grad for name, parameter in model.parameters().items()}
    model.vjp(IDS)[1](dy)
    for name, parameter in model.parameters().items():
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=1e-12)  # type: ignore[operator]
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters().values())


def test_a_pullback_is_called_once() -> None:
    _, pullback = tagger().vjp(IDS)
    pullback(np.ones((2, 6, 3)))
    with pytest.raises(RuntimeError):
        pullback(np.ones((2, 6, 3)))


def test_dropout_is_for_training_alone() -> None:
    model = Sequential([Dense(4, 4, seed=1), Dropout(0.5, seed=2)])
    x = np.ones((50, 4), np.float32)
    (y, _), _ = model.vjp(x)
    assert not np.array_equal(y, model(x))
    assert np.array_equal(y[y != 0], 2 * model(x)[y != 0])


def test_parameters_are_named_by_place_and_kind() -> None:
    model = tagger()
    names = list(model.parameters())
    assert names[0] == "0.embedding.weight"
    assert names[1] == "1.lstm.weight_ih_l0"
    assert names[-2:] == ["3.dense.weight", "3.dense.bias"]
    assert (
        model.parameters()["2.gru.weight_hh_l0"] is (model.layers[2].parameters()["weight_hh_l0"])
    )
    other = Sequential.from_config(model.config())
    other.load_state_dict(model.state_dict())
    assert np.array_equal(other(IDS), model(IDS))
    with pytest.raises(ValueError, match=r"missing \['0\.embedding\.weight'"):
        other.load_state_dict({})


# What does not make a model -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, reason",
    [
        ([], "layers: expected at least one"),
        (
            [Embedding(10, 8), LSTM(9, 4)],
            r"layers\[1\], LSTM: expected 9 features, but layers\[0\], Embedding, gives 8",
        ),
        (
            [LSTM(3, 8, bidirectional=True), Dropout(0.1), Dense(8, 2)],
            r"layers\[2\], Dense: expected 8 features, but layers\[1\], Dropout, gives 16",
        ),
        (
            [LSTM(3, 8, return_sequences=False), GRU(8, 4)],
            r"layers\[1\], GRU: expected a sequence, but layers\[0\], LSTM, gives .*return_seq",
        ),
        ([Dense(3, 4), Embedding(4, 4)], r"layers\[1\], Embedding: takes ids"),
        ([LSTM(3, 4, batch_first=False)], r"layers\[0\], LSTM: expected batch_first=True"),
        (
            [Dense(3, 4), Dense(4, 4, dtype="float64")],
            "expected one dtype for all, got .*'1.dense.weight': 'float64'",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: list[Layer], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Sequential(layers)


def test_other_things_are_no_layers() -> None:
    shared = Dense(3, 3)
    with pytest.raises(ValueError, match=r"layers\[1\], Dense: the same layer"):
        Sequential([shared, shared])
    with pytest.raises(TypeError, match=r"layers\[0\], str: expected a layer"):
        Sequential(["lstm"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"layers\[0\], Sequential: expected a layer"):
        Sequential([Sequential([shared])])


@pytest.mark.parametrize("state", [[], [None] * 3, 5, np.zeros(4)])
def test_a_state_is_a_list_with_an_entry_per_layer(state: Any) -> None:
    with pytest.raises(ValueError, match="state: expected a list of 4 entries, got"):
        tagger().run(IDS, state)


def test_a_layer_names_what_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"x: expected .*4.*, got \(3, 5, 3\)"):
        classifier()(VECTORS[..., :3])
    with pytest.raises(TypeError, match="x: expected float64, got float32"):
        classifier()(VECTORS.astype("float32"))


# compile, fit, evaluate, predict ------------------------------------------------------------------


def first_ids(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of ids 0 to 3, (rows, 4), and the first id of each."""
    x = np.random.default_rng(0).integers(0, 4, (rows, 4))
    return x, x[:, 0]


def test_fit_learns_a_task_that_needs_memory() -> None:
    x, y = first_ids(500)
    model = Sequential(
        [
            Embedding(4, 8, seed=1),
            LSTM(8, 32, return_sequences=False, seed=2),
            Dense(32, 4, seed=3),
        ]
    )
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = (x[400:], y[400:])
    history = model.fit(
        x[:400], y[:400], epochs=10, batch_size=16, validation_data=validation, seed=0
    )
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(values) == 10 for values in history.history.values())
    assert history.history["val_accuracy"][-1] > 0.95
    assert history.history["loss"][-1] < 0.2 < 1.0 < history.history["loss"][0]

    loss, accuracy = model.evaluate(x[400:], y[400:])  # type: ignore[misc]
    assert loss == pytest.approx(history.history["val_loss"][-1], rel=1e-6)
    assert accuracy == history.history["val_accuracy"][-1]
    predicted = model.predict(x[400:], batch_size=7).argmax(axis=-1)
    assert np.mean(predicted == y[400:]) == pytest.approx(accuracy)


def test_the_same_seed_gives_the_same_training() -> None:
    def weights(seed: int) -> np.ndarray:
        x, _ = first_ids(40)
        model = tagger("float32")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, x % 3, epochs=2, batch_size=16, seed=seed)
        return model.state_dict()["1.lstm.weight_ih_l0"]

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_change_neither_predictions_nor_losses(batch_size: int) -> None:
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    y = np.array([0, 2, 1])
    expected = model(VECTORS)
    np.testing.assert_allclose(model.predict(VECTORS, batch_size), expected, rtol=1e-12)
    values = model.evaluate(VECTORS, y, batch_size, return_dict=True)
    assert isinstance(values, dict)
    assert values["loss"] == pytest.approx(-np.mean(np.log(expected[[0, 1, 2], y])), rel=1e-9)
    assert values["accuracy"] == np.mean(expected.argmax(axis=-1) == y)


def test_evaluate_gives_a_number_without_metrics() -> None:
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert isinstance(model.evaluate(VECTORS, [0, 1, 2]), float)


def test_padding_has_no_influence_on_training() -> None:
    def trained(padding: int) -> tuple[dict[str, Any], list[float]]:
        model = tagger()
        model.compile(SGD(0.5), "sparse_categorical_crossentropy", ["accuracy"])
        x, y = IDS.copy(), IDS % 3
        x[0, 4:], y[0, 4:] = padding, padding % 3
        lengths = [4, 6]
        history = model.fit(
            x, y, epochs=2, lengths=lengths, validation_data=(x, y), validation_lengths=lengths
        )
        values = model.evaluate(x, y, lengths=lengths)
        assert isinstance(values, list)
        assert values[0] == pytest.approx(history.history["val_loss"][-1])
        return model.state_dict(), values

    (a, values_a), (b, values_b) = trained(0), trained(5)
    assert values_a == pytest.approx(values_b, rel=1e-12)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-12, err_msg=name)


def test_predict_takes_lengths() -> None:
    model = classifier()
    y = model.predict(VECTORS, 2, lengths=[1, 5, 3])
    np.testing.assert_allclose(y[2], model(VECTORS[2:, :3])[0], rtol=1e-12)


def test_numbers_are_converted_to_the_dtype_of_the_layers() -> None:
    model = Sequential([LSTM(4, 3, return_sequences=False, seed=1), Dense(3, 1, seed=2)])
    model.compile("adam", "mse")
    assert model.predict(VECTORS).dtype == np.float32
    assert model.predict(VECTORS.astype("int8")).dtype == np.float32
    model.fit(VECTORS, np.zeros((3, 1)), verbose=0)
    with pytest.raises(TypeError, match="x: expected real numbers, got <U1"):
        model.predict(np.full((2, 3, 4), "a"))
    with pytest.raises(TypeError, match="integer"):
        tagger().predict(IDS.astype(float))


def test_validation_split_takes_the_last_rows() -> None:
    x = np.arange(10.0)[:, None]
    y = np.where(np.arange(10) < 8, 0.0, 100.0)[:, None]
    model = Sequential([Dense(1, 1, dtype="float64", seed=0)])
    model.load_state_dict({"0.dense.weight": [[0.0]], "0.dense.bias": [0.0]})
    model.compile(SGD(1e-12), "mse")
    history = model.fit(x, y, validation_split=0.2)
    assert history.history["loss"] == [0.0]
    assert history.history["val_loss"] == [pytest.approx(100.0**2)]


def test_a_named_cross_entropy_takes_what_the_last_layer_gives() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    for loss, out, squash in [
        ("sparse_categorical_crossentropy", 2, "softmax"),
        ("binary_crossentropy", 1, "sigmoid"),
    ]:
        results = []
        for activation in (None, squash):
            model = Sequential([Dense(4, out, activation, dtype="float64", seed=0)])
            model.compile("sgd", loss, metrics=["accuracy", loss])
            results.append(model.evaluate(x, y if out == 2 else y[:, None]))
        assert results[0] == pytest.approx(results[1], rel=1e-6)
        assert results[0][0] == pytest.approx(results[0][2])  # type: ignore[index]


def test_a_loss_object_is_used_as_it_is() -> None:
    model = Sequential([Dense(4, 2, dtype="float64", seed=0)])
    x = np.abs(VECTORS[:, 0])
    loss = losses.MeanSquaredError()

    def ours(y_true: Any, y_pred: Any) -> float:
        return 42.0

    model.compile(SGD(), loss, [ours])
    values = model.evaluate(x, np.zeros((3, 2)), return_dict=True)
    assert values == {"loss": pytest.approx(loss(np.zeros((3, 2)), model(x))), "ours": 42.0}


def test_what_fit_refuses() -> None:
    model = classifier()
    y = [0, 1, 2]
    with pytest.raises(RuntimeError, match="call compile first"):
        model.fit(VECTORS, y)
    with pytest.raises(ValueError, match="loss: expected one of"):
        model.compile("sgd", "cross")
    with pytest.raises(ValueError, match="optimizer: expected one of"):
        model.compile("lion", "mse")
    with pytest.raises(TypeError, match=r"metrics: expected a list, got 'accuracy'; write \['acc"):
        model.compile("sgd", "mse", "accuracy")
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"y: expected 3 rows as x has, got \(2,\)"):
        model.fit(VECTORS, y[:2])
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="batch_size: expected an integer from 1"):
            model.fit(VECTORS, y, batch_size=batch_size)
    with pytest.raises(ValueError, match="epochs: expected an integer from 1"):
        model.fit(VECTORS, y, epochs=0)
    for split in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="validation_split: expected a number in"):
            model.fit(VECTORS, y, validation_split=split)
    with pytest.raises(ValueError, match="leaves nothing to train on or nothing to validate on"):
        model.fit(VECTORS[:1], y[:1], validation_split=0.5)
    with pytest.raises(ValueError, match=r"validation_data: expected \(x, y\) or .* got 1 entries"):
        model.fit(VECTORS, y, validation_data=(VECTORS,))
    with pytest.raises(ValueError, match="lengths"):
        model.fit(VECTORS, y, lengths=[9, 1, 1])
    with pytest.raises(ValueError, match=r"x: expected at least one row, got \(0, 5, 4\)"):
        model.predict(VECTORS[:0])


def test_summary_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    Sequential(
        [Embedding(1000, 64), LSTM(64, 128, return_sequences=False), Dropout(0.1), Dense(128, 10)]
    ).summary()
    assert capsys.readouterr().out.splitlines() == [
        "Sequential",
        "-----------------------------------------------",
        "layer          output shape          parameters",
        "-----------------------------------------------",
        "0  Embedding   (None, None, 64)          64,000",
        "1  LSTM        (None, 128)               99,328",
        "2  Dropout     (None, 128)                    0",
        "3  Dense       (None, 10)                 1,290",
        "-----------------------------------------------",
        "164,618 parameters, 658,472 bytes",
        "164,106 without the 512 of the second bias vectors",
    ]


def test_summary_counts_as_keras_does(capsys: pytest.CaptureFixture[str]) -> None:
    lstm = LSTM(64, 128, bias="single", return_sequences=False)
    Sequential([Embedding(1000, 64), lstm, Dense(128, 10)]).summary()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[4:7]] == ["64,000", "98,816", "1,290"]
    assert lines[-1] == "164,106 parameters, 656,424 bytes"


def test_summary_of_a_model_without_second_biases(capsys: pytest.CaptureFixture[str]) -> None:
    Sequential([Dropout(0.1), Dense(3, 2)]).summary()
    lines = capsys.readouterr().out.splitlines()
    assert "(None, 3)" in lines[4]
    assert lines[-1] == "8 parameters, 32 bytes"
