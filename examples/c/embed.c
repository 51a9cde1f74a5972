// fastrnn's kernels in a C program without Python: an LSTM over a batch of sequences, and again step by step.
//
//     inc=$(python -c "import fastrnn; print(fastrnn.get_include())")
//     cc -O2 -ffp-contract=off -pthread -I"$inc" embed.c "$inc"/*.c "$inc"/kernels/*.c -lm -o embed
//
// It prints the last output of every sequence, which are the same numbers both times. The weights are made up; those
// of a trained model are arrays of the same shapes, such as lstm.state_dict()["weight_ih_l0"].
#include "fastrnn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 3, HIDDEN = 20, BATCH = 4, TIME = 50 };

static float w_ih[4 * HIDDEN * INPUTS], w_hh[4 * HIDDEN * HIDDEN], b_ih[4 * HIDDEN], b_hh[4 * HIDDEN];
static float x[BATCH][TIME][INPUTS], y[BATCH][TIME][HIDDEN], y_step[BATCH][HIDDEN];
static float h[BATCH][HIDDEN], c[BATCH][HIDDEN];

static void must(frnn_status status, const char *what) {
    if (status == FRNN_OK) return;
    fprintf(stderr, "embed: %s: %s\n", what, frnn_status_text(status));
    exit(1);
}

// Memory aligned as packs and workspaces want it.
static void *room(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (memory) return memory;
    fprintf(stderr, "embed: no %zu bytes\n", bytes);
    exit(1);
}

// Multiples of 1/256 from -1/4 to just below 1/4.
static void make_up(size_t n, float *values) {
    static uint32_t seed = 1;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)((int)(seed >> 25) - 64) / 256;
    }
}

int main(void) {
    make_up(sizeof w_ih / sizeof *w_ih, w_ih);
    make_up(sizeof w_hh / sizeof *w_hh, w_hh);
    make_up(sizeof b_ih / sizeof *b_ih, b_ih);
    make_up(sizeof b_hh / sizeof *b_hh, b_hh);
    make_up(sizeof x / sizeof(float), &x[0][0][0]);

    // The weights once, in the order in which this CPU's kernels read them.
    const frnn_layer layer = {
        .cell = FRNN_LSTM, .dtype = FRNN_F32, .input_size = INPUTS, .hidden_size = HIDDEN};
    const void *const weights[FRNN_WEIGHTS] = {
        [FRNN_W_IH] = w_ih, [FRNN_W_HH] = w_hh, [FRNN_B_IH] = b_ih, [FRNN_B_HH] = b_hh};
    size_t bytes;
    must(frnn_pack_size(&layer, FRNN_PACK_FORWARD, &bytes), "frnn_pack_size");
    void *const pack = room(bytes);
    must(frnn_pack(&layer, FRNN_PACK_FORWARD, weights, pack, frnn_num_threads()), "frnn_pack");

    // All sequences at once, from states of zeros.
    frnn_forward_args args = {
        .pack = pack,
        .batch = {.batch = BATCH, .time = TIME},
        .x = {x, TIME * INPUTS, INPUTS},
        .y = {y, TIME * HIDDEN, HIDDEN},
        .threads = frnn_num_threads(),
    };
    must(frnn_forward_workspace(&args, &bytes), "frnn_forward_workspace");
    void *workspace = room(bytes);
    must(frnn_forward(&args, workspace), "frnn_forward");
    free(workspace);

    // Again as they come, a time step a call; states are updated in place and nothing is allocated.
    args.batch.time = 1;
    args.y = (frnn_view){y_step, HIDDEN, HIDDEN};
    args.h0 = args.h_n = h;
    args.c0 = args.c_n = c;
    must(frnn_forward_workspace(&args, &bytes), "frnn_forward_workspace");
    workspace = room(bytes);
    for (int t = 0; t < TIME; t++) {
        args.x.data = x[0][t];
        must(frnn_forward(&args, workspace), "frnn_forward");
    }
    free(workspace);
    free(pack);

    for (int row = 0; row < BATCH; row++) {
        if (memcmp(y[row][TIME - 1], y_step[row], sizeof y_step[row])) {
            fprintf(stderr, "embed: the steps differ from the sequence\n");
            return 1;
        }
        printf("sequence %d:", row);
        for (int i = 0; i < 4; i++) printf(" %.9g", (double)y_step[row][i]);
        printf(" ...\n");
    }
    return 0;
}
