// What the files of csrc/ share, with the headers it includes; nothing here is for embedders.
#ifndef FASTRNN_INTERNAL_H
#define FASTRNN_INTERNAL_H

#include "kernels.h"
#include "pool.h"
#include "products.h"

// --- Work (share.c) ------------------------------------------------------------------------------

// Of a call with the schedule, which multiplies x_rows rows with W, and makes so many products, forward 1, backward 2,
// with each weight.
frnn_work frnn_work_of(const frnn_pack_header *pack, const frnn_schedule *schedule, int64_t x_rows,
                       int products);

// --- Checkpoints (checkpoints.c) ----------------------------------------------------------------

int frnn_checkpoints_allowed(const frnn_batch *batch, int64_t every); // every 0: none
// The calls with checkpoint_every, and what they want of memory.
frnn_status frnn_checkpoints_size(const frnn_layer *layer, const frnn_batch *batch, int64_t every,
                                  size_t *bytes);
frnn_status frnn_checkpoints_forward_workspace(const frnn_forward_args *args, size_t *bytes);
frnn_status frnn_checkpoints_forward(const frnn_forward_args *args, void *workspace);
frnn_status frnn_checkpoints_backward_workspace(const frnn_backward_args *args, size_t *bytes);
frnn_status frnn_checkpoints_backward(const frnn_backward_args *args, void *workspace);

// --- Floating-point mode ------------------------------------------------------------------------
// Denormals are flushed inside kernels; the caller's mode is restored.

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) {
    frnn_fp_mode mode = _mm_getcsr();
    _mm_setcsr(0x9FC0); // round to nearest, exceptions masked, flush to zero, denormals are zero
    return mode;
}
static inline void frnn_fp_leave(frnn_fp_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) {
    frnn_fp_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)1 << 24) : "memory"); // FZ, round to nearest
    return mode;
}
static inline void frnn_fp_leave(frnn_fp_mode mode) {
    __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory");
}
#else
typedef int frnn_fp_mode;
static inline frnn_fp_mode frnn_fp_enter(void) { return 0; }
static inline void frnn_fp_leave(frnn_fp_mode mode) { (void)mode; }
#endif

#endif
