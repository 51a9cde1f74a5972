// What stands around the layers in a training step, CTC too: results against plain loops in double, the same bits
// on any instruction set, nothing else written; and statuses. (Arrays here are too small for threads.)
//
// test_training --digest   for each instruction set, a hash of the bits of all arrays; those with fused
//                          multiply-adds must agree, on any machine (losses need not: the C library's log)
#include "harness.h"

#include <float.h>
#include <math.h>

enum { MOST = 40000 }; // values of an array, more than one block of squares

// One call's arrays, dense: what it is given and, after it, gave.
typedef struct {
    const char *name;
    int arrays;
    int64_t rows[6], n[6]; // of each array
    int written[6];
    double values[6][MOST], results[6][MOST];
    double extra; // a result that is no array
} call;

typedef frnn_status (*function)(frnn_dtype dtype, void *const *data, call *c);

static int64_t targets[3000];
static uint64_t digests[ISAS];

// Runs the function everywhere; c->results are those of float64, or float32, for a check by the caller.
static void everywhere(function run, call *c, frnn_dtype dtype) {
    static double expected[6][MOST];
    double extra = 0;
    int vectors = 0; // instruction sets that promise the same bits, so far
    for (int isa = ISAS - 1; isa >= 0; isa--) {
        if (!frnn_has_isa(all_isas[isa])) continue;
        EXPECT(FRNN_OK, frnn_set_isa(all_isas[isa]));
        array arrays[6];
        void *data[6];
        for (int i = 0; i < c->arrays; i++) {
            arrays[i] = array_new(dtype, (const int64_t[3]){c->rows[i], 1, c->n[i]}, BATCH_FIRST);
            array_put(&arrays[i], c->values[i]);
            data[i] = arrays[i].data;
        }
        EXPECT(FRNN_OK, run(dtype, data, c));
        const int first = IS_GENERIC(all_isas[isa]) || vectors++ == 0;
        if (first) extra = c->extra;
        CHECK(memcmp(&extra, &c->extra, sizeof extra) == 0, "%s, %s: other bits", c->name, all_isas[isa]);
        for (int i = 0; i < c->arrays; i++) {
            const int64_t count = c->rows[i] * c->n[i];
            array_end(&arrays[i], c->results[i], c->name);
            if (first) memcpy(expected[i], c->results[i], (size_t)count * sizeof(double));
            CHECK(memcmp(expected[i], c->results[i], (size_t)count * sizeof(double)) == 0,
                  "%s, array %d, %s: other bits", c->name, i, all_isas[isa]);
            digests[isa] = hash(digests[isa], c->results[i], count);
        }
    }
}

static void fill(call *c, double size) {
    for (int i = 0; i < c->arrays; i++)
        for (int64_t j = 0; j < c->rows[i] * c->n[i]; j++) c->values[i][j] = size * uniform();
}

#define CLOSE(c, got, want, limit) \
    CHECK(fabs((got) - (want)) <= (limit), "%s: %.9g instead of %.9g", (c)->name, (double)(got), \
          (double)(want))

static call c; // large

// --- Softmax and cross-entropy ------------------------------------------------------------------

static frnn_status run_softmax(frnn_dtype dtype, void *const *data, call *call) {
    return frnn_softmax(dtype, call->rows[0], call->n[0], data[0], data[1], 2);
}

static frnn_status run_cross_entropy(frnn_dtype dtype, void *const *data, call *call) {
    static double losses[3000];
    double alone;
    const frnn_status status =
        frnn_cross_entropy(dtype, call->rows[0], call->n[0], data[0], targets, NULL, NULL, losses, &alone, 2);
    if (status) return status;
    frnn_cross_entropy(dtype, call->rows[0], call->n[0], data[0], targets, NULL, data[1], losses,
                       &call->extra, 2);
    CHECK(alone == call->extra, "without a gradient the loss is another");
    return FRNN_OK;
}

static void check_softmax(frnn_dtype dtype, int64_t rows, int64_t n) {
    const double epsilon = dtype == FRNN_F32 ? FLT_EPSILON : DBL_EPSILON;
    for (int entropy = 0; entropy < 2; entropy++) {
        c = (call){
            .name = entropy ? "cross-entropy" : "softmax", .arrays = 2, .rows = {rows, rows}, .n = {n, n}};
        fill(&c, 8);
        for (int64_t r = 0; r < rows; r++) targets[r] = (r * 7) % n;
        everywhere(entropy ? run_cross_entropy : run_softmax, &c, dtype);
        double mean = 0;
        for (int64_t r = 0; r < rows; r++) {
            double total = 0;
            for (int64_t i = 0; i < n; i++) total += exp(c.values[0][r * n + i]);
            for (int64_t i = 0; i < n; i++) {
                const double p = exp(c.values[0][r * n + i]) / total;
                const double want = entropy ? (p - (i == targets[r])) / (double)rows : p;
                CLOSE(&c, c.results[1][r * n + i], want, 16 * epsilon * (entropy ? 1 / (double)rows : want));
            }
            mean += (log(total) - c.values[0][r * n + targets[r]]) / (double)rows;
        }
        if (entropy) CLOSE(&c, c.extra, mean, 16 * epsilon * (1 + fabs(mean)));
    }
}

// --- Connectionist temporal classification ------------------------------------------------------

// Row r has 3 r labels, neighbours among them the same, and all steps but 2 r.
enum { SEQUENCES = 4, MOST_LABELS = 9, MOST_STEPS = 40, BLANK = 1 };

static int64_t labels[SEQUENCES * MOST_LABELS], input_lengths[SEQUENCES], label_lengths[SEQUENCES];
static const double weights[SEQUENCES] = {1, -0.5, 2, 0.25};
static double ctc_losses[SEQUENCES];

static frnn_status run_ctc(frnn_dtype dtype, void *const *data, call *call) {
    double alone[SEQUENCES];
    frnn_ctc_args args = {
        .dtype = dtype,
        .batch = SEQUENCES,
        .time = call->rows[0] / SEQUENCES,
        .classes = call->n[0],
        .most_labels = MOST_LABELS,
        .logits = data[0],
        .labels = labels,
        .input_lengths = input_lengths,
        .label_lengths = label_lengths,
        .blank = BLANK,
        .weights = weights,
        .losses = alone,
        .threads = 2,
    };
    for (int gradient = 0; gradient < 2; gradient++) {
        size_t bytes;
        EXPECT(FRNN_OK, frnn_ctc_workspace(&args, &bytes));
        memory workspace = memory_new(bytes, 0);
        const frnn_status status = frnn_ctc(&args, workspace.data);
        memory_end(&workspace, "the workspace of CTC");
        if (status) return status;
        args.gradient = data[1], args.losses = ctc_losses;
    }
    CHECK(memcmp(alone, ctc_losses, sizeof alone) == 0, "without a gradient the losses are others");
    return FRNN_OK;
}

// The loss of softmax y (steps, classes), and what its gradient takes from y, to shares.
static double naive_ctc(int64_t steps, int64_t classes, const double *y, int64_t count, const int64_t *of,
                        double *shares) {
    enum { STATES = 2 * MOST_LABELS + 1 };
    static double alpha[MOST_STEPS + 1][STATES + 2],
        beta[MOST_STEPS + 1][STATES + 2]; // of states + 2, of states
    int64_t state[STATES + 2];
    const int64_t states = 2 * count + 1;
    memset(alpha, 0, sizeof alpha), memset(beta, 0, sizeof beta);
    for (int64_t s = 0; s < states; s++) state[s] = s % 2 ? of[s / 2] : BLANK;
#define SKIPS(s) ((s) >= 2 && (s) < states && state[s] != BLANK && state[s] != state[(s)-2])
    alpha[0][2] = 1, beta[steps][states - 1] = 1;
    if (states > 1) beta[steps][states - 2] = 1;
    for (int64_t t = 1; t <= steps; t++)
        for (int64_t s = 0; s < states; s++) {
            const double *a = &alpha[t - 1][s + 2];
            alpha[t][s + 2] = (a[0] + a[-1] + (SKIPS(s) ? a[-2] : 0)) * y[(t - 1) * classes + state[s]];
        }
    for (int64_t t = steps - 1; t > 0; t--)
        for (int64_t s = 0; s < states; s++) {
            const double *next = &y[t * classes], *b = &beta[t + 1][s];
            beta[t][s] = b[0] * next[state[s]];
            if (s + 1 < states) beta[t][s] += b[1] * next[state[s + 1]];
            if (SKIPS(s + 2)) beta[t][s] += b[2] * next[state[s + 2]];
        }
    const double p = alpha[steps][states + 1] + alpha[steps][states];
    memset(shares, 0, (size_t)(steps * classes) * sizeof *shares);
    for (int64_t t = 1; t <= steps; t++)
        for (int64_t s = 0; s < states; s++)
            shares[(t - 1) * classes + state[s]] += alpha[t][s + 2] * beta[t][s] / p;
    return -log(p);
}

static void check_ctc(frnn_dtype dtype, int64_t time, int64_t classes) {
    const double epsilon = 64 * (dtype == FRNN_F32 ? FLT_EPSILON : DBL_EPSILON);
    static double y[MOST], shares[MOST];
    c = (call){
        .name = "CTC", .arrays = 2, .rows = {SEQUENCES * time, SEQUENCES * time}, .n = {classes, classes}};
    fill(&c, 4);
    for (int64_t r = 0; r < SEQUENCES; r++) {
        input_lengths[r] = time - 2 * r, label_lengths[r] = 3 * r;
        for (int64_t i = 0; i < MOST_LABELS; i++)
            labels[r * MOST_LABELS + i] = i % 5 < 2 ? 0 : 2 + i % (classes - 2);
    }
    everywhere(run_ctc, &c, dtype);
    for (int64_t r = 0; r < SEQUENCES; r++) {
        const double *x = &c.values[0][r * time * classes], *gradient = &c.results[1][r * time * classes];
        for (int64_t t = 0; t < time; t++) {
            double total = 0;
            for (int64_t k = 0; k < classes; k++) total += exp(x[t * classes + k]);
            for (int64_t k = 0; k < classes; k++) y[t * classes + k] = exp(x[t * classes + k]) / total;
        }
        const int64_t valid = input_lengths[r] * classes;
        const double loss =
            naive_ctc(input_lengths[r], classes, y, label_lengths[r], &labels[r * MOST_LABELS], shares);
        CLOSE(&c, ctc_losses[r], loss, epsilon * loss);
        for (int64_t i = 0; i < time * classes; i++)
            CLOSE(&c, gradient[i], i < valid ? weights[r] * (y[i] - shares[i]) : 0, epsilon);
    }
}

static void check_ctc_statuses(void) {
    float x[24] = {0}, gradient[24];
    int64_t of[4] = {2, 1, 3, 1}, steps[2] = {3, 2}, count[2] = {2, 1};
    double weight[2] = {1, 1}, losses[2];
    size_t bytes;
    const frnn_ctc_args good = {.batch = 2,
                                .time = 3,
                                .classes = 4,
                                .most_labels = 2,
                                .logits = x,
                                .labels = of,
                                .input_lengths = steps,
                                .label_lengths = count,
                                .weights = weight,
                                .gradient = gradient,
                                .losses = losses,
                                .threads = 1};
    frnn_ctc_args bad[] = {good, good, good, good, good, good, good, good, good, good, good,
                           good, good, good, good, good, good, good, good, good, good, good};
    const size_t sizes = 9; // so many of them that no workspace is right for
    bad[0].dtype = (frnn_dtype)2;
    bad[1].batch = -1;
    bad[2].time = -1;
    bad[3].classes = 0;
    bad[4].most_labels = -1;
    bad[5].threads = 0;
    bad[6].time = INT64_MAX / 4;
    bad[7].classes = (int64_t)1 << 40;
    bad[8].batch = INT64_MAX / 16;
    bad[9].logits = NULL;
    bad[10].labels = NULL;
    bad[11].input_lengths = NULL;
    bad[12].label_lengths = NULL;
    bad[13].weights = NULL;
    bad[14].losses = NULL;
    bad[15].blank = -1;
    bad[16].blank = 4;
    bad[17].blank = 2; // a label
    bad[18].time = 2;  // less than a length
    bad[19].most_labels = 1;
    bad[20].classes = 3; // too few for the labels
    bad[21].labels = (const int64_t[4]){2, -1, 3, 1};
    EXPECT(FRNN_OK, frnn_ctc_workspace(&good, &bytes));
    memory workspace = memory_new(bytes, 0);
    EXPECT(FRNN_OK, frnn_ctc(&good, workspace.data));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc(&good, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc(&good, workspace.data + 8));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc(NULL, workspace.data));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc_workspace(&good, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc_workspace(NULL, &bytes));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc(&bad[i], workspace.data));
        if (i < sizes) EXPECT(FRNN_BAD_ARGUMENT, frnn_ctc_workspace(&bad[i], &bytes));
    }
    memory_end(&workspace, "the workspace of CTC");
    frnn_ctc_args large = good;
    large.time = (int64_t)1 << 40, large.most_labels = (int64_t)1 << 30;
    EXPECT(FRNN_TOO_LARGE, frnn_ctc_workspace(&large, &bytes));
    const frnn_ctc_args none = {.classes = 1, .threads = 1};
    EXPECT(FRNN_OK, frnn_ctc_workspace(&none, &bytes));
    workspace = memory_new(bytes, 0);
    EXPECT(FRNN_OK, frnn_ctc(&none, workspace.data));
    memory_end(&workspace, "the workspace of CTC");
}

// --- Rows that are added ------------------------------------------------------------------------

static frnn_status run_add_row(frnn_dtype dtype, void *const *data, call *call) {
    return frnn_add_row(dtype, call->rows[1], call->n[1], data[0], data[1]);
}

static frnn_status run_sum_rows(frnn_dtype dtype, void *const *data, call *call) {
    return frnn_sum_rows(dtype, call->rows[1], call->n[1], data[1], data[0]);
}

static frnn_status run_add_rows_at(frnn_dtype dtype, void *const *data, call *call) {
    return frnn_add_rows_at(dtype, call->rows[1], call->n[1], data[1], targets, call->rows[0], data[0]);
}

static void check_rows(frnn_dtype dtype, int64_t rows, int64_t n) {
    const double epsilon = (dtype == FRNN_F32 ? FLT_EPSILON : DBL_EPSILON) * (double)(rows + 1);
    const call one = {.arrays = 2, .rows = {1, rows}, .n = {n, n}};
    c = one, c.name = "add_row", fill(&c, 1);
    everywhere(run_add_row, &c, dtype);
    for (int64_t i = 0; i < rows * n; i++)
        CLOSE(&c, c.results[1][i], c.values[1][i] + c.values[0][i % n], epsilon);
    c = one, c.name = "sum_rows", fill(&c, 1);
    everywhere(run_sum_rows, &c, dtype);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) sum += c.values[1][r * n + i];
        CLOSE(&c, c.results[0][i], sum, epsilon);
    }
    c = one, c.name = "add_rows_at", c.rows[0] = 5, fill(&c, 1);
    for (int64_t r = 0; r < rows; r++) targets[r] = r * r % 5;
    everywhere(run_add_rows_at, &c, dtype);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) c.values[0][targets[r] * n + i] += c.values[1][r * n + i];
    for (int64_t i = 0; i < 5 * n; i++) CLOSE(&c, c.results[0][i], c.values[0][i], epsilon);
}

// --- Optimizers ---------------------------------------------------------------------------------

static frnn_optimizer optimizer;

static const double decays[2] = {0, 0.125};

// Two parameters: the first value of arrays w, g, m, v, whose weights do not decay, and the others.
static frnn_status run_update(frnn_dtype dtype, void *const *data, call *call) {
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    const int64_t first[2] = {0, 1}, n[2] = {1, call->n[0] - 1};
    frnn_parameter parameters[3] = {{0}};
    for (int i = 0; i < 2; i++) {
        void *at[4];
        for (int j = 0; j < 4; j++) at[j] = (char *)data[j] + first[i] * item;
        parameters[2 * i] = (frnn_parameter){n[i], at[0], at[1], 0.5, decays[i], at[2], at[3]};
    }
    return frnn_update(&optimizer, dtype, 3, parameters, 2);
}

static frnn_status run_squares(frnn_dtype dtype, void *const *data, call *call) {
    const frnn_parameter parameters[2] = {{.n = call->n[0], .gradient = data[0]}, {.n = 0}};
    double squares[2];
    size_t bytes;
    EXPECT(FRNN_OK, frnn_squares_workspace(2, parameters, &bytes));
    memory workspace = memory_new(bytes, 0);
    const frnn_status status = frnn_squares(dtype, 2, parameters, squares, 2, workspace.data);
    memory_end(&workspace, "the workspace of squares");
    call->extra = squares[0];
    CHECK(squares[1] == 0, "the squares of nothing are %g", squares[1]);
    return status;
}

static void check_optimizer(frnn_dtype dtype, frnn_rule rule, int nesterov, int64_t n) {
    const double epsilon = dtype == FRNN_F32 ? FLT_EPSILON : DBL_EPSILON;
    const frnn_optimizer o = {rule, nesterov, 0.1, 0.75, 0.875, 0.001, 0.25};
    optimizer = o;
    c = (call){.name = "update", .arrays = 4, .rows = {1, 1, 1, 1}, .n = {n, n, n, n}};
    fill(&c, 1);
    for (int64_t i = 0; i < n; i++) c.values[3][i] = fabs(c.values[3][i]);
    everywhere(run_update, &c, dtype);
    for (int64_t i = 0; i < n; i++) {
        double w = c.values[0][i] * (1 - decays[i > 0]), m = c.values[2][i], v = c.values[3][i];
        const double g = fmax(-o.clip, fmin(o.clip, c.values[1][i] / 2));
        if (rule == FRNN_RMSPROP || rule == FRNN_ADAM) v = o.decay * v + (1 - o.decay) * g * g;
        switch (rule) {
        case FRNN_SGD:
            m = o.momentum * m - o.learning_rate * g;
            w += nesterov ? o.momentum * m - o.learning_rate * g : m;
            break;
        case FRNN_RMSPROP:
            m = o.momentum * m + o.learning_rate * g / sqrt(v + o.epsilon);
            w -= m;
            break;
        case FRNN_ADAM:
            m = o.momentum * m + (1 - o.momentum) * g;
            w -= o.learning_rate * m / (sqrt(v) + o.epsilon);
            break;
        case FRNN_ADAGRAD:
            v += g * g;
            w -= o.learning_rate * g / sqrt(v + o.epsilon);
            break;
        }
        CLOSE(&c, c.results[0][i], w, 100 * epsilon);
        CHECK(c.results[1][i] == c.values[1][i], "the gradient was written");
        CLOSE(&c, c.results[2][i], m, 100 * epsilon);
        CLOSE(&c, c.results[3][i], v, 4 * epsilon);
    }
}

static void check_squares(frnn_dtype dtype, int64_t n) {
    c = (call){.name = "squares", .arrays = 1, .rows = {1}, .n = {n}};
    fill(&c, 1);
    everywhere(run_squares, &c, dtype);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += c.values[0][i] * c.values[0][i];
    CLOSE(&c, c.extra, sum, 1e-12 * sum);
}

// --- Statuses -----------------------------------------------------------------------------------

static void check_statuses(void) {
    float v[64] = {0};
    double losses[2], mean;
    int64_t at[2] = {0, 1};
    size_t bytes;
    EXPECT(FRNN_OK, frnn_softmax(FRNN_F32, 0, 4, NULL, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax((frnn_dtype)2, 2, 4, v, v, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, -1, 4, v, v, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, 2, 0, v, v, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, 2, INT64_MAX, v, v, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, 2, 4, NULL, v, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, 2, 4, v, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_softmax(FRNN_F32, 2, 4, v, v, 0));
#define ENTROPY(rows, x, t, l, m, threads) \
    frnn_cross_entropy(FRNN_F32, rows, 4, x, t, NULL, v + 8, l, m, threads)
    EXPECT(FRNN_OK, ENTROPY(2, v, at, losses, &mean, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(0, v, at, losses, &mean, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, NULL, at, losses, &mean, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, v, NULL, losses, &mean, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, v, at, NULL, &mean, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, v, at, losses, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, v, at, losses, &mean, 0));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_add_row(FRNN_F32, 2, 4, NULL, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_add_row(FRNN_F32, 2, 4, v, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_sum_rows(FRNN_F32, 2, 4, NULL, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_sum_rows(FRNN_F32, 2, 4, v, NULL));
    EXPECT(FRNN_OK, frnn_add_rows_at(FRNN_F32, 2, 4, v, at, 2, v + 8));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_add_rows_at(FRNN_F32, 2, 4, v, NULL, 2, v + 8));
    for (int wrong = 0; wrong < 2; wrong++) {
        at[1] = wrong ? 4 : -1;
        EXPECT(FRNN_BAD_ARGUMENT, ENTROPY(2, v, at, losses, &mean, 1));
        EXPECT(FRNN_BAD_ARGUMENT, frnn_add_rows_at(FRNN_F32, 2, 4, v, at, 4, v + 8));
    }
    const frnn_parameter good = {4, v, v + 8, 1, 0, v + 16, v + 24};
    frnn_parameter p = good;
    frnn_optimizer adam = {FRNN_ADAM, 0, 0.1, 0.9, 0.99, 1e-7, INFINITY};
    EXPECT(FRNN_OK, frnn_update(&adam, FRNN_F32, 1, &good, 1));
    EXPECT(FRNN_OK, frnn_update(&adam, FRNN_F32, 0, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(NULL, FRNN_F32, 1, &good, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, (frnn_dtype)2, 1, &good, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, -1, &good, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, NULL, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &good, 0));
    p.n = -1;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &p, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_squares_workspace(1, &p, &bytes));
    p = good, p.momentum = NULL;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &p, 1));
    p = good, p.velocity = NULL;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &p, 1));
    p = good, p.data = NULL;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &p, 1));
    p = good, p.gradient = NULL;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &p, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_squares(FRNN_F32, 1, &p, losses, 1, v));
    adam.rule = (frnn_rule)4;
    EXPECT(FRNN_BAD_ARGUMENT, frnn_update(&adam, FRNN_F32, 1, &good, 1));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_squares_workspace(1, &good, NULL));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_squares(FRNN_F32, 1, &good, NULL, 1, v));
    EXPECT(FRNN_BAD_ARGUMENT, frnn_squares(FRNN_F32, 1, &good, losses, 1, NULL));
}

int main(int argc, char **argv) {
    for (int isa = 0; isa < ISAS; isa++) digests[isa] = HASH_START;
    for (int d = 0; d < 2; d++) {
        const frnn_dtype dtype = (frnn_dtype)d;
        static const int64_t sizes[][2] = {{1, 1},    {2, 3},  {9, 15},    {5, 16},
                                           {300, 17}, {3, 33}, {2500, 13}, {3, 1100}};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            check_softmax(dtype, sizes[i][0], sizes[i][1]);
            check_rows(dtype, sizes[i][0], sizes[i][1]);
        }
        check_ctc(dtype, 20, 4);
        check_ctc(dtype, MOST_STEPS, 37);
        static const int64_t lengths[] = {1, 17, 33, 8192, MOST};
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            check_squares(dtype, lengths[i]);
            for (int rule = 0; rule < 4; rule++) check_optimizer(dtype, (frnn_rule)rule, 0, lengths[i]);
            check_optimizer(dtype, FRNN_SGD, 1, lengths[i]);
        }
    }
    check_statuses();
    check_ctc_statuses();
    if (argc < 2 || strcmp(argv[1], "--digest")) return report("test_training");
    for (int isa = 0; isa < ISAS; isa++)
        if (frnn_has_isa(all_isas[isa]))
            printf("%s %016llx\n", all_isas[isa], (unsigned long long)digests[isa]);
    return failures != 0;
}
