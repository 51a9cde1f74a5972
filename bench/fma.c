// Independent chains of fused multiply-adds that stay in registers: the most that a core can do.
// Compiled with VECTOR_BYTES and CHAINS; contraction makes each a * b + c one instruction.
typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

float fma_chains(long steps) {
    vector sums[CHAINS], a, b;
    for (int i = 0; i < VECTOR_BYTES / 4; i++) {
        a[i] = 0.999f;
        b[i] = 0.001f;
    }
    for (int k = 0; k < CHAINS; k++) sums[k] = a * (float)k;
    for (long step = 0; step < steps; step++) {
#if defined(__clang__)
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 32
#endif
        for (int k = 0; k < CHAINS; k++) sums[k] = sums[k] * a + b;
    }
    for (int k = 1; k < CHAINS; k++) sums[0] += sums[k];
    float sum = 0;
    for (int i = 0; i < VECTOR_BYTES / 4; i++) sum += sums[0][i];
    return sum;
}
