"""An extension that cimports fastrnn._core: it wants fastrnn's header and links with nothing."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastrnn

rows = Extension("fastrnn_rows", ["fastrnn_rows.pyx"], include_dirs=[fastrnn.get_include()])
setup(ext_modules=cythonize([rows]))
