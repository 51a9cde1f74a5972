// What a pack holds, the runs that kernels see, and the table of kernels.
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include "pool.h"
#include "tape.h"

struct frnn_kernels;

// How the weights of a pack enter products: as they are; of bfloat16, widened; or of bfloat16 with x and h rounded
// likewise. Of bfloat16 those of an even k and the next are the halves of a 32-bit word.
typedef enum { FRNN_WHOLE, FRNN_WIDENED, FRNN_PAIRED } frnn_products;

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
    int tail_lanes; // see frnn_tail_lanes
    const struct frnn_kernels *kernels;
    // byte offsets from the pack's start
    // forward: w [blocks][I][G*lanes], r [blocks][H][G*lanes], b_x [G*H], b_h [G*H]; for the last block see
    // frnn_tail_lanes
    // backward: w [I blocks][G*H][lanes], r [H blocks][G*H][lanes]
    // of bfloat16: as forward, with words in the place of values, and as many rows of them
    // borrowed: the biases alone, and the weights as the caller has them
    // and, of either kind: hr, W_hr's panels, forward [P blocks][H][lanes], backward [H blocks][P][lanes]; the
    // others as they are given
    size_t w, r, b_x, b_h, hr, w_ch, ln_ih, ln_hh, ln_c, bytes;
    int fetch_w, fetch_r;    // whether a tile fetches the panels of W, or R, that the next ones read
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
    // In inference gates is [chunk_steps * B][gates_ld], h and c are [2 * B][state_ld], and the others have the rows of
    // a step, [B]; but where there is a raw_x, that stands where gates does, which has a step's rows then.
    frnn_tape tape;
    uint64_t seed;
    frnn_ids ids; // at.data NULL: none
    void *table;  // [ids.x_rows][as a row of W x]: what W makes of the table's rows
    int training;
    int fetch_gates, fetch_y;      // whether the rows are fetched ahead that W x goes to, or y
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
    frnn_tape tape;          // gates and raw_x are overwritten with their gradients
    void *dh, *dc;           // [B][state_ld]: the parts of the state's gradient that skip the product
    // Of variants, NULL where there are none.
    void *hidden;    // [rows][raw_ld]: the gradients of R h, before its normalisation
    void *output;    // [rows][state_ld]: h's gradient, where it is projected
    void *dc_normal; // [rows][state_ld]: that of c', normalised
    // Where it is wanted, the sum of squares of all that reaches h at a step, and room for that.
    double *flow;   // (B, T) or NULL
    void *reaching; // [2][B][state_ld]: steps take turns
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
    const void *b;
    int64_t block_step, row_step; // packed B: [n blocks][k][lanes]; where it stands, blocks are side by side
    void *c;                      // [columns of A][ldc]
    int64_t ldc;
} frnn_right_side;

// What a cell file says of its cell: how many values of H a tape keeps per row and step, and which of
// them holds each gate's gradient on the hidden side (on the input side they are 0..gates-1). The product
// of the gates from `late` on is with what the others made of h.
typedef struct {
    int gates, saved, has_c, late;
    int hidden_block[4];
} frnn_cell_info;

// Lanes that a gate has in the last block of units: where few are left, gates share its vectors. Not where a late
// gate is to be multiplied apart.
static inline int frnn_tail_lanes(const frnn_cell_info *info, int64_t units, int lanes) {
    const int vectors = (int)frnn_ceil_div(info->gates * (units % lanes), lanes);
    if (vectors == 0 || vectors >= info->gates || info->late < info->gates) return lanes;
    return vectors * lanes / info->gates;
}

// Values that a block of so many gates has for each k.
static inline int64_t frnn_block_width(int64_t gates, int gate_lanes, int lanes) {
    return frnn_ceil_div(gates * gate_lanes, lanes) * lanes;
}

// The gate after the last one, from `gate` on, whose gradients stand side by side on the hidden side:
// such gates make one product.
static inline int frnn_hidden_end(const frnn_cell_info *info, int gate) {
    int end = gate + 1;
    while (end < info->gates && info->hidden_block[end] == info->hidden_block[end - 1] + 1) end++;
    return end;
}

// Numbers m 2^e: m 0 or of moderate size, e whole.
typedef struct {
    double *m, *e;
} frnn_pairs;

// Whatever a vector holds, arrays of labels are whole blocks of so many. There is one blank more than there are
// labels, and a state beyond the last that no path reaches.
#define FRNN_CTC_LANES 8
static inline int64_t frnn_ctc_room(int64_t labels) {
    return (labels + 1 + FRNN_CTC_LANES) / FRNN_CTC_LANES * FRNN_CTC_LANES;
}

// The CTC loss of one sequence. Its labels, blanks too, are `symbols` different classes: a label is known by its
// symbol, the blank is symbol 0. Arrays of labels have frnn_ctc_room(labels) entries.
typedef struct {
    frnn_dtype dtype;
    int64_t steps, classes, labels, symbols;
    const void *logits;       // (steps, classes)
    void *gradient;           // likewise, or NULL
    double weight;            // of the loss in the gradient
    const int64_t *class_of;  // (symbols)
    const int32_t *symbol_of; // (labels)
    double *shares;           // (symbols), zeros before and after: what each has of a step's paths
    // Scratch: rows of states, which are blanks, then labels.
    frnn_pairs alpha;   // (steps + 1) rows; with no gradient wanted 2
    frnn_pairs beta;    // one row and FRNN_CTC_LANES blanks and labels more
    frnn_pairs y;       // (steps, or 1) rows, by symbol: exp(logit - the step's largest)
    frnn_pairs label_y; // of a step, by label
    double *may_skip;   // by label and FRNN_CTC_LANES more
    double *occupied;   // by label: the part of all paths that is in it
} frnn_ctc_run;

typedef struct frnn_kernels {
    const char *isa;
    frnn_products bfloat16; // how
    int lanes[2];           // of a vector, by dtype
    struct {
        const frnn_cell_info *info;
        void (*forward[2])(const frnn_forward_run *, const frnn_share *); // plain, variant
        void (*backward[2])(const frnn_backward_run *, const frnn_share *);
    } cell[2][FRNN_CELLS]; // by dtype
    // to[i] = x[i] W + b_x, without b_x where there is a layer_norm, for a share's units
    void (*project[2])(const frnn_forward_run *, const frnn_share *, int64_t rows, const void *const *x,
                       void *const *to);
    // rows of C (c[i], n each) from rows of A (a[i]) and B
    void (*product[2])(const frnn_product *, int64_t rows, const void *const *a, void *const *c);
    // (gates * units, k) rows of w, ldw apart and gate by gate, as columns of panels
    // [blocks][k][gates][lanes], the last [k][gates][tail_lanes] where that is less, in whole vectors: blocks
    // [begin, end), the first at `panels`
    void (*pack_columns[2])(int64_t gates, int64_t units, int tail_lanes, int64_t k, const void *w,
                            int64_t ldw, void *panels, int64_t begin, int64_t end);
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
    // y (rows, n) = weight * softmax(x), where y is wanted, with weights (rows) each row's own; with targets
    // less the weight at each row's own, whose -log softmax(x) goes to losses
    void (*softmax[2])(int64_t rows, int64_t n, const void *x, void *y, double weight, const double *weights,
                       const int64_t *targets, double *losses);
    // minus the log-probability of a sequence's labels, NaN if a logit is, and the gradient, if that is finite
    double (*ctc)(const frnn_ctc_run *);
    void (*add_row[2])(int64_t rows, int64_t n, const void *row, void *x); // to every row of x
    // y's row at[r] += x's row r, in order; both ld apart
    void (*add_rows_at[2])(int64_t rows, int64_t n, const void *x, const int64_t *at, void *y, int64_t ld);
    double (*sum_squares[2])(int64_t n, const void *x);
    void (*update[2])(const frnn_optimizer *, const frnn_parameter *, int64_t begin, int64_t end);
} frnn_kernels;

const frnn_kernels *frnn_active_kernels(void);

// w's rows (k of them, ldw apart, n values each) as the rows of panels [blocks][k][lanes]. Does rows
// [begin, end).
void frnn_pack_rows(const frnn_kernels *kernels, frnn_dtype dtype, int64_t n, int64_t k, const void *w,
                    int64_t ldw, void *panels, int64_t begin, int64_t end);

extern const frnn_kernels frnn_generic_kernels;
#if defined(__x86_64__)
extern const frnn_kernels frnn_avx2_kernels, frnn_avx512_kernels, frnn_avx512_bf16_kernels;
#elif defined(__aarch64__)
extern const frnn_kernels frnn_neon_kernels;
#endif

#endif
