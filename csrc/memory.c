// Pieces of the caller's memory, and what a tape holds.
#include "internal.h"

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

int frnn_has_c(const frnn_layer *layer) {
    return frnn_generic_kernels.cell[layer->dtype][layer->cell].info->has_c;
}

int frnn_has_second(const frnn_layer *layer) {
    const frnn_cell_info *info = frnn_generic_kernels.cell[layer->dtype][layer->cell].info;
    return layer->proj_size || info->late < info->gates;
}

int frnn_keeps_new_c(const frnn_layer *layer) {
    return frnn_has_c(layer) && (layer->peephole || layer->layer_norm);
}

void frnn_tape_carve(frnn_tape *tape, const frnn_layer *layer, const frnn_schedule *schedule,
                     frnn_arena *arena) {
    const frnn_cell_info *info = frnn_generic_kernels.cell[layer->dtype][layer->cell].info;
    const size_t item = frnn_itemsize(layer->dtype);
    const int64_t rows = schedule->rows, states = schedule->rows + schedule->batch;
    tape->gates_ld = frnn_padded(info->saved * layer->hidden_size);
    tape->state_ld = frnn_padded(layer->hidden_size);
    tape->raw_ld = frnn_padded(info->gates * layer->hidden_size);
    const size_t state = (size_t)tape->state_ld * item, raw = (size_t)tape->raw_ld * item;
    const int norm = layer->layer_norm;
    tape->gates = frnn_carve(arena, rows, (size_t)tape->gates_ld * item);
    tape->h = frnn_carve(arena, states, state);
    tape->c = info->has_c ? frnn_carve(arena, states, state) : NULL;
    tape->h_in = layer->recurrent_dropout > 0 ? frnn_carve(arena, states, state) : tape->h;
    tape->second = frnn_has_second(layer) ? frnn_carve(arena, rows, state) : NULL;
    tape->new_c = frnn_keeps_new_c(layer) ? frnn_carve(arena, rows, state) : NULL;
    tape->raw_x = norm ? frnn_carve(arena, rows, raw) : NULL;
    tape->raw_h = norm ? frnn_carve(arena, rows, raw) : NULL;
    tape->moments = norm ? frnn_carve(arena, rows, FRNN_MOMENTS * item) : NULL;
}

frnn_status frnn_tape_size(const frnn_layer *layer, const frnn_batch *batch, int64_t checkpoint_every,
                           size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    *bytes = 0;
    frnn_status status = frnn_layer_check(layer);
    if (status == FRNN_OK) status = frnn_batch_check(batch);
    if (status == FRNN_OK && !frnn_checkpoints_allowed(batch, checkpoint_every)) status = FRNN_BAD_ARGUMENT;
    if (status != FRNN_OK) return status;
    if (checkpoint_every) return frnn_checkpoints_size(layer, batch, checkpoint_every, bytes);
    const frnn_schedule schedule = {.batch = batch->batch, .rows = frnn_batch_rows(batch)};
    frnn_arena arena = {0};
    frnn_tape tape;
    frnn_tape_carve(&tape, layer, &schedule, &arena);
    *bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}
