// Which kernels this CPU can run, and which are in use. FASTRNN_ISA caps the choice.
#include "internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

// Best first; the generic kernels run anywhere.
static const frnn_kernels *const table[] = {
#if defined(__x86_64__)
    &frnn_avx512_bf16_kernels,
    &frnn_avx512_kernels,
    &frnn_avx2_kernels,
#elif defined(__aarch64__)
    &frnn_neon_kernels,
#endif
    &frnn_generic_kernels,
};
#define TABLE_SIZE ((int)(sizeof table / sizeof *table))

#if defined(__x86_64__)
// What CPUID says and the system saves the registers of. The compiler's own __builtin_cpu_supports asks a library
// that not every one brings, and then says no.
static int cpu_runs(const frnn_kernels *kernels) {
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX2 = 1 << 5, BF16 = 1 << 5 };
    enum { FOUNDATION = 1 << 16, DQ = 1 << 17, BW = 1 << 30 };
    const unsigned VL = 1u << 31, YMM = 0x6, ZMM = 0xE6;
    unsigned a, b, c, d, low, high;
    if (kernels == &frnn_generic_kernels) return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE) || !(c & FMA)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & AVX2) || (low & YMM) != YMM) return 0;
    if (kernels == &frnn_avx2_kernels) return 1;
    if ((low & ZMM) != ZMM || !(b & FOUNDATION) || !(b & DQ) || !(b & BW) || !(b & VL)) return 0;
    if (kernels == &frnn_avx512_kernels || a < 1) return kernels == &frnn_avx512_kernels;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & BF16;
}
#else
static int cpu_runs(const frnn_kernels *kernels) { return kernels != NULL; }
#endif

static int find(const char *name) {
    for (int i = 0; i < TABLE_SIZE; i++)
        if (strcmp(table[i]->isa, name) == 0) return i;
    return -1;
}

static _Atomic(const frnn_kernels *) active;

const frnn_kernels *frnn_active_kernels(void) {
    const frnn_kernels *kernels = atomic_load_explicit(&active, memory_order_acquire);
    if (kernels) return kernels;
    const char *cap = getenv("FASTRNN_ISA");
    int i = cap ? find(cap) : 0;
    if (i < 0) i = 0; // an unknown name caps nothing; the Python side refuses it at import
    while (!cpu_runs(table[i])) i++;
    atomic_store_explicit(&active, table[i], memory_order_release);
    return table[i];
}

const char *frnn_isa(void) { return frnn_active_kernels()->isa; }

int frnn_has_isa(const char *name) {
    const int i = name ? find(name) : -1;
    return i >= 0 && cpu_runs(table[i]);
}

frnn_status frnn_set_isa(const char *name) {
    if (!frnn_has_isa(name)) return FRNN_NO_ISA;
    atomic_store_explicit(&active, table[find(name)], memory_order_release);
    return FRNN_OK;
}
