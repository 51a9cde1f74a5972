// What the files of csrc/ share; nothing here is for embedders.
#ifndef FASTRNN_INTERNAL_H
#define FASTRNN_INTERNAL_H

#include "fastrnn.h"

// Every cell: its number, and its name here and in the files of kernels/.
#define FRNN_EACH_CELL(X) \
    X(FRNN_RNN_TANH, rnn_tanh) \
    X(FRNN_RNN_RELU, rnn_relu) \
    X(FRNN_GRU, gru) \
    X(FRNN_LSTM, lstm) \
    X(FRNN_GRU_MINIMAL, gru_minimal) \
    X(FRNN_LSTM_INPUT, lstm_input) \
    X(FRNN_LSTM_FORGET, lstm_forget) \
    X(FRNN_GRU_BEFORE, gru_before)
#define FRNN_ONE(number, name) +1
#define FRNN_CELLS (0 FRNN_EACH_CELL(FRNN_ONE))
#define FRNN_FUNCTIONS 6
#define FRNN_ALIGN 64
// Sums over all rows of a batch (dW, dR, db) are made in blocks of up to this many rows, see frnn_block: it is
// part of their canonical order, so it must not depend on the machine.
#define FRNN_SUM_BLOCK 512
// Columns of A that such a sum takes at a time: whole cache lines.
#define FRNN_OUTER_ROWS 32
// Rows that a provider of products takes at a time.
#define FRNN_PROVIDER_ROWS 8192

// --- Sizes --------------------------------------------------------------------------------------

// A row of n elements padded to whole cache lines, off the multiples of 1 KB: rows that far apart
// share an L1 set. The same for every instruction set.
static inline int64_t frnn_padded(int64_t n) {
    int64_t padded = (n + 15) / 16 * 16;
    return padded % 256 == 0 ? padded + 16 : padded;
}

static inline int64_t frnn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t frnn_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t frnn_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int frnn_aligned(const void *p) { return (uintptr_t)p % FRNN_ALIGN == 0; }

// Carves aligned pieces out of one block. With base NULL it only adds up; `overflow` says that the
// sum does not fit.
typedef struct {
    char *base;
    size_t used;
    int overflow;
} frnn_arena;

void *frnn_carve(frnn_arena *arena, int64_t count, size_t itemsize);

// --- How the rows of a batch move through time --------------------------------------------------
// Rows are sorted by length, longest first, so the rows that still run at a step are the first
// active[step]. Row r at step s stands in the tape's gates at start[s] + r.

typedef struct {
    int64_t batch; // B
    int64_t time;  // T
    int64_t first; // the call's first step: steps are counted from it
    int64_t steps; // of the longest row
    int64_t rows;  // sum of all rows' steps
    int reverse;
    int64_t *order;  // [B] the caller's row
    int64_t *length; // [B] of sorted row r, with the steps before the first and after the last
    int64_t *active; // [steps + 1], active[steps] = 0
    int64_t *start;  // [steps + 1], start[steps] = rows
} frnn_schedule;

// First state row of the states that enter a step, in a tape: h0's B rows, then each step's output.
static inline int64_t frnn_state_start(const frnn_schedule *s, int64_t step) {
    return step == 0 ? 0 : s->batch + s->start[step - 1];
}

// Time index in the caller's arrays of sorted row r at a step.
static inline int64_t frnn_time_of(const frnn_schedule *s, int64_t r, int64_t step) {
    return s->reverse ? s->length[r] - 1 - s->first - step : s->first + step;
}

// The steps of sorted row r.
static inline int64_t frnn_row_steps(const frnn_schedule *s, int64_t r) {
    return frnn_max(0, frnn_min(s->length[r] - s->first, s->steps));
}

// Offset in a view of sorted row r at a step.
static inline int64_t frnn_offset(const frnn_schedule *s, const frnn_view *v, int64_t r, int64_t step) {
    return s->order[r] * v->batch_stride + frnn_time_of(s, r, step) * v->time_stride;
}

// Walks the rows of a tape in their order.
typedef struct {
    int64_t step, row;
} frnn_cursor;

frnn_cursor frnn_cursor_at(const frnn_schedule *schedule, int64_t tape_row);

// Sums over a tape's rows go over blocks of them, the last block first: whole steps of up to FRNN_SUM_BLOCK rows in
// all, or a part of a step that has more. So those of some steps can be added to those of all later ones.
typedef struct {
    int64_t begin, end;
} frnn_block;

frnn_block frnn_block_before(const frnn_schedule *schedule, int64_t row); // that ends there; {0, 0}: none
#define FRNN_EACH_BLOCK(block, schedule) \
    for (frnn_block block = frnn_block_before(schedule, (schedule)->rows); block.end; \
         block = frnn_block_before(schedule, block.begin))
// The first of as many whole blocks of steps as have `steps` or more, the last of them before step `end`.
int64_t frnn_blocks_begin(const frnn_batch *batch, int64_t end, int64_t steps);

static inline void frnn_cursor_next(const frnn_schedule *s, frnn_cursor *at) {
    if (++at->row == s->active[at->step]) {
        at->row = 0;
        at->step++;
    }
}

frnn_status frnn_layer_check(const frnn_layer *layer);
int frnn_is_variant(const frnn_layer *layer);                    // whether it is more than its plain cell
int frnn_takes_provider(const frnn_layer *layer);                // whether a provider's products serve it
static inline int64_t frnn_state_size(const frnn_layer *layer) { // P
    return layer->proj_size ? layer->proj_size : layer->hidden_size;
}
frnn_status frnn_batch_check(const frnn_batch *batch);
int64_t frnn_batch_rows(const frnn_batch *batch); // sum of all rows' steps
// Carves the schedule's arrays; fills them only where the arena has memory.
void frnn_schedule_build(frnn_schedule *schedule, const frnn_batch *batch, frnn_arena *arena);

// What BPTT keeps, rows padded: activated gates, and the states that enter each step; what is NULL is for variants
// that need it.
typedef struct {
    void *gates;         // [rows][gates_ld]
    void *h, *c;         // [B + rows][state_ld]; c for cells that have one
    void *h_in;          // as h, what enters the product with R where that is not h; else h
    void *second;        // [rows][state_ld]: what enters the second product, with W_hr or R of late gates
    void *new_c;         // [rows][state_ld]: c' before zoneout, where it is wanted for more than h'
    void *raw_x, *raw_h; // [rows][raw_ld]: W x and R h before their normalisation
    void *moments;       // [rows][FRNN_MOMENTS]
    int64_t gates_ld, state_ld, raw_ld;
} frnn_tape;

void frnn_row_sizes(const frnn_layer *layer, int64_t *gates_ld, int64_t *state_ld, int64_t *raw_ld);
int frnn_has_c(const frnn_layer *layer);
int frnn_has_second(const frnn_layer *layer);
int frnn_keeps_new_c(const frnn_layer *layer);

// Of a row's W x, R h and c': mean and 1 / sqrt(variance + 1e-5).
enum { MEAN_X, RATE_X, MEAN_H, RATE_H, MEAN_C, RATE_C, FRNN_MOMENTS };

void frnn_tape_carve(frnn_tape *tape, const frnn_layer *layer, const frnn_schedule *schedule,
                     frnn_arena *arena);
void frnn_zero_padding(const frnn_schedule *schedule, const frnn_view *view, size_t row_bytes, size_t item,
                       int thread, int threads);

// --- Threads ------------------------------------------------------------------------------------

typedef struct frnn_barrier frnn_barrier;
// One thread's call of a job; threads is how many there are.
typedef void (*frnn_job)(void *context, int thread, int threads, frnn_barrier *barrier);

// Runs job on up to `wanted` threads, the caller being one; with fewer where the pool is busy.
void frnn_pool_run(frnn_job job, void *context, int wanted);
// Likewise for `jobs` calls at once, up to FRNN_MAX_CALLS, each with its context and wanted[i] threads, of
// `threads` in all: in turn where they are not enough for all at once.
void frnn_pool_run_each(frnn_job job, void *const *contexts, const int *wanted, int jobs, int threads);
void frnn_barrier_wait(frnn_barrier *barrier); // returns when all threads of the job have come

// What a thread owns in the loop over time: some rows and all units, or all rows and some blocks of
// units; then the threads meet at a barrier after every step.
typedef struct frnn_share {
    int64_t row_begin, row_end;     // of the sorted rows
    int64_t block_begin, block_end; // of lanes units
    int part, parts;                // of the units
    frnn_barrier *barrier;          // NULL where rows are owned
    void *scratch;                  // for the panels of a borrowed pack
} frnn_share;

// A thread's part of some blocks.
static inline void frnn_part_of(const frnn_share *share, int64_t blocks, int64_t *begin, int64_t *end) {
    *begin = blocks * share->part / share->parts;
    *end = blocks * (share->part + 1) / share->parts;
}

// How the loop over time is shared out: `batch` rows or `blocks` of units among threads.
typedef struct {
    const frnn_schedule *schedule;
    int64_t blocks;
    double step_work; // multiply-adds of the product inside the loop, one step of the whole batch
} frnn_work;

int frnn_threads_for(double multiply_adds, int threads); // of these, worth starting for so much work
int frnn_threads_of(int threads, int call, int calls);   // a call's part of them, at least one
int frnn_by_rows(const frnn_work *work, int threads);
frnn_share frnn_share_of(const frnn_work *work, int thread, int threads, frnn_barrier *barrier);

// --- Kernels ------------------------------------------------------------------------------------

struct frnn_kernels;

// How the weights of a pack enter products: as they are; of bfloat16, widened; or of bfloat16 with x and h rounded
// likewise. Of bfloat16 those of an even k and the next are the halves of a 32-bit word.
typedef enum { FRNN_WHOLE, FRNN_WIDENED, FRNN_PAIRED, FRNN_PRODUCTS } frnn_products;

// Rows of such words, or of values, in a panel.
static inline int64_t frnn_panel_rows(frnn_products products, int64_t k) {
    return products == FRNN_WHOLE ? k : (k + 1) / 2;
}

// At the front of every pack.
typedef struct {
    uint64_t magic;
    frnn_layer layer;
    frnn_pack_kind kind;
    frnn_products products;
    const struct frnn_kernels *kernels;
    // byte offsets from the pack's start
    // forward: w [blocks][I][G*lanes], r [blocks][H][G*lanes], b_x [G*H], b_h [G*H]
    // backward: w [I blocks][G*H][lanes], r [H blocks][G*H][lanes]
    // of bfloat16: as forward, with words in the place of values, and as many rows of them
    // borrowed: the biases alone, and the weights as the caller has them
    // and, of either kind: hr, W_hr's panels, forward [P blocks][H][lanes], backward [H blocks][P][lanes]; the
    // others as they are given
    size_t w, r, b_x, b_h, hr, w_ch, ln_ih, ln_hh, ln_c, bytes;
    const void *w_ih, *w_hh; // NULL unless borrowed
} frnn_pack_header;

const frnn_pack_header *frnn_pack_check(const void *pack, frnn_pack_kind kind); // or borrowed

// Most vectors of sums in a tile, and most blocks.
#define FRNN_TILE_VECTORS 24
#define FRNN_TILE_BLOCKS 8

// The right side B (k, n) of a product: panels [n blocks][k][lanes], or, where there are none, its rows as they
// stand, n apart.
typedef struct {
    int64_t n, k;
    const void *panels, *rows;
    void *scratch; // room for FRNN_TILE_BLOCKS blocks of k rows, where n is not in whole blocks
} frnn_matrix;

// A backward pack's W (G*H, I) or, hidden, R (G*H, P).
frnn_matrix frnn_pack_matrix(const frnn_pack_header *pack, int hidden, void *scratch);
// Bytes of scratch that a thread wants for a forward or backward call with a borrowed pack; 0 for others.
size_t frnn_pack_scratch(const frnn_pack_header *pack, frnn_pack_kind kind);

// A call of forward, as the kernels see it. Leading dimensions in elements.
typedef struct {
    const frnn_pack_header *pack;
    frnn_schedule schedule;
    frnn_view x, y;
    const void *h0, *c0; // (B, H) or NULL
    void *h_n, *c_n;     // (B, H) or NULL
    void *gates;         // training: [rows][gates_ld]; otherwise [chunk_steps * B][gates_ld]
    void *h, *c;         // training: [B + rows][state_ld]; inference: [2 * B][state_ld]
    void *h_in;          // as h: what enters the product with R
    // Of variants, NULL where there are none; rows as in the tape, or in inference those of a step, [B]; but raw_x
    // stands where gates does, which has a step's rows then.
    void *second, *new_c, *raw_x, *raw_h, *moments;
    int64_t gates_ld, state_ld, raw_ld;
    uint64_t seed;
    int training;
    int projected;                 // x's part is in gates already
    int64_t gates_start;           // training or projected: the tape row at which gates begins
    int64_t chunk_steps;           // steps whose input is projected at a time
    int64_t first_step, last_step; // of this run; the last is excluded
} frnn_forward_run;

typedef struct {
    const frnn_pack_header *pack;
    frnn_schedule schedule;
    frnn_view x, dy, dx;
    const void *dh_n, *dc_n; // (B, H) or NULL
    void *dh0, *dc0;         // (B, H) or NULL
    void *gates;             // [rows][gates_ld]: activated gates, overwritten with their gradients
    const void *h, *c;       // [B + rows][state_ld]
    void *dh, *dc;           // [B][state_ld]: the parts of the state's gradient that skip the product
    // Of variants, NULL where there are none.
    const void *h_in, *second, *new_c, *raw_h, *moments; // as in the tape
    void *raw_x;                                         // likewise, overwritten with the gradients of W x
    void *hidden;    // [rows][raw_ld]: the gradients of R h, before its normalisation
    void *output;    // [rows][state_ld]: h's gradient, where it is projected
    void *dc_normal; // [rows][state_ld]: that of c', normalised
    int64_t gates_ld, state_ld, raw_ld;
    uint64_t seed;
    int accumulate; // the gradients of weights are added to those of later steps
} frnn_backward_run;

// A product C (m, n) = A (m, k) B (k, n) as the kernels see it: rows of A and C by address.
typedef struct {
    const frnn_matrix *b;
    int64_t first, k; // B's rows [first, first + k)
    int accumulate;   // C += instead of C =
} frnn_product;

// B and C of a sum of outer products C (columns of A, n) = sum over k of a[k][:]^T b[k][:].
typedef struct {
    int64_t n;
    const void *panels; // B packed: [n blocks][k][lanes]
    void *c;            // [columns of A][ldc]
    int64_t ldc;
} frnn_right_side;

// What a cell file says of its cell: how many values of H a tape keeps per row and step, and which of
// them holds each gate's gradient on the hidden side (on the input side they are 0..gates-1). The product
// of the gates from `late` on is with what the others made of h.
typedef struct {
    int gates, saved, has_c, late;
    int hidden_block[4];
} frnn_cell_info;

// The gate after the last one, from `gate` on, whose gradients stand side by side on the hidden side:
// such gates make one product.
static inline int frnn_hidden_end(const frnn_cell_info *info, int gate) {
    int end = gate + 1;
    while (end < info->gates && info->hidden_block[end] == info->hidden_block[end - 1] + 1) end++;
    return end;
}

typedef struct frnn_kernels {
    const char *isa;
    frnn_products bfloat16; // how
    int lanes[2];           // of a vector, by dtype
    struct {
        const frnn_cell_info *info;
        void (*forward[2])(const frnn_forward_run *, const frnn_share *); // plain, variant
        void (*backward[2])(const frnn_backward_run *, const frnn_share *);
    } cell[2][FRNN_CELLS]; // by dtype
    // rows of C (c[i], n each) from rows of A (a[i]) and B
    void (*product[2])(const frnn_product *, int64_t rows, const void *const *a, void *const *c);
    // (gates * units, k) rows of w, ldw apart and gate by gate, as columns of panels
    // [blocks][k][gates][lanes]: blocks [begin, end), the first at `panels`
    void (*pack_columns[2])(int64_t gates, int64_t units, int64_t k, const void *w, int64_t ldw, void *panels,
                            int64_t begin, int64_t end);
    // B's rows (k of them, by address, n each) into panels [n blocks][panel_k][lanes], the first at `panels`
    void (*pack_rows[2])(int64_t k, int64_t n, const void *const *rows, void *panels, int64_t panel_k);
    // C[i][:n] (+)= sum over k of a[k][i] b[k][:] for each of the right sides, and sums[i] (+)= sum over k of a[k][i]
    // where sums is wanted, for i < columns; scratch [k][FRNN_OUTER_ROWS]
    void (*sum_outer[2])(int64_t columns, int64_t k, const void *a, int64_t lda, const frnn_right_side *right,
                         int count, void *sums, void *scratch, int accumulate);
    // C[i][:n] = sum over k of a[k][i] b[k][:n], i < columns; for a small k
    void (*short_outer[2])(int64_t columns, int64_t k, const void *a, int64_t lda, const void *const *b,
                           int64_t n, void *c, int64_t ldc);
    // sum[i] (+)= sum over k of x[k][i]
    void (*sum_rows[2])(int64_t n, int64_t k, const void *x, int64_t ldx, void *sum, int accumulate);
    // sum[i] (+)= sum over k of x[k][i] (y[k][i] - mean) rate, those two the first values at moments[k], or 0 and 1
    void (*sum_scaled[2])(int64_t n, int64_t k, const void *x, int64_t ldx, const void *const *y,
                          const void *const *moments, void *sum, int accumulate);
    // the gradient of what was normalised, raw (gates * units), in its place, given that of the result times scale
    void (*normalise_back[2])(int64_t gates, int64_t units, const void *gradient, const void *scale,
                              const void *moments, void *raw);
    void (*map[FRNN_FUNCTIONS][2])(int64_t n, const void *x, void *y); // by function, dtype
    // y (rows, n) = weight * softmax(x), where y is wanted; with targets less weight at each row's own, whose
    // -log softmax(x) goes to losses
    void (*softmax[2])(int64_t rows, int64_t n, const void *x, void *y, double weight, const int64_t *targets,
                       double *losses);
    void (*add_row[2])(int64_t rows, int64_t n, const void *row, void *x); // to every row of x
    // y's row at[r] += x's row r, in order
    void (*add_rows_at[2])(int64_t rows, int64_t n, const void *x, const int64_t *at, void *y);
    double (*sum_squares[2])(int64_t n, const void *x);
    void (*update[2])(const frnn_optimizer *, const frnn_parameter *, int64_t begin, int64_t end);
} frnn_kernels;

const frnn_kernels *frnn_active_kernels(void);

// w's rows (k of them, ldw apart, n values each) as the rows of panels [blocks][k][lanes]. Does rows
// [begin, end).
void frnn_pack_rows(const frnn_kernels *kernels, frnn_dtype dtype, int64_t n, int64_t k, const void *w,
                    int64_t ldw, void *panels, int64_t begin, int64_t end);

// --- Products over all rows (products.c) --------------------------------------------------------

// Gives the addresses of rows [begin, begin + count).
typedef void (*frnn_rows)(const void *context, int64_t begin, int64_t count, const void **rows);

// C = A B for rows [begin, end) of A and C.
void frnn_rows_product(const frnn_kernels *kernels, frnn_dtype dtype, const frnn_matrix *b, int64_t begin,
                       int64_t end, frnn_rows a, const void *a_context, frnn_rows c, const void *c_context);
// One of the right sides B of frnn_outer_products: its rows by address, n values each, and C, or NULL.
typedef struct {
    frnn_rows rows;
    const void *context;
    int64_t n;
    void *c; // [rows][ldc]
    int64_t ldc;
} frnn_outer;

// Columns [first, first + columns) of A, which make the rows of C from c_row on, for the right sides in
// `sides`: 1 the first, 2 the second, 4 the third, of up to three.
typedef struct {
    int64_t first, columns, c_row;
    int sides;
} frnn_outer_columns;

// Bytes of scratch that one thread wants for frnn_outer_products with n columns of B in all.
size_t frnn_outer_scratch(frnn_dtype dtype, int64_t rows, int64_t n);
// For each of the groups of columns and its right sides: C[c_row + i][:n] (+)= sum over rows [begin, end) of
// a[row][first + i] b[row][:n]; and sums[first + i] (+)= sum of a[row][first + i] unless sums is NULL; FRNN_SUM_BLOCK
// rows at a time, in order.
void frnn_outer_products(const frnn_kernels *kernels, frnn_dtype dtype, frnn_block rows, const void *a,
                         int64_t lda, const frnn_outer_columns *groups, int group_count,
                         const frnn_outer *outers, int count, void *sums, void *scratch, int accumulate);

// frnn_rows of a frnn_backward_run: what entered the second product.
void frnn_second_rows(const void *run, int64_t begin, int64_t count, const void **rows);
// Gradients of the weights that only variants have, and, in raw_x, those of a normalised W x (variants.c): a
// thread's part of a job, which all of them take.
void frnn_variant_gradients(const frnn_backward_run *run, void *const *gradients, int thread, int threads,
                            frnn_barrier *barrier, void *scratch);

// --- Checkpoints (checkpoints.c) ----------------------------------------------------------------

int frnn_checkpoints_allowed(const frnn_batch *batch, int64_t every); // every 0: none
// The calls with checkpoint_every, and what they want of memory.
frnn_status frnn_checkpoints_size(const frnn_layer *layer, const frnn_batch *batch, int64_t every,
                                  size_t *bytes);
frnn_status frnn_checkpoints_forward_workspace(const frnn_forward_args *args, size_t *bytes);
frnn_status frnn_checkpoints_forward(const frnn_forward_args *args, void *workspace);
frnn_status frnn_checkpoints_backward_workspace(const frnn_backward_args *args, size_t *bytes);
frnn_status frnn_checkpoints_backward(const frnn_backward_args *args, void *workspace);

extern const frnn_kernels frnn_generic_kernels;
#if defined(__x86_64__)
extern const frnn_kernels frnn_avx2_kernels, frnn_avx512_kernels, frnn_avx512_bf16_kernels;
#elif defined(__aarch64__)
extern const frnn_kernels frnn_neon_kernels;
#endif

// --- Floating-point mode ------------------------------------------------------------------------
// Denormals are flushed inside kernels; the caller's mode is restored.

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) {
    frnn_fp_mode mode = _mm_getcsr();
    _mm_setcsr(0x9FC0); // round to nearest, exceptions masked, flush to zero, denormals are zero
    return mode;
}
static inline void frnn_fp_leave(frnn_fp_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) {
    frnn_fp_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)1 << 24) : "memory"); // FZ, round to nearest
    return mode;
}
static inline void frnn_fp_leave(frnn_fp_mode mode) {
    __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
}
#else
typedef int frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) { return 0; }
static inline void frnn_fp_leave(frnn_fp_mode mode) { (void)mode; }
#endif

#endif
