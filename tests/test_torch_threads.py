"""PyTorch's threads run the kernels: no second set of them beside PyTorch's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

_PROGRAM = """
import os, signal, torch
import fastrnn as fr, fastrnn.torch
from fastrnn import _core

def started():
    return len(os.listdir("/proc/self/task"))

def bits():
    y = lstm(x)[0]
    y.sum().backward()
    gradients = [p.grad.clone() for p in lstm.parameters()]
    lstm.zero_grad()
    return [y.detach(), *gradients]

def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

torch.manual_seed(0)
lstm, x = fastrnn.torch.LSTM(40, 96), torch.randn(30, 7, 40)
fr.set_num_threads(1)
wanted = bits()
torch.set_num_threads(2)
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
before = started()
fr.set_num_threads(2)
assert same(bits(), wanted), "PyTorch's threads: other bits"
print("PyTorch's:", started() - before)

child = os.fork()
if child == 0:
    signal.alarm(60)  # PyTorch's own threads are lost there: it would wait for them for ever
    before, given, expected = started(), x.detach(), wanted[0].numpy()
    with torch.no_grad():
        right = (lstm(given)[0].numpy() == expected).all() and started() == before + 1
    os._exit(0 if right else 1)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

torch.set_num_threads(1)
before = started()
assert same(bits(), wanted), "one thread: other bits"
print("one:", started() - before)
_core.set_team(0, 0, 0, 0)
assert same(bits(), wanted), "fastrnn's threads: other bits"
print("fastrnn's:", started() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc/self/task")
def test_whose_threads_serve() -> None:
    import torch

    if "OpenMP" not in torch.__config__.parallel_info():
        pytest.skip("this PyTorch has threads of another kind")
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["PyTorch's: 0", "child: 0", "one: 0", "fastrnn's: 1"]
