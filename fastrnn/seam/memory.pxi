# Included by _core.pyx: memory that is recycled.

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
    cdef size_t size

    def __cinit__(self, size_t size):
        self.size = size
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


cdef object empty_like(cnp.ndarray array):
    """A new C-contiguous array of the same shape and dtype, float32 or float64; not filled."""
    return empty_array(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array))
