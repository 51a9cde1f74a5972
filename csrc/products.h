// Products and sums over all rows of a batch.
#ifndef FASTRNN_PRODUCTS_H
#define FASTRNN_PRODUCTS_H

#include "kernels.h"
#include "pool.h"

// Gives the addresses of rows [begin, begin + count).
typedef void (*frnn_rows)(const void *context, int64_t begin, int64_t count, const void **rows);

// C = A B for rows [begin, end) of A and C.
void frnn_rows_product(const frnn_kernels *kernels, frnn_dtype dtype, const frnn_matrix *b, int64_t begin,
                       int64_t end, frnn_rows a, const void *a_context, frnn_rows c, const void *c_context);
// One of the right sides B of frnn_outer_products: its rows by address, of which it takes n values from `first` on,
// and C, or NULL.
typedef struct {
    frnn_rows rows;
    const void *context;
    int64_t first, n;
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
// a[row][first + i] b[row][first:][:n]; and sums[first + i] (+)= sum of a[row][first + i] unless sums is NULL; FRNN_SUM_BLOCK
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

#endif
