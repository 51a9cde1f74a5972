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
// In short steps three rows are enough, or two where each thread's part of the step is so small, if no thread has more
// to do than it would have by units, with a barrier: that takes the time of so many multiply-adds where threads share
// a cache, and more elsewhere.
#define FEW_ROWS 3
#define TWO_ROWS_WORK 100000
#define BARRIER_TIME 12000
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
        .units = H,
        .lanes = pack->kernels->lanes[layer->dtype],
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

static int64_t blocks_of(const frnn_work *work) { return frnn_ceil_div(work->units, work->lanes); }

// The most units that a thread has, see frnn_part_of: of the threads with a block more than others one has the last
// block, which may not be whole.
static int64_t most_units(const frnn_work *work, int threads) {
    const int64_t blocks = blocks_of(work), least = blocks / threads * work->lanes;
    const int64_t last = work->units - (blocks - 1) * work->lanes;
    return blocks % threads > 1 ? least + work->lanes : blocks % threads == 1 ? least + last : least;
}

// Where a thread's rows end that begin at `row`, so that each thread has about as many steps, and rows without any are
// spread too; *sum is what the threads before it have, and then its own too.
static int64_t end_of_rows(const frnn_schedule *schedule, int64_t row, int64_t *sum, int thread,
                           int threads) {
    const int64_t all = schedule->rows + schedule->batch;
    while (row < schedule->batch && *sum * threads < all * (thread + 1))
        *sum += frnn_row_steps(schedule, row++) + 1;
    return row;
}

// The most that a thread has of all rows' steps, as a part. Of a schedule without lengths nothing but sizes is wanted,
// and they are the same by rows or by units.
static double most_row_steps(const frnn_schedule *schedule, int threads) {
    int64_t row = 0, sum = 0, most = 0;
    if (!schedule->length) return 1;
    for (int t = 0; t < threads; t++) {
        const int64_t before = sum;
        row = end_of_rows(schedule, row, &sum, t, threads);
        most = frnn_max(most, sum - before);
    }
    return (double)most / (double)(schedule->rows + schedule->batch);
}

int frnn_by_rows(const frnn_work *work, int threads) {
    const int64_t batch = work->schedule->batch;
    const double step = step_float32(work), row = step / (double)batch;
    if (step < (batch == 1 ? 2 * ONE_ROW_WORK : BARRIER_WORK)) return 1;
    if (batch < threads) return 0;
    if (blocks_of(work) < threads) return 1;
    if (row * sizeof(float) > LARGE_WEIGHTS_BYTES) return batch >= threads * LARGE_WEIGHTS_ROWS;
    if (batch >= threads * (work->step_work < SHORT_STEP_WORK ? SHORT_STEP_ROWS : THREAD_ROWS)) return 1;
    if (step >= SHORT_STEP_WORK) return 0;
    const double rows = (double)work->schedule->rows, steps = (double)work->schedule->steps, all = rows * row;
    if (rows < steps * threads * (all <= steps * threads * TWO_ROWS_WORK ? 2 : FEW_ROWS)) return 0;
    const double by_units = all * (double)most_units(work, threads) / (double)work->units;
    return all * most_row_steps(work->schedule, threads) <= by_units + steps * BARRIER_TIME;
}

frnn_share frnn_share_of(const frnn_work *work, int thread, int threads, frnn_barrier *barrier) {
    const frnn_schedule *schedule = work->schedule;
    frnn_share share = {0, schedule->batch, 0, blocks_of(work), 0, 1, NULL, NULL};
    if (threads == 1) return share;
    if (!frnn_by_rows(work, threads)) {
        share.part = thread;
        share.parts = threads;
        frnn_part_of(&share, blocks_of(work), &share.block_begin, &share.block_end);
        share.barrier = barrier;
        return share;
    }
    int64_t sum = 0;
    share.row_end = 0;
    for (int t = 0; t <= thread; t++) {
        share.row_begin = share.row_end;
        share.row_end = end_of_rows(schedule, share.row_begin, &sum, t, threads);
    }
    return share;
}
