// What the C test programs share: checks that count failures, random numbers, the caller's floating-point
// mode, and arrays that tell what was touched. To build one of them, test_core say:
//   cc -std=c11 -O2 -ffp-contract=off -pthread csrc/*.c csrc/kernels/*.c tests/c/test_core.c -lm
#ifndef HARNESS_H
#define HARNESS_H

#define _GNU_SOURCE // posix_memalign, fork, setenv under -std=c11
#include "../../csrc/fastrnn.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- Checks -------------------------------------------------------------------------------------

static atomic_int checks, failures;

static inline void fail(const char *file, int line, const char *condition, const char *format, ...) {
    if (atomic_fetch_add(&failures, 1) >= 20) return; // the first say enough
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: %s: ", file, line, condition);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

// CHECK(condition, format, ...): the rest says in which case.
#define CHECK(condition, ...) \
    do { \
        checks++; \
        if (!(condition)) fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)

#define EXPECT(status, call) \
    do { \
        const frnn_status got_status = (call); \
        CHECK(got_status == (status), "%s gave: %s", #call, frnn_status_text(got_status)); \
    } while (0)

static inline int report(const char *program) {
    printf("%s: %d checks, %d failures\n", program, checks, failures);
    return failures || !checks;
}

// --- Instruction sets ---------------------------------------------------------------------------

// Those with fused multiply-adds, which promise the same bits, then the generic one.
static const char *const all_isas[] = {"avx2", "avx512", "neon", "generic"};
#define ISAS 4
#define IS_GENERIC(isa) (strcmp(isa, "generic") == 0)

// --- Bits ---------------------------------------------------------------------------------------

#define HASH_START 0xcbf29ce484222325u
static inline uint64_t hash(uint64_t h, const double *values, int64_t count) { // FNV-1a
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        for (int shift = 0; shift < 64; shift += 8) h = (h ^ (bits >> shift & 0xFF)) * 0x100000001b3u;
    }
    return h;
}

// --- Random numbers -----------------------------------------------------------------------------

static _Thread_local uint64_t random_state;

// In [-1, 1), a multiple of 2^-20: the same as float and as double.
static inline double uniform(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)((int64_t)(random_state >> 43) - (1 << 20)) / (1 << 20);
}

// --- The caller's floating-point mode -----------------------------------------------------------

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned fp_mode;
#define FP_ROUND_UP 0x5F80u                                          // denormals kept
static inline fp_mode fp_get(void) { return _mm_getcsr() & ~0x3Fu; } // without the sticky flags
static inline void fp_set(fp_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
#define FP_ROUND_UP ((uint64_t)1 << 22)
static inline fp_mode fp_get(void) {
    fp_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static inline void fp_set(fp_mode mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
typedef int fp_mode;
#define FP_ROUND_UP 0
static inline fp_mode fp_get(void) { return 0; }
static inline void fp_set(fp_mode mode) { (void)mode; }
#endif

// --- Memory -------------------------------------------------------------------------------------
// All of it starts as bytes 0xFF, NaN in either dtype: what is read before it is written shows in the
// results, and what is written outside an array shows in its surroundings. AddressSanitizer sees reads
// outside too; then a block ends where the memory ends.

#if defined(_WIN32)
#include <malloc.h>
#define allocate(bytes) _aligned_malloc(bytes, 64)
#define give_back _aligned_free
#define setenv(name, value, replace) _putenv_s(name, value)
#define unsetenv(name) _putenv_s(name, "")
#else
static inline void *allocate(size_t bytes) {
    void *block;
    return posix_memalign(&block, 64, bytes) ? NULL : block;
}
#define give_back free
#endif

#if defined(__SANITIZE_ADDRESS__)
#define GUARD 0
#else
#define GUARD 64
#endif

typedef struct {
    unsigned char *block, *data;
    size_t bytes;
} memory;

// data is 64-byte aligned plus `shift` bytes.
static inline memory memory_new(size_t bytes, size_t shift) {
    unsigned char *block = allocate(GUARD + shift + bytes + GUARD + (bytes == 0));
    if (!block) abort();
    memset(block, 0xFF, GUARD + shift + bytes + GUARD);
    return (memory){block, block + GUARD + shift, bytes};
}

static inline int untouched(const unsigned char *from, const unsigned char *to) {
    return from >= to || (*from == 0xFF && memcmp(from, from + 1, (size_t)(to - from) - 1) == 0);
}

static inline void memory_end(memory *m, const char *name) {
    CHECK(untouched(m->block, m->data), "written before %s", name);
    CHECK(untouched(m->data + m->bytes, m->data + m->bytes + GUARD), "written after %s", name);
    give_back(m->block);
}

// --- Arrays -------------------------------------------------------------------------------------
// (n[0], n[1], n[2]), features contiguous, given and taken as dense doubles.

enum { BATCH_FIRST, TIME_FIRST, ODD_STRIDES, NEGATIVE_STRIDE, LAYOUTS };

typedef struct {
    memory memory;
    frnn_dtype dtype;
    int64_t n[3], stride[2];
    char *data; // element (0, 0, 0), aligned to an element only
} array;

static inline array array_new(frnn_dtype dtype, const int64_t n[3], int layout) {
    array a = {.dtype = dtype, .n = {n[0], n[1], n[2]}, .stride = {n[1] * n[2], n[2]}};
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    if (layout == TIME_FIRST) a.stride[0] = n[2], a.stride[1] = n[0] * n[2];
    if (layout == ODD_STRIDES) a.stride[0] = n[1] * (n[2] + 3) + 5, a.stride[1] = n[2] + 3;
    if (layout == NEGATIVE_STRIDE) a.stride[1] = -n[2];
    const int64_t first = a.stride[1] < 0 ? -a.stride[1] * (n[1] - 1) : 0;
    const int64_t last = a.stride[0] * (n[0] - 1) + (a.stride[1] > 0 ? a.stride[1] * (n[1] - 1) : first);
    a.memory = memory_new((size_t)((last + n[2]) * item), (size_t)item);
    a.data = (char *)a.memory.data + first * item;
    return a;
}

static inline frnn_view array_view(const array *a) {
    return (frnn_view){a->data, a->stride[0], a->stride[1]};
}

static inline void *array_row(const array *a, int64_t i, int64_t j) {
    return a->data + (i * a->stride[0] + j * a->stride[1]) * (int64_t)frnn_itemsize(a->dtype);
}

static inline void array_put(array *a, const double *dense) {
    for (int64_t i = 0; i < a->n[0]; i++)
        for (int64_t j = 0; j < a->n[1]; j++, dense += a->n[2]) {
            float *row = array_row(a, i, j);
            if (a->dtype == FRNN_F64)
                memcpy(row, dense, (size_t)a->n[2] * sizeof *dense);
            else
                for (int64_t k = 0; k < a->n[2]; k++) row[k] = (float)dense[k];
        }
}

// Gives the values, then checks that nothing else was written, and frees.
static inline void array_end(array *a, double *dense, const char *name) {
    for (int64_t i = 0; i < a->n[0]; i++)
        for (int64_t j = 0; j < a->n[1]; j++, dense += a->n[2]) {
            float *row = array_row(a, i, j);
            if (a->dtype == FRNN_F64)
                memcpy(dense, row, (size_t)a->n[2] * sizeof *dense);
            else
                for (int64_t k = 0; k < a->n[2]; k++) dense[k] = (double)row[k];
            memset(row, 0xFF, (size_t)a->n[2] * frnn_itemsize(a->dtype));
        }
    CHECK(untouched(a->memory.data, a->memory.data + a->memory.bytes), "written between the rows of %s",
          name);
    memory_end(&a->memory, name);
}

#endif
