"""The pieces of csrc/kernels that an exported model carries: as C for one value and one dtype,
with the model's names. So a cell's equations stand in its own file alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import fastrnn

_FILES = {"rnn_tanh": "rnn", "rnn_relu": "rnn"}
_FILES |= dict.fromkeys(("lstm_input", "lstm_forget"), "lstm_coupled")
_ACTIVATIONS = ("v_relu", "v_hard_sigmoid", "v_identity", "v_activate", "v_limit", "gate", "state")
_OF_CELL = ("next_c", "output", "forward", "late_in", "forward_late")
_FOR_COMPILERS = "INLINE|NOINLINE|RESTRICT|UNROLL"
_VALUE = re.compile(rf"#define (?!(?:{_FOR_COMPILERS})\b)(\w+) (.+?)(?: *//.*)?")


class Kernels:
    """The kernels' text for a model called `name`, of float, or of double."""

    def __init__(self, name: str, double: bool) -> None:
        self._name, self._real = name, "double" if double else "float"
        self._folder = Path(fastrnn.get_include()) / "kernels"
        self._values: dict[str, str] = {}  # of macros
        parts = re.split(r"^// --- (\w+) ---\n", self._read("scalar"), flags=re.M)
        self._scalar = dict(zip(parts[1::2], parts[2::2], strict=True))

    def begin(self) -> str:
        return self._translate(self._scalar["Begin"])

    def functions(self) -> str:
        """What any layer may call."""
        return "\n".join(
            (
                self._translate(self._scalar["Vectors"]),
                self._translate(self._read("math").partition("\n\n")[2]),
                self._pick("activations", _ACTIVATIONS),
                self._pick("training", ("v_exp_down",)),
                self._pick("rows", ("normal",)),
                self._translate(self._scalar["Steps"]),
            )
        )

    def cell(self, cell: str) -> str:
        """What `forward` of a cell is made of; its functions' names begin with the cell's."""
        return self._pick(f"cell_{_FILES.get(cell, cell)}", _OF_CELL, cell)

    def sizes(self, cell: str) -> dict[str, int]:
        """GATES, SAVED, HAS_C, DIRECT_H, and LATE where the cell has it: see csrc/README.md."""
        text = self._read(f"cell_{_FILES.get(cell, cell)}")
        return {k: int(v) for k, v in re.findall(r"^#define (\w+) (\d+)", text, re.M)}

    def end(self) -> str:
        return self._translate(self._scalar["End"])

    def _read(self, file: str) -> str:
        """A file's text, of each `#if REAL_BITS == 32` the branch for this dtype."""
        text = (self._folder / f"{file}.inc").read_text(encoding="utf-8")
        branch = r"\1" if self._real == "float" else r"\3"
        ours = r"^#if REAL_BITS == 32\n(.*?)(^#else\n(.*?))?^#endif\n"
        return re.sub(ours, branch, text, flags=re.M | re.S)

    def _pick(self, file: str, names: tuple[str, ...], cell: str = "") -> str:
        """Those of the functions `names` that a file has, in its order, with its constants."""
        text = self._read(file)
        constants = "".join(re.findall(r"^#define \w+ [-\d].*\n", text, re.M))
        function = rf"^INLINE \w+ (?:FN|CELL)\((?:{'|'.join(names)})\).*(?:}}\n|{{\n(?s:.*?)^}}\n)"
        return self._translate(constants + "".join(re.findall(function, text, re.M)), cell)

    def _translate(self, text: str, cell: str = "") -> str:
        """In plain C: macros replaced by their values, names the model's own, decimal constants."""
        lines = []
        for line in text.splitlines():
            value = _VALUE.fullmatch(line)
            if value:
                self._values[value[1]] = f"({value[2]})" if value[2][0] == "-" else value[2]
            elif line.startswith("//"):
                lines.append(line)
            elif not line.startswith("#undef"):
                lines.append(re.sub(r"\b[A-Z]\w+\b", lambda m: self._values.get(m[0], m[0]), line))
        text = "\n".join(lines)
        upper = self._name.upper()
        for pattern, by in (
            (r"FN\((\w+)\)", rf"{self._name}_k_\1"),
            (r"CELL\((\w+)\)", rf"{self._name}_k_{cell}_\1"),
            (r"\b(v_\w+\(|tanh_[ab]\b|expm1_terms\b)", rf"{self._name}_k_\1"),
            (rf"\b({_FOR_COMPILERS}|FRNN_\w+)\b", rf"{upper}_\1"),
            (r"\bfrnn_function\b", "int"),
            (r"\b(?:vec|real)\b", self._real),
            (r"0x1(?:\.[0-9a-f]*)?p[+-]\d+", _decimal),
        ):
            text = re.sub(pattern, by, text)
        return text.strip("\n") + "\n"


def _decimal(hexadecimal: re.Match[str]) -> str:
    """The same number: C++ has hexadecimal ones since 2017 only."""
    return repr(float.fromhex(hexadecimal[0]))
