// The kernels for any CPU. They may have no fused multiply-add, so their bits are their own.
#define ISA_NAME "generic"
#define ONLY_VARIANTS // they serve plain cells too, a little slower and with less code
#define ISA_TABLE frnn_generic_kernels
#include "kernels.inc"
