# Included by _core.pyx: connectionist temporal classification.

def ctc(logits, labels not None, input_lengths not None, label_lengths not None, int64_t blank, weights not None,
        gradient):
    """The losses (batch,), float64, -log p(labels | softmax of logits): see frnn_ctc_args in fastrnn.h.

    logits (batch, time, classes) float32 or float64, labels (batch, most labels), input_lengths and
    label_lengths (batch,). The gradient of each loss, times its entry of weights (batch,), is written to
    `gradient`, of logits' shape, unless that is None; steps past a length have zeros.
    """
    cdef Span x, g, labels_, input_lengths_, label_lengths_, weights_
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
    if labels.ndim != 2:
        raise ValueError(f"labels: expected (batch, most labels), got {labels.shape}")
    cdef int64_t *labels_shape = [shape[0], labels.shape[1]]
    span(&labels_, labels, b"labels", cnp.NPY_INT64, 2, labels_shape, CONTIGUOUS)
    span(&input_lengths_, input_lengths, b"input_lengths", cnp.NPY_INT64, 1, shape, CONTIGUOUS)
    span(&label_lengths_, label_lengths, b"label_lengths", cnp.NPY_INT64, 1, shape, CONTIGUOUS)
    span(&weights_, weights, b"weights", cnp.NPY_FLOAT64, 1, shape, CONTIGUOUS)
    cdef cnp.npy_intp batch = shape[0]
    losses = empty_array(1, &batch, cnp.NPY_FLOAT64)
    args.dtype = dtype_of(type_num)
    args.batch, args.time, args.classes, args.most_labels = shape[0], shape[1], shape[2], labels_shape[1]
    args.logits = x.data
    args.labels = <const int64_t *>labels_.data
    args.input_lengths = <const int64_t *>input_lengths_.data
    args.label_lengths = <const int64_t *>label_lengths_.data
    args.blank = blank
    args.weights = <const double *>weights_.data
    args.gradient = g.data
    args.losses = <double *>cnp.PyArray_DATA(<cnp.ndarray>losses)
    args.threads = frnn_num_threads()
    check(frnn_ctc_workspace(&args, &size))
    cdef Memory workspace = allocate(size)
    cdef void *room = workspace.data
    cdef frnn_status status
    with nogil:
        status = frnn_ctc(&args, room)
    check(status)
    return losses
