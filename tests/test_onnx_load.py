"""ONNX files read as Sequential models: ours, PyTorch's, others'; and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn as fr

onnx = pytest.importorskip("onnx")

import fastrnn.onnx  # noqa: E402

node = onnx.helper.make_node


def make_model(
    nodes: list[Any],
    constants: dict[str, Any],
    x: tuple[Any, ...] = ("batch", "time", 2),
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    dtype: str = "float32",
    opset: int = 22,
) -> Any:
    """A graph from x (of `dtype`) to y, or of more; other inputs are states (1, 3, 4)."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "made",
        [info(name, kind, x if name == "x" else (1, 3, 4)) for name in inputs],
        [info(name, onnx.TensorProto.FLOAT, [None] * 3) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )


def weights(rng: Any, gates: int = 4, size: int = 2, hidden: int = 4, d: int = 1) -> dict[str, Any]:
    return {
        "W": rng.uniform(-1, 1, (d, gates * hidden, size)).astype("f4"),
        "R": rng.uniform(-1, 1, (d, gates * hidden, hidden)).astype("f4"),
        "B": rng.uniform(-1, 1, (d, 2 * gates * hidden)).astype("f4"),
    }


def assert_loads(model: Any, x: Any, batch_first: bool = True) -> fr.Sequential:
    """The loaded model computes what the backend does, which is tested elsewhere."""
    loaded = fastrnn.onnx.load(model)
    wanted = fastrnn.onnx.run_model(model, {"x": x})[0]
    y = loaded(x if batch_first else x.swapaxes(0, 1))
    if y.ndim == 3 and not batch_first:
        y = y.swapaxes(0, 1)
    np.testing.assert_allclose(y, wanted, atol=1e-6)
    return loaded


def test_what_export_writes(tmp_path: Path, rng: Any) -> None:
    """Weights and structure come back, and training can go on."""
    model = fr.Sequential(
        [
            fr.Embedding(9, 4),
            fr.LSTM(4, 5, 2, bidirectional=True, peephole=True, clip=0.5),
            fr.Dropout(0.25),
            fr.GRU(10, 3, reset_after=False, bias=False, gate_activation="hard_sigmoid"),
            fr.RNN(3, 4, nonlinearity="identity", return_sequences=False),
            fr.Dense(4, 2, "softmax"),
        ]
    )
    fastrnn.onnx.export(model, tmp_path / "m.onnx", lengths=True, states=True)
    again = fastrnn.onnx.load(tmp_path / "m.onnx")
    for ours, theirs in zip(model.layers, again.layers, strict=True):
        same = {k: v for k, v in ours.config().items() if k != "seed"}
        assert same == {k: v for k, v in theirs.config().items() if k != "seed"}
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], values)
    again.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    again.fit(rng.integers(0, 9, (4, 5)), np.array([0, 1, 1, 0]), epochs=1, verbose=0)


def test_layers_alike_become_one(tmp_path: Path) -> None:
    """Nodes say no more: two layers of one are a layer of two."""
    model = fr.Sequential([fr.GRU(3, 4), fr.GRU(4, 4), fr.GRU(4, 4, clip=1.0), fr.LSTM(4, 4)])
    fastrnn.onnx.export(model, tmp_path / "m.onnx")
    again = fastrnn.onnx.load(tmp_path / "m.onnx")
    assert [layer.config()["num_layers"] for layer in again.layers] == [2, 1, 1]
    x = np.ones((2, 5, 3), "f4")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)


def test_batch_first_layout_and_gemm(rng: Any) -> None:
    """As the standard has it since opset 14: no Transpose at all."""
    constants = weights(rng) | {
        "shape": np.array([0, -1]),
        "U": rng.uniform(-1, 1, (4, 3)).astype("f4"),
        "b": np.ones((1, 3), "f4"),
    }
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["", "h"], layout=1),
        node("Reshape", ["h", "shape"], ["flat"]),
        node("Gemm", ["flat", "U", "b"], ["z"]),
        node("Tanh", ["z"], ["y"]),
    ]
    x = rng.standard_normal((3, 5, 2)).astype("f4")
    loaded = assert_loads(make_model(nodes, constants), x)
    assert [type(layer).__name__ for layer in loaded.layers] == ["LSTM", "Dense"]
    assert loaded.layers[1].activation == "tanh"


def test_keras_layout(rng: Any) -> None:
    """As tf2onnx writes Keras's Embedding, GRU, TimeDistributed(Dense): zeros of x's own shape."""
    table = rng.uniform(-1, 1, (9, 2)).astype("f4")
    constants = weights(rng, gates=3) | {
        "table": table, "zero": np.array([0.0], "f4"), "first": np.array(0), "hidden": [4],
        "one": np.array([1]), "at": np.array([0]), "U": rng.uniform(-1, 1, (4, 3)).astype("f4"),
        "b": np.ones(3, "f4"),
    }  # fmt: skip
    nodes = [
        node("Cast", ["x"], ["ids"], to=7),
        node("Gather", ["table", "ids"], ["e"]),
        node("Shape", ["e"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Unsqueeze", ["n", "at"], ["n1"]),
        node("Concat", ["one", "n1", "hidden"], ["hs"], axis=0),
        node("Expand", ["zero", "hs"], ["h0"]),
        node("Transpose", ["e"], ["t"], perm=[1, 0, 2]),
        node("GRU", ["t", "W", "R", "B", "", "h0"], ["Y"], hidden_size=4, linear_before_reset=1),
        node("Squeeze", ["Y", "one"], ["q"]),
        node("Transpose", ["q"], ["u"], perm=[1, 0, 2]),
        node("MatMul", ["u", "U"], ["m"]),
        node("Add", ["m", "b"], ["z"]),
        node("Softmax", ["z"], ["y"]),
    ]
    model = make_model(nodes, constants, x=("n", "t"), dtype="int32")
    loaded = assert_loads(model, rng.integers(0, 9, (3, 5)).astype("int32"))
    assert loaded.layers[1].reset_after
    # Without return_sequences: the final state, or the last step of the output.
    last = [
        node("Slice", ["u", "minus", "end", "one"], ["l"]),
        node("Squeeze", ["l", "one"], ["y"]),
    ]
    constants |= {"minus": np.array([-1]), "end": np.array([2**31 - 1])}
    model = make_model(nodes[:11] + last, constants, x=("n", "t"), dtype="int32")
    loaded = assert_loads(model, rng.integers(0, 9, (3, 5)).astype("int32"))
    assert not loaded.layers[1].return_sequences


def test_time_first(rng: Any) -> None:
    """PyTorch's own default: the model's arrays have the batch first all the same."""
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["Y", "h", "c"], direction="bidirectional"),
        node("Transpose", ["Y"], ["apart"], perm=[0, 2, 1, 3]),
        node("Reshape", ["apart", "shape"], ["y"]),
    ]
    constants = weights(rng, d=2) | {"shape": np.array([0, 0, -1])}
    model = make_model(nodes, constants, x=("t", "n", 2), outputs=("y", "h", "c"))
    assert_loads(model, rng.standard_normal((5, 3, 2)).astype("f4"), batch_first=False)


def test_old_opsets_are_converted(rng: Any) -> None:
    nodes = [
        node("GRU", ["x", "W", "R", "B"], ["", "h"], hidden_size=4),
        node("Squeeze", ["h"], ["s"], axes=[0]),
        node("Gemm", ["s", "U", "b"], ["z"], transB=1),
        node("Softmax", ["z"], ["y"]),
    ]
    constants = weights(rng, gates=3)
    constants |= {"U": rng.uniform(-1, 1, (3, 4)).astype("f4"), "b": np.zeros(3, "f4")}
    x = rng.standard_normal((5, 3, 2)).astype("f4")
    model = make_model(nodes, constants, x=(5, 3, 2), opset=9)
    loaded = assert_loads(model, x, batch_first=False)
    assert not loaded.layers[0].reset_after and loaded.layers[1].activation == "softmax"


LSTM = node("LSTM", ["x", "W", "R", "B"], ["Y", "h", "c"], name="cell", hidden_size=4)
SEQUENCE = [LSTM, node("Squeeze", ["Y", "one"], ["s"])]
ONE = np.array([1])


@pytest.mark.parametrize(
    "nodes, constants, message",
    [
        ([node("LSTM", ["x", "W", "R", "B"], ["y"], name="cell", direction="reverse")], {},
         "node 'cell', operator LSTM: direction: expected forward or bidirectional"),
        ([node("LSTM", ["x", "W", "R", "B"], ["y"], name="cell", nonsense=1)], {},
         "Unrecognized attribute: nonsense for operator LSTM"),
        ([node("LSTM", ["x", "W", "R", "B"], ["y"], name="cell", activation_alpha=[0.5])], {},
         "node 'cell', operator LSTM: activation_alpha"),
        ([node("LSTM", ["x", "W", "R", "B"], ["y"], name="cell", activations=["Elu"] * 3)], {},
         "node 'cell', operator LSTM: activations: the kernels have no Elu"),
        ([node("LSTM", ["x", "W", "R", "B", "", "h0"], ["y"], name="cell")],
         {"h0": np.ones((1, 1, 4), "f4")}, "node 'cell', .* initial states: expected zeros"),
        ([node("LSTM", ["x", "W", "R", "B", "n"], ["y"], name="cell")],
         {"n": np.array([5, 4, 5], np.int32)}, "node 'cell', .* sequence_lens: expected all steps"),
        ([node("LSTM", ["x", "B", "R"], ["y"], name="cell")], {}, "'cell', .* W and R: expected"),
        ([node("LSTM", ["x", "W", "R"], ["y"], name="cell", hidden_size=5)], {}, "'cell', .* W: "),
        ([*SEQUENCE, node("Relu", ["s"], ["y"], name="r")], {},
         "node 'r', operator Relu: expected to stand after an affine map"),
        ([*SEQUENCE, node("Add", ["s", "s"], ["y"], name="a")], {}, "node 'a', operator Add"),
        ([*SEQUENCE, node("MatMul", ["s", "R"], ["y"], name="m")], {}, "node 'm', operator MatMul"),
        ([*SEQUENCE, node("Erf", ["s"], ["y"], name="e")], {},
         "node 'e', operator Erf: not supported on what comes of the input"),
        ([node("Erf", ["one_f"], ["y"], name="e")], {"one_f": np.ones(1, "f4")},
         "node 'e', operator Erf: not supported; there are"),
        ([LSTM, node("Squeeze", ["c", "zero"], ["y"], name="s")], {}, "'y': expected a chain"),
        ([LSTM, node("Squeeze", ["h", "zero"], ["y"]), node("Squeeze", ["Y", "one"], ["z"])], {},
         "output 'z': expected final states after the first one"),
        ([LSTM, node("Squeeze", ["Y", "one"], ["s"]), node("Transpose", ["s"], ["y"],
         perm=[1, 0, 2])], {}, "output 'y': expected the input's order of axes"),
        ([LSTM, node("Reshape", ["Y", "flat"], ["y"], name="r")], {"flat": np.array([-1, 4])},
         "node 'r', operator Reshape: from .* only directions and features may join"),
        ([LSTM, node("Squeeze", ["x", "one"], ["y"], name="s")], {}, "node 's', operator Squeeze"),
        ([node("Dropout", ["x", "p", "yes"], ["y"], name="d")],
         {"p": np.float32(0.5), "yes": np.array(True)}, "node 'd', operator Dropout: .*inference"),
        ([node("Gather", ["x", "first"], ["y"], name="g", axis=1)], {"first": np.array(-1)},
         "node 'g', operator Gather: expected some of the final states"),
        ([node("Gemm", ["x", "U"], ["y"], name="g", alpha=2.0)], {"U": np.ones((2, 2), "f4")},
         "node 'g', operator Gemm: .* alpha=1"),
        ([node("MatMul", ["x", "U"], ["z"], name="g"), node("Softmax", ["z"], ["y"], name="s",
         axis=1)], {"U": np.ones((2, 2), "f4")}, "node 's', operator Softmax: axis: .* got 1"),
        ([node("MatMul", ["x", "U"], ["z"]), node("Transpose", ["z"], ["t"], perm=[0, 2, 1]),
          node("Softmax", ["t"], ["s"], name="s"), node("Transpose", ["s"], ["y"], perm=[0, 2, 1])],
         {"U": np.ones((2, 2), "f4")}, "node 's', operator Softmax: expected features last"),
    ],
)  # fmt: skip
def test_graphs_that_are_refused(
    nodes: list[Any], constants: dict[str, Any], message: str, rng: Any
) -> None:
    constants = weights(rng) | {"one": ONE, "zero": np.array([0])} | constants
    outputs = (
        ("y", "z") if any("z" in n.output and n.op_type == "Squeeze" for n in nodes) else ("y",)
    )
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.load(make_model(nodes, constants, outputs=outputs))


def test_the_last_step_of_two_directions_is_no_final_state(rng: Any) -> None:
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["Y"], direction="bidirectional"),
        node("Transpose", ["Y"], ["apart"], perm=[2, 0, 1, 3]),
        node("Reshape", ["apart", "shape"], ["s"]),
        node("Gather", ["s", "last"], ["y"], name="g", axis=1),
    ]
    constants = weights(rng, d=2) | {"shape": np.array([0, 0, -1]), "last": np.array(-1)}
    with pytest.raises(
        ValueError, match=r"node 'g', operator Gather: .* last step of one direction"
    ):
        fastrnn.onnx.load(make_model(nodes, constants))


def test_inputs_that_are_refused(rng: Any, tmp_path: Path) -> None:
    cell = node("LSTM", ["x", "W", "R", "B", "", "h0"], ["y"], name="cell")
    with pytest.raises(
        ValueError, match=r"node 'cell', .*'h0': expected the input 'x' or a constant"
    ):
        fastrnn.onnx.load(make_model([cell], weights(rng), inputs=("x", "h0")))
    for shape, dtype in (((3, "n"), "float32"), ((3, 4, 5, 6), "float32"), ((3, 4, 5), "int64")):
        with pytest.raises(ValueError, match="input 'x': expected ids"):
            fastrnn.onnx.load(make_model([node("Relu", ["x"], ["y"])], {}, x=shape, dtype=dtype))
    with pytest.raises(TypeError, match="model: expected a path or a ModelProto, got bytes"):
        fastrnn.onnx.load(make_model([cell], weights(rng)).SerializeToString())
    half = {n: a.astype("f2") for n, a in weights(rng).items()}
    with pytest.raises(ValueError, match=r"operator LSTM: W and R: .* float16"):
        fastrnn.onnx.load(
            make_model(SEQUENCE, half | {"one": ONE}, outputs=("s",), dtype="float16")
        )
    model = make_model([node("Add", ["x", "b"], ["y"])], {"b": np.ones(2, "f4")})
    model.graph.initializer[0].data_type = 99
    with pytest.raises(ValueError, match="initializers are damaged"):
        fastrnn.onnx.load(model)
    model.graph.input[0].type.tensor_type.elem_type = 99
    model.graph.initializer[0].data_type = onnx.TensorProto.FLOAT
    with pytest.raises(ValueError, match="input 'x': expected a tensor of known dtype and rank"):
        fastrnn.onnx.prepare(model)
    for name, content in (("text.onnx", b"no model"), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not "):
            fastrnn.onnx.load(tmp_path / name)
    with pytest.raises(OSError):
        fastrnn.onnx.load(tmp_path / "none.onnx")


def mutate(graph: Any, rng: Any) -> None:
    """One change: of an attribute, an input, a constant's integers, or a node less."""
    nodes, kind = list(graph.node), rng.integers(4)
    changed = nodes[rng.integers(len(nodes))]
    if kind == 0 and changed.attribute:
        attribute = changed.attribute[rng.integers(len(changed.attribute))]
        attribute.i = rng.integers(-1, 3)
        attribute.ints[:] = rng.permutation(list(attribute.ints))
        attribute.s = rng.choice([b"forward", b"reverse", b"bidirectional"])
    elif kind == 1:
        names = [
            "",
            "x",
            *(o for n in nodes for o in n.output),
            *(c.name for c in graph.initializer),
        ]
        changed.input[rng.integers(len(changed.input))] = rng.choice(names)
    elif kind == 2:
        constant = graph.initializer[rng.integers(len(graph.initializer))]
        values = onnx.numpy_helper.to_array(constant).copy()
        values.flat[rng.integers(values.size)] = rng.integers(-1, 4)
        constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    elif "y" not in changed.output:
        graph.node.remove(changed)
        for other in graph.node:
            renamed = [changed.input[0] if i == changed.output[0] else i for i in other.input]
            other.input[:] = renamed


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("two_ways", [False, True])
def test_a_changed_graph_is_refused_or_read_as_it_is(
    states: bool, two_ways: bool, tmp_path: Path, rng: Any
) -> None:
    """Nothing is skipped: what loads computes what the backend does."""
    width = 8 if two_ways else 4
    layers = [fr.Embedding(9, 4), fr.GRU(4, 4, 2, bidirectional=two_ways), fr.Dropout(0.1),
              fr.LSTM(width, 4, bidirectional=two_ways, return_sequences=two_ways),
              fr.Dense(width, width), fr.Dense(width, 2, "softmax")]  # fmt: skip
    fastrnn.onnx.export(fr.Sequential(layers), tmp_path / "m.onnx", lengths=states, states=states)
    x, read = rng.integers(0, 9, (3, 5)), 0
    for _ in range(150):
        model = onnx.load(tmp_path / "m.onnx")
        mutate(model.graph, rng)
        try:
            loaded = fastrnn.onnx.load(model)
            y = fastrnn.onnx.run_model(model, {"x": x})[0]
        except ValueError:
            continue
        # Where the change made it time first, the model has the batch first all the same.
        turned = loaded(x.T).swapaxes(0, 1) if y.ndim == 3 else loaded(x.T)
        found = [z for z in (loaded(x), turned) if z.shape == y.shape]
        assert any(np.allclose(z, y, atol=1e-6) for z in found), model
        read += 1
    assert 10 < read < 150


@pytest.mark.torch
@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bidirectional, layers, last", [
    (False, 2, "step"), (False, 2, "h_n"), (True, 2, "h_n"), (True, 1, "all"), (False, 1, "all"),
])  # fmt: skip
def test_pytorchs_exporter(
    kind: str, bidirectional: bool, layers: int, last: str, opset: int, tmp_path: Path, rng: Any
) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(9, 4)
            self.cell = getattr(torch.nn, kind)(
                4,
                5,
                layers,
                batch_first=True,
                bidirectional=bidirectional,
                dropout=0.1 * (layers > 1),
            )
            self.linear = torch.nn.Linear(10 if bidirectional else 5, 3)

        def forward(self, x: Any) -> Any:
            y, state = self.cell(self.embedding(x))
            if last == "step":
                return self.linear(y[:, -1])
            if last == "h_n":
                h = state[0] if kind == "LSTM" else state
                return self.linear(torch.cat([h[-2], h[-1]], 1) if bidirectional else h[-1])
            return torch.softmax(self.linear(y), -1)

    net, path = Net().eval(), tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is a newer exporter
        torch.onnx.export(
            net, (torch.zeros(2, 7, dtype=torch.long),), path, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "n", 1: "t"}}, opset_version=opset,
        )  # fmt: skip
    x = rng.integers(0, 9, (3, 6))
    wanted = net(torch.from_numpy(x)).detach().numpy()
    loaded = fastrnn.onnx.load(path)
    np.testing.assert_allclose(loaded(x), wanted, atol=1e-6)
    np.testing.assert_allclose(fastrnn.onnx.run_model(onnx.load(path), [x])[0], wanted, atol=1e-6)
    cell = net.cell.state_dict()
    for name, values in loaded.layers[1].state_dict().items():
        np.testing.assert_array_equal(values, cell[name].numpy())
