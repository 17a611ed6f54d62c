// What every program begins with: how activations are stored, and what follows an operation.

#pragma OPENCL FP_CONTRACT ON

// Activations are stored as `real` and computed with as float.
#ifdef REAL_HALF
typedef half real;
typedef ushort bits; // an activation that is only moved
#define LOAD(p, i) vload_half((size_t)(i), (p))
#define LOAD4(p, i) vload_half4(0, (p) + (i))
#define LOAD8(p, i) vload_half8(0, (p) + (i))
#define LOAD16(p, i) vload_half16(0, (p) + (i))
#define STORE(v, p, i) vstore_half_rte((v), (size_t)(i), (p))
#define STORE4(v, p, i) vstore_half4_rte((v), 0, (p) + (i))
#define STORE8(v, p, i) vstore_half8_rte((v), 0, (p) + (i))
#define STORE16(v, p, i) vstore_half16_rte((v), 0, (p) + (i))
#else
typedef float real;
typedef uint bits;
#define LOAD(p, i) ((p)[i])
#define LOAD4(p, i) vload4(0, (p) + (i))
#define LOAD8(p, i) vload8(0, (p) + (i))
#define LOAD16(p, i) vload16(0, (p) + (i))
#define STORE(v, p, i) ((p)[i] = (v))
#define STORE4(v, p, i) vstore4((v), 0, (p) + (i))
#define STORE8(v, p, i) vstore8((v), 0, (p) + (i))
#define STORE16(v, p, i) vstore16((v), 0, (p) + (i))
#endif

// The activation that follows: 0 none, 1 ReLU, 2 ReLU6, 3 sigmoid. NaN stays NaN, as comparisons with it are false
// (of vectors too, whose comparisons select element by element).
#ifndef ACTIVATION
#define ACTIVATION 0
#endif
#if ACTIVATION == 1
#define ACTIVATE(x) ((x) < 0.0f ? 0.0f : (x))
#elif ACTIVATION == 2
#define ACTIVATE(x) ((x) < 0.0f ? 0.0f : ((x) > 6.0f ? 6.0f : (x)))
#elif ACTIVATION == 3
#define ACTIVATE(x) (1.0f / (1.0f + exp(-(x))))
#else
#define ACTIVATE(x) (x)
#endif
