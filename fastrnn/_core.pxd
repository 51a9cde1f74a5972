# csrc/fastrnn.h, as _core.pyx sees it.
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
        pass
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
        FRNN_W_IH
        FRNN_B_HH
    enum:
        FRNN_WEIGHTS = 9
    ctypedef struct frnn_view:
        void *data
        int64_t batch_stride
        int64_t time_stride
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

    const char *frnn_cell_name(frnn_cell cell)
    int64_t frnn_gates(frnn_cell cell)
    size_t frnn_itemsize(frnn_dtype dtype)
    const char *frnn_status_text(frnn_status status)
    frnn_status frnn_pack_size(const frnn_layer *, frnn_pack_kind, size_t *bytes)
    int frnn_weight_shape(const frnn_layer *, frnn_weight, int64_t *shape)
    frnn_status frnn_pack(const frnn_layer *, frnn_pack_kind, const void *const *weights, void *pack,
                          int threads)
    frnn_status frnn_tape_size(const frnn_layer *, const frnn_batch *, int64_t checkpoint_every, size_t *bytes)
    frnn_status frnn_forward_workspace(const frnn_forward_args *, size_t *bytes)
    frnn_status frnn_forward_each(const frnn_forward_args *, void *const *workspaces, int calls)
    frnn_status frnn_backward_workspace(const frnn_backward_args *, size_t *bytes)
    frnn_status frnn_backward_each(const frnn_backward_args *, void *const *workspaces, int calls)
    frnn_status frnn_matmul_workspace(frnn_dtype, int64_t m, int64_t n, int64_t k, int threads,
                                      size_t *bytes)
    frnn_status frnn_matmul(frnn_dtype, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                            int transpose_a, const void *b, int64_t ldb, int transpose_b,
                            void *c, int64_t ldc, int threads, void *workspace)
    frnn_status frnn_map(frnn_function, frnn_dtype, int64_t n, const void *x, void *y)
    ctypedef enum frnn_rule:
        FRNN_SGD
        FRNN_RMSPROP
        FRNN_ADAM
        FRNN_ADAGRAD
    ctypedef struct frnn_optimizer:
        frnn_rule rule
        int nesterov
        double learning_rate
        double momentum
        double decay
        double epsilon
        double clip
    ctypedef struct frnn_parameter:
        int64_t n
        void *data
        const void *gradient
        double scale
        double weight_decay
        void *momentum
        void *velocity

    frnn_status frnn_softmax(frnn_dtype, int64_t rows, int64_t n, const void *x, void *y, int threads)
    frnn_status frnn_cross_entropy(frnn_dtype, int64_t rows, int64_t classes, const void *logits,
                                   const int64_t *targets, const double *weights, void *gradient, double *losses, double *loss,
                                   int threads)
    ctypedef struct frnn_ctc_args:
        frnn_dtype dtype
        int64_t batch
        int64_t time
        int64_t classes
        int64_t most_labels
        const void *logits
        const int64_t *labels
        const int64_t *input_lengths
        const int64_t *label_lengths
        int64_t blank
        const double *weights
        void *gradient
        double *losses
        int threads

    frnn_status frnn_ctc_workspace(const frnn_ctc_args *, size_t *bytes)
    frnn_status frnn_ctc(const frnn_ctc_args *, void *workspace)
    frnn_status frnn_add_row(frnn_dtype, int64_t rows, int64_t n, const void *row, void *x)
    frnn_status frnn_sum_rows(frnn_dtype, int64_t rows, int64_t n, const void *x, void *sum)
    frnn_status frnn_add_rows_at(frnn_dtype, int64_t rows, int64_t n, const void *x, const int64_t *at,
                                 int64_t y_rows, void *y)
    frnn_status frnn_update(const frnn_optimizer *, frnn_dtype, int64_t count, const frnn_parameter *,
                            int threads)
    frnn_status frnn_squares_workspace(int64_t count, const frnn_parameter *, size_t *bytes)
    frnn_status frnn_squares(frnn_dtype, int64_t count, const frnn_parameter *, double *squares,
                             int threads, void *workspace)
    const char *frnn_isa()
    frnn_status frnn_set_isa(const char *name)
    int frnn_has_isa(const char *name)
    int frnn_num_threads()
    frnn_status frnn_set_num_threads(int threads)
    int frnn_default_num_threads()
