// The gradients of the weights that only variants have: sums over all rows, after the loop over time.
#include "internal.h"

// Some units of H, which a thread does.
typedef struct {
    int64_t begin, count;
} units;

// sum (n) = the sum over rows of x (y - mean) rate, or of x y.
typedef struct {
    const frnn_backward_run *run;
    const void *x; // [rows][ldx]
    int64_t ldx;
    const void *y; // [rows][ldy], or, states, [B + rows][ldy]: those that entered each step
    int64_t ldy;
    int states;
    int moment; // the first of two, or -1: none
} scaled_sum;

static void sum_scaled(const scaled_sum *s, int64_t n, void *sum) {
    const frnn_backward_run *run = s->run;
    const frnn_schedule *schedule = &run->schedule;
    const frnn_dtype dtype = run->pack->layer.dtype;
    const int64_t item = (int64_t)frnn_itemsize(dtype);
    const void *y[FRNN_SUM_BLOCK], *moments[FRNN_SUM_BLOCK];
    FRNN_EACH_BLOCK(block, schedule) {
        const int64_t row = block.begin, k = block.end - row;
        frnn_cursor at = frnn_cursor_at(schedule, row);
        for (int64_t i = 0; i < k; i++, frnn_cursor_next(schedule, &at)) {
            const int64_t y_row = s->states ? frnn_state_start(schedule, at.step) + at.row : row + i;
            y[i] = (const char *)s->y + y_row * s->ldy * item;
            if (s->moment >= 0)
                moments[i] = (const char *)run->tape.moments + ((row + i) * FRNN_MOMENTS + s->moment) * item;
        }
        run->pack->kernels->sum_scaled[dtype](n, k, (const char *)s->x + row * s->ldx * item, s->ldx, y,
                                              s->moment < 0 ? NULL : moments, sum,
                                              run->accumulate || block.end < schedule->rows);
    }
}

// The first of some units in a block of H.
static char *block_at(const frnn_backward_run *run, const units *u, const void *array, int64_t block) {
    const frnn_layer *layer = &run->pack->layer;
    return (char *)array + (block * layer->hidden_size + u->begin) * (int64_t)frnn_itemsize(layer->dtype);
}

// Peepholes: the sum of their gates' gradients times c, o's times c'.
static void peephole_gradient(const frnn_backward_run *run, const units *u, void *to, int gates) {
    for (int which = 0; which < gates - 1; which++) {
        const int is_o = which == gates - 2;
        const scaled_sum s = {
            .run = run,
            .x = block_at(run, u, run->tape.gates, is_o ? gates - 1 : which),
            .ldx = run->tape.gates_ld,
            .y = block_at(run, u, is_o ? run->tape.new_c : run->tape.c, 0),
            .ldy = run->tape.state_ld,
            .states = !is_o,
            .moment = -1,
        };
        sum_scaled(&s, u->count, block_at(run, u, to, which));
    }
}

// Scales of the normalised W x and R h: the sum of the gradients of the sum they enter times what they scale.
static void scale_gradients(const frnn_backward_run *run, const units *u, const frnn_cell_info *info,
                            void *const *to) {
    for (int gate = 0; gate < info->gates; gate++) {
        scaled_sum s = {.run = run, .ldx = run->tape.gates_ld, .ldy = run->tape.raw_ld};
        s.x = block_at(run, u, run->tape.gates, gate);
        s.y = block_at(run, u, run->tape.raw_x, gate);
        s.moment = MEAN_X;
        if (to[FRNN_LN_IH]) sum_scaled(&s, u->count, block_at(run, u, to[FRNN_LN_IH], gate));
        s.x = block_at(run, u, run->tape.gates, info->hidden_block[gate]);
        s.y = block_at(run, u, run->tape.raw_h, gate);
        s.moment = MEAN_H;
        if (to[FRNN_LN_HH]) sum_scaled(&s, u->count, block_at(run, u, to[FRNN_LN_HH], gate));
    }
}

static void c_scale_gradient(const frnn_backward_run *run, const units *u, void *to) {
    const frnn_kernels *kernels = run->pack->kernels;
    const frnn_dtype dtype = run->pack->layer.dtype;
    const int64_t bytes = run->tape.state_ld * (int64_t)frnn_itemsize(dtype);
    const char *const d_normal = block_at(run, u, run->dc_normal, 0);
    const scaled_sum s = {
        .run = run,
        .x = d_normal,
        .ldx = run->tape.state_ld,
        .y = block_at(run, u, run->tape.new_c, 0),
        .ldy = run->tape.state_ld,
        .moment = MEAN_C,
    };
    sum_scaled(&s, u->count, block_at(run, u, to, 0));
    FRNN_EACH_BLOCK(block, &run->schedule)
    kernels->sum_rows[dtype](u->count, block.end - block.begin, d_normal + block.begin * bytes,
                             run->tape.state_ld, block_at(run, u, to, 1),
                             run->accumulate || block.end < run->schedule.rows);
}

void frnn_second_rows(const void *context, int64_t begin, int64_t count, const void **rows) {
    const frnn_backward_run *run = context;
    const int64_t bytes = run->tape.state_ld * (int64_t)frnn_itemsize(run->pack->layer.dtype);
    for (int64_t i = 0; i < count; i++) rows[i] = (const char *)run->tape.second + (begin + i) * bytes;
}

// dW_hr = the sum of h's gradients times what was projected: rows [begin, end).
static void projection_gradient(const frnn_backward_run *run, void *to, int64_t begin, int64_t end,
                                void *scratch) {
    const frnn_layer *layer = &run->pack->layer;
    const frnn_outer outer = {frnn_second_rows, run, 0, layer->hidden_size, to, layer->hidden_size};
    const frnn_outer_columns columns = {begin, end - begin, begin, 1};
    if (begin == end) return;
    FRNN_EACH_BLOCK(block, &run->schedule)
    frnn_outer_products(run->pack->kernels, layer->dtype, block, run->output, run->tape.state_ld, &columns, 1,
                        &outer, 1, NULL, scratch, run->accumulate || block.end < run->schedule.rows);
}

void frnn_variant_gradients(const frnn_backward_run *run, void *const *gradients, int thread, int threads,
                            frnn_barrier *barrier, void *scratch) {
    const frnn_layer *layer = &run->pack->layer;
    const frnn_kernels *kernels = run->pack->kernels;
    const frnn_cell_info *info = kernels->cell[layer->dtype][layer->cell].info;
    const int64_t rows = run->schedule.rows, item = (int64_t)frnn_itemsize(layer->dtype);
    const int64_t H = layer->hidden_size, begin = H * thread / threads;
    const units mine = {begin, H * (thread + 1) / threads - begin};
    if (!rows) return;
    if (gradients[FRNN_W_HR])
        projection_gradient(run, gradients[FRNN_W_HR], layer->proj_size * thread / threads,
                            layer->proj_size * (thread + 1) / threads, scratch);
    if (gradients[FRNN_W_CH]) peephole_gradient(run, &mine, gradients[FRNN_W_CH], info->gates);
    if (!layer->layer_norm) return;
    scale_gradients(run, &mine, info, gradients);
    if (gradients[FRNN_LN_C]) c_scale_gradient(run, &mine, gradients[FRNN_LN_C]);
    frnn_barrier_wait(barrier);
    for (int64_t row = rows * thread / threads; row < rows * (thread + 1) / threads; row++)
        kernels->normalise_back[layer->dtype](info->gates, layer->hidden_size,
                                              (const char *)run->tape.gates + row * run->tape.gates_ld * item,
                                              (const char *)run->pack + run->pack->ln_ih,
                                              (const char *)run->tape.moments + row * FRNN_MOMENTS * item,
                                              (char *)run->tape.raw_x + row * run->tape.raw_ld * item);
    frnn_barrier_wait(barrier);
}
