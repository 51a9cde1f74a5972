// fastrnn: fused LSTM, GRU and vanilla RNN over time, forward and BPTT. The only header an embedder reads.
//
// Compile csrc/*.c and csrc/kernels/*.c with -O2 -ffp-contract=off -pthread and nothing else, link with -lm.
//
// Sizes: I input_size, H hidden_size, P = H or proj_size, G gates (1 RNN, 3 GRU, 4 LSTM), B batch, T time steps.
// Weights have PyTorch's layout and order of gates. Features are contiguous; strides count elements.
// All memory is the caller's; nothing here prints, exits or keeps a pointer. What is written must not
// overlap anything else that is given. Functions may be called from several threads at once, as long as
// they do not share writable memory. Packs, tapes and workspaces are aligned to 64 bytes.
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FRNN_OK = 0,
    FRNN_BAD_ARGUMENT, // a size out of range, a required pointer missing, another kind of pack
    FRNN_TOO_LARGE,    // the bytes wanted do not fit in size_t
    FRNN_NO_ISA,       // unknown instruction set, or this CPU lacks it
    FRNN_GEMM_FAILED   // the provider of products reported an error
} frnn_status;

typedef enum { FRNN_F32 = 0, FRNN_F64 = 1 } frnn_dtype;

typedef enum {
    FRNN_RNN_TANH = 0,
    FRNN_RNN_RELU = 1,
    FRNN_GRU = 2,
    FRNN_LSTM = 3,
    FRNN_GRU_MINIMAL = 4, // gates z, n: h' = z n + (1 - z) h
    FRNN_LSTM_INPUT = 5,  // coupled gates i, g, o: f = 1 - i
    FRNN_LSTM_FORGET = 6, // coupled gates f, g, o: i = 1 - f
    FRNN_GRU_BEFORE = 7   // the reset before the product: n = tanh(W_n x + b_n + R_n (r h))
} frnn_cell;

// What gates and states pass through.
typedef enum {
    FRNN_OWN = 0, // the cell's own: sigmoid for gates, tanh for states (relu for FRNN_RNN_RELU)
    FRNN_TANH = 1,
    FRNN_SIGMOID = 2,
    FRNN_RELU = 3,
    FRNN_HARD_SIGMOID = 4, // x / 6 + 1/2, limited to [0, 1]
    FRNN_IDENTITY = 5
} frnn_function;

// One layer in one direction. The fields after hidden_size are zero for the plain cell.
typedef struct {
    frnn_cell cell;
    frnn_dtype dtype;
    int64_t input_size;  // I
    int64_t hidden_size; // H
    int64_t proj_size;   // P of h' = W_hr (o tanh c'), cells with c; 0: none, and P = H
    frnn_function gate_activation, state_activation;
    double clip;    // what enters an activation, but for c', is limited to [-clip, clip]; 0: it is not
    int peephole;   // cells with c; not with layer_norm
    int layer_norm; // of W x and R h, of c' before it makes h'; not for FRNN_GRU_BEFORE
    // The part of h' and c' that stays as it was (zoneout), in [0, 1): with a tape as chance has it, by unit,
    // without one as its mean.
    double zoneout_h, zoneout_c;
    double recurrent_dropout; // with a tape, the part of h, in [0, 1), that does not enter the product with R
} frnn_layer;

// A layer's weights and their gradients, by index: (rows, columns) with rows contiguous.
typedef enum {
    FRNN_W_IH = 0, // (G*H, I)
    FRNN_W_HH = 1, // (G*H, P)
    FRNN_B_IH = 2, // (G*H); may be NULL for zeros
    FRNN_B_HH = 3, // (G*H); may be NULL for zeros
    FRNN_W_HR = 4, // (P, H), with proj_size
    FRNN_W_CH =
        5, // (G - 1, H), with peephole: from c to the gates before g (i and f, or the one), from c' to o
    FRNN_LN_IH = 6, // (G*H), with layer_norm: what W x, normalised, is scaled by
    FRNN_LN_HH = 7, // (G*H), likewise R h
    FRNN_LN_C = 8   // (2, H), likewise c', and what is added to it, for cells with c
} frnn_weight;
#define FRNN_WEIGHTS 9

int64_t frnn_gates(frnn_cell cell);         // G, or 0 for an unknown cell
const char *frnn_cell_name(frnn_cell cell); // "rnn_tanh", "gru" and so on, or NULL for an unknown cell
size_t frnn_itemsize(frnn_dtype dtype);     // bytes, or 0 for an unknown dtype
const char *frnn_status_text(frnn_status status);
// The shape of a layer's weight; returns its axes, 1 or 2, or 0 where the layer has none of the kind.
int frnn_weight_shape(const frnn_layer *layer, frnn_weight weight, int64_t shape[2]);

// --- Packed weights -----------------------------------------------------------------------------
// A pack holds a copy of the weights in the order in which the kernels of one instruction set read
// them. Forward and backward need one each, of frnn_pack_size bytes. Where all the steps of all rows are
// but a few, copying takes longer than the call: a borrowed pack copies the biases alone and serves both; the
// weights must stay where and as they are while it is in use. Results have the same bits.
// A pack of bfloat16 has W, R and W_hr rounded to that, half the bytes; it is for inference, FRNN_F32, and our own
// products. Sums are in float32. Where the instruction set has a dot product of bfloat16, x and h are rounded too as
// they enter it; elsewhere results have the bits of rounded weights in a pack of the first kind.

typedef enum {
    FRNN_PACK_FORWARD = 0,
    FRNN_PACK_BACKWARD = 1,
    FRNN_PACK_BORROWED = 2,
    FRNN_PACK_BFLOAT16 = 3
} frnn_pack_kind;

frnn_status frnn_pack_size(const frnn_layer *layer, frnn_pack_kind kind, size_t *bytes);
frnn_status frnn_pack(const frnn_layer *layer, frnn_pack_kind kind,
                      const void *const weights[FRNN_WEIGHTS], // by frnn_weight
                      void *pack, int threads);                // the most to use, 1 or more

// --- Products over all steps --------------------------------------------------------------------
// X W, dX, dW and dR can be handed to a BLAS: C = op(A) op(B), row-major, C overwritten. op(A) is
// (m, k), op(B) is (k, n). It is called on the thread that called us. NULL means our own kernels, and so do layers
// with proj_size or layer_norm, FRNN_GRU_BEFORE and packs of bfloat16.

typedef frnn_status (*frnn_gemm)(void *context, frnn_dtype dtype, int64_t m, int64_t n, int64_t k,
                                 const void *a, int64_t lda, int transpose_a, const void *b, int64_t ldb,
                                 int transpose_b, void *c, int64_t ldc);

typedef struct {
    frnn_gemm gemm;
    void *context;
} frnn_provider;

// --- Running a layer ----------------------------------------------------------------------------

// A (batch, time, features) array: element (b, t, f) is data[b * batch_stride + t * time_stride + f].
typedef struct {
    void *data;
    int64_t batch_stride, time_stride;
} frnn_view;

// Where a call's inputs are rows of a table, such as an embedding's: (B, T) int64, the row that enters step t of b.
// Then x is the table, (x_rows, I), rows x.batch_stride apart, and W is multiplied with each of its rows once, however
// often it enters; dx is (x_rows, I) likewise. Results have the bits of a call that has the rows side by side, but for
// the gradients of the table and of W: their sums are in another order. Not with a provider or checkpoints.
typedef struct {
    frnn_view
        at; // data NULL: x has an input for each step; element (b, t) as that of a view without features
    int64_t x_rows;
} frnn_ids;

// The batch of sequences that a call works on.
typedef struct {
    int64_t batch;          // B >= 1
    int64_t time;           // T >= 1
    const int64_t *lengths; // (B), each 0..T in any order, or NULL: all T
    int reverse;            // run each row from its own last valid step to its first
    // Of each row's steps, in the order in which they run, only these: `steps` of them, or 0: all, from first_step
    // on. The states h0, c0 enter the first of them; those of a row that has none of them pass through. Zeros past
    // the lengths are written where first_step is 0.
    int64_t first_step, steps;
} frnn_batch;

// What BPTT keeps of a forward call. It is consumed by frnn_backward. With checkpoint_every k > 0 it is the states
// every k steps, or some more (as many as make up whole blocks of 512 rows), and backward runs the steps between
// them again: less memory, the same bits.
frnn_status frnn_tape_size(const frnn_layer *layer, const frnn_batch *batch, int64_t checkpoint_every,
                           size_t *bytes);

typedef struct {
    const void *pack; // FRNN_PACK_FORWARD or FRNN_PACK_BORROWED, or without a tape FRNN_PACK_BFLOAT16
    frnn_batch batch;
    frnn_view x;                   // (B, T, I), read
    const void *h0;                // (B, P), or NULL for zeros
    const void *c0;                // (B, H) or NULL for zeros; NULL for cells without c, here and below
    frnn_view y;                   // (B, T, P), written, zero past a length; data NULL: not wanted
    void *h_n;                     // (B, P), written, or NULL; may be h0
    void *c_n;                     // (B, H), written, or NULL; may be c0
    void *tape;                    // frnn_tape_size bytes, written; NULL for inference
    const frnn_provider *provider; // NULL: native
    const void *w_ih;              // (G*H, I), read only where a provider is given
    int threads;                   // the most to use, 1 or more; frnn_num_threads() is the user's wish
    uint64_t seed;                 // with a tape: of the masks of zoneout and dropout
    int64_t checkpoint_every;      // with a tape: as for its size; then batch has all steps
    frnn_ids ids;                  // see there
} frnn_forward_args;

// The workspace functions want the arguments as the call gets them.
frnn_status frnn_forward_workspace(const frnn_forward_args *args, size_t *bytes);
frnn_status frnn_forward(const frnn_forward_args *args, void *workspace);
// Independent calls at once, such as a layer's two directions: up to FRNN_MAX_CALLS, each with the
// workspace that it would have alone. The threads are the first call's, shared out among all.
#define FRNN_MAX_CALLS 8
frnn_status frnn_forward_each(const frnn_forward_args *args, void *const *workspaces, int calls);

// Gradients are written, not added to what is there, unless `accumulate` says that those of weights are the sums of
// all later steps, as calls for those have left them. dL/dh_t is all that reaches h_t (P): dy_t, what comes back from
// step t + 1, and dh_n at a row's last step. `flow` is the sum of its squares, in double whatever the dtype.
typedef struct {
    const void *pack;              // FRNN_PACK_BACKWARD or FRNN_PACK_BORROWED
    frnn_batch batch;              // as in the forward call
    frnn_view x;                   // (B, T, I), as in the forward call
    void *tape;                    // of the forward call; overwritten
    frnn_view dy;                  // (B, T, P), read; data NULL: zeros
    const void *dh_n;              // (B, P), or NULL for zeros
    const void *dc_n;              // (B, H), or NULL for zeros
    frnn_view dx;                  // (B, T, I), written, zero past a length; data NULL: not wanted
    void *dh0, *dc0;               // (B, P) and (B, H), written, or NULL
    void *gradients[FRNN_WEIGHTS]; // by frnn_weight, written, or NULL
    double *flow;                  // (B, T), written, or NULL: |dL/dh_t|^2, see above; zero past a length
    const frnn_provider *provider; // NULL: native
    const void *w_ih;              // (G*H, I), read only where a provider is given
    int threads;                   // the most to use, 1 or more
    uint64_t seed;                 // as in the forward call
    int accumulate;                // see above
    int64_t checkpoint_every;      // as in the forward call
    const void *forward_pack;      // with checkpoint_every: that of the forward call
    frnn_ids ids;                  // as in the forward call
} frnn_backward_args;

frnn_status frnn_backward_workspace(const frnn_backward_args *args, size_t *bytes);
frnn_status frnn_backward(const frnn_backward_args *args, void *workspace);
frnn_status frnn_backward_each(const frnn_backward_args *args, void *const *workspaces, int calls);

// --- Single functions ---------------------------------------------------------------------------

// C = op(A) op(B) with our own kernels: the same bits on any number of threads (at most `threads`).
// op(A) is (m, k), op(B) is (k, n), C (m, n), all row-major with leading dimensions in elements; not
// both transposed.
frnn_status frnn_matmul_workspace(frnn_dtype dtype, int64_t m, int64_t n, int64_t k, int threads,
                                  size_t *bytes);
frnn_status frnn_matmul(frnn_dtype dtype, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                        int transpose_a, const void *b, int64_t ldb, int transpose_b, void *c, int64_t ldc,
                        int threads, void *workspace);

// y = f(x) elementwise over n values; x and y may be the same array. Not for FRNN_OWN.
frnn_status frnn_map(frnn_function function, frnn_dtype dtype, int64_t n, const void *x, void *y);

// --- Training -----------------------------------------------------------------------------------
// What stands around the recurrent layers in a training step. Arrays are contiguous. The same bits on any
// number of threads (at most `threads`) and any instruction set with a fused multiply-add.

// y (rows, n) = softmax of each row of x; x and y may be the same array.
frnn_status frnn_softmax(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, void *y, int threads);

// The cross-entropy of logits (rows, classes) and the right classes, targets (rows): losses (rows) is each
// row's, loss the sum of weights (rows) times these, of NULL their mean, and gradient (rows, classes) that
// of loss with respect to logits, or NULL.
frnn_status frnn_cross_entropy(frnn_dtype dtype, int64_t rows, int64_t classes, const void *logits,
                               const int64_t *targets, const double *weights, void *gradient, double *losses,
                               double *loss, int threads);

// Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber 2006): losses (batch) are
// -log p(labels | softmax of logits), over all ways to put the labels into the steps, blanks between them. The loss
// is infinite and the gradient zero where there is none: too few steps, or a label whose logit is -inf. NaN among a
// row's logits makes its loss and gradient NaN. A logit more than 2^31 below the largest of its step, but not -inf,
// counts as 2^31 below.
typedef struct {
    frnn_dtype dtype;
    int64_t batch, time, classes, most_labels;
    const void *logits;           // (batch, time, classes)
    const int64_t *labels;        // (batch, most_labels), classes other than the blank
    const int64_t *input_lengths; // (batch), 0..time: the steps that are read
    const int64_t *label_lengths; // (batch), 0..most_labels: the labels that are read
    int64_t blank;                // its class
    const double *weights;        // (batch): what each loss counts in the gradient; not read without one
    void *gradient;               // as logits, written, zero past a length, or NULL
    double *losses;               // (batch), written
    int threads;                  // the most to use, 1 or more
} frnn_ctc_args;

// The workspace function wants the arguments as the call gets them.
frnn_status frnn_ctc_workspace(const frnn_ctc_args *args, size_t *bytes);
frnn_status frnn_ctc(const frnn_ctc_args *args, void *workspace);

// Each row of x (rows, n) += row (n).
frnn_status frnn_add_row(frnn_dtype dtype, int64_t rows, int64_t n, const void *row, void *x);
// sum (n) = the sum of x's rows (rows, n).
frnn_status frnn_sum_rows(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, void *sum);
// Row at[r] of y (y_rows, n) += row r of x (rows, n), r in order.
frnn_status frnn_add_rows_at(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, const int64_t *at,
                             int64_t y_rows, void *y);

typedef enum {
    FRNN_SGD = 0,     // w -= lr g; with a momentum array: m = momentum m - lr g, w += m, or, nesterov,
                      // w += momentum m - lr g
    FRNN_RMSPROP = 1, // v = decay v + (1 - decay) g^2; d = lr g / sqrt(v + epsilon); w -= d, or with a
                      // momentum array m = momentum m + d, w -= m
    FRNN_ADAM = 2,    // m = momentum m + (1 - momentum) g; v as above; w -= lr m / (sqrt(v) + epsilon)
    FRNN_ADAGRAD = 3  // v = v + g^2; w -= lr g / sqrt(v + epsilon)
} frnn_rule;

typedef struct {
    frnn_rule rule;
    int nesterov;
    double learning_rate; // of Adam: with the corrections for the first steps, which are the caller's
    double momentum;      // Adam's beta_1
    double decay;         // RMSprop's rho, Adam's beta_2
    double epsilon;
    double clip; // g is limited to [-clip, clip]; INFINITY: it is not
} frnn_optimizer;

typedef struct {
    int64_t n; // values, 0 or more
    void *data;
    const void *gradient;
    double scale;              // g is scale * gradient
    double weight_decay;       // w -= weight_decay w before the rule: the learning rate is in it, 0 for none
    void *momentum, *velocity; // the optimizer's state, NULL where it has none
} frnn_parameter;

// Updates data and state of `count` parameters, all of one dtype.
frnn_status frnn_update(const frnn_optimizer *optimizer, frnn_dtype dtype, int64_t count,
                        const frnn_parameter *parameters, int threads);
// squares (count) = the sum of squares of each parameter's gradient; of the rest only n is read.
frnn_status frnn_squares_workspace(int64_t count, const frnn_parameter *parameters, size_t *bytes);
frnn_status frnn_squares(frnn_dtype dtype, int64_t count, const frnn_parameter *parameters, double *squares,
                         int threads, void *workspace);

// --- The machine --------------------------------------------------------------------------------

const char *frnn_isa(void); // "generic", "avx2", "avx512", "avx512_bf16" or "neon": what new packs use
frnn_status frnn_set_isa(const char *name); // choose one that this CPU has; existing packs keep theirs
int frnn_has_isa(const char *name);         // whether this CPU and this build have it
int frnn_num_threads(void);
frnn_status frnn_set_num_threads(int threads); // 1 or more; 0 for the default
int frnn_default_num_threads(void);            // FASTRNN_NUM_THREADS, or the CPUs that this process may use

// Threads that the program has already, instead of the library's own, for two sets of them would want the same CPUs.
// As OpenMP's runtimes have them: GOMP_parallel, omp_get_max_threads, and for the body omp_get_num_threads and
// omp_get_thread_num. A call has at most as many as the team has; a forked child has the library's own.
typedef struct {
    void (*parallel)(void (*body)(void *data), void *data, unsigned threads,
                     unsigned flags); // threads 0: all
    int (*max_threads)(void);
    int (*num_threads)(void);
    int (*thread_num)(void);
} frnn_team;
void frnn_set_team(const frnn_team *team); // copied; NULL: none. While no call runs

#ifdef __cplusplus
}
#endif
#endif
