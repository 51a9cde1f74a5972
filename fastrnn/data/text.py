"""Text files."""

from __future__ import annotations

import os


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file; a byte order mark is dropped, line ends become ``\\n``.

    Raises OSError where the file cannot be read, ValueError where it is empty or not UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ValueError(f"{path}: not UTF-8 text (byte 0x{byte:02x} at {error.start})") from None
    if not text:
        raise ValueError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")
