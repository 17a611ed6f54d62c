// Convolution on u8 of every channel on its own, channels last: a work-item computes LANES channels of PIXELS
// neighbours in a row. Where the channels are no multiple, the last vector overlaps the one before it.
//
// Weights are `[tap][channel]`. A product of steps and a weight fits 16 bits.

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define SHORTS PASTE(short, LANES)
#define INTS PASTE(int, LANES)
#define LOAD_LANES PASTE(vload, LANES)
#define TO_SHORTS PASTE(convert_short, LANES)
#define TO_INTS PASTE(convert_int, LANES)

// Stores the sums of the channels from `k` on.
inline void store(INTS sums, int k, __constant float *q, __global const float *multipliers,
                  __global const float *biases, __global const made *residual, __global made *y, int at) {
#if LANES == 16
  finish16(sums, k, 16, q, multipliers, biases, residual, y, at);
#else
  finish(sums.x, k, q, multipliers, biases, residual, y, at);
  finish(sums.y, k + 1, q, multipliers, biases, residual, y, at + 1);
  finish(sums.z, k + 2, q, multipliers, biases, residual, y, at + 2);
  finish(sums.w, k + 3, q, multipliers, biases, residual, y, at + 3);
#endif
}

__kernel void depthwise(__constant int *g, __constant float *q, __global const uchar *x, int x_at,
                        __global const char *w, __global const float *multipliers, __global const float *biases,
                        __global const made *residual, int residual_at, __global made *y, int y_at) {
  int i = get_global_id(0), vectors = (K + LANES - 1) / LANES, runs = (OW + PIXELS - 1) / PIXELS;
  const int k = min(i % vectors * LANES, K - LANES);
  i /= vectors;
  const int first = i % runs * PIXELS, oh = i / runs % OH, n = i / runs / OH;
  const int width = W, row = XH, pixel = XW, step = SW, left = first * SW - PL;
  const short zero = (short)ZERO_POINT;
  x += x_at + n * XN + k, w += k;
  INTS sums[PIXELS];
#pragma unroll
  for (int p = 0; p < PIXELS; p++) sums[p] = 0;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      SHORTS weights = TO_SHORTS(LOAD_LANES(0, w + (r * KW + s) * K));
#pragma unroll
      for (int p = 0; p < PIXELS; p++) {
        int v = left + p * step + s * DW;
        if (v < 0 || v >= width) continue;
        SHORTS steps = TO_SHORTS(LOAD_LANES(0, x + h * row + v * pixel)) - zero;
        sums[p] += TO_INTS((SHORTS)(steps * weights));
      }
    }
  }
#pragma unroll
  for (int p = 0; p < PIXELS; p++) {
    if (first + p >= OW) break;
    store(sums[p], k, q, multipliers, biases, residual + residual_at, y + y_at,
          n * YN + oh * YH + (first + p) * YW + k);
  }
}
