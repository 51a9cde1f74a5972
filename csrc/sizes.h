// The cells, constants, sizes, and pieces of one block of memory.
#ifndef FASTRNN_SIZES_H
#define FASTRNN_SIZES_H

#include "fastrnn.h"

// Every cell: its number, and its name here and in the files of kernels/.
#define FRNN_EACH_CELL(X) \
    X(FRNN_RNN_TANH, rnn_tanh) \
    X(FRNN_RNN_RELU, rnn_relu) \
    X(FRNN_GRU, gru) \
    X(FRNN_LSTM, lstm) \
    X(FRNN_GRU_MINIMAL, gru_minimal) \
    X(FRNN_LSTM_INPUT, lstm_input) \
    X(FRNN_LSTM_FORGET, lstm_forget) \
    X(FRNN_GRU_BEFORE, gru_before)
#define FRNN_ONE(number, name) +1
#define FRNN_CELLS (0 FRNN_EACH_CELL(FRNN_ONE))
#define FRNN_FUNCTIONS 6
#define FRNN_ALIGN 64
// Sums over all rows of a batch (dW, dR, db) are made in blocks of up to this many rows, see frnn_block: it is
// part of their canonical order, so it must not depend on the machine.
#define FRNN_SUM_BLOCK 512
// Columns of A that such a sum takes at a time: whole cache lines.
#define FRNN_OUTER_ROWS 32
// More bytes than these may not all be in L2: they are fetched there ahead of their use.
#define FRNN_L2_BYTES (1024 * 1024)
// Rows that a provider of products takes at a time.
#define FRNN_PROVIDER_ROWS 8192

// A row of n elements padded to whole cache lines, off the multiples of 1 KB: rows that far apart
// share an L1 set. The same for every instruction set.
static inline int64_t frnn_padded(int64_t n) {
    int64_t padded = (n + 15) / 16 * 16;
    return padded % 256 == 0 ? padded + 16 : padded;
}

static inline int64_t frnn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t frnn_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t frnn_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int frnn_aligned(const void *p) { return (uintptr_t)p % FRNN_ALIGN == 0; }

// Carves aligned pieces out of one block. With base NULL it only adds up; `overflow` says that the
// sum does not fit.
typedef struct {
    char *base;
    size_t used;
    int overflow;
} frnn_arena;

void *frnn_carve(frnn_arena *arena, int64_t count, size_t itemsize);

#endif
