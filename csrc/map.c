// Functions elementwise.
#include "internal.h"

frnn_status frnn_map(frnn_function function, frnn_dtype dtype, int64_t n, const void *x, void *y) {
    if (function == FRNN_OWN || (unsigned)function >= FRNN_FUNCTIONS || !frnn_itemsize(dtype) || n < 0
        || (n && (!x || !y)))
        return FRNN_BAD_ARGUMENT;
    const frnn_fp_mode mode = frnn_fp_enter();
    frnn_active_kernels()->map[function][dtype](n, x, y);
    frnn_fp_leave(mode);
    return FRNN_OK;
}
