// How the rows of a batch move through time: sorted by length, longest first.
#include "internal.h"

#include <string.h>

void *frnn_carve(frnn_arena *arena, int64_t count, size_t itemsize) {
    const size_t left = SIZE_MAX / 2 - arena->used;
    if (count < 0 || (count && itemsize > (left - FRNN_ALIGN) / (size_t)count)) {
        arena->overflow = 1;
        return NULL;
    }
    void *piece = arena->base ? arena->base + arena->used : NULL;
    const size_t bytes = (size_t)count * itemsize;
    arena->used += (bytes + FRNN_ALIGN - 1) / FRNN_ALIGN * FRNN_ALIGN;
    return piece;
}

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

void frnn_tape_carve(frnn_tape *tape, const frnn_layer *layer, const frnn_schedule *schedule,
                     frnn_arena *arena) {
    const frnn_cell_info *info = frnn_generic_kernels.cell[layer->dtype][layer->cell].info;
    const size_t item = frnn_itemsize(layer->dtype);
    const int64_t rows = schedule->rows, states = schedule->rows + schedule->batch;
    tape->gates_ld = frnn_padded(info->saved * layer->hidden_size);
    tape->state_ld = frnn_padded(layer->hidden_size);
    tape->gates = frnn_carve(arena, rows, (size_t)tape->gates_ld * item);
    tape->h = frnn_carve(arena, states, (size_t)tape->state_ld * item);
    tape->c = info->has_c ? frnn_carve(arena, states, (size_t)tape->state_ld * item) : NULL;
}

frnn_status frnn_tape_size(const frnn_layer *layer, const frnn_batch *batch, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    frnn_status status = frnn_layer_check(layer);
    if (status == FRNN_OK) status = frnn_batch_check(batch);
    if (status != FRNN_OK) return status;
    const frnn_schedule schedule = {.batch = batch->batch, .rows = frnn_batch_rows(batch)};
    frnn_arena arena = {0};
    frnn_tape tape;
    frnn_tape_carve(&tape, layer, &schedule, &arena);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

// --- Sharing out --------------------------------------------------------------------------------

// Below so many multiply-adds a thread costs more than it saves.
#define THREAD_WORK 100000
// From so many rows a thread's tiles are full, and it needs no barrier.
#define THREAD_ROWS 12
// A step of so many multiply-adds is worth a barrier.
#define BARRIER_WORK 30000

int frnn_threads_for(double multiply_adds, int threads) {
    const double worth = multiply_adds / THREAD_WORK;
    return worth < 1 ? 1 : worth < threads ? (int)worth : threads;
}

int frnn_by_rows(const frnn_work *work, int threads) {
    const int64_t batch = work->schedule->batch;
    if (work->step_work < BARRIER_WORK) return 1;
    if (batch < threads) return 0;
    return batch >= (int64_t)threads * THREAD_ROWS || work->blocks < threads;
}

frnn_share frnn_share_of(const frnn_work *work, int thread, int threads, frnn_barrier *barrier) {
    const frnn_schedule *schedule = work->schedule;
    frnn_share share = {0, schedule->batch, 0, work->blocks, NULL};
    if (threads == 1) return share;
    if (!frnn_by_rows(work, threads)) {
        share.block_begin = work->blocks * thread / threads;
        share.block_end = work->blocks * (thread + 1) / threads;
        share.barrier = barrier;
        return share;
    }
    // Rows so that each thread has about as many steps, and the rows without any spread too.
    int64_t sum = 0, row = 0;
    const int64_t all = schedule->rows + schedule->batch;
    for (int t = 0; t <= thread; t++) {
        share.row_begin = row;
        while (row < schedule->batch && sum * threads < all * (t + 1)) sum += schedule->length[row++] + 1;
        share.row_end = row;
    }
    return share;
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
