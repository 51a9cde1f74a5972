// Independent chains of fused multiply-adds that stay in registers: the most that a core can do.
// Compiled with REAL, VECTOR_BYTES and CHAINS; contraction makes each a * b + c one instruction.
typedef REAL vector __attribute__((vector_size(VECTOR_BYTES)));

double fma_chains(long steps) {
    vector sums[CHAINS], a, b;
    for (unsigned i = 0; i < VECTOR_BYTES / sizeof(REAL); i++) {
        a[i] = (REAL)0.999;
        b[i] = (REAL)0.001;
    }
    for (int k = 0; k < CHAINS; k++) sums[k] = a * (REAL)k;
    for (long step = 0; step < steps; step++) {
#if defined(__clang__)
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 32
#endif
        for (int k = 0; k < CHAINS; k++) sums[k] = sums[k] * a + b;
    }
    for (int k = 1; k < CHAINS; k++) sums[0] += sums[k];
    double sum = 0;
    for (unsigned i = 0; i < VECTOR_BYTES / sizeof(REAL); i++) sum += sums[0][i];
    return sum;
}
