// A layer's forward call: checks, workspace, the provider's products, threads.
#include "internal.h"

#include <string.h>

// Bytes of projected gates that a thread keeps at a time: they stay in its L2 until they are used.
#define CHUNK_BYTES (256 * 1024)
// Steps of a single row that are projected at a time while one thread has its loop.
#define AHEAD_STEPS 32
// The cell of a step takes the time of so many multiply-adds.
#define CELL_WORK 4000

typedef struct {
    frnn_forward_run run;
    frnn_work work;
    int threads;
    int ahead;      // see forward_ahead
    void *gathered; // provider only: rows of x side by side
    char *scratch;  // per thread
    size_t scratch_bytes;
} plan;

static int with_provider(const frnn_forward_args *args) {
    const frnn_pack_header *pack = args->pack;
    return args->provider && frnn_takes_provider(&pack->layer) && pack->kind != FRNN_PACK_BFLOAT16;
}

static frnn_status check(const frnn_forward_args *args) {
    const frnn_pack_header *pack = args ? frnn_pack_check(args->pack, FRNN_PACK_FORWARD) : NULL;
    if (!pack || !args->x.data || args->threads < 1 || !frnn_aligned(args->tape)) return FRNN_BAD_ARGUMENT;
    const frnn_layer *layer = &pack->layer;
    if (args->tape && pack->kind == FRNN_PACK_BFLOAT16) return FRNN_BAD_ARGUMENT;
    if (!frnn_has_c(layer) && (args->c0 || args->c_n)) return FRNN_BAD_ARGUMENT;
    if (args->provider && (!args->provider->gemm || !args->w_ih)) return FRNN_BAD_ARGUMENT;
    if (!frnn_checkpoints_allowed(&args->batch, args->checkpoint_every)) return FRNN_BAD_ARGUMENT;
    if (args->checkpoint_every && !args->tape) return FRNN_BAD_ARGUMENT;
    return frnn_inputs_check(&args->batch, &args->ids, !args->provider && !args->checkpoint_every);
}

// For a call that gets this many threads; it wants no less memory than with fewer.
static void make_plan(const frnn_forward_args *args, int threads, plan *plan, frnn_arena *arena) {
    const frnn_pack_header *pack = args->pack;
    const frnn_layer *layer = &pack->layer;
    const frnn_cell_info *info = pack->kernels->cell[layer->dtype][layer->cell].info;
    const size_t item = frnn_itemsize(layer->dtype);
    const int64_t I = layer->input_size, B = args->batch.batch;
    frnn_forward_run *run = &plan->run;

    *run = (frnn_forward_run){
        .pack = pack,
        .x = args->x,
        .y = args->y,
        .h0 = args->h0,
        .c0 = args->c0,
        .h_n = args->h_n,
        .c_n = args->c_n,
        .seed = args->seed,
        .ids = args->ids,
        .training = args->tape != NULL,
        .projected = with_provider(args),
    };
    frnn_schedule_build(&run->schedule, &args->batch, arena);
    const int64_t x_rows = args->ids.at.data ? args->ids.x_rows : run->schedule.rows;
    plan->work = frnn_work_of(pack, &run->schedule, x_rows, 1);
    plan->threads = frnn_loop_threads(&plan->work, threads);
    const int by_rows = frnn_by_rows(&plan->work, plan->threads);
    plan->ahead = B == 1 && by_rows && plan->threads > 1 && !run->projected && !args->ids.at.data;

    frnn_arena tape_arena = {.base = args->tape};
    frnn_tape_carve(&run->tape, layer, &run->schedule, &tape_arena);
    const int norm = layer->layer_norm;
    const int64_t gates_bytes =
        (norm ? run->tape.raw_ld : run->tape.gates_ld) * (int64_t)item; // a row of W x
    const size_t state_bytes = (size_t)run->tape.state_ld * item;
    run->fetch_gates = run->training && x_rows * gates_bytes > FRNN_L2_BYTES;
    run->fetch_y = run->y.data && run->schedule.rows * frnn_state_size(layer) * (int64_t)item > FRNN_L2_BYTES;
    int64_t gates_rows;
    if (run->projected) {
        run->chunk_steps = frnn_max(1, FRNN_PROVIDER_ROWS / B);
        gates_rows = run->chunk_steps * B;
    } else {
        const int64_t rows = by_rows ? frnn_ceil_div(B, plan->threads) : B;
        run->chunk_steps = frnn_max(1, CHUNK_BYTES / gates_bytes / rows);
        gates_rows = frnn_max(B, CHUNK_BYTES / gates_bytes * plan->threads);
    }
    if (plan->ahead) {
        run->chunk_steps = AHEAD_STEPS;
        gates_rows = frnn_max(gates_rows, 2 * AHEAD_STEPS);
    }
    run->chunk_steps = frnn_min(run->chunk_steps, args->batch.time);
    gates_rows = frnn_min(gates_rows, args->batch.time * B);
    plan->scratch_bytes = frnn_pack_scratch(pack, FRNN_PACK_FORWARD);
    plan->scratch = frnn_carve(arena, plan->threads, plan->scratch_bytes);
    run->table = args->ids.at.data ? frnn_carve(arena, x_rows, (size_t)gates_bytes) : NULL;
    plan->gathered = run->projected ? frnn_carve(arena, run->chunk_steps * B, (size_t)I * item) : NULL;
    if (!run->training) {
        void *const x_part = frnn_carve(arena, gates_rows, (size_t)gates_bytes);
        run->tape.raw_x = norm ? x_part : NULL;
        run->tape.gates = norm ? frnn_carve(arena, B, (size_t)run->tape.gates_ld * item) : x_part;
        run->tape.raw_h = norm ? frnn_carve(arena, B, (size_t)run->tape.raw_ld * item) : NULL;
        run->tape.h = run->tape.h_in = frnn_carve(arena, 2 * B, state_bytes);
        run->tape.c = info->has_c ? frnn_carve(arena, 2 * B, state_bytes) : NULL;
        run->tape.second = frnn_has_second(layer) ? frnn_carve(arena, B, state_bytes) : NULL;
        run->tape.new_c = frnn_keeps_new_c(layer) ? frnn_carve(arena, B, state_bytes) : NULL;
        run->tape.moments = NULL;
    }
}

frnn_status frnn_forward_workspace(const frnn_forward_args *args, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    const frnn_status status = check(args);
    if (status != FRNN_OK) return status;
    if (args->checkpoint_every) return frnn_checkpoints_forward_workspace(args, bytes);
    frnn_arena arena = {0};
    plan plan;
    make_plan(args, args->threads, &plan, &arena);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

// All rows and units, with the scratch of a thread.
static frnn_share share_of_all(const plan *plan, int thread) {
    frnn_share all = frnn_share_of(&plan->work, 0, 1, NULL);
    all.scratch = plan->scratch + (size_t)thread * plan->scratch_bytes;
    return all;
}

// A thread's rows of what W makes of a table.
static void project_table(const plan *plan, int thread, int threads) {
    enum { SOME = 256 };
    const frnn_forward_run *run = &plan->run;
    const frnn_share all = share_of_all(plan, thread);
    const frnn_layer *layer = &run->pack->layer;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype), end = run->ids.x_rows * (thread + 1) / threads;
    const int64_t ld = layer->layer_norm ? run->tape.raw_ld : run->tape.gates_ld;
    const void *x[SOME];
    void *to[SOME];
    for (int64_t row = run->ids.x_rows * thread / threads, rows; row < end; row += rows) {
        rows = frnn_min(SOME, end - row);
        for (int64_t i = 0; i < rows; i++) {
            x[i] = (const char *)run->x.data + (row + i) * run->x.batch_stride * item;
            to[i] = (char *)run->table + (row + i) * ld * item;
        }
        run->pack->kernels->project[layer->dtype](run, &all, rows, x, to);
    }
}

// A single row, whose loop is thread 0's: while it has the loop of some steps, the others make W x of the next ones,
// and it too where that takes longer.
static void forward_ahead(const plan *plan, int thread, int threads, frnn_barrier *barrier) {
    const frnn_layer *layer = &plan->run.pack->layer;
    const frnn_share all = share_of_all(plan, thread);
    frnn_forward_run run = plan->run;
    const int64_t steps = run.schedule.steps, chunk = run.chunk_steps;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype);
    const int64_t ld = (layer->layer_norm ? run.tape.raw_ld : run.tape.gates_ld) * item;
    const int64_t period = run.training ? steps : 2 * chunk; // after so many steps a row is used again
    char *const gates = layer->layer_norm ? run.tape.raw_x : run.tape.gates;
    const double loop = plan->work.step_work + CELL_WORK;
    const double input = plan->work.multiply_adds / (double)steps - plan->work.step_work;
    const int64_t own = (int64_t)((double)chunk * ((loop + input) / threads - loop) / input);
    const frnn_kernels *kernels = run.pack->kernels;
    run.projected = 1;
    for (int64_t step = 0; step < steps + chunk; step += chunk) {
        const int64_t count = frnn_max(0, frnn_min(chunk, steps - step)), helpers = threads - 1;
        const int64_t mine = frnn_min(count, step ? frnn_max(0, own) : frnn_ceil_div(count, threads));
        const int64_t begin = thread ? mine + (count - mine) * (thread - 1) / helpers : 0;
        const int64_t end = thread == threads - 1 ? count : mine + (count - mine) * thread / helpers;
        const void *x[AHEAD_STEPS];
        void *to[AHEAD_STEPS];
        for (int64_t i = begin; i < end; i++) {
            x[i] = (const char *)run.x.data + frnn_offset(&run.schedule, &run.x, 0, step + i) * item;
            to[i] = gates + (step + i) % period * ld;
        }
        if (begin < end) kernels->project[layer->dtype](&run, &all, end - begin, x + begin, to + begin);
        if (step && thread == 0) {
            run.first_step = step - chunk;
            run.last_step = frnn_min(steps, step);
            run.gates_start = run.first_step / period * period;
            kernels->cell[layer->dtype][layer->cell].forward[frnn_is_variant(layer)](&run, &all);
        }
        frnn_barrier_wait(barrier);
    }
}

static void forward_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const plan *plan = context;
    const frnn_forward_run *run = &plan->run;
    const frnn_layer *layer = &run->pack->layer;
    if (plan->ahead) {
        forward_ahead(plan, thread, threads, barrier);
        return;
    }
    frnn_share share = frnn_share_of(&plan->work, thread, threads, barrier);
    share.scratch = plan->scratch + (size_t)thread * plan->scratch_bytes;
    if (run->table) {
        project_table(plan, thread, threads);
        frnn_barrier_wait(barrier);
    }
    run->pack->kernels->cell[layer->dtype][layer->cell].forward[frnn_is_variant(layer)](run, &share);
}

// Rows [begin, end) of a tape: x W through the provider, then the biases.
static frnn_status project(const frnn_forward_args *args, const plan *plan, int64_t begin, int64_t end) {
    const frnn_forward_run *run = &plan->run;
    const frnn_layer *layer = &run->pack->layer;
    const int64_t I = layer->input_size, GH = frnn_gates(layer->cell) * layer->hidden_size;
    const size_t item = frnn_itemsize(layer->dtype), row_bytes = (size_t)I * item;
    char *const gates =
        (char *)run->tape.gates + (begin - run->gates_start) * run->tape.gates_ld * (int64_t)item;
    frnn_cursor at = frnn_cursor_at(&run->schedule, begin);
    for (int64_t row = 0; row < end - begin; row++, frnn_cursor_next(&run->schedule, &at))
        memcpy((char *)plan->gathered + (size_t)row * row_bytes,
               (const char *)run->x.data
                   + frnn_offset(&run->schedule, &run->x, at.row, at.step) * (int64_t)item,
               row_bytes);
    const frnn_status status =
        args->provider->gemm(args->provider->context, layer->dtype, end - begin, GH, I, plan->gathered, I, 0,
                             args->w_ih, I, 1, gates, run->tape.gates_ld);
    if (status != FRNN_OK) return status;
    const void *bias = (const char *)run->pack + run->pack->b_x;
    for (int64_t row = 0; row < end - begin; row++) {
        if (layer->dtype == FRNN_F32)
            for (int64_t i = 0; i < GH; i++)
                ((float *)gates)[row * run->tape.gates_ld + i] += ((const float *)bias)[i];
        else
            for (int64_t i = 0; i < GH; i++)
                ((double *)gates)[row * run->tape.gates_ld + i] += ((const double *)bias)[i];
    }
    return FRNN_OK;
}

// Zeros past the lengths, and the states of rows without any step pass through.
static void finish(const frnn_forward_args *args, const plan *plan) {
    const frnn_schedule *schedule = &plan->run.schedule;
    const frnn_layer *layer = &plan->run.pack->layer;
    const size_t item = frnn_itemsize(layer->dtype);
    const size_t sizes[2] = {(size_t)frnn_state_size(layer) * item, (size_t)layer->hidden_size * item};
    frnn_zero_padding(schedule, &args->y, sizes[0], item, 0, 1);
    for (int64_t row = schedule->active[0]; row < schedule->batch; row++) {
        const void *const from[2] = {args->h0, args->c0};
        void *const to[2] = {args->h_n, args->c_n};
        for (int i = 0; i < 2; i++) {
            const size_t at = (size_t)schedule->order[row] * sizes[i];
            if (!to[i]) continue;
            if (from[i])
                memmove((char *)to[i] + at, (const char *)from[i] + at, sizes[i]);
            else
                memset((char *)to[i] + at, 0, sizes[i]);
        }
    }
}

static frnn_status forward_with_provider(const frnn_forward_args *args, plan *plan) {
    frnn_forward_run *run = &plan->run;
    const frnn_schedule *schedule = &run->schedule;
    for (int64_t step = 0; step < schedule->steps; step += run->chunk_steps) {
        run->first_step = step;
        run->last_step = frnn_min(schedule->steps, step + run->chunk_steps);
        run->gates_start = run->training ? 0 : schedule->start[step];
        const frnn_status status =
            project(args, plan, schedule->start[step], schedule->start[run->last_step]);
        if (status != FRNN_OK) return status;
        frnn_pool_run(forward_job, plan, plan->threads);
    }
    return FRNN_OK;
}

frnn_status frnn_forward_each(const frnn_forward_args *args, void *const *workspaces, int calls) {
    if (!args || !workspaces || calls < 1 || calls > FRNN_MAX_CALLS) return FRNN_BAD_ARGUMENT;
    plan plans[FRNN_MAX_CALLS];
    const frnn_forward_args *planned_args[FRNN_MAX_CALLS];
    void *native[FRNN_MAX_CALLS];
    int wanted[FRNN_MAX_CALLS], planned = 0, natives = 0;
    double multiply_adds = 0;
    for (int i = 0; i < calls; i++) {
        frnn_status status = check(&args[i]);
        if (status != FRNN_OK) return status;
        if (!workspaces[i] || !frnn_aligned(workspaces[i])) return FRNN_BAD_ARGUMENT;
        if (args[i].checkpoint_every) {
            status = frnn_checkpoints_forward(&args[i], workspaces[i]);
            if (status != FRNN_OK) return status;
            continue;
        }
        plan *const p = &plans[planned];
        planned_args[planned++] = &args[i];
        frnn_arena arena = {.base = workspaces[i]};
        make_plan(&args[i], frnn_threads_of(args->threads, i, calls), p, &arena);
        if (arena.overflow) return FRNN_TOO_LARGE;
        if (p->run.projected) continue;
        p->run.last_step = p->run.schedule.steps;
        wanted[natives] = p->threads;
        multiply_adds += p->work.multiply_adds;
        native[natives++] = p;
    }
    if (natives)
        frnn_pool_run_each(forward_job, native, wanted, natives,
                           frnn_threads_for(multiply_adds, args->threads));
    for (int i = 0; i < planned; i++) {
        if (plans[i].run.projected) {
            const frnn_status status = forward_with_provider(planned_args[i], &plans[i]);
            if (status != FRNN_OK) return status;
        }
        finish(planned_args[i], &plans[i]);
    }
    return FRNN_OK;
}

frnn_status frnn_forward(const frnn_forward_args *args, void *workspace) {
    return frnn_forward_each(args, &workspace, 1);
}
