# Included by _core.pyx: losses, optimizers and sums of rows. Arrays are C-contiguous and of one dtype, float32 or
# float64.

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


def cross_entropy(logits, targets not None, weights, gradient):
    """The mean over the rows of logits (rows, classes) of minus the log-softmax at targets (rows), with
    weights (rows) the sum of weight times that.

    Its gradient is written to `gradient`, of logits' shape, unless that is None.
    """
    cdef Span x, g, targets_, weights_
    cdef int64_t[2] shape
    cdef double loss
    table(&x, logits, b"logits", shape, READ)
    span(&g, gradient, b"gradient", type_of(logits), 2, shape, WRITTEN | CONTIGUOUS)
    apart(&g, 1, &x, 1)
    if shape[0] == 0:
        raise ValueError("logits: expected at least one row, got none")
    span(&targets_, targets, b"targets", cnp.NPY_INT64, 1, shape, CONTIGUOUS)
    span(&weights_, weights, b"weights", cnp.NPY_FLOAT64, 1, shape, CONTIGUOUS)
    cdef frnn_dtype dtype = dtype_of(type_of(logits))
    cdef Memory losses = allocate(shape[0] * sizeof(double))
    cdef double *losses_ = <double *>losses.data
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_cross_entropy(dtype, shape[0], shape[1], x.data, <const int64_t *>targets_.data,
                                    <const double *>weights_.data, g.data, losses_, &loss, threads)
    check(status)
    return loss


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


def add_rows_at(x, at not None, y):
    """y[at[r]] += x[r] for all rows r of x (rows, n), in order; y is (any, n)."""
    cdef Span x_, y_, at_
    cdef int64_t[2] shape
    cdef int64_t[2] y_shape
    table(&x_, x, b"x", shape, READ)
    table(&y_, y, b"y", y_shape, WRITTEN)
    apart(&y_, 1, &x_, 1)
    span(&at_, at, b"at", cnp.NPY_INT64, 1, shape, CONTIGUOUS)
    if y_shape[1] != shape[1] or y.dtype != x.dtype:
        raise ValueError(f"y: expected rows of {shape[1]} {x.dtype}, got {y_shape[1]} {y.dtype}")
    cdef frnn_dtype dtype = dtype_of(type_of(x))
    cdef frnn_status status
    with nogil:
        status = frnn_add_rows_at(dtype, shape[0], shape[1], x_.data, <const int64_t *>at_.data, y_shape[0], y_.data)
    check(status)


cdef enum:
    PARAMETER_ARRAYS = 4


def update(int rule, double learning_rate, double momentum, double decay, double epsilon, bint nesterov,
           double clip, list parameters not None):
    """One step of an optimizer: see frnn_optimizer in fastrnn.h; `rule` is SGD, RMSPROP, ADAM or ADAGRAD.

    For each parameter (data, gradient, scale, weight_decay, momentum, velocity), arrays of one axis and one
    dtype, the last two None where the rule has no such state. The gradient counts `scale` times; data loses
    `weight_decay` of itself before the step.
    """
    cdef Py_ssize_t i, count = len(parameters)
    cdef int64_t n
    cdef int type_num
    cdef Span[PARAMETER_ARRAYS] spans
    cdef Memory memory = allocate(count * sizeof(frnn_parameter))
    cdef frnn_parameter *array = <frnn_parameter *>memory.data
    if count == 0:
        return
    type_num = type_of(parameters[0][0])
    for i in range(count):
        data, gradient, scale, weight_decay, m, v = parameters[i]
        n = data.size
        span(&spans[0], data, b"data", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[1], m, b"momentum", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[2], v, b"velocity", type_num, 1, &n, WRITTEN | CONTIGUOUS)
        span(&spans[3], gradient, b"gradient", type_num, 1, &n, CONTIGUOUS)
        apart(spans, PARAMETER_ARRAYS - 1, &spans[3], 1)
        array[i] = frnn_parameter(n, spans[0].data, spans[3].data, scale, weight_decay, spans[1].data,
                                  spans[2].data)
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
    cdef Memory memory = allocate(count * (sizeof(frnn_parameter) + sizeof(double)))
    cdef frnn_parameter *array = <frnn_parameter *>memory.data
    cdef double *sums = <double *>(array + count)
    if count == 0:
        return []
    type_num = type_of(gradients[0])
    for i in range(count):
        n = gradients[i].size
        span(&gradient, gradients[i], b"gradient", type_num, 1, &n, CONTIGUOUS)
        array[i] = frnn_parameter(n, NULL, gradient.data, 1.0, 0.0, NULL, NULL)
    check(frnn_squares_workspace(count, array, &size))
    cdef Memory workspace = allocate(size)
    cdef void *room = workspace.data
    cdef frnn_dtype dtype = dtype_of(type_num)
    cdef int threads = frnn_num_threads()
    cdef frnn_status status
    with nogil:
        status = frnn_squares(dtype, count, array, sums, threads, room)
    check(status)
    return [sums[i] for i in range(count)]


SGD, RMSPROP, ADAM, ADAGRAD = FRNN_SGD, FRNN_RMSPROP, FRNN_ADAM, FRNN_ADAGRAD
