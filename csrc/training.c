// What stands around the recurrent layers in a training step: checks and threads.
#include "internal.h"

// What one value costs, in the multiply-adds that share.c weighs threads by. Less than it is: between these
// calls the threads fall asleep, and waking one takes some 50 us.
#define SOFTMAX_WORK 0.7
#define UPDATE_WORK 0.4
#define SQUARES_WORK 0.2
// Values whose squares are summed at a time: part of the canonical order.
#define SQUARES_BLOCK 8192

static int table_check(frnn_dtype dtype, int64_t rows, int64_t n) {
    return frnn_itemsize(dtype) && rows >= 0 && n >= 1 && n <= INT64_MAX / 16 / frnn_max(rows, 1);
}

static const char *row_of(const void *x, frnn_dtype dtype, int64_t n, int64_t row) {
    return (const char *)x + row * n * (int64_t)frnn_itemsize(dtype);
}

// --- Softmax and cross-entropy ------------------------------------------------------------------

typedef struct {
    const frnn_kernels *kernels;
    frnn_dtype dtype;
    int64_t rows, n;
    const void *x;
    void *y;
    double weight;
    const double *weights; // of each row, or NULL: `weight` for all
    const int64_t *targets;
    double *losses;
} softmax;

static void softmax_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const softmax *s = context;
    (void)barrier;
    const int64_t begin = s->rows * thread / threads, end = s->rows * (thread + 1) / threads;
    s->kernels->softmax[s->dtype](end - begin, s->n, row_of(s->x, s->dtype, s->n, begin),
                                  s->y ? (void *)row_of(s->y, s->dtype, s->n, begin) : NULL, s->weight,
                                  s->weights ? s->weights + begin : NULL,
                                  s->targets ? s->targets + begin : NULL,
                                  s->losses ? s->losses + begin : NULL);
}

static void run_softmax(softmax *job, int threads) {
    const double work = (double)job->rows * (double)job->n * SOFTMAX_WORK;
    job->kernels = frnn_active_kernels();
    frnn_pool_run(softmax_job, job, (int)frnn_min(job->rows, frnn_threads_for(work, threads)));
}

frnn_status frnn_softmax(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, void *y, int threads) {
    if (!table_check(dtype, rows, n) || threads < 1 || (rows && (!x || !y))) return FRNN_BAD_ARGUMENT;
    softmax job = {.dtype = dtype, .rows = rows, .n = n, .x = x, .y = y, .weight = 1};
    run_softmax(&job, threads);
    return FRNN_OK;
}

frnn_status frnn_cross_entropy(frnn_dtype dtype, int64_t rows, int64_t classes, const void *logits,
                               const int64_t *targets, const double *weights, void *gradient, double *losses,
                               double *loss, int threads) {
    if (!table_check(dtype, rows, classes) || rows < 1 || threads < 1) return FRNN_BAD_ARGUMENT;
    if (!logits || !targets || !losses || !loss) return FRNN_BAD_ARGUMENT;
    for (int64_t row = 0; row < rows; row++)
        if (targets[row] < 0 || targets[row] >= classes) return FRNN_BAD_ARGUMENT;
    softmax job = {
        .dtype = dtype,
        .rows = rows,
        .n = classes,
        .x = logits,
        .y = gradient,
        .weight = 1.0 / (double)rows,
        .weights = weights,
        .targets = targets,
        .losses = losses,
    };
    run_softmax(&job, threads);
    double sum = 0;
    for (int64_t row = 0; row < rows; row++) sum += weights ? weights[row] * losses[row] : losses[row];
    *loss = weights ? sum : sum / (double)rows;
    return FRNN_OK;
}

// --- Rows that are added ------------------------------------------------------------------------

frnn_status frnn_add_row(frnn_dtype dtype, int64_t rows, int64_t n, const void *row, void *x) {
    if (!table_check(dtype, rows, n) || !row || (rows && !x)) return FRNN_BAD_ARGUMENT;
    const frnn_fp_mode mode = frnn_fp_enter();
    frnn_active_kernels()->add_row[dtype](rows, n, row, x);
    frnn_fp_leave(mode);
    return FRNN_OK;
}

frnn_status frnn_sum_rows(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, void *sum) {
    if (!table_check(dtype, rows, n) || (rows && !x) || !sum) return FRNN_BAD_ARGUMENT;
    const frnn_kernels *kernels = frnn_active_kernels();
    const frnn_fp_mode mode = frnn_fp_enter();
    int64_t row = 0;
    do {
        const int64_t count = frnn_min(FRNN_SUM_BLOCK, rows - row);
        kernels->sum_rows[dtype](n, count, row_of(x, dtype, n, row), n, sum, row > 0);
        row += count;
    } while (row < rows);
    frnn_fp_leave(mode);
    return FRNN_OK;
}

frnn_status frnn_add_rows_at(frnn_dtype dtype, int64_t rows, int64_t n, const void *x, const int64_t *at,
                             int64_t y_rows, void *y) {
    if (!table_check(dtype, rows, n) || !table_check(dtype, y_rows, n)) return FRNN_BAD_ARGUMENT;
    if (rows && (!x || !at || !y)) return FRNN_BAD_ARGUMENT;
    for (int64_t row = 0; row < rows; row++)
        if (at[row] < 0 || at[row] >= y_rows) return FRNN_BAD_ARGUMENT;
    const frnn_fp_mode mode = frnn_fp_enter();
    frnn_active_kernels()->add_rows_at[dtype](rows, n, x, at, y, n);
    frnn_fp_leave(mode);
    return FRNN_OK;
}

// --- Optimizers ---------------------------------------------------------------------------------

typedef struct {
    const frnn_kernels *kernels;
    frnn_dtype dtype;
    const frnn_optimizer *optimizer;
    int64_t count, total;
    const frnn_parameter *parameters;
    double *partial; // sums of squares of each parameter's blocks, one after the other
} parameters;

static int64_t blocks_of(const frnn_parameter *p) { return frnn_ceil_div(p->n, SQUARES_BLOCK); }

// Sums up `total`; no sum of blocks or values overflows then.
static int parameters_check(parameters *job) {
    if (job->count < 0 || (job->count && !job->parameters)) return 0;
    for (int64_t i = 0; i < job->count; i++) {
        const int64_t n = job->parameters[i].n;
        if (n < 0 || n > INT64_MAX / 32 - job->total) return 0;
        job->total += n;
    }
    return 1;
}

// Each thread has a range of all values, cut at multiples of a cache line.
static void update_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const parameters *job = context;
    (void)barrier;
    const int64_t begin = job->total / threads * thread / 16 * 16;
    const int64_t end = thread + 1 == threads ? job->total : job->total / threads * (thread + 1) / 16 * 16;
    int64_t start = 0; // of this parameter among all values
    for (int64_t i = 0; i < job->count && start < end; i++) {
        const frnn_parameter *p = &job->parameters[i];
        const int64_t from = frnn_max(begin - start, 0), to = frnn_min(end - start, p->n);
        if (from < to) job->kernels->update[job->dtype](job->optimizer, p, from, to);
        start += p->n;
    }
}

frnn_status frnn_update(const frnn_optimizer *optimizer, frnn_dtype dtype, int64_t count,
                        const frnn_parameter *array, int threads) {
    parameters job = {.dtype = dtype, .optimizer = optimizer, .count = count, .parameters = array};
    if (!optimizer || (unsigned)optimizer->rule > FRNN_ADAGRAD || !frnn_itemsize(dtype) || threads < 1)
        return FRNN_BAD_ARGUMENT;
    if (!parameters_check(&job)) return FRNN_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; i++) {
        const frnn_parameter *p = &array[i];
        if (p->n && (!p->data || !p->gradient)) return FRNN_BAD_ARGUMENT;
        if (p->n && optimizer->rule != FRNN_SGD && !p->velocity) return FRNN_BAD_ARGUMENT;
        if (p->n && optimizer->rule == FRNN_ADAM && !p->momentum) return FRNN_BAD_ARGUMENT;
    }
    job.kernels = frnn_active_kernels();
    frnn_pool_run(update_job, &job, frnn_threads_for((double)job.total * UPDATE_WORK, threads));
    return FRNN_OK;
}

static void squares_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const parameters *job = context;
    (void)barrier;
    int64_t blocks = 0, start = 0;
    for (int64_t i = 0; i < job->count; i++) blocks += blocks_of(&job->parameters[i]);
    const int64_t begin = blocks * thread / threads, end = blocks * (thread + 1) / threads;
    for (int64_t i = 0; i < job->count; i++) {
        const frnn_parameter *p = &job->parameters[i];
        const int64_t own = blocks_of(p);
        for (int64_t b = frnn_max(begin - start, 0); b < frnn_min(end - start, own); b++)
            job->partial[start + b] =
                job->kernels->sum_squares[job->dtype](frnn_min(SQUARES_BLOCK, p->n - b * SQUARES_BLOCK),
                                                      row_of(p->gradient, job->dtype, SQUARES_BLOCK, b));
        start += own;
    }
}

frnn_status frnn_squares_workspace(int64_t count, const frnn_parameter *array, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    parameters job = {.count = count, .parameters = array};
    if (!parameters_check(&job)) return FRNN_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; i++) *bytes += (size_t)blocks_of(&array[i]) * sizeof(double);
    return FRNN_OK;
}

frnn_status frnn_squares(frnn_dtype dtype, int64_t count, const frnn_parameter *array, double *squares,
                         int threads, void *workspace) {
    parameters job = {.dtype = dtype, .count = count, .parameters = array, .partial = workspace};
    if (!frnn_itemsize(dtype) || threads < 1 || !parameters_check(&job)) return FRNN_BAD_ARGUMENT;
    if (count && (!squares || (job.total && (!workspace || !frnn_aligned(workspace)))))
        return FRNN_BAD_ARGUMENT;
    for (int64_t i = 0; i < count; i++)
        if (array[i].n && !array[i].gradient) return FRNN_BAD_ARGUMENT;
    job.kernels = frnn_active_kernels();
    frnn_pool_run(squares_job, &job, frnn_threads_for((double)job.total * SQUARES_WORK, threads));
    const double *partial = workspace;
    for (int64_t i = 0; i < count; i++) {
        squares[i] = 0;
        for (int64_t b = blocks_of(&array[i]); b > 0; b--) squares[i] += *partial++;
    }
    return FRNN_OK;
}
