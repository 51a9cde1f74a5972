# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The seam: checks arrays, drops the GIL, calls C, turns a status into an exception."""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

import numpy as np

cnp.import_array()

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


# --- Memory -------------------------------------------------------------------------------------

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    // Pages of 2 MB where the system has them: rows of a tape are so far apart that each is on a page of its own.
    static void want_huge_pages(void *start, size_t size) {
        const size_t huge = (size_t)2 << 20, from = ((size_t)start + huge - 1) / huge * huge;
        const size_t to = ((size_t)start + size) / huge * huge;
        if (from < to) (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
    #else
    static void want_huge_pages(void *start, size_t size) { (void)start, (void)size; }
    #endif
    """
    void want_huge_pages(void *start, size_t size) nogil


cdef class Block:
    """What malloc gave."""
    cdef void *start
    cdef size_t size

    def __cinit__(self, size_t size):
        self.size = size
        self.start = malloc(size + 64)
        if self.start == NULL:
            raise MemoryError(f"cannot allocate {size:,} bytes")
        want_huge_pages(self.start, size + 64)

    def __dealloc__(self):
        free(self.start)


# The last large blocks that were given back. A training step's tape, outputs and gradients come and go; the
# C library returns such blocks to the system, and fetching their pages again takes as long as the step.
cdef list spare = []
cdef size_t spare_bytes = 0
cdef enum:
    SPARE_FROM = 64 * 1024
    SPARE_TO = 256 * 1024 * 1024
    SPARE_ALL = 256 * 1024 * 1024


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
        if self.block is not None and SPARE_FROM <= self.block.size <= SPARE_TO:
            give_spare(self.block)


cdef Block take_spare(size_t size):
    """A spare block of that size or little more, or None."""
    global spare_bytes
    cdef Block block
    cdef Py_ssize_t i
    with cython.critical_section(spare):
        for i in range(len(spare) - 1, -1, -1):
            block = spare[i]
            if size <= block.size <= size + size // 4:
                del spare[i]
                spare_bytes -= block.size
                return block
    return None


cdef int give_spare(Block block) except -1:
    global spare_bytes
    with cython.critical_section(spare):
        spare.append(block)
        spare_bytes += block.size
        while spare_bytes > SPARE_ALL:
            block = spare.pop(0)
            spare_bytes -= block.size
    return 0


cdef object empty_array(int ndim, cnp.npy_intp *shape, int type_num):
    """A new C-contiguous array, of recycled memory where it is large."""
    cdef size_t size = 4 if type_num == cnp.NPY_FLOAT32 else 8
    cdef int i
    for i in range(ndim):
        size *= <size_t>shape[i]
    if not SPARE_FROM <= size <= SPARE_TO:
        return cnp.PyArray_EMPTY(ndim, shape, type_num, 0)
    cdef Memory memory = Memory(size)
    array = cnp.PyArray_SimpleNewFromData(ndim, shape, type_num, memory.data)
    cnp.set_array_base(array, memory)
    return array


def empty(tuple shape not None, bint double):
    """A new float32 or float64 array, not filled; up to four axes."""
    cdef cnp.npy_intp sizes[4]
    cdef int i
    if len(shape) > 4:
        raise ValueError(f"shape: expected at most four axes, got {shape}")
    for i in range(len(shape)):
        sizes[i] = shape[i]
    return empty_array(<int>len(shape), sizes, cnp.NPY_FLOAT64 if double else cnp.NPY_FLOAT32)


def empty_like(cnp.ndarray array not None):
    """A new C-contiguous array of the same shape and dtype, float32 or float64; not filled."""
    return empty_array(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array))


# --- Arrays -------------------------------------------------------------------------------------

cdef struct Span:
    # A checked array as C sees it, `data` NULL for None; strides count elements.
    char *data
    int64_t stride[3]
    char *low
    char *high
    const char *name


cdef enum:
    ANY = -1
    READ = 0
    WRITTEN = 1
    CONTIGUOUS = 2


cdef int refuse(object array, const char *c_name, int type_num, int ndim, const int64_t *shape) except -1:
    """Says what is wrong with an array that is not as wanted."""
    name = c_name.decode()
    wanted = "float32" if type_num == cnp.NPY_FLOAT32 else "float64"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array of {wanted}, got {type(array).__name__}")
    if array.dtype != wanted:
        raise TypeError(f"{name}: expected {wanted}, got {array.dtype}; "
                        f"convert with {name}.astype({wanted!r})")
    expected = tuple([shape[i] for i in range(ndim)])
    raise ValueError(f"{name}: expected {expected}, got {array.shape}")


cdef int span(Span *to, object array, const char *name, int type_num, int ndim, const int64_t *shape,
              int flags) except -1:
    """Checks an array (None passes) and says where it is."""
    cdef cnp.ndarray a
    cdef int i
    cdef int64_t item, stride, extent, packed
    to.name = name
    to.data = NULL
    if array is None:
        to.stride[0] = to.stride[1] = to.stride[2] = 0
        return 0
    if not cnp.PyArray_Check(array):
        refuse(array, name, type_num, ndim, shape)
    a = <cnp.ndarray>array
    if cnp.PyArray_TYPE(a) != type_num or cnp.PyArray_NDIM(a) != ndim:
        refuse(array, name, type_num, ndim, shape)
    for i in range(ndim):
        if cnp.PyArray_DIM(a, i) != shape[i]:
            refuse(array, name, type_num, ndim, shape)
    if not cnp.PyArray_ISNOTSWAPPED(a) or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(f"{name.decode()}: expected aligned values in native byte order")
    if flags & WRITTEN and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name.decode()}: expected a writable array")
    to.data = to.low = to.high = <char *>cnp.PyArray_DATA(a)
    item = packed = cnp.PyArray_ITEMSIZE(a)
    for i in range(ndim - 1, -1, -1):
        stride = cnp.PyArray_STRIDE(a, i)
        to.stride[i] = stride // item
        if shape[i] > 1:
            if stride != packed and (flags & CONTIGUOUS or i == ndim - 1):
                what = "a C-contiguous array" if flags & CONTIGUOUS else "the last axis to be contiguous"
                raise ValueError(f"{name.decode()}: expected {what}")
            if stride % item:
                raise ValueError(f"{name.decode()}: expected strides in whole elements")
            extent = stride * (shape[i] - 1)
            if extent > 0:
                to.high += extent
            else:
                to.low += extent
        packed *= shape[i]
    to.high += item
    return 0


cdef int apart(const Span *written, int count, const Span *read, int others) except -1:
    """Refuses a written array that shares memory with any other."""
    cdef int i, j
    cdef const Span *b
    for i in range(count):
        if written[i].data == NULL:
            continue
        for j in range(i + 1, count + others):
            b = &written[j] if j < count else &read[j - count]
            if b.data != NULL and written[i].low < b.high and b.low < written[i].high:
                raise ValueError(f"{written[i].name.decode()}: expected memory of its own, got some of "
                                 f"{b.name.decode()}'s")
    return 0


def walkable(array, int ndim, int64_t features, bint double):
    """Whether the kernels can walk this: a float32 or float64 array of sequences, none of its axes empty,
    the last with `features` values side by side, aligned.
    """
    cdef int i, last = ndim - 1, type_num = cnp.NPY_FLOAT64 if double else cnp.NPY_FLOAT32
    if not cnp.PyArray_Check(array):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>array
    if cnp.PyArray_TYPE(a) != type_num or cnp.PyArray_NDIM(a) != ndim:
        return False
    cdef int64_t item = cnp.PyArray_ITEMSIZE(a)
    if not (cnp.PyArray_ISALIGNED(a) and cnp.PyArray_ISNOTSWAPPED(a)) or cnp.PyArray_DIM(a, last) != features:
        return False
    if features > 1 and cnp.PyArray_STRIDE(a, last) != item:
        return False
    for i in range(last):
        if cnp.PyArray_DIM(a, i) < 1 or cnp.PyArray_STRIDE(a, i) % item:
            return False
    return True


def matches(array, tuple shape not None, bint double):
    """Whether this is an aligned C-contiguous array of that shape and dtype, float32 or float64."""
    cdef int i, type_num = cnp.NPY_FLOAT64 if double else cnp.NPY_FLOAT32
    if not cnp.PyArray_Check(array):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>array
    if cnp.PyArray_TYPE(a) != type_num or cnp.PyArray_NDIM(a) != len(shape):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) != <int64_t>shape[i]:
            return False
    return cnp.PyArray_ISCARRAY_RO(a)


cdef frnn_view view_of(const Span *array, int64_t item, int64_t offset, bint batch_first):
    """A (batch, time, features) or (time, batch, features) array from a feature on."""
    cdef frnn_view view
    view.data = NULL if array.data == NULL else array.data + offset * item
    view.batch_stride = array.stride[0 if batch_first else 1]
    view.time_stride = array.stride[1 if batch_first else 0]
    return view


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


# --- A layer ------------------------------------------------------------------------------------

cdef enum:
    DIRECTIONS = 2
    STACK_BYTES = 16 * 1024 # of workspace, for calls that should not allocate


cdef class Pack:
    """Packed weights of one layer and direction, for forward calls and, on request, backward ones.

    w_ih (G*H, I), w_hh (G*H, H), b_ih and b_hh (G*H) or None; C-contiguous, all of one dtype. They
    are copied: later changes do not show. Or w_ih and w_hh are `borrowed`, which suits calls of few steps:
    then they must not change while the pack lives. `gemm` is anything that stands for who does the products
    over all steps, NumPy's BLAS if `numpy_gemm`; `serves` compares it.
    """
    cdef frnn_layer layer
    cdef Memory forward_pack
    cdef Memory backward_pack
    cdef int type_num
    cdef int64_t item
    cdef object w_ih, w_hh  # where they are borrowed, or w_ih is for NumPy's BLAS
    cdef const void *w_ih_data
    cdef object gemm
    cdef const char *isa

    def __init__(self, str cell, w_ih, w_hh, b_ih, b_hh, bint backward, bint numpy_gemm, gemm=None,
                 bint borrowed=False):
        cdef Span weights[4]
        self.gemm = gemm
        self.isa = frnn_isa()
        self.layer.cell = CELLS[cell]
        self.layer.dtype = FRNN_F32 if w_ih.dtype == np.float32 else FRNN_F64
        self.type_num = cnp.NPY_FLOAT32 if self.layer.dtype == FRNN_F32 else cnp.NPY_FLOAT64
        self.item = <int64_t>frnn_itemsize(self.layer.dtype)
        self.layer.input_size = w_ih.shape[1]
        self.layer.hidden_size = w_hh.shape[1]
        cdef int64_t rows = frnn_gates(self.layer.cell) * self.layer.hidden_size
        cdef int64_t *w_shape = [rows, self.layer.input_size]
        cdef int64_t *r_shape = [rows, self.layer.hidden_size]
        span(&weights[0], w_ih, b"w_ih", self.type_num, 2, w_shape, CONTIGUOUS)
        span(&weights[1], w_hh, b"w_hh", self.type_num, 2, r_shape, CONTIGUOUS)
        span(&weights[2], b_ih, b"b_ih", self.type_num, 1, &rows, CONTIGUOUS)
        span(&weights[3], b_hh, b"b_hh", self.type_num, 1, &rows, CONTIGUOUS)
        self.forward_pack = self.packed(FRNN_PACK_BORROWED if borrowed else FRNN_PACK_FORWARD, weights)
        if borrowed:
            self.backward_pack = self.forward_pack
            self.w_ih, self.w_hh = w_ih, w_hh
        elif backward:
            self.backward_pack = self.packed(FRNN_PACK_BACKWARD, weights)
        self.w_ih_data = NULL
        if numpy_gemm:
            self.w_ih = w_ih if borrowed else np.array(w_ih, order="C")
            self.w_ih_data = cnp.PyArray_DATA(<cnp.ndarray>self.w_ih)

    cdef Memory packed(self, frnn_pack_kind kind, const Span *weights):
        cdef size_t size
        cdef frnn_status status
        cdef int threads = frnn_num_threads()
        check(frnn_pack_size(&self.layer, kind, &size))
        cdef Memory memory = Memory(size)
        cdef void *to = memory.data
        with nogil:
            status = frnn_pack(&self.layer, kind, weights[0].data, weights[1].data, weights[2].data,
                               weights[3].data, to, threads)
        check(status)
        return memory

    def serves(self, bint backward, gemm):
        """Whether it fits the instruction set in use, `gemm`, and a call of this kind."""
        return self.isa == frnn_isa() and self.gemm is gemm and (not backward or self.backward_pack is not None)


cdef class Tape:
    """What BPTT needs of one layer's forward call. It is consumed by `backward`."""
    cdef tuple packs
    cdef list memories
    cdef object x
    cdef object lengths
    cdef bint batch_first
    cdef Span x_span
    cdef frnn_batch batch
    cdef bint reverse

    def sequence_shape(self):
        """The axes of x but the last."""
        return self.x.shape[:self.x.ndim - 1]


cdef int batch_of(frnn_batch *batch, object x, object lengths, bint batch_first) except -1:
    """The batch of x (batch, time, features), time missing for a single step."""
    if not cnp.PyArray_Check(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) not in (2, 3):
        raise TypeError(f"x: expected an array with two or three axes, got {type(x).__name__}")
    cdef int step = cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
    cdef int first = 0 if batch_first or step else 1
    batch.batch = cnp.PyArray_DIM(<cnp.ndarray>x, first)
    batch.time = 1 if step else cnp.PyArray_DIM(<cnp.ndarray>x, 1 - first)
    batch.lengths = NULL
    if lengths is not None:
        if lengths.dtype != np.int64 or not lengths.flags.c_contiguous or lengths.shape != (batch.batch,):
            raise ValueError(f"lengths: expected int64 of shape ({batch.batch},), got {lengths.dtype} {lengths.shape}")
        batch.lengths = <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>lengths)
    return 0


cdef int sequence_span(Span *to, object array, const char *name, int type_num, const frnn_batch *batch, bint step,
                       bint batch_first, int64_t features, int flags) except -1:
    """Checks (batch, time, features), (time, batch, features) or a step's (batch, features)."""
    cdef int64_t shape[3]
    if step:
        shape[0] = batch.batch
        shape[1] = features
        span(to, array, name, type_num, 2, shape, flags)
        if not batch_first:
            to.stride[1] = to.stride[0]
        return 0
    shape[0] = batch.batch if batch_first else batch.time
    shape[1] = batch.time if batch_first else batch.batch
    shape[2] = features
    return span(to, array, name, type_num, 3, shape, flags)


cdef int state_span(Span *to, object array, const char *name, Pack pack, const frnn_batch *batch,
                    int64_t first, int count, int64_t layers, int flags) except -1:
    """Checks (layers, B, H); the span has `count` layers of it, from `first` on."""
    cdef int64_t *shape = [layers, batch.batch, pack.layer.hidden_size]
    cdef int64_t bytes = batch.batch * pack.layer.hidden_size * pack.item
    span(to, array, name, pack.type_num, 3, shape, flags | CONTIGUOUS)
    if to.data != NULL:
        to.data = to.low = to.data + first * bytes
        to.high = to.low + count * bytes
    return 0


cdef inline char *at(const Span *array, int64_t bytes):
    return NULL if array.data == NULL else array.data + bytes


cdef Memory place(void **workspaces, const size_t *sizes, int calls, char *stack):
    """Workspaces of these sizes, multiples of 64, one after the other: on the stack, STACK_BYTES, where they
    fit, else in what is returned, to be held meanwhile.
    """
    cdef size_t total = 0
    cdef int d
    cdef Memory memory = None
    cdef char *room = <char *>((<uintptr_t>stack + 63) // 64 * 64)
    for d in range(calls):
        total += sizes[d]
    if total + 64 > STACK_BYTES:
        memory = Memory(total)
        room = <char *>memory.data
    for d in range(calls):
        workspaces[d] = room
        room += sizes[d]
    return memory


def forward(tuple packs not None, int64_t first, int64_t layers, x, lengths, bint reverse, bint batch_first,
            h_0, c_0, y, h_n, c_n, bint training):
    """Run one layer over x in one or two directions at once, one pack each; the second is the other way.

    x is (B, T, I), (T, B, I) unless `batch_first`, or for one time step (B, I); any strides but the
    last. lengths: (B,) int64 or None. y, laid out as x with D*H features, or None, is written. h_0, c_0
    (layers, B, H) or None for zeros; h_n, c_n, likewise or None, are written, and may be h_0 and c_0;
    this layer's states begin at index `first`. Returns a Tape when training, else None.
    """
    cdef size_t size
    cdef frnn_forward_args args[DIRECTIONS]
    cdef void *workspaces[DIRECTIONS]
    cdef size_t sizes[DIRECTIONS]
    cdef char stack[STACK_BYTES]
    cdef frnn_status status
    cdef Tape tape = None
    cdef Memory memory
    cdef Pack pack = packs[0] if packs else None
    cdef int d, calls = <int>len(packs)
    cdef list failure = None
    cdef frnn_provider provider
    cdef frnn_batch batch
    cdef Span written[3]
    cdef Span read[3]
    cdef int64_t I, H
    cdef bint step

    if not 1 <= calls <= DIRECTIONS:
        raise ValueError(f"packs: expected 1 or {DIRECTIONS}, got {calls}")
    if not 0 <= first <= layers - calls:
        raise ValueError(f"first: expected 0 to {layers - calls}, got {first}")
    I = pack.layer.input_size
    H = pack.layer.hidden_size
    batch_of(&batch, x, lengths, batch_first)
    step = cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
    sequence_span(&read[0], x, b"x", pack.type_num, &batch, step, batch_first, I, READ)
    sequence_span(&written[0], y, b"y", pack.type_num, &batch, step, batch_first, calls * H, WRITTEN)
    state_span(&read[1], h_0, b"h_0", pack, &batch, first, calls, layers, READ)
    state_span(&read[2], c_0, b"c_0", pack, &batch, first, calls, layers, READ)
    state_span(&written[1], h_n, b"h_n", pack, &batch, first, calls, layers, WRITTEN)
    state_span(&written[2], c_n, b"c_n", pack, &batch, first, calls, layers, WRITTEN)
    # A state may be updated in place.
    if read[1].data == written[1].data:
        read[1].high = read[1].low
    if read[2].data == written[2].data:
        read[2].high = read[2].low
    apart(written, 3, read, 3)
    if pack.w_ih_data != NULL:
        failure = []
        provider.gemm = numpy_gemm
        provider.context = <void *>failure
    if training:
        tape = Tape.__new__(Tape)
        tape.packs = packs
        tape.memories = []
        tape.x = x
        tape.lengths = lengths
        tape.batch_first = batch_first
        tape.reverse = reverse
        tape.batch = batch
        tape.x_span = read[0]
    for d in range(calls):
        pack = packs[d]
        args[d].pack = pack.forward_pack.data
        args[d].batch = batch
        args[d].batch.reverse = reverse ^ (d == 1)
        args[d].x = view_of(&read[0], pack.item, 0, batch_first)
        args[d].y = view_of(&written[0], pack.item, d * H, batch_first)
        size = d * batch.batch * H * pack.item
        args[d].h0 = at(&read[1], size)
        args[d].c0 = at(&read[2], size)
        args[d].h_n = at(&written[1], size)
        args[d].c_n = at(&written[2], size)
        args[d].tape = NULL
        args[d].w_ih = pack.w_ih_data
        args[d].provider = NULL if failure is None else &provider
        args[d].threads = frnn_num_threads()
        if training:
            check(frnn_tape_size(&pack.layer, &batch, &size))
            memory = Memory(size)
            tape.memories.append(memory)
            args[d].tape = memory.data
        check(frnn_forward_workspace(&args[d], &sizes[d]))
    cdef Memory room = place(workspaces, sizes, calls, stack)
    with nogil:
        status = frnn_forward_each(args, workspaces, calls)
    if failure:
        raise failure[0]
    check(status)
    return tape


def backward(Tape tape not None, int64_t first, int64_t layers, dy, dh_n, dc_n, tuple dx not None, dh_0, dc_0,
             tuple gradients not None):
    """BPTT of the forward call that made the tape, which is consumed.

    dy (B, T, D*H), dh_n, dc_n (layers, B, H) are read, None for zeros; the others are written, None
    where not wanted: dx for each direction (B, T, I), dh_0, dc_0 (layers, B, H), and for each direction
    dw_ih (G*H, I), dw_hh (G*H, H), db_ih, db_hh (G*H). Sequences are laid out as x was.
    """
    cdef size_t size
    cdef frnn_backward_args args[DIRECTIONS]
    cdef void *workspaces[DIRECTIONS]
    cdef size_t sizes[DIRECTIONS]
    cdef char stack[STACK_BYTES]
    cdef frnn_status status
    cdef list failure = None, memories
    cdef Memory memory
    cdef frnn_provider provider
    cdef Pack pack = tape.packs[0]
    cdef int d, calls = <int>len(tape.packs)
    cdef Span written[2 + 5 * DIRECTIONS]
    cdef Span *mine
    cdef Span read[4]
    if pack.backward_pack is None:
        raise ValueError("the tape's pack was made without backward=True")
    if not 0 <= first <= layers - calls:
        raise ValueError(f"first: expected 0 to {layers - calls}, got {first}")
    if len(dx) != calls or len(gradients) != calls:
        raise ValueError(f"dx, gradients: expected {calls} of each, got {len(dx)} and {len(gradients)}")
    cdef int64_t H = pack.layer.hidden_size, I = pack.layer.input_size
    cdef int64_t rows = frnn_gates(pack.layer.cell) * H
    cdef int64_t *w_shape = [rows, I]
    cdef int64_t *r_shape = [rows, H]
    cdef bint step = tape.x.ndim == 2
    read[0] = tape.x_span
    sequence_span(&read[1], dy, b"dy", pack.type_num, &tape.batch, step, tape.batch_first, calls * H, READ)
    state_span(&read[2], dh_n, b"dh_n", pack, &tape.batch, first, calls, layers, READ)
    state_span(&read[3], dc_n, b"dc_n", pack, &tape.batch, first, calls, layers, READ)
    state_span(&written[0], dh_0, b"dh_0", pack, &tape.batch, first, calls, layers, WRITTEN)
    state_span(&written[1], dc_0, b"dc_0", pack, &tape.batch, first, calls, layers, WRITTEN)
    for d in range(calls):
        mine = &written[2 + 5 * d]
        dw_ih, dw_hh, db_ih, db_hh = gradients[d]
        sequence_span(&mine[0], dx[d], b"dx", pack.type_num, &tape.batch, step, tape.batch_first, I, WRITTEN)
        span(&mine[1], dw_ih, b"dw_ih", pack.type_num, 2, w_shape, WRITTEN | CONTIGUOUS)
        span(&mine[2], dw_hh, b"dw_hh", pack.type_num, 2, r_shape, WRITTEN | CONTIGUOUS)
        span(&mine[3], db_ih, b"db_ih", pack.type_num, 1, &rows, WRITTEN | CONTIGUOUS)
        span(&mine[4], db_hh, b"db_hh", pack.type_num, 1, &rows, WRITTEN | CONTIGUOUS)
    apart(written, 2 + 5 * calls, read, 4)
    with cython.critical_section(tape):
        memories = tape.memories
        tape.memories = None
    if memories is None:
        raise RuntimeError("the tape has been consumed by an earlier backward call")
    if pack.w_ih_data != NULL:
        failure = []
        provider.gemm = numpy_gemm
        provider.context = <void *>failure
    for d in range(calls):
        pack = tape.packs[d]
        mine = &written[2 + 5 * d]
        memory = memories[d]
        args[d].pack = pack.backward_pack.data
        args[d].batch = tape.batch
        args[d].batch.reverse = tape.reverse ^ (d == 1)
        args[d].x = view_of(&read[0], pack.item, 0, tape.batch_first)
        args[d].tape = memory.data
        args[d].dy = view_of(&read[1], pack.item, d * H, tape.batch_first)
        size = d * tape.batch.batch * H * pack.item
        args[d].dh_n = at(&read[2], size)
        args[d].dc_n = at(&read[3], size)
        args[d].dx = view_of(&mine[0], pack.item, 0, tape.batch_first)
        args[d].dh0 = at(&written[0], size)
        args[d].dc0 = at(&written[1], size)
        args[d].dw_ih = mine[1].data
        args[d].dw_hh = mine[2].data
        args[d].db_ih = mine[3].data
        args[d].db_hh = mine[4].data
        args[d].w_ih = pack.w_ih_data
        args[d].provider = NULL if failure is None else &provider
        args[d].threads = frnn_num_threads()
        check(frnn_backward_workspace(&args[d], &sizes[d]))
    cdef Memory room = place(workspaces, sizes, calls, stack)
    with nogil:
        status = frnn_backward_each(args, workspaces, calls)
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
    cdef frnn_dtype dtype = FRNN_F32 if a.dtype == np.float32 else FRNN_F64
    cdef int type_num = cnp.NPY_FLOAT32 if dtype == FRNN_F32 else cnp.NPY_FLOAT64
    a = np.ascontiguousarray(a.T if transpose_a else a)
    b = np.ascontiguousarray(b.T if transpose_b else b)
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
    cdef Memory workspace = Memory(size)
    cdef void *room = workspace.data
    with nogil:
        status = frnn_matmul(dtype, m, n, k, a_.data, m if transpose_a else k, transpose_a,
                             b_.data, k if transpose_b else n, transpose_b, to, n, threads, room)
    check(status)
    return c


cdef map_(frnn_function function, x):
    x = np.ascontiguousarray(x)
    cdef frnn_dtype dtype = FRNN_F32 if x.dtype == np.float32 else FRNN_F64
    cdef int64_t n = x.size
    cdef Span x_
    span(&x_, x.reshape(-1), b"x", cnp.NPY_FLOAT32 if dtype == FRNN_F32 else cnp.NPY_FLOAT64, 1, &n, READ)
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


def default_num_threads():
    return frnn_default_num_threads()


# --- Training -----------------------------------------------------------------------------------
# Arrays are C-contiguous and of one dtype, float32 or float64.

cdef int type_of(array) except -1:
    """NumPy's number of the array's dtype, which must be float32 where it is not float64."""
    return cnp.NPY_FLOAT64 if array.dtype == np.float64 else cnp.NPY_FLOAT32


cdef frnn_dtype dtype_of(int type_num):
    return FRNN_F64 if type_num == cnp.NPY_FLOAT64 else FRNN_F32


cdef int table(Span *to, array, const char *name, int64_t *shape, int flags) except -1:
    """Checks an array of rows, any number of any length, and says its shape."""
    if array.ndim != 2:
        raise ValueError(f"{name.decode()}: expected (rows, n), got {array.shape}")
    shape[0], shape[1] = array.shape[0], array.shape[1]
    return span(to, array, name, type_of(array), 2, shape, flags | CONTIGUOUS)


def ids(array, int64_t limit):
    """An array of integers as a new C-contiguous one of int64, or None if not all are in [0, limit)."""
    cdef cnp.ndarray copy = np.array(array, np.int64, order="C")
    cdef const int64_t *values = <const int64_t *>cnp.PyArray_DATA(copy)
    cdef int64_t i, n = cnp.PyArray_SIZE(copy)
    cdef bint fits = True
    with nogil:
        for i in range(n):
            fits &= 0 <= values[i] < limit
    return copy if fits else None


def softmax(x):
    """Overwrite each row of x (rows, n) with its softmax."""
    cdef Span x_
    cdef int64_t[2] shape
    table(&x_, x, b"x", shape, WRITTEN)
    cdef frnn_dtype dtype = dtype_of(type_of(x))
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_softmax(dtype, shape[0], shape[1], x_.data, x_.data, threads)
    check(status)


def cross_entropy(logits, const int64_t[::1] targets not None, gradient):
    """The mean over the rows of logits (rows, classes) of minus the log-softmax at targets (rows).

    Its gradient is written to `gradient`, of logits' shape, unless that is None.
    """
    cdef Span x, g
    cdef int64_t[2] shape
    cdef double mean
    table(&x, logits, b"logits", shape, READ)
    span(&g, gradient, b"gradient", type_of(logits), 2, shape, WRITTEN | CONTIGUOUS)
    apart(&g, 1, &x, 1)
    if targets.shape[0] != shape[0] or shape[0] == 0:
        raise ValueError(f"targets: expected one for each of {shape[0]} rows, got {targets.shape[0]}")
    cdef frnn_dtype dtype = dtype_of(type_of(logits))
    cdef Memory losses = Memory(shape[0] * sizeof(double))
    cdef double *losses_ = <double *>losses.data
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_cross_entropy(dtype, shape[0], shape[1], x.data, &targets[0], g.data, losses_, &mean,
                                    threads)
    check(status)
    return mean


def add_row(x, row):
    """x (rows, n) += row (n)."""
    cdef Span x_, row_
    cdef int64_t[2] shape
    table(&x_, x, b"x", shape, WRITTEN)
    span(&row_, row, b"row", type_of(x), 1, &shape[1], CONTIGUOUS)
    apart(&x_, 1, &row_, 1)
    cdef frnn_dtype dtype = dtype_of(type_of(x))
    cdef frnn_status status
    with nogil:
        status = frnn_add_row(dtype, shape[0], shape[1], row_.data, x_.data)
    check(status)


def sum_rows(x):
    """The sum of the rows of x (rows, n), in blocks of rows."""
    cdef Span x_
    cdef int64_t[2] shape
    table(&x_, x, b"x", shape, READ)
    cdef int type_num = type_of(x)
    cdef cnp.npy_intp n = shape[1]
    total = empty_array(1, &n, type_num)
    cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>total)
    cdef frnn_dtype dtype = dtype_of(type_num)
    cdef frnn_status status
    with nogil:
        status = frnn_sum_rows(dtype, shape[0], shape[1], x_.data, to)
    check(status)
    return total


def add_rows_at(x, const int64_t[::1] at not None, y):
    """y[at[r]] += x[r] for all rows r of x (rows, n), in order; y is (any, n)."""
    cdef Span x_, y_
    cdef int64_t[2] shape
    cdef int64_t[2] y_shape
    table(&x_, x, b"x", shape, READ)
    table(&y_, y, b"y", y_shape, WRITTEN)
    apart(&y_, 1, &x_, 1)
    if at.shape[0] != shape[0]:
        raise ValueError(f"at: expected one for each of {shape[0]} rows, got {at.shape[0]}")
    if y_shape[1] != shape[1] or y.dtype != x.dtype:
        raise ValueError(f"y: expected rows of {shape[1]} {x.dtype}, got {y_shape[1]} {y.dtype}")
    cdef frnn_dtype dtype = dtype_of(type_of(x))
    cdef const int64_t *at_ = &at[0] if shape[0] else NULL
    cdef frnn_status status
    with nogil:
        status = frnn_add_rows_at(dtype, shape[0], shape[1], x_.data, at_, y_shape[0], y_.data)
    check(status)


cdef enum:
    PARAMETER_ARRAYS = 4


def update(int rule, double learning_rate, double momentum, double decay, double epsilon, bint nesterov,
           double clip, list parameters not None):
    """One step of an optimizer: see frnn_optimizer in fastrnn.h; `rule` is SGD, RMSPROP or ADAM.

    For each parameter (data, gradient, scale, momentum, velocity), arrays of one axis and one dtype, the
    last two None where the rule has no such state; the gradient counts `scale` times.
    """
    cdef Py_ssize_t i, count = len(parameters)
    cdef int64_t n
    cdef int type_num
    cdef Span[PARAMETER_ARRAYS] spans
    cdef Memory memory = Memory(count * sizeof(frnn_parameter))
    cdef frnn_parameter *array = <frnn_parameter *>memory.data
    if count == 0:
        return
    type_num = type_of(parameters[0][0])
    for i in range(count):
        data, gradient, scale, m, v = parameters[i]
        n = data.size
        span(&spans[0], data, b"data", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[1], m, b"momentum", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[2], v, b"velocity", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[3], gradient, b"gradient", type_num, 1, &n, CONTIGUOUS)
        apart(spans, PARAMETER_ARRAYS - 1, &spans[3], 1)
        array[i] = frnn_parameter(n, spans[0].data, spans[3].data, scale, spans[1].data, spans[2].data)
    cdef frnn_optimizer optimizer = frnn_optimizer(
        <frnn_rule>rule, nesterov, learning_rate, momentum, decay, epsilon, clip)
    cdef frnn_dtype dtype = dtype_of(type_num)
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_update(&optimizer, dtype, count, array, threads)
    check(status)


def squares(list gradients not None):
    """The sum of squares, in double precision, of each array of one axis; all of one dtype."""
    cdef Py_ssize_t i, count = len(gradients)
    cdef int64_t n
    cdef int type_num
    cdef size_t size
    cdef Span gradient
    cdef Memory memory = Memory(count * (sizeof(frnn_parameter) + sizeof(double)))
    cdef frnn_parameter *array = <frnn_parameter *>memory.data
    cdef double *sums = <double *>(array + count)
    if count == 0:
        return []
    type_num = type_of(gradients[0])
    for i in range(count):
        n = gradients[i].size
        span(&gradient, gradients[i], b"gradient", type_num, 1, &n, CONTIGUOUS)
        array[i] = frnn_parameter(n, NULL, gradient.data, 1.0, NULL, NULL)
    check(frnn_squares_workspace(count, array, &size))
    cdef Memory workspace = Memory(size)
    cdef void *room = workspace.data
    cdef frnn_dtype dtype = dtype_of(type_num)
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_squares(dtype, count, array, sums, threads, room)
    check(status)
    return [sums[i] for i in range(count)]


SGD, RMSPROP, ADAM = FRNN_SGD, FRNN_RMSPROP, FRNN_ADAM
