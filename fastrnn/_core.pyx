# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
# cython: freethreading_compatible=True
"""The seam: checks arrays, drops the GIL, calls C, turns a status into an exception.

Its parts are in seam/, each included below.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove

import numpy as np

cnp.import_array()

include "seam/api.pxi"

ISAS = ("generic", "avx2", "avx512", "avx512_bf16", "neon")


cdef dict named_cells():
    """All cells of the C side, by name."""
    cdef int k = 0
    cells = {}
    while frnn_cell_name(<frnn_cell>k) != NULL:
        cells[frnn_cell_name(<frnn_cell>k).decode()] = k
        k += 1
    return cells


CELLS = named_cells()


cdef int check(frnn_status status) except -1:
    if status == FRNN_OK:
        return 0
    text = frnn_status_text(status).decode()
    if status == FRNN_TOO_LARGE:
        raise MemoryError(text)
    if status == FRNN_GEMM_FAILED:
        raise RuntimeError(text)
    raise ValueError(text)

include "seam/memory.pxi"
include "seam/arrays.pxi"
include "seam/tensors.pxi"
include "seam/provider.pxi"
include "seam/layer.pxi"
include "seam/call.pxi"
include "seam/training.pxi"
include "seam/ctc.pxi"


# --- Single functions ---------------------------------------------------------------------------

def matmul(cnp.ndarray a not None, cnp.ndarray b not None):
    """a (m, k) times b (k, n) with our own kernels: the same bits on any number of threads.

    Both float32 or both float64; each C-contiguous or the transpose of a C-contiguous array, others
    are copied. Returns a new (m, n) array.
    """
    cdef int64_t m, n, k
    cdef size_t size
    cdef frnn_status status
    if cnp.PyArray_NDIM(a) != 2:
        raise ValueError(f"a: expected (m, k), got {(<object>a).shape}")
    m, k = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1)
    if cnp.PyArray_NDIM(b) != 2 or cnp.PyArray_DIM(b, 0) != k:
        raise ValueError(f"b: expected ({k}, n) to go with a {(<object>a).shape}, got {(<object>b).shape}")
    n = cnp.PyArray_DIM(b, 1)
    if m == 0 or n == 0 or k == 0:
        return np.zeros((m, n), (<object>a).dtype)
    cdef bint transpose_b = not cnp.PyArray_IS_C_CONTIGUOUS(b) and cnp.PyArray_IS_F_CONTIGUOUS(b)
    cdef bint transpose_a = (not transpose_b and not cnp.PyArray_IS_C_CONTIGUOUS(a)
                             and cnp.PyArray_IS_F_CONTIGUOUS(a))
    cdef int type_num = type_of(a)
    cdef frnn_dtype dtype = dtype_of(type_num)
    a = np.ascontiguousarray((<object>a).T if transpose_a else a)
    b = np.ascontiguousarray((<object>b).T if transpose_b else b)
    cdef int64_t *a_shape = [k if transpose_a else m, m if transpose_a else k]
    cdef int64_t *b_shape = [n if transpose_b else k, k if transpose_b else n]
    cdef cnp.npy_intp *c_shape = [m, n]
    cdef Span a_, b_
    span(&a_, a, b"a", type_num, 2, a_shape, CONTIGUOUS)
    span(&b_, b, b"b", type_num, 2, b_shape, CONTIGUOUS)
    c = empty_array(2, c_shape, type_num)
    cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>c)
    cdef int threads = frnn_num_threads()
    check(frnn_matmul_workspace(dtype, m, n, k, threads, &size))
    cdef Memory workspace = allocate(size)
    cdef void *room = workspace.data
    with nogil:
        status = frnn_matmul(dtype, m, n, k, a_.data, m if transpose_a else k, transpose_a,
                             b_.data, k if transpose_b else n, transpose_b, to, n, threads, room)
    check(status)
    return c


cdef map_(frnn_function function, x):
    x = np.ascontiguousarray(x)
    cdef int type_num = type_of(x)
    cdef frnn_dtype dtype = dtype_of(type_num)
    cdef int64_t n = x.size
    cdef Span x_
    span(&x_, x.reshape(-1), b"x", type_num, 1, &n, READ)
    y = np.empty_like(x)
    cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>y)
    cdef frnn_status status
    with nogil:
        status = frnn_map(function, dtype, n, x_.data, to)
    check(status)
    return y


def tanh(x):
    """The kernels' tanh of a float32 or float64 array."""
    return map_(FRNN_TANH, x)


def sigmoid(x):
    """The kernels' logistic function of a float32 or float64 array."""
    return map_(FRNN_SIGMOID, x)


# --- The machine --------------------------------------------------------------------------------

def isa():
    """The instruction set that new packs use."""
    return frnn_isa().decode()


def isas():
    """The instruction sets that this CPU and this build have, best last."""
    return [name for name in ISAS if frnn_has_isa(name.encode())]


def set_isa(str name not None):
    """Choose the instruction set of new packs; those that exist keep theirs."""
    if frnn_set_isa(name.encode()) != FRNN_OK:
        raise ValueError(f"name: expected one of {isas()}, got {name!r}")


def num_threads():
    return frnn_num_threads()


def set_num_threads(int threads):
    check(frnn_set_num_threads(threads))


def set_team(size_t parallel, size_t max_threads, size_t num_threads, size_t thread_num):
    """The addresses of `frnn_team`'s functions; with zeros fastrnn's own threads serve."""
    cdef frnn_team team
    team.parallel = <void (*)(void (*)(void *) noexcept nogil, void *, unsigned, unsigned) noexcept nogil> parallel
    team.max_threads = <int (*)() noexcept nogil> max_threads
    team.num_threads = <int (*)() noexcept nogil> num_threads
    team.thread_num = <int (*)() noexcept nogil> thread_num
    frnn_set_team(&team)


def default_num_threads():
    return frnn_default_num_threads()
