// Which kernels this CPU can run, and which are in use. FASTRNN_ISA caps the choice.
#include "internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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

static int cpu_runs(const frnn_kernels *kernels) {
#if defined(__x86_64__)
    if (kernels == &frnn_avx512_bf16_kernels)
        return cpu_runs(&frnn_avx512_kernels) && __builtin_cpu_supports("avx512bf16");
    if (kernels == &frnn_avx512_kernels)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (kernels == &frnn_avx2_kernels) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)kernels;
    return 1;
}

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
