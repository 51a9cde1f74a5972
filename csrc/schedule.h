// How the rows of a batch move through time.
#ifndef FASTRNN_SCHEDULE_H
#define FASTRNN_SCHEDULE_H

#include "sizes.h"

// Rows are sorted by length, longest first, so the rows that still run at a step are the first
// active[step]. Row r at step s stands in the tape's gates at start[s] + r.

typedef struct {
    int64_t batch; // B
    int64_t time;  // T
    int64_t first; // the call's first step: steps are counted from it
    int64_t steps; // of the longest row
    int64_t rows;  // sum of all rows' steps
    int reverse;
    int64_t *order;  // [B] the caller's row
    int64_t *length; // [B] of sorted row r, with the steps before the first and after the last
    int64_t *active; // [steps + 1], active[steps] = 0
    int64_t *start;  // [steps + 1], start[steps] = rows
} frnn_schedule;

// First state row of the states that enter a step, in a tape: h0's B rows, then each step's output.
static inline int64_t frnn_state_start(const frnn_schedule *s, int64_t step) {
    return step == 0 ? 0 : s->batch + s->start[step - 1];
}

// Time index in the caller's arrays of sorted row r at a step.
static inline int64_t frnn_time_of(const frnn_schedule *s, int64_t r, int64_t step) {
    return s->reverse ? s->length[r] - 1 - s->first - step : s->first + step;
}

// The steps of sorted row r.
static inline int64_t frnn_row_steps(const frnn_schedule *s, int64_t r) {
    return frnn_max(0, frnn_min(s->length[r] - s->first, s->steps));
}

// Offset in a view of sorted row r at a step.
static inline int64_t frnn_offset(const frnn_schedule *s, const frnn_view *v, int64_t r, int64_t step) {
    return s->order[r] * v->batch_stride + frnn_time_of(s, r, step) * v->time_stride;
}

// Walks the rows of a tape in their order.
typedef struct {
    int64_t step, row;
} frnn_cursor;

frnn_cursor frnn_cursor_at(const frnn_schedule *schedule, int64_t tape_row);

// Sums over a tape's rows go over blocks of them, the last block first: whole steps of up to FRNN_SUM_BLOCK rows in
// all, or a part of a step that has more. So those of some steps can be added to those of all later ones.
typedef struct {
    int64_t begin, end;
} frnn_block;

frnn_block frnn_block_before(const frnn_schedule *schedule, int64_t row); // that ends there; {0, 0}: none
#define FRNN_EACH_BLOCK(block, schedule) \
    for (frnn_block block = frnn_block_before(schedule, (schedule)->rows); block.end; \
         block = frnn_block_before(schedule, block.begin))
// The first of as many whole blocks of steps as have `steps` or more, the last of them before step `end`.
int64_t frnn_blocks_begin(const frnn_batch *batch, int64_t end, int64_t steps);

static inline void frnn_cursor_next(const frnn_schedule *s, frnn_cursor *at) {
    if (++at->row == s->active[at->step]) {
        at->row = 0;
        at->step++;
    }
}

frnn_status frnn_batch_check(const frnn_batch *batch);
// Of a batch and the ids of its inputs, if any, which are to be rows of their table; whether a call `takes_ids`.
frnn_status frnn_inputs_check(const frnn_batch *batch, const frnn_ids *ids, int takes_ids);
// Which row of its table enters sorted row r at a step.
static inline int64_t frnn_id_at(const frnn_schedule *s, const frnn_ids *ids, int64_t r, int64_t step) {
    return ((const int64_t *)ids->at.data)[frnn_offset(s, &ids->at, r, step)];
}
int64_t frnn_batch_rows(const frnn_batch *batch); // sum of all rows' steps
// Carves the schedule's arrays; fills them only where the arena has memory.
void frnn_schedule_build(frnn_schedule *schedule, const frnn_batch *batch, frnn_arena *arena);

void frnn_zero_padding(const frnn_schedule *schedule, const frnn_view *view, size_t row_bytes, size_t item,
                       int thread, int threads);

#endif
