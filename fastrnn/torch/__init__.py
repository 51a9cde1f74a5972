"""fastrnn's kernels as PyTorch modules, for CPUs: a change of one line.

    from fastrnn.torch import LSTM  # also GRU, RNN; was: from torch.nn import LSTM

or, in a model that is already there, its weights, optimisers and hooks staying as they are::

    print(fastrnn.torch.accelerate(model))  # what it replaced, and what it left and why

The modules take and return what `torch.nn`'s do, `PackedSequence` too, train with autograd and run
inside `torch.compile`. Where PyTorch has threads of OpenMP, as on Linux, fastrnn works on them from
the import of this module on, for a second set would wait for the same CPUs: on as many as
`torch.set_num_threads` says, and at most as many as `fastrnn.set_num_threads` does. Elsewhere it
has its own.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'") from error

from fastrnn.torch import threads as _threads
from fastrnn.torch.modules import GRU, LSTM, RNN
from fastrnn.torch.replacing import Report, accelerate

_threads.share()

__all__ = ["GRU", "LSTM", "RNN", "Report", "accelerate"]
