// Arithmetic between quantisations, to the bit: every product and every sum is rounded on its own.
#pragma OPENCL FP_CONTRACT OFF

#ifdef PTX
// NVIDIA's assembler fuses products with sums where it is not told how to round them.
inline float times(float a, float b) {
  float product;
  __asm__("mul.rn.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}
#else
inline float times(float a, float b) { return a * b; }
#endif

// Adding it to a float of at most 2^22 leaves no bits for a fraction, so that the sum is rounded to a whole number as
// all sums are, ties to even.
#define WHOLE 12582912.0f

// `v` as a byte, NaN as that of 0.
inline uchar to_byte(float v, float low, float high, int zero) {
  v = v != v ? 0.0f : v;
  v = v < low ? low : v;
  v = v > high ? high : v;
  return (uchar)(as_int(v + WHOLE) - as_int(WHOLE) + zero);
}

// What a layer with weights makes. `q` is its least and greatest result, the output's zero point, the residual's
// multiplier and zero point, and the input's zero point.
#ifdef BYTES
typedef uchar made;
#else
typedef real made;
#endif
#define ZERO_POINT ((int)q[5])

// Stores the sum `acc` of channel `k` at `at`.
inline void finish(int acc, int k, __constant float *q, __global const float *multipliers, __global const float *biases,
                   __global const made *residual, __global made *y, int at) {
  float v = times((float)acc, multipliers[k]) + biases[k];
#ifdef BYTES
#ifdef RESIDUAL
  v += times((float)((int)residual[at] - (int)q[4]), q[3]);
#endif
  y[at] = to_byte(v, q[0], q[1], (int)q[2]);
#else
#ifdef RESIDUAL
  v += LOAD(residual, at);
#endif
  STORE(ACTIVATE(v), y, at);
#endif
}
