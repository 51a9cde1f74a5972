"""ONNX Runtime: the RNN, GRU, LSTM operators, bound inputs and outputs; float32, forward only."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.problem import Problem, Results
from bench.shapes import GATES, AnyRow, Model, Row
from bench.systems import Pass, Passes, Stream

# Where ONNX's blocks of gates stand in PyTorch's: i o f c of i f g o, z r h of r z n.
_BLOCKS = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
_OPSET = 17


def environment(threads: int, dtype: str) -> dict[str, str]:
    return {}


class System:
    """Weights are the model's own, so the session packs them once, as inference does."""

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._threads = threads
        self.version = onnxruntime.__version__

    def passes(self, row: AnyRow) -> Passes:
        if isinstance(row, Model) or row.dtype != "float32":
            return {}
        problem = Problem(row)
        session = _session(row, problem, self._threads)
        if row.kinds == ("step",):
            return {"step": {"": _step(row, problem, session)}}
        return {"forward": {"": _forward(row, problem, session)}}


def _state_names(row: Row) -> list[str]:
    return ["h", "c"][: 1 + (row.cell == "lstm")]


def _session(row: Row, problem: Problem, threads: int) -> Any:
    """One operator: x, lengths if ragged, initial_h (and c) for a step, to output, h (and c)."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    suffixes = ("_l0", "_l0_reverse")[: row.directions]

    def stacked(name: str) -> Any:
        return np.stack([_reordered(row, problem.weights[name + suffix]) for suffix in suffixes])

    weights = {
        "W": stacked("weight_ih"),
        "R": stacked("weight_hh"),
        "B": np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1),
    }
    states = _state_names(row)
    inputs = {"x": TensorProto.FLOAT}
    inputs |= {"lengths": TensorProto.INT32} if row.ragged else {}
    if row.kinds == ("step",):
        inputs |= {f"initial_{name}": TensorProto.FLOAT for name in states}
    optional = ["lengths", *(f"initial_{name}" for name in states)]
    optional = [name if name in inputs else "" for name in optional]
    options: dict[str, Any] = {"hidden_size": row.hidden_size, "layout": 0}
    options["direction"] = "bidirectional" if row.directions == 2 else "forward"
    if row.cell == "gru":
        options["linear_before_reset"] = 1
    node = helper.make_node(
        row.cell.upper(), ["x", "W", "R", "B", *optional], ["output", *states], **options
    )
    graph = helper.make_graph(
        [node],
        row.name,
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("output", *states)],
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def _reordered(row: Row, weight: Any) -> Any:
    blocks = weight.reshape(GATES[row.cell], -1)
    return blocks[_BLOCKS[row.cell]].reshape(weight.shape)


def _value(array: Any) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _empty(*shape: int) -> Any:
    return _value(np.empty(shape, np.float32))


def _bound(session: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _forward(row: Row, problem: Problem, session: Any) -> Pass:
    batch, time, _, hidden = row.sizes
    inputs = {"x": _value(problem.x.swapaxes(0, 1))}
    if row.ragged:
        inputs["lengths"] = _value(problem.lengths.astype(np.int32))
    outputs = {name: _empty(row.directions, batch, hidden) for name in _state_names(row)}
    outputs["output"] = _empty(time, row.directions, batch, hidden)
    binding = _bound(session, inputs, outputs)

    def run() -> None:
        session.run_with_iobinding(binding)

    def results() -> Results:
        run()
        arrays = {name: value.numpy() for name, value in outputs.items()}
        output = arrays["output"].transpose(2, 0, 1, 3).reshape(batch, time, -1)
        return {**arrays, "output": output}

    return Pass(run, results=results)


def _step(row: Row, problem: Problem, session: Any) -> Pass:
    """Two bindings that take turns, since the state that one writes is what the other reads."""
    states, shape = _state_names(row), (1, row.batch, row.hidden_size)
    x, output = _value(problem.x.swapaxes(0, 1)), _empty(1, *shape)
    values = [{name: _empty(*shape) for name in states} for _ in range(2)]
    bindings = [
        _bound(
            session,
            {"x": x, **{f"initial_{name}": values[turn][name] for name in states}},
            {"output": output, **values[1 - turn]},
        )
        for turn in range(2)
    ]

    def step(turn: int) -> tuple[Any, int]:
        session.run_with_iobinding(bindings[turn])
        return output, 1 - turn

    stream = Stream(step, 0)

    def results() -> Results:
        for value in values[0].values():
            value.update_inplace(np.zeros(shape, np.float32))
        y, turn = stream.first_steps()
        return {
            "output": y.numpy().reshape(row.batch, -1),
            **{name: value.numpy() for name, value in values[turn].items()},
        }

    return Pass(stream.run, results=results)
