"""ONNX: models out and in, and a backend that runs recurrent graphs on fastrnn's kernels.

`export` writes a Sequential, or a layer alone, as a file that ONNX Runtime runs; `load` makes a
Sequential of such a file, or of what PyTorch's exporter and others write where it maps. `prepare`,
`run_model`, `run_node`, `is_compatible` and `supports_device` are what `onnx.backend.base`
describes: the module itself is a backend. What does not map is refused with a ValueError that names
the layer and its option, or the node and its operator.

Rows of length 0: here, and in what `export` writes, they keep their initial state. ONNX Runtime's
own operators return zeros for them, and the standard says nothing.
"""

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastrnn.onnx needs the package onnx: pip install 'fastrnn[onnx]' ({error})"
    ) from error

from fastrnn.onnx.backend import Backend, Prepared
from fastrnn.onnx.reader import load
from fastrnn.onnx.writer import export

is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device

__all__ = [
    "Backend",
    "Prepared",
    "export",
    "is_compatible",
    "load",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
