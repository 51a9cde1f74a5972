// The kernels for AVX-512 (F, DQ, BW, VL: every CPU since Skylake-X and Zen 4), and with the dot product of
// bfloat16 (since Cooper Lake and Zen 4).
#include "../internal.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")
#endif
#define ISA_AVX512
#define ISA_NAME "avx512"
#define ISA_TABLE frnn_avx512_kernels
#define ISA_NAME_BF16 "avx512_bf16"
#define ISA_TABLE_BF16 frnn_avx512_bf16_kernels
#include "kernels.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
