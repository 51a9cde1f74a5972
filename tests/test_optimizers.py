"""Optimizers: update rules against plain float64 versions and PyTorch, clipping, state, errors."""

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

import fastrnn as fr
from fastrnn import _core, optimizers
from fastrnn.clipping import clip_by_global_norm
from fastrnn.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastrnn.parameter import Parameter

SHAPES = {"weight": (5, 3), "bias": (3,), "long": (800_003,)}  # long: enough for three threads
Rule = Callable[[float, Iterator[float]], float]


def make(dtype: str = "float64", names: tuple[str, ...] = ("weight", "bias")) -> dict:
    rng = np.random.default_rng(3)
    return {name: Parameter(rng.normal(size=SHAPES[name]), dtype) for name in names}


def give_grads(parameters: Mapping[str, Parameter], seed: int, scale: float = 1.0) -> None:
    rng = np.random.default_rng(seed)
    for p in parameters.values():
        p.zero_grad()
        p.add_grad((scale * rng.normal(size=p.shape)).astype(p.dtype))


def train(optimizer: Optimizer, parameters: Mapping[str, Parameter], steps: int = 5) -> None:
    for seed in range(steps):
        give_grads(parameters, seed)
        optimizer.step(parameters)


# The rules once more for one number: its value, and its gradient at every step.


def sgd(
    w: float, grads: Iterator[float], lr=0.01, momentum=0.0, nesterov=False, decay=0.0
) -> float:
    m = 0.0
    for g in grads:
        w *= 1 - decay * lr
        m = momentum * m - lr * g
        w += momentum * m - lr * g if nesterov else m
    return w


def rmsprop(
    w: float, grads: Iterator[float], lr=0.001, rho=0.9, momentum=0.0, eps=1e-7, decay=0.0
) -> float:
    v = m = 0.0
    for g in grads:
        w *= 1 - decay * lr
        v = rho * v + (1 - rho) * g**2
        m = momentum * m + lr * g / math.sqrt(v + eps)
        w -= m
    return w


def adam(
    w: float, grads: Iterator[float], lr=0.001, b1=0.9, b2=0.999, eps=1e-7, decay=0.0
) -> float:
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        w *= 1 - decay * lr
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w -= lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (math.sqrt(v) + eps)
    return w


def adagrad(w: float, grads: Iterator[float], lr=0.001, a=0.1, eps=1e-7, decay=0.0) -> float:
    for g in grads:
        w *= 1 - decay * lr
        a += g**2
        w -= lr * g / math.sqrt(a + eps)
    return w


def expected(rule: Rule, parameters: Mapping[str, Parameter], steps: int = 5) -> dict:
    grads: list[dict[str, np.ndarray]] = []
    for seed in range(steps):
        give_grads(parameters, seed)
        grads.append({name: p.grad for name, p in parameters.items()})
    result = {}
    for name, p in parameters.items():
        columns = np.stack([g[name].reshape(-1) for g in grads], axis=1).tolist()
        values = [rule(w, iter(c)) for w, c in zip(p.data.ravel().tolist(), columns, strict=True)]
        result[name] = np.reshape(values, p.shape)
    return result


CASES = [
    (SGD(), sgd),
    (SGD(0.1), lambda w, g: sgd(w, g, 0.1)),
    (SGD(0.1, momentum=0.9), lambda w, g: sgd(w, g, 0.1, 0.9)),
    (SGD(0.1, 0.9, True), lambda w, g: sgd(w, g, 0.1, 0.9, True)),
    (RMSprop(), rmsprop),
    (RMSprop(0.01, 0.8, 0.5, 1e-3), lambda w, g: rmsprop(w, g, 0.01, 0.8, 0.5, 1e-3)),
    (Adam(), adam),
    (Adam(0.1, 0.8, 0.95, 1e-2), lambda w, g: adam(w, g, 0.1, 0.8, 0.95, 1e-2)),
    (AdamW(), lambda w, g: adam(w, g, decay=0.004)),
    (AdamW(0.1, 0.25, 0.8, 0.95, 1e-2), lambda w, g: adam(w, g, 0.1, 0.8, 0.95, 1e-2, 0.25)),
    (Adagrad(), adagrad),
    (Adagrad(0.1, 0.5, 1e-2), lambda w, g: adagrad(w, g, 0.1, 0.5, 1e-2)),
    (SGD(0.1, weight_decay=0.25), lambda w, g: sgd(w, g, 0.1, decay=0.25)),
    (SGD(0.1, 0.9, weight_decay=0.25), lambda w, g: sgd(w, g, 0.1, 0.9, decay=0.25)),
    (SGD(0.1, 0.9, True, weight_decay=0.25), lambda w, g: sgd(w, g, 0.1, 0.9, True, 0.25)),
    (
        RMSprop(0.1, momentum=0.5, weight_decay=0.25),
        lambda w, g: rmsprop(w, g, 0.1, 0.9, 0.5, decay=0.25),
    ),
    (Adam(0.1, weight_decay=0.25), lambda w, g: adam(w, g, 0.1, decay=0.25)),
    (Adagrad(0.1, weight_decay=0.25), lambda w, g: adagrad(w, g, 0.1, decay=0.25)),
]
every_rule = pytest.mark.parametrize(("optimizer", "rule"), CASES, ids=[repr(c[0]) for c in CASES])


@every_rule
def test_rule(isa: str, optimizer: Optimizer, rule: Rule) -> None:
    parameters = make()
    want = expected(rule, parameters)
    train(copy.deepcopy(optimizer), parameters)
    for name, p in parameters.items():
        np.testing.assert_allclose(p.data, want[name], rtol=1e-12, atol=1e-14)


@every_rule
def test_float32_stays_float32_and_follows_float64(optimizer: Optimizer, rule: Rule) -> None:
    single, double = make("float32"), make("float64")
    train(copy.deepcopy(optimizer), single)
    train(copy.deepcopy(optimizer), double)
    for name, p in single.items():
        assert p.data.dtype == np.float32
        np.testing.assert_allclose(p.data, double[name].data, rtol=1e-5, atol=1e-5)


@every_rule
@pytest.mark.usefixtures("restore_threads")
def test_same_bits_on_any_threads_and_instruction_set(
    optimizer: Optimizer, rule: Rule, dtype: np.dtype
) -> None:
    results = set()
    vector_isas = [isa for isa in _core.isas() if isa != "generic"]
    for isa, threads in itertools.product(vector_isas, (1, 2, 3)):
        with fr.config.using(isa=isa):
            fr.set_num_threads(threads)
            parameters = make(dtype.name, ("weight", "long", "bias"))
            clipped = type(optimizer)(**{**optimizer.config(), "global_clipnorm": 1.0})
            train(clipped, parameters, steps=3)
            state = clipped.state_dict()
            arrays = [p.data for p in parameters.values()] + [state[k] for k in sorted(state)]
            results.add(b"".join(a.tobytes() for a in arrays))
    assert len(results) == 1


@pytest.mark.torch
def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    pairs = [  # PyTorch adds epsilon elsewhere, so here it is too small to matter
        (SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
        (SGD(0.1, 0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (SGD(0.1, 0.9, True), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (
            RMSprop(0.01, 0.8, 0.5, 1e-30),
            torch.optim.RMSprop,
            {"lr": 0.01, "alpha": 0.8, "momentum": 0.5, "eps": 1e-30},
        ),
        (Adam(0.01, epsilon=1e-30), torch.optim.Adam, {"lr": 0.01, "eps": 1e-30}),
        (
            AdamW(0.01, 0.25, epsilon=1e-30),
            torch.optim.AdamW,
            {"lr": 0.01, "weight_decay": 0.25, "eps": 1e-30},
        ),
        (
            Adagrad(0.01, 0.5, 1e-30),
            torch.optim.Adagrad,
            {"lr": 0.01, "initial_accumulator_value": 0.5, "eps": 1e-30},
        ),
    ]
    for optimizer, kind, arguments in pairs:
        parameters = make()
        theirs = {n: torch.nn.Parameter(torch.tensor(p.data)) for n, p in parameters.items()}
        other = kind(theirs.values(), **arguments)
        for seed in range(5):
            give_grads(parameters, seed)
            for name, p in parameters.items():
                theirs[name].grad = torch.tensor(p.grad)
            optimizer.step(parameters)
            other.step()
        for name, p in parameters.items():
            np.testing.assert_allclose(p.data, theirs[name].detach().numpy(), rtol=1e-11)


@pytest.mark.torch
def test_clipping_against_torch() -> None:
    torch = pytest.importorskip("torch")
    utils = torch.nn.utils
    for clip, theirs_clips in (
        ({"global_clipnorm": 1.5}, lambda ps: utils.clip_grad_norm_(ps, 1.5)),
        ({"clipnorm": 1.5}, lambda ps: [utils.clip_grad_norm_([p], 1.5) for p in ps]),
        ({"clipvalue": 0.25}, lambda ps: utils.clip_grad_value_(ps, 0.25)),
    ):
        parameters = make(names=("weight", "bias", "long"))
        give_grads(parameters, 0)
        theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in parameters.values()]
        for p, other in zip(parameters.values(), theirs, strict=True):
            other.grad = torch.tensor(p.grad)
        theirs_clips(theirs)
        torch.optim.SGD(theirs, lr=1.0).step()
        SGD(1.0, **clip).step(parameters)
        for p, other in zip(parameters.values(), theirs, strict=True):  # it adds 1e-6 to norms
            np.testing.assert_allclose(p.data, other.detach().numpy(), atol=1e-6)


def test_only_parameters_with_a_gradient_move() -> None:
    parameters = make()
    give_grads(parameters, 0)
    parameters["bias"].zero_grad()
    before = {name: p.data.copy() for name, p in parameters.items()}
    grad = parameters["weight"].grad.copy()
    Adam(clipvalue=0.1).step(parameters)
    assert parameters["weight"].version == 1 and parameters["bias"].version == 0
    assert np.all(parameters["weight"].data != before["weight"])
    np.testing.assert_array_equal(parameters["bias"].data, before["bias"])
    np.testing.assert_array_equal(parameters["weight"].grad, grad)


def test_non_contiguous_gradient() -> None:
    parameters, turned = make(), make()
    give_grads(parameters, 0)
    give_grads(turned, 0)
    turned["weight"].grad = np.asfortranarray(turned["weight"].grad)
    for each in (parameters, turned):
        clip_by_global_norm(each, 0.5)
        Adam(clipnorm=0.1).step(each)
    np.testing.assert_array_equal(parameters["weight"].data, turned["weight"].data)


def moved(clip: Mapping[str, float], scale: float = 1.0) -> dict[str, np.ndarray]:
    """What plain SGD with rate 1 subtracts: the clipped gradients."""
    parameters = make()
    before = {name: p.data.copy() for name, p in parameters.items()}
    give_grads(parameters, 0, scale)
    SGD(1.0, **clip).step(parameters)
    return {name: before[name] - p.data for name, p in parameters.items()}


def test_clipping_in_the_step() -> None:
    plain = moved({})
    norms = {name: np.linalg.norm(g) for name, g in plain.items()}
    total = math.hypot(*norms.values())
    values, each, all_ = (
        moved({"clipvalue": 0.5}),
        moved({"clipnorm": 2.0}),
        moved({"global_clipnorm": 1.5}),
    )
    assert norms["weight"] > 2.0 > norms["bias"]  # so one is scaled, the other not
    for name, g in plain.items():
        np.testing.assert_allclose(values[name], np.clip(g, -0.5, 0.5), atol=1e-15)
        np.testing.assert_allclose(each[name], g * min(1, 2.0 / norms[name]), atol=1e-15)
        np.testing.assert_allclose(all_[name], g * 1.5 / total, atol=1e-15)
        np.testing.assert_array_equal(moved({"global_clipnorm": total + 1})[name], g)


@every_rule
def test_state_dict_resumes_exactly(optimizer: Optimizer, rule: Rule) -> None:
    parameters, first = make(), copy.deepcopy(optimizer)
    train(first, parameters, steps=3)
    first.learning_rate = 0.5
    state, resumed = first.state_dict(), {n: Parameter(p.data) for n, p in parameters.items()}
    kept = copy.deepcopy(state)
    train(first, parameters, steps=2)
    second = optimizers.from_config(json.loads(json.dumps(optimizer.description())))
    assert type(second) is type(optimizer) and second.config() == optimizer.config()
    second.load_state_dict(state)
    assert second.iterations == 3 and second.learning_rate == 0.5
    train(second, resumed, steps=2)
    for name, p in parameters.items():
        np.testing.assert_array_equal(p.data, resumed[name].data)
    for key, value in state.items():  # the optimizers did not reach into what was given out
        assert isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, kept[key])


def test_state_dict_names() -> None:
    parameters = make()
    adam_, adagrad_, sgd_ = Adam(), Adagrad(), SGD()
    for optimizer in (adam_, adagrad_, sgd_):
        train(optimizer, parameters, steps=1)
    scalars = {"iterations", "learning_rate"}
    assert sgd_.state_dict().keys() == scalars
    slots = {f"{slot}.{name}" for slot in ("momentum", "velocity") for name in parameters}
    assert adam_.state_dict().keys() == scalars | slots
    assert adagrad_.state_dict().keys() == scalars | {f"accumulator.{name}" for name in parameters}


def test_load_state_dict_takes_all_or_nothing() -> None:
    parameters, optimizer = make(), Adam()
    train(optimizer, parameters, steps=1)
    good = optimizer.state_dict()
    bad = [
        ({k: v for k, v in good.items() if k != "velocity.bias"}, ValueError, "velocity.bias"),
        ({k: v for k, v in good.items() if k != "iterations"}, ValueError, "iterations"),
        ({**good, "speed.bias": good["velocity.bias"]}, ValueError, "not expected.*speed.bias"),
        ({**good, "iterations": np.array(-1)}, ValueError, "iterations: .*-1"),
        ({**good, "iterations": np.array(1.5)}, ValueError, "iterations: "),
        ({**good, "learning_rate": np.array(np.nan)}, ValueError, "learning_rate: "),
        ({**good, "velocity.bias": np.arange(3)}, TypeError, "velocity.bias: .*int64"),
    ]
    fresh = Adam(0.25)
    for state, error, message in bad:
        with pytest.raises(error, match=message):
            fresh.load_state_dict(state)
    assert fresh.iterations == 0 and fresh.learning_rate == 0.25
    assert fresh.state_dict().keys() == {"iterations", "learning_rate"}
    with pytest.raises(ValueError, match=r"not expected.*velocity\.weight"):
        SGD().load_state_dict(good)


def test_step_checks_before_it_writes() -> None:
    parameters, optimizer = make(), Adam()
    with pytest.raises(ValueError, match=r"parameters: .*gradient"):
        optimizer.step(parameters)
    train(optimizer, parameters, steps=1)
    before = parameters["weight"].data.copy()
    other = {"weight": parameters["weight"], "bias": Parameter(np.zeros(4))}
    give_grads(other, 0)
    with pytest.raises(ValueError, match=r"bias: .*\(3,\).*got float64 \(4,\)"):
        optimizer.step(other)
    other["bias"] = Parameter(np.zeros(3), "float32")
    give_grads(other, 0)
    with pytest.raises(ValueError, match=r"bias: expected float64 .*got float32"):
        optimizer.step(other)
    give_grads(parameters, 0)
    parameters["bias"].grad = np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"bias: expected a gradient of .*got float64 \(3, 1\)"):
        optimizer.step(parameters)
    np.testing.assert_array_equal(parameters["weight"].data, before)
    assert optimizer.iterations == 1 and parameters["weight"].version == 1


@pytest.mark.parametrize("kind", [SGD, RMSprop, Adam, AdamW, Adagrad])
def test_hyperparameters_are_checked(kind: type[Optimizer]) -> None:
    for wrong in (0, 0.0, -1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="learning_rate: expected a positive finite number"):
            kind(wrong)
        with pytest.raises(ValueError, match="clipvalue: "):
            kind(clipvalue=wrong)
        optimizer = kind()
        with pytest.raises(ValueError, match="learning_rate: "):
            optimizer.learning_rate = wrong
    for wrong in ("0.1", None, True, [0.1]):
        with pytest.raises(TypeError, match="learning_rate: "):
            kind(wrong)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight_decay: expected a finite number from 0"):
            kind(weight_decay=wrong)
    with pytest.raises(TypeError, match=r"weight_decay: .*got '0\.1'"):
        kind(weight_decay="0.1")
    with pytest.raises(ValueError, match="clipvalue and global_clipnorm: expected one"):
        kind(clipvalue=1.0, global_clipnorm=1.0)
    with pytest.raises(TypeError, match="clip_norm"):
        kind(clip_norm=1.0)
    assert kind(np.float32(0.5)).learning_rate == 0.5


def test_further_errors() -> None:
    with pytest.raises(ValueError, match=r"beta_1: .*\[0, 1\), got 1.0"):
        Adam(beta_1=1.0)
    with pytest.raises(ValueError, match=r"beta_2: .*got -0.1"):
        Adam(beta_2=-0.1)
    with pytest.raises(ValueError, match="epsilon: "):
        Adam(epsilon=0.0)
    with pytest.raises(ValueError, match=r"rho: .*nan"):
        RMSprop(rho=math.nan)
    with pytest.raises(TypeError, match="momentum: "):
        SGD(momentum="0.9")
    with pytest.raises(TypeError, match="nesterov: "):
        SGD(nesterov=1)
    with pytest.raises(TypeError, match=r"weight_decay: .*got None"):
        AdamW(weight_decay=None)
    with pytest.raises(ValueError, match=r"initial_accumulator_value: .*from 0, got -0\.1"):
        Adagrad(initial_accumulator_value=-0.1)
    with pytest.raises(ValueError, match="epsilon: "):
        Adagrad(epsilon=0.0)


def test_exclude_from_weight_decay() -> None:
    plain, decayed = make(), make()
    train(SGD(0.1, 0.9), plain)
    optimizer = SGD(0.1, 0.9, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["never", "^b.*s$"])
    train(optimizer, decayed)
    np.testing.assert_array_equal(decayed["bias"].data, plain["bias"].data)
    assert np.all(decayed["weight"].data != plain["weight"].data)
    before = decayed["bias"].data.copy()
    for p in decayed.values():
        p.grad = np.zeros(p.shape)
    no_momentum = SGD(0.1, weight_decay=0.5)
    no_momentum.exclude_from_weight_decay(var_names=["^weight"])
    no_momentum.step(decayed)
    np.testing.assert_allclose(decayed["bias"].data, before * 0.95, rtol=1e-15)
    no_momentum.exclude_from_weight_decay(var_names=["bias"])  # and not weight any more
    weight, bias = (decayed[name].data.copy() for name in ("weight", "bias"))
    no_momentum.step(decayed)
    np.testing.assert_array_equal(decayed["bias"].data, bias)
    np.testing.assert_allclose(decayed["weight"].data, weight * 0.95, rtol=1e-15)
    for wrong, error, message in (
        ("bias", TypeError, "var_names: expected a list, got 'bias'"),
        (["bias", 1], TypeError, r"var_names\[1\]: expected a regular expression, got 1"),
        (["("], ValueError, r"var_names\[0\]: no regular expression: '\('"),
    ):
        with pytest.raises(error, match=message):
            no_momentum.exclude_from_weight_decay(var_names=wrong)
    assert no_momentum.config()["exclude_from_weight_decay"] == ["bias"]


def test_from_config() -> None:
    optimizer = AdamW(0.1, clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "ln_"])
    description = json.loads(json.dumps(optimizer.description()))
    assert description["kind"] == "AdamW"
    again = optimizers.from_config(description)
    assert type(again) is AdamW and again.description() == description
    assert repr(again) == repr(optimizer)
    assert optimizers.from_config({"kind": "SGD", "config": {}}).config() == SGD().config()
    config = optimizer.config()
    for wrong, message in (
        (None, "optimizer: expected its kind and config, got None"),
        ({"kind": "Adam"}, "optimizer: expected its kind and config"),
        ({"kind": "Adam", "config": {}, "more": 1}, "optimizer: expected its kind and config"),
        ({"kind": "Lion", "config": {}}, "optimizer: expected one of SGD, .*got 'Lion'"),
        ({"kind": [], "config": {}}, r"optimizer: expected one of SGD, .*got \[\]"),
        ({"kind": "Adam", "config": []}, r"optimizer: expected a config .*got \[\]"),
        ({"kind": "SGD", "config": config}, "optimizer: .*unexpected keyword argument"),
        ({"kind": "Adam", "config": {"speed": 1}}, "optimizer: .*'speed'"),
        ({"kind": "Adam", "config": {"epsilon": -1}}, "optimizer: epsilon: .*got -1"),
        ({"kind": "Adam", "config": {"epsilon": "x"}}, "optimizer: epsilon: .*got 'x'"),
        ({"kind": "Adam", "config": {3: 1}}, "optimizer: .*strings"),
        (
            {"kind": "Adam", "config": {"exclude_from_weight_decay": ["["]}},
            r"optimizer: var_names\[0\]: no regular expression",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            optimizers.from_config(wrong)


def test_get_and_config() -> None:
    kinds = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW, "adagrad": Adagrad}
    for name, kind in kinds.items():
        assert type(optimizers.get(name)) is type(optimizers.get(kind.__name__)) is kind
    mine = Adam(0.1, clipnorm=2.0)
    assert optimizers.get(mine) is mine
    assert mine.config() == {
        "learning_rate": 0.1,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "clipnorm": 2.0,
    }
    assert AdamW().config() == {
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "weight_decay": 0.004,
    }
    assert Adagrad().config() == {
        "learning_rate": 0.001,
        "initial_accumulator_value": 0.1,
        "epsilon": 1e-7,
    }
    assert repr(SGD()) == "SGD(learning_rate=0.01, momentum=0.0, nesterov=False)"
    with pytest.raises(ValueError, match=r"optimizer: expected one of sgd, .*got 'lion'"):
        optimizers.get("lion")
    for wrong in (None, Adam, 0.1):
        with pytest.raises(TypeError, match="optimizer: "):
            optimizers.get(wrong)
