# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The seam: checks arrays, drops the GIL, calls C, turns a status into an exception."""

cimport cython
from cpython.buffer cimport (PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release,
                             PyObject_GetBuffer)
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

import numpy as np

CELLS = {"rnn_tanh": FRNN_RNN_TANH, "rnn_relu": FRNN_RNN_RELU, "gru": FRNN_GRU, "lstm": FRNN_LSTM}
ISAS = ("generic", "avx2", "avx512", "neon")


cdef int check(frnn_status status) except -1:
    if status == FRNN_OK:
        return 0
    text = frnn_status_text(status).decode()
    if status == FRNN_TOO_LARGE:
        raise MemoryError(text)
    if status == FRNN_GEMM_FAILED:
        raise RuntimeError(text)
    raise ValueError(text)


cdef class Block:
    """What malloc gave."""
    cdef void *start
    cdef size_t size

    def __cinit__(self, size_t size):
        self.size = size
        self.start = malloc(size + 64)
        if self.start == NULL:
            raise MemoryError(f"cannot allocate {size:,} bytes")

    def __dealloc__(self):
        free(self.start)


# The last few large blocks that were given back. A training step's tape comes and goes; the C library
# returns such a block to the system, and fetching its pages again takes as long as the step.
cdef list spare = []
cdef enum:
    SPARE_BLOCKS = 4
    SPARE_FROM = 64 * 1024
    SPARE_TO = 64 * 1024 * 1024


@cython.no_gc
cdef class Memory:
    """Some 64-byte aligned bytes."""
    cdef Block block
    cdef void *data

    def __cinit__(self, size_t size):
        if SPARE_FROM <= size <= SPARE_TO:
            self.block = take_spare(size)
        if self.block is None:
            self.block = Block(size)
        self.data = <void *>((<uintptr_t>self.block.start + 63) // 64 * 64)

    def __dealloc__(self):
        # Appending and slicing are atomic.
        if self.block is not None and SPARE_FROM <= self.block.size <= SPARE_TO:
            spare.append(self.block)
            while len(spare) > SPARE_BLOCKS:
                spare.pop(0)


cdef Block take_spare(size_t size):
    """A spare block of that size or little more, or None."""
    cdef Block block
    for candidate in list(spare):
        block = candidate
        if size <= block.size <= size + size // 4:
            try:
                spare.remove(block)
            except ValueError:
                continue  # another thread was faster
            return block
    return None


cdef class Array:
    """A checked array of float32 or float64 whose last axis is contiguous, held while C works on it.

    What is None has a NULL pointer.
    """
    cdef Py_buffer buffer
    cdef bint held
    cdef void *data
    cdef int64_t item
    cdef char *low
    cdef char *high
    cdef object name

    def __cinit__(self, array, str name, str format, tuple shape, bint writable=False):
        cdef int i
        self.name = name
        if array is None:
            return
        flags = PyBUF_STRIDED_RO | PyBUF_FORMAT
        if writable:
            flags |= PyBUF_WRITABLE
        try:
            PyObject_GetBuffer(array, &self.buffer, flags)
        except (BufferError, ValueError) as error:
            raise ValueError(f"{name}: expected a {'writable ' if writable else ''}array: {error}") from error
        self.held = True
        if self.buffer.format.decode() != format:
            wanted = "float32" if format == "f" else "float64"
            raise TypeError(f"{name}: expected {wanted}, got {getattr(array, 'dtype', type(array))}")
        found = tuple([self.buffer.shape[i] for i in range(self.buffer.ndim)])
        if found != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {found}")
        self.item = self.buffer.itemsize
        self.data = self.buffer.buf
        self.low = self.high = <char *>self.data
        for i in range(self.buffer.ndim):
            if self.buffer.strides[i] % self.item:
                raise ValueError(f"{name}: expected strides in whole elements")
            if self.buffer.strides[i] > 0:
                self.high += self.buffer.strides[i] * (self.buffer.shape[i] - 1)
            else:
                self.low += self.buffer.strides[i] * (self.buffer.shape[i] - 1)
        self.high += self.item
        i = self.buffer.ndim - 1
        if self.buffer.shape[i] > 1 and self.buffer.strides[i] != self.item:
            raise ValueError(f"{name}: expected the last axis to be contiguous")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)

    cdef int contiguous(self) except -1:
        """Refuses rows that do not follow each other."""
        cdef int i
        cdef int64_t wanted = self.item
        if self.data == NULL:
            return 0
        for i in range(self.buffer.ndim - 1, -1, -1):
            if self.buffer.shape[i] > 1 and self.buffer.strides[i] != wanted:
                raise ValueError(f"{self.name}: expected a C-contiguous array")
            wanted *= self.buffer.shape[i]
        return 0

    cdef frnn_view view(self):
        cdef frnn_view view
        view.data = self.data
        view.batch_stride = self.buffer.strides[0] // self.item if self.data != NULL else 0
        view.time_stride = self.buffer.strides[1] // self.item if self.data != NULL else 0
        return view


cdef int apart(tuple written, tuple read) except -1:
    """Refuses a written array that shares memory with any other."""
    cdef Array a, b
    cdef Py_ssize_t i
    for i in range(len(written)):
        a = written[i]
        if a.data == NULL:
            continue
        for b in written[i + 1:] + read:
            if b.data != NULL and a.low < b.high and b.low < a.high:
                raise ValueError(f"{a.name}: expected memory of its own, got some of {b.name}'s")
    return 0


cdef Array state(array, str name, str format, tuple shape, bint writable=False):
    cdef Array found = Array(array, name, format, shape, writable)
    found.contiguous()
    return found


# --- NumPy's BLAS as a provider of products -----------------------------------------------------

cdef object matrix(const void *data, frnn_dtype dtype, int64_t rows, int64_t columns, int64_t ld):
    cdef int64_t room = (rows - 1) * ld + columns
    if dtype == FRNN_F32:
        flat = np.asarray(<float[:room]>(<float *>data))
    else:
        flat = np.asarray(<double[:room]>(<double *>data))
    item = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (ld * item, item))


cdef frnn_status numpy_gemm(void *context, frnn_dtype dtype, int64_t m, int64_t n, int64_t k,
                            const void *a, int64_t lda, int transpose_a, const void *b, int64_t ldb,
                            int transpose_b, void *c, int64_t ldc) noexcept with gil:
    # `context` is a list for what goes wrong, to be raised once C has returned.
    try:
        left = matrix(a, dtype, k, m, lda).T if transpose_a else matrix(a, dtype, m, k, lda)
        right = matrix(b, dtype, n, k, ldb).T if transpose_b else matrix(b, dtype, k, n, ldb)
        with np.errstate(all="ignore"):
            np.matmul(left, right, out=matrix(c, dtype, m, n, ldc))
        return FRNN_OK
    except BaseException as error:
        (<list>context).append(error)
        return FRNN_GEMM_FAILED


# --- A layer in one direction -------------------------------------------------------------------

cdef class Pack:
    """Packed weights of one layer and direction, for forward calls and, on request, backward ones.

    w_ih (G*H, I), w_hh (G*H, H), b_ih and b_hh (G*H) or None; C-contiguous, all of one dtype. They
    are copied: later changes do not show.
    """
    cdef frnn_layer layer
    cdef Memory forward_pack
    cdef Memory backward_pack
    cdef str format
    cdef object w_ih  # a copy, where the provider is NumPy's BLAS
    cdef Array w_ih_array

    def __init__(self, str cell, w_ih, w_hh, b_ih, b_hh, bint backward, bint numpy_gemm):
        cdef size_t size
        cdef int64_t rows
        self.format = "f" if w_ih.dtype == np.float32 else "d"
        self.layer.cell = CELLS[cell]
        self.layer.dtype = FRNN_F32 if self.format == "f" else FRNN_F64
        self.layer.input_size = w_ih.shape[1]
        self.layer.hidden_size = w_hh.shape[1]
        rows = frnn_gates(self.layer.cell) * self.layer.hidden_size
        cdef Array w = state(w_ih, "w_ih", self.format, (rows, self.layer.input_size))
        cdef Array r = state(w_hh, "w_hh", self.format, (rows, self.layer.hidden_size))
        cdef Array b_x = state(b_ih, "b_ih", self.format, (rows,))
        cdef Array b_h = state(b_hh, "b_hh", self.format, (rows,))
        check(frnn_pack_size(&self.layer, FRNN_PACK_FORWARD, &size))
        self.forward_pack = Memory(size)
        cdef void *to = self.forward_pack.data
        cdef frnn_status status
        with nogil:
            status = frnn_pack(&self.layer, FRNN_PACK_FORWARD, w.data, r.data, b_x.data, b_h.data, to,
                               frnn_num_threads())
        check(status)
        if backward:
            check(frnn_pack_size(&self.layer, FRNN_PACK_BACKWARD, &size))
            self.backward_pack = Memory(size)
            to = self.backward_pack.data
            with nogil:
                status = frnn_pack(&self.layer, FRNN_PACK_BACKWARD, w.data, r.data, NULL, NULL, to,
                                   frnn_num_threads())
            check(status)
        self.w_ih_array = Array(None, "w_ih", self.format, ())
        if numpy_gemm:
            self.w_ih = np.array(w_ih)
            self.w_ih_array = state(self.w_ih, "w_ih", self.format, (rows, self.layer.input_size))


cdef class Tape:
    """What BPTT needs of one forward call. It is consumed by `backward`."""
    cdef Pack pack
    cdef Memory memory
    cdef Array x
    cdef const int64_t[::1] lengths
    cdef frnn_batch batch


cdef frnn_batch batch_of(x, const int64_t[::1] lengths, bint reverse) except *:
    cdef frnn_batch batch
    batch.batch = x.shape[0]
    batch.time = x.shape[1]
    batch.lengths = NULL
    batch.reverse = reverse
    if lengths is not None:
        if lengths.shape[0] != batch.batch:
            raise ValueError(f"lengths: expected shape ({batch.batch},), got ({lengths.shape[0]},)")
        batch.lengths = &lengths[0]
    return batch


def forward(Pack pack not None, x, const int64_t[::1] lengths, bint reverse, h0, c0, y, h_n, c_n,
            bint training):
    """Run a layer in one direction over x (B, T, I), any strides but the last.

    lengths (B,) int64 or None; h0, c0 (B, H) or None for zeros; y (B, T, H) or None, h_n, c_n (B, H)
    or None are written. Returns a Tape when training, else None.
    """
    cdef size_t size
    cdef frnn_forward_args args
    cdef frnn_status status
    cdef Tape tape = None
    cdef Memory workspace
    cdef list failure = []
    cdef frnn_provider provider
    provider.gemm = numpy_gemm
    provider.context = <void *>failure
    cdef int64_t B = x.shape[0], T = x.shape[1], H = pack.layer.hidden_size
    cdef str format = pack.format
    cdef Array x_ = Array(x, "x", format, (B, T, pack.layer.input_size))
    cdef Array y_ = Array(y, "y", format, (B, T, H), True)
    cdef Array h0_ = state(h0, "h0", format, (B, H))
    cdef Array c0_ = state(c0, "c0", format, (B, H))
    cdef Array h_n_ = state(h_n, "h_n", format, (B, H), True)
    cdef Array c_n_ = state(c_n, "c_n", format, (B, H), True)
    apart((y_, h_n_, c_n_), (x_, h0_, c0_))
    args.pack = pack.forward_pack.data
    args.batch = batch_of(x, lengths, reverse)
    args.x = x_.view()
    args.h0 = h0_.data
    args.c0 = c0_.data
    args.y = y_.view()
    args.h_n = h_n_.data
    args.c_n = c_n_.data
    args.tape = NULL
    args.w_ih = pack.w_ih_array.data
    args.provider = &provider if args.w_ih != NULL else NULL
    args.threads = frnn_num_threads()
    if training:
        tape = Tape.__new__(Tape)
        check(frnn_tape_size(&pack.layer, &args.batch, &size))
        tape.memory = Memory(size)
        tape.pack = pack
        tape.x = x_
        tape.lengths = lengths
        tape.batch = args.batch
        args.tape = tape.memory.data
    check(frnn_forward_workspace(&args, &size))
    workspace = Memory(size)
    cdef void *room = workspace.data
    with nogil:
        status = frnn_forward(&args, room)
    if failure:
        raise failure[0]
    check(status)
    return tape


def backward(Tape tape not None, dy, dh_n, dc_n, dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh):
    """BPTT of the forward call that made the tape, which is consumed.

    dy (B, T, H), dh_n, dc_n (B, H) are read, None for zeros; the others are written, None where not
    wanted: dx (B, T, I), dh0, dc0 (B, H), dw_ih (G*H, I), dw_hh (G*H, H), db_ih, db_hh (G*H).
    """
    cdef size_t size
    cdef frnn_backward_args args
    cdef frnn_status status
    cdef Memory workspace
    cdef list failure = []
    cdef frnn_provider provider
    provider.gemm = numpy_gemm
    provider.context = <void *>failure
    cdef Pack pack = tape.pack
    cdef Memory memory
    if pack.backward_pack is None:
        raise ValueError("the tape's pack was made without backward=True")
    cdef str format = pack.format
    cdef int64_t B = tape.batch.batch, T = tape.batch.time
    cdef int64_t H = pack.layer.hidden_size, I = pack.layer.input_size
    cdef int64_t rows = frnn_gates(pack.layer.cell) * H
    cdef Array dy_ = Array(dy, "dy", format, (B, T, H))
    cdef Array dh_n_ = state(dh_n, "dh_n", format, (B, H))
    cdef Array dc_n_ = state(dc_n, "dc_n", format, (B, H))
    cdef Array dx_ = Array(dx, "dx", format, (B, T, I), True)
    cdef Array dh0_ = state(dh0, "dh0", format, (B, H), True)
    cdef Array dc0_ = state(dc0, "dc0", format, (B, H), True)
    cdef Array dw_ih_ = state(dw_ih, "dw_ih", format, (rows, I), True)
    cdef Array dw_hh_ = state(dw_hh, "dw_hh", format, (rows, H), True)
    cdef Array db_ih_ = state(db_ih, "db_ih", format, (rows,), True)
    cdef Array db_hh_ = state(db_hh, "db_hh", format, (rows,), True)
    apart((dx_, dh0_, dc0_, dw_ih_, dw_hh_, db_ih_, db_hh_), (tape.x, dy_, dh_n_, dc_n_))
    with cython.critical_section(tape):
        memory = tape.memory
        tape.memory = None
    if memory is None:
        raise RuntimeError("the tape has been consumed by an earlier backward call")
    args.pack = pack.backward_pack.data
    args.batch = tape.batch
    args.x = tape.x.view()
    args.tape = memory.data
    args.dy = dy_.view()
    args.dh_n = dh_n_.data
    args.dc_n = dc_n_.data
    args.dx = dx_.view()
    args.dh0 = dh0_.data
    args.dc0 = dc0_.data
    args.dw_ih = dw_ih_.data
    args.dw_hh = dw_hh_.data
    args.db_ih = db_ih_.data
    args.db_hh = db_hh_.data
    args.w_ih = pack.w_ih_array.data
    args.provider = &provider if args.w_ih != NULL else NULL
    args.threads = frnn_num_threads()
    check(frnn_backward_workspace(&args, &size))
    workspace = Memory(size)
    cdef void *room = workspace.data
    with nogil:
        status = frnn_backward(&args, room)
    if failure:
        raise failure[0]
    check(status)


# --- Single functions ---------------------------------------------------------------------------

def matmul(a, b):
    """a (m, k) times b (k, n) with our own kernels: the same bits on any number of threads.

    Both float32 or both float64; each C-contiguous or the transpose of a C-contiguous array, others
    are copied. Returns a new (m, n) array.
    """
    cdef int64_t m, n, k
    cdef size_t size
    cdef frnn_status status
    if a.ndim != 2:
        raise ValueError(f"a: expected (m, k), got {a.shape}")
    if b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"b: expected ({a.shape[1]}, n) to go with a {a.shape}, got {b.shape}")
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    if m == 0 or n == 0 or k == 0:
        return np.zeros((m, n), a.dtype)
    cdef bint transpose_b = not b.flags.c_contiguous and b.T.flags.c_contiguous
    cdef bint transpose_a = not transpose_b and not a.flags.c_contiguous and a.T.flags.c_contiguous
    cdef str format = "f" if a.dtype == np.float32 else "d"
    cdef frnn_dtype dtype = FRNN_F32 if format == "f" else FRNN_F64
    a = np.ascontiguousarray(a.T if transpose_a else a)
    b = np.ascontiguousarray(b.T if transpose_b else b)
    c = np.empty((m, n), a.dtype)
    cdef Array a_ = Array(a, "a", format, (k, m) if transpose_a else (m, k))
    cdef Array b_ = Array(b, "b", format, (n, k) if transpose_b else (k, n))
    cdef Array c_ = Array(c, "c", format, (m, n), True)
    cdef int threads = frnn_num_threads()
    check(frnn_matmul_workspace(dtype, m, n, k, threads, &size))
    cdef Memory workspace = Memory(size)
    cdef void *room = workspace.data
    with nogil:
        status = frnn_matmul(dtype, m, n, k, a_.data, m if transpose_a else k, transpose_a,
                             b_.data, k if transpose_b else n, transpose_b, c_.data, n, threads, room)
    check(status)
    return c


cdef map_(frnn_function function, x):
    x = np.ascontiguousarray(x)
    cdef str format = "f" if x.dtype == np.float32 else "d"
    cdef Array x_ = Array(x.ravel(), "x", format, (x.size,))
    y = np.empty_like(x)
    cdef Array y_ = Array(y.reshape(-1), "y", format, (x.size,), True)
    cdef int64_t n = x.size
    cdef frnn_status status
    with nogil:
        status = frnn_map(function, FRNN_F32 if x_.item == 4 else FRNN_F64, n, x_.data, y_.data)
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


def default_num_threads():
    return frnn_default_num_threads()
