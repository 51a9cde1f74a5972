// The kernels for any CPU. They may have no fused multiply-add, so their bits are their own.
#define ISA_NAME "generic"
#define ISA_TABLE frnn_generic_kernels
#include "kernels.inc"
