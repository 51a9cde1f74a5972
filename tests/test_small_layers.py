"""Embedding, Dense and Dropout: values, gradients, starting values, threads, and errors."""

import copy
import threading

import numpy as np
import pytest

from fastrnn.layers.base import Layer
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding

ACTIVATIONS = [None, "relu", "tanh", "sigmoid", "softmax"]
LEADING = [(), (1,), (4,), (2, 3), (2, 1, 3)]


def normal(*shape: int, seed: int = 5, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def check_gradients(layer: Layer, x: np.ndarray) -> None:
    """The pullback against central differences of sum(y * dy), x included where it is real."""
    dy = normal(*layer(x).shape, seed=11)
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(y, layer(x))
    dx = pullback(dy)

    def numeric(values: np.ndarray, assign: object) -> np.ndarray:
        gradient = np.empty(values.shape)
        for index in np.ndindex(values.shape):
            sums = []
            for shift in (1e-6, -1e-6):
                moved = values.copy()
                moved[index] += shift
                sums.append(np.sum(assign(moved) * dy))
            gradient[index] = (sums[0] - sums[1]) / 2e-6
        return gradient

    for name, p in layer.parameters().items():
        values = p.data.copy()

        def with_parameter(moved: np.ndarray, p=p) -> np.ndarray:
            p.assign(moved)
            return layer(x)

        want = numeric(values, with_parameter)
        p.assign(values)
        assert p.grad.dtype == p.dtype
        np.testing.assert_allclose(p.grad, want, rtol=1e-6, atol=1e-8, err_msg=name)
    if dx is not None:
        assert dx.shape == x.shape and dx.dtype == x.dtype
        np.testing.assert_allclose(dx, numeric(x, layer), rtol=1e-6, atol=1e-8)


def plain_activation(z: np.ndarray, activation: str | None) -> np.ndarray:
    e = np.exp(z)
    return {
        None: z,
        "relu": np.where(z > 0, z, 0),
        "tanh": (e - 1 / e) / (e + 1 / e),
        "sigmoid": e / (1 + e),
        "softmax": e / e.sum(axis=-1, keepdims=True),
    }[activation]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_dense(activation: str | None, leading: tuple[int, ...]) -> None:
    layer = Dense(3, 4, activation, dtype="float64", seed=1)
    layer.load_state_dict({"weight": normal(4, 3, seed=2), "bias": normal(4, seed=3)})
    x = normal(*leading, 3)
    z = np.einsum("...i,oi->...o", x, layer.weight.data) + layer.bias.data
    y = layer(x)
    assert y.shape == (*leading, 4) == layer.output_shape(x.shape)
    np.testing.assert_allclose(y, plain_activation(z, activation), rtol=1e-12)
    check_gradients(layer, x)


@pytest.mark.parametrize("bias", [True, False])
def test_dense_float32_and_bias(bias: bool) -> None:
    single, double = (Dense(5, 2, "tanh", bias=bias, dtype=d) for d in ("float32", "float64"))
    double.load_state_dict(single.state_dict())
    assert list(single.parameters()) == (["weight", "bias"] if bias else ["weight"])
    x, dy = normal(3, 4, 5), normal(3, 4, 2, seed=6)
    y, pullback = single.vjp(x.astype(np.float32))
    want, want_pullback = double.vjp(x)
    dx, want_dx = pullback(dy.astype(np.float32)), want_pullback(dy)
    assert y.dtype == dx.dtype == single.weight.grad.dtype == np.float32
    np.testing.assert_allclose(y, want, atol=1e-6)
    np.testing.assert_allclose(dx, want_dx, atol=1e-5)
    for name, p in single.parameters().items():
        np.testing.assert_allclose(p.grad, double.parameters()[name].grad, atol=1e-5)


def test_dense_takes_any_layout_and_writes_no_input() -> None:
    layer = Dense(3, 4, "softmax", dtype="float64", seed=1)
    x, dy = normal(2, 6, 3), normal(2, 6, 4, seed=6)
    y, pullback = layer.vjp(x)
    dx, dw = pullback(dy), layer.weight.grad
    layer.zero_grad()
    turned, dturned = (np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1) for a in (x, dy))
    turned.flags.writeable = dturned.flags.writeable = False
    y2, pullback = layer.vjp(turned)
    np.testing.assert_allclose(y2, y, rtol=1e-13)
    np.testing.assert_allclose(pullback(dturned), dx, rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, dw, rtol=1e-12)


@pytest.mark.torch
def test_dense_against_torch() -> None:
    torch = pytest.importorskip("torch")
    layer = Dense(6, 3, dtype="float64", seed=2)
    linear = torch.nn.Linear(6, 3, dtype=torch.float64)
    layer.load_state_dict(linear.state_dict())
    x, dy = normal(4, 2, 6), normal(4, 2, 3, seed=6)
    x_torch = torch.tensor(x, requires_grad=True)
    want = linear(x_torch)
    want.backward(torch.tensor(dy))
    y, pullback = layer.vjp(x)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(pullback(dy), x_torch.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, linear.weight.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.grad, linear.bias.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_activations_are_stable(activation: str | None) -> None:
    layer = Dense(1, 2, activation)
    layer.load_state_dict({"weight": [[1e4], [-1e4]], "bias": [0.0, 0.0]})
    y, pullback = layer.vjp(np.ones((1, 1), np.float32))
    want = {None: [1e4, -1e4], "relu": [1e4, 0.0], "tanh": [1.0, -1.0]}
    np.testing.assert_array_equal(y, [want.get(activation, [1.0, 0.0])])
    assert np.all(np.isfinite(pullback(np.ones((1, 2), np.float32))))


def test_gradients_add_up_and_pullbacks_interleave() -> None:
    layer = Dense(3, 2, "tanh", dtype="float64", seed=1)
    xs, dys = [normal(4, 3, seed=s) for s in (1, 2)], [normal(4, 2, seed=s) for s in (3, 4)]
    alone = []
    for x, dy in zip(xs, dys, strict=True):
        layer.zero_grad()
        dx = layer.vjp(x)[1](dy)
        alone.append((dx, layer.weight.grad))
    layer.zero_grad()
    first, second = (layer.vjp(x)[1] for x in xs)
    with layer.weight.writing() as data:  # an optimizer's step in between
        data *= 2.0
    np.testing.assert_array_equal(second(dys[1]), alone[1][0])
    np.testing.assert_array_equal(first(dys[0]), alone[0][0])
    np.testing.assert_allclose(layer.weight.grad, alone[0][1] + alone[1][1], rtol=1e-14)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "uint16", "uint64"])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 5)], ids=str)
def test_embedding(dtype: str, shape: tuple[int, ...]) -> None:
    layer = Embedding(7, 3, dtype="float64", seed=4)
    x = np.random.default_rng(0).integers(0, 7, shape).astype(dtype)
    y = layer(x)
    assert y.shape == (*shape, 3) == layer.output_shape(shape)
    for index in np.ndindex(shape):
        np.testing.assert_array_equal(y[index], layer.weight.data[x[index]])
    check_gradients(layer, x)


def test_embedding_takes_lists_and_strided_ids() -> None:
    layer = Embedding(7, 3, seed=4)
    np.testing.assert_array_equal(layer([[6, 0]]), layer.weight.data[[[6, 0]]])
    ids = np.arange(14).reshape(2, 7).T % 7
    dy = normal(7, 2, 3, dtype="float32")
    grads = []
    for x in (ids, np.ascontiguousarray(ids)):
        layer.zero_grad()
        assert layer.vjp(x)[1](dy) is None
        grads.append(layer.weight.grad)
    np.testing.assert_array_equal(grads[0], grads[1])


@pytest.mark.parametrize("count", [65, 300, 70_000])
def test_embedding_gradient_sums_over_repeated_ids(count: int) -> None:
    layer = Embedding(count, 2, seed=4)
    rng = np.random.default_rng(0)
    x = rng.integers(0, count, (50, 50))
    x[:10] = count - 1
    dy = normal(50, 50, 2, dtype="float32")
    want = np.zeros((count, 2))
    np.add.at(want, x, dy.astype(np.float64))
    _, pullback = layer.vjp(x)
    x[...] = 0  # the ids are the caller's again
    pullback(dy)
    assert layer.weight.grad.dtype == np.float32
    np.testing.assert_allclose(layer.weight.grad, want, rtol=1e-5, atol=1e-4)


@pytest.mark.torch
def test_embedding_against_torch() -> None:
    torch = pytest.importorskip("torch")
    layer, theirs = Embedding(9, 4), torch.nn.Embedding(9, 4)
    layer.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).integers(0, 9, (5, 6))
    dy = normal(5, 6, 4, dtype="float32")
    want = theirs(torch.tensor(x))
    want.backward(torch.tensor(dy))
    y, pullback = layer.vjp(x)
    pullback(dy)
    np.testing.assert_array_equal(y, want.detach().numpy())
    np.testing.assert_allclose(layer.weight.grad, theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_starting_values() -> None:
    table = Embedding(200, 50, seed=0).weight.data
    assert table.dtype == np.float32
    assert 0.049 < np.abs(table).max() <= np.float32(0.05) and abs(table.mean()) < 1e-3
    dense, bound = Dense(60, 90, seed=0), np.sqrt(6 / 150)
    assert dense.weight.shape == (90, 60) and not dense.bias.data.any()
    assert 0.98 * bound < np.abs(dense.weight.data).max() <= np.float32(bound)
    for make in (lambda seed: Dense(60, 90, seed=seed), lambda seed: Embedding(9, 50, seed=seed)):
        np.testing.assert_array_equal(make(1).weight.data, make(1).weight.data)
        assert np.any(make(1).weight.data != make(2).weight.data)
        assert np.any(make(None).weight.data != make(None).weight.data)


def test_config_makes_the_same_layer() -> None:
    layers = [
        Dense(3, 4, "relu", bias=False, dtype="float64", seed=1),
        Embedding(5, 2, seed=np.int64(3)),
        Dropout(0.25, seed=7),
    ]
    for layer in layers:
        again = type(layer)(**layer.config())
        assert again.config() == layer.config()
        for name, p in layer.parameters().items():
            np.testing.assert_array_equal(again.parameters()[name].data, p.data)
    assert layers[1].config() == {
        "num_embeddings": 5,
        "embedding_dim": 2,
        "dtype": "float32",
        "seed": 3,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout(p: float, dtype: str) -> None:
    layer = Dropout(p, seed=0)
    x, dy = normal(200, 100, dtype=dtype), normal(200, 100, seed=6, dtype=dtype)
    np.testing.assert_array_equal(layer(x), x)
    assert layer.output_shape(x.shape) == x.shape
    y, pullback = layer.vjp(x)
    dx = pullback(dy)
    assert y.dtype == dx.dtype == x.dtype
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 0.02  # 5 standard deviations of 20,000 draws are 0.018
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p), rtol=1e-6)
    np.testing.assert_allclose(dx, np.where(kept, dy / (1 - p), 0), rtol=1e-6)
    if p:
        assert np.any(layer.vjp(x)[0] != y)
        np.testing.assert_array_equal(Dropout(p, seed=0).vjp(x)[0], y)


def test_dropout_in_threads_shares_no_draws() -> None:
    x = np.ones((40, 50), np.float32)
    alone, shared = Dropout(0.5, seed=0), Dropout(0.5, seed=0)
    want = sorted(alone.vjp(x)[0].tobytes() for _ in range(20))
    found: list[bytes] = []

    def work() -> None:
        for _ in range(5):
            found.append(shared.vjp(x)[0].tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == want


def test_dropout_copies() -> None:
    layer = Dropout(0.5, seed=0)
    other = copy.deepcopy(layer)
    x = np.ones((5, 5))
    np.testing.assert_array_equal(layer.vjp(x)[0], other.vjp(x)[0])


SMALL = {
    "dense": (Dense(3, 3, seed=0), np.ones((2, 3), np.float32)),
    "embedding": (Embedding(4, 3, seed=0), np.array([1, 2])),
    "dropout": (Dropout(0.5, seed=0), np.ones((2, 3), np.float32)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_pullback_is_called_once_with_what_fits(name: str) -> None:
    layer, x = SMALL[name]
    y, pullback = layer.vjp(x)
    with pytest.raises(ValueError, match=r"dy: expected shape \(2, 3\), got \(3, 2\)"):
        pullback(y.T)
    with pytest.raises(TypeError, match=r"dy: expected float32, got float64; .*astype"):
        pullback(y.astype(np.float64))
    layer.zero_grad()
    pullback(y)
    grads = {key: p.grad.copy() for key, p in layer.parameters().items()}
    with pytest.raises(RuntimeError, match="called a second time"):
        pullback(y)
    for key, p in layer.parameters().items():
        np.testing.assert_array_equal(p.grad, grads[key])


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (Dense(3, 2), np.ones((4, 5), "f4"), ValueError, r"x: expected \(..., 3\), got \(4, 5\)"),
        (Dense(3, 2), np.float32(1), ValueError, r"x: expected \(..., 3\), got \(\)"),
        (Dense(3, 2), np.ones((0, 3), "f4"), ValueError, r"x: .*got \(0, 3\)"),
        (Dense(3, 2), np.ones((4, 3)), TypeError, "x: expected float32, got float64"),
        (Embedding(5, 2), [[0, 5]], ValueError, "x: expected ids from 0 to 4, got 5"),
        (Embedding(5, 2), [-1], ValueError, "x: expected ids from 0 to 4, got -1"),
        (Embedding(5, 2), np.array([2**63], "u8"), ValueError, "from 0 to 4, got 9223372036854"),
        (Embedding(5, 2), [1.0], TypeError, "x: expected integer ids, got float64"),
        (Embedding(5, 2), [True], TypeError, "x: expected integer ids, got bool"),
        (Embedding(5, 2), np.zeros((2, 0), int), ValueError, r"x: .*\(2, 0\)"),
        (Dropout(0.5), np.ones(3, int), TypeError, "x: expected float32 or float64, got int64"),
        (Dropout(0.5), np.ones((0, 3)), ValueError, r"x: .*\(0, 3\)"),
    ],
)
def test_errors_name_x(layer: Layer, x: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer(x)
    with pytest.raises(error, match=message):
        layer.vjp(x)


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (Dense, (0, 2), ValueError, "in_features: "),
        (Dense, (2, 2.5), TypeError, "out_features: "),
        (Dense, (2, 2, "gelu"), ValueError, "activation: expected None or one of .*got 'gelu'"),
        (Embedding, (0, 2), ValueError, "num_embeddings: "),
        (Embedding, (2, -2), ValueError, "embedding_dim: "),
        (Dropout, (1.0,), ValueError, "p: "),
        (Dropout, ("0.5",), TypeError, "p: "),
    ],
)
def test_errors_name_the_argument(
    kind: type[Layer], arguments: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind(*arguments)


def test_further_errors() -> None:
    with pytest.raises(TypeError, match="bias: "):
        Dense(2, 2, bias=1)
    with pytest.raises(ValueError, match="dtype: "):
        Embedding(2, 2, dtype="float16")
    for wrong, error in ((-1, ValueError), (True, ValueError), ("a", TypeError), (0.5, TypeError)):
        for make in (lambda s: Dense(2, 2, seed=s), lambda s: Dropout(0.1, seed=s)):
            with pytest.raises(error, match="seed: "):
                make(wrong)
    with pytest.raises(ValueError, match=r"input_shape: expected \(..., 2\)"):
        Dense(2, 3).output_shape((None, 3))


def test_enormous_sizes_are_refused_before_they_take_memory() -> None:
    with pytest.raises(ValueError, match="num_embeddings: expected arrays of at most"):
        Embedding(10**9, 10**9)
    with pytest.raises(ValueError, match="out_features: expected arrays of at most"):
        Dense(10**9, 10**9)
