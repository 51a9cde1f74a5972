// Products over all rows of a batch with our own kernels, and the general product built on them.
#include "internal.h"

// Rows whose addresses are fetched at a time, and the part of k that stays in a cache meanwhile.
#define ROWS 256
#define PRODUCT_K 1024 // part of the canonical order, so not to depend on the machine
#define OUTER_COLUMNS 512
// Terms of a sum for which packing takes longer than it saves.
#define SHORT_SUM 6

void frnn_rows_product(const frnn_kernels *kernels, frnn_dtype dtype, const frnn_matrix *b, int64_t begin,
                       int64_t end, frnn_rows a, const void *a_context, frnn_rows c, const void *c_context) {
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    const void *a_rows[ROWS], *c_rows[ROWS];
    for (int64_t row = begin; row < end; row += ROWS) {
        const int64_t rows = frnn_min(ROWS, end - row);
        a(a_context, row, rows, a_rows);
        c(c_context, row, rows, c_rows);
        // Blocks of k, each one chain from zero, added in order.
        for (int64_t from = 0; from < b->k; from += PRODUCT_K) {
            const frnn_product product = {b, from, frnn_min(PRODUCT_K, b->k - from), from > 0};
            kernels->product[dtype](&product, rows, a_rows, (void *const *)c_rows);
            for (int64_t i = 0; i < rows; i++) a_rows[i] = (const char *)a_rows[i] + product.k * item;
        }
    }
}

size_t frnn_outer_scratch(frnn_dtype dtype, int64_t rows, int64_t n) {
    const int64_t columns = frnn_min(n + 48, OUTER_COLUMNS); // each side's blocks are whole
    return (size_t)(frnn_min(rows, FRNN_SUM_BLOCK) * (columns + FRNN_OUTER_ROWS)) * frnn_itemsize(dtype);
}

// How many bytes rows are apart if to use them as they stand is faster than to pack them: evenly, by whole cache
// lines, and so little that they are on few pages; else 0.
static int64_t usable_distance(const void *const *rows, int64_t k) {
    const int64_t distance = k > 1 ? (const char *)rows[1] - (const char *)rows[0] : 0;
    if (!frnn_aligned(rows[0]) || distance % FRNN_ALIGN || distance <= 0 || distance >= 1024) return 0;
    for (int64_t i = 2; i < k; i++)
        if ((const char *)rows[i] - (const char *)rows[i - 1] != distance) return 0;
    return distance;
}

// Some columns of a right side.
typedef struct {
    int side;
    frnn_right_side right;
} outer_part;

static void outer_groups(const frnn_kernels *kernels, frnn_dtype dtype, int64_t k, const char *a, int64_t lda,
                         const frnn_outer_columns *groups, int group_count, const outer_part *parts,
                         int count, char *sums, void *scratch, int accumulate) {
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    for (const frnn_outer_columns *g = groups; g < groups + group_count; g++) {
        frnn_right_side right[3];
        int sides = 0;
        for (int i = 0; i < count; i++) {
            if (!(g->sides >> parts[i].side & 1)) continue;
            right[sides] = parts[i].right;
            right[sides].c = (char *)right[sides].c + g->c_row * right[sides].ldc * item;
            sides++;
        }
        if (sides || sums)
            kernels->sum_outer[dtype](g->columns, k, a + g->first * item, lda, right, sides,
                                      sums ? sums + g->first * item : NULL, scratch, accumulate);
    }
}

static void outer_rows(const frnn_outer *outer, int64_t item, int64_t begin, int64_t count,
                       const void **rows) {
    outer->rows(outer->context, begin, count, rows);
    for (int64_t i = 0; outer->first && i < count; i++) rows[i] = (const char *)rows[i] + outer->first * item;
}

// All of frnn_outer_products for up to SHORT_SUM rows; a is at the first.
static void short_outer_products(const frnn_kernels *kernels, frnn_dtype dtype, frnn_block block,
                                 const char *a, int64_t lda, const frnn_outer_columns *groups,
                                 int group_count, const frnn_outer *outers, int count, char *sums) {
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    const void *b_rows[SHORT_SUM];
    const int64_t rows = block.end - block.begin;
    for (int side = 0; side < count; side++) {
        const frnn_outer *const outer = &outers[side];
        if (!outer->c) continue;
        outer_rows(outer, item, block.begin, rows, b_rows);
        for (const frnn_outer_columns *g = groups; g < groups + group_count; g++)
            if (g->sides >> side & 1)
                kernels->short_outer[dtype](g->columns, rows, a + g->first * item, lda, b_rows, outer->n,
                                            (char *)outer->c + g->c_row * outer->ldc * item, outer->ldc);
    }
    for (const frnn_outer_columns *g = groups; g < groups + group_count && sums; g++)
        kernels->sum_rows[dtype](g->columns, rows, a + g->first * item, lda, sums + g->first * item, 0);
}

void frnn_outer_products(const frnn_kernels *kernels, frnn_dtype dtype, frnn_block rows, const void *a,
                         int64_t lda, const frnn_outer_columns *groups, int group_count,
                         const frnn_outer *outers, int count, void *sums, void *scratch, int accumulate) {
    const int64_t item = (int64_t)frnn_itemsize(dtype), lanes = kernels->lanes[dtype];
    if (rows.end - rows.begin <= SHORT_SUM && !accumulate) {
        short_outer_products(kernels, dtype, rows, (const char *)a + rows.begin * lda * item, lda, groups,
                             group_count, outers, count, sums);
        return;
    }
    const void *b_rows[FRNN_SUM_BLOCK];
    char *const strip = scratch, *const packed = strip
                                               + frnn_min(rows.end - rows.begin, FRNN_SUM_BLOCK)
                                                     * FRNN_OUTER_ROWS * item;
    for (int64_t row = rows.begin; row < rows.end; row += FRNN_SUM_BLOCK, accumulate = 1) {
        const int64_t k = frnn_min(FRNN_SUM_BLOCK, rows.end - row);
        const char *const a_block = (const char *)a + row * lda * item;
        // As many columns of the right sides at a time as stay in a cache.
        outer_part parts[3];
        int waiting = 0, summed = !sums;
        char *panels = packed;
        int64_t room = OUTER_COLUMNS;
        for (int side = 0; side < count; side++) {
            if (!outers[side].c) continue;
            outer_rows(&outers[side], item, row, k, b_rows);
            const int64_t distance = outers[side].n % lanes ? 0 : usable_distance(b_rows, k);
            for (int64_t from = 0, width; from < outers[side].n; from += width) {
                width = frnn_min(room, outers[side].n - from);
                const int64_t whole = frnn_ceil_div(width, lanes) * lanes;
                frnn_right_side right = {
                    width, panels, k * lanes, lanes, (char *)outers[side].c + from * item, outers[side].ldc};
                if (distance) {
                    right.b = (const char *)b_rows[0] + from * item;
                    right.block_step = lanes;
                    right.row_step = distance / item;
                } else {
                    kernels->pack_rows[dtype](k, width, b_rows, panels, k);
                    for (int64_t i = 0; i < k; i++) b_rows[i] = (const char *)b_rows[i] + width * item;
                    panels += whole * k * item;
                }
                parts[waiting++] = (outer_part){side, right};
                room -= whole;
                if (room > 0) continue;
                outer_groups(kernels, dtype, k, a_block, lda, groups, group_count, parts, waiting,
                             summed ? NULL : sums, strip, accumulate);
                waiting = 0, summed = 1, panels = packed, room = OUTER_COLUMNS;
            }
        }
        if (waiting || !summed)
            outer_groups(kernels, dtype, k, a_block, lda, groups, group_count, parts, waiting,
                         summed ? NULL : sums, strip, accumulate);
    }
}

// --- The general product ------------------------------------------------------------------------

typedef struct {
    const char *data;
    int64_t stride; // bytes
} plain_rows;

static void plain(const void *context, int64_t begin, int64_t count, const void **rows) {
    const plain_rows *p = context;
    for (int64_t i = 0; i < count; i++) rows[i] = p->data + (begin + i) * p->stride;
}

typedef struct {
    const frnn_kernels *kernels;
    frnn_dtype dtype;
    int64_t m, n, k, lda, ldb, ldc;
    int transpose_a, transpose_b;
    const void *a, *b;
    void *c;
    char *workspace;
    size_t scratch;
} matmul;

static void matmul_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const matmul *p = context;
    const int64_t item = (int64_t)frnn_itemsize(p->dtype), lanes = p->kernels->lanes[p->dtype];
    const int64_t begin = p->m * thread / threads, end = p->m * (thread + 1) / threads;
    const plain_rows a = {p->a, p->lda * item}, b = {p->b, p->ldb * item}, c = {p->c, p->ldc * item};
    if (p->transpose_a) {
        const frnn_outer outer = {plain, &b, 0, p->n, p->c, p->ldc};
        const frnn_outer_columns columns = {begin, end - begin, begin, 1};
        frnn_outer_products(p->kernels, p->dtype, (frnn_block){0, p->k}, p->a, p->lda, &columns, 1, &outer, 1,
                            NULL, p->workspace + (size_t)thread * p->scratch, 0);
        return;
    }
    if (p->transpose_b) {
        const int64_t blocks = frnn_ceil_div(p->n, lanes);
        const int64_t first = blocks * thread / threads, last = blocks * (thread + 1) / threads;
        p->kernels->pack_columns[p->dtype](1, p->n, p->kernels->lanes[p->dtype], p->k, p->b, p->ldb,
                                           p->workspace + first * p->k * lanes * item, first, last);
    } else {
        frnn_pack_rows(p->kernels, p->dtype, p->n, p->k, p->b, p->ldb, p->workspace, p->k * thread / threads,
                       p->k * (thread + 1) / threads);
    }
    frnn_barrier_wait(barrier);
    const frnn_matrix panels = {.n = p->n, .k = p->k, .panels = p->workspace};
    frnn_rows_product(p->kernels, p->dtype, &panels, begin, end, plain, &a, plain, &c);
}

frnn_status frnn_matmul_workspace(frnn_dtype dtype, int64_t m, int64_t n, int64_t k, int threads,
                                  size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    const size_t item = frnn_itemsize(dtype);
    if (!item || m < 1 || n < 1 || k < 1 || threads < 1) return FRNN_BAD_ARGUMENT;
    if (n > INT32_MAX || k > INT32_MAX) return FRNN_TOO_LARGE;
    frnn_arena arena = {0};
    frnn_carve(&arena, (n + 15) / 16 * 16, (size_t)k * item);
    *bytes = (size_t)frnn_max((int64_t)arena.used,
                              frnn_min(m, threads) * (int64_t)frnn_outer_scratch(dtype, k, n));
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

frnn_status frnn_matmul(frnn_dtype dtype, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                        int transpose_a, const void *b, int64_t ldb, int transpose_b, void *c, int64_t ldc,
                        int threads, void *workspace) {
    if (threads < 1 || !frnn_itemsize(dtype) || m < 1 || n < 1 || k < 1 || !a || !b || !c || !workspace)
        return FRNN_BAD_ARGUMENT;
    if (!frnn_aligned(workspace) || (transpose_a && transpose_b)) return FRNN_BAD_ARGUMENT;
    if (n > INT32_MAX || k > INT32_MAX) return FRNN_TOO_LARGE;
    if (lda < (transpose_a ? m : k) || ldb < (transpose_b ? k : n) || ldc < n) return FRNN_BAD_ARGUMENT;
    matmul job = {
        .kernels = frnn_active_kernels(),
        .dtype = dtype,
        .m = m,
        .n = n,
        .k = k,
        .lda = lda,
        .ldb = ldb,
        .ldc = ldc,
        .transpose_a = transpose_a,
        .transpose_b = transpose_b,
        .a = a,
        .b = b,
        .c = c,
        .workspace = workspace,
        .scratch = frnn_outer_scratch(dtype, k, n),
    };
    frnn_pool_run(matmul_job, &job, (int)frnn_min(m, frnn_threads_for((double)m * n * k, threads)));
    return FRNN_OK;
}
