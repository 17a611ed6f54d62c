// Convolution on u8 of every channel on its own, channels last: a work-item computes LANES channels of a pixel. Where
// the channels are no multiple, the last vector overlaps the one before it.
//
// Weights are `[tap][channel]`. A product of steps and a weight fits 16 bits.

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define SHORTS PASTE(short, LANES)
#define INTS PASTE(int, LANES)
#define LOAD_LANES PASTE(vload, LANES)
#define TO_SHORTS PASTE(convert_short, LANES)
#define TO_INTS PASTE(convert_int, LANES)

__kernel void depthwise(__constant int *g, __constant float *q, __global const uchar *x, int x_at,
                        __global const char *w, __global const float *multipliers, __global const float *biases,
                        __global const made *residual, int residual_at, __global made *y, int y_at) {
  int i = get_global_id(0), vectors = (K + LANES - 1) / LANES;
  int k = min(i % vectors * LANES, K - LANES);
  i /= vectors;
  int ow = i % OW, oh = i / OW % OH, n = i / OW / OH;
  x += x_at + n * XN + k, w += k;
  INTS sums = 0;
  short zero = (short)ZERO_POINT;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (v < 0 || v >= W) continue;
      SHORTS steps = TO_SHORTS(LOAD_LANES(0, x + h * XH + v * XW)) - zero;
      sums += TO_INTS((SHORTS)(steps * TO_SHORTS(LOAD_LANES(0, w + (r * KW + s) * K))));
    }
  }
  int at = n * YN + oh * YH + ow * YW + k;
#if LANES == 16
  finish16(sums, k, 16, q, multipliers, biases, residual + residual_at, y + y_at, at);
#else
  finish(sums.x, k, q, multipliers, biases, residual + residual_at, y + y_at, at);
  finish(sums.y, k + 1, q, multipliers, biases, residual + residual_at, y + y_at, at + 1);
  finish(sums.z, k + 2, q, multipliers, biases, residual + residual_at, y + y_at, at + 2);
  finish(sums.w, k + 3, q, multipliers, biases, residual + residual_at, y + y_at, at + 3);
#endif
}
