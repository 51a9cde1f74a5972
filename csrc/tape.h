// What a layer is, and what BPTT keeps of its steps.
#ifndef FASTRNN_TAPE_H
#define FASTRNN_TAPE_H

#include "schedule.h"

frnn_status frnn_layer_check(const frnn_layer *layer);
int frnn_is_variant(const frnn_layer *layer);                    // whether it is more than its plain cell
int frnn_takes_provider(const frnn_layer *layer);                // whether a provider's products serve it
static inline int64_t frnn_state_size(const frnn_layer *layer) { // P
    return layer->proj_size ? layer->proj_size : layer->hidden_size;
}

// What BPTT keeps, rows padded: activated gates, and the states that enter each step; what is NULL is for variants
// that need it.
typedef struct {
    void *gates;         // [rows][gates_ld]
    void *h, *c;         // [B + rows][state_ld]; c for cells that have one
    void *h_in;          // as h, what enters the product with R where that is not h; else h
    void *second;        // [rows][state_ld]: what enters the second product, with W_hr or R of late gates
    void *new_c;         // [rows][state_ld]: c' before zoneout, where it is wanted for more than h'
    void *raw_x, *raw_h; // [rows][raw_ld]: W x and R h before their normalisation
    void *moments;       // [rows][FRNN_MOMENTS]
    int64_t gates_ld, state_ld, raw_ld;
} frnn_tape;

int frnn_has_c(const frnn_layer *layer);
int frnn_has_second(const frnn_layer *layer);
int frnn_keeps_new_c(const frnn_layer *layer);

// Of a row's W x, R h and c': mean and 1 / sqrt(variance + 1e-5).
enum { MEAN_X, RATE_X, MEAN_H, RATE_H, MEAN_C, RATE_C, FRNN_MOMENTS };

void frnn_tape_carve(frnn_tape *tape, const frnn_layer *layer, const frnn_schedule *schedule,
                     frnn_arena *arena);

#endif
