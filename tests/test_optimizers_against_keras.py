"""Optimizers and schedules beside Keras 3, on PyTorch, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn import optimizers, schedules
from fastrnn.parameter import Parameter

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def keras64(keras: Any) -> Iterator[Any]:
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield keras
    keras.config.set_floatx(before)


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.25}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.25}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "rho": 0.8, "epsilon": 1e-3, "weight_decay": 0.25}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.1, "epsilon": 1e-2, "weight_decay": 0.25}),
    ("AdamW", {}),
    ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.25}),
    ("Adagrad", {}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "epsilon": 1e-2}),
    ("Adagrad", {"weight_decay": 0.25, "clipvalue": 0.5}),
]
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 4, "decay_rate": 0.5}),
    (
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 4, "decay_rate": 0.5, "staircase": True},
    ),
    ("PiecewiseConstantDecay", {"boundaries": [3, 7], "values": [0.5, 0.0, 0.25]}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 7}),
    (
        "CosineDecay",
        {
            "initial_learning_rate": 0.01,
            "decay_steps": 5,
            "alpha": 0.25,
            "warmup_target": 0.1,
            "warmup_steps": 4,
        },
    ),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 5, "warmup_steps": 4}),
]


def compare(keras: Any, ours: Any, theirs: Any) -> None:
    """Twelve steps of both; a name with "bias" in it is excluded from weight decay."""
    rng = np.random.default_rng(3)
    shapes = {"kernel": (5, 3), "my_bias": (3,)}
    parameters = {name: Parameter(rng.normal(size=shape)) for name, shape in shapes.items()}
    variables = [
        keras.Variable(p.data, dtype="float64", name=name) for name, p in parameters.items()
    ]
    theirs.exclude_from_weight_decay(var_names=["^nothing$", "bias"])
    ours.exclude_from_weight_decay(var_names=["^nothing$", "bias"])
    for _ in range(12):
        rate = float(theirs.learning_rate)
        assert ours.learning_rate == pytest.approx(rate, rel=1e-12, abs=1e-17)
        for p in parameters.values():
            p.grad = rng.normal(size=p.shape)
        theirs.apply([keras.ops.convert_to_tensor(p.grad) for p in parameters.values()], variables)
        ours.step(parameters)
    for p, variable in zip(parameters.values(), variables, strict=True):
        np.testing.assert_allclose(p.data, keras.ops.convert_to_numpy(variable), rtol=1e-10)


@pytest.mark.parametrize(("kind", "arguments"), OPTIMIZERS)
def test_optimizers(keras64: Any, kind: str, arguments: dict[str, Any]) -> None:
    ours = getattr(optimizers, kind)(**arguments)
    compare(keras64, ours, getattr(keras64.optimizers, kind)(**arguments))
    theirs = getattr(keras64.optimizers, kind)(**arguments).get_config()
    for name, value in ours.config().items():
        if name != "exclude_from_weight_decay":
            assert value == pytest.approx(theirs[name], rel=1e-15), name


@pytest.mark.parametrize(("kind", "arguments"), SCHEDULES)
def test_schedules(keras64: Any, kind: str, arguments: dict[str, Any]) -> None:
    ours = getattr(schedules, kind)(**arguments)
    theirs = getattr(keras64.optimizers.schedules, kind)(**arguments)
    config = theirs.get_config()
    del config["name"]
    assert ours.config() == config
    for step in (*range(12), 1000):
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-12, abs=1e-17)
    compare(
        keras64,
        optimizers.AdamW(ours, 0.25),
        keras64.optimizers.AdamW(theirs, weight_decay=0.25),
    )
