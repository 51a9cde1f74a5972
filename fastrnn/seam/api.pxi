# Included by _core.pyx: the rest of csrc/fastrnn.h, and the functions of _core.pxd, which pass their arguments on:
# Cython offers no function of C itself to other packages.

cdef extern from "fastrnn.h" nogil:
    frnn_status frnn_matmul_workspace(frnn_dtype, int64_t m, int64_t n, int64_t k, int threads,
                                      size_t *bytes)
    frnn_status frnn_matmul(frnn_dtype, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                            int transpose_a, const void *b, int64_t ldb, int transpose_b,
                            void *c, int64_t ldc, int threads, void *workspace)
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
    frnn_status frnn_set_isa(const char *name)
    int frnn_has_isa(const char *name)
    frnn_status frnn_set_num_threads(int threads)
    ctypedef struct frnn_team:
        void (*parallel)(void (*body)(void *) noexcept nogil, void *, unsigned, unsigned) noexcept nogil
        int (*max_threads)() noexcept nogil
        int (*num_threads)() noexcept nogil
        int (*thread_num)() noexcept nogil
    void frnn_set_team(const frnn_team *team)
    int frnn_default_num_threads()
    const char *frnn_isa()

    const char *c_cell_name "frnn_cell_name"(...)
    int64_t c_gates "frnn_gates"(...)
    size_t c_itemsize "frnn_itemsize"(...)
    const char *c_status_text "frnn_status_text"(...)
    int c_weight_shape "frnn_weight_shape"(...)
    frnn_status c_pack_size "frnn_pack_size"(...)
    frnn_status c_pack "frnn_pack"(...)
    frnn_status c_forward_workspace "frnn_forward_workspace"(...)
    frnn_status c_forward "frnn_forward"(...)
    frnn_status c_forward_each "frnn_forward_each"(...)
    frnn_status c_tape_size "frnn_tape_size"(...)
    frnn_status c_backward_workspace "frnn_backward_workspace"(...)
    frnn_status c_backward "frnn_backward"(...)
    frnn_status c_backward_each "frnn_backward_each"(...)
    frnn_status c_map "frnn_map"(...)
    int c_num_threads "frnn_num_threads"()


cdef const char *frnn_cell_name(frnn_cell cell) noexcept nogil:
    return c_cell_name(cell)

cdef int64_t frnn_gates(frnn_cell cell) noexcept nogil:
    return c_gates(cell)

cdef size_t frnn_itemsize(frnn_dtype dtype) noexcept nogil:
    return c_itemsize(dtype)

cdef const char *frnn_status_text(frnn_status status) noexcept nogil:
    return c_status_text(status)

cdef int frnn_weight_shape(const frnn_layer *layer, frnn_weight weight, int64_t *shape) noexcept nogil:
    return c_weight_shape(layer, weight, shape)

cdef frnn_status frnn_pack_size(const frnn_layer *layer, frnn_pack_kind kind, size_t *bytes) noexcept nogil:
    return c_pack_size(layer, kind, bytes)

cdef frnn_status frnn_pack(const frnn_layer *layer, frnn_pack_kind kind, const void *const *weights, void *pack,
                           int threads) noexcept nogil:
    return c_pack(layer, kind, weights, pack, threads)

cdef frnn_status frnn_forward_workspace(const frnn_forward_args *args, size_t *bytes) noexcept nogil:
    return c_forward_workspace(args, bytes)

cdef frnn_status frnn_forward(const frnn_forward_args *args, void *workspace) noexcept nogil:
    return c_forward(args, workspace)

cdef frnn_status frnn_forward_each(const frnn_forward_args *args, void *const *workspaces, int calls) noexcept nogil:
    return c_forward_each(args, workspaces, calls)

cdef frnn_status frnn_tape_size(const frnn_layer *layer, const frnn_batch *batch, int64_t checkpoint_every,
                                size_t *bytes) noexcept nogil:
    return c_tape_size(layer, batch, checkpoint_every, bytes)

cdef frnn_status frnn_backward_workspace(const frnn_backward_args *args, size_t *bytes) noexcept nogil:
    return c_backward_workspace(args, bytes)

cdef frnn_status frnn_backward(const frnn_backward_args *args, void *workspace) noexcept nogil:
    return c_backward(args, workspace)

cdef frnn_status frnn_backward_each(const frnn_backward_args *args, void *const *workspaces,
                                    int calls) noexcept nogil:
    return c_backward_each(args, workspaces, calls)

cdef frnn_status frnn_map(frnn_function function, frnn_dtype dtype, int64_t n, const void *x, void *y) noexcept nogil:
    return c_map(function, dtype, n, x, y)

cdef int frnn_num_threads() noexcept nogil:
    return c_num_threads()
