// The kernels for 64-bit Arm, which always has NEON.
#include "../internal.h"

#if defined(__aarch64__)
#define ISA_NEON
#define ISA_NAME "neon"
#define ISA_TABLE frnn_neon_kernels
#include "kernels.inc"
#endif
