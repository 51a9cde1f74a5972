"""Arrays as PNG files of one byte a pixel, to stand in the page itself."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shades(values: Floats, low: float, high: float) -> NDArray[np.uint8]:
    """`values` as 1 (`low` and below) to 255 (`high` and above), 0 where they are nan."""
    scaled = np.clip((values - low) / (high - low), 0, 1)
    there = ~np.isnan(scaled)
    return np.where(there, 1 + np.rint(254 * np.where(there, scaled, 0)), 0).astype(np.uint8)


def png(pixels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """A PNG of `pixels` (height, width): k is ``colours[k - 1]``, 0 is transparent.

    See https://www.w3.org/TR/png/: an indexed image, its palette, one entry of which is clear.
    """
    height, width = pixels.shape
    rows = np.hstack([np.zeros((height, 1), np.uint8), pixels])  # no row has a filter
    palette = b"\0\0\0" + colours.tobytes()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            (b"PLTE", palette),
            (b"tRNS", b"\0"),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
