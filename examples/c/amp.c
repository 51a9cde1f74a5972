// An amplifier in real time: the exported model of amp.py, sample by sample, as an audio host calls it, a frame of 64
// samples at a time at 48 kHz. Prints how long frames take, of the 1.33 ms that there are.
//
//     cc -std=c99 -O2 -march=native amp.c -o amp
//     ./amp [SECONDS [FILE]]      FILE gets the output, 32-bit floats
#define _POSIX_C_SOURCE 199309L // clock_gettime
#include "amp.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RATE = 48000, FRAME = 64 };

// What a host calls from its audio thread: no allocation, no lock, no system call.
static void process(amp_state *state, const float *in, float *out) {
    for (int i = 0; i < FRAME; i++) amp_step(state, in + i, out + i);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    const double length = argc > 1 ? atof(argv[1]) : 10;
    if (argc > 3 || !(length > 0 && length <= 3600)) {
        fprintf(stderr, "usage: amp [SECONDS, up to 3600 [FILE]]\n");
        return 2;
    }
    FILE *file = argc > 2 ? fopen(argv[2], "wb") : NULL;
    if (argc > 2 && !file) {
        perror(argv[2]);
        return 1;
    }
    const long frames = (long)(length * RATE / FRAME) + 1;
    float in[FRAME], out[FRAME];
    double total = 0, worst = 0;
    uint32_t phase = 0;
    amp_state state;
    amp_reset(&state);
    for (long frame = 0; frame < frames; frame++) {
        for (int i = 0; i < FRAME; i++, phase += 9842633u) // a sawtooth of 110 Hz
            in[i] = (float)(int32_t)phase / 4294967296.0f;
        const double start = seconds();
        process(&state, in, out);
        const double took = seconds() - start;
        total += took;
        if (took > worst) worst = took;
        if (file && fwrite(out, sizeof out, 1, file) != 1) {
            perror(argv[2]);
            return 1;
        }
    }
    if (file && fclose(file)) {
        perror(argv[2]);
        return 1;
    }
    const double budget = (double)FRAME / RATE;
    printf("%ld frames of %d samples: mean %.1f us, worst %.1f us, of %.0f us; %.2f %% of real time\n",
           frames, FRAME, 1e6 * total / (double)frames, 1e6 * worst, 1e6 * budget,
           100 * total / ((double)frames * budget));
    return 0;
}
