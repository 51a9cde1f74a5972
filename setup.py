"""One extension: csrc/ and the seam."""

import sys
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

# No multiply and add may be fused behind our back: the same bits on every machine.
compile_args = [] if sys.platform == "win32" else [
    "-std=c11", "-O2", "-ffp-contract=off", "-pthread", "-fvisibility=hidden", "-g0",
    "-fno-asynchronous-unwind-tables",
]  # fmt: skip

core = Extension(
    "fastrnn._core",
    sources=["fastrnn/_core.pyx", *sorted(glob("csrc/*.c")), *sorted(glob("csrc/kernels/*.c"))],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    depends=[
        *sorted(glob("csrc/*.h")),
        *sorted(glob("csrc/kernels/*.inc")),
        *sorted(glob("fastrnn/seam/*.pxi")),
        "fastrnn/_core.pxd",
    ],
    extra_compile_args=compile_args,
    extra_link_args=[] if sys.platform == "win32" else ["-pthread", "-lm"],
)

setup(
    packages=["fastrnn"]
    + [
        f"fastrnn.{name}"
        for name in ("data", "diagnostics", "layers", "losses", "reference", "report")
    ],
    package_data={"fastrnn": ["py.typed", "_core.pxd"]},
    ext_modules=cythonize([core]),
)
