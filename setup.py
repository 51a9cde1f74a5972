"""One extension: csrc/ and the seam. And csrc/ itself, for programs in C and Cython."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# No multiply and add may be fused behind our back: the same bits on every machine.
compile_args = [
    "-std=c11", "-O2", "-ffp-contract=off", "-pthread", "-fvisibility=hidden", "-g0",
    "-fno-asynchronous-unwind-tables",
]  # fmt: skip
link_args = ["-pthread", "-lm"]
if sys.platform == "linux":
    link_args += ["-Wl,-s", "-Wl,-z,noseparate-code"]  # without private names, or padding
    # Smaller, and not slower.
    compile_args += ["-fno-align-jumps", "-fno-align-functions", "-fno-tree-pre"]
if sys.platform == "win32":  # clang-cl: Microsoft's compiler has no vectors of this kind
    compile_args = ["/clang:-std=c11", "/clang:-O2", "/clang:-ffp-contract=off"]
    link_args = []

# Compiled for size: what calls the kernels, and the kernels for CPUs that have no better.
SMALL = {*glob("csrc/*.c"), "csrc/kernels/generic.c"}


class BuildExt(build_ext):
    """Compiles on all CPUs, with a level of optimisation for each file."""

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()
            self.compiler.cc = shutil.which("clang-cl")
            if not self.compiler.cc:
                raise SystemExit("fastrnn: expected clang-cl (of LLVM) on the PATH, found none")
        compile_files = self.compiler.compile

        def compile_one(source, extra_postargs, **options):
            if Path(source).as_posix() in SMALL:
                extra_postargs = [arg.replace("-O2", "-Os") for arg in extra_postargs]
            return compile_files([source], extra_postargs=extra_postargs, **options)

        def compile_each(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_one(source, **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_each
        super().build_extension(ext)


class BuildWithSources(build_py):
    """What `fastrnn.get_include` names: an installed package has csrc/ in itself."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # the checkout's own serves
        for path in glob("csrc/*.[ch]") + glob("csrc/kernels/*"):
            target = Path(self.build_lib, "fastrnn", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(path, str(target))


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
    cmdclass={"build_ext": BuildExt, "build_py": BuildWithSources},
    packages=find_packages(include=["fastrnn", "fastrnn.*"]),
    package_data={"fastrnn": ["py.typed", "_core.pxd", "_core.pyi"]},
    include_package_data=False,  # what the sdist has besides is for building
    ext_modules=cythonize([core]),
)
