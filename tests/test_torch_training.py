"""Training with fastrnn.torch: any optimiser, several processes; and without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_without_torch_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; import fastrnn.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(
        "ImportError: fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'"
    )


def model(namespace: Any) -> Any:
    """An encoder and a classifier, with starting values from a seed."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = namespace.GRU(4, 8, 2, batch_first=True, bidirectional=True)
            self.after = torch.nn.Linear(16, 3)

        def forward(self, x: Any) -> Any:
            return self.after(self.recurrent(x)[0][:, -1])

    torch.manual_seed(0)
    return Model().double()


def examples() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 6, 4, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (8,), generator=generator)


def losses(model: Any, x: Any, y: Any, optimizer: Any, steps: int) -> list[float]:
    import torch

    found = []
    for _ in range(steps):

        def closure() -> Any:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss.detach()

        found.append(float(optimizer.step(closure)))
    return found


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.5, "momentum": 0.9}),
        ("Adam", {"lr": 0.02, "foreach": True}),
        ("AdamW", {"lr": 0.02, "fused": True}),
        ("RMSprop", {"lr": 0.01}),
        ("LBFGS", {"lr": 0.5, "max_iter": 3}),
    ],
)
def test_an_optimiser_learns_as_with_torchs_modules(name: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    import fastrnn.torch as ft

    found = []
    for namespace in (torch.nn, ft):
        made = model(namespace)
        optimizer = getattr(torch.optim, name)(made.parameters(), **options)
        found.append(losses(made, *examples(), optimizer, 10))
    theirs, ours = found
    assert ours == pytest.approx(theirs, rel=1e-7)
    assert ours[-1] < 0.9 * ours[0]


def _train(rank: int, processes: int, file: str, out: str) -> None:
    """A process's share of the batch."""
    import torch

    import fastrnn as fr
    import fastrnn.torch as ft

    fr.set_num_threads(1)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=processes
    )
    made = torch.nn.parallel.DistributedDataParallel(model(ft))
    x, y = (each[rank::processes] for each in examples())
    losses(made, x, y, torch.optim.SGD(made.parameters(), lr=0.5), 3)
    torch.save(made.module.state_dict(), f"{out}{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.torch
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import fastrnn.torch as ft

    out = str(tmp_path / "rank")
    torch.multiprocessing.spawn(_train, (2, str(tmp_path / "store"), out), nprocs=2)
    alone = model(ft)
    losses(alone, *examples(), torch.optim.SGD(alone.parameters(), lr=0.5), 3)
    for rank in range(2):
        state = torch.load(f"{out}{rank}")
        for name, value in alone.state_dict().items():
            assert torch.allclose(state[name], value, rtol=1e-10, atol=1e-12)
