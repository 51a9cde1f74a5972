// Weights into panels: the order in which one instruction set's kernels read them.
#include "internal.h"

#include <string.h>

#define PACK_MAGIC 0x6b6361706e6e7266u // "frnnpack"
// Moving a value through the caches takes as long as some multiply-adds.
#define VALUE_WORK 2

// Weights that are copied as they are given, and where their offset stands in the header.
static const struct {
    frnn_weight weight;
    size_t offset;
} copied[] = {
    {FRNN_W_CH, offsetof(frnn_pack_header, w_ch)},
    {FRNN_LN_IH, offsetof(frnn_pack_header, ln_ih)},
    {FRNN_LN_HH, offsetof(frnn_pack_header, ln_hh)},
    {FRNN_LN_C, offsetof(frnn_pack_header, ln_c)},
};
#define COUNT(array) (sizeof(array) / sizeof *(array))
static size_t *offset_of(frnn_pack_header *header, size_t i) {
    return (size_t *)((char *)header + copied[i].offset);
}

static int64_t whole_vectors(int64_t n) { return (n + 15) / 16 * 16; }

// Sizes fit any kernels' lanes: another instruction set may be chosen between size and pack.
static frnn_status layout(const frnn_layer *layer, frnn_pack_kind kind, frnn_pack_header *header) {
    const frnn_status status = frnn_layer_check(layer);
    if (status != FRNN_OK) return status;
    if ((unsigned)kind > FRNN_PACK_BFLOAT16) return FRNN_BAD_ARGUMENT;
    const int copies = kind != FRNN_PACK_BORROWED, biases = kind != FRNN_PACK_BACKWARD;
    const frnn_kernels *kernels = frnn_active_kernels();
    const int64_t G = frnn_gates(layer->cell), I = layer->input_size, H = layer->hidden_size;
    const int64_t P = frnn_state_size(layer);
    const size_t item = frnn_itemsize(layer->dtype);
    const int halves = kind == FRNN_PACK_BFLOAT16, forward = kind == FRNN_PACK_FORWARD || halves;
    const frnn_products products = halves ? kernels->bfloat16 : FRNN_WHOLE;
    if (layer->proj_size && !copies) return FRNN_BAD_ARGUMENT;
    if (halves && layer->dtype != FRNN_F32) return FRNN_BAD_ARGUMENT;

    *header = (frnn_pack_header){
        .magic = PACK_MAGIC, .layer = *layer, .kind = kind, .products = products, .kernels = kernels};
    header->tail_lanes =
        frnn_tail_lanes(kernels->cell[layer->dtype][layer->cell].info, H, kernels->lanes[layer->dtype]);
    frnn_arena arena = {0};
    frnn_carve(&arena, 1, sizeof *header);
    header->w = arena.used;
    frnn_carve(&arena, copies ? G * (forward ? frnn_panel_rows(products, I) : H) : 0,
               (size_t)whole_vectors(forward ? H : I) * item);
    header->r = arena.used;
    frnn_carve(&arena, copies ? G * (forward ? frnn_panel_rows(products, P) : H) : 0,
               (size_t)whole_vectors(forward ? H : P) * item);
    header->b_x = arena.used;
    header->fetch_w = header->r - header->w > FRNN_L2_BYTES;
    header->fetch_r = header->b_x - header->r > FRNN_L2_BYTES;
    frnn_carve(&arena, biases ? G * H : 0, item);
    header->b_h = arena.used;
    frnn_carve(&arena, biases ? G * H : 0, item);
    header->hr = arena.used;
    frnn_carve(&arena, layer->proj_size ? (forward ? frnn_panel_rows(products, H) : P) : 0,
               (size_t)whole_vectors(forward ? P : H) * item);
    for (size_t i = 0; i < COUNT(copied); i++) {
        int64_t shape[2];
        *offset_of(header, i) = arena.used;
        if (frnn_weight_shape(layer, copied[i].weight, shape)) frnn_carve(&arena, shape[0] * shape[1], item);
    }
    header->bytes = arena.used;
    return arena.overflow ? FRNN_TOO_LARGE : FRNN_OK;
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

typedef struct {
    const frnn_pack_header *header;
    const void *const *weights;
    char *pack;
} packing;

// A gate that adds up both sides needs one sum of its biases; one that keeps them apart, both.
static void pack_biases(const packing *p) {
    const frnn_layer *layer = &p->header->layer;
    const frnn_cell_info *info = p->header->kernels->cell[layer->dtype][layer->cell].info;
    const size_t bytes = (size_t)layer->hidden_size * frnn_itemsize(layer->dtype);
    char *b_x = p->pack + p->header->b_x, *b_h = p->pack + p->header->b_h;
    memset(b_h, 0, bytes * (size_t)info->gates);
    if (p->weights[FRNN_B_IH])
        memcpy(b_x, p->weights[FRNN_B_IH], bytes * (size_t)info->gates);
    else
        memset(b_x, 0, bytes * (size_t)info->gates);
    const char *from = p->weights[FRNN_B_HH];
    for (int gate = 0; from && gate < info->gates; gate++, from += bytes, b_x += bytes, b_h += bytes)
        if (info->hidden_block[gate] < info->gates)
            p->header->kernels->add_row[layer->dtype](1, layer->hidden_size, from, b_x);
        else
            memcpy(b_h, from, bytes);
}

// The nearest bfloat16, ties to even; a NaN stays one.
static uint32_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return bits >> 16 | 0x40u;
    return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

// As the kernels' pack_columns, or of bfloat16 where the pack has them.
static void pack_columns(const frnn_pack_header *header, int64_t gates, int64_t units, int tail_lanes,
                         int64_t k, const void *w, char *panels, int64_t begin, int64_t end) {
    enum { SOME = 16, MOST = SOME * 4 * 16 };
    const frnn_kernels *kernels = header->kernels;
    const frnn_dtype dtype = header->layer.dtype;
    const int lanes = kernels->lanes[dtype];
    const int64_t whole = gates * lanes;
    if (header->products == FRNN_WHOLE) {
        kernels->pack_columns[dtype](gates, units, tail_lanes, k, w, k,
                                     panels + begin * k * whole * (int64_t)frnn_itemsize(dtype), begin, end);
        return;
    }
    _Alignas(FRNN_ALIGN) float some[MOST];
    uint32_t *to = (uint32_t *)panels + begin * frnn_panel_rows(header->products, k) * whole;
    for (int64_t block = begin; block < end; block++) {
        const int64_t width =
            (block + 1) * lanes > units ? frnn_block_width(gates, tail_lanes, lanes) : whole;
        for (int64_t first = 0; first < k; first += SOME) {
            const int64_t count = frnn_min(SOME, k - first);
            kernels->pack_columns[dtype](gates, units, tail_lanes, count, (const float *)w + first, k, some,
                                         block, block + 1);
            if (count % 2) memset(some + count * width, 0, (size_t)width * sizeof *some);
            for (int64_t row = 0; row < count; row += 2)
                for (const float *even = some + row * width; even < some + (row + 1) * width; even++)
                    *to++ = to_bfloat16(even[0]) | to_bfloat16(even[width]) << 16;
        }
    }
}

static void pack_job(void *context, int thread, int threads, frnn_barrier *barrier) {
    (void)barrier;
    const packing *p = context;
    const frnn_kernels *kernels = p->header->kernels;
    const frnn_layer *layer = &p->header->layer;
    const frnn_dtype dtype = layer->dtype;
    const int64_t I = layer->input_size, H = layer->hidden_size, G = frnn_gates(layer->cell);
    const int lanes = kernels->lanes[dtype];
    const int tail = p->header->tail_lanes;
    const int64_t P = frnn_state_size(layer);
    const void *const w_ih = p->weights[FRNN_W_IH], *const w_hh = p->weights[FRNN_W_HH];
    const void *const w_hr = p->weights[FRNN_W_HR];
    char *const w = p->pack + p->header->w, *const r = p->pack + p->header->r;
    char *const hr = layer->proj_size && thread == 0 ? p->pack + p->header->hr : NULL;
    const int forward = p->header->kind != FRNN_PACK_BACKWARD;
    const int64_t all = forward ? frnn_ceil_div(H, lanes) : G * H;
    const int64_t begin = all * thread / threads, end = all * (thread + 1) / threads;
    if (forward) {
        pack_columns(p->header, G, H, tail, I, w_ih, w, begin, end);
        pack_columns(p->header, G, H, tail, P, w_hh, r, begin, end);
        if (hr) pack_columns(p->header, 1, P, lanes, H, w_hr, hr, 0, frnn_ceil_div(P, lanes));
    } else {
        frnn_pack_rows(kernels, dtype, I, all, w_ih, I, w, begin, end);
        frnn_pack_rows(kernels, dtype, P, all, w_hh, P, r, begin, end);
        if (hr) frnn_pack_rows(kernels, dtype, H, P, w_hr, H, hr, 0, P);
    }
}

static int has_all_weights(const frnn_layer *layer, const void *const *weights) {
    int64_t shape[2];
    for (int i = 0; i < FRNN_WEIGHTS; i++)
        if (!weights[i] && i != FRNN_B_IH && i != FRNN_B_HH
            && frnn_weight_shape(layer, (frnn_weight)i, shape))
            return 0;
    return 1;
}

frnn_status frnn_pack(const frnn_layer *layer, frnn_pack_kind kind, const void *const weights[FRNN_WEIGHTS],
                      void *pack, int threads) {
    frnn_pack_header header;
    const frnn_status status = layout(layer, kind, &header);
    if (status != FRNN_OK) return status;
    if (!weights || !pack || !frnn_aligned(pack) || threads < 1) return FRNN_BAD_ARGUMENT;
    if (!has_all_weights(layer, weights)) return FRNN_BAD_ARGUMENT;
    if (kind == FRNN_PACK_BORROWED) header.w_ih = weights[FRNN_W_IH], header.w_hh = weights[FRNN_W_HH];
    memcpy(pack, &header, sizeof header);
    for (size_t i = 0; i < COUNT(copied); i++) {
        int64_t shape[2];
        if (frnn_weight_shape(layer, copied[i].weight, shape))
            memcpy((char *)pack + *offset_of(&header, i), weights[copied[i].weight],
                   (size_t)(shape[0] * shape[1]) * frnn_itemsize(layer->dtype));
    }
    packing job = {&header, weights, pack};
    if (kind != FRNN_PACK_BACKWARD) pack_biases(&job);
    if (kind == FRNN_PACK_BORROWED) return FRNN_OK;
    const double values = (double)header.bytes / (double)frnn_itemsize(layer->dtype);
    frnn_pool_run(pack_job, &job, frnn_threads_for(VALUE_WORK * values, threads));
    return FRNN_OK;
}

const frnn_pack_header *frnn_pack_check(const void *pack, frnn_pack_kind kind) {
    const frnn_pack_header *header = pack;
    if (!header || !frnn_aligned(header) || header->magic != PACK_MAGIC) return NULL;
    const int serves_both = header->kind == FRNN_PACK_BORROWED;
    const int serves_forward = header->kind == FRNN_PACK_FORWARD || header->kind == FRNN_PACK_BFLOAT16;
    return serves_both || (kind == FRNN_PACK_FORWARD ? serves_forward : header->kind == kind) ? header : NULL;
}

frnn_matrix frnn_pack_matrix(const frnn_pack_header *pack, int hidden, void *scratch) {
    const frnn_layer *layer = &pack->layer;
    return (frnn_matrix){
        .n = hidden ? frnn_state_size(layer) : layer->input_size,
        .k = frnn_gates(layer->cell) * layer->hidden_size,
        .panels = pack->w_ih ? NULL : (const char *)pack + (hidden ? pack->r : pack->w),
        .rows = hidden ? pack->w_hh : pack->w_ih,
        .scratch = scratch,
    };
}

size_t frnn_pack_scratch(const frnn_pack_header *pack, frnn_pack_kind kind) {
    if (!pack->w_ih) return 0;
    const frnn_layer *layer = &pack->layer;
    const int64_t lanes = pack->kernels->lanes[layer->dtype], I = layer->input_size, H = layer->hidden_size;
    const size_t vector = (size_t)lanes * frnn_itemsize(layer->dtype);
    if (kind == FRNN_PACK_FORWARD) return (size_t)frnn_max(I, H) * FRNN_TILE_VECTORS * vector;
    if (I % lanes == 0 && H % lanes == 0) return 0;
    return (size_t)(frnn_gates(layer->cell) * H) * FRNN_TILE_BLOCKS * vector;
}
