// Weights into panels: the order in which one instruction set's kernels read them.
#include "internal.h"

#include <string.h>

#define PACK_MAGIC 0x6b6361706e6e7266u // "frnnpack"

// Sizes fit any kernels' lanes: another instruction set may be chosen between size and pack.
static frnn_status layout(const frnn_layer *layer, frnn_pack_kind kind, frnn_pack_header *header) {
    const frnn_status status = frnn_layer_check(layer);
    if (status != FRNN_OK) return status;
    if (kind != FRNN_PACK_FORWARD && kind != FRNN_PACK_BACKWARD) return FRNN_BAD_ARGUMENT;
    const frnn_kernels *kernels = frnn_active_kernels();
    const int64_t G = frnn_gates(layer->cell), I = layer->input_size, H = layer->hidden_size;
    const size_t item = frnn_itemsize(layer->dtype);
    const int64_t h_padded = (H + 15) / 16 * 16, i_padded = (I + 15) / 16 * 16;
    const int64_t k = kind == FRNN_PACK_FORWARD ? I : H, n = kind == FRNN_PACK_FORWARD ? h_padded : i_padded;

    *header = (frnn_pack_header){.magic = PACK_MAGIC, .layer = *layer, .kind = kind, .kernels = kernels};
    frnn_arena arena = {0};
    frnn_carve(&arena, 1, sizeof *header);
    header->w = arena.used;
    frnn_carve(&arena, G * k, (size_t)n * item);
    header->r = arena.used;
    frnn_carve(&arena, G * H, (size_t)h_padded * item);
    header->b_x = arena.used;
    frnn_carve(&arena, kind == FRNN_PACK_FORWARD ? G * H : 0, item);
    header->b_h = arena.used;
    frnn_carve(&arena, kind == FRNN_PACK_FORWARD ? G * H : 0, item);
    header->bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
}

// The same code for both dtypes.
#define DEFINE_PACK(real, suffix) \
    static void pack_columns_##suffix(int64_t G, int64_t H, int64_t K, int64_t lanes, const real *w, \
                                      int64_t ldw, real *panels, int64_t begin, int64_t end) { \
        for (int64_t block = begin; block < end; block++) { \
            const int64_t count = frnn_min(lanes, H - block * lanes); \
            real *to = panels + block * K * G * lanes; \
            for (int64_t k = 0; k < K; k++) { \
                for (int64_t g = 0; g < G; g++, to += lanes) { \
                    const real *from = w + (g * H + block * lanes) * ldw + k; \
                    for (int64_t lane = 0; lane < count; lane++) to[lane] = from[lane * ldw]; \
                    for (int64_t lane = count; lane < lanes; lane++) to[lane] = 0; \
                } \
            } \
        } \
    } \
    /* A gate that adds up both sides needs one sum of its biases; one that keeps them apart, both. */ \
    static void pack_bias_##suffix(const frnn_cell_info *info, int64_t H, const real *b_ih, \
                                   const real *b_hh, real *b_x, real *b_h) { \
        for (int64_t i = 0; i < info->gates * H; i++) { \
            const int joined = info->hidden_block[i / H] < info->gates; \
            const real x = b_ih ? b_ih[i] : 0, h = b_hh ? b_hh[i] : 0; \
            b_x[i] = joined ? x + h : x; \
            b_h[i] = joined ? 0 : h; \
        } \
    }
DEFINE_PACK(float, f32)
DEFINE_PACK(double, f64)

void frnn_pack_columns(frnn_dtype dtype, int64_t gates, int64_t units, int64_t k, int64_t lanes,
                       const void *w, int64_t ldw, void *panels, int64_t begin, int64_t end) {
    if (dtype == FRNN_F32)
        pack_columns_f32(gates, units, k, lanes, w, ldw, panels, begin, end);
    else
        pack_columns_f64(gates, units, k, lanes, w, ldw, panels, begin, end);
}

void frnn_pack_rows(const frnn_kernels *kernels, frnn_dtype dtype, int64_t n, int64_t k, const void *w,
                    int64_t ldw, void *panels, int64_t begin, int64_t end) {
    const int64_t item = (int64_t)frnn_itemsize(dtype), lanes = kernels->lanes[dtype];
    const void *rows[64];
    for (int64_t row = begin; row < end; row += 64) {
        const int64_t count = frnn_min(64, end - row);
        for (int64_t i = 0; i < count; i++) rows[i] = (const char *)w + (row + i) * ldw * item;
        kernels->pack_rows[dtype](count, n, rows, (char *)panels + row * lanes * item, k);
    }
}

frnn_status frnn_pack_size(const frnn_layer *layer, frnn_pack_kind kind, size_t *bytes) {
    if (!bytes) return FRNN_BAD_ARGUMENT;
    frnn_pack_header header;
    const frnn_status status = layout(layer, kind, &header);
    *bytes = status == FRNN_OK ? header.bytes : 0;
    return status;
}

frnn_status frnn_pack(const frnn_layer *layer, frnn_pack_kind kind, const void *w_ih, const void *w_hh,
                      const void *b_ih, const void *b_hh, void *pack) {
    frnn_pack_header header;
    const frnn_status status = layout(layer, kind, &header);
    if (status != FRNN_OK) return status;
    if (!w_ih || !w_hh || !pack || !frnn_aligned(pack)) return FRNN_BAD_ARGUMENT;
    memcpy(pack, &header, sizeof header);
    const frnn_cell_info *info = header.kernels->cell[layer->dtype][layer->cell].info;
    const int64_t G = info->gates, I = layer->input_size, H = layer->hidden_size;
    const int64_t lanes = header.kernels->lanes[layer->dtype];
    char *base = pack;
    void *w = base + header.w, *r = base + header.r, *b_x = base + header.b_x, *b_h = base + header.b_h;
    const frnn_dtype dtype = layer->dtype;
    const frnn_fp_mode mode = frnn_fp_enter();
    if (kind == FRNN_PACK_FORWARD) {
        const int64_t blocks = frnn_ceil_div(H, lanes);
        frnn_pack_columns(dtype, G, H, I, lanes, w_ih, I, w, 0, blocks);
        frnn_pack_columns(dtype, G, H, H, lanes, w_hh, H, r, 0, blocks);
        if (dtype == FRNN_F32)
            pack_bias_f32(info, H, b_ih, b_hh, b_x, b_h);
        else
            pack_bias_f64(info, H, b_ih, b_hh, b_x, b_h);
    } else {
        frnn_pack_rows(header.kernels, dtype, I, G * H, w_ih, I, w, 0, G * H);
        frnn_pack_rows(header.kernels, dtype, H, G * H, w_hh, H, r, 0, G * H);
    }
    frnn_fp_leave(mode);
    return FRNN_OK;
}

const frnn_pack_header *frnn_pack_check(const void *pack, frnn_pack_kind kind) {
    const frnn_pack_header *header = pack;
    return header && frnn_aligned(header) && header->magic == PACK_MAGIC && header->kind == kind ? header
                                                                                                 : NULL;
}
