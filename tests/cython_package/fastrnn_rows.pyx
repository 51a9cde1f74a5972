# cython: language_level=3
"""An LSTM of float32 on fastrnn's kernels: no Python while it runs."""

from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fastrnn._core cimport (
    FRNN_B_HH, FRNN_B_IH, FRNN_F32, FRNN_LSTM, FRNN_OK, FRNN_PACK_FORWARD, FRNN_W_HH, FRNN_W_IH, FRNN_WEIGHTS,
    frnn_forward, frnn_forward_args, frnn_forward_workspace, frnn_layer, frnn_pack, frnn_pack_size, frnn_status,
    frnn_status_text,
)


cdef class Block:
    """Memory aligned to 64 bytes."""
    cdef void *start
    cdef void *data

    def __cinit__(self, size_t size):
        self.start = malloc(size + 64)
        if self.start == NULL:
            raise MemoryError()
        self.data = <void *>((<uintptr_t>self.start + 63) // 64 * 64)

    def __dealloc__(self):
        free(self.start)


cdef int check(frnn_status status) except -1:
    if status != FRNN_OK:
        raise ValueError(frnn_status_text(status).decode())
    return 0


cdef class LSTM:
    """Made of PyTorch's weights; it has a state for each row of a batch, which is updated in place."""
    cdef frnn_layer layer
    cdef Block pack
    cdef readonly float[:, ::1] h
    cdef readonly float[:, ::1] c

    def __init__(self, const float[:, ::1] w_ih, const float[:, ::1] w_hh, const float[::1] b_ih,
                 const float[::1] b_hh, float[:, ::1] h, float[:, ::1] c):
        cdef const void *weights[FRNN_WEIGHTS]
        cdef size_t size
        cdef frnn_status status
        if w_hh.shape[0] != w_ih.shape[0] or w_hh.shape[0] != 4 * w_hh.shape[1]:
            raise ValueError("w_ih, w_hh: expected (4 H, I) and (4 H, H)")
        if not b_ih.shape[0] == b_hh.shape[0] == w_ih.shape[0]:
            raise ValueError("b_ih, b_hh: expected (4 H)")
        if not h.shape[0] == c.shape[0] or not h.shape[1] == c.shape[1] == w_hh.shape[1]:
            raise ValueError("h, c: expected (batch, H)")
        self.h, self.c = h, c
        memset(&self.layer, 0, sizeof(self.layer))
        self.layer.cell = FRNN_LSTM
        self.layer.dtype = FRNN_F32
        self.layer.input_size = w_ih.shape[1]
        self.layer.hidden_size = w_hh.shape[1]
        memset(weights, 0, sizeof(weights))
        weights[FRNN_W_IH] = &w_ih[0, 0]
        weights[FRNN_W_HH] = &w_hh[0, 0]
        weights[FRNN_B_IH] = &b_ih[0]
        weights[FRNN_B_HH] = &b_hh[0]
        check(frnn_pack_size(&self.layer, FRNN_PACK_FORWARD, &size))
        self.pack = Block(size)
        with nogil:
            status = frnn_pack(&self.layer, FRNN_PACK_FORWARD, weights, self.pack.data, 1)
        check(status)

    def run(self, const float[:, :, ::1] x, float[:, :, ::1] y):
        """y (batch, time, H) of x (batch, time, I): one time step, or any number of them."""
        cdef frnn_forward_args args
        cdef frnn_status status
        cdef size_t size
        cdef int64_t I = self.layer.input_size, H = self.layer.hidden_size
        if x.shape[0] != self.h.shape[0] or x.shape[2] != I:
            raise ValueError("x: expected (batch, time, I)")
        if y.shape[0] != x.shape[0] or y.shape[1] != x.shape[1] or y.shape[2] != H:
            raise ValueError("y: expected (batch, time, H)")
        memset(&args, 0, sizeof(args))
        args.pack = self.pack.data
        args.threads = 1
        args.batch.batch = x.shape[0]
        args.batch.time = x.shape[1]
        args.x.data = <void *>&x[0, 0, 0]
        args.x.batch_stride, args.x.time_stride = x.shape[1] * I, I
        args.y.data = &y[0, 0, 0]
        args.y.batch_stride, args.y.time_stride = x.shape[1] * H, H
        args.h0 = args.h_n = &self.h[0, 0]
        args.c0 = args.c_n = &self.c[0, 0]
        check(frnn_forward_workspace(&args, &size))
        cdef Block room = Block(size)
        with nogil:
            status = frnn_forward(&args, room.data)
        check(status)
