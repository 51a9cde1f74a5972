// A layer's backward call: the loop from the last step to the first, then the products over all steps.
#include "internal.h"

#include <string.h>

// Columns of dW and dR for each thread at least, in cache lines, and terms of their sums.
#define COLUMN_LINES 8
#define COLUMN_TERMS 64

typedef struct {
    const frnn_backward_args *args;
    frnn_backward_run run;
    frnn_work work;
    const frnn_cell_info *info;
    int threads;
    int with_provider;
    void *bias_sums; // [saved * H]
    char *scratch;   // per thread
    size_t scratch_bytes;
    char *panels; // likewise, with a borrowed pack
    size_t panels_bytes;
    void *gathered, *product; // provider only
    void *table; // of ids only: [ids.x_rows][input_ld], for each row of the table the sum of its dG
} plan;

static frnn_status check(const frnn_backward_args *args) {
    const frnn_pack_header *pack = args ? frnn_pack_check(args->pack, FRNN_PACK_BACKWARD) : NULL;
    if (!pack || !args->x.data || !args->tape || args->threads < 1) return FRNN_BAD_ARGUMENT;
    const frnn_layer *layer = &pack->layer;
    if (!frnn_aligned(args->tape) || (!frnn_has_c(layer) && (args->dc_n || args->dc0)))
        return FRNN_BAD_ARGUMENT;
    if (args->provider && (!args->provider->gemm || !args->w_ih)) return FRNN_BAD_ARGUMENT;
    if (!frnn_checkpoints_allowed(&args->batch, args->checkpoint_every)) return FRNN_BAD_ARGUMENT;
    if (args->checkpoint_every && !frnn_pack_check(args->forward_pack, FRNN_PACK_FORWARD))
        return FRNN_BAD_ARGUMENT;
    return frnn_inputs_check(&args->batch, &args->ids, !args->provider && !args->checkpoint_every);
}

// The gradients of W x.
static const void *input_gates(const plan *p) {
    return p->run.tape.raw_x ? p->run.tape.raw_x : p->run.tape.gates;
}
static int64_t input_ld(const plan *p) {
    return p->run.tape.raw_x ? p->run.tape.raw_ld : p->run.tape.gates_ld;
}

static void make_plan(const frnn_backward_args *args, int threads, plan *plan, frnn_arena *arena) {
    const frnn_pack_header *pack = args->pack;
    const frnn_layer *layer = &pack->layer;
    const int64_t H = layer->hidden_size, I = layer->input_size, B = args->batch.batch;
    const size_t item = frnn_itemsize(layer->dtype);
    frnn_backward_run *run = &plan->run;

    *run = (frnn_backward_run){
        .pack = pack,
        .x = args->x,
        .dy = args->dy,
        .dx = args->dx,
        .dh_n = args->dh_n,
        .dc_n = args->dc_n,
        .dh0 = args->dh0,
        .dc0 = args->dc0,
        .flow = args->flow,
        .seed = args->seed,
        .accumulate = args->accumulate,
    };
    plan->args = args;
    plan->with_provider = args->provider && frnn_takes_provider(layer);
    plan->info = pack->kernels->cell[layer->dtype][layer->cell].info;
    frnn_schedule_build(&run->schedule, &args->batch, arena);
    const int64_t G = plan->info->gates, rows = run->schedule.rows, P = frnn_state_size(layer);
    const int64_t x_rows = args->ids.at.data ? args->ids.x_rows : rows;
    plan->work = frnn_work_of(pack, &run->schedule, x_rows, 2);
    plan->threads = frnn_loop_threads(&plan->work, threads);

    frnn_arena tape_arena = {.base = args->tape};
    frnn_tape_carve(&run->tape, layer, &run->schedule, &tape_arena);
    const size_t state_bytes = (size_t)run->tape.state_ld * item;
    run->dh = frnn_carve(arena, B, state_bytes);
    run->dc = plan->info->has_c ? frnn_carve(arena, B, state_bytes) : NULL;
    run->hidden = layer->layer_norm ? frnn_carve(arena, rows, (size_t)run->tape.raw_ld * item) : NULL;
    run->output = layer->proj_size ? frnn_carve(arena, rows, state_bytes) : NULL;
    run->dc_normal = layer->layer_norm && plan->info->has_c ? frnn_carve(arena, rows, state_bytes) : NULL;
    run->reaching = run->flow ? frnn_carve(arena, 2 * B, state_bytes) : NULL;
    plan->bias_sums = frnn_carve(arena, plan->info->saved * H, item);
    plan->table = args->ids.at.data ? frnn_carve(arena, x_rows, (size_t)input_ld(plan) * item) : NULL;
    plan->scratch_bytes = frnn_outer_scratch(layer->dtype, frnn_max(rows, x_rows), I + P + H);
    plan->scratch = frnn_carve(arena, plan->threads, plan->scratch_bytes);
    plan->panels_bytes = frnn_pack_scratch(pack, FRNN_PACK_BACKWARD);
    plan->panels = frnn_carve(arena, plan->threads, plan->panels_bytes);
    if (plan->with_provider) {
        const int64_t chunk = frnn_min(rows, FRNN_PROVIDER_ROWS);
        plan->gathered = frnn_carve(arena, chunk, (size_t)frnn_max(I, H) * item);
        plan->product = frnn_carve(arena, frnn_max(chunk * I, G * H * frnn_max(I, H)), item);
    }
}

frnn_status frnn_backward_workspace(const frnn_backward_args *args, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    const frnn_status status = check(args);
    if (status != FRNN_OK) return status;
    if (args->checkpoint_every) return frnn_checkpoints_backward_workspace(args, bytes);
    frnn_arena arena = {0};
    plan plan;
    make_plan(args, args->threads, &plan, &arena);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

// --- Rows by address ----------------------------------------------------------------------------

static void input_gate_rows(const void *context, int64_t begin, int64_t count, const void **rows) {
    const plan *p = context;
    const int64_t bytes = input_ld(p) * (int64_t)frnn_itemsize(p->run.pack->layer.dtype);
    for (int64_t i = 0; i < count; i++)
        rows[i] = (const char *)(p->table ? p->table : input_gates(p)) + (begin + i) * bytes;
}

static void view_rows(const plan *p, const frnn_view *view, int64_t begin, int64_t count, const void **rows) {
    const int64_t item = (int64_t)frnn_itemsize(p->run.pack->layer.dtype);
    if (p->table) {
        for (int64_t i = 0; i < count; i++)
            rows[i] = (const char *)view->data + (begin + i) * view->batch_stride * item;
        return;
    }
    frnn_cursor at = frnn_cursor_at(&p->run.schedule, begin);
    for (int64_t i = 0; i < count; i++, frnn_cursor_next(&p->run.schedule, &at))
        rows[i] = (const char *)view->data + frnn_offset(&p->run.schedule, view, at.row, at.step) * item;
}

static void x_rows(const void *context, int64_t begin, int64_t count, const void **rows) {
    view_rows(context, &((const plan *)context)->run.x, begin, count, rows);
}

static void dx_rows(const void *context, int64_t begin, int64_t count, const void **rows) {
    view_rows(context, &((const plan *)context)->run.dx, begin, count, rows);
}

// The states that entered each row's product with R.
static void h_rows(const void *context, int64_t begin, int64_t count, const void **rows) {
    const plan *p = context;
    const int64_t bytes = p->run.tape.state_ld * (int64_t)frnn_itemsize(p->run.pack->layer.dtype);
    frnn_cursor at = frnn_cursor_at(&p->run.schedule, begin);
    for (int64_t i = 0; i < count; i++, frnn_cursor_next(&p->run.schedule, &at))
        rows[i] =
            (const char *)p->run.tape.h_in + (frnn_state_start(&p->run.schedule, at.step) + at.row) * bytes;
}

// --- The products -------------------------------------------------------------------------------

// Into how many parts `lines` of the columns of dW and dR are cut, where that many threads make them: each packs what
// of x and h belongs to its own columns. Parts are so large that their tiles are full; of few terms to write takes
// longer than to pack, and whole rows are written faster.
static int column_parts(int64_t lines, int64_t terms, int threads) {
    int parts = terms < COLUMN_TERMS ? 1 : threads;
    while (parts > 1 && (threads % parts || lines / parts < COLUMN_LINES)) parts--;
    return parts;
}

// Of a side's lines those among [*begin, *end), which are then counted from the next side's first.
static frnn_outer outer_part(frnn_outer side, int64_t item, int64_t *begin, int64_t *end) {
    const int64_t line = FRNN_ALIGN / item, lines = frnn_ceil_div(side.n, line);
    const int64_t first = frnn_min(frnn_max(*begin, 0), lines), last = frnn_min(frnn_max(*end, 0), lines);
    *begin -= lines;
    *end -= lines;
    side.first = first * line;
    side.n = frnn_min(side.n, last * line) - side.first;
    side.c = side.c && first < last ? (char *)side.c + first * FRNN_ALIGN : NULL;
    return side;
}

// A thread's part of dW and dR = sum over all rows of dG^T x and dG^T h, some rows and some columns, and of the
// biases' gradients, the sum of dG. A gate whose gradients are not the same on both sides has two blocks of them.
static void weight_gradients(const plan *p, int thread, int threads, void *scratch) {
    const frnn_layer *layer = &p->run.pack->layer;
    const int64_t H = layer->hidden_size, P = frnn_state_size(layer), I = layer->input_size;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype);
    void *const *const to = p->args->gradients;
    void *const dw_ih = p->with_provider ? NULL : to[FRNN_W_IH];
    void *const dw_hh = p->with_provider ? NULL : to[FRNN_W_HH];
    const int two_products = p->info->late < p->info->gates;
    // A table's rows are few: they are no part of what is shared out by columns.
    const int64_t x_lines = p->table ? 0 : frnn_ceil_div(I * item, FRNN_ALIGN);
    const int64_t lines = x_lines + frnn_ceil_div(P * item, FRNN_ALIGN);
    const int parts =
                  two_products || p->with_provider ? 1 : column_parts(lines, p->run.schedule.rows, threads),
              part = thread % parts;
    const int64_t row_parts = threads / parts, row_part = thread / parts, rows = p->info->gates * H;
    const int64_t begin = rows * row_part / row_parts, end = rows * (row_part + 1) / row_parts;
    int64_t first_line = lines * part / parts, end_line = lines * (part + 1) / parts;
    frnn_outer x = {x_rows, p, 0, I, dw_ih, I}, h = {h_rows, p, 0, P, dw_hh, P};
    if (!p->table) x = outer_part(x, item, &first_line, &end_line);
    h = outer_part(h, item, &first_line, &end_line);
    // Of layers that are normalised the gradients of W x and R h are not those of the sum.
    const int norm = layer->layer_norm;
    frnn_outer sides[3] = {x, h, {frnn_second_rows, &p->run, 0, H, two_products ? dw_hh : NULL, H}};
    if (norm || p->table) sides[0].c = NULL;
    if (norm) sides[1].c = NULL;
    char *const sums = p->bias_sums;
    char *const db_ih = part ? NULL : to[FRNN_B_IH], *const db_hh = part ? NULL : to[FRNN_B_HH];
    frnn_outer_columns groups[8];
    int count = 0;
    for (int gate = 0, next; gate < p->info->gates; gate = next) {
        next = frnn_hidden_end(p->info, gate);
        const int hidden_side = gate < p->info->late ? 2 : 4;
        if (gate < p->info->late) next = (int)frnn_min(next, p->info->late);
        const int64_t first = frnn_max(begin, gate * H), columns = frnn_min(end, next * H) - first;
        if (columns <= 0) continue;
        const int64_t hidden = first + (p->info->hidden_block[gate] - gate) * H;
        groups[count++] = (frnn_outer_columns){first, columns, first, hidden == first ? 1 | hidden_side : 1};
        if (hidden != first) groups[count++] = (frnn_outer_columns){hidden, columns, first, hidden_side};
    }
    if (p->run.accumulate)
        for (const frnn_outer_columns *g = groups; g < groups + count; g++) {
            const char *const db = g->sides & 1 ? db_ih : db_hh;
            if (db) memcpy(sums + g->first * item, db + g->c_row * item, (size_t)(g->columns * item));
        }
    const frnn_kernels *kernels = p->run.pack->kernels;
    const frnn_outer_columns mine = {begin, end - begin, begin, 1};
    FRNN_EACH_BLOCK(block, &p->run.schedule) {
        const int accumulate = p->run.accumulate || block.end < p->run.schedule.rows;
        frnn_outer_products(kernels, layer->dtype, block, p->run.tape.gates, p->run.tape.gates_ld, groups,
                            count, sides, 3, db_ih || db_hh ? sums : NULL, scratch, accumulate);
        if (!norm) continue;
        if (!p->table)
            frnn_outer_products(kernels, layer->dtype, block, input_gates(p), input_ld(p), &mine, 1, &x, 1,
                                NULL, scratch, accumulate);
        frnn_outer_products(kernels, layer->dtype, block, p->run.hidden, p->run.tape.raw_ld, &mine, 1, &h, 1,
                            NULL, scratch, accumulate);
    }
    if (p->table && p->run.schedule.rows) {
        const int64_t first = rows * thread / threads, last = rows * (thread + 1) / threads;
        const frnn_outer_columns own = {first, last - first, first, 1};
        frnn_outer_products(kernels, layer->dtype, (frnn_block){0, p->args->ids.x_rows}, p->table,
                            input_ld(p), &own, 1, &x, 1, NULL, scratch, p->run.accumulate);
    }
    for (const frnn_outer_columns *g = groups; g < groups + count && p->run.schedule.rows; g++) {
        const size_t bytes = (size_t)(g->columns * item);
        if (g->sides & 1 && db_ih) memcpy(db_ih + g->c_row * item, sums + g->first * item, bytes);
        if (g->sides & 6 && db_hh) memcpy(db_hh + g->c_row * item, sums + g->first * item, bytes);
    }
}

// A thread's columns of `table`: the gradients of W x are added, in the order of the tape, for each of its rows.
static void add_up_table(const plan *p, int thread, int threads) {
    const frnn_layer *layer = &p->run.pack->layer;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype), ld = input_ld(p);
    const int64_t lines = frnn_ceil_div(p->info->gates * layer->hidden_size * item, FRNN_ALIGN);
    const int64_t first = lines * thread / threads * FRNN_ALIGN,
                  bytes = lines * (thread + 1) / threads * FRNN_ALIGN - first;
    char *const to = (char *)p->table + first;
    int64_t at[FRNN_SUM_BLOCK];
    for (int64_t row = 0; row < p->args->ids.x_rows; row++) memset(to + row * ld * item, 0, (size_t)bytes);
    frnn_cursor cursor = frnn_cursor_at(&p->run.schedule, 0);
    for (int64_t row = 0, rows; row < p->run.schedule.rows; row += rows) {
        rows = frnn_min(FRNN_SUM_BLOCK, p->run.schedule.rows - row);
        for (int64_t i = 0; i < rows; i++, frnn_cursor_next(&p->run.schedule, &cursor))
            at[i] = frnn_id_at(&p->run.schedule, &p->args->ids, cursor.row, cursor.step);
        p->run.pack->kernels->add_rows_at[layer->dtype](
            rows, bytes / item, (const char *)input_gates(p) + row * ld * item + first, at, to, ld);
    }
}

static void input_gradient(const plan *p, int64_t begin, int64_t end, void *scratch) {
    const frnn_pack_header *pack = p->run.pack;
    const frnn_matrix w = frnn_pack_matrix(pack, 0, scratch);
    if (p->args->dx.data && !p->with_provider)
        frnn_rows_product(pack->kernels, pack->layer.dtype, &w, begin, end, input_gate_rows, p, dx_rows, p);
}

static void backward_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    const plan *p = context;
    const frnn_layer *layer = &p->run.pack->layer;
    const size_t item = frnn_itemsize(layer->dtype);
    const frnn_schedule *schedule = &p->run.schedule;
    void *const scratch = p->scratch + (size_t)thread * p->scratch_bytes;
    frnn_share share = frnn_share_of(&p->work, thread, threads, barrier);
    share.scratch = p->panels + (size_t)thread * p->panels_bytes;
    p->run.pack->kernels->cell[layer->dtype][layer->cell].backward[frnn_is_variant(layer)](&p->run, &share);
    frnn_barrier_wait(barrier);

    if (frnn_is_variant(layer))
        frnn_variant_gradients(&p->run, p->args->gradients, thread, threads, barrier, scratch);
    if (p->table) {
        add_up_table(p, thread, threads);
        frnn_barrier_wait(barrier);
    } else {
        frnn_zero_padding(schedule, &p->run.dx, (size_t)layer->input_size * item, item, thread, threads);
    }
    const frnn_view flow = {p->run.flow, schedule->time, 1};
    frnn_zero_padding(schedule, &flow, sizeof(double), sizeof(double), thread, threads);
    const int64_t x_rows = p->table ? p->args->ids.x_rows : schedule->rows;
    input_gradient(p, x_rows * thread / threads, x_rows * (thread + 1) / threads, share.scratch);
    weight_gradients(p, thread, threads, scratch);
}

// --- The products through a provider ------------------------------------------------------------

static void add(frnn_dtype dtype, int64_t n, const void *from, void *to) {
    for (int64_t i = 0; i < n; i++) {
        if (dtype == FRNN_F32)
            ((float *)to)[i] += ((const float *)from)[i];
        else
            ((double *)to)[i] += ((const double *)from)[i];
    }
}

static frnn_status provider_weights(const plan *p, int hidden, int64_t row, int64_t count) {
    const frnn_layer *layer = &p->run.pack->layer;
    const frnn_provider *provider = p->args->provider;
    const int64_t H = layer->hidden_size, n = hidden ? H : layer->input_size;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype);
    void *const to = p->args->gradients[hidden ? FRNN_W_HH : FRNN_W_IH];
    if (!to) return FRNN_OK;
    const void *rows[FRNN_SUM_BLOCK];
    for (int64_t i = 0; i < count; i += FRNN_SUM_BLOCK) {
        const int64_t some = frnn_min(FRNN_SUM_BLOCK, count - i);
        (hidden ? h_rows : x_rows)(p, row + i, some, rows);
        for (int64_t j = 0; j < some; j++)
            memcpy((char *)p->gathered + (i + j) * n * item, rows[j], (size_t)(n * item));
    }
    for (int gate = 0, next; gate < p->info->gates; gate = next) {
        next = hidden ? frnn_hidden_end(p->info, gate) : p->info->gates;
        const int64_t m = (next - gate) * H, block = hidden ? p->info->hidden_block[gate] : gate;
        const char *gates = (const char *)p->run.tape.gates + (row * p->run.tape.gates_ld + block * H) * item;
        const frnn_status status = provider->gemm(provider->context, layer->dtype, m, n, count, gates,
                                                  p->run.tape.gates_ld, 1, p->gathered, n, 0, p->product, n);
        if (status != FRNN_OK) return status;
        char *const part = (char *)to + gate * H * n * item;
        if (row == 0 && !p->run.accumulate)
            memcpy(part, p->product, (size_t)(m * n * item));
        else
            add(layer->dtype, m * n, p->product, part);
    }
    return FRNN_OK;
}

static frnn_status provider_products(const plan *p) {
    const frnn_layer *layer = &p->run.pack->layer;
    const frnn_provider *provider = p->args->provider;
    const int64_t I = layer->input_size, GH = p->info->gates * layer->hidden_size;
    const int64_t item = (int64_t)frnn_itemsize(layer->dtype);
    const void *rows[FRNN_SUM_BLOCK];
    for (int64_t row = 0; row < p->run.schedule.rows; row += FRNN_PROVIDER_ROWS) {
        const int64_t count = frnn_min(FRNN_PROVIDER_ROWS, p->run.schedule.rows - row);
        frnn_status status = provider_weights(p, 0, row, count);
        if (status == FRNN_OK) status = provider_weights(p, 1, row, count);
        if (status == FRNN_OK && p->args->dx.data) {
            status = provider->gemm(provider->context, layer->dtype, count, I, GH,
                                    (const char *)p->run.tape.gates + row * p->run.tape.gates_ld * item,
                                    p->run.tape.gates_ld, 0, p->args->w_ih, I, 0, p->product, I);
            for (int64_t i = 0; i < count && status == FRNN_OK; i += FRNN_SUM_BLOCK) {
                const int64_t some = frnn_min(FRNN_SUM_BLOCK, count - i);
                dx_rows(p, row + i, some, rows);
                for (int64_t j = 0; j < some; j++)
                    memcpy((void *)rows[j], (const char *)p->product + (i + j) * I * item,
                           (size_t)(I * item));
            }
        }
        if (status != FRNN_OK) return status;
    }
    return FRNN_OK;
}

// No row had any step: the states' gradients pass through and every sum is empty.
static void all_empty(const plan *p) {
    const frnn_layer *layer = &p->run.pack->layer;
    if (p->run.accumulate) return;
    for (int i = 0; i < FRNN_WEIGHTS; i++) {
        int64_t shape[2];
        if (p->args->gradients[i] && frnn_weight_shape(layer, (frnn_weight)i, shape))
            memset(p->args->gradients[i], 0, (size_t)(shape[0] * shape[1]) * frnn_itemsize(layer->dtype));
    }
}

frnn_status frnn_backward_each(const frnn_backward_args *args, void *const *workspaces, int calls) {
    if (!args || !workspaces || calls < 1 || calls > FRNN_MAX_CALLS) return FRNN_BAD_ARGUMENT;
    plan plans[FRNN_MAX_CALLS];
    void *contexts[FRNN_MAX_CALLS];
    int wanted[FRNN_MAX_CALLS], planned = 0;
    double multiply_adds = 0;
    for (int i = 0; i < calls; i++) {
        frnn_status status = check(&args[i]);
        if (status != FRNN_OK) return status;
        if (!workspaces[i] || !frnn_aligned(workspaces[i])) return FRNN_BAD_ARGUMENT;
        if (args[i].checkpoint_every) {
            status = frnn_checkpoints_backward(&args[i], workspaces[i]);
            if (status != FRNN_OK) return status;
            continue;
        }
        plan *const p = &plans[planned];
        frnn_arena arena = {.base = workspaces[i]};
        make_plan(&args[i], frnn_threads_of(args->threads, i, calls), p, &arena);
        if (arena.overflow) return FRNN_TOO_LARGE;
        if (p->run.schedule.rows == 0) all_empty(p);
        contexts[planned] = p;
        wanted[planned++] = p->threads;
        multiply_adds += p->work.multiply_adds;
    }
    if (planned)
        frnn_pool_run_each(backward_job, contexts, wanted, planned,
                           frnn_threads_for(multiply_adds, args->threads));
    for (int i = 0; i < planned; i++) {
        const frnn_status status = plans[i].with_provider ? provider_products(&plans[i]) : FRNN_OK;
        if (status != FRNN_OK) return status;
    }
    return FRNN_OK;
}

frnn_status frnn_backward(const frnn_backward_args *args, void *workspace) {
    return frnn_backward_each(args, &workspace, 1);
}
