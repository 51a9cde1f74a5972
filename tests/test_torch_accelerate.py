"""fastrnn.torch.accelerate: what it replaces, what stays, what it leaves and says."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*deprecated"),  # TorchScript, quantisation
]
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import fastrnn.torch as ft  # noqa: E402


class Tagger(nn.Module):
    """Two encoders that are one, a decoder with tied weights, a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 6, 2, bidirectional=True, dropout=0.2, batch_first=True)
        self.layers = nn.ModuleList([nn.GRU(12, 6, batch_first=True), nn.Linear(6, 4)])
        self.same = nn.ModuleDict({"encoder": self.encoder})
        self.tied = nn.RNN(6, 5, nonlinearity="relu", batch_first=True)
        self.other = nn.RNN(6, 5, nonlinearity="relu", batch_first=True)
        self.other.weight_hh_l0 = self.tied.weight_hh_l0
        self.cell = nn.GRUCell(5, 3)

    def forward(self, x: Any) -> Any:
        y, _ = self.layers[0](self.same["encoder"](x)[0])
        return self.cell((self.tied(y)[0] + self.other(y)[0])[:, -1])


def test_all_of_a_model_is_replaced_in_place() -> None:
    torch.manual_seed(0)
    model = Tagger().eval()
    model.layers[0].train()
    before = dict(model.named_parameters(remove_duplicate=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = []
    handle = model.encoder.register_forward_hook(lambda module, *_: called.append(type(module)))
    x = torch.randn(3, 5, 4)
    want = model(x)
    objects = dict(model.named_modules())

    report = ft.accelerate(model)
    assert report.model is model
    names = ["encoder", "layers.0", "same.encoder", "tied", "other"]
    assert list(report.replaced) == names and list(report.left) == ["cell"]
    assert [type(model.get_submodule(name)) for name in names] == [
        ft.LSTM, ft.GRU, ft.LSTM, ft.RNN, ft.RNN,
    ]  # fmt: skip
    assert all(model.get_submodule(name) is objects[name] for name in objects)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert model.tied.weight_hh_l0 is model.other.weight_hh_l0
    assert not model.encoder.training and model.layers[0].training

    called.clear()
    got = model(x)
    assert torch.allclose(got, want, atol=1e-6) and called == [ft.LSTM]
    got.sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), got)
    handle.remove()
    called.clear()
    model(x)
    assert not called
    again = ft.accelerate(model)
    assert not again.replaced and list(again.left) == ["cell"]


def test_the_report_is_a_line_for_each_module() -> None:
    text = str(ft.accelerate(Tagger()))
    assert text.splitlines() == [
        "5 of 6 recurrent modules run on fastrnn's kernels",
        "  encoder: LSTM(4, 6, num_layers=2, batch_first=True, dropout=0.2, bidirectional=True)",
        "  layers.0: GRU(12, 6, batch_first=True)",
        "  same.encoder: LSTM(4, 6, num_layers=2, batch_first=True, dropout=0.2, "
        "bidirectional=True)",
        "  tied: RNN(6, 5, batch_first=True)",
        "  other: RNN(6, 5, batch_first=True)",
        "  cell: left, GRUCell makes one step a call",
    ]


def test_a_model_may_be_the_module_itself() -> None:
    module = nn.LSTM(4, 6)
    report = ft.accelerate(module)
    assert type(module) is ft.LSTM and report.model is module
    assert str(report).splitlines()[1] == "  (the model): LSTM(4, 6)"
    assert str(ft.accelerate(nn.Linear(2, 2))).startswith("0 of 0")
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got dict"):
        ft.accelerate({"lstm": nn.LSTM(4, 6)})  # type: ignore[arg-type]


class Own(nn.LSTM):
    def forward(self, *args: Any) -> Any:
        return super().forward(*args)[0]


def replaced_forward() -> Any:
    module = nn.GRU(4, 6)
    module.forward = lambda x: x  # type: ignore[method-assign, assignment]
    return module


def parametrized() -> Any:
    return nn.utils.parametrizations.weight_norm(nn.GRU(4, 6), "weight_hh_l0")


def quantised() -> Any:
    model = nn.Sequential(nn.LSTM(4, 6))
    return torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)[0]


def mixed() -> Any:
    module = nn.RNN(4, 6)
    module.bias_hh_l0 = nn.Parameter(module.bias_hh_l0.double())
    return module


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Own(4, 6), "Own is a class of its own, not torch.nn's"),
        (replaced_forward, "its forward was replaced"),
        (parametrized, "has parametrizations; accelerate it before"),
        (quantised, "torch.ao.nn.quantized.dynamic.modules.rnn.LSTM is quantised"),
        (lambda: torch.jit.script(nn.LSTM(4, 6)), "LSTM is compiled by TorchScript"),
        (lambda: nn.LSTM(4, 6).bfloat16(), "its weights are torch.bfloat16"),
        (lambda: nn.GRU(4, 6).half(), "its weights are torch.float16"),
        (mixed, "its weights are of several dtypes"),
        (lambda: nn.GRU(4, 6, device="meta"), "its weights are on meta; fastrnn runs on the CPU"),
        (lambda: nn.LSTMCell(4, 6), "LSTMCell makes one step a call"),
        (lambda: nn.RNNCell(4, 6), "RNNCell makes one step a call"),
    ],
)
def test_what_is_left_and_why(make: Any, reason: str) -> None:
    module = make()
    kind = type(module)
    report = ft.accelerate(nn.Sequential(module, nn.Linear(2, 2), nn.GRU(2, 2)))
    assert list(report.replaced) == ["2"] and list(report.left) == ["0"]
    assert report.left["0"].startswith(reason)
    assert type(module) is kind
