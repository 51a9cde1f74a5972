"""Tensors as arrays and back: shared memory that lives as long as either, by either way."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch._subclasses import FakeTensorMode  # noqa: E402

from fastrnn import _core  # noqa: E402
from fastrnn.torch import GRU, exchange, recurrence  # noqa: E402

WAYS = [exchange.ByNumPy()]
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    WAYS.append(_core.TensorExchange(torch.Tensor))
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)


def test_the_faster_way_is_taken() -> None:
    assert type(exchange.exchange) is type(WAYS[-1])


@every_way
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_is_shared(way: Any, dtype: str) -> None:
    whole = torch.arange(120.0, dtype=getattr(torch, dtype)).reshape(4, 5, 6)
    for tensor in (whole, whole[1:, ::2, 3:], whole.transpose(0, 2), whole[0, 0, 0], whole[:0]):
        array, nothing = way.arrays((tensor, None), False)
        assert nothing is None and array.dtype == dtype and array.flags.writeable
        assert array.shape == tuple(tensor.shape) and np.array_equal(array, tensor.numpy())
        (back,) = way.tensors([array])
        assert back.dtype == tensor.dtype and torch.equal(back, tensor)
        if tensor.numel():
            assert way.addresses((tensor, None)) == [tensor.data_ptr(), 0]
            assert way.addresses((back,)) == [array.ctypes.data] == [tensor.data_ptr()]
            assert array.strides == tuple(array.itemsize * each for each in tensor.stride())
    assert way.tensors([None]) == [None]


@every_way
def test_copies_where_memory_says_something_else(way: Any) -> None:
    crosswise = torch.randn(3, 4).T
    (array,) = way.arrays((crosswise,), True)
    assert array.flags.c_contiguous and np.array_equal(array, crosswise.numpy())
    negative = torch.randn(3, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    (array,) = way.arrays((negative,), False)
    assert np.array_equal(array, negative.resolve_neg().numpy())


@every_way
def test_memory_lives_as_long_as_either(way: Any) -> None:
    tensor = torch.ones(1000)
    alive = weakref.ref(tensor.untyped_storage())
    (array,) = way.arrays((tensor,), True)
    del tensor
    gc.collect()
    assert alive() is not None and array.sum() == 1000

    array = np.ones(1000, "float32").view(type("Array", (np.ndarray,), {}))  # may be referred to
    gone = weakref.ref(array)
    tensors = way.tensors([array])
    del array
    gc.collect()
    assert gone() is not None and tensors[0].sum() == 1000
    thread = threading.Thread(target=tensors.clear)
    thread.start()
    thread.join()
    assert gone() is None


def test_what_it_cannot_give_is_an_error() -> None:
    way: Any = WAYS[-1]
    if not isinstance(way, _core.TensorExchange):
        pytest.skip("an older PyTorch")
    with pytest.raises(TypeError, match="tensor: expected a Tensor, got int"):
        way.addresses((3,))
    for tensor in (torch.zeros(2, dtype=torch.int32), torch.zeros(1, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="tensor: expected float32 or float64 on the CPU"):
            way.arrays((tensor,), True)
    with FakeTensorMode():
        fake = torch.zeros(2, 3)
    for tensor in (fake, torch._efficientzerotensor(2, 3)):
        for look in (way.addresses, lambda tensors: way.arrays(tensors, True)):
            with pytest.raises(ValueError, match="tensor: expected one with memory of its own"):
                look((tensor,))
    assert way.arrays((torch.zeros(2, 0, 3),), True)[0].shape == (2, 0, 3)
    for array in (np.zeros(2, "int32"), np.zeros((1, 1, 1, 1, 1), "float32")):
        with pytest.raises(ValueError, match="array: expected float32 or float64"):
            way.tensors((array,))
    with pytest.raises(TypeError):
        way.tensors((3,))


def test_either_way_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = GRU(5, 7, num_layers=2), torch.randn(4, 3, 5)
    found = []
    for way in WAYS:
        monkeypatch.setattr(recurrence, "exchange", way)
        module.zero_grad()
        y, h_n = module(x)
        (y.sum() + h_n.square().sum()).backward()
        found.append([y, h_n, *(p.grad for p in module.parameters())])
    for got, want in zip(found[0], found[-1], strict=True):
        assert torch.equal(got, want)
