// What a layer is, and what a status says.
#include "internal.h"

#include <float.h>

int64_t frnn_gates(frnn_cell cell) {
    if ((unsigned)cell >= FRNN_CELLS) return 0;
    return frnn_generic_kernels.cell[0][cell].info->gates;
}

const char *frnn_cell_name(frnn_cell cell) {
#define NAME(number, name) [number] = #name,
    static const char *const names[FRNN_CELLS] = {FRNN_EACH_CELL(NAME)};
    return (unsigned)cell < FRNN_CELLS ? names[cell] : NULL;
}

size_t frnn_itemsize(frnn_dtype dtype) {
    return dtype == FRNN_F32 ? sizeof(float) : dtype == FRNN_F64 ? sizeof(double) : 0;
}

static int is_part(double p) { return p >= 0 && p < 1; }

frnn_status frnn_layer_check(const frnn_layer *layer) {
    if (!layer || !frnn_gates(layer->cell) || !frnn_itemsize(layer->dtype)) return FRNN_BAD_ARGUMENT;
    if (layer->input_size < 1 || layer->hidden_size < 1 || layer->proj_size < 0) return FRNN_BAD_ARGUMENT;
    if (layer->input_size > INT32_MAX || layer->hidden_size > INT32_MAX) return FRNN_TOO_LARGE;
    const frnn_cell_info *info = frnn_generic_kernels.cell[0][layer->cell].info;
    if (layer->proj_size > layer->hidden_size) return FRNN_BAD_ARGUMENT;
    if ((unsigned)layer->gate_activation >= FRNN_FUNCTIONS
        || (unsigned)layer->state_activation >= FRNN_FUNCTIONS)
        return FRNN_BAD_ARGUMENT;
    if (!(layer->clip >= 0 && layer->clip <= FLT_MAX)) return FRNN_BAD_ARGUMENT;
    if (!is_part(layer->zoneout_h) || !is_part(layer->zoneout_c) || !is_part(layer->recurrent_dropout))
        return FRNN_BAD_ARGUMENT;
    if (!info->has_c && (layer->proj_size || layer->peephole || layer->zoneout_c > 0))
        return FRNN_BAD_ARGUMENT;
    if (layer->layer_norm && (layer->peephole || info->late < info->gates)) return FRNN_BAD_ARGUMENT;
    return FRNN_OK;
}

int frnn_is_variant(const frnn_layer *layer) {
    return layer->proj_size || layer->gate_activation != FRNN_OWN || layer->state_activation != FRNN_OWN
        || layer->clip > 0 || layer->peephole || layer->layer_norm || layer->zoneout_h > 0
        || layer->zoneout_c > 0 || layer->recurrent_dropout > 0;
}

int frnn_takes_provider(const frnn_layer *layer) {
    const frnn_cell_info *info = frnn_generic_kernels.cell[0][layer->cell].info;
    return !layer->proj_size && !layer->layer_norm && info->late == info->gates;
}

int frnn_weight_shape(const frnn_layer *layer, frnn_weight weight, int64_t shape[2]) {
    if (!layer || !frnn_gates(layer->cell)) return 0;
    const frnn_cell_info *info = frnn_generic_kernels.cell[0][layer->cell].info;
    const int64_t H = layer->hidden_size, rows = info->gates * H;
#define SHAPE(axes, first, second) return shape[0] = (first), shape[1] = (second), (axes)
    switch (weight) {
    case FRNN_W_IH: SHAPE(2, rows, layer->input_size);
    case FRNN_W_HH: SHAPE(2, rows, frnn_state_size(layer));
    case FRNN_B_IH:
    case FRNN_B_HH: SHAPE(1, rows, 1);
    case FRNN_W_HR: SHAPE(layer->proj_size ? 2 : 0, layer->proj_size, H);
    case FRNN_W_CH: SHAPE(layer->peephole ? 2 : 0, info->gates - 1, H);
    case FRNN_LN_IH:
    case FRNN_LN_HH: SHAPE(layer->layer_norm ? 1 : 0, rows, 1);
    case FRNN_LN_C: SHAPE(layer->layer_norm && info->has_c ? 2 : 0, 2, H);
    }
#undef SHAPE
    return 0;
}

const char *frnn_status_text(frnn_status status) {
    switch (status) {
    case FRNN_OK: return "ok";
    case FRNN_BAD_ARGUMENT: return "bad argument";
    case FRNN_TOO_LARGE: return "sizes too large";
    case FRNN_NO_ISA: return "no such instruction set here";
    case FRNN_GEMM_FAILED: return "the provider of products failed";
    }
    return "unknown status";
}
