// How far tanh and sigmoid are from libm, in units in the last place (ULP): every float32 value, and samples
// of float64 against long double. Exit status 1 where a limit is passed. It prints a sum over the results'
// bits too, which instruction sets with fused multiply-adds share.
//
// sweep_activations                 all 2^32 float32 values: a minute or two on two cores
// sweep_activations --stride N      every Nth value, and the hard regions whole
// sweep_activations --threads N     (default: the CPUs of this process)
// sweep_activations --isa NAME      (default: the best there is)
#include "harness.h"

#include <float.h>
#include <math.h>
#include <pthread.h>

static const frnn_function functions[] = {FRNN_TANH, FRNN_SIGMOID};
static const char *const function_names[] = {"tanh", "sigmoid"};
static const double limits[] = {3, 4}; // wherever the correct result is a normal number

// The worst that was found; `bad` counts results that are wrong in kind.
typedef struct {
    double ulp, at;
    long long values, bad;
    double bad_at;
    uint64_t sum; // of each x's bits times its result's
} worst;

static void merge(worst *all, const worst *part) {
    if (part->ulp > all->ulp) all->ulp = part->ulp, all->at = part->at;
    if (part->bad) all->bad_at = part->bad_at;
    all->values += part->values;
    all->bad += part->bad;
    all->sum += part->sum;
}

// One result: `right` is the correct one, `ulp` the distance of floats there, `least` the least normal.
static inline void judge(worst *w, double x, double got, long double right, long double ulp, double least) {
    w->values++;
    if (isnan(x) || fabsl(right) < least) {
        // NaN stays NaN, what is denormal may be flushed.
        if (isnan(x) ? !isnan(got) : !(fabs(got) <= least)) w->bad++, w->bad_at = x;
        return;
    }
    const long double error = fabsl((long double)got - right) / ulp;
    if (error > w->ulp) w->ulp = (double)error, w->at = x;
    if (!(fabs(got) <= 1)) w->bad++, w->bad_at = x;
}

// --- float32 ------------------------------------------------------------------------------------

enum { CHUNK = 1 << 14 };

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// All of double precision here, for speed: its error is 2^-29 ULP of float32.
static void sweep_values(frnn_function function, int n, const float *x, worst *w) {
    float y[CHUNK];
    if (frnn_map(function, FRNN_F32, n, x, y) != FRNN_OK) abort();
    for (int i = 0; i < n; i++) {
        if (!isnan(x[i])) w->sum += (2 * (uint64_t)bits_of(x[i]) + 1) * bits_of(y[i]);
        const double value = x[i], right = function == FRNN_TANH ? tanh(value) : 1 / (1 + exp(-value));
        if (!(fabs(right) >= FLT_MIN)) {
            judge(w, value, y[i], right, 0, FLT_MIN);
            continue;
        }
        uint64_t bits;
        memcpy(&bits, &right, sizeof bits);
        bits = (bits & 0x7FF0000000000000u) - ((uint64_t)23 << 52);
        double ulp;
        memcpy(&ulp, &bits, sizeof ulp);
        const double error = fabs(y[i] - right) / ulp;
        w->values++;
        if (error > w->ulp) w->ulp = error, w->at = value;
        if (!(fabsf(y[i]) <= 1)) w->bad++, w->bad_at = value;
    }
}

// --- float64 ------------------------------------------------------------------------------------

static void sweep_double(frnn_function function, double x, worst *w) {
    double y;
    if (frnn_map(function, FRNN_F64, 1, &x, &y) != FRNN_OK) abort();
    const long double right = function == FRNN_TANH ? tanhl(x) : 1 / (1 + expl(-(long double)x));
    uint64_t x_bits, y_bits;
    memcpy(&x_bits, &x, sizeof x_bits);
    memcpy(&y_bits, &y, sizeof y_bits);
    if (!isnan(x)) w->sum += (2 * x_bits + 1) * y_bits;
    int exponent;
    frexpl(right, &exponent);
    judge(w, x, y, right, ldexpl(1, exponent - DBL_MANT_DIG), DBL_MIN);
}

// --- Regions ------------------------------------------------------------------------------------
// The floats around each hard point, both signs: where exponents change, saturation sets in, an argument
// reduction turns, results leave the normal range; zero, infinity and NaN.

enum { AROUND = 2048 };
static float points[1024];
static int point_count;

static void add_point(double value) {
    if (point_count == (int)(sizeof points / sizeof *points)) abort();
    points[point_count++] = (float)value;
}

static void make_points(void) {
    static const double more[] = {0,     9,      9.01,  87,    88.3,  708,    10,    16.63,
                                  17.33, 18.37,  19.06, 20,    87.33, 88.02,  88.37, 88.72,
                                  89.41, 103.97, 104,   708.4, 709.4, 709.78, 745.2};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) add_point(more[i]);
    for (int exponent = -149; exponent < 128; exponent++)
        if (exponent < -120 || exponent > -40) add_point(ldexp(1, exponent));
    for (int k = 1; k <= 260; k++)
        add_point(k * 0.34657359027997264); // ln 2 / 2: where the nearest multiple changes
    for (int k = 1; k <= 64; k++) add_point(k * 0.17328679513998632); // of 2x, too
    add_point(INFINITY);
}

// --- Work ---------------------------------------------------------------------------------------
// Piece k of a sweep: CHUNK consecutive values of the stride, or a region.

static uint64_t stride = 1, pieces, stride_pieces;
static atomic_ullong next_piece;

static void *work(void *results) {
    worst *w = results; // by function
    float x[CHUNK];
    for (uint64_t piece; (piece = atomic_fetch_add(&next_piece, 1)) < pieces;) {
        int n = 0;
        if (piece < stride_pieces) {
            for (uint64_t i = piece * CHUNK; n < CHUNK && i * stride <= UINT32_MAX; i++)
                x[n++] = float_of((uint32_t)(i * stride));
        } else {
            const float point = points[(piece - stride_pieces) / 2];
            const uint32_t sign = (piece - stride_pieces) % 2 ? 0x80000000u : 0;
            for (int64_t i = -AROUND; i <= AROUND; i++)
                if (i + (int64_t)bits_of(point) >= 0)
                    x[n++] = float_of((uint32_t)(i + (int64_t)bits_of(point)) | sign);
            random_state = piece - stride_pieces;
            for (int i = 0; i < 300; i++) {
                const double value = point * (1 + uniform() * ldexp(1, -(i % 40))) * (sign ? -1 : 1);
                for (int k = 0; k < 2; k++) sweep_double(functions[k], value, &w[2 + k]);
            }
        }
        for (int k = 0; k < 2; k++) sweep_values(functions[k], n, x, &w[k]);
    }
    return NULL;
}

static int number(const char *text, uint64_t most, uint64_t *value) {
    char *end;
    *value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && *value >= 1 && *value <= most;
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    uint64_t threads = (uint64_t)frnn_num_threads();
    int good = 1;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--stride") == 0)
            good &= number(value, UINT32_MAX, &stride);
        else if (strcmp(argv[i], "--threads") == 0)
            good &= number(value, MOST, &threads);
        else
            good &= strcmp(argv[i], "--isa") == 0 && frnn_set_isa(value) == FRNN_OK;
    }
    if (!good) {
        fprintf(stderr, "usage: %s [--stride N] [--threads N] [--isa NAME]\n", argv[0]);
        return 2;
    }
    if (threads > MOST) threads = MOST;
    make_points();
    stride_pieces = (UINT32_MAX / stride + CHUNK) / CHUNK;
    pieces = stride_pieces + 2 * (uint64_t)point_count;

    static worst results[MOST][4];
    pthread_t workers[MOST];
    for (uint64_t i = 1; i < threads; i++)
        if (pthread_create(&workers[i], NULL, work, results[i])) abort();
    work(results[0]);
    for (uint64_t i = 1; i < threads; i++) {
        pthread_join(workers[i], NULL);
        for (int k = 0; k < 4; k++) merge(&results[0][k], &results[i][k]);
    }
    int failed = 0;
    for (int k = 0; k < 4; k++) {
        const worst *w = &results[0][k];
        printf("%s %s %s: %lld values, at most %.4f ULP, at %.17g (%a); limit %g; bits %016llx\n", frnn_isa(),
               k < 2 ? "float32" : "float64", function_names[k % 2], w->values, w->ulp, w->at, w->at,
               limits[k % 2], (unsigned long long)w->sum);
        if (w->bad)
            printf("    %lld are wrong in kind (NaN, above 1, not small), one at %a\n", w->bad, w->bad_at);
        failed |= w->bad || !w->values || !(w->ulp <= limits[k % 2]);
    }
    return failed;
}
