"""fastrnn as an ONNX backend: ONNX's own tests of the operators, and nodes beside ONNX Runtime."""

from __future__ import annotations

import unittest
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn as fr

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import fastrnn.onnx  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
Arrays = dict[str, Any]


def one_node(op: str, arrays: Arrays, **attributes: Any) -> Any:
    """A model of one recurrent node with these inputs, in the operator's order."""
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    names = [name if name in arrays else "" for name in names]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = onnx.helper.make_node(op, names, outputs, name="cell", **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [
        onnx.helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in arrays.items()
    ]
    results = [
        onnx.helper.make_tensor_value_info(
            n, kind(arrays["X"].dtype), [None] * (4 if n == "Y" else 3)
        )
        for n in outputs
    ]
    graph = onnx.helper.make_graph([node], "one", inputs, results)
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10
    )


def runtime(model: Any, arrays: Arrays) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, arrays))


def make_arrays(op: str, rng: Any, *, directions: int = 1, hidden: int = 4) -> Arrays:
    """All inputs of a node over 5 steps of 3 rows."""
    gates, d, h = GATES[op], directions, hidden
    shapes = {
        "X": (5, 3, 2),
        "W": (d, gates * h, 2),
        "R": (d, gates * h, h),
        "B": (d, 2 * gates * h),
        "initial_h": (d, 3, h),
    }
    if op == "LSTM":
        shapes |= {"initial_c": (d, 3, h), "P": (d, 3 * h)}
    arrays = {name: rng.uniform(-1, 1, shape).astype("f4") for name, shape in shapes.items()}
    return arrays | {"sequence_lens": np.array([5, 2, 3], np.int32)}


def test_onnx_own_tests() -> None:
    """All of RNN, GRU and LSTM, through the module as a backend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ONNX's other operators' data
        import onnx.backend.test

        suite = onnx.backend.test.BackendTest(fastrnn.onnx, __name__)
    cases = suite.include(r"test_(simple_)?(rnn|gru|lstm)_").test_suite
    result = unittest.TestResult()
    cases.run(result)
    assert [text for _, text in result.failures + result.errors] == []
    assert result.testsRun - len(result.skipped) >= 18


@st.composite
def nodes(draw: st.DrawFn) -> tuple[str, Arrays, dict[str, Any]]:
    op = draw(st.sampled_from(list(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = make_arrays(op, rng, directions=d, hidden=draw(st.integers(1, 9)))
    for name in ("B", "sequence_lens", "initial_h", "initial_c", "P"):
        if draw(st.booleans()):
            arrays.pop(name, None)
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": arrays["R"].shape[2]}
    if draw(st.booleans()):
        attributes["clip"] = draw(st.floats(0.125, 3, width=32))
    if op == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if op == "LSTM":
        attributes["input_forget"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        bounded = ["Tanh", "Sigmoid", "HardSigmoid"]
        names: list[str] = []
        for _ in range(d):
            gate = draw(st.sampled_from(bounded))
            # A GRU whose gates are negative lets an unbounded state grow, and roundings with it.
            unbounded = [] if gate == "Tanh" else ["Relu", "Affine"]
            state = draw(st.sampled_from(bounded + unbounded))
            names += {"RNN": [state], "GRU": [gate, state], "LSTM": [gate, state, state]}[op]
        attributes["activations"] = names
        values = {"Affine": (1.0, 0.0), "HardSigmoid": (1 / 6, 0.5)}
        found = [values[name] for name in names if name in values]
        if found:
            attributes["activation_alpha"] = [alpha for alpha, _ in found]
            attributes["activation_beta"] = [beta for _, beta in found]
    return op, arrays, attributes


@settings(max_examples=150, deadline=None)
@given(nodes())
def test_nodes_beside_onnxruntime(case: tuple[str, Arrays, dict[str, Any]]) -> None:
    op, arrays, attributes = case
    model = one_node(op, arrays, **attributes)
    onnx.checker.check_model(model, full_check=True)
    found = fastrnn.onnx.run_model(model, arrays)
    for ours, theirs in zip(found, runtime(model, arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    # ONNX Runtime has no batch-first layout, but that is the same with other axes.
    del attributes["hidden_size"]  # which it wants, and the standard does not
    swapped = {n: a.swapaxes(0, 1) if n[0] in "Xi" else a for n, a in arrays.items()}
    other = fastrnn.onnx.run_model(one_node(op, swapped, **attributes, layout=1), swapped)
    np.testing.assert_array_equal(other[0], found[0].transpose(2, 0, 1, 3))
    for ours, theirs in zip(other[1:], found[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs.swapaxes(0, 1))


@pytest.mark.parametrize("op", list(GATES))
def test_float64(op: str, rng: Any) -> None:
    arrays = make_arrays(op, rng)
    double = {n: a.astype("f8") if a.dtype == "f4" else a for n, a in arrays.items()}
    found = fastrnn.onnx.run_model(one_node(op, double), double)
    single = fastrnn.onnx.run_model(one_node(op, arrays), arrays)
    for ours, theirs in zip(found, single, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("op", list(GATES))
def test_rows_without_steps_keep_their_state(op: str, rng: Any) -> None:
    """ONNX Runtime has zeros there: what this checks is where we differ, and nowhere else."""
    arrays = make_arrays(op, rng) | {"sequence_lens": np.array([5, 0, 3], np.int32)}
    model = one_node(op, arrays, hidden_size=4)
    ours, theirs = fastrnn.onnx.run_model(model, arrays), runtime(model, arrays)
    for found, other, name in zip(ours[1:], theirs[1:], ("initial_h", "initial_c"), strict=False):
        np.testing.assert_array_equal(found[0, 1], arrays[name][0, 1])
        np.testing.assert_allclose(found[:, [0, 2]], other[:, [0, 2]], atol=1e-6)
        assert not other[0, 1].any()
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)


def test_prepared_weights_are_packed_once(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = make_arrays("GRU", rng)
    model = one_node("GRU", arrays)
    fed = fastrnn.onnx.prepare(model)
    for name in ("W", "R", "B"):
        model.graph.input.remove(next(i for i in model.graph.input if i.name == name))
        model.graph.initializer.append(onnx.numpy_helper.from_array(arrays[name], name))
    kept = fastrnn.onnx.prepare(model)
    made = []
    init = fr.GRU.__init__
    monkeypatch.setattr(
        fr.GRU, "__init__", lambda self, *a, **k: (made.append(1), init(self, *a, **k))[1]
    )
    rest = {n: arrays[n] for n in ("X", "initial_h", "sequence_lens")}
    first = kept.run(rest)
    assert made == []
    np.testing.assert_array_equal(first.Y, fed.run(arrays).Y)
    assert made == [1]
    # Weights that are fed may be others, in the same memory too.
    arrays["W"] *= 2
    assert not np.array_equal(fed.run(arrays).Y, first.Y)


def test_run_node(rng: Any) -> None:
    arrays = make_arrays("LSTM", rng)
    model = one_node("LSTM", arrays)
    order = [arrays[name] for name in model.graph.node[0].input]
    found = fastrnn.onnx.run_node(model.graph.node[0], order)
    assert found._fields == ("Y", "Y_h", "Y_c")
    for ours, theirs in zip(found, fastrnn.onnx.run_model(model, arrays), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lengths = np.broadcast_to(np.int32(4), 3)  # with strides of 0, as Expand makes it
    same = [lengths if a is arrays["sequence_lens"] else a for a in order]
    assert not fastrnn.onnx.run_node(model.graph.node[0], same).Y[4].any()
    node = onnx.helper.make_node("LSTM", ["X", "W", "R", "", "", "h"], ["", "", "c"], hidden_size=4)
    short = [arrays[name] for name in ("X", "W", "R", "initial_h")]
    assert fastrnn.onnx.run_node(node, short)._fields == ("c",)


def test_devices() -> None:
    assert fastrnn.onnx.supports_device("CPU") and not fastrnn.onnx.supports_device("CUDA:0")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ValueError, match="device: expected 'CPU', got 'CUDA'"):
        fastrnn.onnx.run_node(node, [np.ones(2, "f4")], "CUDA")


@pytest.mark.parametrize(
    "op, attributes, message",
    [
        ("RNN", {"activations": ["Softsign"]}, "the kernels have no Softsign"),
        ("RNN", {"activations": ["HardSigmoid"]}, "HardSigmoid with alpha 0.2, beta 0.5"),
        ("RNN", {"activations": ["Tanh", "Tanh"]}, "activations: expected 1"),
        ("RNN", {"activation_alpha": [1.0]}, "belong to none"),
        ("GRU", {"activations": ["Sigmoid"]}, "activations: expected 2"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "one function for g and h"),
        ("LSTM", {"direction": "sideways"}, "direction: expected one of forward"),
        ("LSTM", {"clip": -1.0}, "clip: expected a positive"),
        ("LSTM", {"layout": 2}, "layout: expected 0 or 1, got 2"),
        ("LSTM", {"hidden_size": 3}, "W: expected float32"),
        ("LSTM", {"shape": 3}, "Unrecognized attribute: shape"),
    ],
)
def test_attributes_that_are_refused(
    op: str, attributes: dict[str, Any], message: str, rng: Any
) -> None:
    arrays = make_arrays(op, rng)
    model = one_node(op, arrays, **attributes)
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.run_model(model, arrays)


@pytest.mark.parametrize(
    "name, value, message",
    [
        (
            "X",
            np.ones((5, 3, 7), "f4"),
            r"X: expected float32 \(5, 3, 2\), got float32 \(5, 3, 7\)",
        ),
        ("X", np.ones((5, 3, 2)), "X: expected float32"),
        ("sequence_lens", np.array([6, 1, 1], np.int32), "sequence_lens: expected .* 0 to 5"),
        ("Q", np.ones(1), r"inputs: expected .*, got \['Q'\]"),
    ],
)
def test_inputs_that_are_refused(name: str, value: Any, message: str, rng: Any) -> None:
    arrays = make_arrays("LSTM", rng)
    prepared = fastrnn.onnx.prepare(one_node("LSTM", arrays))
    with pytest.raises(ValueError, match=message):
        prepared.run(arrays | {name: value})
    del arrays["R"]
    with pytest.raises(ValueError, match="'R' is missing"):
        prepared.run(arrays)


def test_lengths_are_not_rounded(rng: Any) -> None:
    arrays = make_arrays("LSTM", rng)
    model = one_node("LSTM", arrays)
    [lengths] = [i for i in model.graph.input if i.name == "sequence_lens"]
    lengths.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    arrays["sequence_lens"] = np.array([5, 2.7, 1], "f4")
    with pytest.raises(ValueError, match="sequence_lens: expected int32, got float32"):
        fastrnn.onnx.run_model(model, arrays)


def test_what_the_kernels_lack_is_refused_by_name(rng: Any) -> None:
    arrays = {
        n: a.astype("f2") if a.dtype == "f4" else a for n, a in make_arrays("GRU", rng).items()
    }
    with pytest.raises(ValueError, match=r"node 'cell', operator GRU: W and R: .* float16"):
        fastrnn.onnx.run_model(one_node("GRU", arrays), arrays)
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    for op, domain, message in (
        ("Erf", "", "operator Erf: not supported; there are Add, "),
        ("Gelu", "com.microsoft", "domain 'com.microsoft' is not supported"),
    ):
        node = onnx.helper.make_node(op, ["x"], ["y"], name="odd", domain=domain)
        graph = onnx.helper.make_graph([node], "odd", [info], [out])
        domains = [onnx.helper.make_opsetid(d, v) for d, v in (("", 22), ("com.microsoft", 1))]
        model = onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)
        assert not fastrnn.onnx.is_compatible(model)
        with pytest.raises(ValueError, match=f"node 'odd', .*{message}"):
            fastrnn.onnx.prepare(model)
    assert fastrnn.onnx.is_compatible(one_node("RNN", make_arrays("RNN", rng)))


OPERATORS = [
    ("Add", [(2, 3), (3,)], {}),
    ("Concat", [(2, 3), (2, 1)], {"axis": -1}),
    ("Gemm", [(3, 2), (4, 3), (4,)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [(2, 3), (3, 4)], {}),
    ("Identity", [(2,)], {}),
    ("MatMul", [(2, 3, 4), (4, 5)], {}),
    ("Mul", [(2, 3), (2, 1)], {}),
    ("Relu", [(2, 3)], {}),
    ("Sigmoid", [(2, 3)], {}),
    ("Softmax", [(2, 3, 4)], {"axis": 1}),
    ("Tanh", [(2, 3)], {}),
    ("Transpose", [(2, 3, 4)], {"perm": [1, 2, 0]}),
    ("Transpose", [(2, 3, 4)], {}),
    ("Less", [(2, 3), (3,)], {}),
    ("Equal", [(2, 3), (3,)], {}),
    ("Shape", [(2, 3, 4)], {"start": 1, "end": -1}),
    ("Dropout", [(2, 3)], {}),
    ("Reshape", [(2, 3, 4), [0, -1]], {}),
    ("Squeeze", [(2, 1, 4, 1), [1]], {}),
    ("Squeeze", [(2, 1, 4, 1)], {}),
    ("Unsqueeze", [(2, 4), [0, 3]], {}),
    ("Expand", [(3, 1), [2, 1, 4]], {}),
    ("Gather", [(5, 3), [[1, -1], [0, 2]]], {}),
    ("Slice", [(5, 6), [-1, 0], [-9, 3], [0, 1], [-2, 2]], {}),
    ("Slice", [(5, 6), [1], [9]], {}),
    ("ConstantOfShape", [[2, 3]], {}),
    ("Cast", [(2, 3)], {"to": 11}),
    ("Constant", [], {"value_ints": [1, 2]}),
    ("Constant", [], {"value_float": 1.5}),
]


@pytest.mark.parametrize("op, shapes, attributes", OPERATORS)
def test_operators(op: str, shapes: list[Any], attributes: dict[str, Any], rng: Any) -> None:
    """Beside the standard's reference; a list stands for integers."""
    arrays = [
        np.array(s, np.int64) if isinstance(s, list) else rng.standard_normal(s).astype("f4")
        for s in shapes
    ]
    names = [f"x{i}" for i in range(len(arrays))]
    node = onnx.helper.make_node(op, names, ["y"], **attributes)
    reference = onnx.reference.ReferenceEvaluator(node)
    (expected,) = reference.run(None, dict(zip(names, arrays, strict=True)))[:1]
    found = fastrnn.onnx.run_node(node, arrays)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert found.dtype == expected.dtype
