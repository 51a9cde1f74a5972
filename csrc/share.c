// Who does what of the loop over time: how many threads, and each one's rows or units.
#include "internal.h"

// Below so many multiply-adds a thread costs more than it saves.
#define THREAD_WORK 100000
// From so many rows a thread's tiles are full, and it needs no barrier; while a step is short, from fewer.
#define THREAD_ROWS 12
#define SHORT_STEP_ROWS 6
#define SHORT_STEP_WORK 1500000
// But of weights so large each thread had better read its part, until so many rows wait for what it reads.
#define LARGE_WEIGHTS_BYTES (2 * FRNN_L2_BYTES)
#define LARGE_WEIGHTS_ROWS 32
// A step of so many multiply-adds of float32 is worth a barrier, and one of a single row, which nothing else shares out,
// for two threads or more that have so many each.
#define BARRIER_WORK 30000
#define ONE_ROW_WORK 5000

frnn_work frnn_work_of(const frnn_pack_header *pack, const frnn_schedule *schedule, int64_t x_rows,
                       int products) {
    const frnn_layer *layer = &pack->layer;
    const int64_t H = layer->hidden_size, P = frnn_state_size(layer), GH = frnn_gates(layer->cell) * H;
    const double row_work = (double)(GH * P + (layer->proj_size ? P * H : 0));
    return (frnn_work){
        .schedule = schedule,
        .blocks = frnn_ceil_div(H, pack->kernels->lanes[layer->dtype]),
        .multiply_adds =
            products
            * ((double)schedule->rows * row_work + (double)x_rows * (double)(GH * layer->input_size)),
        .step_work = (double)schedule->batch * row_work,
        .item = frnn_itemsize(layer->dtype),
    };
}

int frnn_threads_for(double multiply_adds, int threads) {
    const double worth = multiply_adds / THREAD_WORK;
    return worth < 1 ? 1 : worth < threads ? (int)worth : threads;
}

// A step's multiply-adds, each of float64 as two of float32.
static double step_float32(const frnn_work *work) {
    return work->step_work * (double)work->item / (double)sizeof(float);
}

int frnn_loop_threads(const frnn_work *work, int threads) {
    const int most = frnn_threads_for(work->multiply_adds, threads);
    const double step = step_float32(work);
    // Below two shares one thread has the loop, and all have the products over all steps.
    if (work->schedule->batch > 1 || step < 2 * ONE_ROW_WORK || step >= BARRIER_WORK) return most;
    return (int)frnn_min(most, (int)(step / ONE_ROW_WORK));
}

int frnn_threads_of(int threads, int call, int calls) {
    return (int)frnn_max(1, threads * (call + 1) / calls - threads * call / calls);
}

int frnn_by_rows(const frnn_work *work, int threads) {
    const int64_t batch = work->schedule->batch;
    if (step_float32(work) < (batch == 1 ? 2 * ONE_ROW_WORK : BARRIER_WORK)) return 1;
    if (batch < threads) return 0;
    const double weights_bytes = work->step_work / (double)batch * (double)work->item;
    const int64_t rows = weights_bytes > LARGE_WEIGHTS_BYTES ? LARGE_WEIGHTS_ROWS
                       : work->step_work < SHORT_STEP_WORK   ? SHORT_STEP_ROWS
                                                             : THREAD_ROWS;
    return batch >= threads * rows || work->blocks < threads;
}

frnn_share frnn_share_of(const frnn_work *work, int thread, int threads, frnn_barrier *barrier) {
    const frnn_schedule *schedule = work->schedule;
    frnn_share share = {0, schedule->batch, 0, work->blocks, 0, 1, NULL, NULL};
    if (threads == 1) return share;
    if (!frnn_by_rows(work, threads)) {
        share.part = thread;
        share.parts = threads;
        frnn_part_of(&share, work->blocks, &share.block_begin, &share.block_end);
        share.barrier = barrier;
        return share;
    }
    // Rows so that each thread has about as many steps, and the rows without any spread too.
    int64_t sum = 0, row = 0;
    const int64_t all = schedule->rows + schedule->batch;
    for (int t = 0; t <= thread; t++) {
        share.row_begin = row;
        while (row < schedule->batch && sum * threads < all * (t + 1))
            sum += frnn_row_steps(schedule, row++) + 1;
        share.row_end = row;
    }
    return share;
}
