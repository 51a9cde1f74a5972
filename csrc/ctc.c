// Connectionist temporal classification: checks, memory and threads. A thread does one sequence after the other.
#include "internal.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

// What one label costs in one step, as training.c has it for one value of a softmax, and that.
#define LABEL_WORK 4
#define CLASS_WORK 0.7

static int lengths_check(const int64_t *lengths, int64_t batch, int64_t most) {
    if (batch && !lengths) return 0;
    for (int64_t row = 0; row < batch; row++)
        if (lengths[row] < 0 || lengths[row] > most) return 0;
    return 1;
}

static int sizes_check(const frnn_ctc_args *a) {
    if (!a || !frnn_itemsize(a->dtype) || a->batch < 0 || a->time < 0 || a->threads < 1) return 0;
    if (a->classes < 1 || a->classes > INT32_MAX || a->most_labels < 0 || a->most_labels > INT32_MAX)
        return 0;
    const int64_t rows = frnn_max(a->batch, 1);
    return a->time <= INT64_MAX / 16 / a->classes / rows && a->most_labels <= INT64_MAX / 16 / rows;
}

static int arguments_check(const frnn_ctc_args *a) {
    if (!sizes_check(a) || a->blank < 0 || a->blank >= a->classes) return 0;
    if (!lengths_check(a->input_lengths, a->batch, a->time)) return 0;
    if (!lengths_check(a->label_lengths, a->batch, a->most_labels)) return 0;
    if (a->batch && (!a->losses || (a->time && !a->logits) || (a->most_labels && !a->labels))) return 0;
    if (a->batch && a->gradient && !a->weights) return 0;
    for (int64_t row = 0; row < a->batch; row++)
        for (int64_t i = 0; i < a->label_lengths[row]; i++) {
            const int64_t label = a->labels[row * a->most_labels + i];
            if (label < 0 || label >= a->classes || label == a->blank) return 0;
        }
    return 1;
}

// --- Memory -------------------------------------------------------------------------------------

// A thread's.
typedef struct {
    frnn_ctc_run run;
    int64_t *class_of;
    int32_t *symbol_of, *symbol; // symbol: (classes), 0 where a class is none of the sequence's labels
} room;

static frnn_pairs carve_pairs(frnn_arena *arena, int64_t rows, int64_t n) {
    double *m = frnn_carve(arena, rows, (size_t)n * sizeof(double));
    return (frnn_pairs){m, frnn_carve(arena, rows, (size_t)n * sizeof(double))};
}

// Room for any sequence of the batch.
static void room_carve(room *r, const frnn_ctc_args *a, frnn_arena *arena) {
    const int64_t labels = frnn_ctc_room(a->most_labels), padded = labels + FRNN_CTC_LANES;
    const int64_t symbols = frnn_min(a->most_labels + 1, a->classes);
    frnn_ctc_run *run = &r->run;
    run->alpha = carve_pairs(arena, a->gradient ? a->time + 1 : 2, 2 * labels);
    run->beta = carve_pairs(arena, a->gradient ? 2 : 0, padded);
    run->y = carve_pairs(arena, a->gradient ? a->time : 1, symbols);
    run->label_y = carve_pairs(arena, 1, labels);
    run->may_skip = frnn_carve(arena, padded, sizeof(double));
    run->occupied = frnn_carve(arena, labels, sizeof(double));
    run->shares = frnn_carve(arena, symbols, sizeof(double));
    r->class_of = frnn_carve(arena, symbols, sizeof(int64_t));
    r->symbol_of = frnn_carve(arena, labels, sizeof(int32_t));
    r->symbol = frnn_carve(arena, a->classes, sizeof(int32_t));
}

static int threads_of(const frnn_ctc_args *a) {
    const double step = (double)a->classes * CLASS_WORK + (double)a->most_labels * LABEL_WORK;
    const int threads = frnn_threads_for((double)a->batch * (double)a->time * step, a->threads);
    return (int)frnn_max(1, frnn_min(a->batch, threads));
}

frnn_status frnn_ctc_workspace(const frnn_ctc_args *args, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    if (!sizes_check(args)) return FRNN_BAD_ARGUMENT;
    frnn_arena arena = {0};
    room r;
    for (int thread = 0; thread < threads_of(args); thread++) room_carve(&r, args, &arena);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

// --- The call -----------------------------------------------------------------------------------

typedef struct {
    const frnn_ctc_args *args;
    const frnn_kernels *kernels;
    void *workspace;
    atomic_llong next; // sequence that no thread has begun
} job;

// Numbers the classes among a sequence's labels; `symbol` is all zeros before and after.
static void find_symbols(room *r, const int64_t *labels, int64_t count, int64_t blank) {
    int32_t symbols = 1;
    r->class_of[0] = blank;
    for (int64_t i = 0; i < count; i++) {
        int32_t *symbol = &r->symbol[labels[i]];
        if (!*symbol) {
            r->class_of[symbols] = labels[i];
            *symbol = symbols++;
        }
        r->symbol_of[i] = *symbol;
    }
    for (int64_t i = 0; i < count; i++) r->symbol[labels[i]] = 0;
    r->run.symbols = symbols;
}

static void one_sequence(const job *j, room *r, int64_t row) {
    const frnn_ctc_args *a = j->args;
    const size_t step = (size_t)a->classes * frnn_itemsize(a->dtype), all = step * (size_t)a->time;
    frnn_ctc_run *run = &r->run;
    run->labels = a->label_lengths[row];
    find_symbols(r, a->labels + row * a->most_labels, run->labels, a->blank);
    run->steps = a->input_lengths[row];
    run->logits = (const char *)a->logits + (size_t)row * all;
    run->gradient = a->gradient ? (char *)a->gradient + (size_t)row * all : NULL;
    run->weight = a->gradient ? a->weights[row] : 0;
    const double loss = a->losses[row] = j->kernels->ctc(run);
    if (!run->gradient) return;
    const size_t valid = step * (size_t)run->steps;
    if (!isfinite(loss)) memset(run->gradient, isnan(loss) ? 0xFF : 0, valid); // bytes of 0xFF make NaN
    memset((char *)run->gradient + valid, 0, all - valid);
}

static void sequences(void *context, int thread, int threads, frnn_barrier *barrier) {
    job *j = context;
    (void)threads, (void)barrier;
    const frnn_ctc_args *a = j->args;
    frnn_arena arena = {.base = j->workspace};
    room r = {.run = {.dtype = a->dtype, .classes = a->classes}};
    for (int i = 0; i <= thread; i++) room_carve(&r, a, &arena);
    r.run.class_of = r.class_of, r.run.symbol_of = r.symbol_of;
    memset(r.symbol, 0, (size_t)a->classes * sizeof *r.symbol);
    memset(r.run.shares, 0, (size_t)frnn_min(a->most_labels + 1, a->classes) * sizeof(double));
    for (;;) {
        const int64_t row = atomic_fetch_add(&j->next, 1);
        if (row >= a->batch) return;
        one_sequence(j, &r, row);
    }
}

frnn_status frnn_ctc(const frnn_ctc_args *args, void *workspace) {
    if (!arguments_check(args) || !workspace || !frnn_aligned(workspace)) return FRNN_BAD_ARGUMENT;
    job j = {.args = args, .kernels = frnn_active_kernels(), .workspace = workspace};
    atomic_init(&j.next, 0);
    frnn_pool_run(sequences, &j, threads_of(args));
    return FRNN_OK;
}
