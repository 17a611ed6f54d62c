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

// What a layer with weights makes. `q` is: its least and greatest result, where bytes or activations end, the output's
// zero point, the residual's multiplier and zero point, the input's zero point, and whether there are a residual and
// a sigmoid.
#ifdef BYTES
typedef uchar made;
#else
typedef real made;
#endif
#define ZERO_POINT ((int)q[5])
#define HAS_RESIDUAL (q[6] != 0.0f)
#define HAS_SIGMOID (q[7] != 0.0f)

// Stores the sum `acc` of a channel, whose constants lie at `slot`, at `at`.
inline void finish(int acc, int slot, __constant float *q, __global const float *multipliers,
                   __global const float *biases, __global const made *residual, __global made *y, int at) {
  float v = times((float)acc, multipliers[slot]) + biases[slot];
#ifdef BYTES
  if (HAS_RESIDUAL) v += times((float)((int)residual[at] - (int)q[4]), q[3]);
  y[at] = to_byte(v, q[0], q[1], (int)q[2]);
#else
  if (HAS_RESIDUAL) v += LOAD(residual, at);
  v = v < q[0] ? q[0] : v;
  v = v > q[1] ? q[1] : v;
  STORE(HAS_SIGMOID ? 1.0f / (1.0f + exp(-v)) : v, y, at);
#endif
}

// The same for the first `count` of 16 neighbouring channels.
inline void finish16(int16 acc, int slot, int count, __constant float *q, __global const float *multipliers,
                     __global const float *biases, __global const made *residual, __global made *y, int at) {
#ifdef BYTES
  if (count == 16) {
    float16 v = convert_float16(acc) * vload16(0, multipliers + slot) + vload16(0, biases + slot);
    if (HAS_RESIDUAL) v += convert_float16(convert_int16(vload16(0, residual + at)) - (int)q[4]) * q[3];
    v = v != v ? (float16)0.0f : v;
    v = v < q[0] ? (float16)q[0] : v;
    v = v > q[1] ? (float16)q[1] : v;
    vstore16(convert_uchar16(as_int16(v + WHOLE) - as_int(WHOLE) + (int)q[2]), 0, y + at);
    return;
  }
#endif
  int lanes[16];
  vstore16(acc, 0, lanes);
  for (int lane = 0; lane < count; lane++)
    finish(lanes[lane], slot + lane, q, multipliers, biases, residual, y, at + lane);
}
