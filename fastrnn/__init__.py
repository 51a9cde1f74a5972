"""fastrnn: fused LSTM, GRU and RNN for CPUs, forward and BPTT, behind a thin NumPy API."""

__version__ = "0.1.0"

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrnn import callbacks, data, losses, metrics, optimizers, schedules
from fastrnn.clipping import clip_by_global_norm, clip_by_value
from fastrnn.config import get_num_threads, set_num_threads, show_config
from fastrnn.encoder_decoder import EncoderDecoder
from fastrnn.history import History
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.ragged import pack, unpack
from fastrnn.losses import (
    CTC,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from fastrnn.models import Sequential
from fastrnn.models import load as load
from fastrnn.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from fastrnn.parameter import Parameter

if TYPE_CHECKING:
    from fastrnn import diagnostics
else:

    def __getattr__(name: str) -> Any:
        """diagnostics, once someone asks for it: most runs never do."""
        if name == "diagnostics":
            import fastrnn.diagnostics

            return fastrnn.diagnostics
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


def get_include() -> str:
    """The folder with ``fastrnn.h`` and the kernels' sources, for C and Cython programs.

    A C program needs these files alone and builds with one line; its README says more::

        inc=$(python -c "import fastrnn; print(fastrnn.get_include())")
        cc -O2 -ffp-contract=off -pthread -I"$inc" prog.c "$inc"/*.c "$inc"/kernels/*.c -lm -o prog

    Raises FileNotFoundError where they are not there.
    """
    here = Path(__file__).parent
    for folder in (here / "csrc", here.parent / "csrc"):  # installed; a checkout
        if (folder / "fastrnn.h").is_file():
            return str(folder)
    raise FileNotFoundError(f"{here / 'csrc' / 'fastrnn.h'}: not there, install fastrnn again")


__all__ = [
    "CTC",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Dense",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "History",
    "Huber",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Parameter",
    "RMSprop",
    "Sequential",
    "SparseCategoricalCrossentropy",
    "callbacks",
    "clip_by_global_norm",
    "clip_by_value",
    "data",
    "diagnostics",
    "get_include",
    "get_num_threads",
    "load",
    "losses",
    "metrics",
    "optimizers",
    "pack",
    "schedules",
    "set_num_threads",
    "show_config",
    "unpack",
]
