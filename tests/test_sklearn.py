"""scikit-learn's estimators: its own checks, its searches and pipelines, ragged rows, errors."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import config

selection = pytest.importorskip("sklearn.model_selection")
checks = pytest.importorskip("sklearn.utils.estimator_checks")
base = pytest.importorskip("sklearn.base")
exceptions = pytest.importorskip("sklearn.exceptions")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")
fs = pytest.importorskip("fastrnn.sklearn")

SMALL = {"cell": "gru", "hidden_size": 16, "epochs": 60, "batch_size": 256, "learning_rate": 0.05}
QUICK = {"hidden_size": 6, "epochs": 25, "learning_rate": 0.05, "random_state": 0}

# What scikit-learn checks and these do not fulfil, and why.
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
IN_FLOAT32 = {WEIGHTS: "sums over more rows round differently, by more than 1e-7 in float32"}
WITH_VALIDATION = {WEIGHTS: "a repeated row may be validated on in part, a weighted one may not"}


def failing(estimator: Any) -> dict[str, str]:
    if estimator.validation_fraction:
        return WITH_VALIDATION
    return {} if estimator.dtype == "float64" else IN_FLOAT32


@checks.parametrize_with_checks(
    [
        fs.SequenceClassifier(**SMALL, dtype="float64"),
        fs.SequenceRegressor(**SMALL, dtype="float64"),
        fs.SequenceRegressor(**SMALL),
        fs.SequenceClassifier(**SMALL | {"cell": "lstm", "dropout": 0.1},
                              validation_fraction=0.1, patience=8),
    ],
    expected_failed_checks=failing,
)  # fmt: skip
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture
def rows(rng: Any) -> tuple[list[Any], Any]:
    """Sequences of 2 to 9 steps of 2 features; which feature's last value is the larger one."""
    sequences = [rng.standard_normal((rng.integers(2, 10), 2)) for _ in range(60)]
    labels = np.array(["left", "right"])[[int(x[-1, 1] > x[-1, 0]) for x in sequences]]
    return sequences, labels


@config.using(gemm="native")
def test_ragged_sequences_and_labels(rows: Any) -> None:
    X, y = rows
    X_train, X_test, y_train, y_test = selection.train_test_split(X, y, random_state=0)
    model = fs.SequenceClassifier(**QUICK).fit(X_train, y_train)
    assert model.score(X_train, y_train) > 0.9
    assert model.score(X_test, y_test) > 0.7
    assert model.classes_.tolist() == ["left", "right"]
    assert model.n_features_in_ == 2
    assert len(model.history_.history["accuracy"]) == QUICK["epochs"]
    assert isinstance(model.model_, fr.Sequential)
    probable = model.predict_proba(X_test)
    np.testing.assert_allclose(probable.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(model.classes_[probable.argmax(axis=1)], model.predict(X_test))
    # A row's result does not depend on others, nor on how rows are given.
    as_objects = np.empty(len(X_test), object)
    as_objects[:] = X_test
    np.testing.assert_array_equal(model.predict_proba(as_objects), probable)
    alone = [model.predict_proba(x[None])[0] for x in X_test]
    np.testing.assert_array_equal(alone, probable)
    np.testing.assert_array_equal(model.predict_proba([x.tolist() for x in X_test]), probable)


def test_a_column_of_pandas_may_hold_sequences(rows: Any) -> None:
    X, y = rows
    column = pytest.importorskip("pandas").Series(X, index=range(7, 7 + len(X)))
    model = fs.SequenceClassifier(**QUICK | {"epochs": 1}).fit(X, y)
    assert np.array_equal(model.predict_proba(column), model.predict_proba(X))


def test_several_values_and_sample_weight(rng: Any) -> None:
    X = rng.standard_normal((80, 5, 3))
    y = np.stack([X[:, -1, 0], X[:, :, 1].mean(axis=1)], axis=1)
    options = QUICK | {"cell": "rnn", "epochs": 80, "learning_rate": 0.02}
    both = fs.SequenceRegressor(**options).fit(X, y)
    assert both.predict(X).shape == y.shape
    assert both.score(X, y) > 0.9
    assert fs.SequenceRegressor(**options).fit(X, y[:, 0]).predict(X).shape == (80,)
    # Rows without weight may be anything, and ratios alone count.
    wrong = y.copy()
    wrong[::2] = 50
    weight = np.arange(80) % 2
    kept = fs.SequenceRegressor(**options).fit(X, wrong, weight)
    assert kept.score(X[1::2], y[1::2]) > 0.9
    scaled = fs.SequenceRegressor(**options).fit(X, wrong, 4 * weight)
    np.testing.assert_array_equal(kept.predict(X), scaled.predict(X))


def test_random_state_decides_everything(rows: Any) -> None:
    X, y = rows
    options = QUICK | {"dropout": 0.2, "num_layers": 2, "bidirectional": True, "epochs": 3,
                       "validation_fraction": 0.2}  # fmt: skip
    first, again = (fs.SequenceClassifier(**options).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = fs.SequenceClassifier(**options | {"random_state": 1}).fit(X, y).predict_proba(X)
    assert np.abs(other - first).max() > 1e-3


def test_patience_ends_training_with_the_best_weights(rows: Any) -> None:
    X, y = rows
    options = QUICK | {"validation_fraction": 0.25, "patience": 2, "epochs": 200}
    model = fs.SequenceClassifier(**options).fit(X, y)
    losses = model.history_.history["val_loss"]
    assert len(losses) < 200
    assert min(losses) == losses[-3]
    on_training = fs.SequenceClassifier(**QUICK | {"patience": 100}).fit(X, y)
    assert "val_loss" not in on_training.history_.history


def test_optimizers_by_name_and_as_objects(rows: Any) -> None:
    X, y = rows
    adam = fr.Adam(0.05, clipnorm=1.0)
    options = QUICK | {"learning_rate": None, "epochs": 2, "optimizer": adam}
    first, again = (fs.SequenceClassifier(**options).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)  # the object itself stays as it was
    assert adam.iterations == 0
    by_name = fs.SequenceClassifier(**QUICK | {"optimizer": "rmsprop", "epochs": 2}).fit(X, y)
    assert by_name.model_._compiled()[1].learning_rate == QUICK["learning_rate"]


def test_grid_search_cross_validation_and_clone(rows: Any) -> None:
    X, y = rows
    grid = {"cell": ["rnn", "gru"], "hidden_size": [4, 6]}
    estimator = fs.SequenceClassifier(**QUICK | {"epochs": 10})
    search = selection.GridSearchCV(estimator, grid, cv=2, n_jobs=2).fit(X, y)
    assert search.best_params_.keys() == grid.keys()
    one = selection.GridSearchCV(estimator, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"]
    )
    assert len(selection.cross_val_score(estimator, X, y, cv=3)) == 3
    copied = base.clone(search.best_estimator_)
    assert copied.get_params() == search.best_estimator_.get_params()
    with pytest.raises(exceptions.NotFittedError):
        copied.predict(X)


def test_pipelines_and_pickle(rows: Any, rng: Any) -> None:
    X, y = rows

    def doubled(sequences: list[Any]) -> list[Any]:
        return [2 * x for x in sequences]

    first = preprocessing.FunctionTransformer(doubled)
    both = pipeline.make_pipeline(first, fs.SequenceClassifier(**QUICK)).fit(X, y)
    assert both.score(X, y) > 0.9
    fitted = both[-1]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.history_.history == fitted.history_.history
    table = 5 + 3 * rng.standard_normal((60, 8))
    target = (table[:, -2:].sum(axis=1) - 10) / 3
    last = fs.SequenceRegressor(**QUICK | {"epochs": 60})
    scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), last)
    assert scaled.fit(table, target).score(table, target) > 0.8
    assert scaled[-1].n_features_in_ == 8
    assert scaled[-1].model_.layers[0].input_size == 1


def test_errors_name_what_does_not_fit(rows: Any) -> None:
    X, y = rows
    fitted = fs.SequenceClassifier(**QUICK | {"epochs": 1}).fit(X, y)
    for bad, message in (
        ([*X[:2], X[0][:, :1]], r"X\[2\]: expected \(time, 2\), got"),
        ([X[0], X[1][:0]], r"X\[1\]: expected \(time, 2\), got \(0, 2\)"),
        ([X[0], X[1] * np.nan], r"X\[1\] contains NaN"),
        ([x[:, :1] for x in X], "X has 1 features, but SequenceClassifier is expecting 2 features"),
        (np.ones((3, 4)), r"X: expected sequences \(time, features\), as in fit"),
        (np.ones((3, 4, 2, 1)), r"X: expected \(rows, time, features\), got \(3, 4, 2, 1\)"),
        ([np.ones(3), np.ones(4)], r"X\[0\]: expected \(time, features\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.predict(bad)
    table = np.ones((60, 4))
    with pytest.raises(ValueError, match=r"X: expected a table \(rows, time\), as in fit"):
        fs.SequenceClassifier(**QUICK | {"epochs": 1}).fit(table, y).predict(X)
    for options, message in (
        ({"cell": "elman"}, "cell: expected one of lstm, gru, rnn, got 'elman'"),
        ({"hidden_size": 0}, "hidden_size: expected an integer from 1"),
        ({"epochs": 0}, "epochs: expected an integer from 1"),
        ({"optimizer": "adan"}, "optimizer: expected one of"),
        ({"learning_rate": -1.0}, "learning_rate: expected"),
        ({"validation_fraction": 1.5}, "validation_fraction: expected a number in"),
        ({"validation_fraction": 0.999}, "validation_fraction: 0.999 of n_samples=60 leaves none"),
        ({"patience": 0}, "patience: expected an integer from 1"),
        ({"dtype": "float16"}, "dtype: expected float32 or float64"),
        ({"dropout": 1.0}, "dropout: expected a number in"),
    ):
        with pytest.raises(ValueError, match=message):
            fs.SequenceClassifier(**QUICK | options).fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fs.SequenceClassifier(**QUICK).fit(X, y[1:])
    with pytest.raises(ValueError, match="zero"):
        fs.SequenceClassifier(**QUICK).fit(X, y, np.zeros(60))


def test_values_of_numpy_arrays_as_options(rows: Any) -> None:
    X, y = rows
    model = fs.SequenceClassifier(**QUICK | {"epochs": 1})
    grid = {
        "bidirectional": np.array([True]),
        "cell": np.array(["gru"]),
        "num_layers": np.ones(1, int),
    }
    search = selection.GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_estimator_.model_.layers[0].bidirectional is True


def test_after_a_fit_that_failed_nothing_is_fitted(rows: Any) -> None:
    X, y = rows
    model = fs.SequenceClassifier(cell="elman")
    with pytest.raises(ValueError, match="cell: expected"):
        model.fit(X, y)
    with pytest.raises(exceptions.NotFittedError):
        model.predict(X)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.delitem(sys.modules, "fastrnn.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[sklearn\]'"):
        import fastrnn.sklearn  # noqa: F401
