"""JAX: jit of lax.scan over the steps, the input's part taken out of it as one product; vjp."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.problem import Problem, Results
from bench.shapes import AnyRow, Model, Row
from bench.systems import Pass, Passes, Stream

_UNROLL = (1, 4)  # steps of the loop in one piece of code; the faster counts


def environment(threads: int, dtype: str) -> dict[str, str]:
    eigen = str(threads > 1).lower()
    flags = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
    }


class System:
    """Sequences stand time first and weights as (inputs, gates), as the products like them."""

    def __init__(self, threads: int) -> None:
        import jax

        self.version = jax.__version__

    def passes(self, row: AnyRow) -> Passes:
        if isinstance(row, Model):
            return {}
        problem = Problem(row)
        if row.kinds == ("step",):
            return {"step": {"": _step(row, problem)}}
        passes: dict[str, dict[str, Pass]] = {}
        for unroll in _UNROLL:
            if unroll <= row.time:
                for kind, ways in _layer_passes(row, problem, unroll).items():
                    passes.setdefault(kind, {}).update(ways)
        return passes


def _cell(name: str) -> Callable[[Any, Any, Any], Any]:
    """``cell(state, gates, product)`` to the next state, (h,) or (h, c).

    gates (B, G * H) are the input's part, product the state's, with the biases as `_parameters` has
    them. The equations are those of `fastrnn.reference`.
    """
    import jax.numpy as jnp
    from jax.nn import sigmoid

    def rnn(state: Any, gates: Any, product: Any) -> Any:
        return (jnp.tanh(gates + product),)

    def gru(state: Any, gates: Any, product: Any) -> Any:
        (h,) = state
        reset, update, new = jnp.split(gates, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(product, 3, axis=-1)
        z = sigmoid(update + update_h)
        n = jnp.tanh(new + sigmoid(reset + reset_h) * new_h)
        return (n + z * (h - n),)

    def lstm(state: Any, gates: Any, product: Any) -> Any:
        i, f, g, o = jnp.split(gates + product, 4, axis=-1)
        c = sigmoid(f) * state[1] + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[name]


class _Direction:
    """One direction of a layer over x (T, B, I), as functions of its parameters."""

    def __init__(self, row: Row, problem: Problem, unroll: int, reverse: bool) -> None:
        import jax.numpy as jnp

        self._row, self._unroll, self._reverse = row, unroll, reverse
        self._suffix = "_l0_reverse" if reverse else "_l0"
        self._cell = _cell(row.cell)
        self._lengths = jnp.asarray(problem.lengths.astype(np.int32))
        state = jnp.zeros((row.batch, row.hidden_size), row.dtype)
        self.zeros = (state,) * (1 + (row.cell == "lstm"))
        w, r, b_ih, b_hh = (problem.weights[name] for name in self._names())
        # One bias where both are only added up.
        biases = {"b": b_ih, "b_h": b_hh} if row.cell == "gru" else {"b": b_ih + b_hh}
        self.parameters = {
            name: jnp.asarray(np.ascontiguousarray(array))
            for name, array in {"w": w.T, "r": r.T, **biases}.items()
        }

    def _names(self) -> list[str]:
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [f"{part}{self._suffix}" for part in parts]

    def _loop(self, r: Any, gates: Any, products: Any, state: Any) -> Any:
        """Output (T, B, H) and the last state.

        gates (T, B, G * H): the input's part; products: what is added to h r, likewise or (G * H).
        """
        import jax
        import jax.numpy as jnp

        def step(state: Any, given: Any) -> Any:
            after = self._cell(
                state, given["gates"], state[0] @ r + given.get("products", products)
            )
            if not self._row.ragged:
                return after, after[0]
            valid = (given["t"] < self._lengths)[:, None]
            pairs = zip(after, state, strict=True)
            after = tuple(jnp.where(valid, new, old) for new, old in pairs)
            return after, jnp.where(valid, after[0], 0)

        given = {"gates": gates}
        if jnp.ndim(products) == 3:
            given["products"] = products
        if self._row.ragged:
            given["t"] = jnp.arange(self._row.time)
        state, output = jax.lax.scan(step, state, given, reverse=self._reverse, unroll=self._unroll)
        return output, state

    def forward(self, parameters: Any, x: Any, state: Any) -> Any:
        """Output and last state."""
        gates = x @ parameters["w"] + parameters["b"]
        return self._loop(parameters["r"], gates, parameters.get("b_h", 0), state)

    def training(self, parameters: Any, x: Any, dy: Any) -> Any:
        """Output, dx and the parameters' gradients, as jax.vjp has them: dR a product a step."""
        import jax

        def output_of(parameters: Any, x: Any) -> Any:
            return self.forward(parameters, x, self.zeros)[0]

        output, pullback = jax.vjp(output_of, parameters, x)
        gradients, dx = pullback(dy)
        return output, dx, gradients

    def training_dr_after(self, parameters: Any, x: Any, dy: Any) -> Any:
        """The same with dR as one product over all steps.

        It is the vjp of the loop alone, for the gradients of what a step adds up; the products
        around it are written out.
        """
        import jax
        import jax.numpy as jnp

        gates = x @ parameters["w"] + parameters["b"]
        if "b_h" in parameters:
            products = jnp.broadcast_to(parameters["b_h"], gates.shape)
            loop = partial(self._loop, parameters["r"], state=self.zeros)
            output, pullback, _ = jax.vjp(loop, gates, products, has_aux=True)
            dgates, dproducts = pullback(dy)
        else:
            loop = partial(self._loop, parameters["r"], products=0, state=self.zeros)
            output, pullback, _ = jax.vjp(loop, gates, has_aux=True)
            (dgates,) = pullback(dy)
            dproducts = dgates
        ends = (output[1:], self.zeros[0][None]), (self.zeros[0][None], output[:-1])
        before = jnp.concatenate(ends[0] if self._reverse else ends[1])

        def over_steps(a: Any, b: Any) -> Any:
            return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])

        gradients = {
            "w": over_steps(x, dgates),
            "r": over_steps(before, dproducts),
            "b": dgates.sum((0, 1)),
        }
        if "b_h" in parameters:
            gradients["b_h"] = dproducts.sum((0, 1))
        return output, dgates @ parameters["w"].T, gradients

    def named(self, gradients: Any) -> dict[str, Any]:
        """Gradients by PyTorch's names and shapes."""
        arrays = {name: np.asarray(gradient).T for name, gradient in gradients.items()}
        both = (arrays["w"], arrays["r"], arrays["b"], arrays.get("b_h", arrays["b"]))
        return dict(zip(self._names(), both, strict=True))


def _finished(values: Any) -> Any:
    """The same arrays, once they are computed."""
    import jax

    wait: Any = jax.block_until_ready
    return wait(values)


def _layer_passes(row: Row, problem: Problem, unroll: int) -> dict[str, dict[str, Pass]]:
    import jax
    import jax.numpy as jnp

    x, dy = (jnp.asarray(a.swapaxes(0, 1).copy()) for a in (problem.x, problem.dy))
    directions = [_Direction(row, problem, unroll, k == 1) for k in range(row.directions)]
    parameters = [direction.parameters for direction in directions]

    @jax.jit
    def forward(parameters: Any, x: Any) -> Any:
        pairs = zip(directions, parameters, strict=True)
        outputs, states = zip(*(d.forward(p, x, d.zeros) for d, p in pairs), strict=True)
        return jnp.concatenate(outputs, axis=-1), states

    @partial(jax.jit, static_argnames="way")
    def training(parameters: Any, x: Any, dy: Any, way: str) -> Any:
        dys = jnp.split(dy, len(directions), axis=-1)
        each = zip(directions, parameters, dys, strict=True)
        results = (getattr(d, way)(p, x, dy) for d, p, dy in each)
        outputs, dxs, gradients = zip(*results, strict=True)
        return jnp.concatenate(outputs, axis=-1), sum(dxs), gradients

    def run_forward() -> Any:
        return _finished(forward(parameters, x))

    def run_training(way: str) -> Any:
        return _finished(training(parameters, x, dy, way))

    def forward_results() -> Results:
        output, states = run_forward()
        parts = zip("hc", zip(*states, strict=True), strict=False)
        return {
            "output": np.asarray(output).swapaxes(0, 1),
            **{name: np.stack([np.asarray(s) for s in part]) for name, part in parts},
        }

    def training_results(way: str) -> Results:
        output, dx, gradients = run_training(way)
        named: dict[str, Any] = {}
        for direction, these in zip(directions, gradients, strict=True):
            named |= direction.named(these)
        arrays = {"output": output, "dx": dx}
        return {**{k: np.asarray(a).swapaxes(0, 1) for k, a in arrays.items()}, **named}

    def training_pass(way: str) -> Pass:
        return Pass(lambda: run_training(way), results=lambda: training_results(way))

    unrolled = f"unroll {unroll}"
    return {
        "forward": {unrolled: Pass(run_forward, results=forward_results)},
        "training": {
            unrolled: training_pass("training"),
            f"{unrolled}, dR after the loop": training_pass("training_dr_after"),
        },
    }


def _step(row: Row, problem: Problem) -> Pass:
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(problem.x.swapaxes(0, 1).copy())
    layer = _Direction(row, problem, unroll=1, reverse=False)
    forward = jax.jit(layer.forward)
    stream = Stream(lambda state: _finished(forward(layer.parameters, x, state)), layer.zeros)

    def results() -> Results:
        y, state = stream.first_steps()
        named = zip("hc", state, strict=False)
        return {"output": np.asarray(y)[0], **{k: np.asarray(s)[None] for k, s in named}}

    return Pass(stream.run, results=results)
