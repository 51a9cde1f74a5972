// What a layer is, and what a status says.
#include "internal.h"

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

frnn_status frnn_layer_check(const frnn_layer *layer) {
    if (!layer || !frnn_gates(layer->cell) || !frnn_itemsize(layer->dtype)) return FRNN_BAD_ARGUMENT;
    if (layer->input_size < 1 || layer->hidden_size < 1) return FRNN_BAD_ARGUMENT;
    if (layer->input_size > INT32_MAX || layer->hidden_size > INT32_MAX) return FRNN_TOO_LARGE;
    return FRNN_OK;
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
