"""scikit-learn's estimators over fastrnn models: from sequences to a label, or to values."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import (
        _safe_indexing,
        assert_all_finite,
        check_array,
        check_consistent_length,
        check_random_state,
        column_or_1d,
    )
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("fastrnn.sklearn: pip install 'fastrnn[sklearn]'") from error

from fastrnn import optimizers
from fastrnn.callbacks import EarlyStopping
from fastrnn.checks import check_choice, check_dtype, check_probability, check_size
from fastrnn.layers.cells import CELLS
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.losses import softmax
from fastrnn.models import Sequential
from fastrnn.parameter import Array
from fastrnn.progress import Verbose

__all__ = ["SequenceClassifier", "SequenceRegressor"]


class _SequenceEstimator(BaseEstimator):
    """What both are: a recurrent layer, whose final h a Dense maps.

    `X` is an array (rows, time, features); or a list, object array or pandas Series of arrays
    (time, features) of any lengths; or a table (rows, time), whose columns are the steps of one
    feature.

    Parameters
    ----------
    cell : "lstm", "gru" or "rnn".
    hidden_size, num_layers, bidirectional : as `fastrnn.LSTM` has them.
    dropout : probability, in [0, 1), between layers and before the Dense.
    epochs, batch_size : as in `fastrnn.Sequential.fit`.
    optimizer : a name, or an optimizer of fastrnn, which is copied.
    learning_rate : None for the optimizer's own.
    validation_fraction : of the rows, drawn by chance, to be validated on and not trained on.
    patience : None, or end once the loss (that of validation, if there is one) has not got better
        in so many epochs; weights are those of the best epoch.
    dtype : "float32" or "float64".
    random_state : of weights, dropout, and the order of rows: as scikit-learn has it.
    verbose : 1 for a progress bar.

    Attributes
    ----------
    model_ : the `fastrnn.Sequential`.
    history_ : the `History` of its training.
    n_features_in_ : features of a step; columns of a table.
    """

    _loss: str
    _metrics: tuple[str, ...] = ()
    _table: bool  # whether X was one, in fit

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        optimizer: str | optimizers.Optimizer = "adam",
        learning_rate: float | None = None,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        dtype: str = "float32",
        random_state: Any = None,
        verbose: Verbose = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train a new model; `sample_weight` (rows,) is taken by its ratios. Returns self.

        Raises ValueError or TypeError, naming the argument, for what does not fit.
        """
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        check_dtype(self.dtype)
        rows = self._rows(X, reset=True)
        targets, outputs = self._targets(y)
        check_consistent_length(rows, targets)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
            if not weight.sum() > 0:
                raise ValueError("sample_weight: expected some above zero, got zeros alone")
            weight = weight * (len(weight) / weight.sum())
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=4).tolist()
        self.model_ = self._model(rows[0].shape[1], outputs, seeds)
        data, validation = self._split((rows, targets, weight), seeds[3])
        callbacks = []
        if self.patience is not None:
            monitor = "loss" if validation is None else "val_loss"
            patience = check_size(self.patience, "patience")
            callbacks.append(EarlyStopping(monitor, patience=patience, restore_best_weights=True))
        self.history_ = self.model_.fit(
            *data[:2], sample_weight=data[2], epochs=self.epochs, batch_size=self.batch_size,
            validation_data=validation, seed=seeds[3], callbacks=callbacks, verbose=self.verbose,
        )  # fmt: skip
        return self

    def _model(self, features: int, outputs: int, seeds: list[int]) -> Sequential:
        cell = CELLS[check_choice(self.cell, list(CELLS), "cell")]
        layer = cell(
            features, self.hidden_size, self.num_layers, bidirectional=self.bidirectional,
            dropout=self.dropout, return_sequences=False, dtype=self.dtype, seed=seeds[0],
        )  # fmt: skip
        between = [Dropout(self.dropout, seed=seeds[1])] if self.dropout else []
        dense = Dense(layer.directions * self.hidden_size, outputs, dtype=self.dtype, seed=seeds[2])
        model = Sequential([layer, *between, dense])
        optimizer = copy.deepcopy(optimizers.get(self.optimizer))
        if self.learning_rate is not None:
            optimizer.learning_rate = self.learning_rate
        model.compile(optimizer, self._loss, self._metrics)
        return model

    def _split(self, data: tuple[Any, ...], seed: int) -> tuple[tuple[Any, ...], Any]:
        """What is trained on and what is validated on, None for nothing."""
        fraction = check_probability(self.validation_fraction, "validation_fraction")
        if not fraction:
            return data, None
        count = len(data[0])
        held_out = max(1, round(count * fraction))
        if held_out == count:
            raise ValueError(f"validation_fraction: {fraction} of n_samples={count} leaves none")
        order = np.random.default_rng(seed).permutation(count)
        first, last = (
            tuple(None if part is None else _safe_indexing(part, chosen) for part in data)
            for chosen in (order[held_out:], order[:held_out])
        )
        return first, last if last[2] is not None else last[:2]

    def _predict(self, X: Any) -> Array:
        check_is_fitted(self, "model_")
        outputs: Any = self.model_.predict(self._rows(X, reset=False), self.batch_size)
        return np.asarray(outputs)

    def _rows(self, X: Any, reset: bool) -> Any:
        """`X` as (rows, time, features), or as a list of (time, features)."""
        if getattr(getattr(X, "dtype", None), "kind", "") == "O" and X.ndim == 1:
            X = list(X)
        listed = isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 2
        if not listed and isinstance(X, list | tuple) and len({np.size(row) for row in X}) > 1:
            raise ValueError(f"X[0]: expected (time, features), got {np.shape(X[0])}")
        if getattr(X, "ndim", 0) > 3:
            raise ValueError(f"X: expected (rows, time, features), got {X.shape}")
        table = not listed and getattr(X, "ndim", 2) != 3
        if not reset and table != self._table:
            wanted = "a table (rows, time)" if self._table else "sequences (time, features)"
            raise ValueError(f"X: expected {wanted}, as in fit")
        if table:
            rows: Any = validate_data(self, X, reset=reset, dtype=self.dtype)[:, :, None]
        elif listed:
            rows = [self._sequence(row, k, np.shape(X[0])[1]) for k, row in enumerate(X)]
        else:
            rows = self._array(X, "X")
        features = rows[0].shape[1]
        if reset:
            self._table = table
        if reset and not table:
            self.__dict__.pop("feature_names_in_", None)
            self.n_features_in_ = features
        if not table and features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return rows

    def _sequence(self, row: Any, place: int, features: int) -> Array:
        shape = np.shape(row)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != features:
            raise ValueError(f"X[{place}]: expected (time, {features}), got {shape}")
        return self._array(row, f"X[{place}]")

    def _array(self, X: Any, name: str) -> Array:
        checked: Array = check_array(
            X, dtype=self.dtype, allow_nd=True, ensure_min_features=0, input_name=name
        )
        return checked

    def _targets(self, y: Any) -> tuple[Any, int]:
        """What is trained on, and how many outputs it wants."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class SequenceClassifier(ClassifierMixin, _SequenceEstimator):
    __doc__ = f"""Labels of sequences. {_SequenceEstimator.__doc__}
    classes_ : the labels, of any kind, in order.
    """

    _loss = "sparse_categorical_crossentropy"
    _metrics = ("accuracy",)

    def predict(self, X: Any) -> Any:
        """The most probable label of every row."""
        outputs = self._predict(X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (rows, classes), the labels in the order of `classes_`."""
        return softmax(self._predict(X))

    def _targets(self, y: Any) -> tuple[Any, int]:
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        return ids, len(self.classes_)


class SequenceRegressor(RegressorMixin, _SequenceEstimator):
    __doc__ = f"Values of sequences, y (rows,) or (rows, outputs). {_SequenceEstimator.__doc__}"

    _loss = "mean_squared_error"

    def predict(self, X: Any) -> Array:
        """Values as y was in fit: (rows,) or (rows, outputs)."""
        values = self._predict(X).astype(np.float64)
        return values[:, 0] if self._flat else values

    def _targets(self, y: Any) -> tuple[Any, int]:
        values = check_array(y, dtype=self.dtype, ensure_2d=False, input_name="y", estimator=self)
        self._flat = values.ndim == 1
        values = values.reshape(len(values), -1)
        return values, values.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
