//! Layer 3 of the stack, algorithms: the CPU kernels, generic over the SIMD level and the executor.
