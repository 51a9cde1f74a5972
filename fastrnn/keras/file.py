"""Files of Keras 3: config.json and model.weights.h5 in a zip archive."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastrnn.keras.convert import Arrays, checked, sequential
from fastrnn.keras.layout import CELLS
from fastrnn.models import Sequential

# Where a layer's weights are within its group.
_PLACES = {
    **dict.fromkeys(CELLS, ("cell/vars",)),
    "Bidirectional": ("forward_layer/cell/vars", "backward_layer/cell/vars"),
    "TimeDistributed": ("layer/vars",),
}
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, json.JSONDecodeError, UnicodeDecodeError,
    AttributeError, LookupError, OverflowError, TypeError, OSError, RuntimeError,
)  # fmt: skip


def load(path: str | os.PathLike[str], *, without: Iterable[str] = ()) -> Sequential:
    """The Sequential model in a .keras file of Keras 3; nothing in the file is executed.

    `without`: see `fastrnn.keras`. Raises OSError where the file cannot be read, ValueError with
    its name where it is damaged or of another kind, and for what does not map.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("to read .keras files: pip install 'fastrnn[keras]'") from None
    names, data = checked(without), Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type not in (0, 8) for entry in archive.infolist()):
                raise zipfile.BadZipFile("neither stored nor deflated")
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
            model = json.loads(archive.read("config.json"))
            weights = io.BytesIO(archive.read("model.weights.h5"))
        if not version.startswith("3."):
            raise ValueError(f"expected a file of Keras 3, got one of Keras {version}")
        with h5py.File(weights) as file:
            return sequential(model, lambda kinds: _weights(h5py, file, kinds), names)
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a .keras file, or a damaged one ({error})") from None
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None


def _weights(h5py: Any, file: Any, kinds: list[str]) -> list[Arrays]:
    """Those of every layer, unread. Layers of a class are counted: lstm, lstm_1, ..."""
    found: list[Arrays] = []
    counts: Counter[str] = Counter()
    for kind in kinds:
        name = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
        name += f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        arrays: list[Any] = []
        for place in _PLACES.get(kind, ("vars",)):
            group: Any = file
            for part in f"layers/{name}/{place}".split("/"):
                group = _inside(h5py, group, part) if part in group else {}
            arrays += [_inside(h5py, group, str(k)) for k in range(len(group))]
        found.append(arrays)
    return found


def _inside(h5py: Any, group: Any, name: str) -> Any:
    """A member that is in this file itself: HDF5 has links to other files, too."""
    here = isinstance(group.get(name, getlink=True), h5py.HardLink)
    member = group[name] if here else None
    if not here or (isinstance(member, h5py.Dataset) and (member.external or member.is_virtual)):
        raise ValueError(f"model.weights.h5: {group.name}/{name}: expected weights, got a link")
    return member
