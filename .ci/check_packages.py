"""The sdist and the wheel hold what they should, and nothing else."""

import sys
import tarfile
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
with tarfile.open(sdist) as archive:
    source = [name.split("/", 1)[-1] for name in archive.getnames()]
with zipfile.ZipFile(wheel) as archive:
    built = {info.filename: info.file_size for info in archive.infolist()}

for name in (
    "csrc/fastrnn.h",
    "csrc/kernels/vec.inc",
    "fastrnn/_core.pyx",
    "fastrnn/seam/layer.pxi",
):
    assert name in source, f"the sdist lacks {name}"
headers = [n for n in source if n.startswith("csrc/") and n.endswith((".c", ".h", ".inc"))]
for name in ("fastrnn/_core.pxd", *(f"fastrnn/{header}" for header in headers)):
    assert name in built, f"the wheel lacks {name}"
shipped = [n for n in built if n.startswith("fastrnn/csrc/")]
assert len(shipped) == len(headers), f"not to be installed: {set(shipped) - set(headers)}"
for names in (source, built):
    folders = ("tests/", "bench/", "build/")
    wrong = [n for n in names if n.endswith((".o", ".a")) or n.startswith(folders)]
    assert not wrong, f"not to be shipped: {wrong}"
assert any(n.endswith("py.typed") for n in built)
assert any("_core" in n and ".so" in n for n in built)
size = sum(built.values())
assert size < 3e6, f"installed size: {size:,} bytes"
print(f"sdist {sdist.stat().st_size:,} bytes; wheel {wheel.stat().st_size:,}, installed {size:,}")
