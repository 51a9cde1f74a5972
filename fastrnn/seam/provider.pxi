# Included by _core.pyx: NumPy's BLAS as a provider of products.

GEMMS = ("native", "numpy")
cdef int gemm_choice = 0 # 1 and its place among them; 0 is the instruction set's default


def set_gemm(str name):
    """Choose who does the products over all steps; None for the instruction set's default."""
    global gemm_choice
    gemm_choice = 0 if name is None else 1 + GEMMS.index(name)


def chosen_gemm():
    """What `set_gemm` chose."""
    return GEMMS[gemm_choice - 1] if gemm_choice else None


cdef object matrix(const void *data, frnn_dtype dtype, int64_t rows, int64_t columns, int64_t ld):
    cdef int64_t item = <int64_t>frnn_itemsize(dtype)
    cdef cnp.npy_intp *shape = [rows, columns]
    cdef cnp.npy_intp *strides = [ld * item, item]
    return cnp.PyArray_New(np.ndarray, 2, shape, cnp.NPY_FLOAT64 if dtype == FRNN_F64 else cnp.NPY_FLOAT32,
                           strides, <void *>data, 0, cnp.NPY_ARRAY_WRITEABLE, <object>NULL)


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
