# Included by _core.pyx: a recurrent layer, forward and back.

cdef enum:
    DIRECTIONS = 2
    STACK_BYTES = 16 * 1024 # of workspace, for calls that should not allocate
    BORROWED_BACK = 1
    BORROWED = 2
    LARGE_PACK_BYTES = 3 * 1024 * 1024


# Weights of a layer by frnn_weight, with PyTorch's names where it has them.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_ch", "ln_ih", "ln_hh", "ln_c")
WEIGHT_NAMES = [name.encode() for name in WEIGHTS]

FUNCTIONS = {
    None: FRNN_OWN,
    "tanh": FRNN_TANH,
    "sigmoid": FRNN_SIGMOID,
    "relu": FRNN_RELU,
    "hard_sigmoid": FRNN_HARD_SIGMOID,
    "identity": FRNN_IDENTITY,
}


cdef class Layer:
    """What one layer is in one direction: a cell, its sizes, its dtype (float64 if `double`), and what it does
    beyond the cell's plain equations, see csrc/fastrnn.h. Raises ValueError for what does not go together.
    """
    cdef frnn_layer c
    cdef int64_t state_size # P
    cdef size_t pack_bytes # of a forward call's

    def __init__(self, str cell, int64_t input_size, int64_t hidden_size, bint double, *, int64_t proj_size=0,
                 gate_activation=None, state_activation=None, clip=None, bint peephole=False,
                 bint layer_norm=False, double zoneout_h=0, double zoneout_c=0, double recurrent_dropout=0):
        self.c.cell = CELLS[cell]
        self.c.dtype = FRNN_F64 if double else FRNN_F32
        self.c.input_size = input_size
        self.c.hidden_size = hidden_size
        self.c.proj_size = proj_size
        self.c.gate_activation = FUNCTIONS[gate_activation]
        self.c.state_activation = FUNCTIONS[state_activation]
        self.c.clip = 0 if clip is None else clip
        self.c.peephole = peephole
        self.c.layer_norm = layer_norm
        self.c.zoneout_h = zoneout_h
        self.c.zoneout_c = zoneout_c
        self.c.recurrent_dropout = recurrent_dropout
        self.state_size = proj_size if proj_size else hidden_size
        check(frnn_pack_size(&self.c, FRNN_PACK_FORWARD, &self.pack_bytes))

    def shapes(self):
        """The shapes of the weights that it has, by name, in the order of WEIGHTS."""
        cdef int64_t sizes[2]
        cdef int i, axes
        shapes = {}
        for i in range(FRNN_WEIGHTS):
            axes = frnn_weight_shape(&self.c, <frnn_weight>i, sizes)
            if axes:
                shapes[WEIGHTS[i]] = tuple([sizes[k] for k in range(axes)])
        return shapes

    cpdef int worth_borrowing(self, int64_t batch, int64_t time):
        """As Pack's `borrowed`: which packs for so many rows and steps take longer to make than they save."""
        cdef int64_t rows = batch * time
        if self.c.proj_size:
            return 0
        if time <= 3 and rows <= 128 or time <= 6 and rows <= 64 and self.pack_bytes > LARGE_PACK_BYTES:
            return BORROWED
        return BORROWED_BACK if time <= 16 and rows <= 64 else 0


cdef int weight_spans(Span *to, const frnn_layer *layer, tuple arrays, int type_num) except -1:
    """Checks C-contiguous arrays, in the order of WEIGHTS, against the shapes of the layer's weights; None passes."""
    cdef int i, axes
    cdef int64_t shape[2]
    if len(arrays) != FRNN_WEIGHTS:
        raise ValueError(f"weights: expected {FRNN_WEIGHTS}, got {len(arrays)}")
    for i in range(FRNN_WEIGHTS):
        axes = frnn_weight_shape(layer, <frnn_weight>i, shape)
        array = arrays[i]
        if axes == 0 and array is not None:
            raise ValueError(f"{WEIGHTS[i]}: expected None, the layer has none")
        span(&to[i], array, WEIGHT_NAMES[i], type_num, axes, shape, CONTIGUOUS)
    return 0


cdef class Pack:
    """Packed weights of one layer and direction, for forward calls and, on request, backward ones.

    weights: nine arrays in the order of WEIGHTS, None for those that the layer has not and for biases that are
    zeros; C-contiguous, of the layer's dtype. They are copied: later changes do not show. Or weight_ih and
    weight_hh are `borrowed`, by backward calls (1) or by all (2), which suits calls of few steps: then they must not
    change while the pack lives. Or weight_ih, weight_hh and weight_hr are rounded to `bfloat16`, for inference without
    `numpy_gemm`.
    The products over all steps are NumPy's BLAS's if `numpy_gemm`.
    """
    cdef frnn_layer layer
    cdef int64_t state_size
    cdef Memory forward_pack
    cdef Memory backward_pack
    cdef int type_num
    cdef int64_t item
    cdef object w_ih, w_hh  # where they are borrowed, or w_ih is for NumPy's BLAS
    cdef const void *w_ih_data
    cdef int gemm_choice  # a Recurrence's, when it made this
    cdef const char *isa

    def __init__(self, Layer layer not None, tuple weights not None, bint backward, bint numpy_gemm,
                 int borrowed=0, bint bfloat16=False):
        self.make(layer, weights, backward, numpy_gemm, borrowed, bfloat16)

    cdef int make(self, Layer layer, tuple weights, bint backward, bint numpy_gemm, int borrowed,
                  bint bfloat16) except -1:
        cdef Span spans[FRNN_WEIGHTS]
        self.isa = frnn_isa()
        self.layer = layer.c
        self.state_size = layer.state_size
        self.type_num = cnp.NPY_FLOAT64 if layer.c.dtype == FRNN_F64 else cnp.NPY_FLOAT32
        self.item = <int64_t>frnn_itemsize(layer.c.dtype)
        weight_spans(spans, &self.layer, weights, self.type_num)
        cdef frnn_pack_kind kind = FRNN_PACK_BFLOAT16 if bfloat16 else FRNN_PACK_FORWARD
        self.forward_pack = self.packed(FRNN_PACK_BORROWED if borrowed == BORROWED else kind, spans)
        if borrowed:
            self.w_ih, self.w_hh = weights[:2]
        if borrowed == BORROWED:
            self.backward_pack = self.forward_pack
        elif backward:
            self.backward_pack = self.packed(FRNN_PACK_BORROWED if borrowed else FRNN_PACK_BACKWARD, spans)
        self.w_ih_data = NULL
        if numpy_gemm:
            self.w_ih = weights[0] if borrowed else np.array(weights[0], order="C")
            self.w_ih_data = cnp.PyArray_DATA(<cnp.ndarray>self.w_ih)
        return 0

    cdef Memory packed(self, frnn_pack_kind kind, const Span *spans):
        cdef size_t size
        cdef frnn_status status
        cdef int i, threads = frnn_num_threads()
        cdef const void *weights[FRNN_WEIGHTS]
        for i in range(FRNN_WEIGHTS):
            weights[i] = spans[i].data
        check(frnn_pack_size(&self.layer, kind, &size))
        cdef Memory memory = allocate(size)
        cdef void *to = memory.data
        with nogil:
            status = frnn_pack(&self.layer, kind, weights, to, threads)
        check(status)
        return memory


cdef class Tape:
    """What BPTT needs of one layer's forward call. It is consumed by `backward`."""
    cdef tuple packs
    cdef list memories
    cdef object x
    cdef object ids
    cdef object lengths
    cdef frnn_ids c_ids
    cdef bint batch_first
    cdef Span x_span
    cdef frnn_batch batch
    cdef bint reverse
    cdef uint64_t seed
    cdef int64_t checkpoint_every

    @property
    def nbytes(self):
        """Bytes that it keeps, x not counted; 0 once it is consumed."""
        return sum([(<Memory>memory).size for memory in self.memories or ()])

    def sequence_shape(self):
        """The axes of x but the last."""
        return self.x.shape[:self.x.ndim - 1]


cdef int batch_of(frnn_batch *batch, object x, object lengths, bint batch_first, object ids=None) except -1:
    """The batch of x (batch, time, features), time missing for a single step, or of ids (batch, time)."""
    if not cnp.PyArray_Check(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) not in (2, 3):
        raise TypeError(f"x: expected an array with two or three axes, got {type(x).__name__}")
    cdef int step = ids is None and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
    cdef int first = 0 if batch_first or step else 1
    cdef cnp.ndarray axes = x if ids is None else ids
    batch.batch = cnp.PyArray_DIM(axes, first)
    batch.time = 1 if step else cnp.PyArray_DIM(axes, 1 - first)
    batch.first_step = batch.steps = 0
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


cdef int table_span(Span *to, object table, const char *name, int type_num, int64_t rows, int64_t features,
                    int flags) except -1:
    """Checks (rows, features), whose rows are what `view_of` takes for a batch's."""
    cdef int64_t *shape = [rows, features]
    span(to, table, name, type_num, 2, shape, flags)
    to.stride[1] = to.stride[0]
    return 0


cdef int ids_of(frnn_ids *to, object ids, object x, bint batch_first) except -1:
    """ids, (B, T), or (T, B) unless `batch_first`, of the rows of x (rows, I); None passes."""
    cdef Span found
    cdef int64_t shape[2]
    to.at.data = NULL
    to.at.batch_stride = to.at.time_stride = to.x_rows = 0
    if ids is None:
        return 0
    if not cnp.PyArray_Check(ids) or cnp.PyArray_NDIM(<cnp.ndarray>ids) != 2 or cnp.PyArray_NDIM(<cnp.ndarray>x) != 2:
        raise ValueError("ids: expected two axes, and of x two")
    shape[0] = cnp.PyArray_DIM(<cnp.ndarray>ids, 0)
    shape[1] = cnp.PyArray_DIM(<cnp.ndarray>ids, 1)
    span(&found, ids, b"ids", cnp.NPY_INT64, 2, shape, CONTIGUOUS)
    to.at = view_of(&found, sizeof(int64_t), 0, batch_first)
    to.x_rows = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
    return 0


cdef int state_span(Span *to, object array, const char *name, Pack pack, const frnn_batch *batch,
                    int64_t first, int count, int64_t layers, int64_t features, int flags) except -1:
    """Checks (layers, B, features); the span has `count` layers of it, from `first` on."""
    cdef int64_t *shape = [layers, batch.batch, features]
    cdef int64_t bytes = batch.batch * features * pack.item
    span(to, array, name, pack.type_num, 3, shape, flags | CONTIGUOUS)
    if to.data != NULL:
        to.data = to.low = to.data + first * bytes
        to.high = to.low + count * bytes
    return 0


cdef inline void in_place(Span *before, const Span *after):
    """A state may be updated in place: then `apart` is to see it once."""
    if before.data == after.data:
        before.high = before.low


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
        memory = allocate(total)
        room = <char *>memory.data
    for d in range(calls):
        workspaces[d] = room
        room += sizes[d]
    return memory


cpdef forward(tuple packs, int64_t first, int64_t layers, x, lengths, bint reverse, bint batch_first,
              h_0, c_0, y, h_n, c_n, bint training, uint64_t seed=0, int64_t checkpoint_every=0, ids=None):
    """Run one layer over x in one or two directions at once, one pack each; the second is the other way.

    x is (B, T, I), (T, B, I) unless `batch_first`, or for one time step (B, I); any strides but the
    last. lengths: (B,) int64 or None. y, laid out as x with D*P features, or None, is written. h_0
    (layers, B, P), c_0 (layers, B, H) or None for zeros; h_n, c_n, likewise or None, are written, and may be h_0
    and c_0; this layer's states begin at index `first`. Returns a Tape when training, else None. `seed`, for the
    other direction the next number, chooses the masks of zoneout and dropout. The tape keeps all steps, or with
    `checkpoint_every` the states every so many. With ids,
    int64 (B, T), or (T, B), x is a table (rows, I), of which they say the row that enters each step.
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
    cdef int64_t I, H, P
    cdef bint step

    if not 1 <= calls <= DIRECTIONS:
        raise ValueError(f"packs: expected 1 or {DIRECTIONS}, got {calls}")
    if not 0 <= first <= layers - calls:
        raise ValueError(f"first: expected 0 to {layers - calls}, got {first}")
    I = pack.layer.input_size
    H = pack.layer.hidden_size
    P = pack.state_size
    cdef frnn_ids c_ids
    ids_of(&c_ids, ids, x, batch_first)
    batch_of(&batch, x, lengths, batch_first, ids)
    step = ids is None and cnp.PyArray_NDIM(<cnp.ndarray>x) == 2
    if ids is None:
        sequence_span(&read[0], x, b"x", pack.type_num, &batch, step, batch_first, I, READ)
    else:
        table_span(&read[0], x, b"x", pack.type_num, c_ids.x_rows, I, READ)
    sequence_span(&written[0], y, b"y", pack.type_num, &batch, step, batch_first, calls * P, WRITTEN)
    state_span(&read[1], h_0, b"h_0", pack, &batch, first, calls, layers, P, READ)
    state_span(&read[2], c_0, b"c_0", pack, &batch, first, calls, layers, H, READ)
    state_span(&written[1], h_n, b"h_n", pack, &batch, first, calls, layers, P, WRITTEN)
    state_span(&written[2], c_n, b"c_n", pack, &batch, first, calls, layers, H, WRITTEN)
    in_place(&read[1], &written[1])
    in_place(&read[2], &written[2])
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
        tape.ids = ids
        tape.c_ids = c_ids
        tape.lengths = lengths
        tape.batch_first = batch_first
        tape.reverse = reverse
        tape.batch = batch
        tape.x_span = read[0]
        tape.seed = seed
        tape.checkpoint_every = checkpoint_every
    for d in range(calls):
        pack = packs[d]
        args[d].pack = pack.forward_pack.data
        args[d].batch = batch
        args[d].batch.reverse = reverse ^ (d == 1)
        args[d].x = view_of(&read[0], pack.item, 0, batch_first)
        args[d].y = view_of(&written[0], pack.item, d * P, batch_first)
        args[d].h0 = at(&read[1], d * batch.batch * P * pack.item)
        args[d].c0 = at(&read[2], d * batch.batch * H * pack.item)
        args[d].h_n = at(&written[1], d * batch.batch * P * pack.item)
        args[d].c_n = at(&written[2], d * batch.batch * H * pack.item)
        args[d].tape = NULL
        args[d].w_ih = pack.w_ih_data
        args[d].provider = NULL if failure is None else &provider
        args[d].threads = frnn_num_threads()
        args[d].seed = seed + <uint64_t>d
        args[d].checkpoint_every = checkpoint_every
        args[d].ids = c_ids
        if training:
            check(frnn_tape_size(&pack.layer, &batch, checkpoint_every, &size))
            memory = allocate(size)
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


cdef int check_step(y, h_n, c_n, h_0, c_0, int64_t layers, int64_t batch, int64_t h_size, int64_t c_size,
                    int type_num) except -1:
    """Refuses what a step through several layers cannot write, while none of them has written anything.

    y (B, P) may be None; h_n, c_n and h_0, c_0 are as `forward` has them, of all layers. A state may be updated in
    place. `forward` sees a layer at a time: it cannot tell that one writes what a later one is to read.
    """
    cdef int64_t *output = [batch, h_size]
    cdef int64_t *h_shape = [layers, batch, h_size]
    cdef int64_t *c_shape = [layers, batch, c_size]
    cdef Span written[3]
    cdef Span read[2]
    span(&written[0], y, b"y", type_num, 2, output, WRITTEN)
    span(&written[1], h_n, b"h_n", type_num, 3, h_shape, WRITTEN | CONTIGUOUS)
    span(&written[2], c_n, b"c_n", type_num, 3, c_shape, WRITTEN | CONTIGUOUS)
    span(&read[0], h_0, b"h_0", type_num, 3, h_shape, READ | CONTIGUOUS)
    span(&read[1], c_0, b"c_0", type_num, 3, c_shape, READ | CONTIGUOUS)
    in_place(&read[0], &written[1])
    in_place(&read[1], &written[2])
    return apart(written, 3, read, 2)


cdef int new_gradients(list to, void **data, const frnn_layer *layer, tuple wanted, int type_num) except -1:
    """Appends new arrays for the gradients of the weights that are wanted, beside what says so."""
    cdef int i, axes
    cdef int64_t shape[2]
    if len(wanted) != FRNN_WEIGHTS:
        raise ValueError(f"wanted: expected {FRNN_WEIGHTS} of each direction, got {len(wanted)}")
    for i in range(FRNN_WEIGHTS):
        data[i] = NULL
        if wanted[i] is None:
            continue
        axes = frnn_weight_shape(layer, <frnn_weight>i, shape)
        if axes == 0:
            raise ValueError(f"wanted: expected None for {WEIGHTS[i]}, the layer has none")
        gradient = empty_array(axes, <cnp.npy_intp *>shape, type_num)
        data[i] = cnp.PyArray_DATA(<cnp.ndarray>gradient)
        to.append((wanted[i], gradient))
    return 0


cpdef backward(Tape tape, int64_t first, int64_t layers, dy, dh_n, dc_n, bint with_dx, dh_0, dc_0,
               tuple wanted, tuple flow=None):
    """BPTT of the forward call that made the tape, which is consumed; returns ``(dx, gradients)``.

    dy (B, T, D*P), dh_n (layers, B, P), dc_n (layers, B, H) are read, None for zeros; dh_0 and dc_0 are written,
    None where not wanted. New are dx, for each direction as x, None unless `with_dx`, and the weights' gradients:
    `wanted` has for each direction nine things in the order of WEIGHTS, and for each that is not None `gradients`
    has (thing, gradient). Sequences are laid out as x was. flow, for each direction a float64 array (B, T) or None,
    gets the sum of squares of the gradient that reaches each h.
    """
    cdef size_t size
    cdef frnn_backward_args args[DIRECTIONS]
    cdef void *workspaces[DIRECTIONS]
    cdef size_t sizes[DIRECTIONS]
    cdef char stack[STACK_BYTES]
    cdef frnn_status status
    cdef list failure = None, memories, dx = [], gradients = []
    cdef Memory memory
    cdef frnn_provider provider
    cdef Span written[2 + DIRECTIONS] # dh_0, dc_0, flow
    cdef Span read[4]
    cdef Span dx_span
    cdef int64_t flow_shape[2]
    if tape is None:
        raise TypeError("tape: expected a Tape, got None")
    cdef Pack pack = tape.packs[0]
    cdef int d, calls = <int>len(tape.packs)
    if pack.backward_pack is None:
        raise ValueError("the tape's pack was made without backward=True")
    if not 0 <= first <= layers - calls:
        raise ValueError(f"first: expected 0 to {layers - calls}, got {first}")
    if len(wanted) != calls:
        raise ValueError(f"wanted: expected {calls}, got {len(wanted)}")
    if flow is not None and len(flow) != calls:
        raise ValueError(f"flow: expected {calls}, got {len(flow)}")
    cdef int64_t H = pack.layer.hidden_size, I = pack.layer.input_size, P = pack.state_size
    cdef bint step = tape.ids is None and tape.x.ndim == 2
    flow_shape[0] = tape.batch.batch
    flow_shape[1] = tape.batch.time
    read[0] = tape.x_span
    sequence_span(&read[1], dy, b"dy", pack.type_num, &tape.batch, step, tape.batch_first, calls * P, READ)
    state_span(&read[2], dh_n, b"dh_n", pack, &tape.batch, first, calls, layers, P, READ)
    state_span(&read[3], dc_n, b"dc_n", pack, &tape.batch, first, calls, layers, H, READ)
    state_span(&written[0], dh_0, b"dh_0", pack, &tape.batch, first, calls, layers, P, WRITTEN)
    state_span(&written[1], dc_0, b"dc_0", pack, &tape.batch, first, calls, layers, H, WRITTEN)
    for d in range(calls):
        span(&written[2 + d], None if flow is None else flow[d], b"flow", cnp.NPY_FLOAT64, 2, flow_shape,
             WRITTEN | CONTIGUOUS)
    apart(written, 2 + calls, read, 4)
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
        memory = memories[d]
        own_dx = empty_like(tape.x) if with_dx else None
        if tape.ids is None:
            sequence_span(&dx_span, own_dx, b"dx", pack.type_num, &tape.batch, step, tape.batch_first, I, WRITTEN)
        else:
            table_span(&dx_span, own_dx, b"dx", pack.type_num, tape.c_ids.x_rows, I, WRITTEN)
        dx.append(own_dx)
        new_gradients(gradients, args[d].gradients, &pack.layer, wanted[d], pack.type_num)
        args[d].pack = pack.backward_pack.data
        args[d].batch = tape.batch
        args[d].batch.reverse = tape.reverse ^ (d == 1)
        args[d].x = view_of(&read[0], pack.item, 0, tape.batch_first)
        args[d].tape = memory.data
        args[d].dy = view_of(&read[1], pack.item, d * P, tape.batch_first)
        args[d].dh_n = at(&read[2], d * tape.batch.batch * P * pack.item)
        args[d].dc_n = at(&read[3], d * tape.batch.batch * H * pack.item)
        args[d].dx = view_of(&dx_span, pack.item, 0, tape.batch_first)
        args[d].dh0 = at(&written[0], d * tape.batch.batch * P * pack.item)
        args[d].dc0 = at(&written[1], d * tape.batch.batch * H * pack.item)
        args[d].flow = <double *>written[2 + d].data
        args[d].seed = tape.seed + <uint64_t>d
        args[d].accumulate = False
        args[d].checkpoint_every = tape.checkpoint_every
        args[d].forward_pack = pack.forward_pack.data
        args[d].ids = tape.c_ids
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
    return tuple(dx), gradients
