# What other packages may cimport: fastrnn.h's types, for which their include_dirs want fastrnn.get_include(), and its
# functions for layers, which come through this module, so that nothing is linked with. See csrc/README.md.
from libc.stdint cimport int64_t, uint64_t

cdef extern from "fastrnn.h" nogil:
    ctypedef enum frnn_status:
        FRNN_OK
        FRNN_BAD_ARGUMENT
        FRNN_TOO_LARGE
        FRNN_NO_ISA
        FRNN_GEMM_FAILED
    ctypedef enum frnn_dtype:
        FRNN_F32
        FRNN_F64
    ctypedef enum frnn_cell:
        FRNN_RNN_TANH
        FRNN_RNN_RELU
        FRNN_GRU
        FRNN_LSTM
        FRNN_GRU_MINIMAL
        FRNN_LSTM_INPUT
        FRNN_LSTM_FORGET
        FRNN_GRU_BEFORE
    ctypedef enum frnn_pack_kind:
        FRNN_PACK_FORWARD
        FRNN_PACK_BACKWARD
        FRNN_PACK_BORROWED
        FRNN_PACK_BFLOAT16
    ctypedef enum frnn_function:
        FRNN_OWN
        FRNN_TANH
        FRNN_SIGMOID
        FRNN_RELU
        FRNN_HARD_SIGMOID
        FRNN_IDENTITY
    ctypedef struct frnn_layer:
        frnn_cell cell
        frnn_dtype dtype
        int64_t input_size
        int64_t hidden_size
        int64_t proj_size
        frnn_function gate_activation
        frnn_function state_activation
        double clip
        int peephole
        int layer_norm
        double zoneout_h
        double zoneout_c
        double recurrent_dropout
    ctypedef enum frnn_weight:
        pass
    enum: # of frnn_weight, as indices
        FRNN_W_IH
        FRNN_W_HH
        FRNN_B_IH
        FRNN_B_HH
        FRNN_W_HR
        FRNN_W_CH
        FRNN_LN_IH
        FRNN_LN_HH
        FRNN_LN_C
    enum:
        FRNN_WEIGHTS = 9
    ctypedef struct frnn_view:
        void *data
        int64_t batch_stride
        int64_t time_stride
    ctypedef struct frnn_ids:
        frnn_view at
        int64_t x_rows
    ctypedef struct frnn_batch:
        int64_t batch
        int64_t time
        const int64_t *lengths
        int reverse
        int64_t first_step
        int64_t steps
    ctypedef frnn_status (*frnn_gemm)(void *, frnn_dtype, int64_t, int64_t, int64_t,
                                      const void *, int64_t, int, const void *, int64_t, int,
                                      void *, int64_t) noexcept
    ctypedef struct frnn_provider:
        frnn_gemm gemm
        void *context
    ctypedef struct frnn_forward_args:
        const void *pack
        frnn_batch batch
        frnn_view x
        const void *h0
        const void *c0
        frnn_view y
        void *h_n
        void *c_n
        void *tape
        const frnn_provider *provider
        const void *w_ih
        int threads
        uint64_t seed
        int64_t checkpoint_every
        frnn_ids ids
    ctypedef struct frnn_backward_args:
        const void *pack
        frnn_batch batch
        frnn_view x
        void *tape
        frnn_view dy
        const void *dh_n
        const void *dc_n
        frnn_view dx
        void *dh0
        void *dc0
        void *gradients[FRNN_WEIGHTS]
        double *flow
        const frnn_provider *provider
        const void *w_ih
        int threads
        uint64_t seed
        int accumulate
        int64_t checkpoint_every
        const void *forward_pack
        frnn_ids ids

cdef const char *frnn_cell_name(frnn_cell cell) noexcept nogil
cdef int64_t frnn_gates(frnn_cell cell) noexcept nogil
cdef size_t frnn_itemsize(frnn_dtype dtype) noexcept nogil
cdef const char *frnn_status_text(frnn_status status) noexcept nogil
cdef int frnn_weight_shape(const frnn_layer *layer, frnn_weight weight, int64_t *shape) noexcept nogil
cdef frnn_status frnn_pack_size(const frnn_layer *layer, frnn_pack_kind kind, size_t *bytes) noexcept nogil
cdef frnn_status frnn_pack(const frnn_layer *layer, frnn_pack_kind kind, const void *const *weights, void *pack,
                           int threads) noexcept nogil
cdef frnn_status frnn_forward_workspace(const frnn_forward_args *args, size_t *bytes) noexcept nogil
cdef frnn_status frnn_forward(const frnn_forward_args *args, void *workspace) noexcept nogil
cdef frnn_status frnn_forward_each(const frnn_forward_args *args, void *const *workspaces, int calls) noexcept nogil
cdef frnn_status frnn_tape_size(const frnn_layer *layer, const frnn_batch *batch, int64_t checkpoint_every,
                                size_t *bytes) noexcept nogil
cdef frnn_status frnn_backward_workspace(const frnn_backward_args *args, size_t *bytes) noexcept nogil
cdef frnn_status frnn_backward(const frnn_backward_args *args, void *workspace) noexcept nogil
cdef frnn_status frnn_backward_each(const frnn_backward_args *args, void *const *workspaces, int calls) noexcept nogil
cdef frnn_status frnn_map(frnn_function function, frnn_dtype dtype, int64_t n, const void *x, void *y) noexcept nogil
cdef int frnn_num_threads() noexcept nogil
