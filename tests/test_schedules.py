"""Schedules: their rates, an optimizer that follows one, descriptions, PyTorch's, errors."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fastrnn import optimizers, schedules
from fastrnn.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastrnn.parameter import Parameter
from fastrnn.schedules import (
    CosineDecay,
    ExponentialDecay,
    LinearWarmup,
    PiecewiseConstantDecay,
    Schedule,
)

STEPS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 19, 20, 21, 1000]
EXAMPLES = [
    ExponentialDecay(0.1, 4, 0.5),
    ExponentialDecay(0.1, 4, 0.5, True),
    PiecewiseConstantDecay([3, 10], [0.1, 0.0, 0.5]),
    CosineDecay(0.1, 10),
    CosineDecay(0.0, 10, 0.1, 0.2, 5),
    LinearWarmup(0.25, 4),
    LinearWarmup(CosineDecay(0.1, 10), 5),
]
every_schedule = pytest.mark.parametrize("schedule", EXAMPLES, ids=[repr(s) for s in EXAMPLES])


def make_optimizers(schedule: Schedule) -> list[Optimizer]:
    return [
        SGD(schedule),
        SGD(schedule, 0.9, True, weight_decay=0.5),
        RMSprop(schedule, momentum=0.5),
        Adam(schedule, global_clipnorm=1.0),
        AdamW(schedule, 0.5),
        Adagrad(schedule),
    ]


def make() -> dict[str, Parameter]:
    rng = np.random.default_rng(3)
    shapes = {"weight": (5, 3), "bias": (3,)}
    return {name: Parameter(rng.normal(size=shape)) for name, shape in shapes.items()}


def train(optimizer: Optimizer, parameters: dict[str, Parameter], steps: range) -> None:
    for seed in steps:
        rng = np.random.default_rng(seed)
        for p in parameters.values():
            p.grad = rng.normal(size=p.shape)
        optimizer.step(parameters)


def rates(schedule: Schedule) -> list[float]:
    return [schedule(step) for step in STEPS]


def test_exponential_decay() -> None:
    want = [0.1 * 0.5 ** (step / 4) for step in STEPS]
    assert rates(ExponentialDecay(0.1, 4, 0.5)) == pytest.approx(want, rel=1e-15)
    stairs = ExponentialDecay(0.1, decay_steps=4, decay_rate=0.5, staircase=True)
    assert [stairs(step) for step in (0, 3, 4, 7, 8, 12)] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.0125]


def test_piecewise_constant_decay() -> None:
    schedule = PiecewiseConstantDecay(boundaries=[3, 10], values=[0.5, 0.25, 0.0])
    assert [schedule(step) for step in (0, 3, 4, 10, 11, 99)] == [0.5, 0.5, 0.25, 0.25, 0.0, 0.0]
    assert PiecewiseConstantDecay([], [0.5])(7) == 0.5


def test_cosine_decay() -> None:
    schedule = CosineDecay(0.1, 10)
    assert schedule(0) == 0.1
    assert schedule(5) == pytest.approx(0.05, rel=1e-15)
    assert schedule(2) == pytest.approx(0.05 * (1 + math.cos(math.pi / 5)), rel=1e-15)
    assert schedule(10) == schedule(11) == schedule(1000) == 0.0
    assert CosineDecay(0.1, 10, alpha=0.2)(10) == pytest.approx(0.02, rel=1e-15)
    warm = CosineDecay(0.01, 10, 0.2, warmup_target=0.05, warmup_steps=4)
    assert [warm(step) for step in range(5)] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert warm(9) == pytest.approx(0.05 * 0.6, rel=1e-15)
    assert warm(14) == warm(15) == pytest.approx(0.05 * 0.2, rel=1e-15)
    assert CosineDecay(0.1, 10, warmup_target=0.2)(0) == 0.2
    assert rates(CosineDecay(0.1, 10, warmup_steps=5)) == rates(CosineDecay(0.1, 10))


def test_linear_warmup() -> None:
    constant = LinearWarmup(0.2, 4)
    want = [0.05, 0.1, 0.15, 0.2, 0.2, 0.2]
    assert [constant(step) for step in range(6)] == pytest.approx(want, rel=1e-15)
    then = ExponentialDecay(0.2, 1, 0.5)
    want = [0.05, 0.1, 0.15, 0.2, 0.2, 0.1, 0.05]
    warm = LinearWarmup(then, warmup_steps=4)
    assert [warm(step) for step in range(7)] == pytest.approx(want, rel=1e-15)
    assert rates(LinearWarmup(then, 0)) == rates(then)


@every_schedule
def test_rates_are_pure_and_no_less_than_zero(schedule: Schedule) -> None:
    first = rates(schedule)
    assert [schedule(step) for step in reversed(STEPS)] == first[::-1]
    assert all(isinstance(rate, float) and 0 <= rate <= 0.5 for rate in first)


@every_schedule
def test_descriptions(schedule: Schedule) -> None:
    description = schedule.description()
    assert json.loads(json.dumps(description)) == description
    again = schedules.from_config(description)
    assert type(again) is type(schedule) and again is not schedule
    assert rates(again) == rates(schedule)
    assert repr(again) == repr(schedule)
    assert eval(repr(schedule), vars(schedules)).config() == schedule.config()


@every_schedule
def test_an_optimizer_takes_the_rate_of_the_steps_done(schedule: Schedule) -> None:
    for followed in make_optimizers(schedule):
        parameters, plain = make(), make()
        other = optimizers.from_config(
            {
                "kind": type(followed).__name__,
                "config": {**followed.config(), "learning_rate": 1.0},
            }
        )
        train(followed, parameters, range(12))
        for step in range(12):
            other.learning_rate = PiecewiseConstantDecay([], [schedule(step)])
            train(other, plain, range(step, step + 1))
        assert followed.iterations == 12 and followed.learning_rate == schedule(12)
        for name, p in parameters.items():
            np.testing.assert_array_equal(p.data, plain[name].data)


def test_a_rate_of_zero_moves_nothing(isa: str) -> None:
    for optimizer in make_optimizers(PiecewiseConstantDecay([1], [0.0, 0.1])):
        parameters, fresh = make(), make()
        train(optimizer, parameters, range(1))
        for name, p in parameters.items():
            np.testing.assert_array_equal(p.data, fresh[name].data)
        train(optimizer, parameters, range(1, 3))
        assert np.all(parameters["weight"].data != fresh["weight"].data)


@every_schedule
def test_a_resumed_run_ends_with_the_same_bits(schedule: Schedule) -> None:
    for whole in make_optimizers(schedule):
        whole.exclude_from_weight_decay(var_names=["bias"])
        parameters = make()
        train(whole, parameters, range(4))
        stored = json.dumps(whole.description())
        state = whole.state_dict()
        assert "learning_rate" not in state
        resumed = {name: Parameter(p.data) for name, p in parameters.items()}
        train(whole, parameters, range(4, 9))
        second = optimizers.from_config(json.loads(stored))
        second.load_state_dict(state)
        train(second, resumed, range(4, 9))
        for name, p in parameters.items():
            np.testing.assert_array_equal(p.data, resumed[name].data)
        assert second.description() == whole.description()


def test_setting_the_learning_rate() -> None:
    optimizer = SGD(learning_rate=CosineDecay(0.1, 10))
    assert optimizer.learning_rate == 0.1
    assert repr(optimizer).startswith("SGD(learning_rate=CosineDecay(initial_learning_rate=0.1,")
    with pytest.raises(TypeError, match=r"learning_rate: the schedule CosineDecay\(.*cannot be"):
        optimizer.learning_rate = 0.5
    optimizer.learning_rate = LinearWarmup(0.5, 2)
    assert optimizer.learning_rate == 0.25
    number = SGD(0.1)
    number.learning_rate = CosineDecay(0.2, 10)
    assert number.learning_rate == 0.2


def test_states_with_and_without_a_schedule() -> None:
    scheduled, number = Adam(CosineDecay(0.1, 10)), Adam(0.1)
    with pytest.raises(ValueError, match=r"state: missing \['learning_rate'\]"):
        number.load_state_dict(scheduled.state_dict())
    with pytest.raises(ValueError, match=r"not expected \['learning_rate'\]"):
        scheduled.load_state_dict(number.state_dict())


class Odd(Schedule):
    """Gives what it is made with."""

    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate


def test_a_schedule_of_ones_own() -> None:
    parameters, fresh = make(), make()
    for wrong, error in ((math.nan, ValueError), (-0.1, ValueError), ("0.1", TypeError)):
        optimizer = SGD(Odd(wrong))
        with pytest.raises(error, match="learning_rate: expected a finite number from 0"):
            train(optimizer, parameters, range(1))
        assert optimizer.iterations == 0 and parameters["weight"].version == 0
    growing = SGD(ExponentialDecay(0.1, 1, 10.0))
    growing.iterations = 1000
    with pytest.raises(ValueError, match=r"learning_rate: .*got inf"):
        train(growing, parameters, range(1))
    train(SGD(Odd(0.5)), parameters, range(1))
    assert np.all(parameters["weight"].data != fresh["weight"].data)
    with pytest.raises(ValueError, match=r"schedule: expected one of Exp.*got 'Odd'"):
        optimizers.from_config(SGD(Odd(0.5)).description())


def test_errors() -> None:
    for make_it, error, message in (
        (lambda: ExponentialDecay(-1, 4, 0.5), ValueError, "initial_learning_rate: .*got -1"),
        (lambda: ExponentialDecay("1", 4, 0.5), TypeError, "initial_learning_rate: "),
        (lambda: ExponentialDecay(1, 0, 0.5), ValueError, "decay_steps: .*from 1, got 0"),
        (lambda: ExponentialDecay(1, 4.5, 0.5), TypeError, r"decay_steps: .*got 4\.5"),
        (lambda: ExponentialDecay(1, True, 0.5), ValueError, "decay_steps: .*got True"),
        (lambda: ExponentialDecay(1, 4, 0.0), ValueError, "decay_rate: "),
        (lambda: ExponentialDecay(1, 4, 0.5, 1), TypeError, "staircase: "),
        (lambda: PiecewiseConstantDecay([3], [1.0]), ValueError, "values: expected 2 for 1"),
        (lambda: PiecewiseConstantDecay([3, 3], [1, 1, 1]), ValueError, "boundaries: expected"),
        (lambda: PiecewiseConstantDecay([1.5], [1, 1]), TypeError, r"boundaries\[0\]: .*1\.5"),
        (lambda: PiecewiseConstantDecay([1], [1, -1]), ValueError, r"values\[1\]: .*got -1"),
        (lambda: PiecewiseConstantDecay(3, [1, 1]), TypeError, "boundaries: expected a list"),
        (lambda: PiecewiseConstantDecay([3], "ab"), TypeError, "values: expected a list"),
        (lambda: CosineDecay(math.inf, 4), ValueError, "initial_learning_rate: "),
        (lambda: CosineDecay(1, 4, alpha=-0.1), ValueError, r"alpha: .*got -0\.1"),
        (lambda: CosineDecay(1, 4, warmup_target="2"), TypeError, "warmup_target: "),
        (lambda: CosineDecay(1, 4, warmup_steps=-1), ValueError, "warmup_steps: .*from 0"),
        (lambda: LinearWarmup(0.0, 4), ValueError, "schedule_or_rate: .*a schedule, got 0.0"),
        (lambda: LinearWarmup(None, 4), TypeError, "schedule_or_rate: .*a schedule, got None"),
        (lambda: LinearWarmup(1.0, None), TypeError, "warmup_steps: "),
        (lambda: SGD(lambda step: 0.1), TypeError, "learning_rate: .*or a schedule, got <func"),
    ):
        with pytest.raises(error, match=message):
            make_it()


def test_from_config_refuses() -> None:
    nested: dict[str, Any] = {"kind": "LinearWarmup", "config": {}}
    for _ in range(5000):
        nested = {"kind": "LinearWarmup", "config": {"schedule_or_rate": nested}}
    for wrong, message in (
        ("CosineDecay", "schedule: expected its kind and config"),
        ({"kind": "Cosine", "config": {}}, "schedule: expected one of .*got 'Cosine'"),
        ({"kind": "CosineDecay", "config": {}}, "schedule: .*missing 2 required"),
        (
            {"kind": "LinearWarmup", "config": {"warmup_steps": {}}},
            "schedule: schedule: expected its kind",
        ),
        (nested, "schedule: "),
    ):
        with pytest.raises(ValueError, match=message):
            schedules.from_config(wrong)
    with pytest.raises(ValueError, match="optimizer: schedule: expected one of"):
        optimizers.from_config(
            {"kind": "SGD", "config": {"learning_rate": {"kind": "x", "config": {}}}}
        )


@pytest.mark.torch
def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    kinds = torch.optim.lr_scheduler
    pairs = [
        (ExponentialDecay(0.5, 1, 0.9), lambda o: kinds.ExponentialLR(o, 0.9)),
        (ExponentialDecay(0.5, 3, 0.1, True), lambda o: kinds.StepLR(o, 3, 0.1)),
        # A milestone is the first step of a new rate, a boundary the last of the one before.
        (
            PiecewiseConstantDecay([3, 6], [0.5, 0.05, 0.005]),
            lambda o: kinds.MultiStepLR(o, [4, 7], 0.1),
        ),
        (LinearWarmup(0.5, 4), lambda o: kinds.LinearLR(o, 0.25, 1.0, 3)),
        (CosineDecay(0.5, 12, 0.1), lambda o: kinds.CosineAnnealingLR(o, 12, 0.05)),
    ]
    for schedule, make_theirs in pairs:
        theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = make_theirs(theirs)
        for step in range(12):
            assert schedule(step) == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
            theirs.step()
            scheduler.step()
