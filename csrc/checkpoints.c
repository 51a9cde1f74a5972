// Long sequences with less memory: the steps are run in segments, whose tapes take turns in one place. Forward keeps
// the states that enter each; backward goes from the last, whose tape is there, to the first, and runs the others
// again. A segment is whole blocks of rows, so all sums are made in the order of a call with all steps.
#include "internal.h"

#include <string.h>

int frnn_checkpoints_allowed(const frnn_batch *batch, int64_t every) {
    return every == 0 || (every > 0 && !batch->first_step && !batch->steps);
}

// What a tape holds then.
typedef struct {
    int64_t segments;
    int64_t *begin; // [segments + 1] the first step of each; the last is where the longest row ends
    char *h, *c;    // [segments][B][P] and [segments][B][H], the states that enter each; c may be NULL
    size_t h_bytes, c_bytes;
    char *tape;
} checkpoints;

// A walk over the segments, from the last to the first; where no row has any step there is one.
typedef struct {
    frnn_batch batch; // its steps
    int64_t every, end;
} segments;

static segments segments_of(const frnn_batch *batch, int64_t every) {
    segments s = {*batch, every, 0};
    for (int64_t i = 0; i < batch->batch; i++)
        s.end = frnn_max(s.end, batch->lengths ? batch->lengths[i] : batch->time);
    return s;
}

static int segment_before(segments *s) {
    if (s->end < 0) return 0;
    s->batch.first_step = frnn_blocks_begin(&s->batch, s->end, s->every);
    s->batch.steps = s->end - s->batch.first_step;
    s->end = s->batch.first_step > 0 ? s->batch.first_step : -1;
    return 1;
}

static frnn_status carve(checkpoints *to, const frnn_layer *layer, const frnn_batch *batch, int64_t every,
                         frnn_arena *arena) {
    size_t largest = 0;
    to->segments = 0;
    for (segments s = segments_of(batch, every); segment_before(&s); to->segments++) {
        size_t bytes;
        const frnn_status status = frnn_tape_size(layer, &s.batch, 0, &bytes);
        if (status != FRNN_OK) return status;
        if (bytes > largest) largest = bytes;
    }
    const int64_t B = batch->batch;
    const size_t item = frnn_itemsize(layer->dtype);
    to->h_bytes = (size_t)(B * frnn_state_size(layer)) * item;
    to->c_bytes = (size_t)(B * layer->hidden_size) * item;
    to->begin = frnn_carve(arena, to->segments + 1, sizeof(int64_t));
    to->h = frnn_carve(arena, to->segments, to->h_bytes);
    to->c = frnn_has_c(layer) ? frnn_carve(arena, to->segments, to->c_bytes) : NULL;
    to->tape = frnn_carve(arena, 1, largest);
    return arena->overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

frnn_status frnn_checkpoints_size(const frnn_layer *layer, const frnn_batch *batch, int64_t every,
                                  size_t *bytes) {
    checkpoints c;
    frnn_arena arena = {0};
    const frnn_status status = carve(&c, layer, batch, every, &arena);
    *bytes = arena.used;
    return status;
}

static frnn_status checkpoints_of(checkpoints *c, const void *pack, const frnn_batch *batch, int64_t every,
                                  void *tape) {
    frnn_arena arena = {.base = tape};
    return carve(c, &((const frnn_pack_header *)pack)->layer, batch, every, &arena);
}

static char *at(char *states, int64_t i, size_t bytes) { return states ? states + (size_t)i * bytes : NULL; }

static void set_segment(frnn_batch *batch, const checkpoints *c, int64_t i) {
    batch->first_step = c->begin[i];
    batch->steps = c->begin[i + 1] - c->begin[i];
}

// --- Forward ------------------------------------------------------------------------------------

// Enough for every segment.
frnn_status frnn_checkpoints_forward_workspace(const frnn_forward_args *args, size_t *bytes) {
    frnn_forward_args part = *args;
    part.checkpoint_every = 0;
    for (segments s = segments_of(&args->batch, args->checkpoint_every); segment_before(&s);) {
        size_t wanted;
        part.batch = s.batch;
        const frnn_status status = frnn_forward_workspace(&part, &wanted);
        if (status != FRNN_OK) return status;
        if (wanted > *bytes) *bytes = wanted;
    }
    return FRNN_OK;
}

static void copy_states(char *to, const void *from, size_t bytes) {
    if (to && from) memcpy(to, from, bytes);
    if (to && !from) memset(to, 0, bytes);
}

frnn_status frnn_checkpoints_forward(const frnn_forward_args *args, void *workspace) {
    checkpoints c;
    frnn_status status = checkpoints_of(&c, args->pack, &args->batch, args->checkpoint_every, args->tape);
    if (status != FRNN_OK) return status;
    segments s = segments_of(&args->batch, args->checkpoint_every);
    c.begin[c.segments] = s.end;
    for (int64_t i = c.segments - 1; segment_before(&s); i--) c.begin[i] = s.batch.first_step;
    frnn_forward_args part = *args;
    part.checkpoint_every = 0;
    part.tape = c.tape;
    copy_states(c.h, args->h0, c.h_bytes);
    copy_states(c.c, args->c0, c.c_bytes);
    for (int64_t i = 0; i < c.segments && status == FRNN_OK; i++) {
        const int last = i == c.segments - 1;
        set_segment(&part.batch, &c, i);
        part.h0 = at(c.h, i, c.h_bytes);
        part.c0 = at(c.c, i, c.c_bytes);
        part.h_n = last ? args->h_n : at(c.h, i + 1, c.h_bytes);
        part.c_n = last ? args->c_n : at(c.c, i + 1, c.c_bytes);
        status = frnn_forward(&part, workspace);
    }
    return status;
}

// --- Backward -----------------------------------------------------------------------------------

// The forward call of a segment again, but for what the caller got of it.
static frnn_forward_args again(const frnn_backward_args *args, void *tape) {
    return (frnn_forward_args){
        .pack = args->forward_pack,
        .batch = args->batch,
        .x = args->x,
        .tape = tape,
        .provider = args->provider,
        .w_ih = args->w_ih,
        .threads = args->threads,
        .seed = args->seed,
    };
}

typedef struct {
    char *dh, *dc; // (B, P), (B, H): between two segments
    char *workspace;
} carried;

static frnn_status carve_carried(carried *to, const frnn_backward_args *args, frnn_arena *arena) {
    const frnn_layer *layer = &((const frnn_pack_header *)args->pack)->layer;
    const size_t item = frnn_itemsize(layer->dtype);
    to->dh = frnn_carve(arena, args->batch.batch * frnn_state_size(layer), item);
    to->dc = frnn_has_c(layer) ? frnn_carve(arena, args->batch.batch * layer->hidden_size, item) : NULL;
    to->workspace = frnn_carve(arena, 0, 1); // what is left
    return arena->overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

frnn_status frnn_checkpoints_backward_workspace(const frnn_backward_args *args, size_t *bytes) {
    carried carried;
    frnn_arena arena = {0};
    frnn_status status = carve_carried(&carried, args, &arena);
    frnn_backward_args part = *args;
    frnn_forward_args forward = again(args, args->tape);
    part.checkpoint_every = 0;
    size_t largest = 0;
    for (segments s = segments_of(&args->batch, args->checkpoint_every);
         status == FRNN_OK && segment_before(&s);) {
        size_t wanted[2];
        part.batch = forward.batch = s.batch;
        status = frnn_backward_workspace(&part, &wanted[0]);
        if (status == FRNN_OK) status = frnn_forward_workspace(&forward, &wanted[1]);
        for (int i = 0; i < 2 && status == FRNN_OK; i++)
            if (wanted[i] > largest) largest = wanted[i];
    }
    frnn_carve(&arena, 1, largest);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : status;
}

frnn_status frnn_checkpoints_backward(const frnn_backward_args *args, void *workspace) {
    checkpoints c;
    carried carried;
    frnn_arena arena = {.base = workspace};
    frnn_status status = checkpoints_of(&c, args->pack, &args->batch, args->checkpoint_every, args->tape);
    if (status == FRNN_OK) status = carve_carried(&carried, args, &arena);
    if (status != FRNN_OK) return status;
    frnn_backward_args part = *args;
    frnn_forward_args forward = again(args, c.tape);
    part.checkpoint_every = 0;
    part.tape = c.tape;
    for (int64_t i = c.segments - 1; i >= 0 && status == FRNN_OK; i--) {
        const int last = i == c.segments - 1;
        set_segment(&part.batch, &c, i);
        part.accumulate = args->accumulate || !last;
        part.dh_n = last ? args->dh_n : carried.dh;
        part.dc_n = last ? args->dc_n : carried.dc;
        part.dh0 = i ? carried.dh : args->dh0;
        part.dc0 = i ? carried.dc : args->dc0;
        if (!last) {
            forward.batch = part.batch;
            forward.h0 = at(c.h, i, c.h_bytes);
            forward.c0 = at(c.c, i, c.c_bytes);
            status = frnn_forward(&forward, carried.workspace);
        }
        if (status == FRNN_OK) status = frnn_backward(&part, carried.workspace);
    }
    return status;
}
