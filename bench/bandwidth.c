// Reads memory over and over with nothing else to do: the most that a core can load.
// Compiled with VECTOR_BYTES and STREAMS. Each stream is walked from its start to its end, LOADS
// vectors in an iteration; an exclusive or needs one cycle, so 8 sums keep every load port busy.
enum { LOADS = 32, SUMS = 8, EACH = LOADS / STREAMS };
typedef long long vector __attribute__((vector_size(VECTOR_BYTES)));

// `vectors` in each stream, a multiple of EACH; the streams follow each other from `data` on.
long long read_streams(const vector *data, long vectors, long passes) {
    vector sums[SUMS] = {0};
    for (long pass = 0; pass < passes; pass++) {
        for (long i = 0; i < vectors; i += EACH) {
#if defined(__clang__)
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 32
#endif
            for (int k = 0; k < LOADS; k++) sums[k % SUMS] ^= data[k / EACH * vectors + i + k % EACH];
        }
    }
    for (int k = 1; k < SUMS; k++) sums[0] ^= sums[k];
    return sums[0][0];
}
