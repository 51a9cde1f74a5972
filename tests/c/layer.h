// One layer's call through the public interface, forward and backward, from a problem's dense inputs to its
// dense outputs; and making problems.
#ifndef LAYER_H
#define LAYER_H

#include "naive.h"

typedef struct {
    const char *isa;
    frnn_dtype dtype;
    int threads;
    int layout;       // of x, y, dy and dx
    int provider;     // naive_gemm instead of native products
    int borrowed;     // the weights as they stand instead of packed ones
    int inference;    // forward without a tape, no backward
    unsigned without; // outputs that are not asked for, as BIT(which)
    int64_t checkpoint_every;
    int bfloat16; // weights of it; for inference
    int ids;      // x is a table, whose rows enter by ids
} options;

// --- Problems -----------------------------------------------------------------------------------

// Shapes alone, outputs allocated.
static inline problem problem_of(frnn_layer layer, int64_t B, int64_t T, const int64_t *lengths,
                                 int reverse) {
    const int64_t H = layer.hidden_size, P = layer.proj_size ? layer.proj_size : H;
    problem p = {layer, layer.input_size, H, P, B, T, lengths, reverse, 0, {0}};
    for (int which = OUTPUTS; which < ALL; which++)
        p.of[which] = calloc((size_t)count_of(&p, which) + 1, sizeof(double)); // never NULL
    return p;
}

// Of the plain cell.
static inline problem problem_new(frnn_cell cell, int64_t I, int64_t H, int64_t B, int64_t T,
                                  const int64_t *lengths, int reverse) {
    const frnn_layer layer = {.cell = cell, .input_size = I, .hidden_size = H};
    return problem_of(layer, B, T, lengths, reverse);
}

static inline void problem_fill(problem *p, unsigned absent, uint64_t seed) {
    random_state = seed;
    p->seed = ~seed;  // all 64 bits of it
    double scale = 1; // of weights: a power of two near 1 / sqrt(H)
    while (scale * scale * (double)p->H > 1) scale /= 2;
    for (int which = 0; which < OUTPUTS; which++) {
        const int64_t count = count_of(p, which);
        if ((absent & BIT(which)) || !count) continue;
        p->of[which] = malloc((size_t)count * sizeof(double));
        for (int64_t i = 0; i < count; i++)
            p->of[which][i] = uniform() * (which >= W_IH && which <= W_HR ? scale : 1);
    }
}

static inline void problem_end(problem *p) {
    for (int which = 0; which < ALL; which++) free(p->of[which]);
}

// Rows [b, b + B) and steps [t, t + T) of another problem, its weights and gradients from outside copied;
// lengths stay those of the rows.
static inline problem problem_part(const problem *whole, int64_t b, int64_t B, int64_t t, int64_t T) {
    problem p = problem_of(whole->layer, B, T, whole->lengths ? whole->lengths + b : NULL, whole->reverse);
    p.seed = whole->seed;
    for (int which = 0; which < OUTPUTS; which++) {
        if (!whole->of[which]) continue;
        int64_t n[3], from[3], count = shape_of(&p, which, n);
        shape_of(whole, which, from);
        const int batched = !is_weight(which), timed = which == X || which == DY;
        double *to = p.of[which] = malloc((size_t)count * sizeof(double));
        for (int64_t i = 0; i < n[0]; i++, to += n[1] * n[2])
            memcpy(to, whole->of[which] + ((i + (batched ? b : 0)) * from[1] + (timed ? t : 0)) * from[2],
                   (size_t)(n[1] * n[2]) * sizeof(double));
    }
    return p;
}

// --- A provider ---------------------------------------------------------------------------------

typedef struct {
    int calls, fail_at; // fail_at: the call that reports an error, from 1; 0: none
} gemm_context;

static inline double gemm_at(frnn_dtype dtype, const void *a, int64_t i) {
    return dtype == FRNN_F32 ? (double)((const float *)a)[i] : ((const double *)a)[i];
}

static inline frnn_status naive_gemm(void *context, frnn_dtype dtype, int64_t m, int64_t n, int64_t k,
                                     const void *a, int64_t lda, int ta, const void *b, int64_t ldb, int tb,
                                     void *c, int64_t ldc) {
    gemm_context *self = context;
    if (self && ++self->calls == self->fail_at) return FRNN_GEMM_FAILED;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += gemm_at(dtype, a, ta ? l * lda + i : i * lda + l)
                     * gemm_at(dtype, b, tb ? j * ldb + l : l * ldb + j);
            if (dtype == FRNN_F32)
                ((float *)c)[i * ldc + j] = (float)sum;
            else
                ((double *)c)[i * ldc + j] = sum;
        }
    return FRNN_OK;
}

// --- The call -----------------------------------------------------------------------------------

static inline frnn_layer layer_of(const problem *p, const options *o) {
    frnn_layer layer = p->layer;
    layer.dtype = o->dtype;
    return layer;
}

static inline memory pack_new(const problem *p, const options *o, array *arrays, frnn_pack_kind kind) {
    const frnn_layer layer = layer_of(p, o);
    const void *weights[FRNN_WEIGHTS];
    size_t bytes = 0;
    for (int i = 0; i < FRNN_WEIGHTS; i++) weights[i] = arrays[W_IH + i].data;
    EXPECT(FRNN_OK, frnn_pack_size(&layer, kind, &bytes));
    memory pack = memory_new(bytes, 0);
    EXPECT(FRNN_OK, frnn_pack(&layer, kind, weights, pack.data, 1));
    return pack;
}

// Fills the outputs that were asked for; the others become zero.
static inline void run_layer(problem *p, const options *o) {
    const frnn_layer layer = layer_of(p, o);
    const frnn_batch batch = {.batch = p->B, .time = p->T, .lengths = p->lengths, .reverse = p->reverse};
    array arrays[ALL];
    if (strcmp(frnn_isa(), o->isa)) EXPECT(FRNN_OK, frnn_set_isa(o->isa)); // which asks the CPU: slow on some
    for (int which = 0; which < ALL; which++) {
        arrays[which] = (array){0};
        if (!p->of[which] || !count_of(p, which)) continue;
        if (which >= OUTPUTS && ((o->without & BIT(which)) || (o->inference && which >= DX))) continue;
        int64_t n[3];
        shape_of(p, which, n);
        const int x_side = which == X || which == DX;
        const int strided = which == Y || which == DY || (x_side && !o->ids);
        const frnn_dtype dtype = which == FLOW ? FRNN_F64 : o->dtype;
        arrays[which] = array_new(dtype, n, strided ? o->layout : BATCH_FIRST);
        if (which < OUTPUTS) array_put(&arrays[which], p->of[which]);
    }
    const int64_t B = p->B, T = p->T;
    frnn_ids ids = {{NULL, o->layout == TIME_FIRST ? 1 : T, o->layout == TIME_FIRST ? B : 1}, B * T};
    if (o->ids) {
        int64_t *const at = ids.at.data = malloc((size_t)(B * T) * sizeof *at);
        for (int64_t b = 0; b < B; b++)
            for (int64_t t = 0; t < T; t++) at[b * ids.at.batch_stride + t * ids.at.time_stride] = b * T + t;
    }
    const frnn_view table = {arrays[X].data, p->I, 0}, dtable = {arrays[DX].data, p->I, 0};
    gemm_context context = {0};
    const frnn_provider provider = {naive_gemm, &context};
    const frnn_pack_kind copied = o->bfloat16 ? FRNN_PACK_BFLOAT16 : FRNN_PACK_FORWARD;
    memory forward_pack = pack_new(p, o, arrays, o->borrowed ? FRNN_PACK_BORROWED : copied);
    memory tape = {0};
    size_t bytes = 0;
    if (!o->inference) {
        EXPECT(FRNN_OK, frnn_tape_size(&layer, &batch, o->checkpoint_every, &bytes));
        tape = memory_new(bytes, 0);
    }
    const frnn_forward_args forward = {
        .pack = forward_pack.data,
        .batch = batch,
        .x = o->ids ? table : array_view(&arrays[X]),
        .h0 = arrays[H0].data,
        .c0 = arrays[C0].data,
        .y = array_view(&arrays[Y]),
        .h_n = arrays[H_N].data,
        .c_n = arrays[C_N].data,
        .tape = tape.data,
        .provider = o->provider ? &provider : NULL,
        .w_ih = o->provider ? arrays[W_IH].data : NULL,
        .threads = o->threads,
        .seed = p->seed,
        .checkpoint_every = o->inference ? 0 : o->checkpoint_every,
        .ids = ids,
    };
    EXPECT(FRNN_OK, frnn_forward_workspace(&forward, &bytes));
    memory workspace = memory_new(bytes, 0);
    EXPECT(FRNN_OK, frnn_forward(&forward, workspace.data));
    memory_end(&workspace, "the forward workspace");
    if (!o->checkpoint_every) memory_end(&forward_pack, "the forward pack");

    if (!o->inference) {
        memory pack = pack_new(p, o, arrays, o->borrowed ? FRNN_PACK_BORROWED : FRNN_PACK_BACKWARD);
        frnn_backward_args backward = {
            .pack = pack.data,
            .batch = batch,
            .x = o->ids ? table : array_view(&arrays[X]),
            .tape = tape.data,
            .dy = array_view(&arrays[DY]),
            .dh_n = arrays[DH_N].data,
            .dc_n = arrays[DC_N].data,
            .dx = o->ids ? dtable : array_view(&arrays[DX]),
            .dh0 = arrays[DH0].data,
            .dc0 = arrays[DC0].data,
            .flow = (double *)(void *)arrays[FLOW].data,
            .provider = o->provider ? &provider : NULL,
            .w_ih = o->provider ? arrays[W_IH].data : NULL,
            .threads = o->threads,
            .seed = p->seed,
            .checkpoint_every = o->checkpoint_every,
            .forward_pack = o->checkpoint_every ? forward_pack.data : NULL,
            .ids = ids,
        };
        for (int i = 0; i < FRNN_WEIGHTS; i++) backward.gradients[i] = arrays[DW_IH + i].data;
        EXPECT(FRNN_OK, frnn_backward_workspace(&backward, &bytes));
        workspace = memory_new(bytes, 0);
        EXPECT(FRNN_OK, frnn_backward(&backward, workspace.data));
        memory_end(&workspace, "the backward workspace");
        memory_end(&pack, "the backward pack");
        memory_end(&tape, "the tape");
    }
    if (o->checkpoint_every) memory_end(&forward_pack, "the forward pack");
    free(ids.at.data);
    for (int which = 0; which < ALL; which++) {
        const size_t count = (size_t)count_of(p, which);
        if (!arrays[which].data) {
            if (which >= OUTPUTS) memset(p->of[which], 0, count * sizeof(double));
        } else if (which >= OUTPUTS) {
            array_end(&arrays[which], p->of[which], names[which]);
        } else {
            double *after = malloc(count * sizeof(double));
            array_end(&arrays[which], after, names[which]);
            CHECK(memcmp(after, p->of[which], count * sizeof(double)) == 0, "%s was changed", names[which]);
            free(after);
        }
    }
}

// The same inputs, run with other options: fresh outputs.
static inline problem run_again(const problem *p, const options *o) {
    problem q = problem_part(p, 0, p->B, 0, p->T);
    run_layer(&q, o);
    return q;
}

static inline int same_bits(const problem *p, const problem *q, int which) {
    return memcmp(p->of[which], q->of[which], (size_t)count_of(p, which) * sizeof(double)) == 0;
}

// "lstm I=3 H=17 B=5 T=6 ragged reverse ..., avx2 float32 threads=2 ...", for messages.
static inline const char *describe(const problem *p, const options *o) {
    static _Thread_local char variant[200], text[500];
    const frnn_layer *l = &p->layer;
    snprintf(variant, sizeof variant, " P=%d functions=%d,%d clip=%g%s%s zoneout=%g,%g dropout=%g", (int)p->P,
             l->gate_activation, l->state_activation, l->clip, l->peephole ? " peephole" : "",
             l->layer_norm ? " normalised" : "", l->zoneout_h, l->zoneout_c, l->recurrent_dropout);
    snprintf(text, sizeof text,
             "%s I=%d H=%d B=%d T=%d%s%s%s, %s %s threads=%d layout=%d%s%s%s%s%s without=%x checkpoints=%d",
             frnn_cell_name(l->cell), (int)p->I, (int)p->H, (int)p->B, (int)p->T, p->lengths ? " ragged" : "",
             p->reverse ? " reverse" : "", is_plain(l) ? "" : variant, o->isa,
             o->dtype == FRNN_F32 ? "float32" : "float64", o->threads, o->layout,
             o->provider ? " provider" : "", o->borrowed ? " borrowed" : "", o->inference ? " inference" : "",
             o->bfloat16 ? " bfloat16" : "", o->ids ? " ids" : "", o->without, (int)o->checkpoint_every);
    return text;
}

#endif
