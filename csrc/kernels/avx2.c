// The kernels for AVX2 with FMA.
#include "../internal.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA_AVX2
#define ISA_NAME "avx2"
#define ISA_TABLE frnn_avx2_kernels
#include "kernels.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
