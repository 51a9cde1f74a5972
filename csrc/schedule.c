// How the rows of a batch move through time: sorted by length, longest first.
#include "internal.h"

#include <string.h>

frnn_status frnn_batch_check(const frnn_batch *batch) {
    if (!batch || batch->batch < 1 || batch->time < 1) return FRNN_BAD_ARGUMENT;
    if (batch->time > INT64_MAX / 64 || batch->batch > INT64_MAX / 64 / batch->time) return FRNN_TOO_LARGE;
    if (batch->first_step < 0 || batch->steps < 0 || batch->first_step >= batch->time
        || batch->steps > batch->time - batch->first_step)
        return FRNN_BAD_ARGUMENT;
    if (batch->lengths)
        for (int64_t i = 0; i < batch->batch; i++)
            if (batch->lengths[i] < 0 || batch->lengths[i] > batch->time) return FRNN_BAD_ARGUMENT;
    return FRNN_OK;
}

frnn_status frnn_inputs_check(const frnn_batch *batch, const frnn_ids *ids, int takes_ids) {
    const int64_t *const at = ids->at.data;
    if (at && !takes_ids) return FRNN_BAD_ARGUMENT;
    const frnn_status status = frnn_batch_check(batch);
    if (status != FRNN_OK || !at) return status;
    if (ids->x_rows < 1) return FRNN_BAD_ARGUMENT;
    if (ids->x_rows > INT32_MAX) return FRNN_TOO_LARGE;
    for (int64_t b = 0; b < batch->batch; b++)
        for (int64_t t = 0; t < batch->time; t++) {
            const int64_t id = at[b * ids->at.batch_stride + t * ids->at.time_stride];
            if (id < 0 || id >= ids->x_rows) return FRNN_BAD_ARGUMENT;
        }
    return FRNN_OK;
}

// Steps that a row may have.
static int64_t most_steps(const frnn_batch *batch) {
    return batch->steps ? batch->steps : batch->time - batch->first_step;
}

int64_t frnn_batch_rows(const frnn_batch *batch) {
    const int64_t most = most_steps(batch);
    if (!batch->lengths) return batch->batch * most;
    int64_t rows = 0;
    for (int64_t i = 0; i < batch->batch; i++)
        rows += frnn_max(0, frnn_min(batch->lengths[i] - batch->first_step, most));
    return rows;
}

// Rows by length, longest first, and how many are longer than each t; all of T + 1 at active, T + 2 at start.
static void sort_rows(frnn_schedule *s, const int64_t *lengths) {
    const int64_t B = s->batch, T = s->time;
    // active[t] first counts the rows of length t, then those longer than t.
    memset(s->active, 0, (size_t)(T + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < B; i++) s->active[lengths[i]]++;
    int64_t longer = 0;
    for (int64_t t = T; t >= 0; t--) {
        const int64_t count = s->active[t];
        s->active[t] = longer;
        longer += count;
    }
    // Rows of length t stand in the order from active[t] on; start is the cursor meanwhile.
    for (int64_t t = 0; t <= T; t++) s->start[t] = s->active[t];
    for (int64_t i = 0; i < B; i++) {
        const int64_t at = s->start[lengths[i]]++;
        s->order[at] = i;
        s->length[at] = lengths[i];
    }
}

void frnn_schedule_build(frnn_schedule *s, const frnn_batch *batch, frnn_arena *arena) {
    const int64_t B = batch->batch, T = batch->time;
    const int64_t most = most_steps(batch), counted = batch->lengths ? T : most;
    s->batch = B;
    s->time = T;
    s->first = batch->first_step;
    s->reverse = batch->reverse;
    s->rows = frnn_batch_rows(batch);
    s->order = frnn_carve(arena, B, sizeof(int64_t));
    s->length = frnn_carve(arena, B, sizeof(int64_t));
    s->active = frnn_carve(arena, counted + 1, sizeof(int64_t));
    s->start = frnn_carve(arena, counted + 2, sizeof(int64_t));
    s->steps = most;
    if (!arena->base || arena->overflow) return;

    if (batch->lengths) {
        sort_rows(s, batch->lengths);
        s->steps = frnn_max(0, frnn_min(s->length[0] - s->first, most));
        memmove(s->active, s->active + s->first, (size_t)s->steps * sizeof(int64_t));
    } else {
        for (int64_t i = 0; i < B; i++) s->order[i] = i;
        for (int64_t i = 0; i < B; i++) s->length[i] = T;
        for (int64_t t = 0; t < most; t++) s->active[t] = B;
    }
    s->active[s->steps] = 0;
    s->start[0] = 0;
    for (int64_t t = 0; t < s->steps; t++) s->start[t + 1] = s->start[t] + s->active[t];
}

frnn_cursor frnn_cursor_at(const frnn_schedule *schedule, int64_t tape_row) {
    int64_t low = 0, high = schedule->steps; // start[low] <= tape_row < start[high]
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (schedule->start[middle] <= tape_row)
            low = middle;
        else
            high = middle;
    }
    return (frnn_cursor){.step = low, .row = tape_row - schedule->start[low]};
}

// The rows that run at a step.
static int64_t rows_at(const frnn_schedule *schedule, const frnn_batch *batch, int64_t step) {
    if (schedule) return schedule->active[step];
    if (!batch->lengths) return batch->batch;
    int64_t rows = 0;
    for (int64_t i = 0; i < batch->batch; i++) rows += batch->lengths[i] > step;
    return rows;
}

// The first step of the block of whole steps whose last is before `end`.
static int64_t block_begin(const frnn_schedule *schedule, const frnn_batch *batch, int64_t end) {
    int64_t rows = rows_at(schedule, batch, --end);
    while (end > 0 && (rows += rows_at(schedule, batch, end - 1)) <= FRNN_SUM_BLOCK) end--;
    return end;
}

frnn_block frnn_block_before(const frnn_schedule *schedule, int64_t row) {
    if (row == 0) return (frnn_block){0, 0};
    const frnn_cursor last = frnn_cursor_at(schedule, row - 1);
    const int64_t active = schedule->active[last.step];
    const int64_t parts = frnn_ceil_div(active, FRNN_SUM_BLOCK);
    int64_t part = parts - 1;
    while (active * part / parts > last.row) part--;
    const int64_t step = parts > 1 ? last.step : block_begin(schedule, NULL, last.step + 1);
    return (frnn_block){schedule->start[step] + active * part / parts, row};
}

int64_t frnn_blocks_begin(const frnn_batch *batch, int64_t end, int64_t steps) {
    int64_t begin = end;
    while (begin > 0 && end - begin < steps) begin = block_begin(NULL, batch, begin);
    return begin;
}

void frnn_zero_padding(const frnn_schedule *schedule, const frnn_view *view, size_t row_bytes, size_t item,
                       int thread, int threads) {
    if (!view->data || schedule->first || schedule->rows == schedule->batch * schedule->time) return;
    for (int64_t row = schedule->batch * thread / threads; row < schedule->batch * (thread + 1) / threads;
         row++)
        for (int64_t t = schedule->length[row]; t < schedule->time; t++)
            memset((char *)view->data
                       + (schedule->order[row] * view->batch_stride + t * view->time_stride) * (int64_t)item,
                   0, row_bytes);
}
