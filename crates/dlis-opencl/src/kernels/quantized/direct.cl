// Convolution on u8 by its definition: a work-item an element of the output, any layouts, groups, strides, dilations.

// The weight at place `j` of the row `w`.
#ifdef FOUR_BITS
#define ROW_BYTES(columns) (((columns) + 1) / 2)
#define WEIGHT(w, j) ((int)(char)((uchar)(w)[(j) / 2] << ((j) % 2 ? 0 : 4)) >> 4)
#else
#define ROW_BYTES(columns) (columns)
#define WEIGHT(w, j) ((int)(w)[j])
#endif

__kernel void conv2d(__constant int *g, __constant float *q, __global const uchar *x, int x_at, __global const char *w,
                     __global const float *multipliers, __global const float *biases, __global const made *residual,
                     int residual_at, __global made *y, int y_at) {
  OUTPUT_PLACE(k, oh, ow, n)
  x += x_at + n * XN + (k / GROUP_OUT) * GROUP_IN * XC;
  w += (size_t)k * ROW_BYTES(GROUP_IN * KH * KW);
  int sum = 0, zero = ZERO_POINT;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (v < 0 || v >= W) continue;
      for (int c = 0; c < GROUP_IN; c++)
        sum += ((int)x[h * XH + v * XW + c * XC] - zero) * WEIGHT(w, (c * KH + r) * KW + s);
    }
  }
  finish(sum, k, q, multipliers, biases, residual + residual_at, y + y_at, n * YN + k * YC + oh * YH + ow * YW);
}
