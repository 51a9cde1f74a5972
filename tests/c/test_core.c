// Every cell and variant, forward and backward, against plain loops in double precision; and the same bits whatever the
// threads, vector instruction sets, layouts, and cuts of batch and time.
//
// test_core            all sizes
// test_core --quick    small ones, and little of each variant: for sanitizers and emulators
// test_core --digest   for each instruction set, a hash of the bits of all outputs; those with fused
//                      multiply-adds must agree, on any machine
#include "layer.h"

#include <float.h>

static int quick;

// --- The plain loops themselves -----------------------------------------------------------------

static double loss(problem *p) {
    static const int pairs[3][2] = {{Y, DY}, {H_N, DH_N}, {C_N, DC_N}};
    double sum = 0;
    naive(p, 1);
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; p->of[pairs[i][1]] && k < count_of(p, pairs[i][0]); k++)
            sum += p->of[pairs[i][0]][k] * p->of[pairs[i][1]][k];
    return sum;
}

// Every gradient of the plain loops against central differences.
static void check_naive(frnn_layer layer, int reverse) {
    static const int64_t lengths[] = {2, 0, 4};
    layer.input_size = 2, layer.hidden_size = 3;
    if (layer.proj_size) layer.proj_size = 2;
    problem p = problem_of(layer, 3, 4, lengths, reverse);
    problem_fill(&p, 0, 5);
    naive(&p, 1);
    problem q = problem_part(&p, 0, p.B, 0, p.T);
    const options o = {.isa = "plain loops"};
    for (int which = X; which <= LN_C; which++) {
        double *values = q.of[which];
        for (int64_t k = 0; values && k < count_of(&p, which); k++) {
            const double value = values[k], step = 1e-5, gradient = p.of[DX + which][k];
            values[k] = value + step;
            const double up = loss(&q);
            values[k] = value - step;
            const double difference = (up - loss(&q)) / (2 * step);
            values[k] = value;
            // What is normalised bends more.
            const double limit = layer.layer_norm ? 1e-6 : 1e-8;
            CHECK(fabs(gradient - difference) < limit, "%s: %s[%d] is %g, by differences %g",
                  describe(&p, &o), names[DX + which], (int)k, gradient, difference);
        }
    }
    problem_end(&p), problem_end(&q);
}

// --- The kernels --------------------------------------------------------------------------------

static void check_close(const problem *expected, const problem *got, const options *o) {
    for (int which = OUTPUTS; which < ALL; which++) {
        double largest = 1, error = 0;
        for (int64_t i = 0; i < count_of(got, which); i++) {
            const double difference = fabs(got->of[which][i] - expected->of[which][i]);
            largest = fmax(largest, fabs(expected->of[which][i]));
            if (!isnan(error) && !(difference <= error)) error = difference; // and so NaN stays
        }
        // A sum over all rows gathers more rounding, and a normalisation divides by what may be small.
        const double rows = which >= DW_IH && which < FLOW ? sqrt((double)(got->B * got->T)) : 1;
        const double norm = got->layer.layer_norm ? 4 : 1;
        const double limit =
            largest * rows * norm * (o->dtype == FRNN_F32 ? 16 * FLT_EPSILON : 16 * DBL_EPSILON);
        CHECK(error <= limit, "%s: %s is off by %g, values up to %g", describe(got, o), names[which], error,
              largest);
    }
}

// Outputs from `first` on, but those not asked for.
static void check_same(const problem *p, const problem *q, const options *o, int first, int end) {
    for (int which = first; which < end; which++)
        if (!(o->without & BIT(which)))
            CHECK(same_bits(p, q, which), "%s: other bits in %s", describe(q, o), names[which]);
}

static void check_options(const problem *base, options o) {
    problem again = run_again(base, &o);
    check_same(base, &again, &o, OUTPUTS, o.inference ? DX : ALL);
    problem_end(&again);
}

// x as a table: only the gradients of W are summed in another order.
static void check_ids(const problem *expected, const problem *base, options o) {
    o.ids = 1;
    problem again = run_again(base, &o);
    check_close(expected, &again, &o);
    check_same(base, &again, &o, OUTPUTS, o.inference ? DX : DW_IH);
    if (!o.inference) check_same(base, &again, &o, DW_IH + 1, ALL);
    problem_end(&again);
}

// Each row alone gives its own part of the whole batch's outputs.
static void check_rows(const problem *whole, const options *o) {
    for (int64_t b = 0; b < whole->B; b++) {
        problem row = problem_part(whole, b, 1, 0, whole->T);
        run_layer(&row, o);
        for (int which = OUTPUTS; which < ALL; which = which == DC0 ? FLOW : which + 1) {
            const int64_t count = count_of(&row, which);
            CHECK(memcmp(row.of[which], whole->of[which] + b * count, (size_t)count * sizeof(double)) == 0,
                  "%s: row %d alone has other bits in %s", describe(whole, o), (int)b, names[which]);
        }
        problem_end(&row);
    }
}

// Pieces of `size` steps, states handed on, then gradients handed back.
static void check_pieces(const problem *whole, const options *o, int64_t size) {
    enum { MOST = 64 };
    static const int states[] = {H0, C0}, next[] = {H_N, C_N}, gradients[] = {DH_N, DC_N},
                     back[] = {DH0, DC0};
    problem pieces[MOST];
    const int64_t B = whole->B, T = whole->T, P = whole->P, count = (T + size - 1) / size;
    const int kinds = has_c(whole->layer.cell) ? 2 : 1;
    if (count > MOST) abort();
    for (int backward = 0; backward < 2; backward++) {
        for (int64_t k = 0; k < count; k++) {
            const int64_t i = backward ? count - 1 - k : k, t = i * size;
            problem *p = &pieces[i];
            if (!backward) *p = problem_part(whole, 0, B, t, t + size < T ? size : T - t);
            for (int c = 0; c < kinds && k > 0; c++) {
                const int to = backward ? gradients[c] : states[c];
                const size_t state_bytes = (size_t)count_of(p, to) * sizeof(double);
                if (!p->of[to]) p->of[to] = malloc(state_bytes);
                memcpy(p->of[to], backward ? p[1].of[back[c]] : p[-1].of[next[c]], state_bytes);
            }
            run_layer(p, o);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        for (int64_t b = 0; b < B; b++) {
            const int64_t rows = pieces[i].T, at = b * T + i * size;
            CHECK(memcmp(pieces[i].of[Y] + b * rows * P, whole->of[Y] + at * P, (size_t)(rows * P) * 8) == 0,
                  "%s: cut into %d steps, other bits in y", describe(whole, o), (int)size);
            CHECK(memcmp(pieces[i].of[DX] + b * rows * whole->I, whole->of[DX] + at * whole->I,
                         (size_t)(rows * whole->I) * 8)
                      == 0,
                  "%s: cut into %d steps, other bits in dx", describe(whole, o), (int)size);
            CHECK(memcmp(pieces[i].of[FLOW] + b * rows, whole->of[FLOW] + at, (size_t)rows * 8) == 0,
                  "%s: cut into %d steps, other bits in flow", describe(whole, o), (int)size);
        }
    }
    for (int c = 0; c < kinds; c++) {
        CHECK(same_bits(whole, &pieces[count - 1], next[c]), "%s: cut, other final state",
              describe(whole, o));
        CHECK(same_bits(whole, &pieces[0], back[c]), "%s: cut, other gradient of the initial state",
              describe(whole, o));
    }
    for (int64_t i = 0; i < count; i++) problem_end(&pieces[i]);
}

static void check_problem(problem *expected) {
    const frnn_layer *layer = &expected->layer;
    const int brief = quick && !is_plain(layer); // there are many
    // Without a tape zoneout's mean is taken, and nothing is dropped.
    problem mean = problem_part(expected, 0, expected->B, 0, expected->T);
    naive(expected, 1), naive(&mean, 0);
    for (int dtype = 0; dtype < 2; dtype++) {
        problem first = {0}; // of the instruction sets that promise the same bits
        for (int i = 0; i < ISAS; i++) {
            if (!frnn_has_isa(all_isas[i])) continue;
            const options o = {.isa = all_isas[i], .dtype = (frnn_dtype)dtype, .threads = 1};
            options other = o;
            problem base = run_again(expected, &o);
            check_close(expected, &base, &o);
            other.inference = 1;
            problem still = run_again(expected, &other);
            check_close(&mean, &still, &other);
            if (!has_masks(layer)) check_same(&base, &still, &other, OUTPUTS, DX);
            other = o;
            other.provider = 1;
            problem provided = run_again(expected, &other);
            check_close(expected, &provided, &other);
            other.inference = 1, other.threads = 2, other.layout = TIME_FIRST;
            if (!has_masks(layer) && !brief) check_options(&provided, other);
            problem_end(&provided);

            for (other = o, other.threads = brief ? 3 : 1; other.threads <= 3; other.threads++) {
                other.layout = other.threads;
                check_options(&base, other);
                options inference = other;
                inference.inference = 1;
                check_options(&still, inference);
                options borrowed = other;
                borrowed.borrowed = 1;
                if (!layer->proj_size) check_options(&base, borrowed);
                options checkpoints = layer->proj_size ? other : borrowed;
                checkpoints.checkpoint_every = 2 * other.threads - 1;
                check_options(&base, checkpoints);
                check_ids(expected, &base, other);
                check_ids(&mean, &still, inference);
            }
            // A row's masks depend on its place in the batch and on its steps.
            const int divisible = !has_masks(layer) && !brief;
            if (divisible && expected->B > 1 && expected->B < 10) check_rows(&base, &o);
            if (divisible && !expected->lengths && !expected->reverse && expected->T > 1
                && expected->T < 10) {
                check_pieces(&base, &o, 1);
                check_pieces(&base, &o, 2);
            }
            problem_end(&still);
            if (!first.B && !IS_GENERIC(o.isa)) {
                first = base;
            } else {
                if (!IS_GENERIC(o.isa)) check_same(&first, &base, &o, OUTPUTS, ALL);
                problem_end(&base);
            }
        }
        problem_end(&first);
    }
    problem_end(&mean);
}

// Any output may be left out without a change to the others.
static void check_without(frnn_layer layer) {
    static const int64_t lengths[] = {3, 0, 5, 4};
    layer.input_size = 5, layer.hidden_size = 19;
    if (layer.proj_size) layer.proj_size = 7;
    problem p = problem_of(layer, 4, 5, lengths, 0);
    problem_fill(&p, 0, 9);
    const unsigned everything = BIT(ALL) - BIT(OUTPUTS);
    for (int i = 0; i < ISAS; i++) {
        options o = {.isa = all_isas[i], .threads = 1};
        if (!frnn_has_isa(o.isa)) continue;
        problem base = run_again(&p, &o);
        for (int which = OUTPUTS; which < ALL; which++) {
            o.without = BIT(which);
            check_options(&base, o);
            o.without = everything - BIT(which);
            check_options(&base, o);
        }
        o.without = everything;
        check_options(&base, o);
        problem_end(&base);
    }
    problem_end(&p);
}

// A bfloat16 from a problem's values: 8 bits of mantissa.
static void round_to_bfloat16(problem *p, int which) {
    for (int64_t i = 0; p->of[which] && i < count_of(p, which); i++) {
        int exponent;
        const double mantissa = frexp(p->of[which][i], &exponent);
        p->of[which][i] = ldexp(nearbyint(ldexp(mantissa, 8)), exponent - 8);
    }
}

// Weights of bfloat16: the bits of weights that are rounded, unless x and h are rounded too.
static void check_bfloat16(frnn_layer layer) {
    static const int64_t lengths[] = {3, 0, 5, 4};
    static const char *const isas[ISAS + 1] = {"avx512_bf16", "avx512", "avx2", "neon", "generic"};
    layer.input_size = 5, layer.hidden_size = 19;
    if (layer.proj_size) layer.proj_size = 7;
    problem p = problem_of(layer, 4, 5, lengths, 1);
    problem_fill(&p, 0, 9);
    round_to_bfloat16(&p, W_IH), round_to_bfloat16(&p, W_HH), round_to_bfloat16(&p, W_HR);
    for (int i = 0; i < ISAS + 1; i++) {
        options o = {.isa = isas[i], .threads = 1, .inference = 1};
        if (!frnn_has_isa(o.isa)) continue;
        problem base = run_again(&p, &o);
        o.bfloat16 = 1, o.threads = 2, o.provider = 1;
        problem halves = run_again(&p, &o);
        if (i > 0) check_same(&base, &halves, &o, OUTPUTS, DX);
        for (int which = OUTPUTS; which < DX && i == 0; which++)
            for (int64_t k = 0; k < count_of(&p, which); k++)
                CHECK(fabs(base.of[which][k] - halves.of[which][k]) < 0.1, "%s: %s is off by %g",
                      describe(&p, &o), names[which], base.of[which][k] - halves.of[which][k]);
        problem_end(&base), problem_end(&halves);
    }
    problem_end(&p);
}

// --- Sizes --------------------------------------------------------------------------------------

typedef struct {
    int64_t I, H, B, T;
    int ragged, reverse; // ragged 2: no row has any step
    unsigned absent;     // inputs
    int quick;           // small enough for sanitizers and emulators; 2: only of what is_rich
} size_case;

#define STATES (BIT(H0) | BIT(C0))
#define GRADIENTS (BIT(DY) | BIT(DH_N) | BIT(DC_N))
static const size_case plain_cases[] = {
    {1, 1, 1, 1, 0, 0, 0, 1},
    {3, 1, 2, 5, 1, 0, 0, 1},
    {5, 3, 1, 4, 0, 0, STATES, 1},
    {2, 3, 4, 3, 1, 1, BIT(B_IH), 1},
    {17, 17, 5, 6, 1, 0, BIT(DY), 1},
    {16, 17, 3, 4, 0, 0, BIT(B_HH), 1},
    {4, 5, 3, 2, 2, 0, 0, 1},
    {7, 8, 2, 3, 0, 1, STATES | GRADIENTS, 1},
    {9, 33, 1, 7, 0, 0, BIT(DH_N) | BIT(DC_N), 1},
    {20, 100, 4, 4, 1, 0, 0, 1},
    {2, 3, 140, 9, 1, 1, 0, 1}, // more rows than one block of a sum over rows
    {6, 13, 2, 3, 1, 0, 0, 1},  // gates that share two of three vectors, or three of four
    {5, 26, 9, 2, 0, 0, 0, 1},  // likewise
    {23, 100, 1, 5, 0, 0, BIT(B_IH) | BIT(B_HH), 0},
    {100, 100, 3, 4, 1, 0, 0, 0},
    {31, 100, 13, 3, 0, 1, BIT(H0), 0},
    {10, 17, 40, 9, 1, 1, 0, 0}, // rows enough for each of three threads
    {32, 48, 1, 4, 0, 0, 0, 1},  // one row, weights in whole squares
    {29, 3, 1, 600, 0, 0, 0, 0}, // fewer blocks of units than threads
    {3, 17, 70, 18, 1, 0, 0, 0}, // likewise
    {60, 17, 1, 70, 0, 1, 0, 1}, // one row, whose input is projected ahead of it
    {1, 2, 3, 4200, 1, 0, 0, 0}, // more rows than a provider takes at a time
    {520, 20, 2, 3, 0, 0, 0, 0}, // wider than one pass of dW
    {9, 350, 2, 2, 0, 0, 0, 0},  // a longer sum than one pass of dX, for gates of 3 and 4
};

// For variants.
static const size_case variant_cases[] = {
    {1, 1, 2, 3, 1, 0, BIT(B_IH), 1},           // a unit
    {5, 19, 4, 3, 0, 0, STATES | BIT(B_HH), 1}, // from no state
    {6, 18, 5, 4, 1, 1, BIT(DH_N), 1},          // ragged
    {2, 11, 140, 4, 0, 1, 0, 2},                // more rows than one block of a sum over rows
    {10, 50, 5, 6, 0, 0, 0, 2},                 // units enough for three threads
    {12, 80, 5, 6, 1, 0, 0, 0},                 // for cells of fewer gates too
    {10, 17, 40, 9, 1, 1, 0, 0},                // rows enough
    {3, 17, 140, 4, 0, 0, 0, 0},                // likewise
    {100, 48, 1, 12, 0, 1, 0, 0},               // one row, whose input is projected ahead of it
};

static size_t cases_of(const frnn_layer *layer, const size_case **cases) {
    *cases = is_plain(layer) ? plain_cases : variant_cases;
    return is_plain(layer) ? sizeof plain_cases / sizeof *plain_cases
                           : sizeof variant_cases / sizeof *variant_cases;
}

enum { MOST_ROWS = 140 };
static problem problem_for(frnn_layer layer, const size_case *s, int64_t lengths[MOST_ROWS], uint64_t seed) {
    for (int64_t b = 0; b < s->B; b++) lengths[b] = s->ragged == 2 ? 0 : (b * 5 + s->T) % (s->T + 1);
    if (s->ragged == 1) lengths[s->B / 2] = s->T, lengths[s->B - 1] = 0;
    layer.input_size = s->I, layer.hidden_size = s->H;
    if (layer.proj_size) layer.proj_size = (2 * s->H + 2) / 3;
    problem p = problem_of(layer, s->B, s->T, s->ragged ? lengths : NULL, s->reverse);
    problem_fill(&p, s->absent, seed);
    return p;
}

// --- Variants -----------------------------------------------------------------------------------
// Each thing that a layer can do beyond its cell's equations, and some at once.

enum { WITH_C = 1, WITHOUT_C = 2, BEFORE = 4, NORMALISED = WITH_C | WITHOUT_C, ALL_CELLS = 7 };
static int kind_of(frnn_cell cell) {
    return has_c(cell) ? WITH_C : cell == FRNN_GRU_BEFORE ? BEFORE : WITHOUT_C;
}

static const struct {
    int cells;
    frnn_layer layer; // with proj_size: of any size
} variants[] = {
    {ALL_CELLS, {.gate_activation = FRNN_HARD_SIGMOID, .state_activation = FRNN_IDENTITY}},
    {ALL_CELLS, {.gate_activation = FRNN_TANH, .state_activation = FRNN_RELU, .clip = 0.75}},
    {ALL_CELLS, {.state_activation = FRNN_SIGMOID, .clip = 0.5}},
    {ALL_CELLS, {.zoneout_h = 0.375}},
    {ALL_CELLS, {.recurrent_dropout = 0.375}},
    {WITH_C, {.zoneout_c = 0.625}},
    {WITH_C, {.proj_size = 1}},
    {WITH_C, {.peephole = 1}},
    {NORMALISED, {.layer_norm = 1}},
    {ALL_CELLS, {.clip = 1, .zoneout_h = 0.125, .recurrent_dropout = 0.25}},
    {WITHOUT_C, {.layer_norm = 1, .zoneout_h = 0.25, .recurrent_dropout = 0.125}},
    {WITH_C,
     {.proj_size = 1,
      .gate_activation = FRNN_HARD_SIGMOID,
      .clip = 2,
      .peephole = 1,
      .zoneout_h = 0.25,
      .zoneout_c = 0.125,
      .recurrent_dropout = 0.5}},
    {WITH_C,
     {.proj_size = 1,
      .clip = 1.5,
      .layer_norm = 1,
      .zoneout_h = 0.125,
      .zoneout_c = 0.25,
      .recurrent_dropout = 0.25}},
};

// Those with most at once.
static int is_rich(const frnn_layer *layer) {
    return has_masks(layer) && (layer->peephole || layer->layer_norm);
}

// Calls check for every cell, plain, and for each of its variants.
static void for_each_layer(void (*check)(const frnn_layer *layer, void *context), void *context) {
    for (int cell = 0; frnn_cell_name((frnn_cell)cell); cell++) {
        frnn_layer layer = {.cell = (frnn_cell)cell};
        check(&layer, context);
        for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
            if (!(variants[i].cells & kind_of((frnn_cell)cell))) continue;
            layer = variants[i].layer;
            layer.cell = (frnn_cell)cell;
            check(&layer, context);
        }
    }
}

// --- A digest -----------------------------------------------------------------------------------

static uint64_t hash_functions(uint64_t h) {
    enum { N = 3001 };
    double values[N];
    const int64_t n[3] = {1, 1, N};
    for (int i = 0; i < N; i++) values[i] = uniform() * (i % 3 == 0 ? 100 : i % 3 == 1 ? 8 : 0.125);
    for (int function = FRNN_TANH; function <= FRNN_IDENTITY; function++)
        for (int dtype = 0; dtype < 2; dtype++) {
            double results[N];
            array a = array_new((frnn_dtype)dtype, n, BATCH_FIRST);
            array_put(&a, values);
            EXPECT(FRNN_OK, frnn_map((frnn_function)function, (frnn_dtype)dtype, N, a.data, a.data));
            array_end(&a, results, "a mapped array");
            h = hash(h, results, N);
        }
    return h;
}

typedef struct {
    const char *isa;
    uint64_t hash;
} layer_hash;

static void hash_layer(const frnn_layer *layer, void *context) {
    layer_hash *h = context;
    const size_case *cases;
    const size_t count = cases_of(layer, &cases);
    for (size_t i = 0; i < count; i++)
        for (int dtype = 0; dtype < 2 && cases[i].quick; dtype++) {
            int64_t lengths[MOST_ROWS];
            const options o = {.isa = h->isa, .dtype = (frnn_dtype)dtype, .threads = 2};
            problem p = problem_for(*layer, &cases[i], lengths, i);
            run_layer(&p, &o);
            for (int which = OUTPUTS; which < ALL; which++)
                h->hash = hash(h->hash, p.of[which], count_of(&p, which));
            problem_end(&p);
        }
}

static int print_digests(void) {
    for (int i = 0; i < ISAS; i++) {
        if (!frnn_has_isa(all_isas[i])) continue;
        layer_hash h = {all_isas[i], HASH_START};
        for_each_layer(hash_layer, &h);
        printf("%s %016llx\n", h.isa, (unsigned long long)hash_functions(h.hash));
    }
    return failures != 0;
}

// --- All of it ----------------------------------------------------------------------------------

static void check_layer(const frnn_layer *layer, void *unused) {
    (void)unused;
    const size_case *cases;
    const size_t count = cases_of(layer, &cases);
    for (int reverse = 0; reverse < 2; reverse++) check_naive(*layer, reverse);
    if (is_plain(layer) || is_rich(layer)) check_without(*layer);
    check_bfloat16(*layer);
    for (size_t i = 0; i < count; i++) {
        if (quick && !(cases[i].quick == 1 || (cases[i].quick == 2 && is_rich(layer)))) continue;
        int64_t lengths[MOST_ROWS];
        problem p = problem_for(*layer, &cases[i], lengths, 1000 + i);
        check_problem(&p);
        problem_end(&p);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--digest") == 0) return print_digests();
    quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    for_each_layer(check_layer, NULL);
    return report("test_core");
}
