"""One extension: csrc/ and the seam."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# No multiply and add may be fused behind our back: the same bits on every machine.
compile_args = [] if sys.platform == "win32" else [
    "-std=c11", "-O2", "-ffp-contract=off", "-pthread", "-fvisibility=hidden", "-g0",
    "-fno-asynchronous-unwind-tables",
]  # fmt: skip

link_args = [] if sys.platform == "win32" else ["-pthread", "-lm"]
if sys.platform == "linux":
    link_args.append("-Wl,-s")  # without the names of what is not exported

# Compiled for size: few CPUs have no better kernels.
SMALL = ("generic.c",)


class BuildExt(build_ext):
    """Compiles on all CPUs, with a level of optimisation for each file."""

    def build_extension(self, ext):
        compile_files = self.compiler.compile

        def compile_one(source, extra_postargs, **options):
            if source.endswith(SMALL):
                extra_postargs = ["-Os" if arg == "-O2" else arg for arg in extra_postargs]
            return compile_files([source], extra_postargs=extra_postargs, **options)

        def compile_each(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_one(source, **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each
        super().build_extension(ext)


core = Extension(
    "fastrnn._core",
    sources=["fastrnn/_core.pyx", *sorted(glob("csrc/kernels/*.c")), *sorted(glob("csrc/*.c"))],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    depends=[
        *sorted(glob("csrc/*.h")),
        *sorted(glob("csrc/kernels/*.inc")),
        *sorted(glob("fastrnn/seam/*.pxi")),
        "fastrnn/_core.pxd",
    ],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)

setup(
    packages=find_packages(include=["fastrnn", "fastrnn.*"]),
    package_data={"fastrnn": ["py.typed", "_core.pxd"]},
    ext_modules=cythonize([core]),
    cmdclass={"build_ext": BuildExt},
)
