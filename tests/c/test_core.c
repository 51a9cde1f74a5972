// Every cell, forward and backward, against plain loops in double precision; and the same bits whatever the
// threads, vector instruction sets, layouts, and cuts of batch and time.
//
// test_core            all sizes
// test_core --quick    small ones: for sanitizers and emulators
// test_core --digest   for each instruction set, a hash of the bits of all outputs; those with fused
//                      multiply-adds must agree, on any machine
#include "layer.h"

#include <float.h>

// --- The plain loops themselves -----------------------------------------------------------------

static double loss(problem *p) {
    static const int pairs[3][2] = {{Y, DY}, {H_N, DH_N}, {C_N, DC_N}};
    double sum = 0;
    naive(p);
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; p->of[pairs[i][1]] && k < count_of(p, pairs[i][0]); k++)
            sum += p->of[pairs[i][0]][k] * p->of[pairs[i][1]][k];
    return sum;
}

// Every gradient of the plain loops against central differences.
static void check_naive(frnn_cell cell, int reverse) {
    static const int64_t lengths[] = {2, 0, 4};
    static const int pairs[][2] = {{X, DX},       {H0, DH0},     {C0, DC0},    {W_IH, DW_IH},
                                   {W_HH, DW_HH}, {B_IH, DB_IH}, {B_HH, DB_HH}};
    problem p = problem_new(cell, 2, 3, 3, 4, lengths, reverse);
    problem_fill(&p, 0, 5);
    naive(&p);
    problem q = problem_part(&p, 0, p.B, 0, p.T);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        double *values = q.of[pairs[i][0]];
        for (int64_t k = 0; values && k < count_of(&p, pairs[i][0]); k++) {
            const double value = values[k], step = 1e-5, gradient = p.of[pairs[i][1]][k];
            values[k] = value + step;
            const double up = loss(&q);
            values[k] = value - step;
            const double difference = (up - loss(&q)) / (2 * step);
            values[k] = value;
            CHECK(fabs(gradient - difference) < 1e-8, "plain loops, %s: %s[%d] is %g, by differences %g",
                  frnn_cell_name(cell), names[pairs[i][1]], (int)k, gradient, difference);
        }
    }
    problem_end(&p), problem_end(&q);
}

// --- The kernels --------------------------------------------------------------------------------

static void check_close(const problem *expected, const problem *got, const options *o) {
    for (int which = OUTPUTS; which < ALL; which++) {
        if (is_c(which) && !has_c(got->cell)) continue;
        double largest = 1, error = 0;
        for (int64_t i = 0; i < count_of(got, which); i++) {
            const double difference = fabs(got->of[which][i] - expected->of[which][i]);
            largest = fmax(largest, fabs(expected->of[which][i]));
            if (!isnan(error) && !(difference <= error)) error = difference; // and so NaN stays
        }
        // A sum over all rows gathers more rounding.
        const double rows = which >= DW_IH ? sqrt((double)(got->B * got->T)) : 1;
        const double limit = largest * rows * (o->dtype == FRNN_F32 ? 16 * FLT_EPSILON : 16 * DBL_EPSILON);
        CHECK(error <= limit, "%s: %s is off by %g, values up to %g", describe(got, o), names[which], error,
              largest);
    }
}

// Outputs from `first` on, but those not asked for.
static void check_same(const problem *p, const problem *q, const options *o, int first, int end) {
    for (int which = first; which < end; which++)
        if (!(o->without & BIT(which)) && !(is_c(which) && !has_c(p->cell)))
            CHECK(same_bits(p, q, which), "%s: other bits in %s", describe(q, o), names[which]);
}

static void check_variant(const problem *base, options o) {
    problem again = run_again(base, &o);
    check_same(base, &again, &o, OUTPUTS, o.inference ? DX : ALL);
    problem_end(&again);
}

// Each row alone gives its own part of the whole batch's outputs.
static void check_rows(const problem *whole, const options *o) {
    for (int64_t b = 0; b < whole->B; b++) {
        problem row = problem_part(whole, b, 1, 0, whole->T);
        run_layer(&row, o);
        for (int which = OUTPUTS; which <= DC0; which++) {
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
    const int64_t B = whole->B, T = whole->T, H = whole->H, count = (T + size - 1) / size;
    const size_t state_bytes = (size_t)(B * H) * sizeof(double);
    const int kinds = has_c(whole->cell) ? 2 : 1;
    if (count > MOST) abort();
    for (int backward = 0; backward < 2; backward++) {
        for (int64_t k = 0; k < count; k++) {
            const int64_t i = backward ? count - 1 - k : k, t = i * size;
            problem *p = &pieces[i];
            if (!backward) *p = problem_part(whole, 0, B, t, t + size < T ? size : T - t);
            for (int c = 0; c < kinds && k > 0; c++) {
                const int to = backward ? gradients[c] : states[c];
                if (!p->of[to]) p->of[to] = malloc(state_bytes);
                memcpy(p->of[to], backward ? p[1].of[back[c]] : p[-1].of[next[c]], state_bytes);
            }
            run_layer(p, o);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        for (int64_t b = 0; b < B; b++) {
            const int64_t rows = pieces[i].T, at = b * T + i * size;
            CHECK(memcmp(pieces[i].of[Y] + b * rows * H, whole->of[Y] + at * H, (size_t)(rows * H) * 8) == 0,
                  "%s: cut into %d steps, other bits in y", describe(whole, o), (int)size);
            CHECK(memcmp(pieces[i].of[DX] + b * rows * whole->I, whole->of[DX] + at * whole->I,
                         (size_t)(rows * whole->I) * 8)
                      == 0,
                  "%s: cut into %d steps, other bits in dx", describe(whole, o), (int)size);
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
    naive(expected);
    for (int dtype = 0; dtype < 2; dtype++) {
        problem first = {0}; // of the instruction sets that promise the same bits
        for (int i = 0; i < ISAS; i++) {
            if (!frnn_has_isa(all_isas[i])) continue;
            const options o = {.isa = all_isas[i], .dtype = (frnn_dtype)dtype, .threads = 1};
            problem base = run_again(expected, &o);
            check_close(expected, &base, &o);
            options other = o;
            other.provider = 1;
            problem provided = run_again(expected, &other);
            check_close(expected, &provided, &other);
            other.inference = 1, other.threads = 2, other.layout = TIME_FIRST;
            check_variant(&provided, other);
            problem_end(&provided);

            for (other = o; other.threads <= 3; other.threads++) {
                other.layout = other.threads;
                check_variant(&base, other);
                options inference = other;
                inference.inference = 1;
                check_variant(&base, inference);
                options borrowed = other;
                borrowed.borrowed = 1;
                check_variant(&base, borrowed);
            }
            if (expected->B > 1 && expected->B < 10) check_rows(&base, &o);
            if (!expected->lengths && !expected->reverse && expected->T > 1 && expected->T < 10) {
                check_pieces(&base, &o, 1);
                check_pieces(&base, &o, 2);
            }
            if (!first.B && !IS_GENERIC(o.isa)) {
                first = base;
            } else {
                if (!IS_GENERIC(o.isa)) check_same(&first, &base, &o, OUTPUTS, ALL);
                problem_end(&base);
            }
        }
        problem_end(&first);
    }
}

// Any output may be left out without a change to the others.
static void check_without(frnn_cell cell) {
    static const int64_t lengths[] = {3, 0, 5, 4};
    problem p = problem_new(cell, 5, 19, 4, 5, lengths, 0);
    problem_fill(&p, 0, 9);
    const unsigned everything = BIT(ALL) - BIT(OUTPUTS);
    for (int i = 0; i < ISAS; i++) {
        options o = {.isa = all_isas[i], .threads = 1};
        if (!frnn_has_isa(o.isa)) continue;
        problem base = run_again(&p, &o);
        for (int which = OUTPUTS; which < ALL; which++) {
            o.without = BIT(which);
            check_variant(&base, o);
            o.without = everything - BIT(which);
            check_variant(&base, o);
        }
        o.without = everything;
        check_variant(&base, o);
        problem_end(&base);
    }
    problem_end(&p);
}

// --- Sizes --------------------------------------------------------------------------------------

typedef struct {
    int64_t I, H, B, T;
    int ragged, reverse; // ragged 2: no row has any step
    unsigned absent;     // inputs
    int quick;           // small enough for sanitizers and emulators
} size_case;

#define STATES (BIT(H0) | BIT(C0))
#define GRADIENTS (BIT(DY) | BIT(DH_N) | BIT(DC_N))
static const size_case cases[] = {
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
    {23, 100, 1, 5, 0, 0, BIT(B_IH) | BIT(B_HH), 0},
    {100, 100, 3, 4, 1, 0, 0, 0},
    {31, 100, 13, 3, 0, 1, BIT(H0), 0},
    {10, 17, 40, 9, 1, 1, 0, 0}, // rows enough for each of three threads
    {29, 3, 1, 600, 0, 0, 0, 0}, // fewer blocks of units than threads
    {3, 17, 70, 18, 1, 0, 0, 0}, // more rows than one block of a sum over rows
    {1, 2, 3, 4200, 1, 0, 0, 0}, // more rows than a provider takes at a time
    {520, 20, 2, 3, 0, 0, 0, 0}, // wider than one pass of dW
    {9, 350, 2, 2, 0, 0, 0, 0},  // a longer sum than one pass of dX, for gates of 3 and 4
};

static void fill_lengths(const size_case *s, int64_t *lengths) {
    for (int64_t b = 0; b < s->B; b++) lengths[b] = s->ragged == 2 ? 0 : (b * 5 + s->T) % (s->T + 1);
    if (s->ragged == 1) lengths[s->B / 2] = s->T, lengths[s->B - 1] = 0;
}

// --- A digest -----------------------------------------------------------------------------------

static uint64_t hash_functions(uint64_t h) {
    enum { N = 3001 };
    double values[N];
    const int64_t n[3] = {1, 1, N};
    for (int i = 0; i < N; i++) values[i] = uniform() * (i % 3 == 0 ? 100 : i % 3 == 1 ? 8 : 0.125);
    for (int function = 0; function < 2; function++)
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

static uint64_t digest(const char *isa) {
    uint64_t h = HASH_START;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!cases[i].quick) continue;
        for (int cell = 0; frnn_cell_name((frnn_cell)cell); cell++)
            for (int dtype = 0; dtype < 2; dtype++) {
                int64_t lengths[8];
                fill_lengths(&cases[i], lengths);
                const options o = {.isa = isa, .dtype = (frnn_dtype)dtype, .threads = 2};
                problem p = problem_new((frnn_cell)cell, cases[i].I, cases[i].H, cases[i].B, cases[i].T,
                                        cases[i].ragged ? lengths : NULL, cases[i].reverse);
                problem_fill(&p, cases[i].absent, i);
                run_layer(&p, &o);
                for (int which = OUTPUTS; which < ALL; which++) h = hash(h, p.of[which], count_of(&p, which));
                problem_end(&p);
            }
    }
    return hash_functions(h);
}

static int print_digests(void) {
    for (int i = 0; i < ISAS; i++)
        if (frnn_has_isa(all_isas[i]))
            printf("%s %016llx\n", all_isas[i], (unsigned long long)digest(all_isas[i]));
    return failures != 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--digest") == 0) return print_digests();
    const int quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    for (int cell = 0; frnn_cell_name((frnn_cell)cell); cell++) {
        for (int reverse = 0; reverse < 2; reverse++) check_naive((frnn_cell)cell, reverse);
        check_without((frnn_cell)cell);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (quick && !cases[i].quick) continue;
            int64_t lengths[70];
            fill_lengths(&cases[i], lengths);
            problem p = problem_new((frnn_cell)cell, cases[i].I, cases[i].H, cases[i].B, cases[i].T,
                                    cases[i].ragged ? lengths : NULL, cases[i].reverse);
            problem_fill(&p, cases[i].absent, 1000 + i);
            check_problem(&p);
            problem_end(&p);
        }
    }
    return report("test_core");
}
