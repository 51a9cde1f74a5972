// The world around a call: NaN and infinities in the data, denormals and the caller's floating-point mode,
// forks, and many callers at once. With --quick, fewer rounds of the last: for sanitizers and emulators.
#include "layer.h"

#include <float.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static int rounds = 12;

static const char *best_isa(void) {
    for (int i = 0; i < ISAS; i++)
        if (frnn_has_isa(all_isas[i])) return all_isas[i];
    abort();
}

// Large enough for three threads, whether they share rows or units.
static problem large_problem(frnn_cell cell) {
    problem p = problem_new(cell, 40, 100, 5, 12, NULL, 0);
    problem_fill(&p, 0, 77);
    return p;
}

static int same_outputs(const problem *p, const problem *q) {
    for (int which = OUTPUTS; which < ALL; which++)
        if (!same_bits(p, q, which)) return 0;
    return 1;
}

// --- Values that are no ordinary numbers --------------------------------------------------------

static int all_nan(const double *values, int64_t count) {
    while (count > 0 && isnan(*values)) values++, count--;
    return count == 0;
}

// A NaN in one row's input spoils that row from there on, all sums over rows, and nothing else.
static void check_nan(frnn_cell cell, const options *o) {
    enum { ROW = 1, STEP = 2 };
    problem p = problem_new(cell, 3, 19, 3, 5, NULL, 0);
    problem_fill(&p, 0, 3);
    problem good = run_again(&p, o);
    p.of[X][(ROW * p.T + STEP) * p.I] = NAN;
    problem bad = run_again(&p, o);
    for (int64_t b = 0; b < p.B; b++)
        for (int64_t t = 0; t < p.T; t++) {
            const int64_t at = (b * p.T + t) * p.H;
            if (b == ROW && t >= STEP)
                CHECK(all_nan(bad.of[Y] + at, p.H), "%s: NaN is lost at step %d", describe(&p, o), (int)t);
            else
                CHECK(memcmp(bad.of[Y] + at, good.of[Y] + at, (size_t)p.H * sizeof(double)) == 0,
                      "%s: NaN spread to row %d, step %d", describe(&p, o), (int)b, (int)t);
            if (b != ROW)
                CHECK(memcmp(bad.of[DX] + (b * p.T + t) * p.I, good.of[DX] + (b * p.T + t) * p.I,
                             (size_t)p.I * sizeof(double))
                          == 0,
                      "%s: NaN spread to row %d of dx", describe(&p, o), (int)b);
        }
    CHECK(all_nan(bad.of[H_N] + ROW * p.H, p.H), "%s: NaN is lost in h_n", describe(&p, o));
    // Where relu meets NaN, its derivative is 0: a comparison decides.
    if (cell != FRNN_RNN_RELU)
        CHECK(all_nan(bad.of[DB_IH], frnn_gates(cell) * p.H), "%s: NaN is lost in db_ih", describe(&p, o));
    problem_end(&p), problem_end(&good), problem_end(&bad);

    p = problem_new(cell, 3, 19, 3, 5, NULL, 0);
    problem_fill(&p, 0, 3);
    p.of[DY][(ROW * p.T + STEP) * p.H] = NAN;
    run_layer(&p, o);
    if (cell != FRNN_RNN_RELU)
        CHECK(all_nan(p.of[DX] + ROW * p.T * p.I, STEP * p.I), "%s: NaN in dy is lost in dx",
              describe(&p, o));
    problem_end(&p);
}

// Gates saturate where inputs are enormous or infinite.
static void check_saturation(frnn_cell cell, const options *o) {
    static const double sizes[] = {100, 0x1p20, 0x1p100, INFINITY};
    if (cell == FRNN_RNN_RELU) return;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        problem p = problem_new(cell, 1, 19, 2, 3, NULL, 0);
        problem_fill(&p, 0, 8);
        for (int64_t k = 0; k < count_of(&p, X); k++) p.of[X][k] = k % 2 ? sizes[i] : -sizes[i];
        run_layer(&p, o);
        for (int64_t k = 0; k < count_of(&p, Y); k++)
            CHECK(fabs(p.of[Y][k]) <= 1, "%s: y is %g for inputs of %g", describe(&p, o), p.of[Y][k],
                  sizes[i]);
        for (int64_t k = 0; k < count_of(&p, DB_HH); k++)
            CHECK(isfinite(p.of[DB_HH][k]), "%s: db_hh is %g for inputs of %g", describe(&p, o),
                  p.of[DB_HH][k], sizes[i]);
        problem_end(&p);
    }
}

// --- Denormals and the caller's mode ------------------------------------------------------------

// relu(w x) of one unit: what is denormal, given or made, is zero.
static void check_denormals(const options *o) {
    const double least = o->dtype == FRNN_F32 ? FLT_MIN : DBL_MIN;
    const double factors[][2] = {{least / 4, 1}, {least * 2, 0.125}, {least * 2, 1}};
    for (int i = 0; i < 3; i++) {
        problem p = problem_new(FRNN_RNN_RELU, 1, 1, 1, 1, NULL, 0);
        problem_fill(&p, BIT(H0) | BIT(B_IH) | BIT(B_HH), 1);
        p.of[X][0] = factors[i][0];
        p.of[W_IH][0] = factors[i][1];
        run_layer(&p, o);
        const double wanted = i == 2 ? least * 2 : 0;
        CHECK(p.of[Y][0] == wanted, "%s: %g * %g is %g instead of %g", describe(&p, o), factors[i][0],
              factors[i][1], p.of[Y][0], wanted);
        problem_end(&p);
    }
}

// Another rounding mode of the caller's is kept, and changes no result.
static void check_mode(frnn_cell cell, options o) {
    problem p = large_problem(cell);
    const problem usual = run_again(&p, &o);
    const fp_mode before = fp_get();
    for (o.threads = 1; o.threads <= 2; o.threads++) {
        fp_set(FP_ROUND_UP);
        run_layer(&p, &o);
        const fp_mode after = fp_get();
        fp_set(before);
        CHECK(after == FP_ROUND_UP, "%s: the caller's mode was changed", describe(&p, &o));
        CHECK(same_outputs(&p, &usual), "%s: the caller's mode changes results", describe(&p, &o));
    }
    problem_end(&p);
    p = usual;
    problem_end(&p);
}

static void check_mode_functions(void) {
    enum { N = 64 };
    _Alignas(64) float workspace[4096];
    float a[N], usual[2][N], rounded[2][N];
    const fp_mode before = fp_get();
    for (int i = 0; i < N; i++) a[i] = (float)uniform();
    for (int up = 0; up < 2; up++) {
        float(*const results)[N] = up ? rounded : usual;
        if (up) fp_set(FP_ROUND_UP);
        const frnn_status mapped = frnn_map(FRNN_TANH, FRNN_F32, N, a, results[0]);
        const frnn_status made =
            frnn_matmul(FRNN_F32, 8, 8, 8, a, 8, 0, a, 8, 0, results[1], 8, 1, workspace);
        const fp_mode after = fp_get();
        fp_set(before);
        CHECK(after == (up ? FP_ROUND_UP : before), "frnn_map or frnn_matmul changed the caller's mode");
        EXPECT(FRNN_OK, mapped);
        EXPECT(FRNN_OK, made);
    }
    CHECK(memcmp(usual, rounded, sizeof usual) == 0, "the caller's mode changes results");
}

// --- Forks and callers at once ------------------------------------------------------------------

static int count_threads(void) {
    int count = 0;
    char path[64];
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) return -1; // not Linux
    while (fgets(path, sizeof path, file)) sscanf(path, "Threads: %d", &count);
    fclose(file);
    return count;
}

// A forked child has none of the pool's threads: it makes its own, and its parent goes on.
static void check_fork(void) {
    const options o = {.isa = best_isa(), .threads = 3};
    problem p = large_problem(FRNN_LSTM);
    run_layer(&p, &o);
    CHECK(count_threads() < 0 || count_threads() >= 3, "asked for 3 threads, the process has %d",
          count_threads());
    for (int i = 0; i < 2; i++) {
        fflush(NULL);
        const pid_t child = fork();
        CHECK(child >= 0, "no fork");
        if (child == 0) {
            failures = 0;
            alarm(30); // a lost wake-up ends as a failure
            const int alone = count_threads();
            const problem again = run_again(&p, &o);
            const int right = same_outputs(&p, &again) && (alone < 0 || count_threads() == alone + 2);
            _exit(right && !failures ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %x", (unsigned)status);
        problem again = run_again(&p, &o);
        CHECK(same_outputs(&p, &again), "after a fork, the parent gets other bits");
        problem_end(&again);
    }
    problem_end(&p);
}

static void *caller(void *expected) {
    const problem *p = expected;
    for (int i = 0; i < rounds; i++) {
        const options o = {.isa = best_isa(), .threads = 1 + i % 3};
        problem again = run_again(p, &o);
        CHECK(same_outputs(p, &again), "%s: among other callers, other bits", describe(p, &o));
        problem_end(&again);
    }
    return NULL;
}

static void check_callers(void) {
    enum { CALLERS = 6 };
    pthread_t threads[CALLERS];
    problem problems[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        const options o = {.isa = best_isa(), .threads = 1};
        problems[i] = large_problem((frnn_cell)(i % 4));
        run_layer(&problems[i], &o);
    }
    for (int i = 0; i < CALLERS; i++)
        CHECK(pthread_create(&threads[i], NULL, caller, &problems[i]) == 0, "no thread");
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < CALLERS; i++) problem_end(&problems[i]);
}

// --- Where other programs want the CPUs ---------------------------------------------------------

static atomic_int spinning;

static void *spin(void *unused) {
    while (atomic_load(&spinning)) {}
    return unused;
}

// Jobs start late there, or with fewer threads than they want, or alone.
static void check_crowd(void) {
    enum { OTHERS = 2 };
    pthread_t others[OTHERS];
    options o = {.isa = best_isa(), .threads = 1};
    problem expected[2];
    for (int i = 0; i < 2; i++) expected[i] = large_problem((frnn_cell)(i % 4)), run_layer(&expected[i], &o);
    atomic_store(&spinning, 1);
    for (int i = 0; i < OTHERS; i++) CHECK(pthread_create(&others[i], NULL, spin, NULL) == 0, "no thread");
    for (int round = 0; round < 2 * rounds; round++) {
        o.threads = 2 + round / 2 % 2;
        problem again = run_again(&expected[round % 2], &o);
        CHECK(same_outputs(&again, &expected[round % 2]), "threads=%d, in a crowd: other bits", o.threads);
        problem_end(&again);
    }
    atomic_store(&spinning, 0);
    for (int i = 0; i < OTHERS; i++) pthread_join(others[i], NULL);
    for (int i = 0; i < 2; i++) problem_end(&expected[i]);
}

// --- The program's own threads ------------------------------------------------------------------

// A team as OpenMP's runtimes have it, but for what its size is.
static int team_size, team_asked;
static _Thread_local int team_place;
static atomic_int team_runs;

typedef struct {
    void (*body)(void *);
    void *data;
    int place;
} member;

static void *run_member(void *context) {
    const member *m = context;
    team_place = m->place;
    m->body(m->data);
    team_place = 0;
    return NULL;
}

static void team_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags) {
    enum { MOST = 4 };
    pthread_t others[MOST];
    member members[MOST];
    (void)threads, (void)flags;
    team_runs++;
    for (int i = team_size - 1; i >= 0; i--) {
        members[i] = (member){body, data, i};
        if (i) CHECK(pthread_create(&others[i], NULL, run_member, &members[i]) == 0, "no thread");
    }
    run_member(&members[0]);
    for (int i = 1; i < team_size; i++) pthread_join(others[i], NULL);
}

static int team_max(void) { return team_asked; }
static int team_num(void) { return team_size; }
static int team_thread(void) { return team_place; }

// As large as it said or smaller, of more or of less than what is wanted, and of one.
static void check_team(void) {
    static const struct {
        int asked, size, runs;
    } teams[] = {{3, 3, 1}, {4, 4, 1}, {3, 2, 1}, {3, 1, 1}, {2, 2, 1}, {1, 1, 0}};
    const frnn_team team = {team_parallel, team_max, team_num, team_thread};
    options o = {.isa = best_isa(), .threads = 3};
    problem p = large_problem(FRNN_GRU);
    run_layer(&p, &o);
    frnn_set_team(&team);
    for (size_t i = 0; i < sizeof teams / sizeof *teams; i++) {
        team_asked = teams[i].asked, team_size = teams[i].size, team_runs = 0;
        problem again = run_again(&p, &o);
        CHECK(same_outputs(&again, &p), "a team of %d of %d: other bits", team_size, team_asked);
        CHECK((team_runs > 0) == teams[i].runs, "a team of %d of %d ran %d jobs", team_size, team_asked,
              team_runs);
        problem_end(&again);
    }
    team_asked = team_size = 3;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        failures = team_runs = 0;
        alarm(30);
        const problem again = run_again(&p, &o);
        _exit(same_outputs(&p, &again) && !team_runs && !failures ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %x", (unsigned)status);
    frnn_set_team(NULL);
    team_runs = 0;
    problem again = run_again(&p, &o);
    CHECK(!team_runs && same_outputs(&again, &p), "a team that was left runs %d jobs", team_runs);
    problem_end(&again), problem_end(&p);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--quick") == 0) rounds = 3;
    for (int i = 0; i < ISAS; i++) {
        if (!frnn_has_isa(all_isas[i])) continue;
        for (int dtype = 0; dtype < 2; dtype++) {
            const options o = {.isa = all_isas[i], .dtype = (frnn_dtype)dtype, .threads = 1};
            check_denormals(&o);
            for (int cell = 0; frnn_cell_name((frnn_cell)cell); cell++) {
                check_nan((frnn_cell)cell, &o);
                check_saturation((frnn_cell)cell, &o);
                check_mode((frnn_cell)cell, o);
            }
        }
        check_mode_functions();
    }
    check_fork();
    check_callers();
    check_crowd();
    check_team();
    return report("test_environment");
}
