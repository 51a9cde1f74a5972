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
        unrolls = [unroll for unroll in _UNROLL if unroll == 1 or unroll <= row.time]
        made = {f"unroll {unroll}": _layer_passes(row, problem, unroll) for unroll in unrolls}
        return {
            kind: {name: passes[kind] for name, passes in made.items()}
            for kind in ("forward", "training")
        }


def _step_of(cell: str) -> Callable[[Any, Any, Any, Any], Any]:
    """``step(r, b_hh, state, gates)`` to the next state, gates (B, G * H) being the input's part.

    The equations are those of `fastrnn.reference`. A state is (h,) or (h, c). b_hh counts only
    where it cannot be added to the input's part.
    """
    import jax.numpy as jnp
    from jax.nn import sigmoid

    def rnn(r: Any, b: Any, state: Any, gates: Any) -> Any:
        return (jnp.tanh(gates + state[0] @ r),)

    def gru(r: Any, b: Any, state: Any, gates: Any) -> Any:
        (h,) = state
        reset, update, new = jnp.split(gates, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(h @ r + b, 3, axis=-1)
        z = sigmoid(update + update_h)
        n = jnp.tanh(new + sigmoid(reset + reset_h) * new_h)
        return (n + z * (h - n),)

    def lstm(r: Any, b: Any, state: Any, gates: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(gates + h @ r, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[cell]


def _parameters(row: Row, problem: Problem) -> dict[str, Any]:
    import jax.numpy as jnp

    return {name: jnp.asarray(np.ascontiguousarray(w.T)) for name, w in problem.weights.items()}


def _zeros(row: Row) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return (jnp.zeros((row.batch, row.hidden_size), row.dtype),) * (1 + (row.cell == "lstm"))


def _direction(
    row: Row, unroll: int, suffix: str, parameters: Any, x: Any, lengths: Any, state: Any
) -> Any:
    """One direction over x (T, B, I): output (T, B, H) and the last state."""
    import jax
    import jax.numpy as jnp

    w, r, b_ih, b_hh = (
        parameters[f"{name}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    gates = x @ w + (b_ih if row.cell == "gru" else b_ih + b_hh)
    advance = partial(_step_of(row.cell), r, b_hh)

    def step(state: Any, gates: Any) -> Any:
        after = advance(state, gates)
        return after, after[0]

    def ragged_step(state: Any, given: Any) -> Any:
        t, gates = given
        valid = (t < lengths)[:, None]
        pairs = zip(advance(state, gates), state, strict=True)
        after = tuple(jnp.where(valid, new, old) for new, old in pairs)
        return after, jnp.where(valid, after[0], 0)

    scan = partial(jax.lax.scan, reverse=suffix.endswith("reverse"), unroll=unroll)
    if row.ragged:
        state, output = scan(ragged_step, state, (jnp.arange(row.time), gates))
    else:
        state, output = scan(step, state, gates)
    return output, state


def _layer_passes(row: Row, problem: Problem, unroll: int) -> dict[str, Pass]:
    import jax
    import jax.numpy as jnp

    parameters, zeros = _parameters(row, problem), _zeros(row)
    x, dy = (jnp.asarray(a.swapaxes(0, 1).copy()) for a in (problem.x, problem.dy))
    lengths = jnp.asarray(problem.lengths.astype(np.int32))
    suffixes = ("_l0", "_l0_reverse")[: row.directions]

    def layer(parameters: Any, x: Any) -> Any:
        outputs, states = zip(
            *(_direction(row, unroll, s, parameters, x, lengths, zeros) for s in suffixes),
            strict=True,
        )
        output = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
        return output, states

    @jax.jit
    def gradient(parameters: Any, x: Any, dy: Any) -> Any:
        output, pullback, states = jax.vjp(layer, parameters, x, has_aux=True)
        return output, states, pullback(dy)

    forward = jax.jit(layer)

    def run_forward() -> Any:
        return jax.block_until_ready(forward(parameters, x))

    def run_training() -> Any:
        return jax.block_until_ready(gradient(parameters, x, dy))

    def named(output: Any, states: Any) -> dict[str, Any]:
        parts = zip("hc", zip(*states, strict=True), strict=False)
        return {
            "output": np.asarray(output).swapaxes(0, 1),
            **{name: np.stack([np.asarray(s) for s in part]) for name, part in parts},
        }

    def training_results() -> Results:
        output, states, (gradients, dx) = run_training()
        return {
            **named(output, states),
            "dx": np.asarray(dx).swapaxes(0, 1),
            **{name: np.asarray(gradient).T for name, gradient in gradients.items()},
        }

    return {
        "forward": Pass(run_forward, results=lambda: named(*run_forward())),
        "training": Pass(run_training, results=training_results),
    }


def _step(row: Row, problem: Problem) -> Pass:
    import jax
    import jax.numpy as jnp

    parameters, x = _parameters(row, problem), jnp.asarray(problem.x.swapaxes(0, 1).copy())

    @jax.jit
    def forward(parameters: Any, x: Any, state: Any) -> Any:
        return _direction(row, 1, "_l0", parameters, x, None, state)

    stream = Stream(lambda s: jax.block_until_ready(forward(parameters, x, s)), _zeros(row))

    def results() -> Results:
        y, state = stream.first_steps()
        named = zip("hc", state, strict=False)
        return {"output": np.asarray(y)[0], **{k: np.asarray(s)[None] for k, s in named}}

    return Pass(stream.run, results=results)
