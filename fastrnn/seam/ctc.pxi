# Included by _core.pyx: connectionist temporal classification.

def ctc(logits, const int64_t[:, ::1] labels not None, const int64_t[::1] input_lengths not None,
        const int64_t[::1] label_lengths not None, int64_t blank, const double[::1] weights not None, gradient):
    """The losses (batch,), float64, -log p(labels | softmax of logits): see frnn_ctc_args in fastrnn.h.

    logits (batch, time, classes) float32 or float64, labels (batch, most labels), input_lengths and
    label_lengths (batch,). The gradient of each loss, times its entry of weights (batch,), is written to
    `gradient`, of logits' shape, unless that is None; steps past a length have zeros.
    """
    cdef Span x, g
    cdef frnn_ctc_args args
    cdef size_t size
    if logits.ndim != 3:
        raise ValueError(f"logits: expected (batch, time, classes), got {logits.shape}")
    cdef int64_t *shape = [logits.shape[0], logits.shape[1], logits.shape[2]]
    cdef int type_num = type_of(logits)
    span(&x, logits, b"logits", type_num, 3, shape, READ | CONTIGUOUS)
    span(&g, gradient, b"gradient", type_num, 3, shape, WRITTEN | CONTIGUOUS)
    if x.data == NULL:
        raise TypeError("logits: expected an array, got None")
    apart(&g, 1, &x, 1)
    for name, array in (("labels", labels), ("input_lengths", input_lengths), ("label_lengths", label_lengths),
                        ("weights", weights)):
        if array.shape[0] != shape[0]:
            raise ValueError(f"{name}: expected one for each of {shape[0]} rows, got {array.shape[0]}")
    cdef cnp.npy_intp batch = shape[0]
    losses = empty_array(1, &batch, cnp.NPY_FLOAT64)
    args.dtype = dtype_of(type_num)
    args.batch, args.time, args.classes, args.most_labels = shape[0], shape[1], shape[2], labels.shape[1]
    args.logits = x.data
    args.labels = &labels[0, 0] if batch and labels.shape[1] else NULL
    args.input_lengths = &input_lengths[0] if batch else NULL
    args.label_lengths = &label_lengths[0] if batch else NULL
    args.blank = blank
    args.weights = &weights[0] if batch else NULL
    args.gradient = g.data
    args.losses = <double *>cnp.PyArray_DATA(<cnp.ndarray>losses)
    args.threads = frnn_num_threads()
    check(frnn_ctc_workspace(&args, &size))
    cdef Memory workspace = Memory(size)
    cdef void *room = workspace.data
    cdef frnn_status status
    with nogil:
        status = frnn_ctc(&args, room)
    check(status)
    return losses
