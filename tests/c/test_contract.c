// With the flags that this file is compiled with, does the compiler leave products and sums as vec.inc writes
// them? -ffp-contract=off is what makes every machine's bits the same; this fails where it is missing.
#include "harness.h"

#include <math.h>

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define ISA avx2
#define ISA_AVX2
#define REAL_BITS 32
#include "contract.inc"
#undef REAL_BITS
#define REAL_BITS 64
#include "contract.inc"
#undef REAL_BITS
#undef ISA
#undef ISA_AVX2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#define ISA avx512
#define ISA_AVX512
#define REAL_BITS 32
#include "contract.inc"
#undef REAL_BITS
#define REAL_BITS 64
#include "contract.inc"
#undef REAL_BITS
#undef ISA
#undef ISA_AVX512
#pragma GCC pop_options
#endif

#if defined(__aarch64__)
#define ISA neon
#define ISA_NEON
#define REAL_BITS 32
#include "contract.inc"
#undef REAL_BITS
#define REAL_BITS 64
#include "contract.inc"
#undef REAL_BITS
#undef ISA
#undef ISA_NEON
#endif

#define ISA generic
#define REAL_BITS 32
#include "contract.inc"
#undef REAL_BITS
#define REAL_BITS 64
#include "contract.inc"

int main(void) {
#if defined(__x86_64__)
    if (frnn_has_isa("avx2")) failures += !!check_avx2_f32("avx2") + !!check_avx2_f64("avx2");
    if (frnn_has_isa("avx512")) failures += !!check_avx512_f32("avx512") + !!check_avx512_f64("avx512");
    checks += 4;
#elif defined(__aarch64__)
    failures += !!check_neon_f32("neon") + !!check_neon_f64("neon");
    checks += 2;
#endif
    failures += !!check_generic_f32("generic") + !!check_generic_f64("generic");
    checks += 2;
    return report("test_contract");
}
