"""Model files: safetensors in and out, with the model's description in the metadata.

A file holds the parameters by name and, as metadata, ``format`` ("fastrnn"), ``version`` ("1"),
``model`` (a description in JSON: kinds of layers and their configurations) and ``extra`` (JSON of
the writer's own, for example a vocabulary). Reading executes nothing that stands in the file.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.parameter import Array

FORMAT = "fastrnn"
TRAINING = "training/"  # names of tensors that are a training run's, not the model's, begin so
VERSION = 1


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds."""

    tensors: dict[str, Array]
    description: dict[str, Any]
    extra: dict[str, Any]

    @property
    def weights(self) -> dict[str, Array]:
        """The tensors that are the model's."""
        return {k: v for k, v in self.tensors.items() if not k.startswith(TRAINING)}


def write(path: str | os.PathLike[str], content: ModelFile) -> None:
    """Write `content` to `path`; a file that is there is replaced only once all is written.

    Raises OSError or ValueError where the file cannot be written, TypeError or ValueError where the
    description or extra is not JSON.
    """
    from safetensors.numpy import save

    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "model": json.dumps(content.description, allow_nan=False),
        "extra": json.dumps(content.extra, allow_nan=False),
    }
    tensors = {name: np.asarray(value, order="C") for name, value in content.tensors.items()}
    replace_file(path, _in_order(save(tensors, metadata)))


def read(path: str | os.PathLike[str]) -> ModelFile:
    """What the model file at `path` holds.

    Raises OSError where the file cannot be read, ValueError with the path and the reason where it
    is truncated, of another kind, or of a newer version.
    """
    import safetensors
    from safetensors.numpy import load

    data = Path(path).read_bytes()
    try:
        tensors = load(data)
        metadata = _header(data)[0].get("__metadata__") or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a model file, or a truncated one ({error})") from None
    except KeyError as error:  # a type of number that NumPy lacks
        raise ValueError(f"{path}: not a fastrnn model (it holds {error.args[0]})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: a safetensors file, but not one of a fastrnn model")
    version = metadata.get("version")
    if version != str(VERSION):
        raise ValueError(
            f"{path}: written in version {version} of the model format, "
            f"but this fastrnn reads version {VERSION}"
        )
    return ModelFile(tensors, _json(path, metadata, "model"), _json(path, metadata, "extra"))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header that leads a safetensors file, and where the numbers begin."""
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    return header, end


def _in_order(data: bytes) -> bytes:
    """The same file with a sorted header: safetensors writes metadata in random order, but the
    same model is to be the same bytes."""
    header, end = _header(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers stay aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def _json(path: str | os.PathLike[str], metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: damaged, its {key!r} is not a JSON object")
    return value


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if `replace_file` cannot write to `path`: to be known before long work."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise ValueError(f"{path}: not an ordinary file, so it is not overwritten")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: the folder {target.parent} cannot be written to")


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed in `replace_file` left beside `path`.

    For a file that only one process writes: that of another that is at it goes too.
    """
    target = Path(path).resolve()
    for beside in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}"):
        beside.unlink(missing_ok=True)


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically: all of it is on the disk before it takes the name.

    A symbolic link stays one, the file that it points to is replaced; permissions are kept. Raises
    ValueError as `check_writable`, OSError where writing fails.
    """
    check_writable(path)
    target = Path(path).resolve()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
