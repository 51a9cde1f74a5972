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


cdef struct Block:
    void *start # what malloc gave
    size_t size


# The last large blocks that were given back, the newest last. A training step's tape, outputs and gradients come and
# go; the C library returns such blocks to the system, and fetching their pages again takes as long as the step.
cdef enum:
    SPARES = 256
    SPARE_FROM = 64 * 1024
    SPARE_TO = 256 * 1024 * 1024
    SPARE_ALL = 256 * 1024 * 1024
cdef Block spare[SPARES]
cdef int spares = 0
cdef size_t spare_bytes = 0
cdef object spare_lock = object()


@cython.final
@cython.no_gc
cdef class Memory:
    """Some 64-byte aligned bytes, of `allocate`."""
    cdef Block block
    cdef void *data
    cdef size_t size

    def __dealloc__(self):
        if SPARE_FROM <= self.block.size <= SPARE_TO:
            give_spare(self.block)
        else:
            free(self.block.start)


cdef Memory allocate(size_t size):
    cdef Memory memory = Memory.__new__(Memory)
    memory.size = size
    if not (SPARE_FROM <= size <= SPARE_TO and take_spare(size, &memory.block)):
        memory.block.start = malloc(size + 64)
        if memory.block.start == NULL:
            raise MemoryError(f"cannot allocate {size:,} bytes")
        memory.block.size = size
        want_huge_pages(memory.block.start, size + 64)
    memory.data = <void *>((<uintptr_t>memory.block.start + 63) // 64 * 64)
    return memory


cdef Block remove_spare(int i) noexcept:
    global spares, spare_bytes
    cdef Block block = spare[i]
    spares -= 1
    spare_bytes -= block.size
    memmove(&spare[i], &spare[i + 1], (spares - i) * sizeof(Block))
    return block


cdef bint take_spare(size_t size, Block *block) except -1:
    """Takes one of that size or little more, if there is any."""
    cdef int i
    with cython.critical_section(spare_lock):
        for i in range(spares - 1, -1, -1):
            if size <= spare[i].size <= size + size // 4:
                block[0] = remove_spare(i)
                return True
    return False


cdef int give_spare(Block block) except -1:
    global spares, spare_bytes
    with cython.critical_section(spare_lock):
        while spares and (spares == SPARES or spare_bytes + block.size > SPARE_ALL):
            free(remove_spare(0).start)
        spare[spares] = block
        spares += 1
        spare_bytes += block.size
    return 0


cdef object empty_array(int ndim, cnp.npy_intp *shape, int type_num):
    """A new C-contiguous array, of recycled memory where it is large."""
    cdef size_t size = 4 if type_num == cnp.NPY_FLOAT32 else 8
    cdef int i
    for i in range(ndim):
        size *= <size_t>shape[i]
    if not SPARE_FROM <= size <= SPARE_TO:
        return cnp.PyArray_EMPTY(ndim, shape, type_num, 0)
    cdef Memory memory = allocate(size)
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
