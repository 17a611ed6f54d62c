// What a device can do at most. `VALUE` is float, or a vector as wide as a CPU's registers.

__kernel void multiply_add(__global float *out, float a, int rounds) {
  VALUE x[8];
  for (int i = 0; i < 8; i++) x[i] = (VALUE)(get_global_id(0) + i);
  for (int k = 0; k < rounds; k++) {
    x[0] = fma(x[0], a, 0.5f), x[1] = fma(x[1], a, 0.5f), x[2] = fma(x[2], a, 0.5f), x[3] = fma(x[3], a, 0.5f);
    x[4] = fma(x[4], a, 0.5f), x[5] = fma(x[5], a, 0.5f), x[6] = fma(x[6], a, 0.5f), x[7] = fma(x[7], a, 0.5f);
  }
  VALUE sum = 0;
  for (int i = 0; i < 8; i++) sum += x[i];
  out[get_global_id(0)] = FIRST(sum);
}

__kernel void copy(__global const float4 *from, __global float4 *to) { to[get_global_id(0)] = from[get_global_id(0)]; }

#ifdef TENSOR_CORES
// Operands are ones; eight accumulators hide the latency.
#define ACCUMULATORS                        \
  float c[8][4];                            \
  for (int i = 0; i < 8; i++)               \
    for (int j = 0; j < 4; j++) c[i][j] = a;
#define RESULT                                \
  float sum = 0;                              \
  for (int i = 0; i < 8; i++)                 \
    for (int j = 0; j < 4; j++) sum += c[i][j]; \
  out[get_global_id(0)] = sum;

__kernel void multiply_f16(__global float *out, float a, int rounds) {
  uint one = 0x3c003c00;
  ACCUMULATORS
  for (int k = 0; k < rounds; k++) {
#pragma unroll
    for (int i = 0; i < 8; i++)
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%4,%4,%4},{%4,%4},{%0,%1,%2,%3};"
                   : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3]) : "r"(one));
  }
  RESULT
}

__kernel void multiply_tf32(__global float *out, float a, int rounds) {
  uint one = 0x3f800000;
  ACCUMULATORS
  for (int k = 0; k < rounds; k++) {
#pragma unroll
    for (int i = 0; i < 8; i++)
      asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%4,%4,%4},{%4,%4},{%0,%1,%2,%3};"
                   : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3]) : "r"(one));
  }
  RESULT
}
#endif
