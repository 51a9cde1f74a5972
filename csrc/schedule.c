// How the rows of a batch move through time: sorted by length, longest first.
#include "internal.h"

#include <string.h>

frnn_status frnn_batch_check(const frnn_batch *batch) {
    if (!batch || batch->batch < 1 || batch->time < 1) return FRNN_BAD_ARGUMENT;
    if (batch->time > INT64_MAX / 64 || batch->batch > INT64_MAX / 64 / batch->time) return FRNN_TOO_LARGE;
    if (batch->lengths)
        for (int64_t i = 0; i < batch->batch; i++)
            if (batch->lengths[i] < 0 || batch->lengths[i] > batch->time) return FRNN_BAD_ARGUMENT;
    return FRNN_OK;
}

int64_t frnn_batch_rows(const frnn_batch *batch) {
    if (!batch->lengths) return batch->batch * batch->time;
    int64_t rows = 0;
    for (int64_t i = 0; i < batch->batch; i++) rows += batch->lengths[i];
    return rows;
}

void frnn_schedule_build(frnn_schedule *s, const frnn_batch *batch, frnn_arena *arena) {
    const int64_t B = batch->batch, T = batch->time;
    s->batch = B;
    s->time = T;
    s->reverse = batch->reverse;
    s->rows = frnn_batch_rows(batch);
    s->order = frnn_carve(arena, B, sizeof(int64_t));
    s->length = frnn_carve(arena, B, sizeof(int64_t));
    s->active = frnn_carve(arena, T + 1, sizeof(int64_t));
    s->start = frnn_carve(arena, T + 2, sizeof(int64_t));
    s->steps = T;
    if (!arena->base || arena->overflow) return;

    // active[t] first counts the rows of length t, then those longer than t.
    memset(s->active, 0, (size_t)(T + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < B; i++) s->active[batch->lengths ? batch->lengths[i] : T]++;
    int64_t longer = 0;
    for (int64_t t = T; t >= 0; t--) {
        const int64_t count = s->active[t];
        s->active[t] = longer;
        longer += count;
    }
    // Rows of length t stand in the order from active[t] on; start is the cursor meanwhile.
    for (int64_t t = 0; t <= T; t++) s->start[t] = s->active[t];
    for (int64_t i = 0; i < B; i++) {
        const int64_t length = batch->lengths ? batch->lengths[i] : T;
        const int64_t at = s->start[length]++;
        s->order[at] = i;
        s->length[at] = length;
    }
    s->steps = s->length[0];
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

void frnn_zero_padding(const frnn_schedule *schedule, const frnn_view *view, size_t row_bytes, size_t item,
                       int thread, int threads) {
    if (!view->data || schedule->rows == schedule->batch * schedule->time) return;
    for (int64_t row = schedule->batch * thread / threads; row < schedule->batch * (thread + 1) / threads;
         row++)
        for (int64_t t = schedule->length[row]; t < schedule->time; t++)
            memset((char *)view->data
                       + (schedule->order[row] * view->batch_stride + t * view->time_stride) * (int64_t)item,
                   0, row_bytes);
}
