// Pooling of u8 by its definition: a work-item an element of the output, any layouts.

// Where this work-item's window and its output are.
#define PLACE                        \
  OUTPUT_PLACE(k, oh, ow, n)         \
  x += x_at + n * XN + k * XC;       \
  int at = y_at + n * YN + k * YC + oh * YH + ow * YW;

__kernel void max_pool(__constant int *g, __global const uchar *x, int x_at, __global uchar *y, int y_at) {
  PLACE
  uchar best = 0;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (v >= 0 && v < W) best = max(best, x[h * XH + v * XW]);
    }
  }
  y[at] = best;
}

// `multipliers` has one for each number of elements that a mean is over; `whole` is that number where the padding
// counts among them, else 0.
__kernel void avg_pool(__constant int *g, __global const uchar *x, int x_at, __global uchar *y, int y_at,
                       __global const float *multipliers, int whole, int x_zero, int y_zero) {
  PLACE
  int sum = 0, seen = 0;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (v >= 0 && v < W) sum += x[h * XH + v * XW], seen++;
    }
  }
  float mean = times((float)(sum - seen * x_zero), multipliers[whole ? whole : seen]);
  y[at] = to_byte(mean, -(float)y_zero, 255.0f - (float)y_zero, y_zero);
}
