// Threads, and what each of them does of the loop over time.
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include "schedule.h"

typedef struct frnn_barrier frnn_barrier;
// One thread's call of a job; threads is how many there are.
typedef void (*frnn_job)(void *context, int thread, int threads, frnn_barrier *barrier);

// Runs job on up to `wanted` threads, the caller being one; with fewer where the pool is busy.
void frnn_pool_run(frnn_job job, void *context, int wanted);
// Likewise for `jobs` calls at once, up to FRNN_MAX_CALLS, each with its context and wanted[i] threads, of
// `threads` in all: in turn where they are not enough for all at once.
void frnn_pool_run_each(frnn_job job, void *const *contexts, const int *wanted, int jobs, int threads);
void frnn_barrier_wait(frnn_barrier *barrier); // returns when all threads of the job have come

// What a thread owns in the loop over time: some rows and all units, or all rows and some blocks of
// units; then the threads meet at a barrier after every step.
typedef struct frnn_share {
    int64_t row_begin, row_end;     // of the sorted rows
    int64_t block_begin, block_end; // of lanes units
    int part, parts;                // of the units
    frnn_barrier *barrier;          // NULL where rows are owned
    void *scratch;                  // for the panels of a borrowed pack
} frnn_share;

// A thread's part of some blocks.
static inline void frnn_part_of(const frnn_share *share, int64_t blocks, int64_t *begin, int64_t *end) {
    *begin = blocks * share->part / share->parts;
    *end = blocks * (share->part + 1) / share->parts;
}

// What a call has to do, and its loop over time: rows, or units by blocks, are shared out among threads.
typedef struct {
    const frnn_schedule *schedule;
    int64_t units, lanes; // H, and of a block
    double multiply_adds; // of the whole call
    double step_work;     // of the product inside the loop, one step of the whole batch
    size_t item;          // bytes of a value
} frnn_work;

int frnn_threads_for(double multiply_adds, int threads);   // of these, worth starting for so much work
int frnn_loop_threads(const frnn_work *work, int threads); // likewise, for such a call
int frnn_threads_of(int threads, int call, int calls);     // a call's part of them, at least one
int frnn_by_rows(const frnn_work *work, int threads);
frnn_share frnn_share_of(const frnn_work *work, int thread, int threads, frnn_barrier *barrier);

#endif
