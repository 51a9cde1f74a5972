# Included by _core.pyx: a call of a recurrent layer, its layers in turn, and the way back.

cdef class Trainable:
    """What is seen here of a parameter: `version`, another after each change; `grad`, None or the sum of gradients;
    and `_lent`, its values, which stay as they are while another holds this array, None where `snapshot` makes one.
    """
    cdef public int64_t version
    cdef public object grad
    cdef public object _lent

    def _put_grad(self, grad):
        """Makes `grad` the gradient where there is none; whether it did."""
        return put_grad(self, grad)


cdef bint put_grad(Trainable parameter, grad):
    cdef bint first
    with cython.critical_section(parameter):
        first = parameter.grad is None
        if first:
            parameter.grad = grad
    return first


cdef class Packed:
    """A layer's packs by direction, or None, and the versions of the weights that they were made from; whether a
    training call has borrowed these weights.
    """
    cdef tuple packs
    cdef bint borrowed
    cdef int64_t versions[DIRECTIONS * FRNN_WEIGHTS]


cdef class Recurrence:
    """What runs a recurrent layer, a fastrnn.layers.recurrent.Recurrent, which each call names as `owner`.

    layers: a Layer for each of its layers, from below; weights: for each of them by direction its Trainables in the
    order of WEIGHTS, None for what there is not, of `bfloat16` if so; python: what is done in Python, by the names of
    fastrnn.layers.call.
    """
    cdef list layers
    cdef list weights
    cdef list packed  # by layer, Packed or None
    cdef object python
    cdef bint bfloat16
    cdef bint has_c
    cdef bint draws  # masks, whatever its dropout
    cdef bint numpy_is_default  # with the instruction set `isa`
    cdef const char *isa
    cdef int type_num
    cdef int directions
    cdef int64_t states
    cdef int64_t input_size
    cdef int64_t hidden_size
    cdef int64_t output_size

    def __init__(self, list layers not None, list weights not None, bint has_c, bint bfloat16, python):
        if not layers or len(weights) != len(layers):
            raise ValueError(f"weights: expected one for each layer, got {len(weights)} for {len(layers)}")
        for both in weights:
            if not 1 <= len(both) <= DIRECTIONS or len(both) != len(weights[0]):
                raise ValueError(f"weights: expected one or two directions of each layer, got {len(both)}")
            for own in both:
                if not isinstance(own, tuple) or len(own) != FRNN_WEIGHTS:
                    raise ValueError(f"weights: expected tuples of {FRNN_WEIGHTS}, got {own!r}")
                for weight in own:
                    if weight is not None and not isinstance(weight, Trainable):
                        raise TypeError(f"weights: expected parameters, got {type(weight).__name__}")
        cdef Layer layer = layers[0]
        self.layers = list(layers)
        self.weights = list(weights)
        self.packed = [None] * len(layers)
        self.python = python
        self.bfloat16 = bfloat16
        self.has_c = has_c
        self.draws = layer.c.zoneout_h or layer.c.zoneout_c or layer.c.recurrent_dropout
        self.type_num = cnp.NPY_FLOAT64 if layer.c.dtype == FRNN_F64 else cnp.NPY_FLOAT32
        self.directions = <int>len(weights[0])
        self.states = len(layers) * self.directions
        self.input_size = layer.c.input_size
        self.hidden_size = layer.c.hidden_size
        self.output_size = layer.state_size

    def packs(self, Py_ssize_t layer, bint training):
        """One layer's packed weights by direction."""
        if not 0 <= layer < len(self.layers):
            raise IndexError(f"layer: expected 0 to {len(self.layers) - 1}, got {layer}")
        return self.packs_of(layer, training, 0)

    cdef tuple packs_of(self, Py_ssize_t k, bint training, int borrow):
        """Cached on the weights' versions. Where those at hand are of another version, or do not fit the instruction
        set or who does the products, packs `borrow` the weights as they stand, see Pack; but not the same ones twice:
        then they are worth packing.
        """
        cdef Layer layer = self.layers[k]
        cdef tuple weights = self.weights[k], own
        cdef Packed packed
        cdef Pack pack
        cdef list packs = []
        cdef bint numpy_gemm, unchanged = False
        cdef int choice = gemm_choice # another thread may change it meanwhile
        with cython.critical_section(self):
            packed = self.packed[k]
        if packed is not None:
            unchanged = versions_of(weights, packed.versions, False)
            if unchanged and packed.packs is not None:
                pack = packed.packs[0]
                if (pack.isa == frnn_isa() and pack.gemm_choice == choice
                        and not (training and pack.backward_pack is None)):
                    return packed.packs
        numpy_gemm = not self.bfloat16 and self.by_numpy(choice)
        if unchanged and packed.borrowed:
            borrow = 0
        if not borrow: # the old ones' memory, near in the caches, is there for the new ones
            packed = None
            with cython.critical_section(self):
                self.packed[k] = None
        if not borrow or not unchanged:
            packed = Packed.__new__(Packed)
            # Before the values are read: who writes meanwhile makes this an old one.
            versions_of(weights, packed.versions, True)
        for own in weights:
            pack = Pack.__new__(Pack)
            pack.gemm_choice = choice
            pack.make(layer, values_of(own), training, numpy_gemm, borrow, self.bfloat16)
            packs.append(pack)
        made = tuple(packs)
        if borrow:
            packed.borrowed = True
        else:
            packed.packs = made
        with cython.critical_section(self):
            self.packed[k] = packed
        return made

    cdef bint by_numpy(self, int choice) except -1:
        """Whether the products over all steps are NumPy's, with such a `gemm_choice`."""
        cdef const char *isa = frnn_isa()
        if choice:
            return GEMMS[choice - 1] == "numpy"
        with cython.critical_section(self):
            if self.isa == isa:
                return self.numpy_is_default
        cdef bint by_default = self.python.default_gemm(isa.decode()) == "numpy"
        with cython.critical_section(self):
            self.numpy_is_default = by_default
            self.isa = isa
        return by_default

    cdef object new_state(self, int64_t batch, int64_t features):
        cdef cnp.npy_intp *shape = [self.states, batch, features]
        return empty_array(3, shape, self.type_num)

    cdef tuple parts_of(self, owner, state, int64_t batch, names):
        """A state as (h, c), None where there is none; the owner refuses or converts what does not fit."""
        h = state
        c = None
        if state is None:
            return None, None
        if self.has_c:
            if not is_pair(state):
                return owner.split_state(state, batch, names)
            h, c = state
        if not (fits(h, self.type_num, self.states, batch, self.output_size)
                and fits(c, self.type_num, self.states, batch, self.hidden_size)):
            return owner.split_state(state, batch, names)
        return h, c

    def forward(self, owner, x, state, lengths, bint training, int64_t checkpoint_every, ids=None):
        """``((output, state), pullback)``, see `Recurrent.vjp`; no pullback unless `training`. Where there are ids,
        int64 in the place of x's first two axes, x is the table, (rows, input_size), that they refer to.
        """
        cdef Py_ssize_t k, last = len(self.layers) - 1
        cdef int D = self.directions
        cdef bint first = owner.batch_first, sequences = owner.return_sequences
        cdef bint double = self.type_num == cnp.NPY_FLOAT64
        cdef uint64_t seed = 0
        cdef cnp.npy_intp shape[3]
        cdef cnp.ndarray axes
        cdef Pullback pullback = None
        cdef Layer layer
        c_n = y = between = None
        if training and self.bfloat16:
            raise ValueError("vjp: expected weights of float32 or float64; bfloat16 is for inference")
        if ids is None and (lengths is not None or not walkable(x, 3, self.input_size, double)):
            x, lengths = self.python.checked(owner, x, lengths)
        axes = x if ids is None else ids
        shape[0] = cnp.PyArray_DIM(axes, 0)
        shape[1] = cnp.PyArray_DIM(axes, 1)
        shape[2] = D * self.output_size
        cdef cnp.npy_intp batch = shape[0 if first else 1], time = shape[1 if first else 0]
        h_0, c_0 = self.parts_of(owner, state, batch, STATE_NAMES)
        h_n = self.new_state(batch, self.output_size)
        if self.has_c:
            c_n = self.new_state(batch, self.hidden_size)
        if training:
            pullback = Pullback.__new__(Pullback)
            pullback.recurrence = self
            pullback.owner = owner
            pullback.tapes = []
            pullback.masks = []
            pullback.batch = batch
            pullback.time = time
            pullback.sequences = sequences
            pullback.shape[:] = [shape[0] if sequences else batch, shape[1] if sequences else shape[2], shape[2]]
            if self.draws or (last and owner.dropout):
                seed, between = self.python.drawn(owner)
        for k in range(last + 1):
            layer = self.layers[k]
            y = empty_array(3, shape, self.type_num) if sequences or k < last else None
            tape = forward(
                self.packs_of(k, training, layer.worth_borrowing(batch, time) if training else 0), k * D,
                self.states, x, lengths, False, first, h_0, c_0, y, h_n, c_n, training,
                seed + <uint64_t>(k * D) if seed else 0, checkpoint_every, ids if k == 0 else None)
            if training:
                pullback.tapes.append(tape)
            if k < last:
                x = y
                if between is not None:
                    mask = between(y.shape)
                    x *= mask
                    pullback.masks.append(mask)
        output = y if sequences else self.python.last_output(owner, h_n)
        return (output, h_n if c_n is None else (h_n, c_n)), pullback

    def step(self, owner, x, state, out):
        """``(y, state)``, see `Recurrent.step`."""
        cdef Py_ssize_t k, last = len(self.layers) - 1
        cdef cnp.npy_intp shape[2]
        y = new = c_n = None
        if not walkable(x, 2, self.input_size, self.type_num == cnp.NPY_FLOAT64):
            x = self.python.checked_step(owner, x)
        shape[0] = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
        shape[1] = self.output_size
        h_0, c_0 = self.parts_of(owner, state, shape[0], STATE_NAMES)
        if out is not None:
            if not is_pair(out):
                raise TypeError(f"out: expected (y, state), got {type(out).__name__}")
            y, new = out
        if new is None:
            h_n = new = self.new_state(shape[0], self.output_size)
            if self.has_c:
                c_n = self.new_state(shape[0], self.hidden_size)
                new = h_n, c_n
        else:
            h_n = new
            if self.has_c:
                if is_pair(new):
                    h_n, c_n = new
                if h_n is None or c_n is None:
                    raise TypeError("out: expected (y, (h_n, c_n)), two arrays in the state, "
                                    f"got {type(new).__name__}")
            if last:  # before the first of them writes
                check_step(y, h_n, c_n, h_0, c_0, self.states, shape[0], self.output_size, self.hidden_size,
                           self.type_num)
        if y is None:
            y = empty_array(2, shape, self.type_num)
        for k in range(last + 1):
            forward(self.packs_of(k, False, 0), k, self.states, x, None, False, True, h_0, c_0,
                    y if k == last else None, h_n, c_n, False)
            if k < last:
                x = h_n[k]
        return y, new


STATE_NAMES = ("state", "h_0", "c_0")
GRADIENT_NAMES = ("dstate", "dh_n", "dc_n")


cdef bint is_pair(state):
    return isinstance(state, (tuple, list)) and len(state) == 2


cdef bint versions_of(tuple weights, int64_t *versions, bint note):
    """Whether the weights by direction have these versions; they are written if `note`."""
    cdef Trainable parameter
    cdef tuple own
    cdef int i
    for own in weights:
        for i in range(FRNN_WEIGHTS):
            if own[i] is None:
                continue
            parameter = <Trainable>own[i]
            if note:
                versions[i] = parameter.version
            elif versions[i] != parameter.version:
                return False
        versions += FRNN_WEIGHTS
    return True


cdef tuple values_of(tuple weights):
    cdef list values = []
    for parameter in weights:
        lent = parameter
        if parameter is not None:
            lent = (<Trainable>parameter)._lent
            if lent is None:
                lent = parameter.snapshot()
        values.append(lent)
    return tuple(values)


cdef class Pullback:
    """The way back of one call, to be gone once: see `Recurrent.vjp`."""
    cdef Recurrence recurrence
    cdef object owner
    cdef list tapes  # until the call takes them
    cdef list masks  # between two layers
    cdef cnp.npy_intp batch
    cdef cnp.npy_intp time
    cdef bint sequences
    cdef int64_t shape[3]  # the output's; without `sequences` two axes
    cdef public object mask  # whose steps these are of all that there are

    def __init__(self):
        raise TypeError("Pullback: expected to be made by a call")

    def check_output(self, doutput):
        """`doutput` as an array of the output's shape and dtype; raises ValueError, TypeError."""
        if not cnp.PyArray_Check(doutput):
            doutput = np.asarray(doutput)
        shaped(doutput, b"doutput", self.recurrence.type_num, 3 if self.sequences else 2, self.shape)
        return doutput

    def __call__(self, doutput, dstate=None, *, bint with_dx=True, bint with_dstate=True):
        cdef Recurrence r = self.recurrence
        cdef Py_ssize_t k, last = len(r.layers) - 1
        cdef int D = r.directions
        cdef list tapes, gradients, all_gradients = []
        dy = dh_0 = dc_0 = flow = own_flow = None
        dh_n, dc_n = r.parts_of(self.owner, dstate, self.batch, GRADIENT_NAMES)
        if doutput is not None:
            dy = self.check_output(doutput)
            if not self.sequences:
                dy, dh_n = None, r.python.final_gradient(self.owner, dy, dh_n)
            elif not walkable(dy, 3, self.shape[2], r.type_num == cnp.NPY_FLOAT64):
                dy = dy.copy()
        with cython.critical_section(self):
            tapes = self.tapes
            self.tapes = None
        if tapes is None:
            raise RuntimeError("pullback: called a second time; call vjp again")
        if with_dstate:
            dh_0 = r.new_state(self.batch, r.output_size)
            if r.has_c:
                dc_0 = r.new_state(self.batch, r.hidden_size)
        on_gradient = self.owner.on_gradient
        if on_gradient is not None:
            flow = np.empty((r.states, self.batch, self.time))
        for k in range(last, -1, -1):
            if k < last and self.masks:
                dy *= self.masks[k]
            if flow is not None:
                own_flow = tuple(flow[k * D:(k + 1) * D])
            parts, gradients = backward(tapes.pop(), k * D, r.states, dy, dh_n, dc_n, k > 0 or with_dx, dh_0, dc_0,
                                        r.weights[k], own_flow)
            all_gradients += gradients
            dy = parts[0]
            if D == 2 and dy is not None:
                dy = np.add(dy, parts[1], out=dy)
        for parameter, gradient in all_gradients:
            if not put_grad(<Trainable>parameter, gradient):
                parameter.add_grad(gradient)
        if flow is not None:
            on_gradient(flow if self.mask is None else self.mask.scatter_flow(flow))
        return dy, dh_0 if dc_0 is None else (dh_0, dc_0)
