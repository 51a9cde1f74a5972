# Included by _core.pyx: NumPy arrays, checked and as C sees them.

cdef int type_of(array):
    """NumPy's number of the array's dtype, which must be float32 where it is not float64."""
    if cnp.PyArray_Check(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_FLOAT64:
        return cnp.NPY_FLOAT64
    return cnp.NPY_FLOAT32


cdef frnn_dtype dtype_of(int type_num):
    return FRNN_F64 if type_num == cnp.NPY_FLOAT64 else FRNN_F32


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
    wanted = {cnp.NPY_FLOAT32: "float32", cnp.NPY_FLOAT64: "float64"}.get(type_num, "int64")
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array of {wanted}, got {type(array).__name__}")
    if array.dtype != wanted:
        raise TypeError(f"{name}: expected {wanted}, got {array.dtype}; "
                        f"convert with {name}.astype({wanted!r})")
    expected = tuple([shape[i] for i in range(ndim)])
    raise ValueError(f"{name}: expected {expected}, got {array.shape}")


cdef int shaped(object array, const char *name, int type_num, int ndim, const int64_t *shape) except -1:
    """Refuses another type, dtype or shape."""
    cdef int i
    if (not cnp.PyArray_Check(array) or cnp.PyArray_TYPE(<cnp.ndarray>array) != type_num
            or cnp.PyArray_NDIM(<cnp.ndarray>array) != ndim):
        refuse(array, name, type_num, ndim, shape)
    for i in range(ndim):
        if cnp.PyArray_DIM(<cnp.ndarray>array, i) != shape[i]:
            refuse(array, name, type_num, ndim, shape)
    return 0


cdef int span(Span *to, object array, const char *name, int type_num, int ndim, const int64_t *shape,
              int flags) except -1:
    """Checks an array (None passes) and says where it is."""
    cdef cnp.ndarray a
    cdef int i
    cdef int64_t item, stride, extent, packed
    cdef bint empty = False
    to.name = name
    to.data = to.low = to.high = NULL
    to.stride[0] = to.stride[1] = to.stride[2] = 0
    if array is None:
        return 0
    shaped(array, name, type_num, ndim, shape)
    a = <cnp.ndarray>array
    for i in range(ndim):
        empty |= shape[i] == 0
    if not cnp.PyArray_ISNOTSWAPPED(a) or not cnp.PyArray_ISALIGNED(a):
        raise ValueError(f"{name.decode()}: expected aligned values in native byte order")
    if flags & WRITTEN and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name.decode()}: expected a writable array")
    to.data = to.low = to.high = <char *>cnp.PyArray_DATA(a)
    if empty:  # its strides may be any
        return 0
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


cpdef bint walkable(array, int ndim, int64_t features, bint double) except -1:
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


cdef bint fits(object array, int type_num, int64_t layers, int64_t batch, int64_t features):
    """Whether it is None or a C-contiguous array (layers, batch, features), aligned."""
    if array is None:
        return True
    if not cnp.PyArray_Check(array):
        return False
    cdef cnp.ndarray a = <cnp.ndarray>array
    if cnp.PyArray_TYPE(a) != type_num or cnp.PyArray_NDIM(a) != 3 or not cnp.PyArray_ISCARRAY_RO(a):
        return False
    return (cnp.PyArray_DIM(a, 0) == layers and cnp.PyArray_DIM(a, 1) == batch
            and cnp.PyArray_DIM(a, 2) == features)


cdef frnn_view view_of(const Span *array, int64_t item, int64_t offset, bint batch_first):
    """A (batch, time, features) or (time, batch, features) array from a feature on."""
    cdef frnn_view view
    view.data = NULL if array.data == NULL else array.data + offset * item
    view.batch_stride = array.stride[0 if batch_first else 1]
    view.time_stride = array.stride[1 if batch_first else 0]
    return view
