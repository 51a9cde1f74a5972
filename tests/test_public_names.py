"""The public names: they are there and documented, and importing them brings nothing heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import fastrnn as fr


def public(thing: Any) -> dict[str, Any]:
    """The public names of a module or class that are its own."""
    names = getattr(thing, "__all__", None) or [n for n in vars(thing) if not n.startswith("_")]
    return {name: getattr(thing, name) for name in names}


def documented(thing: Any, path: str) -> list[str]:
    """The public functions, classes and methods without a docstring, inherited ones counted."""
    missing = [] if inspect.getdoc(thing) else [path]
    if isinstance(thing, ModuleType | type):
        for name, part in public(thing).items():
            theirs = getattr(part, "__module__", "").startswith("fastrnn")
            if theirs and (inspect.isroutine(part) or isinstance(part, type)):
                missing += documented(part, f"{path}.{name}")
    return missing


def test_all_has_a_docstring() -> None:
    missing = [path for name in fr.__all__ for path in documented(getattr(fr, name), name)]
    assert missing == []


def test_names_are_sorted_and_there() -> None:
    assert len(set(fr.__all__)) == len(fr.__all__)
    for name in fr.__all__:
        assert hasattr(fr, name)


def test_import_brings_nothing_heavy() -> None:
    code = "import sys, fastrnn; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    heavy = {
        "torch",
        "keras",
        "onnx",
        "h5py",
        "sklearn",
        "matplotlib",
        "tqdm",
        "safetensors",
        "csv",
        "html",
    }
    assert not loaded & heavy
